"""The photo, seen in six ways: what a person looks at to judge what a detector says.

- Every view but the grid is worked out at the photo's own size. A large photo is then shown smaller
  by a whole factor; of a residual, which a mean would cancel, the root mean square is shown.
- Noise and colour residual: the response of the second difference in both directions, (1 -2 1) x
  (1 -2 1) / 4, Ker and Boehme's filter (SPIE 2008), which is one of the SRM filters (Fridrich and
  Kodovsky 2012). Of the brightness, and of red - green and blue - green.
- Error level: the difference from the photo after JPEG of quality 90 (Krawetz 2007).
- JPEG grid: by how much a step in brightness across the borders of 8 x 8 blocks exceeds its two
  neighbours (Fan and de Queiroz, IEEE TIP 2003), against the same at the other seven positions.
- A view is brightened by one factor, which its caption states: 99 % of it stay below white.
- What a view shows, what to look for in it and what to ignore is said here alone, for the report
  and for the page of `overpaint app`, which shows the views at the photo's own size.
"""

import base64
import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from overpaint.detection.report import overlay
from overpaint.report.contents import Box, Grid

MAX_SIDE = 1400
"""Pixels of a view's longer side; 1400 on 18 cm of paper are 200 a 2.54 cm."""
CROP = 320
"""Pixels of a crop's side; two of them fit beside one another on A4 and Letter."""
ERROR_QUALITY = 90
CELL = 32
"""Pixels of the grid view's cells; a whole number of blocks."""
_BLOCK = 8
_JPEG_PART = 4096  # a whole number of blocks that no JPEG is too small for
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_STEP = 4.0  # levels; larger steps are edges of things and not of blocks
_CHANCE = 6.0  # standard errors


@dataclass(frozen=True, slots=True)
class Words:
    """What stands beside a view."""

    title: str
    shows: str
    look_for: str
    ignore: str


@dataclass(frozen=True, slots=True)
class View:
    """One picture with what stands beside it."""

    name: str
    """One of "photo", "heatmap", "noise", "colour", "error_level", "jpeg_grid"."""
    words: Words
    picture: bytes
    mime: str

    @property
    def address(self) -> str:
        """As a data URI."""
        return data_uri(self.picture, self.mime)


@dataclass(frozen=True, slots=True)
class Drawing:
    """How views are drawn."""

    factor: int
    """By how much they are smaller than the photo."""
    encode: Callable[[np.ndarray], bytes]
    """From uint8 (h, w) to a file."""
    mime: str


HEATMAP_WORDS = Words(
    "Heatmap",
    "Where the detector sees a trace, from blue (none) to yellow; outlined: what is marked at the "
    "threshold.",
    "A compact region whose outline follows something in the photo.",
    "Specks, sky and other smooth surfaces, captions, reflections, retouched faces and the photo's "
    "edge, all of which raise the heatmap at times.",
)


def data_uri(picture: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(picture).decode()}"


def high_pass(plane: np.ndarray) -> np.ndarray:
    """The second difference in both directions of float32 (h, w), a quarter of it."""
    padded = np.pad(plane, 1, mode="edge")
    rows = padded[:-2] - 2 * padded[1:-1] + padded[2:]
    return (rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]) / 4


def brightness(pixels: np.ndarray) -> np.ndarray:
    """Luma of uint8 (h, w, 3), float32 (h, w), levels."""
    return pixels @ _LUMA


def noise_residual(pixels: np.ndarray) -> np.ndarray:
    """float32 (h, w), levels, of uint8 (h, w, 3)."""
    return high_pass(brightness(pixels))


def colour_residual(pixels: np.ndarray) -> np.ndarray:
    """float32 (h, w), levels: root of the summed squares of both colour differences."""
    green = pixels[..., 1].astype(np.float32)
    both = (high_pass(pixels[..., channel] - green) for channel in (0, 2))
    return np.sqrt(sum(np.square(residual) for residual in both))


