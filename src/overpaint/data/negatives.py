"""Hard negatives: photos edited by something else than inpainting, so that their mask is empty.

Beyond the paper. A detector that is trained on redrawn regions and untouched photos alone marks any
unusual region as redrawn: a flat sky, a caption, a bright window, the noise of a night shot.

- `REGIONAL` kinds edit a region, given as a mask: they change nothing outside of it, and a soft
  edge falls off inside. A mask of ones means the whole photo. `spot_colour` and `cut_out` change
  what is around it, and the other kinds ignore the mask.
- Noise at night is Poisson-Gaussian: shot noise that grows with the light and read noise that does
  not (Foi et al. 2008, "Practical Poissonian-Gaussian Noise Modeling and Fitting for Single-Image
  Raw-Data"), drawn in linear light. It is of the whole photo: in a region, it would be a trace.
- Unsharp masking: the photo plus a multiple of its difference from a blurred copy.
- Photos with fine detail in strong colours were false alarms of a detector with colour residuals;
  `vivid` makes more of them. So were a coloured badge in a photo in black and
  white and a figure cut out and put before white: `spot_colour` and `cut_out`.
- What is smoothed is blurred more than the `denoised` trace, and its transition is never hard.

All take uint8 (h, w, 3), a mask (h, w) with 1 = the region, and the generator that their strength
is drawn from, and return uint8 (h, w, 3). Written from the formulas, no code taken.
"""

import string
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from overpaint.data.photo_fill_gap import LUMA

Negative = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]

GAMMA = 2.2  # of the display, between pixel values and light
SIGNS = [*string.ascii_letters, *string.digits, *"    .,:-!@"]


