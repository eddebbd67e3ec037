"""Traces: ways to redraw a photo that are not autoencoders, for a broader universal training set.

Beyond the paper. A detector that is trained on autoencoders alone learns their artefacts. The
output of an inpainting network has less noise than a camera's, noise of another spectrum, or the
period of its upsampler; each trace here makes one such difference and keeps the content. All take
and return uint8 (h, w, 3) of one size and draw their strength from the generator passed in.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from overpaint.data.degrade import jpeg

Trace = Callable[[np.ndarray, np.random.Generator], np.ndarray]

KERNELS = (
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
    Image.Resampling.HAMMING,
)


def resampled(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scaled down (or up) by up to 2.5 and back: lost detail and the kernels' correlation."""
    height, width = pixels.shape[:2]
    factor = float(np.exp(rng.uniform(np.log(0.4), np.log(1.6))))
    there, back = (KERNELS[int(k)] for k in rng.integers(len(KERNELS), size=2))
    size = (max(2, round(width * factor)), max(2, round(height * factor)))
    image = Image.fromarray(pixels).resize(size, there)
    return np.asarray(image.resize((width, height), back))


def denoised(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Median or slight Gaussian smoothing, mixed with the photo."""
    image = Image.fromarray(pixels)
    if rng.random() < 0.5:
        smooth = image.filter(ImageFilter.MedianFilter(int(rng.choice([3, 5]))))
    else:
        smooth = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.4, 1.5))))
    return np.asarray(Image.blend(image, smooth, float(rng.uniform(0.5, 1.0))))


def renoised(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Denoised, then given noise of another strength and colour (correlation length)."""
    height, width = pixels.shape[:2]
    noise = rng.normal(size=(height, width, 3)).astype(np.float32)
    if rng.random() < 0.5:  # grey noise, as from a luminance grain
        noise = np.repeat(noise[..., :1], 3, axis=2)
    if rng.random() < 0.5:
        noise = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) / np.sqrt(3)
    strength = float(np.exp(rng.uniform(np.log(0.7), np.log(6.0))))
    clean = denoised(pixels, rng).astype(np.float32)
    return _round(clean + strength * noise)


def periodic(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The grid of a transposed convolution: each phase of a 2, 4 or 8 period has its own gain."""
    height, width = pixels.shape[:2]
    period = int(rng.choice([2, 4, 8]))
    strength = float(np.exp(rng.uniform(np.log(0.5), np.log(3.0))))
    cell = rng.normal(size=(period, period, 3)) * strength
    tiles = (height // period + 1, width // period + 1, 1)
    pattern = np.tile(cell, tiles)[:height, :width]
    base = resampled(pixels, rng) if rng.random() < 0.7 else pixels
    return _round(base.astype(np.float32) + pattern)


def recompressed(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """JPEG at another quality and grid than the rest of the photo."""
    phase = (int(rng.integers(8)), int(rng.integers(8)))
    return jpeg(pixels, quality=int(rng.integers(50, 96)), phase=phase)


def _round(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


TRACES: dict[str, Trace] = {
    "resampled": resampled,
    "denoised": denoised,
    "renoised": renoised,
    "periodic": periodic,
    "recompressed": recompressed,
}