def error_level(pixels: np.ndarray, quality: int = ERROR_QUALITY) -> np.ndarray:
    """float32 (h, w), levels: the largest difference of the three colours after JPEG."""
    height, width = pixels.shape[:2]
    out = np.empty((height, width), dtype=np.float32)
    for part in _parts(height, width):
        buffer = io.BytesIO()
        Image.fromarray(pixels[part]).save(buffer, "JPEG", quality=quality, subsampling=0)
        again = np.asarray(Image.open(buffer)).astype(np.int16)
        out[part] = np.abs(again - pixels[part]).max(axis=2)
    return out


def _parts(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """A JPEG has at most 65,535 pixels on a side; blocks of the parts are those of the whole."""
    for top in range(0, height, _JPEG_PART):
        for left in range(0, width, _JPEG_PART):
            yield slice(top, top + _JPEG_PART), slice(left, left + _JPEG_PART)


def jpeg_grid(pixels: np.ndarray) -> tuple[Grid, np.ndarray] | None:
    """Where the blocks of a JPEG lie, and float32 (cells down, cells across): how much of that
    grid each cell of `CELL` pixels has, in levels. None for a photo of less than two cells a side.
    """
    plane = brightness(pixels)
    if min(plane.shape) < 2 * CELL:
        return None
    (x, strength_x, sure_x, across), (y, strength_y, sure_y, down) = (
        _along(plane),
        _along(plane.T),
    )
    grid = Grid(x=x, y=y, strength=round((strength_x + strength_y) / 2, 4), found=sure_x and sure_y)
    return grid, reduced((across + down.T) / 2, CELL)


def _along(plane: np.ndarray) -> tuple[int, float, bool, np.ndarray]:
    """First border of the blocks across float32 (h, w), how strong they are, whether that is more
    than chance, and the same of each pixel, whose mean over whole blocks is the strength."""
    step = np.abs(np.diff(plane, axis=1))
    excess = np.zeros_like(plane)
    # That of the border in front of a column.
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


def reduced(plane: np.ndarray, factor: int) -> np.ndarray:
    """Means over squares of `factor` pixels, and over what there is of them at the borders."""
    if factor == 1:
        return plane
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane)).reduce(factor))