def brightened(pixels: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other gamma, contrast, exposure and colour cast; with a soft or a hard edge."""
    gamma, contrast, exposure = (
        draw_log_uniform(rng, *r) for r in ((0.6, 1.6), (0.7, 1.4), (0.6, 1.6))
    )
    cast = np.exp(rng.normal(0, 0.06, 3))
    values = ((pixels / 255) ** gamma - 0.5) * contrast + 0.5
    weight = _soften(mask, rng) if rng.random() < 0.5 else mask
    return mix_edit(pixels, 255 * exposure * cast * values, weight)


def sharpened(pixels: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Unsharp masking, up to halos; with a soft or a hard edge."""
    amount, sigma = draw_log_uniform(rng, 0.5, 4), draw_log_uniform(rng, 0.5, 3)
    detail = pixels.astype(np.float32) - blur_planes(pixels, sigma)
    weight = _soften(mask, rng) if rng.random() < 0.5 else mask
    return mix_edit(pixels, pixels + amount * detail, weight)


def vivid(pixels: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Stronger colours, with sharper edges between them; the luma stays, where nothing clips."""
    saturation, amount = draw_log_uniform(rng, 0.8, 2.5), draw_log_uniform(rng, 0.3, 4)
    detail = pixels.astype(np.float32) - blur_planes(pixels, draw_log_uniform(rng, 0.5, 3))
    edited = pixels + (saturation - 1) * _remove_luma(pixels) + amount * _remove_luma(detail)
    weight = _soften(mask, rng) if rng.random() < 0.5 else mask
    return mix_edit(pixels, edited, weight)


def spot_colour(pixels: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Black and white, or nearly, but for the region; with a soft or a hard edge."""
    weight = _soften(mask, rng) if rng.random() < 0.5 else mask
    grey = pixels - rng.uniform(0.85, 1) * _remove_luma(pixels)
    return mix_edit(pixels, grey, 1 - weight.astype(float))


def cut_out(pixels: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The region before a backdrop of one colour, a little darker towards one side."""
    height, width = pixels.shape[:2]
    steps = rng.uniform(-0.2, 0.2, 2)
    light = (
        1 + steps[0] * np.linspace(-1, 1, height)[:, None] + steps[1] * np.linspace(-1, 1, width)
    )
    colour = np.full(3, 255.0) if rng.random() < 0.5 else rng.uniform(0, 255, 3)
    return mix_edit(pixels, colour * light[..., None], 1 - mask.astype(float))


def smoothed(pixels: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Out of focus, up to the gradient of a sky; half of the time with new grain."""
    smooth = blur_planes(pixels, draw_log_uniform(rng, 3, 40)).astype(np.float32)
    if rng.random() < 0.5:
        smooth += rng.normal(0, draw_log_uniform(rng, 1, 5), pixels.shape)
    return mix_edit(pixels, smooth, _soften(mask, rng))


def noisy(pixels: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Low light: shot and read noise in linear light, half of the time as demosaicking leaves it.

    The whole photo, whatever the mask. White collects 60 to 1500 electrons.
    """
    white, read, left = (draw_log_uniform(rng, *r) for r in ((60, 1500), (1, 6), (0.3, 1)))
    electrons = rng.poisson((pixels / 255) ** GAMMA * white) + rng.normal(0, read, pixels.shape)
    light = np.clip(left * electrons / white, 0, 1)
    out = to_uint8(255 * light ** (1 / GAMMA))
    return blur_planes(out, float(rng.uniform(0.4, 0.8))) if rng.random() < 0.5 else out


def text(pixels: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A caption or watermark of one to three lines, at a random place.

    Opaque or half transparent, level or at an angle.
    """
    height, width = pixels.shape[:2]
    font = ImageFont.load_default(draw_log_uniform(rng, 8, max(9, height / 4)))
    lengths = rng.integers(3, 25, size=rng.integers(1, 4))
    words = "\n".join("".join(rng.choice(SIGNS, n)) for n in lengths)
    place = (float(rng.uniform(-0.05, 0.6)) * width, float(rng.uniform(0, 0.8)) * height)
    layer = Image.new("L", (width, height))
    ImageDraw.Draw(layer).multiline_text(place, words, fill=255, font=font)
    if rng.random() < 0.3:
        angle = float(rng.uniform(-30, 30))
        layer = layer.rotate(angle, Image.Resampling.BILINEAR, center=place)
    opacity = 1.0 if rng.random() < 0.5 else float(rng.uniform(0.25, 0.8))
    return mix_edit(pixels, draw_colour(rng), opacity * np.asarray(layer) / 255)


def frame(pixels: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bars at two sides, a border, or the boxes of a redaction, in one flat colour."""
    cover = np.zeros(pixels.shape[:2], bool)
    kind = int(rng.integers(4))
    if kind == 3:
        for _ in range(rng.integers(1, 5)):
            rows, columns = (_draw_span(side, rng) for side in cover.shape)
            cover[rows, columns] = True
    for lines in ((cover,), (cover.T,), (cover, cover.T), ())[kind]:
        thick = max(1, round(len(lines) * rng.uniform(0.03, 0.2)))
        lines[:thick] = lines[-thick:] = True
    return mix_edit(pixels, draw_colour(rng), cover)


def _draw_span(side: int, rng: np.random.Generator) -> slice:
    """A piece of 1 pixel to 40 % of a side."""
    length = max(1, round(side * rng.uniform(0.02, 0.4)))
    start = int(rng.integers(side - length, endpoint=True))
    return slice(start, start + length)


def draw_log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def draw_colour(rng: np.random.Generator) -> np.ndarray:
    """Black, white or any colour, (3,)."""
    return (np.zeros(3), np.full(3, 255.0), rng.uniform(0, 255, 3))[rng.integers(3)]


def _remove_luma(values: np.ndarray) -> np.ndarray:
    """(h, w, 3) less its luma."""
    return values - (values @ LUMA)[..., None]


def blur_planes(pixels: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


def _soften(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Weights (h, w): 0 at the region's edge, rising inside of it to 1."""
    sigma = draw_log_uniform(rng, 2, 12)
    region = (mask != 0).astype(np.uint8)
    while sigma > 0.5:
        inner = np.clip(blur_planes(255 * region, sigma) / 127.5 - 1, 0, 1) * region
        if inner.max() > 0.2:
            return inner / inner.max()
        sigma /= 2  # a thin stroke has no inside at this scale
    return region


def mix_edit(pixels: np.ndarray, edited: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The photo where the weight (h, w) is 0, and the edit (to be rounded) where it is 1."""
    difference = np.subtract(edited, pixels, dtype=np.result_type(edited, np.float32))
    return to_uint8(pixels + weight[..., None] * difference)


def to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


NEGATIVES: dict[str, Negative] = {
    "brightened": brightened,
    "sharpened": sharpened,
    "vivid": vivid,
    "spot_colour": spot_colour,
    "cut_out": cut_out,
    "smoothed": smoothed,
    "noisy": noisy,
    "text": text,
    "frame": frame,
}
REGIONAL = frozenset({"brightened", "sharpened", "vivid", "smoothed"})
