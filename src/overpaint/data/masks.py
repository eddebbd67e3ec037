"""Random hole masks: free-form strokes, boxes and object shapes.

- A generator is any function `(height, width, rng) -> mask` (`MaskFn`). The mask is uint8 of that
  size, **1 = hole, 0 = untouched**.
- All randomness comes from the `numpy.random.Generator` that is passed in, so that a sample seeded
  by its index is the same with any number of workers. Every generator can be pickled.
- Lengths are those of the papers at 256 pixels; they scale with the shorter side of the image.
- Shapes are rasterised by Pillow; a mask of 128 x 128 takes well under a millisecond.

Sources. `brush`: free-form masks of "Free-Form Image Inpainting with Gated Convolution" (DeepFill
v2, arXiv 1806.03589). `lama` and `boxes`: "Resolution-robust Large Mask Inpainting with Fourier
Convolutions" (arXiv 2109.07161), with the numbers of its evaluation sets at 256 pixels. Both are
written anew from the published rules.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from overpaint.data.finding import list_below, refuse_unreadable
from overpaint.errors import ImageError, InputError, UnknownNameError
from overpaint.images import read_mask_levels

Mask = NDArray[np.uint8]
MaskFn = Callable[[int, int, np.random.Generator], Mask]
Point = tuple[float, float]

REFERENCE_SIDE = 256  # pixels; the side at which the papers state their lengths
RATIO_BINS: tuple[tuple[float, float], ...] = tuple((i / 10, (i + 1) / 10) for i in range(10))


def hole_ratio(mask: Mask) -> float:
    """Share of the mask's pixels that are hole, 0..1."""
    return np.count_nonzero(mask) / mask.size


def find_ratio_bin(mask: Mask) -> str:
    """Name of the 10 % step that holds the mask's ratio, "0-10" to "90-100" (percent).

    A step contains its lower end and not its upper one, but the last contains the full mask.
    """
    step = min(10 * np.count_nonzero(mask) // mask.size, 9)
    return f"{10 * step}-{10 * step + 10}"


def _compute_scale(height: int, width: int) -> float:
    return min(height, width) / REFERENCE_SIDE


def _draw_disc(draw: ImageDraw.ImageDraw, centre: Point, diameter: float) -> None:
    (x, y), r = centre, diameter / 2
    draw.ellipse((x - r, y - r, x + r, y + r), fill=1)


def _flip_at_random(image: Image.Image, rng: np.random.Generator) -> Mask:
    rows, columns = (2 * rng.integers(2, size=2) - 1).tolist()
    return np.ascontiguousarray(np.array(image)[::rows, ::columns])


# DeepFill v2


def draw_stroke_angles(num_vertices: int, rng: np.random.Generator) -> list[float]:
    """Directions of one brush stroke's segments, in radians.

    Each stroke draws a range around 2 pi / 5 that reaches up to 2 pi / 15 to either side; the
    angles are uniform in it, and every other one, from the first, is mirrored (2 pi - angle), so
    that the stroke zigzags.
    """
    centre, reach = 2 * np.pi / 5, 2 * np.pi / 15
    low, high = centre - rng.uniform(0, reach), centre + rng.uniform(0, reach)
    angles = rng.uniform(low, high, num_vertices)
    angles[::2] = 2 * np.pi - angles[::2]
    return angles.tolist()


def draw_brush_vertices(height: int, width: int, rng: np.random.Generator) -> list[Point]:
    """The 5 to 12 vertices (x, y) of one stroke, in pixels and inside the image.

    A segment's length is normal with the mean an eighth of the image's diagonal (this one length
    does not follow the shorter side) and half of that as its deviation, cut to 0 .. twice the mean.
    """
    num_vertices = int(rng.integers(4, 12))
    angles = draw_stroke_angles(num_vertices, rng)
    mean = float(np.hypot(height, width)) / 8
    lengths = np.clip(rng.normal(mean, mean / 2, num_vertices), 0, 2 * mean).tolist()
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    vertices = [(x, y)]
    for angle, length in zip(angles, lengths, strict=True):
        x = min(max(x + length * np.cos(angle), 0.0), float(width))
        y = min(max(y + length * np.sin(angle), 0.0), float(height))
        vertices.append((x, y))
    return vertices


def brush(height: int, width: int, rng: np.random.Generator) -> Mask:
    """DeepFill v2's free-form brush: 1 to 3 zigzag strokes, 12 to 40 px wide at 256 px.

    Differs from the published code in one point: that code calls random flips and discards their
    result, so that its strokes always drift to the right. Here the flips are applied.
    """
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(1, 4)):
        vertices = draw_brush_vertices(height, width, rng)
        thickness = max(1, int(rng.uniform(12, 40) * _compute_scale(height, width)))
        draw.line(vertices, fill=1, width=thickness)
        for vertex in vertices:
            _draw_disc(draw, vertex, thickness)
    return _flip_at_random(image, rng)