def factor_for(height: int, width: int) -> int:
    """By how much a view is smaller than the photo."""
    return -(-max(height, width) // MAX_SIDE)


def _levels(shares: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)


def _jpeg(levels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "JPEG", quality=88, subsampling=0)
    return buffer.getvalue()


def png(pixels: np.ndarray, *, quick: bool = False) -> bytes:
    """uint8 (h, w) or (h, w, 3 or 4), or uint16 (h, w), as PNG. quick: of residuals and heatmaps,
    which hardly get smaller, as large as usual in half the time."""
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
    """All views of uint8 (h, w, 3), for a page of paper; heatmap: float32 (h, w) in [0, 1]; mask:
    bool (h, w); grid: as of `jpeg_grid`, without which there is no such view."""
    factor = factor_for(*mask.shape)
    small = np.asarray(Image.fromarray(pixels).reduce(factor))
    marked = reduced(mask.astype(np.float32), factor) > 0
    heated = overlay(small, np.clip(reduced(heatmap, factor), 0, 1), marked)
    size = "one pixel for each pixel" if factor == 1 else f"smaller by a factor of {factor}"
    words = Words(
        "Photo",
        f"The photo, upright, {size}, compressed for this page.",
        "An object or a place where something could have been removed or added.",
        "Fine detail: this is a copy. The crops below are exact.",
    )
    mime = "image/jpeg"
    return [
        View("photo", words, _jpeg(small), mime),
        View("heatmap", HEATMAP_WORDS, _jpeg(heated), mime),
        *derived_views(pixels, grid, Drawing(factor, _jpeg, mime)),
    ]


def derived_views(
    pixels: np.ndarray, grid: tuple[Grid, np.ndarray] | None, drawing: Drawing
) -> Iterator[View]:
    """The views that are worked out from the pixels alone, one after the other."""
    picture, white = _residual(noise_residual(pixels), drawing)
    words = Words(
        "Noise residual",
        f"What is left of the brightness without the content; white is {white:.1f} of 255 levels.",
        "An area with less or with other noise than like surfaces elsewhere.",
        "Edges and texture, which always show, and dark, overexposed or blurred areas, which have "
        "little noise in every photo.",
    )
    yield View("noise", words, picture, drawing.mime)
    picture, white = _residual(colour_residual(pixels), drawing)
    words = Words(
        "Colour residual",
        f"The same of red - green and blue - green; white is {white:.1f} levels.",
        "An area whose colours have no noise of their own: many networks draw all three alike.",
        "Coloured edges. In a JPEG file with chroma subsampling there is little to see at all.",
    )
    yield View("colour", words, picture, drawing.mime)
    picture, white = _residual(error_level(pixels), drawing)
    words = Words(
        "Error level",
        f"What JPEG of quality {ERROR_QUALITY} changes; white is {white:.1f} levels.",
        "An area that differs from others of the same texture.",
        "Bright edges, texture and saturated colours, which always change more: brightness alone "
        "says nothing.",
    )
    yield View("error_level", words, picture, drawing.mime)
    if grid is not None:
        yield _grid_view(*grid, pixels.shape[:2], drawing)


def _residual(residual: np.ndarray, drawing: Drawing) -> tuple[bytes, float]:
    """A residual's size as a picture, and the levels that are white in it."""
    size = np.sqrt(np.maximum(reduced(np.square(residual), drawing.factor), 0))
    white = max(float(np.quantile(size, 0.99)), 1.0)
    return drawing.encode(_levels(size / white)), white


def _grid_view(grid: Grid, cells: np.ndarray, shape: tuple[int, ...], drawing: Drawing) -> View:
    white = max(float(np.quantile(cells, 0.95)), 0.05)
    rows, columns = (np.arange(0, side, drawing.factor) // CELL for side in shape)
    shown = _levels(cells / white)[rows][:, columns]
    said = f"the strongest grid starts at column {grid.x}, row {grid.y}"
    if not grid.found:
        said = "no grid was found in the photo as a whole, so this view says little"
    words = Words(
        "JPEG grid",
        f"How much each cell of {CELL} pixels has of the photo's 8-pixel JPEG grid; {said}.",
        "A dark area of ordinary texture in a photo that has the grid elsewhere: what was filled "
        "in after the last JPEG has none.",
        "Dark cells in smooth or overexposed areas, where no grid shows, and every cell of a photo "
        "that was scaled after it was compressed.",
    )
    return View("jpeg_grid", words, drawing.encode(shown), drawing.mime)


def crop_box(mask: np.ndarray, region: Box) -> Box:
    """The part of a photo to show of a region: at most `CROP` pixels a side, around the marked
    pixel in its box that is nearest to the middle of all those. mask: bool (h, w)."""
    height, width = mask.shape
    inside = mask[region.y : region.y + region.height, region.x : region.x + region.width]
    rows, columns = np.nonzero(inside)
    apart = np.square(rows - np.median(rows)) + np.square(columns - np.median(columns))
    nearest = int(apart.argmin())
    tall, wide = min(CROP, height), min(CROP, width)
    top = min(max(region.y + int(rows[nearest]) - tall // 2, 0), height - tall)
    left = min(max(region.x + int(columns[nearest]) - wide // 2, 0), width - wide)
    return Box(left, top, wide, tall)


def make_crops(
    pixels: np.ndarray, heatmap: np.ndarray, mask: np.ndarray, box: Box
) -> dict[str, bytes]:
    """A crop in three views as PNG, one pixel for each pixel, by its caption."""
    place = slice(box.y, box.y + box.height), slice(box.x, box.x + box.width)
    # With the pixels around it, so that nothing shows that the crop's border makes.
    wide = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in place)
    inner = tuple(
        slice(part.start - more.start, part.start - more.start + part.stop - part.start)
        for part, more in zip(place, wide, strict=True)
    )
    noise = np.abs(noise_residual(pixels[wide]))[inner]
    white = max(float(np.quantile(noise, 0.99)), 1.0)
    return {
        "photo": png(pixels[place]),
        "heatmap": png(overlay(pixels[place], heatmap[place], mask[place])),
        f"noise residual, white is {white:.1f} levels": png(_levels(noise / white)),
    }
