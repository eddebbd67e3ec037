"""The edge of a hole: how far it is grown beyond its mask, and how fill and photo are mixed there.

- A removed object extends a little beyond its mask, because lens, resizing and JPEG blur its edge.
  A hole that ends at the mask leaves an outline, so it is grown by a radius.
- The default radius was chosen by eye, on five objects of BSDS500 (481 x 321) that `patchmatch`
  removed with hand-drawn masks, hard and blurred. With hard masks, 1/256 of the longer side leaves
  parts of the outline of two objects, 1/128 leaves hardly any. With blurred masks neither leaves
  an outline.
- In the outer half of that ring, fill and photo are mixed. Pixels under the mask are never mixed,
  and pixels outside the ring are never changed.
- Distances are Euclidean, between the centres of pixels: the separable transform of Felzenszwalb
  and Huttenlocher (Theory of Computing 8, 2012), limited to the radius.
"""

import numpy as np

from overpaint.errors import InputError

MAX_RADIUS = 64
"""Largest radius that a user may set, pixels."""

_PER_RADIUS, _MAX_USUAL = 128, 16


def choose_radius(shape: tuple[int, ...]) -> int:
    """Default radius for a photo (h, w, ...), pixels: 1/128 of its longer side, at most 16."""
    return min(round(max(shape[:2]) / _PER_RADIUS), _MAX_USUAL)


def compute_fill_weight(marked: np.ndarray, radius: int) -> np.ndarray:
    """Weight of the fill, float32 (h, w): 1 only fill, 0 only photo, between in the outer ring.

    marked: bool (h, w), the pixels under the mask; their weight is 1. radius: pixels, 0..64; pixels
    within this distance of a marked one have a weight above 0. Raises `InputError` for another
    radius.
    """
    if radius not in range(MAX_RADIUS + 1):
        raise InputError(f"dilate {radius}: give a whole number of 0 to {MAX_RADIUS} pixels")
    weight = marked.astype(np.float32)
    rows, columns = (np.flatnonzero(marked.any(axis=axis)) for axis in (1, 0))
    if not radius or not rows.size:
        return weight
    part = tuple(slice(max(0, s[0] - radius), s[-1] + radius + 1) for s in (rows, columns))
    distance = _compute_distance(marked[part], radius)
    fade = radius // 2
    ramp = np.clip((radius + 1 - distance) / (fade + 1), 0, 1)
    weight[part] = np.where(distance <= radius, ramp, 0)
    return weight


def _compute_distance(marked: np.ndarray, reach: int) -> np.ndarray:
    """float32 (h, w): distance to the nearest marked pixel; exact up to `reach`, else above it."""
    far = reach + 1
    down = _list_steps(marked, far)
    square = np.minimum(down, _list_steps(marked[::-1], far)[::-1]) ** 2  # along each column
    nearest = square.copy()
    for step in range(1, reach + 1):
        np.minimum(nearest[:, step:], square[:, :-step] + step**2, out=nearest[:, step:])
        np.minimum(nearest[:, :-step], square[:, step:] + step**2, out=nearest[:, :-step])
    return np.sqrt(nearest, dtype=np.float32)


def _list_steps(marked: np.ndarray, far: int) -> np.ndarray:
    """int32 (h, w): rows since the last marked pixel above, at most `far`."""
    row = np.arange(len(marked), dtype=np.int32)[:, None]
    last = np.maximum.accumulate(np.where(marked, row, -far), axis=0)
    return np.minimum(row - last, far)
