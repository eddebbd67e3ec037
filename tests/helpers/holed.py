"""Photos and masks with holes for the tests of filling."""

import numpy as np

from overpaint.inpainting.holes import Box


def holes(size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> np.ndarray:
    """A mask with holes at (top, left, bottom, right): uint8 (h, w)."""
    mask = np.zeros(size, np.uint8)
    for box in boxes:
        mask[Box(*box).part] = 1
    return mask


def noise(height: int, width: int) -> np.ndarray:
    """A photo of which hardly a pixel equals another: uint8 (h, w, 3)."""
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)
