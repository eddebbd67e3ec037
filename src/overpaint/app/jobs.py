"""The jobs that run in the workers' processes: one generator function for each kind.

- Photos and results are passed as bytes, photos with the name that their sender gave them: these
  processes read and write no files but weights.
- A generator yields first what can be shown soonest.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from io import BytesIO
from pathlib import PurePath
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from overpaint import progress
from overpaint.app.table import Found, FoundFile
from overpaint.defaults import DEFAULT_DETECTOR
from overpaint.detection.api import Identity, identify, make_runner
from overpaint.detection.calibration import QUANTILE_LEVELS
from overpaint.detection.report import CAVEAT, Runner, make_record
from overpaint.detection.result import Detection, format_percent
from overpaint.detection.runner import DetectorRunner
from overpaint.detection.runtimes import name_runtime
from overpaint.errors import ImageError, InputError, TooLargeError
from overpaint.images import Photo, decode_image, read_mask_levels
from overpaint.images.decoding import find_pixel_limit
from overpaint.images.samples import Samples
from overpaint.inpainting.api import inpaint_file
from overpaint.inpainting.choice import AUTO
from overpaint.inpainting.holes import MAX_SHARE, THRESHOLD
from overpaint.provenance.encoding import FORMATS
from overpaint.provenance.marking import MANIFESTS, RECEIPT, make_preview, make_source
from overpaint.provenance.metadata import find_orientation
from overpaint.report.api import make_chapter, make_command, make_report, read_clock, render_report
from overpaint.report.contents import Examined, Parameters
from overpaint.report.views import (
    HEATMAP_WORDS,
    Drawing,
    Words,
    derive_views,
    encode_png,
    find_jpeg_grid,
)
from overpaint.weights.resolve import select

T = TypeVar("T")

_BYTES = "application/octet-stream"
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp", "AVIF": ".avif"}
"""Suffix of a result, by Pillow's name of the photo's format; for others it is a PNG."""
_MEDIA_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".webp": "image/webp",
    ".avif": "image/avif",
}
_PHOTO_WORDS = Words(
    "Photo",
    "The photo, upright, at full resolution.",
    "An object or a place where something could have been removed or added.",
    "Blocks and colour fringes, which come from JPEG and from lenses.",
)


@dataclass(frozen=True, slots=True)
class DetectJob:
    """A photo's file, and how to detect in it."""

    name: str
    photo: bytes = field(repr=False)
    model: str = DEFAULT_DETECTOR
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class InpaintJob:
    """A photo's file, a mask's file, and the inpainter."""

    name: str
    photo: bytes = field(repr=False)
    mask: bytes = field(repr=False)
    inpainter: str = AUTO


@dataclass(frozen=True, slots=True)
class ReportJob:
    """A photo's file, and the detector."""

    name: str
    photo: bytes = field(repr=False)
    model: str = DEFAULT_DETECTOR


def limit_pixels(max_pixels: int) -> None:
    """Limit the size of photos in this process, unless the environment sets a smaller limit."""
    os.environ["OVERPAINT_MAX_PIXELS"] = str(min(max_pixels, find_pixel_limit(None)))


def prepare_detection(max_pixels: int, runtime: str = "torch") -> None:
    """Load the default detector before the first job. Raises `OverpaintError`."""
    limit_pixels(max_pixels)
    _load_runner(DEFAULT_DETECTOR, None, runtime)


