"""Six views of a photo, with which a person can check what a detector found.

- Every view but the grid is computed at full resolution. A large photo is then reduced by a whole
  factor; residuals by their root mean square, as their mean would cancel.
- Noise and colour residual: the second difference in both directions, (1 -2 1) x (1 -2 1) / 4, Ker
  and Boehme's filter (SPIE 2008), which is one of the SRM filters (Fridrich and Kodovsky 2012); of
  the luma, and of red - green and blue - green.
- Error level: the difference from the photo after JPEG of quality 90 (Krawetz 2007).
- JPEG grid: by how much a step in luma across the borders of 8 x 8 blocks exceeds its two
  neighbours (Fan and de Queiroz, IEEE TIP 2003), less the mean of the other seven positions.
- A view is scaled by one factor, which its caption states: 99 % of its pixels stay below white.
- The texts on what a view shows, what to look for and what to ignore are here alone, for the report
  and for the page of `overpaint app`, which shows the views at full resolution.
"""

import base64
import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from overpaint.detection.report import draw_overlay
from overpaint.report.contents import Box, Grid

MAX_SIDE = 1400
"""Pixels of a view's longer side; 1400 on 18 cm of paper are 200 dpi."""
CROP = 320
"""Pixels of a crop's side; two of them fit beside one another on A4 and Letter."""
ERROR_QUALITY = 90
CELL = 32
"""Pixels of the grid view's cells; a whole number of blocks."""
_BLOCK = 8
_JPEG_PART = 4096  # pixels: a whole number of blocks, and less than the largest side of a JPEG
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_STEP = 4.0  # levels; larger steps are edges of the content and not of blocks
_CHANCE = 6.0  # standard errors


@dataclass(frozen=True, slots=True)
class Words:
    """The text beside a view."""

    title: str
    shows: str
    look_for: str
    ignore: str


@dataclass(frozen=True, slots=True)
class View:
    """One picture and the text beside it."""

    name: str
    """One of "photo", "heatmap", "noise", "colour", "error_level", "jpeg_grid"."""
    words: Words
    picture: bytes = field(repr=False)
    mime: str

    @property
    def address(self) -> str:
        """The picture as a data URI."""
        return make_data_uri(self.picture, self.mime)


@dataclass(frozen=True, slots=True)
class Drawing:
    """How views are drawn."""

    factor: int
    """By which they are smaller than the photo."""
    encode: Callable[[np.ndarray], bytes]
    """From uint8 (h, w) to the bytes of a file."""
    mime: str


HEATMAP_WORDS = Words(
    "Heatmap",
    "Where the detector finds a trace, from blue (none) to yellow; the outline is that of the mask "
    "at the threshold.",
    "A compact region whose outline follows something in the photo.",
    "Specks, sky and other smooth surfaces, captions, reflections, retouched faces and the photo's "
    "edge, which may raise the heatmap without inpainting.",
)


def make_data_uri(picture: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(picture).decode()}"


def apply_high_pass(plane: np.ndarray) -> np.ndarray:
    """A quarter of the second difference in both directions, of float32 (h, w)."""
    padded = np.pad(plane, 1, mode="edge")
    rows = padded[:-2] - 2 * padded[1:-1] + padded[2:]
    return (rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]) / 4


def compute_brightness(pixels: np.ndarray) -> np.ndarray:
    """Luma of uint8 (h, w, 3): float32 (h, w), levels."""
    return pixels @ _LUMA


def compute_noise_residual(pixels: np.ndarray) -> np.ndarray:
    """High-passed luma of uint8 (h, w, 3): float32 (h, w), levels."""
    return apply_high_pass(compute_brightness(pixels))


def compute_colour_residual(pixels: np.ndarray) -> np.ndarray:
    """Root of the summed squares of the two high-passed colour differences of uint8 (h, w, 3):
    float32 (h, w), levels."""
    green = pixels[..., 1].astype(np.float32)
    both = (apply_high_pass(pixels[..., channel] - green) for channel in (0, 2))
    return np.sqrt(sum(np.square(residual) for residual in both))


def compute_error_level(pixels: np.ndarray, quality: int = ERROR_QUALITY) -> np.ndarray:
    """Largest difference of the three channels after JPEG, of uint8 (h, w, 3): float32 (h, w),
    levels."""
    height, width = pixels.shape[:2]
    out = np.empty((height, width), dtype=np.float32)
    for part in _split(height, width):
        buffer = io.BytesIO()
        Image.fromarray(pixels[part]).save(buffer, "JPEG", quality=quality, subsampling=0)
        again = np.asarray(Image.open(buffer)).astype(np.int16)
        out[part] = np.abs(again - pixels[part]).max(axis=2)
    return out


