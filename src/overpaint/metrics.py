"""The numbers of the benchmark, for one picture and over many.

- Each metric is a pure update (the counts of one picture, tile or batch) and a pure compute (the
  number from the counts), so that whole, tiled and distributed pictures give the same result.
- Per picture first, then the mean over pictures (mIoU), as in Li et al., IJCAI 2021.
- A pixel counts as found if its value is at or above the threshold, as everywhere else here.
- Empty cases. IoU, precision, recall and F1 are 1 when prediction and mask are both empty; if only
  one of the two is, they are 0. The AUC of a picture with one class only is undefined: NaN.
- A NaN means "no number": it is left out of a mean, and `n` is the number of the others.

Source of SSIM: Wang et al., "Image Quality Assessment: From Error Visibility to Structural
Similarity", IEEE Transactions on Image Processing 2004.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from overpaint.errors import InputError
from overpaint.ranks import area_under_roc, rank


class Counts(NamedTuple):
    """Numbers of pixels by prediction and truth; the sum of two pools them."""

    hits: int = 0
    false_alarms: int = 0
    misses: int = 0
    rejections: int = 0

    def __add__(self, other: "Counts") -> "Counts":  # type: ignore[override]
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))


def count(predicted: np.ndarray, mask: np.ndarray) -> Counts:
    """Update: the pixels of two masks of one shape; anything but 0 is 1."""
    predicted, mask = _check_same_shape(predicted, mask)
    found, true = predicted.astype(bool), mask.astype(bool)
    hits = int(np.count_nonzero(found & true))
    num_found, num_true = int(np.count_nonzero(found)), int(np.count_nonzero(true))
    return Counts(hits, num_found - hits, num_true - hits, true.size - num_found - num_true + hits)


def overlap(counts: Counts) -> dict[str, float]:
    """Compute: "iou", "precision", "recall" and "f1", each in [0, 1]."""
    hits, false_alarms, misses, _ = counts
    nothing = float(false_alarms + misses == 0)  # 1 if both are empty, 0 if only one is

    def ratio(part: int, whole: int) -> float:
        return part / whole if whole else nothing

    return {
        "iou": ratio(hits, hits + false_alarms + misses),
        "precision": ratio(hits, hits + false_alarms),
        "recall": ratio(hits, hits + misses),
        "f1": ratio(2 * hits, 2 * hits + false_alarms + misses),
    }


def pixel_auc(values: np.ndarray, mask: np.ndarray) -> float:
    """Area under the ROC curve of the pixels of one picture; NaN when they are of one class.

    values: any score that is higher for inpainted (logits or heatmap). Exact: the share of pairs of
    an inpainted and an untouched pixel in which the inpainted one is higher, ties counting half
    (`ranks.area_under_roc`). Raises InputError for NaN or differing shapes.
    """
    return area_under_roc(rank(values, mask))


def image_scores(values: np.ndarray, mask: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
    """One picture: "iou", "precision", "recall" and "f1" at `threshold`, and "auc".

    values: heatmap (h, w), or logits with a threshold on their scale. mask: (h, w), 1 = inpainted.
    """
    at_threshold = overlap(count(np.asarray(values) >= threshold, mask))
    return {**at_threshold, "auc": pixel_auc(values, mask)}


class SquaredError(NamedTuple):
    """Sum and number of squared differences; the sum of two pools them."""

    total: float = 0.0
    num: int = 0

    def __add__(self, other: "SquaredError") -> "SquaredError":  # type: ignore[override]
        return SquaredError(self.total + other.total, self.num + other.num)


EQUAL_PSNR = 100.0
"""dB; the value of an equal picture in a mean, which infinity would make infinite. The largest
finite PSNR of a colour picture of 256 x 256, with one value that differs by one level, is 101."""


def squared_error(image: np.ndarray, reference: np.ndarray) -> SquaredError:
    """Update: two arrays of one shape, uint8 or float."""
    image, reference = _check_same_shape(image, reference)
    difference = image.astype(np.float64) - reference.astype(np.float64)
    return SquaredError(float(np.square(difference).sum()), difference.size)


def psnr(error: SquaredError, peak: float = 255.0) -> float:
    """Compute: 10 log10(peak² / mean squared error) in dB; inf for equal arrays, NaN for none."""
    if not error.num:
        return float("nan")
    if error.total == 0:
        return float("inf")
    return float(10 * np.log10(peak**2 * error.num / error.total))


SSIM_SIDE, SSIM_DEVIATION = 11, 1.5  # of the window, pixels; section III.C


def ssim(image: np.ndarray, reference: np.ndarray, peak: float = 255.0) -> float:
    """Structural similarity (eq. 13) of two pictures (h, w, c), mean over positions and channels.

    1 for equal pictures. Gaussian window, K1 = 0.01, K2 = 0.03, variances not corrected for the
    sample's size; only windows completely inside the picture. Raises InputError for shapes that
    differ or a side below the window's 11 pixels.
    """
    image, reference = _check_same_shape(image, reference)
    if image.ndim != 3 or min(image.shape[:2]) < SSIM_SIDE:
        raise InputError(f"shape {image.shape}: SSIM takes (h, w, c), sides of {SSIM_SIDE} or more")
    x, y = image.astype(np.float64), reference.astype(np.float64)
    mean_x, mean_y = _average_windows(x), _average_windows(y)
    variances = _average_windows(x * x) + _average_windows(y * y) - mean_x**2 - mean_y**2
    covariance = _average_windows(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float((luminance * (2 * covariance + c2) / (variances + c2)).mean())


def _average_windows(x: np.ndarray) -> np.ndarray:
    """Gaussian means over the windows of (h, w, c): (h - 10, w - 10, c)."""
    offsets = np.arange(SSIM_SIDE) - SSIM_SIDE // 2
    weights = np.exp(-(offsets**2) / (2 * SSIM_DEVIATION**2))
    for axis in (0, 1):
        x = np.lib.stride_tricks.sliding_window_view(x, SSIM_SIDE, axis=axis) @ weights
    return x / weights.sum() ** 2


def mean(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN when there are none."""
    numbers = _select_numbers(values)
    return float(numbers.mean()) if numbers.size else float("nan")