def detect(job: DetectJob, runtime: str = "torch") -> Iterator[Found]:
    """Yield first the result with photo, heatmap and mask; then the other views.

    Raises `ImageError` and `InputError` for a photo that cannot be examined.
    """
    photo = _read_for_sender(lambda: decode_image(job.photo, job.name), job.name)
    runner = _load_runner(job.model, job.threshold, runtime)
    with progress.map_to(0.05, 0.8):
        found = runner.run(photo)
    said = _make_result(found, photo, runner)
    stem = PurePath(job.name).stem
    yield Found(
        said,
        (
            encode_shown_photo(job.photo, photo, stem),
            _encode_png("heatmap", np.rint(found.heatmap * 65535).astype(np.uint16), stem),
            _encode_png("mask", found.mask.astype(np.uint8) * 255, stem),
        ),
    )
    drawing = Drawing(1, lambda levels: encode_png(levels, quick=True), "image/png")
    words = [("photo", _PHOTO_WORDS), ("heatmap", HEATMAP_WORDS)]
    for view in derive_views(photo.pixels, find_jpeg_grid(photo.pixels), drawing):
        words.append((view.name, view.words))
        file = FoundFile(f"{view.name}.png", view.picture, view.mime, f"{stem}.{view.name}.png")
        yield Found(None, (file,))
        progress.tell(0.8 + 0.03 * len(words))
    yield Found(said | {"views": [{"name": name, **asdict(one)} for name, one in words]})


def _make_result(found: Detection, photo: Photo, runner: Runner) -> dict[str, Any]:
    """The fields of `schemas.DetectResult`."""
    said = {key: value for key, value in make_record(found).items() if key != "path"}
    fitted = runner.get_fitted_band(found.quality) if isinstance(runner, DetectorRunner) else None
    curve = fitted and {
        "logits": list(fitted.untouched_quantiles),
        "levels": list(QUANTILE_LEVELS),
    }
    return said | {
        "meaning": found.meaning,
        "caveat": CAVEAT,
        "edits_words": found.edits_words,
        "false_alarm_curve": curve,
        "heatmap": {"width": photo.width, "height": photo.height, "bits": 16, "top": 65535},
        "views": [],
    }


def encode_shown_photo(data: bytes, photo: Photo, stem: str) -> FoundFile:
    """The photo as a file that every browser shows upright: its own, or its pixels as PNG.

    All browsers apply the EXIF orientation of a JPEG, but not of all other formats
    (`images.decoding`).
    """
    if photo.format == "JPEG" and _is_plain(data):
        return FoundFile("photo.jpg", data, "image/jpeg", f"{stem}.jpg")
    pixels = photo.pixels
    if photo.alpha is not None:
        pixels = np.dstack([pixels, photo.alpha])
    return _encode_png("photo", pixels, stem)


def _is_plain(data: bytes) -> bool:
    """Whether a JPEG is grey or in YCbCr; browsers differ in others."""
    return Image.open(BytesIO(data), formats=["JPEG", "MPO"]).mode in ("L", "RGB")


def _encode_png(name: str, array: np.ndarray, stem: str) -> FoundFile:
    return FoundFile(
        f"{name}.png", encode_png(array, quick=True), "image/png", f"{stem}.{name}.png"
    )


def inpaint(job: InpaintJob) -> Iterator[Found]:
    """Yield the result, marked as edited, and its receipt.

    Raises `ImageError` and `InputError` for a photo and mask that cannot be filled.
    """
    source = _read_for_sender(lambda: make_source(job.photo, job.name), job.name)
    _check_mask(job.mask, source.photo)
    progress.tell(0.05)
    name = name_result(job.name, source.photo.format)
    with progress.map_to(0.05, 0.9):
        done, edited = inpaint_file(source, job.mask, name, model=job.inpainter)
    picture = f"result{PurePath(name).suffix}"
    kind = _MEDIA_TYPES[PurePath(name).suffix]
    files = [
        FoundFile(picture, edited.data, kind, name),
        FoundFile("receipt.json", edited.receipt_file, "application/json", name + RECEIPT),
    ]
    if edited.manifests is not None:
        kept = FoundFile("source.c2pa", edited.manifests, _BYTES, name + MANIFESTS)
        files.append(kept)
    shown = picture
    if not _is_shown_upright(edited.data, kind):
        bits = 8 if done.samples.dtype == np.uint8 else source.samples.bits
        source_type = edited.receipt["digital_source_type"]
        preview = make_preview(Samples(done.samples, bits), done.model, source_type)
        shown = "after.png"
        files.append(FoundFile(shown, preview, "image/png", f"{PurePath(name).stem}.png"))
    said = {
        "file": job.name,
        "words": done.words,
        "width": done.mask.shape[1],
        "height": done.mask.shape[0],
        "fraction": done.fraction,
        "num_holes": done.num_holes,
        "radius": done.radius,
        "inpainter": done.model,
        "weights_sha256": done.weights_sha256,
        "sha256": edited.receipt["sha256"],
        "picture": picture,
        "shown": shown,
        "notes": list(done.notes),
        "seconds": round(done.seconds, 3),
    }
    yield Found(said, tuple(files))