def _split(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Places of parts that a JPEG can hold (65,535 pixels a side), on the photo's block grid."""
    for top in range(0, height, _JPEG_PART):
        for left in range(0, width, _JPEG_PART):
            yield slice(top, top + _JPEG_PART), slice(left, left + _JPEG_PART)


def find_jpeg_grid(pixels: np.ndarray) -> tuple[Grid, np.ndarray] | None:
    """The position of the blocks of a JPEG, and the strength of that grid in each cell of `CELL`
    pixels: float32 (cells down, cells across), levels. None for a photo of less than two cells a
    side.
    """
    plane = compute_brightness(pixels)
    if min(plane.shape) < 2 * CELL:
        return None
    (x, strength_x, sure_x, across), (y, strength_y, sure_y, down) = (
        _find_borders(plane),
        _find_borders(plane.T),
    )
    grid = Grid(x=x, y=y, strength=round((strength_x + strength_y) / 2, 4), found=sure_x and sure_y)
    return grid, reduce((across + down.T) / 2, CELL)


def _find_borders(plane: np.ndarray) -> tuple[int, float, bool, np.ndarray]:
    """The column borders of JPEG blocks in float32 (h, w).

    Column of the first border (0..7), strength in levels, whether that is above chance, and the
    contribution of each pixel, float32 (h, w), whose mean over whole blocks is the strength.
    """
    step = np.abs(np.diff(plane, axis=1))
    excess = np.zeros_like(plane)
    # excess[:, x] is that of the border between columns x - 1 and x.
    excess[:, 2:-1] = np.clip(step[:, 1:-1] - (step[:, :-2] + step[:, 2:]) / 2, -_STEP, _STEP)
    columns, width = excess[:, 2:-1].mean(axis=0), plane.shape[1]
    places = np.arange(2, width - 1) % _BLOCK
    means = np.array([columns[places == p].mean() for p in range(_BLOCK)])
    best = int(means.argmax())
    others = columns[places != best]
    strength = float(means[best] - others.mean())
    error = float(others.std()) / np.sqrt(np.count_nonzero(places == best))
    weights = np.where(np.arange(width) % _BLOCK == best, _BLOCK, -_BLOCK / (_BLOCK - 1))
    sure = bool(strength > max(_CHANCE * error, 0.01))
    return best, strength, sure, excess * weights.astype(np.float32)


def reduce(plane: np.ndarray, factor: int) -> np.ndarray:
    """Means over squares of `factor` pixels, which are cut at the right and lower border."""
    if factor == 1:
        return plane
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane)).reduce(factor))


