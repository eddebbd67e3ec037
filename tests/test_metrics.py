"""Metrics against values worked out by hand and against slow references."""

import math

import numpy as np
import pytest

from overpaint.errors import InputError
from overpaint.metrics import (
    Counts,
    bootstrap,
    count,
    image_scores,
    overlap,
    pixel_auc,
    psnr,
    squared_error,
    ssim,
)


def slow_auc(values: np.ndarray, mask: np.ndarray) -> float:
    """Every pair of an inpainted and an untouched pixel, ties counting half."""
    inside = values[mask == 1][:, None].astype(float)
    outside = values[mask == 0][None, :].astype(float)
    return float(((inside > outside) + 0.5 * (inside == outside)).mean())


def test_counts_of_a_small_picture():
    predicted = np.array([[1, 1, 0], [0, 1, 0]])
    mask = np.array([[1, 0, 0], [1, 1, 0]])
    assert count(predicted, mask) == Counts(hits=2, false_alarms=1, misses=1, rejections=2)


def test_overlap_by_hand():
    numbers = overlap(Counts(hits=6, false_alarms=2, misses=4, rejections=100))
    assert numbers == pytest.approx({"iou": 0.5, "precision": 0.75, "recall": 0.6, "f1": 2 / 3})


@pytest.mark.parametrize(
    ("predicted", "mask", "expected"), [(0, 0, 1.0), (1, 0, 0.0), (0, 1, 0.0), (1, 1, 1.0)]
)
def test_empty_prediction_and_empty_mask(predicted, mask, expected):
    numbers = overlap(count(np.full((3, 3), predicted), np.full((3, 3), mask)))
    assert set(numbers.values()) == {expected}


def test_counts_of_tiles_add_up_to_the_whole():
    rng = np.random.default_rng(0)
    predicted, mask = rng.integers(2, size=(2, 40, 30))
    tiles = [count(predicted[i : i + 16], mask[i : i + 16]) for i in (0, 16, 32)]
    assert sum(tiles, Counts()) == count(predicted, mask)


def test_auc_by_hand():
    values = np.array([0.1, 0.4, 0.35, 0.8])
    # Pairs (inpainted, untouched): .35 > .1, .35 < .4, .8 > .1, .8 > .4
    assert pixel_auc(values, np.array([0, 0, 1, 1])) == 0.75
    assert pixel_auc(np.array([3.0, 2, 1, 0]), np.array([0, 0, 1, 1])) == 0.0
    assert pixel_auc(np.zeros(4), np.array([0, 0, 1, 1])) == 0.5
    # .5 > .2, .5 = .5 (a half), .9 above both
    assert pixel_auc(np.array([0.2, 0.5, 0.5, 0.9]), np.array([0, 0, 1, 1])) == 3.5 / 4


@pytest.mark.parametrize("levels", [2, 7, 1000])
def test_auc_equals_the_slow_reference_with_ties(levels):
    rng = np.random.default_rng(levels)
    values = rng.integers(levels, size=(23, 31)).astype(np.float32) / levels
    mask = (rng.random((23, 31)) < 0.2 + 0.5 * values).astype(np.uint8)
    assert pixel_auc(values, mask) == pytest.approx(slow_auc(values, mask), abs=1e-12)


def test_auc_does_not_change_with_a_monotone_scale():
    rng = np.random.default_rng(1)
    logits, mask = rng.normal(size=(20, 20)), rng.integers(2, size=(20, 20))
    assert pixel_auc(logits, mask) == pixel_auc(1 / (1 + np.exp(-logits)), mask)


def test_auc_of_one_class_is_undefined():
    assert math.isnan(pixel_auc(np.arange(4.0), np.zeros(4)))
    assert math.isnan(pixel_auc(np.arange(4.0), np.ones(4)))


def test_auc_refuses_nan_and_other_shapes():
    with pytest.raises(InputError, match="NaN"):
        pixel_auc(np.array([0.0, np.nan, 1.0]), np.array([0, 1, 1]))
    with pytest.raises(InputError, match="differ"):
        pixel_auc(np.zeros((2, 3)), np.zeros((3, 2)))


def test_the_threshold_itself_counts_as_found():
    values, mask = np.array([[0.5, 0.49]]), np.array([[1, 0]])
    assert image_scores(values, mask, 0.5)["iou"] == 1.0


def test_psnr_by_hand():
    black, grey = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 16, np.uint8)
    assert psnr(squared_error(grey, black)) == pytest.approx(20 * math.log10(255 / 16))
    assert psnr(squared_error(black, grey)) == psnr(squared_error(grey, black))  # no wrap-around
    assert psnr(squared_error(grey, grey)) == math.inf
    parts = squared_error(grey[:1], black[:1]) + squared_error(grey[1:], black[1:])
    assert parts == squared_error(grey, black)


def test_bootstrap_holds_the_mean_and_repeats():
    values = np.random.default_rng(3).normal(10, 2, size=400)
    low, high = bootstrap(values, seed=5)
    assert (low, high) == bootstrap(values, seed=5)
    # The interval of a mean of 400 is 2 * 1.96 * 2 / 20 = 0.39 wide.
    assert low < values.mean() < high
    assert high - low == pytest.approx(0.39, abs=0.06)


def test_bootstrap_of_one_number_has_no_interval():
    assert all(math.isnan(end) for end in bootstrap([0.7, math.nan]))


def test_psnr_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    image, reference = rng.integers(256, size=(2, 40, 30, 3), dtype=np.uint8)
    wanted = metrics.peak_signal_noise_ratio(reference, image)
    assert psnr(squared_error(image, reference)) == pytest.approx(wanted, abs=1e-12)


def test_ssim_agrees_with_scikit_image(photo):
    metrics = pytest.importorskip("skimage.metrics")
    noisy = photo.astype(float) + np.random.default_rng(0).normal(0, 12, photo.shape)
    other = np.clip(noisy, 0, 255).astype(np.uint8)
    found = metrics.structural_similarity(
        photo, other, channel_axis=2, data_range=255,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    assert ssim(photo, other) == pytest.approx(found, abs=1e-6)
    assert ssim(photo / 255, other / 255, peak=1.0) == pytest.approx(found, abs=1e-6)


def test_ssim_of_two_constant_pictures_is_their_luminance_term():
    one, other = np.full((12, 12, 3), 100.0), np.full((12, 12, 3), 150.0)
    expected = (2 * 100 * 150 + 2.55**2) / (100**2 + 150**2 + 2.55**2)
    assert ssim(one, other) == pytest.approx(expected)
    assert ssim(one, one) == pytest.approx(1.0)


def test_ssim_refuses_a_picture_smaller_than_its_window():
    with pytest.raises(InputError, match="sides of 11"):
        ssim(np.zeros((10, 30, 3)), np.zeros((10, 30, 3)))
