"""The part "edits": verdicts on photos that were edited, but not inpainted.

- Photos of the test split, evenly spaced over it, cropped to at most `SIDE` pixels, after each kind
  of `data.ordinary_edits`. Montages and collages also use the next photo. "unedited" are the same
  crops without an edit.
- Each is stored without loss and as a JPEG file; each gets the threshold of its quality band.
- `strong@...` and `inconclusive@...` are the shares of these verdicts. For an inpainting detector
  every "strong trace" here is a false alarm.
"""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from overpaint.data.crops import crop_middle
from overpaint.data.degrade import jpeg
from overpaint.data.ordinary_edits import ORDINARY_EDITS, WORDS, apply_edit
from overpaint.data.sources import PhotoSource, shorten_name
from overpaint.detection.calibration import LOSSLESS, find_quality_band
from overpaint.errors import ConfigError
from overpaint.evaluation.measurement import Measurement, Result, score_judged
from overpaint.evaluation.rows import Picture, make_row

NUM = 40
"""Number of photos where the settings give no limit."""
SIDE = 640
"""Longest side of the crops, pixels."""
JPEG = 90
"""Quality, 1 to 100."""
UNEDITED = "unedited"
BANDS = {"strong": "strong trace", "inconclusive": "inconclusive"}


def measure_edits(job: Measurement) -> Result:
    """Shares of "strong trace" and "inconclusive" for each kind of edit.

    Raises ConfigError for a detector without a calibration.
    """
    runner, photos = job.make_runner(), job.find_photos()
    if runner.calibration is None:
        raise ConfigError(f"{runner.name}: no calibration, so no verdicts; fit one first")
    num = min(len(photos), job.settings.limit or NUM)
    verdicts: dict[tuple[str, str], list[str]] = defaultdict(list)
    pictures = []
    for place in range(num):
        index = place * len(photos) // num
        if place % 5 == 0:
            job.report(f"edits: {place} of {num} photos")
        for kind, pixels in _make_versions(photos, index, job.settings.seed):
            for stored, quality, seen in _store(pixels):
                judged = runner.judge(runner.logits(seen), quality)
                verdicts[kind, stored].append(runner.decide_verdict(judged, quality, seen))
                name = f"{stored}/{shorten_name(photos.names[index])}"
                numbers = score_judged(judged)
                pictures.append(Picture("edits", kind, job.name, name, numbers))
    protocol = (
        f"{num} photos of the test split, centre crops of at most {SIDE} px, edited and stored "
        f"without loss or as JPEG {JPEG}; share of verdicts"
    )
    source = job.make_source("edits", protocol, runner)
    rows = [
        make_row(
            source, WORDS.get(kind, kind), f"{metric}@{stored}", [float(v == band) for v in said]
        )
        for (kind, stored), said in verdicts.items()
        for metric, band in BANDS.items()
    ]
    return rows, pictures


def _make_versions(photos: PhotoSource, index: int, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """(kind, pixels): the crop of a photo, unedited and after each edit."""
    pixels, other = (crop_middle(photos.read(i % len(photos)), SIDE) for i in (index, index + 1))
    yield UNEDITED, pixels
    for number, kind in enumerate(ORDINARY_EDITS):
        yield kind, apply_edit(kind, pixels, np.random.default_rng([seed, index, number]), other)


def _store(pixels: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """(label, quality band, pixels) of each file."""
    yield "lossless", LOSSLESS, pixels
    yield f"jpeg{JPEG}", find_quality_band(JPEG, True), jpeg(pixels, JPEG)
