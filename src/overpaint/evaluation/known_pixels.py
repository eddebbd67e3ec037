"""A check that `overpaint inpaint` changes no known pixel of a photo.

- Photos of the test split at their own size and format, with free-form holes.
- Each is filled by `inpaint`, as a user's photo is, and written as a PNG file, which is read again.
  The pixels outside the hole that differ from the photo's are counted.
"""

import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from overpaint.data.masks import brush
from overpaint.evaluation.measurement import Report, find_test_photos
from overpaint.evaluation.rows import Row, Source, write_results
from overpaint.images import read_image
from overpaint.inpainting.api import inpaint
from overpaint.inpainting.inpainter_runner import InpainterRunner, make_runner
from overpaint.run_identity import find_commit, hash_config
from overpaint.weights import list_records

SET = "known_pixels"


def list_default_models() -> list[str]:
    """The models checked by default: the shipped inpainters, or the fastest method if none."""
    shipped = [r.name for r in list_records() if r.kind == "inpainter"]
    return shipped or ["telea"]


def count_changed(photo: Path, mask: np.ndarray, model: str | Path, out: Path) -> tuple[int, int]:
    """(number of known pixels that differ, number of known pixels) after filling to `out`, a PNG.

    mask: uint8 (h, w), 1 = hole. Known pixels lie outside the mask after it was grown. Errors as
    for `inpaint`.
    """
    known = inpaint(photo, mask, model=model, out=out).mask == 0
    differs = (read_image(out).pixels != read_image(photo).pixels).any(axis=2)
    return int(np.count_nonzero(differs & known)), int(np.count_nonzero(known))


def measure_known_pixels(
    models: Iterable[str | Path],
    data: str | Path,
    out: str | Path,
    *,
    num: int = 50,
    seed: int = 0,
    report: Report = lambda _: None,
) -> list[Row]:
    """For each inpainter the known pixels "changed" and "compared" over `num` test photos.

    The rows are written to `out`/known_pixels.csv; n is the number of photos. Raises
    OverpaintError.
    """
    photos, rows = find_test_photos(Path(data)), []
    runners = {model: make_runner(model) for model in models}  # before the first photo is filled
    chosen = np.random.default_rng(seed).permutation(len(photos))[:num].tolist()
    for model, runner in runners.items():
        report(f"{SET}: {runner.name}, {len(chosen)} photos")
        counts = np.zeros(2, np.int64)
        with tempfile.TemporaryDirectory() as folder:
            for index in chosen:
                height, width = photos.read(index).shape[:2]
                mask = brush(height, width, np.random.default_rng([seed, index]))
                out_file = Path(folder) / f"{index}.png"
                counts += count_changed(Path(photos.names[index]), mask, model, out_file)
        rows += _make_rows(runner, counts.tolist(), len(chosen), seed)
    write_results(Path(out), rows, [])
    return rows


def _make_rows(runner: InpainterRunner, counts: list[int], num: int, seed: int) -> list[Row]:
    source = Source(
        set=SET,
        weights=runner.name,
        commit=find_commit(),
        config_hash=hash_config({"part": SET, "num": num, "seed": seed}),
        weights_sha256=runner.weights_sha256 or "",
        protocol="test photos at their own size, a free-form hole each, written as PNG",
    )
    return [
        Row(
            method="written PNG",
            metric=metric,
            value=float(count),
            n=num,
            ci_low=float("nan"),
            ci_high=float("nan"),
            **asdict(source),
        )
        for metric, count in zip(("changed", "compared"), counts, strict=True)
    ]
