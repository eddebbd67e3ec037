"""Moved content: other content for a hole, whose colours go on across its edge."""

import numpy as np
import pytest
from numpy.random import default_rng

from overpaint.data.moved_content import move_content


def square_hole(side: int = 64, hole: int = 16) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    start = (side - hole) // 2
    mask[start : start + hole, start : start + hole] = 1
    return mask


def test_moved_content_takes_its_colours_from_around_the_hole() -> None:
    mask = square_hole()
    flat = np.full((64, 64, 3), 100, np.uint8)
    out = move_content(flat, np.full_like(flat, 160), mask, default_rng(0))
    assert np.array_equal(out[mask == 1], flat[mask == 1])
    ramp = np.repeat(np.arange(64, 192, 2, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    out = move_content(ramp, np.full_like(ramp, 7), mask, default_rng(0))
    assert np.abs(out.astype(int) - ramp)[mask == 1].max() < 8  # goes on smoothly from side to side


def test_moved_content_is_other_content_of_the_reconstruction(photo: np.ndarray) -> None:
    photo, mask = photo[:64, :64], square_hole()
    outs = [move_content(photo, photo, mask, default_rng(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(outs[0], outs[1])
    assert not np.array_equal(outs[0], outs[2])
    difference = np.abs(outs[0].astype(int) - photo)[mask == 1]
    assert difference.mean() > 3
    edge = np.abs(outs[0].astype(float) - photo)[mask == 0].mean()  # it fits around the hole
    assert edge < np.abs(photo[::-1].astype(float) - photo)[mask == 0].mean()


@pytest.mark.parametrize("value", [0, 1])
def test_without_an_edge_there_is_nothing_to_fit_to(value: int, photo: np.ndarray) -> None:
    mask = np.full(photo.shape[:2], value, np.uint8)
    assert np.array_equal(move_content(photo, 255 - photo, mask, default_rng(0)), 255 - photo)