def bootstrap(
    values: Iterable[float], *, seed: int = 0, num: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of a mean, by drawing the values with replacement.

    For numbers of different photos; `bootstrap_levels` is for means over generators. NaN numbers
    are left out. (NaN, NaN) for fewer than two numbers.
    """
    numbers = _select_numbers(values)
    if numbers.size < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    draws = numbers[rng.integers(numbers.size, size=(num, numbers.size))].mean(axis=1)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_levels(
    groups: Sequence[Mapping[Any, float]],
    *,
    seed: int = 0,
    num: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the mean over groups of their means, by resampling groups and photos.

    For groups that are a sample of more groups, such as generators. groups: of each, a number by
    photo. A photo that several groups share, because each generator filled it, is resampled for all
    of them together: their numbers are not independent. Groups are drawn with replacement; each
    photo has a weight from the exponential distribution, so that none of a group's few photos is
    without one (Rubin, "The Bayesian bootstrap", Annals of Statistics 9, 1981).

    NaN numbers are left out. (NaN, NaN) for fewer than two groups with a number.
    """
    kept = [{photo: x for photo, x in group.items() if not math.isnan(x)} for group in groups]
    found = [group for group in kept if group]
    if len(found) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    places = {photo: i for i, photo in enumerate(dict.fromkeys(p for g in found for p in g))}
    weights = rng.exponential(size=(num, len(places)))
    means = np.empty((num, len(found)))
    for i, group in enumerate(found):
        own = weights[:, [places[photo] for photo in group]]
        means[:, i] = own @ np.array(list(group.values())) / own.sum(axis=1)
    chosen = rng.integers(len(found), size=means.shape)
    draws = np.take_along_axis(means, chosen, axis=1).mean(axis=1)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _select_numbers(values: Iterable[float]) -> np.ndarray:
    array = np.array(list(values), dtype=np.float64)
    return array[~np.isnan(array)]


def _check_same_shape(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape:
        raise InputError(f"shapes {first.shape} and {second.shape} differ; give both at one size")
    return first, second