def _check_mask(data: bytes, photo: Photo) -> None:
    """Refuse a mask that `inpaint` refuses with an option of the command line as remedy."""
    levels, _ = _read_for_sender(lambda: read_mask_levels(data), "the mask")
    if levels.shape != photo.pixels.shape[:2]:
        return  # `inpaint` refuses it with a remedy that applies here, too
    share = float((levels >= THRESHOLD).mean())
    if not share:
        raise InputError("the mask is empty; paint what is to be removed in white, on black")
    if share > MAX_SHARE:
        raise InputError(
            f"the mask covers {format_percent(share)} of the photo, and at most "
            f"{format_percent(MAX_SHARE)} can be filled; white is what is removed, so paint less "
            "of it"
        )


def name_result(name: str, kind: str) -> str:
    """The file name of a photo's result. kind: Pillow's name of the photo's format."""
    path = PurePath(name)
    own, suffix = path.suffix.lower(), _SUFFIXES.get(kind, ".png")
    if own in FORMATS and FORMATS[own] == FORMATS[suffix]:
        suffix = own
    return f"{path.stem}.overpaint{suffix}"


def _is_shown_upright(data: bytes, media_type: str) -> bool:
    """Whether every browser shows a file upright (see `images.decoding`)."""
    if media_type in ("image/jpeg", "image/avif"):
        return True
    return media_type != "image/tiff" and find_orientation(data) == 1


def report(job: ReportJob, runtime: str = "torch") -> Iterator[Found]:
    """Yield the page and the JSON file. Raises `ImageError` and `InputError`."""
    started, runner = read_clock(), _load_runner(job.model, None, runtime)
    with progress.map_to(0, 0.98):
        found = _read_for_sender(lambda: make_chapter(1, job.photo, job.name, runner), job.name)
    stem = PurePath(job.name).stem
    page_name = f"{stem}.report.html"
    taken = name_runtime(runner.module) if isinstance(runner, DetectorRunner) else runtime
    again = make_command([job.name], PurePath(page_name), [job.model], runtime=taken)
    parameters = Parameters([job.model], None, None)
    whole = make_report([found], runner, parameters, command=again, started=started)
    page, text = render_report(whole, [found], f"{stem}.report.json")
    about = found.about
    assert isinstance(about, Examined), "what fails raises"
    said = {
        "file": job.name,
        "sha256": about.file.sha256,
        "grade": about.opinion.grade,
        "words": about.opinion.words,
        "verdict": about.finding.verdict,
        "seconds": found.seconds,
    }
    yield Found(
        said,
        (
            FoundFile("report.html", page, "text/html; charset=utf-8", page_name),
            FoundFile("report.json", text, "application/json", f"{stem}.report.json"),
        ),
    )


def _read_for_sender(read: Callable[[], T], name: str) -> T:
    """The result of `read`, with errors that name the sender's file and fit a sender."""
    try:
        return read()
    except TooLargeError as error:
        most = f"more than {find_pixel_limit(None):,} pixels"
        raise TooLargeError(f"{name}: {most}; give a smaller one") from error
    except ImageError as error:
        raise ImageError(str(error).replace("the bytes given", name, 1)) from error


def _load_runner(model: str, threshold: float | None, runtime: str) -> Runner:
    """It stays in memory until its weights or calibration are replaced."""
    return _make_runner(model, threshold, runtime, identify(select([model])))


@lru_cache(maxsize=2)
def _make_runner(
    model: str, threshold: float | None, runtime: str, _: tuple[Identity, ...]
) -> Runner:
    return make_runner([model], threshold=threshold, runtime=runtime)
