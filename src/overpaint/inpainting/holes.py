"""The rules for masks, and the windows in which an inpainter fills a hole.

In a mask, pixels of 128 and brighter (white) are hole: they are removed.

- A mask has the size of the upright photo. Another size is an error, even with the same aspect
  ratio: a scaled mask may miss the edge of the object that it should cover.
- Grey is thresholded at 128, as in `overpaint.images.read_mask`. A note says so where more than 1 %
  of the mask is neither black nor white.
- The hole may be grown (`overpaint.inpainting.edges`). Then the soft edge of a mask is hole, too:
  pixels of 32 or brighter that are connected with pixels of 128 or brighter. A matte is grey where
  the object covers part of a pixel, and an unfilled half of these pixels leaves an outline.
- An empty mask is an error, and so is a hole of more than 90 % of the photo: such a mask is most
  likely inverted. `invert` exchanges black and white.
- A mask with transparency is an error, because programs differ in its meaning: in some the
  transparent part is the hole, in others the painted part.

A window is the part of the photo that an inpainter gets at once.

- Holes are divided by straight cuts (the XY-cut of Nagy and Seth, 1984, with another stop) until
  each piece is at most half as large as the working size, so that its window needs no scaling.
  Pieces that are near one another thus share a window.
- A cut passes between holes if possible. Otherwise it passes through the middle half of a hole that
  is there at most half as thick as the working size, so that a wire across the photo is filled
  piece by piece, in full detail. Thicker holes are not divided: they need a view of all their
  surroundings.
- Around a piece the window has, on each side, context of half the piece's longer side, and at least
  64 pixels. It is square where the photo allows; at a border of the photo it is moved inwards.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from overpaint import hashes
from overpaint.errors import ImageError, InputError
from overpaint.images import File, is_file, read_mask_levels
from overpaint.images.decoding import from_pillow
from overpaint.images.regions import select_seeded
from overpaint.inpainting.edges import choose_radius, compute_fill_weight

THRESHOLD = 128
MAX_SHARE = 0.9
"""Share of the photo above which a mask is probably inverted."""

MIN_CONTEXT = 64
"""Least context on each side of a piece, pixels."""

# Levels farther than this from black and white are grey; the noise of a JPEG mask is smaller.
_NEAR, _MAX_GREY = 32, 0.01


@dataclass(frozen=True, slots=True, eq=False)
class HoleMask:
    """A mask that has passed the rules above."""

    weight: np.ndarray = field(repr=False)
    """float16 (h, w): weight of the fill, 1 = hole, 0 = known; between 0 and 1 both are mixed."""
    radius: int
    """Pixels by which the hole was grown; in the outer half fill and photo are mixed."""
    sha256: str
    """Of the file's bytes; for an array, of the hole before it was grown, uint8."""
    path: Path | None
    notes: tuple[str, ...]

    @property
    def pixels(self) -> np.ndarray:
        """uint8 (h, w): 1 = grown hole, including mixed pixels; 0 = known."""
        return (self.weight > 0).astype(np.uint8)

    @property
    def share(self) -> float:
        """Share of the photo's pixels in the hole, 0..1."""
        return np.count_nonzero(self.weight) / self.weight.size


class Box(NamedTuple):
    """A rectangle of pixels; `bottom` and `right` lie just outside."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def part(self) -> tuple[slice, slice]:
        """The index of the rectangle in an array (h, w, ...)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def shifted(self, down: int, right: int) -> "Box":
        """The same rectangle, moved by this many pixels."""
        return Box(self.top + down, self.left + right, self.bottom + down, self.right + right)


class Window(NamedTuple):
    """One step of filling: the inpainter gets `view`; its fill is used for the hole in `box`."""

    box: Box
    view: Box


