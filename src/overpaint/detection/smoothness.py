"""Whether what is marked has fine detail.

A blurred face or number plate leaves a trace that a detector of inpainting finds. Unlike most
fills, a blur has no fine detail, so that pixels tell the two apart, and such a trace is no strong
one.

Measured with `nixnet-real` on validation photos and on fills by fifteen generators (training and
choosing data): of 38 blurred regions with a strong trace, 33 are smooth by this rule; of 83 fills
with one, 3. A fill of a plain surface may be smooth, too.
"""

import numpy as np

LEVELS = 2
"""Largest Laplacian of the green channel, in levels of 8 bit, of a pixel without fine detail."""
SHARE = 0.75
"""Share of such pixels from which a region is smooth."""
MARGIN = 3
"""Width of the region's edge that is not looked at, pixels: there it borders on other content."""
LEAST = 50
"""Number of pixels that must be left for that; otherwise the edge is looked at, too."""


def is_smooth(pixels: np.ndarray, mask: np.ndarray) -> bool:
    """Whether the marked pixels have hardly any fine detail; False where none is marked.

    pixels: uint8 (h, w, 3). mask: bool (h, w).
    """
    if not mask.any():
        return False
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.s_[max(rows[0] - 1, 0) : rows[-1] + 2, max(columns[0] - 1, 0) : columns[-1] + 2]
    core = mask = mask[box]
    for _ in range(MARGIN):
        up, down, left, right = _list_neighbours(core)
        core = core & up & down & left & right
    if np.count_nonzero(core) < LEAST:
        core = mask
    green = pixels[..., 1][box].astype(np.int16)
    detail = np.abs(4 * green - sum(_list_neighbours(green)))
    return float(np.mean(detail[core] <= LEVELS)) >= SHARE


def _list_neighbours(plane: np.ndarray) -> tuple[np.ndarray, ...]:
    """The planes (h, w) of the four neighbours; those of the border are repeated."""
    wide = np.pad(plane, 1, mode="edge")
    return wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:]
