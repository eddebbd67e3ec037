"""Whether what is marked has fine detail."""

import numpy as np
import pytest

from conftest import textured
from overpaint.data.ordinary_edits import blur_planes
from overpaint.detection.smoothness import is_smooth


def make_mask(size: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[rows, columns] = True
    return mask


def test_a_blurred_region_is_smooth_and_its_photo_is_not() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (120, 160, 3)).astype(np.uint8)
    mask = make_mask((120, 160), slice(30, 80), slice(20, 120))
    assert not is_smooth(pixels, mask)
    blurred = np.where(mask[..., None], blur_planes(pixels, 5.0), pixels).astype(np.uint8)
    assert is_smooth(blurred, mask)
    assert not is_smooth(blurred, ~mask)
    # A third of it has detail.
    blurred[30:80, 20:60] = pixels[30:80, 20:60]
    assert not is_smooth(blurred, mask)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (slice(0, 40), slice(0, 40)),
        (slice(100, 120), slice(0, 160)),
        (slice(0, 120), slice(0, 160)),
        (slice(5, 7), slice(5, 7)),
        (slice(119, 120), slice(159, 160)),
    ],
)
def test_masks_at_the_border_and_of_few_pixels(rows: slice, columns: slice) -> None:
    mask = make_mask((120, 160), rows, columns)
    assert is_smooth(np.full((120, 160, 3), 90, np.uint8), mask)
    rough = np.random.default_rng(1).integers(0, 256, (120, 160, 3)).astype(np.uint8)
    assert not is_smooth(rough, mask)


def test_without_a_marked_pixel_nothing_is_smooth() -> None:
    assert not is_smooth(textured(40, 50, 0), np.zeros((40, 50), bool))


def test_the_edge_of_a_region_is_not_looked_at() -> None:
    """There a blurred region borders on other content."""
    pixels = np.full((60, 60, 3), 90, np.uint8)
    mask = make_mask((60, 60), slice(20, 40), slice(20, 40))
    pixels[~mask] = 255
    assert is_smooth(pixels, mask)
