"""Moved content: what the bank redrew, taken from elsewhere in the photo and fitted to the hole.

Beyond the paper. An autoencoder repeats the photo's content; an inpainter invents it, so that
structures end at the edge of the hole while colours continue smoothly. Here a shifted (and perhaps
mirrored) reconstruction stands for the invented content:

1. of a few random shifts, the one that fits best along the outside of the hole is used;
2. a smooth offset matches its colours to those around the hole. It is the solution of the heat
   equation on cells of 8 pixels, a coarse form of the membrane of Poisson image editing
   (Perez et al. 2003): colour is continuous across the edge, texture and lines are not.
"""

import numpy as np
from PIL import Image

CELL = 8  # pixels
NUM_SHIFTS = 6
NUM_SWEEPS = 40
RING = 4  # pixels around the hole in which a shift has to fit


def move_content(
    photo: np.ndarray, reconstruction: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Other content for the hole: uint8 (h, w, 3), to be blended by the same mask.

    photo, reconstruction: uint8 (h, w, 3); mask: uint8 (h, w), 1 = hole. An empty or full mask
    gives back the reconstruction, since nothing is left to fit to.
    """
    ring = _find_ring(mask)
    if not ring.any() or not mask.any():
        return reconstruction
    height, width = mask.shape
    down, right = height // 2, width // 2
    continued = np.pad(reconstruction, ((down, down), (right, right), (0, 0)), mode="symmetric")
    rows, columns = np.nonzero(ring)
    around = photo[rows, columns].astype(np.float32)
    best, least = reconstruction, np.inf
    for _ in range(NUM_SHIFTS):
        candidate = _draw_window(continued, height, width, rng)
        difference = around - candidate[rows, columns]
        misfit = float((difference - difference.mean(axis=0)).var())
        if misfit < least:
            best, least = candidate, misfit
    offset = _continue_smoothly(photo.astype(np.float32) - best, mask)
    return np.clip(np.rint(best + offset), 0, 255).astype(np.uint8)


def _draw_window(
    pixels: np.ndarray, height: int, width: int, rng: np.random.Generator
) -> np.ndarray:
    """A random window of that size, mirrored half of the time."""
    top = int(rng.integers(pixels.shape[0] - height, endpoint=True))
    left = int(rng.integers(pixels.shape[1] - width, endpoint=True))
    window = pixels[top : top + height, left : left + width]
    return window[:, ::-1] if rng.random() < 0.5 else window


def _find_ring(mask: np.ndarray) -> np.ndarray:
    """Known pixels within `RING` of the hole (a square neighbourhood)."""
    near = mask != 0
    for axis in (0, 1):
        grown = near.copy()
        for step in range(1, RING + 1):
            grown |= _shift(near, step, axis) | _shift(near, -step, axis)
        near = grown
    return near & (mask == 0)


def _shift(flags: np.ndarray, step: int, axis: int) -> np.ndarray:
    """Flags moved by `step` along `axis`, with nothing coming in from the other side."""
    out = np.zeros_like(flags)
    size = flags.shape[axis]
    source = [slice(None), slice(None)]
    target = [slice(None), slice(None)]
    source[axis] = slice(max(0, -step), size - max(0, step))
    target[axis] = slice(max(0, step), size - max(0, -step))
    out[tuple(target)] = flags[tuple(source)]
    return out


def _continue_smoothly(difference: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Smooth continuation of `difference` (h, w, 3), known where the mask is 0, into the hole."""
    known = (mask == 0).astype(np.float32)
    weight = _average_cells(known[..., None])
    mean = _average_cells(difference * known[..., None]) / np.maximum(weight, 1e-6)
    fixed = weight[..., 0] > 0.1
    start = mean[fixed].mean(axis=0) if fixed.any() else np.zeros(3, np.float32)
    framed = np.pad(np.where(fixed[..., None], mean, start), ((1, 1), (1, 1), (0, 0)), mode="edge")
    value, free = framed[1:-1, 1:-1], ~fixed
    for _ in range(NUM_SWEEPS):
        framed[0], framed[-1] = framed[1], framed[-2]
        framed[:, 0], framed[:, -1] = framed[:, 1], framed[:, -2]
        total = framed[:-2, 1:-1] + framed[2:, 1:-1] + framed[1:-1, :-2] + framed[1:-1, 2:]
        value[free] = total[free] / 4
    height, width = mask.shape
    size = (-(-width // CELL) * CELL, -(-height // CELL) * CELL)
    planes = [
        Image.fromarray(value[..., c].astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
        for c in range(value.shape[2])
    ]
    return np.dstack([np.asarray(plane)[:height, :width] for plane in planes])


def _average_cells(values: np.ndarray) -> np.ndarray:
    """Mean over cells of 8x8 pixels: (h, w, c) -> (ceil(h/8), ceil(w/8), c); zeros fill up."""
    height, width, channels = values.shape
    padded = np.pad(values, ((0, -height % CELL), (0, -width % CELL), (0, 0)))
    shape = (padded.shape[0] // CELL, CELL, padded.shape[1] // CELL, CELL, channels)
    return padded.reshape(shape).mean(axis=(1, 3))
