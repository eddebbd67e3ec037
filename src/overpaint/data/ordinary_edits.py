"""Ordinary edits of photos that are no inpainting, by name.

They are for measuring and calibrating (`evaluation.edits`, `evaluation.fit_calibration`): a
detector of inpainting should raise no alarm on them; where it does, its report states how often.

- An edit takes a photo uint8 (h, w, 3) of any size, the generator that its strength and place are
  drawn from, and another photo; it returns uint8 (h, w, 3). Only `resize` changes the size.
- Only `montage` and `collage` look at the other photo. Without one, pieces of the photo itself,
  turned round, stand in.
- Edits of a region draw an ellipse or a rectangle for it, with a soft or a hard edge.
- `to_negative` makes one a hard negative of training (`data.negatives`), whose mask it ignores.

Sources of ideas: median and Gaussian filters, unsharp masking and affine resampling are textbook;
the bilateral filter by Tomasi and Manduchi (ICCV 1998); non-local means by Buades, Coll and Morel
(CVPR 2005); tone mapping by a base and a detail layer after Durand and Dorsey (SIGGRAPH 2002), the
base by the guided filter of He, Sun and Tang (ECCV 2010). Written from the formulas, no code taken.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch.nn import functional as F

from overpaint.data.degrade import KERNELS, scale_side
from overpaint.data.negatives import (
    SIGNS,
    Negative,
    blur_planes,
    draw_colour,
    draw_log_uniform,
    mix_edit,
    sharpened,
    text,
    to_uint8,
)
from overpaint.data.photo_fill_gap import LUMA

Pixels = np.ndarray
Edit = Callable[[Pixels, np.random.Generator, Pixels], Pixels]

_KERNELS = tuple(KERNELS.values())
_SMOOTH = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


def apply_edit(
    name: str, pixels: Pixels, rng: np.random.Generator, other: Pixels | None = None
) -> Pixels:
    """A photo uint8 (h, w, 3) after the edit of that name, a key of `ORDINARY_EDITS`.

    other: another photo, uint8 (h, w, 3) of any size. The same generator state gives the same
    pixels; neither input is changed.
    """
    return ORDINARY_EDITS[name](pixels, rng, pixels[::-1, ::-1] if other is None else other)


def to_negative(name: str) -> Negative:
    """An edit that keeps the photo's size, as `data.negatives` calls its kinds."""
    return lambda pixels, mask, rng: apply_edit(name, pixels, rng)


# Of the whole photo