def choose_factor(height: int, width: int) -> int:
    """The whole factor by which a view is smaller than the photo."""
    return -(-max(height, width) // MAX_SIDE)


def _to_levels(shares: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)


def _encode_jpeg(levels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "JPEG", quality=88, subsampling=0)
    return buffer.getvalue()


def encode_png(pixels: np.ndarray, *, quick: bool = False) -> bytes:
    """uint8 (h, w) or (h, w, 3 or 4), or uint16 (h, w), as PNG. quick: for residuals and heatmaps,
    which noise makes hard to compress: the same size in half the time."""
    how = {"compress_level": 1, "compress_type": zlib.Z_RLE} if quick else {}
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", **how)
    return buffer.getvalue()


def make_views(
    pixels: np.ndarray,
    heatmap: np.ndarray,
    mask: np.ndarray,
    grid: tuple[Grid, np.ndarray] | None,
) -> list[View]:
    """All views of a photo, sized for print. pixels: uint8 (h, w, 3). heatmap: float32 (h, w) in
    [0, 1]. mask: bool (h, w). grid: from `find_jpeg_grid`; None leaves its view out."""
    factor = choose_factor(*mask.shape)
    small = np.asarray(Image.fromarray(pixels).reduce(factor))
    marked = reduce(mask.astype(np.float32), factor) > 0
    heated = draw_overlay(small, np.clip(reduce(heatmap, factor), 0, 1), marked)
    size = "at full resolution" if factor == 1 else f"reduced by a factor of {factor}"
    words = Words(
        "Photo",
        f"The photo, upright, {size}, compressed for this page.",
        "An object or a place where something could have been removed or added.",
        "Fine detail: this is a copy. The crops below are exact.",
    )
    mime = "image/jpeg"
    return [
        View("photo", words, _encode_jpeg(small), mime),
        View("heatmap", HEATMAP_WORDS, _encode_jpeg(heated), mime),
        *derive_views(pixels, grid, Drawing(factor, _encode_jpeg, mime)),
    ]


def derive_views(
    pixels: np.ndarray, grid: tuple[Grid, np.ndarray] | None, drawing: Drawing
) -> Iterator[View]:
    """Yield the views that are computed from the pixels alone."""
    picture, white = _draw_residual(compute_noise_residual(pixels), drawing)
    words = Words(
        "Noise residual",
        f"The brightness after a high-pass filter; white is {white:.1f} of 255 levels.",
        "An area with less noise, or other noise, than similar surfaces elsewhere.",
        "Edges and texture, which always show, and dark, overexposed or blurred areas, which have "
        "little noise in every photo.",
    )
    yield View("noise", words, picture, drawing.mime)
    picture, white = _draw_residual(compute_colour_residual(pixels), drawing)
    words = Words(
        "Colour residual",
        f"The same of red - green and blue - green; white is {white:.1f} levels.",
        "An area without colour noise: many networks give all three channels the same noise.",
        "Coloured edges. A JPEG file with chroma subsampling has little colour noise anywhere.",
    )
    yield View("colour", words, picture, drawing.mime)
    picture, white = _draw_residual(compute_error_level(pixels), drawing)
    words = Words(
        "Error level",
        f"The change by JPEG of quality {ERROR_QUALITY}; white is {white:.1f} levels.",
        "An area that differs from others of the same texture.",
        "Bright edges, texture and saturated colours, which always change more: brightness alone "
        "says nothing.",
    )
    yield View("error_level", words, picture, drawing.mime)
    if grid is not None:
        yield _draw_grid(*grid, pixels.shape[:2], drawing)


def _draw_residual(residual: np.ndarray, drawing: Drawing) -> tuple[bytes, float]:
    """The magnitude of a residual as a picture, and the level that is white in it."""
    size = np.sqrt(np.maximum(reduce(np.square(residual), drawing.factor), 0))
    white = max(float(np.quantile(size, 0.99)), 1.0)
    return drawing.encode(_to_levels(size / white)), white


def _draw_grid(grid: Grid, cells: np.ndarray, shape: tuple[int, ...], drawing: Drawing) -> View:
    white = max(float(np.quantile(cells, 0.95)), 0.05)
    rows, columns = (np.arange(0, side, drawing.factor) // CELL for side in shape)
    shown = _to_levels(cells / white)[rows][:, columns]
    said = f"the strongest grid starts at column {grid.x}, row {grid.y}"
    if not grid.found:
        said = "no grid was found in the photo as a whole, so this view shows little"
    words = Words(
        "JPEG grid",
        f"Strength of the photo's 8-pixel JPEG grid in each cell of {CELL} pixels; {said}.",
        "A dark area of ordinary texture in a photo that has the grid elsewhere: an area that was "
        "filled in after the last JPEG compression has no grid.",
        "Dark cells in smooth or overexposed areas, where no grid shows, and every cell of a photo "
        "that was scaled after it was compressed.",
    )
    return View("jpeg_grid", words, drawing.encode(shown), drawing.mime)


def choose_crop(mask: np.ndarray, region: Box) -> Box:
    """The crop that shows a region: at most `CROP` pixels a side, around the marked pixel of its
    box that is nearest to their median position. mask: bool (h, w)."""
    height, width = mask.shape
    inside = mask[region.y : region.y + region.height, region.x : region.x + region.width]
    rows, columns = np.nonzero(inside)
    distances = np.square(rows - np.median(rows)) + np.square(columns - np.median(columns))
    nearest = int(distances.argmin())
    tall, wide = min(CROP, height), min(CROP, width)
    top = min(max(region.y + int(rows[nearest]) - tall // 2, 0), height - tall)
    left = min(max(region.x + int(columns[nearest]) - wide // 2, 0), width - wide)
    return Box(left, top, wide, tall)


def make_crops(
    pixels: np.ndarray, heatmap: np.ndarray, mask: np.ndarray, box: Box
) -> dict[str, bytes]:
    """Three views of a crop at full resolution, as PNG by their caption."""
    place = slice(box.y, box.y + box.height), slice(box.x, box.x + box.width)
    # The filter input has one pixel more around the crop, so that its border leaves no edge.
    wide = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in place)
    inner = tuple(
        slice(part.start - more.start, part.start - more.start + part.stop - part.start)
        for part, more in zip(place, wide, strict=True)
    )
    noise = np.abs(compute_noise_residual(pixels[wide]))[inner]
    white = max(float(np.quantile(noise, 0.99)), 1.0)
    return {
        "photo": encode_png(pixels[place]),
        "heatmap": encode_png(draw_overlay(pixels[place], heatmap[place], mask[place])),
        f"noise residual, white is {white:.1f} levels": encode_png(_to_levels(noise / white)),
    }