def free_form(height: int, width: int, rng: np.random.Generator) -> Mask:
    """`brush` again and again until a share drawn uniformly from 5 to 60 % is covered."""
    share = rng.uniform(0.05, 0.6)
    mask = brush(height, width, rng)
    while hole_ratio(mask) < share:
        mask |= brush(height, width, rng)
    return mask


# LaMa


@dataclass(frozen=True, slots=True)
class BoxRule:
    """Boxes: how many (inclusive), their sides and distance from the border in px at 256 px."""

    count: tuple[int, int] = (1, 4)
    side: tuple[int, int] = (30, 150)
    margin: int = 10


@dataclass(frozen=True, slots=True)
class LamaRule:
    """LaMa's strokes: how many (inclusive), largest width and length in px at 256 px.

    `boxes` replace the strokes with probability 0.3 / 1.3, as the published probabilities 1 and
    0.3 are normalised.
    """

    strokes: tuple[int, int]
    width: int
    length: int
    boxes: BoxRule | None = None


LamaKind = Literal["thin", "medium", "thick"]
LAMA_RULES: dict[LamaKind, LamaRule] = {
    "thin": LamaRule((4, 50), width=10, length=40),
    "medium": LamaRule((4, 5), width=50, length=100, boxes=BoxRule((1, 5), (10, 50), 0)),
    "thick": LamaRule((1, 5), width=100, length=200, boxes=BoxRule((1, 3), (30, 150), 10)),
}
LAMA_BOX_SHARE = 0.3 / 1.3
LAMA_MAX_RATIO = 0.5
LAMA_TRIES = 20


def _draw_lama_strokes(height: int, width: int, rng: np.random.Generator, rule: LamaRule) -> Mask:
    scale = _compute_scale(height, width)
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    num_strokes = int(rng.integers(rule.strokes[0], rule.strokes[1], endpoint=True))
    # Drawn all at once, five segments a stroke: a call per segment would cost more than the lines.
    shape = (num_strokes, 5)
    num_segments = rng.integers(1, 6, num_strokes).tolist()
    starts = (rng.random((num_strokes, 2)) * (width, height)).tolist()
    angles = 0.01 + rng.integers(4, size=shape)
    angles[::2] = 2 * np.pi - angles[::2]
    lengths = (10 + rng.integers(rule.length, size=shape)) * scale
    steps_x, steps_y = (lengths * np.sin(angles)).tolist(), (lengths * np.cos(angles)).tolist()
    widths = np.maximum((5 + rng.integers(rule.width, size=shape)) * scale, 1).tolist()
    for i, (x, y) in enumerate(starts):
        for j in range(num_segments[i]):
            end_x = min(max(x + steps_x[i][j], 0.0), float(width))
            end_y = min(max(y + steps_y[i][j], 0.0), float(height))
            draw.line((x, y, end_x, end_y), fill=1, width=round(widths[i][j]))
            _draw_disc(draw, (x, y), widths[i][j])
            _draw_disc(draw, (end_x, end_y), widths[i][j])
            x, y = end_x, end_y
    return np.array(image)