def take_mask(
    mask: File | np.ndarray | Image.Image,
    size: tuple[int, int],
    *,
    invert: bool = False,
    dilate: int | None = 0,
) -> HoleMask:
    """Check a mask against the rules in this module's header.

    mask: a file, an array (h, w): bool, uint8 of 0 and 1, or uint8 of 0..255 as in a file, or a
    PIL image with the values of a file. size: (h, w) of the upright photo. dilate: pixels by which
    the hole is grown, 0..64; None takes the one of `choose_radius`. Raises `ImageError` for a file,
    `InputError` for anything else.
    """
    path = Path(mask) if isinstance(mask, str | os.PathLike) else None
    name = path or "mask"
    error = ImageError if path else InputError
    grey, sha256 = _read_levels(mask)
    if grey.shape != tuple(size):
        raise error(
            f"{name}: the mask has {grey.shape[1]} x {grey.shape[0]} pixels, its photo "
            f"{size[1]} x {size[0]}; save the mask at the size of the upright photo"
        )
    # Turned around so that 127, which is not hole, becomes 128, which is.
    level = 255 - grey if invert else grey
    hole = level >= THRESHOLD
    share = np.count_nonzero(hole) / hole.size
    if share == 0:
        found = f"its darkest value is {grey.min()}" if invert else f"its brightest is {grey.max()}"
        raise error(
            f"{name}: nothing to fill: {'inverted, ' if invert else ''}the mask is empty "
            f"({found}); paint what is to be removed in white, 255, on black"
        )
    if share > MAX_SHARE:
        remedy = "leave out --invert-mask" if invert else "use --invert-mask (invert_mask=True)"
        raise error(
            f"{name}: {100 * share:.0f} % of the photo is hole, and at most "
            f"{100 * MAX_SHARE:.0f} % can be filled; is the mask inverted? White is what is "
            f"removed; {remedy}, or paint less"
        )
    radius = choose_radius(hole.shape) if dilate is None else dilate
    marked = select_seeded(level >= _NEAR, hole, 0) if radius else hole
    weight = compute_fill_weight(marked, radius).astype(np.float16)
    if weight.all():
        raise error(
            f"{name}: grown by {radius} pixels, the hole leaves nothing of the photo; use "
            "--dilate 0 (dilate=0), or paint less"
        )
    digest = sha256 or hashes.sha256(hole.astype(np.uint8).tobytes())
    return HoleMask(weight, radius, digest, path, _make_notes(grey, invert, radius))


