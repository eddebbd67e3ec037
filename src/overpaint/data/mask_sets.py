"""Masks by name, drawn or from files, within a bin of hole ratios.

    nvidia:ROOT        the irregular masks of partial convolutions, test set (white = hole)
    folder:ROOT        mask files of the size of the picture, white = hole
    folder-black:ROOT  the same, black = hole
    objects:ROOT       silhouettes, placed at random (`masks.ObjectMasks`), white = object
    brush, free-form, lama-thin, lama-medium, lama-thick, boxes   drawn (`masks.MASKS`)

- A mask is uint8 (h, w), 1 = hole. All randomness is that of the generator passed in.
- A file is resized to the picture by nearest neighbour, and its ratio is counted after that. With a
  bin, files are taken in a random order until one lies in it: a bin holds what its name says, or
  an error is raised. Of the NVIDIA set, files 0 to 1,999 are the first of `NVIDIA_BINS`, the next
  2,000 the second and so on; a bin of these is looked for among its own files alone.
- A bin is half open, [low, high), as everywhere here (`masks.limit_ratio`); NVIDIA's are
  (low, high].

Source of the NVIDIA set: Liu et al., "Image Inpainting for Irregular Holes Using Partial
Convolutions" (ECCV 2018), section 4.1.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from overpaint.data.finding import expand_home, list_below, refuse_unreadable
from overpaint.data.masks import (
    MASK_SUFFIXES,
    MASKS,
    Mask,
    MaskFn,
    ObjectMasks,
    hole_ratio,
    limit_ratio,
)
from overpaint.errors import ConfigError, ImageError, InputError
from overpaint.images import read_mask_levels

Bin = tuple[float, float]

NVIDIA_BINS: tuple[Bin, ...] = (
    (0.01, 0.1),
    (0.1, 0.2),
    (0.2, 0.3),
    (0.3, 0.4),
    (0.4, 0.5),
    (0.5, 0.6),
)
NVIDIA_NUM = 12_000
_PER_BIN = NVIDIA_NUM // len(NVIDIA_BINS)
_NVIDIA = "expected testing_mask_dataset/00000.png to 11999.png, in it or in mask/ or test_mask/"
FILES = ("nvidia", "folder", "folder-black", "objects")


@dataclass(frozen=True, slots=True)
class MaskFiles:
    """Masks of a folder; a `MaskFn`."""

    paths: tuple[Path, ...]
    bin: Bin | None = None
    invert: bool = False
    """Black = hole."""

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> Mask:
        """Raises InputError when no file lies in the bin, ImageError for a damaged one."""
        for index in rng.permutation(len(self.paths)).tolist():
            mask = self._read(self.paths[index], height, width)
            if self.bin is None or self.bin[0] <= hole_ratio(mask) < self.bin[1]:
                return mask
        assert self.bin is not None, "without a bin the first one fits"
        raise InputError(
            f"{self.paths[0].parent}: none of {len(self.paths)} masks has a hole ratio in "
            f"[{self.bin[0]:g}, {self.bin[1]:g}) at {width} x {height}; take another bin or folder"
        )

    def _read(self, path: Path, height: int, width: int) -> Mask:
        bits, size = _read_packed(path)
        hole = np.unpackbits(bits, count=size[0] * size[1]).reshape(size)
        if size != (height, width):
            nearest = Image.Resampling.NEAREST
            hole = np.asarray(Image.fromarray(hole).resize((width, height), nearest))
        return (hole == 0 if self.invert else hole != 0).astype(np.uint8)


# 8 KB a mask of 256 pixels: the files of a benchmark are read once and not once a bin.
@lru_cache(maxsize=20_000)
def _read_packed(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """White (128 or more) as packed bits, and (h, w)."""
    grey, _ = read_mask_levels(path)
    return np.packbits(grey >= 128), (grey.shape[0], grey.shape[1])


def open_masks(spec: str, bin: Bin | None = None) -> MaskFn:
    """A generator `(height, width, rng) -> mask` by its spec; see the header.

    bin: hole ratios [low, high), as shares. Raises ConfigError for an unknown kind or an impossible
    bin, ImageError for a folder that is not there, of another layout or without masks.
    """
    if bin is not None and not 0 <= bin[0] < bin[1]:
        raise ConfigError(f"hole ratios [{bin[0]:g}, {bin[1]:g}): give low < high, as shares")
    kind, colon, root = spec.partition(":")
    if not colon and kind in MASKS:
        return MASKS[kind] if bin is None else limit_ratio(MASKS[kind], *bin)
    if not colon or kind not in FILES or not root:
        raise ConfigError(
            f"masks {spec!r}: there are {', '.join(MASKS)}, and with a folder "
            f"{', '.join(f'{name}:ROOT' for name in FILES)}"
        )
    folder = expand_home(root)
    if not folder.is_dir():
        raise ImageError(f"{folder}: no such folder of masks")
    if kind == "objects":
        objects = ObjectMasks(folder)
        return objects if bin is None else limit_ratio(objects, *bin)
    if kind == "nvidia":
        return MaskFiles(_select_bin(list_nvidia_files(folder), bin), bin)
    return MaskFiles(_list_mask_files(folder), bin, invert=kind == "folder-black")


def draw_mask(
    spec: str, size: int | tuple[int, int], rng: np.random.Generator, bin: Bin | None = None
) -> Mask:
    """One mask uint8 of `size` (both sides, or h and w); errors as of `open_masks`."""
    height, width = (size, size) if isinstance(size, int) else size
    return _open_cached(spec, bin)(height, width, rng)


@lru_cache(maxsize=64)
def _open_cached(spec: str, bin: Bin | None) -> MaskFn:
    return open_masks(spec, bin)


def list_nvidia_files(root: Path) -> tuple[Path, ...]:
    """The test masks of the NVIDIA set by number; raises ImageError for another layout."""
    places = [root, *(root / p for p in ("testing_mask_dataset", "mask/testing_mask_dataset"))]
    places += [root / "test_mask" / "testing_mask_dataset"]
    with refuse_unreadable(root):
        for place in places:
            names = place.iterdir() if place.is_dir() else ()
            if found := [p for p in names if re.fullmatch(r"\d{5}\.png", p.name)]:
                return tuple(sorted(found))
        here = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
    raise ImageError(f"{root}: not the NVIDIA irregular masks: holds {here}; {_NVIDIA}")


def _select_bin(paths: Sequence[Path], bin: Bin | None) -> tuple[Path, ...]:
    """The files of one of `NVIDIA_BINS`, by their numbers; all for another bin."""
    if bin not in NVIDIA_BINS:
        return tuple(paths)
    number = NVIDIA_BINS.index(bin)
    own = tuple(path for path in paths if int(path.stem) // _PER_BIN == number)
    if not own:
        first, last = number * _PER_BIN, (number + 1) * _PER_BIN - 1
        raise ImageError(
            f"{paths[0].parent}: no mask of the bin {bin[0]:g} to {bin[1]:g}, numbers {first:05} "
            f"to {last:05}; {_NVIDIA}"
        )
    return own


def _list_mask_files(folder: Path) -> tuple[Path, ...]:
    with refuse_unreadable(folder):
        named = (p for p in list_below(folder) if p.suffix.lower() in MASK_SUFFIXES)
        paths = tuple(sorted(p for p in named if p.is_file() and not p.name.startswith(".")))
    if not paths:
        raise ImageError(f"{folder}: no mask images in this folder; give a folder that holds some")
    return paths