def lama(height: int, width: int, rng: np.random.Generator, kind: LamaKind = "medium") -> Mask:
    """LaMa's evaluation masks, kind "thin", "medium" or "thick".

    A mask with more than half of the image as its hole is drawn again, as in the paper's sets
    (at most 20 times, so that images of a few pixels end too).
    """
    rule = LAMA_RULES[kind]
    mask = np.ones((height, width), np.uint8)
    for _ in range(LAMA_TRIES):
        if rule.boxes is not None and rng.random() < LAMA_BOX_SHARE:
            mask = boxes(height, width, rng, rule.boxes)
        else:
            mask = _draw_lama_strokes(height, width, rng, rule)
        if 0 < hole_ratio(mask) <= LAMA_MAX_RATIO:
            break
    return mask


def boxes(height: int, width: int, rng: np.random.Generator, rule: BoxRule | None = None) -> Mask:
    """Filled boxes, by default those LaMa trains with: 1 to 4, sides of 30 to 150 px at 256 px."""
    rule = rule or BoxRule()
    scale = _compute_scale(height, width)
    mask = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(rule.count[0], rule.count[1], endpoint=True)):
        spans: list[slice] = []
        for side in (height, width):
            margin = min(int(rule.margin * scale), (side - 1) // 2)
            low, high = rule.side[0] * scale, rule.side[1] * scale
            length = min(max(1, int(rng.uniform(low, high))), side - 2 * margin)
            start = int(rng.integers(margin, side - margin - length, endpoint=True))
            spans.append(slice(start, start + length))
        mask[spans[0], spans[1]] = 1
    return mask


# Shapes from files

MASK_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, slots=True)
class _Shape:
    """A silhouette cut to its bounding box, one bit a pixel."""

    bits: NDArray[np.uint8]
    size: tuple[int, int]  # height, width

    def to_image(self) -> Image.Image:
        height, width = self.size
        pixels = np.unpackbits(self.bits, count=height * width).reshape(self.size)
        return Image.fromarray(pixels * np.uint8(255))


def _list_mask_files(folder: Path) -> list[Path]:
    with refuse_unreadable(folder):
        named = (p for p in list_below(folder) if p.suffix.lower() in MASK_SUFFIXES)
        files = [p for p in named if p.is_file()]
    if not files:
        raise ImageError(f"{folder}: no mask images in this folder; give a folder that holds some")
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _read_shape(path: Path, *, invert: bool, max_side: int) -> _Shape:
    grey = Image.fromarray(read_mask_levels(path)[0])
    grey.thumbnail((max_side, max_side), Image.Resampling.BILINEAR)
    hole = (np.asarray(grey) >= 128) != invert
    rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
    if not rows.size:
        raise ImageError(f"{path}: the mask has no hole; remove the file or change `invert`")
    hole = hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return _Shape(np.packbits(hole), hole.shape)


