"""Whether the finding stays when the photo is changed without adding or removing anything.

- The changes: JPEG of quality 95 and 85 (chroma 4:2:0), scaling to 0.9 (Lanczos), and a crop of the
  first row and column, which shifts every pixel by one.
- After JPEG the thresholds of the new quality band apply; after the other changes those of the
  photo's own band, as its JPEG history is unchanged.
- Masks are compared at the photo's own size; the mask of a scaled photo is resized by nearest
  neighbour.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from overpaint import progress
from overpaint.detection.report import Record, Runner, make_record
from overpaint.detection.result import FAILURES
from overpaint.errors import InputError
from overpaint.images import Photo, decode_image
from overpaint.images.files import MAX_JPEG_SIDE
from overpaint.images.regions import Region
from overpaint.metrics import count, overlap
from overpaint.report.contents import Change

SHIFT = "shift by one pixel"
STAYS = 0.5
"""Share of a region's pixels that has to stay marked for the region to count as staying."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A change of the photo and what was found after it."""

    change: Change
    mask: np.ndarray | None = field(repr=False)
    """bool (h, w), at the size of the photo itself; None where the change could not be tried."""
    seconds: float

    def stays(self, mask: np.ndarray, region: Region) -> float | None:
        """Share of the marked pixels in a region's box that stay marked; mask: bool (h, w), before
        the change. None where it could not be tried."""
        if self.mask is None:
            return None
        rows = slice(region.y, region.y + region.height)
        columns = slice(region.x, region.x + region.width)
        before = mask[rows, columns]
        return round(float(self.mask[rows, columns][before].mean()), 4)


def _make_jpeg_change(quality: int) -> Callable[[Photo], Photo]:
    def change(photo: Photo) -> Photo:
        if max(photo.width, photo.height) > MAX_JPEG_SIDE:
            raise InputError(f"a JPEG has at most {MAX_JPEG_SIDE:,} pixels on a side")
        buffer = io.BytesIO()
        Image.fromarray(photo.pixels).save(buffer, "JPEG", quality=quality, subsampling=2)
        # The photo itself was within the limit of its reader, which may be another than ours.
        size = photo.width * photo.height
        changed = decode_image(buffer.getvalue(), photo.path, max_pixels=size)
        return replace(changed, alpha=photo.alpha)

    return change


def _scale(photo: Photo) -> Photo:
    size = (max(1, round(0.9 * photo.width)), max(1, round(0.9 * photo.height)))
    pixels = Image.fromarray(photo.pixels).resize(size, Image.Resampling.LANCZOS)
    alpha = photo.alpha
    if alpha is not None:
        alpha = np.array(Image.fromarray(alpha).resize(size, Image.Resampling.NEAREST))
    return replace(photo, pixels=np.array(pixels), alpha=alpha)


def _shift(photo: Photo) -> Photo:
    if min(photo.width, photo.height) < 2:
        raise InputError("there is no pixel to leave out")
    alpha = None if photo.alpha is None else photo.alpha[1:, 1:].copy()
    return replace(photo, pixels=photo.pixels[1:, 1:].copy(), alpha=alpha)


CHANGES: dict[str, Callable[[Photo], Photo]] = {
    "JPEG 95": _make_jpeg_change(95),
    "JPEG 85": _make_jpeg_change(85),
    "resize to 0.9": _scale,
    SHIFT: _shift,
}


def try_changes(photo: Photo, mask: np.ndarray, runner: Runner) -> list[Trial]:
    """Detect again after each of `CHANGES`. mask: bool (h, w), as found in the photo itself."""
    tried = []
    for number, (name, change) in enumerate(CHANGES.items()):
        with progress.map_to(number / len(CHANGES), (number + 1) / len(CHANGES)):
            tried.append(_try_change(name, change, photo, mask, runner))
    return tried


def _try_change(
    name: str, change: Callable[[Photo], Photo], photo: Photo, mask: np.ndarray, runner: Runner
) -> Trial:
    try:
        found = runner.run(change(photo))
    except FAILURES as error:
        reason = str(error) or type(error).__name__
        return Trial(Change(name, reason, None, None, None, None, None), None, 0.0)
    said: Record = make_record(found)
    after = _map_back(found.mask, mask.shape, moved=name == SHIFT)
    both = mask.any() or after.any()
    change_record = Change(
        name=name,
        problem=None,
        verdict=said["band"],
        quality=said["quality"],
        score=said["score"],
        num_regions=said["num_regions"],
        iou=round(overlap(count(after, mask))["iou"], 4) if both else None,
    )
    return Trial(change_record, after, found.seconds)


def _map_back(after: np.ndarray, shape: tuple[int, ...], moved: bool) -> np.ndarray:
    """The mask of a changed photo, at the size and position of the photo itself."""
    if moved:
        return np.pad(after, ((1, 0), (1, 0)))
    if after.shape == shape:
        return after
    scaled = Image.fromarray(after).resize((shape[1], shape[0]), Image.Resampling.NEAREST)
    return np.asarray(scaled)


def describe_changes(tried: Sequence[Trial], mask: np.ndarray, regions: Sequence[Region]) -> str:
    """Whether the largest region stays after each change, in one sentence or two."""
    done = [t for t in tried if t.mask is not None]
    if not done:
        return "No change could be tried."
    if not regions:
        new = [t.change.name for t in done if t.change.num_regions]
        if new:
            return f"No region is marked in the photo itself; some are after {', '.join(new)}."
        return "No region is marked in the photo itself, nor after any of the changes tried."
    shares = {t.change.name: t.stays(mask, regions[0]) or 0.0 for t in done}
    stay = [name for name, share in shares.items() if share >= STAYS]
    go = [name for name in shares if name not in stay]
    said = []
    if stay:
        said.append(f"stays after {', '.join(stay)}")
    if go:
        said.append(f"goes after {', '.join(go)}")
    return (
        f"The largest region {' and '.join(said)}. A region that goes after JPEG is not therefore "
        "a false alarm: most fills are no longer found after JPEG."
    )
