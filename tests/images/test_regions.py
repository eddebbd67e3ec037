"""Connected regions against a slow flood fill, and which of them are listed."""

import numpy as np
import pytest

from overpaint.images.regions import Region, find_regions, select_seeded


def flood_fill(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """Regions one pixel after the other, as slow as it is plain."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    found = []
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge += near
        found.append(region)
    return found


def test_regions_by_hand() -> None:
    mask = np.zeros((12, 20), bool)
    mask[1:5, 2:8] = True  # 4 x 6 = 24
    mask[5, 8] = True  # touches it by a corner
    mask[7:11, 12:20] = True  # 4 x 8 = 32, at the right border
    mask[9, 0:5] = True  # 5 pixels: a speck
    heat = np.where(mask, 0.75, 0.0).astype(np.float32)
    heat[1:5, 2:8] = 1.0
    (first, second), count = find_regions(mask, heat)
    assert count == 2  # without the speck
    assert first == Region(x=12, y=7, width=8, height=4, area=32, mean=0.75)
    assert second == Region(x=2, y=1, width=7, height=5, area=25, mean=(24 + 0.75) / 25)


@pytest.mark.parametrize("density", [0.05, 0.3, 0.42, 0.6, 0.95])
def test_regions_equal_a_flood_fill(density: float) -> None:
    rng = np.random.default_rng(int(100 * density))
    for size in ((1, 1), (1, 40), (40, 1), (37, 53)):
        heat = rng.random(size, dtype=np.float32)
        mask = heat < density
        expected = []
        for region in flood_fill(mask):
            (top, left), (bottom, right) = np.min(list(region), 0), np.max(list(region), 0)
            mean = np.mean([heat[p] for p in region], dtype=np.float64)
            box = (left, top, right - left + 1, bottom - top + 1)
            expected.append((*map(int, box), len(region), round(float(mean), 9)))
        listed, count = find_regions(mask, heat, min_area=1, max_regions=10**6)
        got = [(r.x, r.y, r.width, r.height, r.area, round(r.mean, 9)) for r in listed]
        assert count == len(expected)
        assert sorted(got) == sorted(expected)
        assert [r.area for r in listed] == sorted((r.area for r in listed), reverse=True)
        seeds = mask & (rng.random(size) < 0.5)
        kept = np.zeros_like(mask)
        for region in flood_fill(mask):
            half = sum(seeds[p] for p in region) > 0.5 * len(region)
            kept[tuple(np.array(list(region)).T)] = half
        np.testing.assert_array_equal(select_seeded(mask, seeds, 0.5), kept)


def test_a_winding_region_is_one() -> None:
    mask = np.zeros((41, 41), bool)
    mask[::2] = True
    mask[1::4, -1] = True  # joins the rows at alternating ends
    mask[3::4, 0] = True
    (region,), count = find_regions(mask, mask.astype(np.float32))
    assert (region.width, region.height, count) == (41, 41, 1)


def test_the_list_is_capped_and_the_count_is_not() -> None:
    mask = np.zeros((150, 150), bool)
    for y in range(0, 150, 6):
        mask[y : y + 4, 0:5] = mask[y : y + 5, 8:12] = True
    listed, count = find_regions(mask, mask.astype(np.float32), max_regions=3)
    assert (len(listed), count) == (3, 50)
    assert find_regions(np.zeros((5, 5), bool), np.zeros((5, 5), np.float32)) == ((), 0)
