"""Processing of a photo before and after an edit.

- `History` processes a photo before anything is blended into it: a resize, a JPEG with its 8 x 8
  grid at a random phase, sometimes a second one. `Degrade` processes the edited photo as sharing
  does: resize, crop, slight blur and noise, then a lossy file.
- Both first draw a list of `Step`s and then `replay` it. The list is plain data (JSON), by which a
  sample's manifest states what was done, exactly; noise carries its own seed.
- Geometry changes photo and mask together. The mask is resized by nearest neighbour and stays
  binary; both filters are aligned at the pixel centres.
- Photos are uint8 (h, w, 3), masks uint8 (h, w) with 1 = inpainted. Nothing is changed in place.
"""

import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from overpaint.errors import InputError

Pixels = NDArray[np.uint8]
Mask = NDArray[np.uint8]
MaybeMask = TypeVar("MaybeMask", NDArray[np.uint8], None)
Kernel = Literal["box", "bilinear", "bicubic", "lanczos"]
Subsampling = Literal[0, 1, 2]

KERNELS: dict[str, Image.Resampling] = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
GRID = 16  # pixels; with 4:2:0 chroma the pattern of a JPEG repeats every 16, not every 8


@dataclass(frozen=True, slots=True)
class Step:
    """One degradation: its name and all its parameters, as plain JSON values."""

    name: str
    params: dict[str, Any] = field(default_factory=dict)


def _check(pixels: Pixels) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise InputError(
            f"a photo is a uint8 array (h, w, 3), not {pixels.dtype} {pixels.shape}; "
            "convert it to RGB first"
        )


def _recode(pixels: Pixels, **options: Any) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    with Image.open(buffer) as image:
        return np.array(image.convert("RGB"))


# The photo alone


def jpeg(
    pixels: Pixels, quality: int, subsampling: Subsampling = 2, phase: Sequence[int] = (0, 0)
) -> Pixels:
    """The photo after a JPEG file.

    Args:
        quality: 1..100, on the scale of libjpeg.
        subsampling: of the chroma: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0.
        phase: (dy, dx), each 0..15: blocks begin where (row + dy) and (column + dx) are
            multiples of 8, as if that many rows and columns had been cut off after the file.
            The edge is repeated to fill the first blocks.

    Raises InputError for another kind of array and for a phase outside 0..15.
    """
    _check(pixels)
    dy, dx = phase
    if not (0 <= dy < GRID and 0 <= dx < GRID):
        raise InputError(f"JPEG phase {(dy, dx)}: give two shifts of 0..{GRID - 1} pixels")
    padded = np.pad(pixels, ((dy, 0), (dx, 0), (0, 0)), mode="edge") if dy or dx else pixels
    return _recode(padded, format="JPEG", quality=quality, subsampling=subsampling)[dy:, dx:]


def webp(pixels: Pixels, quality: int) -> Pixels:
    """The photo after a lossy WebP file; quality 1..100."""
    _check(pixels)
    return _recode(pixels, format="WEBP", quality=quality)


def halve_colours(pixels: Pixels, phase: Sequence[int] = (0, 0)) -> Pixels:
    """The photo with its colours at half of the resolution, as in a JPEG file with 4:2:0 chroma.

    Nothing else of such a file: Cb and Cr are means of 2 x 2 pixels, enlarged linearly.

    phase: (dy, dx), each 0 or 1: the rows and columns that the first of these squares lacks.
    """
    _check(pixels)
    height, width = pixels.shape[:2]
    before = [
        (shift, (shift + side) % 2) for shift, side in zip(phase, (height, width), strict=True)
    ]
    padded = np.pad(pixels, [*before, (0, 0)], mode="edge")
    luma, *colours = Image.fromarray(padded).convert("YCbCr").split()
    colours = [c.reduce(2).resize(luma.size, Image.Resampling.BILINEAR) for c in colours]
    whole = np.array(Image.merge("YCbCr", [luma, *colours]).convert("RGB"))
    return np.ascontiguousarray(whole[phase[0] :, phase[1] :][:height, :width])


