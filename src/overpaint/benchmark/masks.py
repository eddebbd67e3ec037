"""Mask makers of a recipe: by kind, with a hole of any size or one in a bin."""

from pathlib import Path

import numpy as np

from overpaint.benchmark.photos import resolve_below
from overpaint.benchmark.recipe import parse_bin
from overpaint.data.mask_sets import FILES, open_masks
from overpaint.data.masks import MASKS, Mask, MaskFn, hole_ratio, limit_ratio
from overpaint.errors import InputError
from overpaint.inpainting.holes import MAX_SHARE

TRIES = 1000
_MIN_SHARE = 1e-9  # less than one pixel of any photo


def make_mask_maker(spec: str, bin_name: str, data: Path) -> MaskFn:
    """Masks of a kind (see `mask_sets`) whose hole lies in a bin; of folders below `data`.

    Drawn kinds that seldom make holes as large are laid over each other until the bin is reached,
    and drawn anew when it is passed.
    """
    span = parse_bin(bin_name)
    if span is None:
        return limit_ratio(open_masks(_resolve_spec(spec, data)), _MIN_SHARE, MAX_SHARE)
    if spec not in MASKS:
        return open_masks(_resolve_spec(spec, data), span)
    fn, (low, high) = MASKS[spec], span

    def draw_mask(height: int, width: int, rng: np.random.Generator) -> Mask:
        for _ in range(TRIES):
            mask = fn(height, width, rng)
            while hole_ratio(mask) < low:
                mask |= fn(height, width, rng)
            if hole_ratio(mask) < high:
                return mask
        raise InputError(
            f"no {spec} mask of {height} x {width} px with {bin_name} % of hole in {TRIES} tries"
        )

    return draw_mask


def _resolve_spec(spec: str, data: Path) -> str:
    return spec if spec in MASKS else resolve_below(data, spec, FILES)
