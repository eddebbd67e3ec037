"""Crops of photos at native resolution."""

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from overpaint.data.recent import RecentArrays
from overpaint.data.sources import PhotoSource
from overpaint.images import to_tensor

# Decoding costs as much as a step of a small network. Outside of the class, so that a data set can
# be sent to worker processes that are not forked.
_recent: RecentArrays[tuple[np.ndarray]] = RecentArrays()


def crop_middle(pixels: np.ndarray, side: int) -> np.ndarray:
    """The middle of (h, w, ...), each side at most `side` pixels."""
    top, left = (max(0, (n - side) // 2) for n in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def random_crop(pixels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A (size, size, ...) window of (h, w, ...); a smaller photo is first padded by reflection."""
    height, width = pixels.shape[:2]
    missing = (max(0, size - height), max(0, size - width))
    if any(missing):
        padding = [(0, missing[0]), (0, missing[1])] + [(0, 0)] * (pixels.ndim - 2)
        pixels = np.pad(pixels, padding, mode="symmetric")
        height, width = pixels.shape[:2]
    top = int(rng.integers(height - size + 1))
    left = int(rng.integers(width - size + 1))
    return pixels[top : top + size, left : left + size]


def random_flip(rng: np.random.Generator, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """The same draw of the square's eight symmetries applied to each array (h, w, ...)."""
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    turned = (np.rot90(a, turns) for a in arrays)
    return tuple(np.ascontiguousarray(a[:, ::-1] if mirrored else a) for a in turned)


class PhotoCrops(Dataset[dict[str, Tensor]]):
    """Sample i: {"image": (3, size, size) in [0, 1]}, a pure function of (seed, i)."""

    def __init__(self, photos: PhotoSource, size: int, seed: int) -> None:
        self.photos, self.size, self.seed = photos, size, seed

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, index])
        number = int(rng.integers(len(self.photos)))
        (pixels,) = _recent.get((self.photos, number), lambda: (self.photos.read(number),))
        (crop,) = random_flip(rng, random_crop(pixels, self.size, rng))
        return {"image": to_tensor(crop)[0]}