def blur(pixels: Pixels, sigma: float) -> Pixels:
    """Gaussian blur, sigma in pixels (Pillow's, which approximates it by three box filters)."""
    _check(pixels)
    return np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


def noise(pixels: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    """White Gaussian noise, independent in each channel; sigma in grey levels of 0..255."""
    _check(pixels)
    drawn = rng.standard_normal(pixels.shape, dtype=np.float32)
    drawn *= np.float32(sigma)
    drawn += pixels
    return np.rint(drawn).clip(0, 255).astype(np.uint8)


def _seeded_noise(pixels: Pixels, sigma: float, seed: int) -> Pixels:
    return noise(pixels, sigma, np.random.default_rng(seed))


# Photo and mask together


def scale_side(side: int, scale: float) -> int:
    """Length of a side after `resize`: rounded, half up, and at least 1 pixel."""
    return max(1, int(side * scale + 0.5))


def resize(
    pixels: Pixels, mask: MaybeMask, scale: float, kernel: Kernel = "bicubic"
) -> tuple[Pixels, MaybeMask]:
    """Photo and mask (or None) at `scale` times their size, the mask by nearest neighbour.

    Pillow widens the kernel when it shrinks, so that nothing aliases.
    """
    _check(pixels)
    size = (scale_side(pixels.shape[1], scale), scale_side(pixels.shape[0], scale))
    resized = np.array(Image.fromarray(pixels).resize(size, KERNELS[kernel]))
    if mask is None:
        return resized, mask
    nearest = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
    return resized, np.array(nearest)


def crop(
    pixels: Pixels, mask: MaybeMask, top: int, left: int, height: int, width: int
) -> tuple[Pixels, MaybeMask]:
    """The window of that place and size (pixels). Raises InputError when it leaves the photo."""
    _check(pixels)
    inside = min(top, left) >= 0 and min(height, width) > 0
    if not inside or top + height > pixels.shape[0] or left + width > pixels.shape[1]:
        raise InputError(
            f"a window of {height} x {width} at ({top}, {left}) leaves a photo of "
            f"{pixels.shape[0]} x {pixels.shape[1]}; give a smaller one"
        )
    window = (slice(top, top + height), slice(left, left + width))
    cropped = np.ascontiguousarray(pixels[window])
    if mask is None:
        return cropped, mask
    return cropped, np.ascontiguousarray(mask[window])


_PHOTO_STEPS: dict[str, Callable[..., Pixels]] = {
    "jpeg": jpeg,
    "webp": webp,
    "halved_colours": halve_colours,
    "blur": blur,
    "noise": _seeded_noise,
}
_PAIR_STEPS: dict[str, Callable[..., Any]] = {"resize": resize, "crop": crop}


def replay(pixels: Pixels, mask: MaybeMask, steps: Iterable[Step]) -> tuple[Pixels, MaybeMask]:
    """Apply the steps in order; the same steps give the same pixels, bit for bit.

    `mask` may be None where there is none. Raises InputError for a step of unknown name and a
    mask of another size than the photo.
    """
    _check(pixels)
    if mask is not None and mask.shape != pixels.shape[:2]:
        raise InputError(f"a mask of {mask.shape} for a photo of {pixels.shape[:2]}; sizes differ")
    for step in steps:
        if step.name in _PAIR_STEPS:
            pixels, mask = _PAIR_STEPS[step.name](pixels, mask, **step.params)
        elif step.name in _PHOTO_STEPS:
            pixels = _PHOTO_STEPS[step.name](pixels, **step.params)
        else:
            known = ", ".join(sorted(_PAIR_STEPS | _PHOTO_STEPS))
            raise InputError(f"no degradation is called {step.name!r}; there are {known}")
    return pixels, mask


# Random chains


def check_rising(span: tuple[float, float]) -> tuple[float, float]:
    """The range itself; raises ValueError when its ends are the wrong way round."""
    if span[0] > span[1]:
        raise ValueError(f"the range {list(span)} is empty; put the lower end first")
    return span


Share = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Quality = Annotated[int, Field(ge=1, le=100)]
Scale = Annotated[float, Field(gt=0, le=8)]
Strength = Annotated[float, Field(ge=0)]
QualityRange = Annotated[tuple[Quality, Quality], AfterValidator(check_rising)]
ScaleRange = Annotated[tuple[Scale, Scale], AfterValidator(check_rising)]
ShareRange = Annotated[tuple[Share, Share], AfterValidator(check_rising)]
StrengthRange = Annotated[tuple[Strength, Strength], AfterValidator(check_rising)]


class _Chain(BaseModel):
    """What `History` and `Degrade` share: a resize, then steps that keep the size.

    Probabilities are per photo; all but `probability` are given that anything happens at all.
    Ranges are inclusive and drawn uniformly.

    Fields:
        resize, scale, kernels: probability of a resize, its factor, the kernels to choose from.
        quality, subsampling: of the files; chroma 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0.

    Both calls take `size`: with it, a random square window of that side is cut right after the
    geometry, so that the rest costs no more than it must. The input's sides must be at least
    `margin(size)`, also where the caller cuts to size afterwards.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    probability: Probability
    resize: Probability
    scale: ScaleRange = (0.5, 1.5)
    kernels: tuple[Kernel, ...] = Field(default=("bilinear", "bicubic", "lanczos"), min_length=1)
    quality: QualityRange = (60, 100)
    subsampling: tuple[Subsampling, ...] = Field(default=(0, 2), min_length=1)

    def find_margin(self, size: int) -> int:
        """Side in pixels that the input needs so that any draw leaves at least `size`."""
        smallest = min(1.0, self.scale[0]) if self.probability and self.resize else 1.0
        # The tiny term keeps 0.1-like fractions from rounding a whole number up by one.
        return math.ceil(size / smallest - 1e-9)

    def plan(
        self, height: int, width: int, rng: np.random.Generator, size: int | None = None
    ) -> list[Step]:
        """Draw the steps for a photo of that size."""
        acts = bool(rng.random() < self.probability)
        steps: list[Step] = []
        if acts:
            steps, height, width = self._draw_geometry(height, width, rng)
        if size is not None:
            steps += _draw_window(height, width, size, size, rng)
        return steps + self._draw_content(rng) if acts else steps

    def _draw_geometry(
        self, height: int, width: int, rng: np.random.Generator
    ) -> tuple[list[Step], int, int]:
        if rng.random() >= self.resize:
            return [], height, width
        scale = float(rng.uniform(*self.scale))
        kernel = self.kernels[rng.integers(len(self.kernels))]
        step = Step("resize", {"scale": scale, "kernel": kernel})
        return [step], scale_side(height, scale), scale_side(width, scale)

    def _draw_content(self, rng: np.random.Generator) -> list[Step]:
        raise NotImplementedError

    def _draw_jpeg(self, rng: np.random.Generator) -> Step:
        params = {
            "quality": int(rng.integers(*self.quality, endpoint=True)),
            "subsampling": int(self.subsampling[rng.integers(len(self.subsampling))]),
            "phase": rng.integers(GRID, size=2).tolist(),
        }
        return Step("jpeg", params)


def _draw_window(
    height: int, width: int, new_height: int, new_width: int, rng: np.random.Generator
) -> list[Step]:
    """A crop to that size at a random place; no step where nothing is to be cut."""
    if (height, width) == (new_height, new_width):
        return []
    if new_height > height or new_width > width:
        raise InputError(
            f"{height} x {width} pixels are left, fewer than the {new_height} x {new_width} asked "
            "for; give a photo whose sides are at least margin(size)"
        )
    top = int(rng.integers(height - new_height, endpoint=True))
    left = int(rng.integers(width - new_width, endpoint=True))
    params = {"top": top, "left": left, "height": new_height, "width": new_width}
    return [Step("crop", params)]


class History(_Chain):
    """A photo's history: a resize, a JPEG at a random grid phase, sometimes a second, or nothing.

    Fields beside those of the base:
        jpeg: probability of a JPEG.
        twice: that a second one, with its own quality and phase, follows it.
    """

    probability: Probability = 0.8
    resize: Probability = 0.5
    jpeg: Probability = 0.8
    twice: Probability = 0.3

    def _draw_content(self, rng: np.random.Generator) -> list[Step]:
        if rng.random() >= self.jpeg:
            return []
        files = 2 if rng.random() < self.twice else 1
        return [self._draw_jpeg(rng) for _ in range(files)]

    def __call__(
        self, pixels: Pixels, rng: np.random.Generator, size: int | None = None
    ) -> tuple[Pixels, list[Step]]:
        """-> the photo after a random history, and its steps."""
        steps = self.plan(pixels.shape[0], pixels.shape[1], rng, size)
        return replay(pixels, None, steps)[0], steps


class Degrade(_Chain):
    """Processing of an edited photo: resize, crop, blur, noise, and one lossy file.

    Fields beside those of the base:
        saved: probability of a JPEG file before all else, that in which the edit was saved. With
            what comes later it is a photo that was sent through a chat application, which resizes
            and saves it once more.
        crop, keep: probability of a crop, and the share of each side that it keeps. It never
            happens by default: a training window is a random crop already.
        blur, blur_sigma: of a Gaussian blur, sigma in pixels.
        noise, noise_sigma: of white noise, sigma in grey levels of 0..255.
        jpeg, webp: of each format; a photo has one of them at most, so their sum is <= 1. The
            JPEG's grid lies anywhere, as a training window is cut from anywhere in a photo.
    """

    probability: Probability = 0.7
    resize: Probability = 0.3
    saved: Probability = 0.0
    crop: Probability = 0.0
    keep: ShareRange = (0.8, 1.0)
    blur: Probability = 0.1
    blur_sigma: StrengthRange = (0.3, 1.0)
    noise: Probability = 0.1
    noise_sigma: StrengthRange = (0.5, 3.0)
    jpeg: Probability = 0.6
    webp: Probability = 0.1

    @model_validator(mode="after")
    def _check_one_file(self) -> Self:
        if self.jpeg + self.webp > 1:
            raise ValueError(f"jpeg {self.jpeg} + webp {self.webp} is above 1; lower one of them")
        return self

    def find_margin(self, size: int) -> int:
        """Side in pixels that the input needs so that any draw leaves at least `size`."""
        smallest = self.keep[0] if self.probability and self.crop else 1.0
        return super().find_margin(math.ceil(size / smallest - 1e-9))

    def _draw_geometry(
        self, height: int, width: int, rng: np.random.Generator
    ) -> tuple[list[Step], int, int]:
        first = [self._draw_jpeg(rng)] if self.saved and rng.random() < self.saved else []
        steps, height, width = super()._draw_geometry(height, width, rng)
        steps = first + steps
        if rng.random() >= self.crop:
            return steps, height, width
        low, high = rng.uniform(*self.keep, size=2).tolist()
        kept = (math.ceil(height * low), math.ceil(width * high))
        return [*steps, *_draw_window(height, width, *kept, rng)], *kept

    def _draw_content(self, rng: np.random.Generator) -> list[Step]:
        steps: list[Step] = []
        if rng.random() < self.blur:
            steps.append(Step("blur", {"sigma": float(rng.uniform(*self.blur_sigma))}))
        if rng.random() < self.noise:
            sigma, seed = float(rng.uniform(*self.noise_sigma)), int(rng.integers(2**31))
            steps.append(Step("noise", {"sigma": sigma, "seed": seed}))
        chosen = rng.random()
        if chosen < self.jpeg:
            steps.append(self._draw_jpeg(rng))
        elif chosen < self.jpeg + self.webp:
            quality = int(rng.integers(*self.quality, endpoint=True))
            steps.append(Step("webp", {"quality": quality}))
        return steps

    def __call__(
        self, pixels: Pixels, mask: MaybeMask, rng: np.random.Generator, size: int | None = None
    ) -> tuple[Pixels, MaybeMask, list[Step]]:
        """Photo and mask after random degradations, and the steps."""
        steps = self.plan(pixels.shape[0], pixels.shape[1], rng, size)
        pixels, mask = replay(pixels, mask, steps)
        return pixels, mask, steps
