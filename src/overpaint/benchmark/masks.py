"""Mask makers of a recipe: by kind, with a hole of any size or one in a bin."""

from pathlib import Path

import numpy as np

from overpaint.benchmark.recipe import bin_range
from overpaint.data.masks import Mask, MaskFn, hole_ratio, in_ratio
from overpaint.data.universal import mask_mixture
from overpaint.errors import InputError
from overpaint.inpainting.holes import MAX_SHARE

TRIES = 1000
_MIN_SHARE = 1e-9  # less than one pixel of any photo


def mask_maker(spec: str, bin_name: str, assets: Path) -> MaskFn:
    """Masks of a kind (see `universal.mask_mixture`) whose hole lies in a bin.

    Kinds that seldom make holes as large are laid over each other until the bin is reached, and
    drawn anew when it is passed.
    """
    fn, span = mask_mixture({spec: 1.0}, assets), bin_range(bin_name)
    if span is None:
        return in_ratio(fn, _MIN_SHARE, MAX_SHARE)
    low, high = span

    def laid_over(height: int, width: int, rng: np.random.Generator) -> Mask:
        for _ in range(TRIES):
            mask = fn(height, width, rng)
            while hole_ratio(mask) < low:
                mask |= fn(height, width, rng)
            if hole_ratio(mask) < high:
                return mask
        raise InputError(
            f"no {spec} mask of {height} x {width} px with {bin_name} % of hole in {TRIES} tries"
        )

    return laid_over
