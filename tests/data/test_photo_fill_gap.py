"""Apart: what the photo alone went through, and what the fill alone has."""

import numpy as np
import pytest
from numpy.random import default_rng
from pydantic import ValidationError

from overpaint.data import masks
from overpaint.data.degrade import Degrade, jpeg
from overpaint.data.photo_fill_gap import LUMA, Apart, add_colour_noise
from overpaint.data.universal import Pair, UniversalConfig, UniversalDataset

SIDE = 64
PHOTO = default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
REDRAWN = 255 - PHOTO


class Same:
    """One photo and one reconstruction."""

    def draw(self, rng: np.random.Generator) -> Pair:
        return Pair(PHOTO, REDRAWN, "noise", "one")


def sample(index: int = 0, **apart: object) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and mask."""
    about = {"size": SIDE, "bank": {"one": 1}, "untouched": 0, "apart": apart}
    config = UniversalConfig.model_validate({**about, "degrade": Degrade(probability=0)})
    made = UniversalDataset(config, Same(), masks.boxes, 0).sample(index)
    assert made.mask.any()
    return made.pixels, made.mask == 1


def colours(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., 0].astype(float) - pixels[..., 1]


def fine(values: np.ndarray) -> np.ndarray:
    """Differences between neighbours."""
    return np.abs(np.diff(values, axis=1))


def test_off_it_draws_nothing_and_changes_nothing() -> None:
    rng = default_rng(0)
    photo, redrawn = Apart()(PHOTO, REDRAWN, rng)
    assert photo is PHOTO
    assert redrawn is REDRAWN
    pixels, mask = sample()
    found = {tuple(p) for p in pixels[mask]} <= {tuple(p) for p in REDRAWN.reshape(-1, 3)}
    assert found
    for with_one in ({"file": 1}, {"coloured": 1}):
        assert np.array_equal(sample(**with_one)[1], mask)  # all else of the sample stays


def test_only_the_photo_went_through_the_file() -> None:
    for index in range(5):
        plain, mask = sample(index)
        stored, same = sample(index, file=1, quality=(60, 60))
        assert np.array_equal(mask, same)
        assert np.array_equal(plain[mask], stored[mask])
        assert (plain != stored).any(axis=2)[~mask].mean() > 0.9


def test_most_files_have_coarse_colours() -> None:
    rng = default_rng(1)
    always = Apart(file=1, quality=(95, 95))
    left = [
        fine(colours(always(PHOTO, REDRAWN, rng)[0])).mean() / fine(colours(PHOTO)).mean()
        for _ in range(200)
    ]
    full, coarse = (
        fine(colours(jpeg(PHOTO, 95, subsampling))).mean() / fine(colours(PHOTO)).mean()
        for subsampling in (0, 2)
    )
    assert coarse < 0.7 * full
    assert np.mean([value < (full + coarse) / 2 for value in left]) == pytest.approx(0.7, abs=0.1)


@pytest.mark.parametrize("strength", [2.0, 8.0])
def test_colour_noise_leaves_the_luma_and_has_its_strength(strength: float) -> None:
    flat = np.full((256, 256, 3), 128, np.uint8)
    for seed in range(4):
        added = add_colour_noise(flat, strength, default_rng(seed)).astype(float) - 128
        # Three channels are rounded to whole levels: a deviation of 0.29, weighed by the luma.
        assert np.abs(added @ LUMA).max() < 1
        # (n - mean by luma) of unit noise: variance 1 - 2 w + sum of w squared, for the weight w.
        w = LUMA.astype(float)
        expected = strength * np.sqrt(1 - 2 * w + (w**2).sum())
        np.testing.assert_allclose(added.std(axis=(0, 1)), expected, rtol=0.08)


def test_the_grain_of_the_colour_noise_varies() -> None:
    flat = np.full((128, 128, 3), 128, np.uint8)
    shares = []
    for seed in range(20):
        values = colours(add_colour_noise(flat, 8, default_rng(seed)))
        shares.append(fine(values).std() / values.std())
    assert min(shares) < 0.45 < 0.8 < max(shares)


def test_only_the_fill_gets_noise_and_the_strength_is_within_the_range() -> None:
    for index in range(5):
        plain, mask = sample(index)
        noisy, _ = sample(index, coloured=1, strength=(3, 3))
        assert np.array_equal(plain[~mask], noisy[~mask])
        assert (plain != noisy)[mask].mean() > 0.5


def test_shares() -> None:
    rng, some = default_rng(2), Apart(file=0.3, coloured=0.6)
    drawn = [some(PHOTO, REDRAWN, rng) for _ in range(400)]
    assert np.mean([photo is not PHOTO for photo, _ in drawn]) == pytest.approx(0.3, abs=0.07)
    assert np.mean([fill is not REDRAWN for _, fill in drawn]) == pytest.approx(0.6, abs=0.07)


@pytest.mark.parametrize(
    "values", [{"file": 2}, {"strength": (0, 1)}, {"strength": (3, 1)}, {"quality": (90, 60)}]
)
def test_what_cannot_be_drawn(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Apart.model_validate(values)