def median(pixels: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """A median filter of 3, 5 or 7 pixels square in each channel."""
    size = int(rng.choice([3, 5, 7]))
    return np.array(Image.fromarray(pixels).filter(ImageFilter.MedianFilter(size)))


def blur(pixels: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """A Gaussian blur of sigma 0.6 to 4 pixels."""
    return blur_planes(pixels, draw_log_uniform(rng, 0.6, 4)).copy()


def unsharp(pixels: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """Unsharp masking (`negatives.sharpened`)."""
    return sharpened(pixels, np.ones(pixels.shape[:2], np.uint8), rng)


def denoise(pixels: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """Non-local means: 25 patches of 5 pixels square within 3 pixels, weighed by their luma."""
    strength, reach = draw_log_uniform(rng, 4, 16), 3
    steps = (0, 2, 3, 4, 6)  # all 49 would take twice as long and look alike
    luma = pixels @ LUMA
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    padded_luma = np.pad(luma, reach, mode="symmetric")
    height, width = luma.shape
    total = np.zeros((height, width, 1), np.float32)
    out = np.zeros(pixels.shape, np.float32)
    for down in steps:
        for right in steps:
            there = (slice(down, down + height), slice(right, right + width))
            distance = _average_boxes((padded_luma[there] - luma) ** 2, 2)
            weight = np.exp(-distance / np.float32(strength**2))[..., None]
            total += weight
            out += weight * padded[there]
    return to_uint8(out / total)


def tone_mapping(pixels: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """The look of HDR: large contrasts of light are compressed, local ones raised."""
    compression, detail, colour = (
        float(rng.uniform(*r)) for r in ((0.4, 0.8), (1, 2.2), (0.7, 1.3))
    )
    light = np.maximum(pixels @ LUMA, 1) / 255
    logarithm = np.log(light).astype(np.float64)
    radius = max(2, round(min(light.shape) * rng.uniform(0.02, 0.08)))
    base = _filter_guided(logarithm, radius, 0.05)
    top = float(base.max())
    mapped = np.exp(top + compression * (base - top) + detail * (logarithm - base))
    ratio = (np.maximum(pixels, 1) / 255 / light[..., None]) ** colour
    return to_uint8(255 * ratio * mapped[..., None])


def grading(pixels: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """Colour grading: a tone curve for each channel, then more or less saturation."""
    levels = np.arange(256) / 255
    curve = _draw_tone_curve(rng, 0.12)
    out = np.empty(pixels.shape, np.float32)
    for channel in range(3):
        own = np.interp(levels, *_draw_tone_curve(rng, 0.05))
        out[..., channel] = 255 * np.interp(own, *curve)[pixels[..., channel]]
    grey = (out @ LUMA)[..., None]
    return to_uint8(grey + rng.uniform(0.4, 1.6) * (out - grey))


def vignette(pixels: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """Corners darker, or seldom lighter, by up to 80 % of the light."""
    height, width = pixels.shape[:2]
    rows = np.linspace(-1, 1, height)[:, None] - rng.uniform(-0.2, 0.2)
    columns = np.linspace(-1, 1, width) - rng.uniform(-0.2, 0.2)
    distance = np.sqrt((rows**2 + columns**2) / 2)
    fall = float(rng.uniform(0.25, 0.8)) * distance ** rng.uniform(1.5, 4)
    target = 255.0 if rng.random() < 0.15 else 0.0
    return mix_edit(pixels, np.full(3, target), np.clip(fall, 0, 1))


def rotation(pixels: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """Straightened by up to 15 degrees and enlarged until no corner is empty; or, as often, turned
    by any angle with corners of one colour."""
    straightened = rng.random() < 0.5
    angle = float(rng.choice([-1, 1]) * draw_log_uniform(rng, 0.5, 15))
    if not straightened:
        angle = float(rng.uniform(-180, 180))
    height, width = pixels.shape[:2]
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    scale = 1.0
    if straightened:
        scale = abs(cosine) + max(width / height, height / width) * abs(sine)
    # Where in the photo a pixel of the result comes from, about the centre.
    a, b, d, e = cosine / scale, -sine / scale, sine / scale, cosine / scale
    matrix = (
        *(a, b, width / 2 - a * width / 2 - b * height / 2),
        *(d, e, height / 2 - d * width / 2 - e * height / 2),
    )
    kernel = _SMOOTH[rng.integers(len(_SMOOTH))]
    corners = tuple(int(v) for v in draw_colour(rng))
    image = Image.fromarray(pixels)
    return np.array(
        image.transform(image.size, Image.Transform.AFFINE, matrix, kernel, fillcolor=corners)
    )


def resize(pixels: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """Half to twice the size, by one of the usual kernels; the only edit that changes it."""
    scale = draw_log_uniform(rng, 0.5, 2)
    height, width = (scale_side(side, scale) for side in pixels.shape[:2])
    return _resize_to(pixels, height, width, rng).copy()


# Of a region


def blurred_region(pixels: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """A face or a number plate made unrecognisable: a Gaussian blur of 1 to 8 % of the photo."""
    sigma = max(1.5, min(pixels.shape[:2]) * draw_log_uniform(rng, 0.01, 0.08))
    return mix_edit(pixels, blur_planes(pixels, sigma), _draw_region(pixels, rng))


def pixelation(pixels: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """Pixelation: squares of one colour in a rectangle."""
    height, width = pixels.shape[:2]
    side = max(2, round(min(height, width) * draw_log_uniform(rng, 0.012, 0.08)))
    image = Image.fromarray(pixels)
    small = image.resize((-(-width // side), -(-height // side)), Image.Resampling.BOX)
    squares = small.resize((width, height), Image.Resampling.NEAREST)
    return mix_edit(pixels, np.asarray(squares), _draw_shape(pixels, rng, ellipse=False))


def redaction(pixels: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """One to five boxes of one colour, mostly black."""
    colour = np.zeros(3) if rng.random() < 0.7 else draw_colour(rng)
    cover = np.zeros(pixels.shape[:2])
    for _ in range(rng.integers(1, 6)):
        cover = np.maximum(cover, _draw_shape(pixels, rng, ellipse=False, largest=0.08))
    return mix_edit(pixels, colour, cover)


def caption(pixels: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """A caption or a watermark (`negatives.text`)."""
    return text(pixels, np.ones(pixels.shape[:2], np.uint8), rng)


def beauty(pixels: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """Skin made smooth by a bilateral filter, in the whole photo or in a region."""
    smooth = _filter_bilateral(pixels, draw_log_uniform(rng, 1, 3), draw_log_uniform(rng, 10, 40))
    weight = np.ones(pixels.shape[:2]) if rng.random() < 0.5 else _draw_region(pixels, rng)
    return mix_edit(pixels, smooth, rng.uniform(0.6, 1) * weight)


def montage(pixels: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """A part of another photo, inserted with a soft edge, its light more or less fitted."""
    height, width = pixels.shape[:2]
    put = _crop_to(other, height, width, rng).astype(np.float32)
    weight = _draw_shape(pixels, rng, ellipse=bool(rng.random() < 0.7), largest=0.3)
    weight = blur_planes(to_uint8(255 * weight), draw_log_uniform(rng, 0.8, 8)) / 255
    if weight.sum():
        here, there = (np.average(p, (0, 1), _repeat_channels(weight)) for p in (pixels, put))
        put += rng.uniform(0, 1) * (here - there)
    return mix_edit(pixels, put, weight)


# Of what is around the photo


def frame(pixels: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """The photo made smaller, within a border of one colour."""
    height, width = pixels.shape[:2]
    border = max(1, round(min(height, width) * rng.uniform(0.02, 0.12)))
    out = np.empty_like(pixels)
    out[:] = to_uint8(draw_colour(rng))
    size = (max(1, height - 2 * border), max(1, width - 2 * border))
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    out[top : top + size[0], left : left + size[1]] = _resize_to(pixels, *size, rng)
    return out


def collage(pixels: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """The photo and another side by side or above each other, or four pieces, with a gap."""
    height, width = pixels.shape[:2]
    out = np.empty_like(pixels)
    out[:] = to_uint8(draw_colour(rng))
    gap = round(min(height, width) * rng.uniform(0, 0.04))
    rows, columns = ((1, 2), (2, 1), (2, 2))[rng.integers(3)]
    cells = [(r, c) for r in range(rows) for c in range(columns)]
    own = int(rng.integers(len(cells)))
    for number, (r, c) in enumerate(cells):
        top, bottom = _place_cell(height, rows, r, gap)
        left, right = _place_cell(width, columns, c, gap)
        if bottom > top and right > left:
            source = pixels if number == own else other
            out[top:bottom, left:right] = _crop_to(source, bottom - top, right - left, rng)
    return out


def screenshot(pixels: Pixels, rng: np.random.Generator, other: Pixels) -> Pixels:
    """The photo as a telephone shows it: resampled, between two bars with lines of text."""
    height, width = pixels.shape[:2]
    upright = rng.random() < 0.7
    side = height if upright else width
    bars = max(2, round(side * rng.uniform(0.15, 0.5)))
    first = round(bars * rng.uniform(0.2, 0.8))
    dark = rng.random() < 0.6
    canvas = Image.new("RGB", (width, height), (0, 0, 0) if dark else (255, 255, 255))
    size = (max(1, height - bars), width) if upright else (height, max(1, width - bars))
    shown = Image.fromarray(_crop_to(pixels, *size, rng))
    canvas.paste(shown, (0, first) if upright else (first, 0))
    font = ImageFont.load_default(max(6.0, min(height, width) / rng.uniform(18, 40)))
    ink, room = ((235,) * 3 if dark else (25,) * 3), max(first, bars - first)
    line = "".join(rng.choice(SIGNS, rng.integers(8, 30)))
    across = 0 if first >= bars - first else side - room
    place = (int(0.04 * width), across + room // 4) if upright else (across + 2, height // 8)
    ImageDraw.Draw(canvas).text(place, line, fill=ink, font=font)
    return np.array(canvas)


ORDINARY_EDITS: dict[str, Edit] = {
    "median": median,
    "blur": blur,
    "unsharp": unsharp,
    "denoise": denoise,
    "tone_mapping": tone_mapping,
    "grading": grading,
    "vignette": vignette,
    "rotation": rotation,
    "resize": resize,
    "blurred_region": blurred_region,
    "pixelation": pixelation,
    "redaction": redaction,
    "caption": caption,
    "beauty": beauty,
    "montage": montage,
    "frame": frame,
    "collage": collage,
    "screenshot": screenshot,
}
KEEP_SIZE = tuple(name for name in ORDINARY_EDITS if name != "resize")
"""Names of the edits that return a photo of the same size."""
WORDS: dict[str, str] = {
    "median": "median filter",
    "blur": "blur",
    "unsharp": "sharpening",
    "denoise": "noise reduction",
    "tone_mapping": "HDR tone mapping",
    "grading": "colour grading",
    "vignette": "vignette",
    "rotation": "rotation",
    "resize": "resizing",
    "blurred_region": "blurred region",
    "pixelation": "pixelated region",
    "redaction": "redaction boxes",
    "caption": "caption or watermark",
    "beauty": "skin smoothing",
    "montage": "montage of two photos",
    "frame": "border",
    "collage": "collage",
    "screenshot": "screenshot",
}
"""How a report names each kind."""


# Regions and places


def _draw_shape(
    pixels: Pixels, rng: np.random.Generator, *, ellipse: bool, largest: float = 0.25
) -> np.ndarray:
    """Weights (h, w), 1 in an ellipse or a rectangle of 1 % to `largest` of the photo, else 0."""
    height, width = pixels.shape[:2]
    area = draw_log_uniform(rng, 0.01, largest) * height * width
    aspect = draw_log_uniform(rng, 0.5, 2)
    tall = min(height, max(1.0, math.sqrt(area * aspect)))
    wide = min(width, max(1.0, area / tall))
    top, left = rng.uniform(0, height - tall), rng.uniform(0, width - wide)
    down = (np.arange(height) + 0.5 - top) / tall
    right = (np.arange(width) + 0.5 - left) / wide
    if ellipse:
        return ((2 * down[:, None] - 1) ** 2 + (2 * right - 1) ** 2 <= 1).astype(float)
    return np.outer((down >= 0) & (down < 1), (right >= 0) & (right < 1)).astype(float)


def _draw_region(pixels: Pixels, rng: np.random.Generator) -> np.ndarray:
    """Weights (h, w): an ellipse or a rectangle, with a soft edge half of the time."""
    weight = _draw_shape(pixels, rng, ellipse=bool(rng.random() < 0.7))
    soft = draw_log_uniform(rng, 1, 10)
    return blur_planes(to_uint8(255 * weight), soft) / 255 if rng.random() < 0.5 else weight


def _place_cell(side: int, num: int, index: int, gap: int) -> tuple[int, int]:
    """Where one of `num` equal cells with gaps around them starts and ends."""
    step = (side - gap) / num
    return round(gap + index * step), round(index * step + step)


def _resize_to(pixels: Pixels, height: int, width: int, rng: np.random.Generator) -> Pixels:
    """The photo at that size, by one of the usual kernels."""
    kernel = _KERNELS[rng.integers(len(_KERNELS))]
    return np.asarray(Image.fromarray(pixels).resize((width, height), kernel))


def _crop_to(pixels: Pixels, height: int, width: int, rng: np.random.Generator) -> Pixels:
    """The largest window of that aspect in the photo, or one somewhat smaller, at that size."""
    part = float(rng.uniform(0.75, 1)) * min(pixels.shape[0] / height, pixels.shape[1] / width)
    size = [max(1, round(part * side)) for side in (height, width)]
    size = [min(n, side) for n, side in zip(size, pixels.shape[:2], strict=True)]
    top, left = (
        int(rng.integers(side - n, endpoint=True))
        for n, side in zip(size, pixels.shape[:2], strict=True)
    )
    window = np.ascontiguousarray(pixels[top : top + size[0], left : left + size[1]])
    return _resize_to(window, height, width, rng)


# Filters


def _repeat_channels(weight: np.ndarray) -> np.ndarray:
    return np.repeat(weight[..., None], 3, axis=2)


def _draw_tone_curve(rng: np.random.Generator, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Points of a rising curve on [0, 1], five of them moved by about `strength`."""
    x = np.linspace(0, 1, 5)
    y = np.clip(x + rng.normal(0, strength, 5), 0, 1)
    return x, np.maximum.accumulate(y)


def _average_boxes(values: np.ndarray, radius: int) -> np.ndarray:
    """Means (h, w) over a square of 2 radius + 1 pixels, of what there is of it at the borders."""
    x, side = torch.from_numpy(np.ascontiguousarray(values))[None], 2 * radius + 1
    x = F.avg_pool2d(x, (side, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(x, (1, side), 1, (0, radius), count_include_pad=False)[0].numpy()


def _filter_guided(values: np.ndarray, radius: int, smoothness: float) -> np.ndarray:
    """The guided filter of (h, w) by itself: smooth, but for edges stronger than `smoothness`
    (a variance)."""
    mean = _average_boxes(values, radius)
    variance = np.maximum(_average_boxes(values**2, radius) - mean**2, 0)
    slope = variance / (variance + smoothness)
    return _average_boxes(slope, radius) * values + _average_boxes(mean - slope * mean, radius)


def _filter_bilateral(pixels: Pixels, sigma: float, levels: float) -> np.ndarray:
    """The bilateral filter, float (h, w, 3): sigma in pixels, `levels` of luma."""
    reach = math.ceil(2 * sigma)
    luma = np.rint(pixels @ LUMA).astype(np.int16)
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    padded_luma = np.pad(luma, reach, mode="symmetric")
    alike = np.exp(-0.5 * (np.arange(-255, 256) / levels) ** 2).astype(np.float32)
    height, width = luma.shape
    total = np.zeros((height, width, 1), np.float32)
    out = np.zeros(pixels.shape, np.float32)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            there = (
                slice(reach + down, reach + down + height),
                slice(reach + right, reach + right + width),
            )
            near = np.float32(math.exp(-0.5 * (down**2 + right**2) / sigma**2))
            weight = (near * alike[padded_luma[there] - luma + 255])[..., None]
            total += weight
            out += weight * padded[there]
    return out / total
