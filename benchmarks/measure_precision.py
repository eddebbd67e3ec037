"""How much figures change in bfloat16 (`--runtime torch-bf16`), compared with fp32.

    python benchmarks/measure_precision.py --data DATA

- Untouched photos: those of the test split of photos/ and faces/, as they are. Real fills: the pool
  `dev` of fills/, which weights are chosen by; the default detector was trained on other fills by
  one of the generators, LaMa.
- Of each picture: the mean and the largest difference of a logit, the difference of the statistic
  that the verdict depends on, whether the verdict is another, and the AUC of a fill's pixels with
  either precision. A picture with another verdict is printed.
- Rows are written to results/precision.csv: means over pictures with 95 % intervals, and the
  largest difference of all.
"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from overpaint.data.real_fills import read_fills
from overpaint.defaults import DEFAULT_DETECTOR
from overpaint.detection.bf16 import Bf16Detector
from overpaint.detection.runner import DetectorRunner
from overpaint.detectors.base import Detector
from overpaint.errors import OverpaintError
from overpaint.evaluation.measurement import find_test_photos
from overpaint.evaluation.rows import Row, Source, make_row, write_results
from overpaint.images.from_arrays import Photo, as_photo
from overpaint.metrics import pixel_auc
from overpaint.run_identity import find_commit, hash_config

ROOT = Path(__file__).parents[1]

Subject = tuple[str, Photo, np.ndarray | None]
"""Name, picture and mask."""


def read_untouched(data: Path, limit: int | None) -> Iterator[Subject]:
    photos = find_test_photos(data)
    for index in range(len(photos))[:limit]:
        yield photos.names[index], photos.read_photo(index), None


def read_real_fills(data: Path, limit: int | None) -> Iterator[Subject]:
    for fill in read_fills(data / "fills", ["dev"])[:limit]:
        pixels, mask = fill.read()
        yield fill.id, as_photo(pixels), mask


def compare(
    plain: DetectorRunner, reduced: DetectorRunner, subjects: Iterator[Subject]
) -> dict[str, list[float]]:
    """Figures of each picture."""
    found: dict[str, list[float]] = {}
    for name, photo, mask in subjects:
        one, other = plain.assess(photo), reduced.assess(photo)
        difference = np.abs(one.seen.logits - other.seen.logits)
        verdicts = [r.conclude(photo, a).verdict.band for r, a in ((plain, one), (reduced, other))]
        figures = {
            "logit, mean": float(difference.mean()),
            "logit, largest": float(difference.max()),
            "statistic": abs(one.judged.statistic - other.judged.statistic),
            "other verdict": float(verdicts[0] != verdicts[1]),
        }
        if mask is not None:
            figures["auc, fp32"] = pixel_auc(one.seen.logits, mask)
            figures["auc, bf16"] = pixel_auc(other.seen.logits, mask)
        if verdicts[0] != verdicts[1]:
            typer.echo(f"{name}: {verdicts[0]} in fp32, {verdicts[1]} in bf16")
        for key, value in figures.items():
            found.setdefault(key, []).append(value)
    return found


def main(
    data: Annotated[Path, typer.Option(help="Folder with photos/, faces/ and fills/.")],
    model: Annotated[str, typer.Option(help="Name or weights file.")] = DEFAULT_DETECTOR,
    threads: Annotated[int, typer.Option(min=1, help="Of the network.")] = 2,
    limit: Annotated[int | None, typer.Option(min=1, help="Pictures of a kind at most.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the CSV files.")] = ROOT / "results",
) -> None:
    """Measure, print and write the rows."""
    torch.set_num_threads(threads)
    plain, reduced = DetectorRunner(model), DetectorRunner(model)
    assert isinstance(reduced.module, Detector)
    reduced.module = Bf16Detector(reduced.module)
    source = Source(
        "precision",
        plain.name,
        find_commit(),
        hash_config({"limit": limit}),
        plain.weights_sha256 or "",
        "untouched: test split, as is; fills: pool dev; differences of bf16 from fp32, absolute",
        plain.calibration_sha256 or "",
    )
    rows: list[Row] = []
    for kind, read in (("untouched photos", read_untouched), ("real fills", read_real_fills)):
        for key, values in compare(plain, reduced, read(data, limit)).items():
            row = make_row(source, kind, key, values)
            rows.append(row)
            if key == "statistic":
                largest = max(values)
                nan = float("nan")
                rows.append(
                    Row(method=kind, metric="statistic, largest", value=largest, n=len(values),
                        ci_low=nan, ci_high=nan, **asdict(source))
                )  # fmt: skip
            typer.echo(f"{kind}, {len(values)}: {key:<20} {row.value:.4g}, up to {max(values):.4g}")
    write_results(out, rows, [])


if __name__ == "__main__":
    try:
        typer.run(main)
    except OverpaintError as error:
        raise SystemExit(str(error)) from error
