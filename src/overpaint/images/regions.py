"""Connected regions of a mask: boxes, areas and mean heat, in plain numpy.

- The mask becomes runs (stretches of ones within a row); runs of neighbouring rows that touch, also
  by a corner (8-connectivity), are joined by union-find.
- Union-find is done for all pairs at once: hook every root to a lower one, then let each run
  point straight to its root, until nothing changes. The lowest run of a region is its root.
- Specks under 16 pixels are left out of the list; they stay in the mask.
"""

from dataclasses import asdict, dataclass

import numpy as np

MIN_AREA = 16
"""Pixels; smaller regions are not listed."""

MAX_REGIONS = 100
"""Only so many regions are listed, the largest; `num_regions` counts them all."""


@dataclass(frozen=True, slots=True)
class Region:
    """One connected region: its bounding box and area in pixels, and its mean heat in [0, 1]."""

    x: int
    y: int
    width: int
    height: int
    area: int
    mean: float

    def to_dict(self) -> dict[str, int | float]:
        """For JSON; the mean is rounded to four digits."""
        return {**asdict(self), "mean": round(self.mean, 4)}


def find_regions(
    mask: np.ndarray,
    heatmap: np.ndarray,
    *,
    min_area: int = MIN_AREA,
    max_regions: int = MAX_REGIONS,
) -> tuple[tuple[Region, ...], int]:
    """(the largest regions, by falling area; the number of all of at least `min_area` pixels).

    mask: bool (h, w). heatmap: float32 (h, w) in [0, 1]. Regions of equal area come from the top
    down, then from the left.
    """
    row, start, end = _find_runs(mask)
    if not row.size:
        return (), 0
    _, label = np.unique(_find_roots(row, start, end), return_inverse=True)
    area = np.bincount(label, weights=end - start).astype(np.int64)
    # The pixels of the mask in reading order are those of the runs, one run after the other.
    offsets = np.cumsum(end - start) - (end - start)
    heat = np.bincount(label, np.add.reduceat(heatmap[mask], offsets, dtype=np.float64))
    order = np.argsort(label, kind="stable")
    first = np.searchsorted(label[order], np.arange(area.size))
    left = np.minimum.reduceat(start[order], first)
    right = np.maximum.reduceat(end[order], first)
    top = np.minimum.reduceat(row[order], first)
    bottom = np.maximum.reduceat(row[order], first) + 1
    ranked = np.lexsort((left, top, -area))
    ranked = ranked[area[ranked] >= min_area]
    listed = tuple(
        Region(
            x=int(left[i]),
            y=int(top[i]),
            width=int(right[i] - left[i]),
            height=int(bottom[i] - top[i]),
            area=int(area[i]),
            mean=float(heat[i] / area[i]),
        )
        for i in ranked[:max_regions]
    )
    return listed, int(ranked.size)


def select_seeded(mask: np.ndarray, seeds: np.ndarray, share: float) -> np.ndarray:
    """The regions of `mask` of which more than `share` are `seeds`; all bool (h, w)."""
    row, start, end = _find_runs(mask)
    out = np.zeros_like(mask)
    if not row.size:
        return out
    root, length = _find_roots(row, start, end), end - start
    found = np.add.reduceat(seeds[mask], np.cumsum(length) - length, dtype=np.int64)
    kept = np.bincount(root, weights=found) > share * np.bincount(root, weights=length)
    out[mask] = np.repeat(kept[root], length)
    return out


def _find_runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, first column and column after the last, of every run in reading order."""
    height, width = mask.shape
    padded = np.zeros((height, width + 2), dtype=np.int8)  # so that no run crosses a row's end
    padded[:, 1:-1] = mask
    change = np.flatnonzero(np.diff(padded.reshape(-1)))
    row, start = np.divmod(change[::2], width + 2)
    return row, start, change[1::2] - row * (width + 2)


def _find_roots(row: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """For each run the index of the first run of its region."""
    one, other = _find_touching(row, start, end)
    parent = np.arange(row.size)
    while one.size:
        one, other = parent[one], parent[other]
        apart = one != other
        one, other = one[apart], other[apart]
        # Where a root is hooked to several lower ones, any will do: the pairs come again.
        parent[np.maximum(one, other)] = np.minimum(one, other)
        while not np.array_equal(grand := parent[parent], parent):
            parent = grand
    return parent


def _find_touching(
    row: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of runs in neighbouring rows that share an edge or a corner."""
    stride = int(end.max()) + 3
    # A run of the row above touches when it ends at or after our start, and starts at or before
    # our end; keys put the rows one behind the other, with a gap, so that one search does for all.
    low = np.searchsorted(row * stride + end, (row - 1) * stride + start, side="left")
    high = np.searchsorted(row * stride + start, (row - 1) * stride + end, side="right")
    count = np.maximum(high - low, 0)
    below = np.repeat(np.arange(row.size), count)
    within = np.arange(below.size) - np.repeat(np.cumsum(count) - count, count)
    return low[below] + within, below
