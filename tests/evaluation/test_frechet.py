"""The Frechet distance: by hand, against the formula with a general root, and on pictures."""

import numpy as np
import pytest
import torch

from helpers.pixel_backbone import Pixels
from overpaint.errors import InputError
from overpaint.evaluation.frechet import compute_frechet_distance, compute_moments, measure_moments
from overpaint.layers.perceptual import DistilledVGG19


def features(num: int, seed: int, shift: float = 0.0, spread: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(6, 6))
    return shift + spread * rng.normal(size=(num, 6)) @ mixed


def test_one_number_by_hand() -> None:
    # Means 1 and 4, variances 4 and 9: 9 + 4 + 9 - 2 * 6
    first, second = np.array([[-1.0], [3], [1]]), np.array([[1.0], [7], [4]])
    assert np.var(first, ddof=1) == 4
    assert np.var(second, ddof=1) == 9
    assert compute_frechet_distance(
        compute_moments(first), compute_moments(second)
    ) == pytest.approx(9 + 13 - 12)


def test_the_formula_with_a_general_root() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    first, second = features(80, 1), features(50, 2, shift=0.7, spread=1.5)
    a, b = np.cov(first.T), np.cov(second.T)
    root = np.real(linalg.sqrtm(a @ b))
    apart = np.square(first.mean(0) - second.mean(0)).sum()
    wanted = apart + np.trace(a + b - 2 * root)
    found = compute_frechet_distance(compute_moments(first), compute_moments(second))
    assert found == pytest.approx(wanted, rel=1e-9)
    assert compute_frechet_distance(
        compute_moments(second), compute_moments(first)
    ) == pytest.approx(found, rel=1e-9)


def test_torchmetrics_agrees() -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    first, second = features(40, 3), features(40, 4, shift=1.0)
    tensors = [torch.from_numpy(x) for x in (first, second)]
    wanted = fid._compute_fid(
        tensors[0].mean(0), tensors[0].T.cov(), tensors[1].mean(0), tensors[1].T.cov()
    )
    found = compute_frechet_distance(compute_moments(first), compute_moments(second))
    assert found == pytest.approx(float(wanted), rel=1e-6)


def test_equal_sets_and_singular_covariances() -> None:
    few = features(4, 5)  # fewer than numbers
    assert compute_frechet_distance(compute_moments(few), compute_moments(few)) == pytest.approx(
        0, abs=1e-6
    )
    assert compute_frechet_distance(
        compute_moments(few), compute_moments(few + 1)
    ) == pytest.approx(6, abs=1e-5)


def test_parts_add_up() -> None:
    whole = features(30, 6)
    total = compute_moments(whole[:11]) + compute_moments(whole[11:])
    assert np.allclose(total.covariance, np.cov(whole.T))
    assert np.allclose(total.mean, whole.mean(0))


def test_pictures_further_away_are_further_away() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    photos = [rng.integers(90, 170, size=(32, 32, 3), dtype=np.uint8) for _ in range(4)]
    brighter = [np.clip(p.astype(int) + 20, 0, 255).astype(np.uint8) for p in photos]
    white = [np.clip(p.astype(int) + 80, 0, 255).astype(np.uint8) for p in photos]
    for backbone in (Pixels(), DistilledVGG19()):
        true, near, far = (measure_moments(backbone, x) for x in (photos, brighter, white))
        same, little, much = (compute_frechet_distance(true, x) for x in (true, near, far))
        assert same == pytest.approx(0, abs=1e-9)
        assert same < little < much


def test_too_little_is_told() -> None:
    with pytest.raises(InputError, match="two pictures or more, not 1"):
        compute_frechet_distance(
            compute_moments(np.zeros((1, 3))), compute_moments(np.zeros((5, 3)))
        )
    with pytest.raises(InputError, match="none were given"):
        measure_moments(Pixels(), [])
    with pytest.raises(InputError, match="finite"):
        compute_moments(np.array([[np.nan, 1.0]]))
