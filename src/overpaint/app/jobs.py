"""What the workers' processes do with a photo: one generator for each kind of job.

- A photo comes as bytes, with the name that its sender gave it, and what was found goes as bytes:
  these processes read and write no file but weights.
- What can be shown soonest comes first.
"""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import PurePath
from typing import Any

import numpy as np
from PIL import Image

from overpaint import progress
from overpaint.app.table import Found, FoundFile
from overpaint.detection.api import make_runner
from overpaint.detection.report import CAVEAT, Runner, record
from overpaint.detection.result import MEANINGS, Detection
from overpaint.detection.runner import DEFAULT_MODEL
from overpaint.errors import TooLargeError
from overpaint.images import Photo, decode_image
from overpaint.images.decoding import pixel_limit
from overpaint.report.views import HEATMAP_WORDS, Drawing, Words, derived_views, jpeg_grid, png

_QUICK = 1
"""Compression of PNG: what is sent over the loopback interface need not be small."""
_PHOTO_WORDS = Words(
    "Photo",
    "The photo, upright, one pixel for each pixel.",
    "An object or a place where something could have been removed or added.",
    "Blocks and colour fringes, which come from JPEG and from lenses.",
)


@dataclass(frozen=True, slots=True)
class DetectJob:
    """A photo's file, and what to look for in it."""

    name: str
    photo: bytes
    model: str = DEFAULT_MODEL
    threshold: float | None = None


def limit_pixels(max_pixels: int) -> None:
    """Let no photo in this process have more, unless the environment allows even less."""
    os.environ["OVERPAINT_MAX_PIXELS"] = str(min(max_pixels, pixel_limit(None)))


def prepare_detection(max_pixels: int) -> None:
    """Load what most jobs need. Raises `OverpaintError`."""
    limit_pixels(max_pixels)
    _runner(DEFAULT_MODEL, None)


def detect(job: DetectJob) -> Iterator[Found]:
    """First what was found, with the photo, the heatmap and the mask; then the other views.

    Raises `ImageError` and `InputError` for what cannot be examined.
    """
    photo = _decoded(job.photo, job.name)
    with progress.part(0.05, 0.8):
        found = _runner(job.model, job.threshold).run(photo)
    said = _said(found, photo)
    stem = PurePath(job.name).stem
    yield Found(
        said,
        (
            shown_photo(job.photo, photo, stem),
            _png("heatmap", np.rint(found.heatmap * 65535).astype(np.uint16), stem),
            _png("mask", found.mask.astype(np.uint8) * 255, stem),
        ),
    )
    drawing = Drawing(1, lambda levels: png(levels, _QUICK), "image/png")
    words = [("photo", _PHOTO_WORDS), ("heatmap", HEATMAP_WORDS)]
    for view in derived_views(photo.pixels, jpeg_grid(photo.pixels), drawing):
        words.append((view.name, view.words))
        file = FoundFile(f"{view.name}.png", view.picture, view.mime, f"{stem}.{view.name}.png")
        yield Found(None, (file,))
        progress.tell(0.8 + 0.03 * len(words))
    yield Found(said | {"views": [{"name": name, **asdict(one)} for name, one in words]})


def _decoded(data: bytes, name: str) -> Photo:
    try:
        return decode_image(data, name)
    except TooLargeError as error:  # its remedy is one for who started the server
        most = f"more than {pixel_limit(None):,} pixels"
        raise TooLargeError(f"{name}: {most}; give a smaller photo") from error


def _said(found: Detection, photo: Photo) -> dict[str, Any]:
    """As `schemas.DetectResult`."""
    said = {key: value for key, value in record(found).items() if key != "path"}
    return said | {
        "meaning": MEANINGS.get(found.band) or f"There is no verdict: {found.reason}.",
        "caveat": CAVEAT,
        "heatmap": {"width": photo.width, "height": photo.height, "bits": 16, "top": 65535},
        "views": [],
    }


def shown_photo(data: bytes, photo: Photo, stem: str) -> FoundFile:
    """The photo as every browser shows it upright: its own file, or its pixels as PNG.

    All turn a JPEG as its EXIF says, and not all any other format (`images.decoding`).
    """
    if photo.format == "JPEG" and _is_plain(data):
        return FoundFile("photo.jpg", data, "image/jpeg", f"{stem}.jpg")
    pixels = photo.pixels
    if photo.alpha is not None:
        pixels = np.dstack([pixels, photo.alpha])
    return _png("photo", pixels, stem)


def _is_plain(data: bytes) -> bool:
    """Whether a JPEG is grey or in YCbCr; browsers differ in others."""
    return Image.open(BytesIO(data), formats=["JPEG", "MPO"]).mode in ("L", "RGB")


def _png(name: str, array: np.ndarray, stem: str) -> FoundFile:
    return FoundFile(f"{name}.png", png(array, _QUICK), "image/png", f"{stem}.{name}.png")


@lru_cache(maxsize=2)
def _runner(model: str, threshold: float | None) -> Runner:
    return make_runner([model], threshold=threshold)
