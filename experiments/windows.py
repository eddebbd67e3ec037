"""In how large a window should logits be averaged before the threshold?

    python experiments/windows.py DATA runs/forged/train

For each window: the threshold that 1 % of untouched validation variants reach (lossless, as in
`overpaint calibrate`), and the mean F1 at it, with whole regions marked, for the choice half of the
triplets and for forgeries of validation photos, unchanged and after JPEG 95 and 85.
The results are in docs/experiments.md.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import typer

from overpaint.data.degrade import jpeg
from overpaint.data.forgeries import read_forgeries
from overpaint.data.sources import PhotoSource
from overpaint.defaults import DEFAULT_DETECTOR
from overpaint.detection.calibration import HIGH, LOSSLESS, MEDIUM, average_logits, judge, q99
from overpaint.detection.runner import DetectorRunner
from overpaint.evaluation.fit_calibration import (
    FALSE_ALARMS,
    fit_threshold,
    make_untouched_variants,
)
from overpaint.evaluation.robustness import find_forged_folders
from overpaint.evaluation.triplets import HEADLINE, read_triplets
from overpaint.images import read_image, read_mask
from overpaint.metrics import count, overlap

WINDOWS = (1, 5, 9, 13, 17, 25, 33)
STORED = {LOSSLESS: "as is", HIGH: "JPEG 95", MEDIUM: "JPEG 85"}

Shown = tuple[str, str, np.ndarray, np.ndarray]
"""Column, quality band, pixels and mask of a picture."""


def thresholds(runner: DetectorRunner, data: Path) -> dict[tuple[str, int], float]:
    """Thresholds, logits, by quality band and window, on the variants of `overpaint calibrate`."""
    photos = PhotoSource.from_paths([data / "photos", data / "faces"], "validation", seed=0)
    untouched: dict[tuple[str, int], list[float]] = defaultdict(list)
    for index in range(len(photos)):
        for band, pixels in make_untouched_variants(photos.read_photo(index), 3, 0, index):
            if band in STORED:
                logits = runner.logits(pixels)
                for window in WINDOWS:
                    untouched[band, window].append(q99(average_logits(logits, window)))
    return {key: fit_threshold(np.array(values), FALSE_ALARMS) for key, values in untouched.items()}


def pictures(data: Path, folders: list[Path]) -> Iterator[tuple[str, Shown]]:
    """(group, picture): in a column each group has the same weight."""
    for triplet in read_triplets(data, HEADLINE):
        if triplet.half == "choice":
            pixels = read_image(triplet.inpainted).pixels
            mask = read_mask(triplet.mask, size=pixels.shape[:2])
            yield triplet.group, ("choice half", LOSSLESS, pixels, mask)
    for folder in folders:
        for row in read_forgeries(folder, "validation"):
            pixels = read_image(folder / row.inpainted).pixels
            mask = read_mask(folder / row.mask, size=pixels.shape[:2])
            for band, name in STORED.items():
                stored = jpeg(pixels, int(name[-2:])) if band != LOSSLESS else pixels
                yield row.inpainter, (f"forged, {name}", band, stored, mask)


def main(data: Path, forged: list[Path], weights: str = DEFAULT_DETECTOR) -> None:
    """Print a table; columns as in the header above."""
    runner = DetectorRunner(weights)
    limits = thresholds(runner, data)
    found: dict[tuple[int, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for group, (column, band, pixels, mask) in pictures(data, find_forged_folders(forged)):
        logits = runner.logits(pixels)
        for window in WINDOWS:
            judged = judge(logits, limits[band, window], window)
            f1 = overlap(count(judged.mask, mask))["f1"]
            found[window, column][group].append(f1)
    columns = list(dict.fromkeys(column for _, column in found))
    typer.echo("window  threshold  " + "  ".join(columns))
    for window in WINDOWS:
        means = [np.mean([np.mean(v) for v in found[window, c].values()]) for c in columns]
        cells = "  ".join(f"{m:{len(c)}.3f}" for m, c in zip(means, columns, strict=True))
        typer.echo(f"{window:6d}  {limits[LOSSLESS, window]:9.2f}  {cells}")


if __name__ == "__main__":
    typer.run(main)
