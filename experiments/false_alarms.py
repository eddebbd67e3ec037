"""Training photos with the highest statistic of a detector: weights for `untouched.often`.

    python experiments/false_alarms.py WEIGHTS --photos FOLDER --out false-alarms.csv

The statistic, which is compared with the threshold, is measured for one lossless variant, as in the
calibration, of each photo of the training part. The tenth of the photos with the highest values
gets the weight 10, all others 1: then half of the draws are of that tenth.
"""

import csv
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

SHARE, WEIGHT = 0.1, 10.0
SIDE = 640
"""Longest side of the part of a variant that is measured, pixels; limited to save time."""


def main(
    weights: Annotated[str, typer.Argument(help="Detector: shipped name, or weights file.")],
    photos: Annotated[list[Path], typer.Option(help="Folder of photos; repeatable.")],
    out: Annotated[Path, typer.Option(help="CSV file to write.")],
    exclude: Annotated[list[str] | None, typer.Option(help="File name; repeatable.")] = None,
) -> None:
    """Measure the statistic of every photo, and write the weights."""
    from overpaint.data.photo_sets import collect_photos
    from overpaint.detection.runner import DetectorRunner
    from overpaint.evaluation.fit_calibration import make_untouched_variants

    runner = DetectorRunner(weights)
    source = collect_photos(photos, part="train", exclude=exclude or ())
    statistics = []
    for number in range(len(source)):
        variants = make_untouched_variants(source.read_photo(number), 1, 5, number)
        pixels = next(pixels for band, pixels in variants if band == "lossless")
        logits = runner.logits(np.ascontiguousarray(pixels[:SIDE, :SIDE]))
        statistics.append(runner.judge(logits, "lossless").statistic)
    limit = np.quantile(statistics, 1 - SHARE)
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("photo", "weight", "statistic"))
        for name, statistic in zip(source.names, statistics, strict=True):
            weight = WEIGHT if statistic >= limit else 1.0
            writer.writerow((Path(name).name, weight, round(statistic, 3)))
    quantiles = np.round(np.quantile(statistics, [0.5, 0.9, 0.95, 0.99]), 2)
    typer.echo(f"{len(statistics)} photos: median, 90, 95, 99 %: {quantiles.tolist()}")


if __name__ == "__main__":
    typer.run(main)