class ObjectMasks:
    """Silhouettes from folders of mask files, flipped, scaled and placed at random.

    A file's shape is white (>= 128); with `invert`, black (some sets mark what to *keep*). Only
    its bounding box counts, so that one folder serves any size: the shape keeps its proportions,
    its longer side relative to the image takes a share drawn uniformly from `scale`, and it lies
    wholly inside the image.

    All files are read once, at construction, and kept at one bit a pixel and at most `max_side`
    pixels a side: a damaged file is an error before a run and not during it.

    Raises:
        ImageError: a folder without masks, a file that cannot be read or has no hole.
    """

    def __init__(
        self,
        folders: str | Path | Iterable[str | Path],
        *,
        invert: bool = False,
        scale: tuple[float, float] = (0.2, 0.8),
        max_side: int = 512,
    ) -> None:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise InputError(f"scale {scale}: give two shares of the image in (0, 1], rising")
        given = [folders] if isinstance(folders, str | Path) else folders
        paths = [path for folder in given for path in _list_mask_files(Path(folder))]
        if not paths:
            raise InputError("folders: give at least one folder of masks")
        self.scale = scale
        self._shapes = [_read_shape(path, invert=invert, max_side=max_side) for path in paths]

    def __len__(self) -> int:
        return len(self._shapes)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> Mask:
        shape = self._shapes[rng.integers(len(self._shapes))]
        ratio = rng.uniform(*self.scale) / max(shape.size[0] / height, shape.size[1] / width)
        high, wide = (max(1, int(side * ratio)) for side in shape.size)
        scaled = shape.to_image().resize((wide, high), Image.Resampling.BILINEAR)
        grey = _flip_at_random(scaled, rng)
        top = rng.integers(height - high, endpoint=True)
        left = rng.integers(width - wide, endpoint=True)
        mask = np.zeros((height, width), np.uint8)
        # A shape thinner than half a pixel would vanish at 128; its darkest part then stays.
        mask[top : top + high, left : left + wide] = grey >= min(128, grey.max())
        return mask


# Combinations


def _draw_in_ratio(
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    fn: MaskFn,
    low: float,
    high: float,
    tries: int,
) -> Mask:
    for _ in range(tries):
        mask = fn(height, width, rng)
        if low <= hole_ratio(mask) < high:
            return mask
    raise InputError(
        f"no mask of {height} x {width} with a hole ratio in [{low}, {high}) in {tries} tries; "
        "widen the range or take another generator"
    )


def limit_ratio(fn: MaskFn, low: float, high: float, tries: int = 200) -> MaskFn:
    """`fn`, drawn again until the hole ratio lies in [low, high).

    The result raises InputError when `tries` draws all miss: a bin of a benchmark must hold what
    its name says, so that nothing near it is returned instead.
    """
    if not low < high:
        raise InputError(f"hole ratio [{low}, {high}) is empty; give low < high")
    return partial(_draw_in_ratio, fn=fn, low=low, high=high, tries=tries)


def _draw_mixed(
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    fns: list[MaskFn],
    bounds: NDArray[np.float64],
) -> Mask:
    chosen = int(np.searchsorted(bounds, rng.random(), side="right"))
    return fns[min(chosen, len(fns) - 1)](height, width, rng)


def make_mixture(weights: Mapping[str, float], extra: Mapping[str, MaskFn] | None = None) -> MaskFn:
    """A generator that picks one of several by weight, normalised to a sum of 1.

    Args:
        weights: weight by name. The order of the names has no influence on the masks.
        extra: generators by name beside the registered ones, such as an `ObjectMasks`.

    Raises:
        InputError: no weight above 0, or a negative one.
        UnknownNameError: a name that is neither in `extra` nor registered.
    """
    values = {name: weight for name, weight in sorted(weights.items()) if weight != 0}
    if not values or min(values.values()) < 0:
        raise InputError(f"mask weights {dict(weights)}: give at least one above 0, none below")
    given = extra or {}
    fns = [given[name] if name in given else get(name) for name in values]
    bounds = np.cumsum(list(values.values()))
    return partial(_draw_mixed, fns=fns, bounds=bounds / bounds[-1])


MASKS: dict[str, MaskFn] = {
    "brush": brush,
    "free-form": free_form,
    "lama-thin": partial(lama, kind="thin"),
    "lama-medium": partial(lama, kind="medium"),
    "lama-thick": partial(lama, kind="thick"),
    "boxes": boxes,
}


def get(name: str) -> MaskFn:
    """The generator registered under `name`. Raises UnknownNameError with the nearest names."""
    if name not in MASKS:
        near = difflib.get_close_matches(name, MASKS, n=2) or sorted(MASKS)
        raise UnknownNameError(f"no mask generator {name!r}; did you mean {' or '.join(near)}?")
    return MASKS[name]