def find_windows(mask: np.ndarray, working_size: int, *, min_view: int = 1) -> list[Window]:
    """The windows that fill a mask with at least one hole, in the order of filling.

    mask: uint8 (h, w), 1 = hole. working_size: longest side that an inpainter takes unscaled,
    pixels. min_view: shortest side of a view, pixels, where the photo is large enough. Every pixel
    of the hole lies in the box of exactly one window.
    """
    hole = mask.astype(bool)
    todo, found = [_tighten(hole, Box(0, 0, *hole.shape))], []
    while todo:
        box = todo.pop()
        halves = _cut(hole, box, working_size // 2)
        if halves is None:
            found.append(Window(box, _choose_view(box, hole.shape, min_view)))
        else:
            todo += [_tighten(hole, half) for half in reversed(halves)]
    return found


def widen_view(window: Window, unseen: np.ndarray) -> Window:
    """With its view doubled until it shows a pixel that is 0 in `unseen` (h, w)."""
    while unseen[window.view.part].all() and window.view != Box(0, 0, *unseen.shape):
        side = 2 * max(window.view.height, window.view.width)
        window = window._replace(view=_choose_view(window.box, unseen.shape, side))
    return window


def _cut(hole: np.ndarray, box: Box, limit: int) -> tuple[Box, Box] | None:
    """Two halves of a box; None when it is small enough, or cannot be cut.

    limit: largest side of a box, and largest thickness of a hole at a cut, pixels.
    """
    if max(box.height, box.width) <= limit:
        return None
    inside = hole[box.part]
    sides = [
        (0, _measure_runs(inside[:-1] & inside[1:])),
        (1, _measure_runs((inside[:, :-1] & inside[:, 1:]).T)),
    ]
    if box.width > box.height:
        sides.reverse()
    for thickest, off_centre in ((0, 1.0), (limit, 0.5)):
        for axis, runs in sides:
            places = np.flatnonzero(runs <= thickest) + 1
            distance = np.abs(2 * places / (runs.size + 1) - 1)
            if distance.size and distance.min() <= off_centre:
                return _split_at(box, int(places[distance.argmin()]), axis)
    return None


def _split_at(box: Box, place: int, axis: int) -> tuple[Box, Box]:
    if axis == 0:
        return box._replace(bottom=box.top + place), box._replace(top=box.top + place)
    return box._replace(right=box.left + place), box._replace(left=box.left + place)


def _measure_runs(lines: np.ndarray) -> np.ndarray:
    """Length of the longest stretch of ones in each row of a bool array (n, m): int (n,)."""
    run = longest = np.zeros(len(lines), dtype=np.int64)
    for column in np.ascontiguousarray(lines.T):
        run = (run + 1) * column
        longest = np.maximum(longest, run)
    return longest


def _tighten(hole: np.ndarray, box: Box) -> Box:
    """The smallest box around the hole's pixels in a box."""
    inside = hole[box.part]
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    top, left = box.top + int(rows[0]), box.left + int(columns[0])
    return Box(top, left, box.top + int(rows[-1]) + 1, box.left + int(columns[-1]) + 1)


def _choose_view(box: Box, shape: tuple[int, ...], min_view: int) -> Box:
    longest = max(box.height, box.width)
    side = max(longest + 2 * max(MIN_CONTEXT, longest // 2), min_view)
    top, bottom = _choose_span(box.top, box.bottom, side, shape[0])
    left, right = _choose_span(box.left, box.right, side, shape[1])
    return Box(top, left, bottom, right)


def _choose_span(start: int, stop: int, side: int, length: int) -> tuple[int, int]:
    """(first, last + 1) of `side` pixels around a span, moved inside 0..length."""
    side = min(side, length)
    first = min(max(0, (start + stop - side) // 2), length - side)
    return first, first + side


def _read_levels(mask: object) -> tuple[np.ndarray, str]:
    """uint8 (h, w) of a mask of any kind, and the SHA-256 of its file, "" where there is none."""
    if isinstance(mask, np.ndarray):
        return _from_array(mask)
    if isinstance(mask, Image.Image):
        return _from_pil(mask), ""
    if is_file(mask):
        return read_mask_levels(mask)
    if isinstance(mask, torch.Tensor):
        raise InputError("the mask is a tensor; give mask.cpu().numpy(), bool or uint8 (h, w)")
    kinds = "a path, bytes, a binary stream, an array (h, w) or a PIL image"
    raise InputError(f"the mask is a {type(mask).__name__}; give {kinds}")


def _from_pil(mask: Image.Image) -> np.ndarray:
    photo = from_pillow(mask)
    if photo.alpha is not None:
        raise InputError("the mask has transparency; give mask.convert('RGB'), white = hole")
    if photo.pixels.max() == 1:
        raise InputError("the mask, a PIL image, holds 0 and 1; give 0 and 255")
    return np.asarray(Image.fromarray(photo.pixels).convert("L"))


def _from_array(mask: np.ndarray) -> tuple[np.ndarray, str]:
    if mask.ndim != 2 or mask.dtype not in (np.uint8, np.bool_) or not mask.size:
        found = f"the mask is an array {mask.shape} of {mask.dtype}"
        raise InputError(f"{found}; give bool or uint8 of shape (h, w), 1 or 255 = hole")
    binary = mask.dtype == np.bool_ or mask.max() <= 1
    return (mask.astype(np.uint8) * 255 if binary else mask), ""


def _make_notes(grey: np.ndarray, invert: bool, radius: int) -> tuple[str, ...]:
    notes = ["mask inverted: black is what was removed"] if invert else []
    share = np.count_nonzero((grey >= _NEAR) & (grey <= 255 - _NEAR)) / grey.size
    if share > _MAX_GREY:
        side = "darker than" if invert else "as bright as"
        grey_share = f"soft mask: {100 * share:.0f} % of it is grey"
        found = f"{grey_share}; what is {side} {THRESHOLD} was filled"
        edge = f"as dark as {255 - _NEAR}" if invert else f"as bright as {_NEAR}"
        notes.append(f"{found}, and what is {edge} beside it" if radius else found)
    if radius:
        mixed = f"; the fill fades out over the outer {radius // 2}" if radius > 1 else ""
        notes.append(f"hole grown by {radius} pixel{'s'[: radius > 1]}{mixed}")
    return tuple(notes)
