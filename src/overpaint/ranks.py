"""Figures of a score without a threshold, or over all thresholds: ROC, precision-recall, best F1.

- `Ranks` are the counts of both classes at each distinct score; the sum of two pools them. All
  figures here are computed from them, so that one picture, tiles and a whole set use the same code,
  and tied scores have no order.
- Exact pooling of many pictures would need every pixel's score. `Pool` counts in 2**20 steps of the
  score instead: scores stay in order, and two that differ by less than 1/2048 of their value may
  become a tie. The figures of single pictures and of photos are exact.
- NaN means "no number" (`metrics`): a figure of ranking is undefined if there is only one class.

Sources: Fawcett, "An introduction to ROC analysis", 2006; average precision as in scikit-learn,
the sum over thresholds of precision times the recall gained. Written anew from the definitions.
"""

from typing import NamedTuple

import numpy as np

from overpaint.errors import InputError

NAN = float("nan")
_SHIFT = 12  # of the 23 fraction bits of a float32, those that `Pool` ignores


class Ranks(NamedTuple):
    """Numbers of positives and negatives at each score; scores are distinct and rising."""

    scores: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray

    def __add__(self, other: "Ranks") -> "Ranks":  # type: ignore[override]
        scores, place = np.unique(np.concatenate([self.scores, other.scores]), return_inverse=True)
        counts = np.zeros((2, scores.size), np.int64)
        for row, (mine, theirs) in enumerate(zip(self[1:], other[1:], strict=True)):
            np.add.at(counts[row], place, np.concatenate([mine, theirs]))
        return Ranks(scores, *counts)

    @property
    def num_positives(self) -> int:
        return int(self.positives.sum())

    @property
    def num_negatives(self) -> int:
        return int(self.negatives.sum())

    @property
    def of_one_class(self) -> bool:
        return not self.num_positives or not self.num_negatives

    def reversed(self) -> "Ranks":
        """The ranks of the scores with their sign changed."""
        return Ranks(-self.scores[::-1], self.positives[::-1], self.negatives[::-1])


def rank(scores: np.ndarray, labels: np.ndarray) -> Ranks:
    """Update: scores of any shape, and labels of the same, anything but 0 positive.

    Raises InputError for differing shapes and for NaN.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.shape != labels.shape:
        raise InputError(f"shapes {scores.shape} and {labels.shape} differ; give both at one size")
    flat, positive = scores.ravel(), labels.ravel().astype(bool)
    distinct, counts = np.unique(flat, return_counts=True)
    if distinct.size and np.isnan(distinct[-1]):  # a sort puts NaN last
        raise InputError("the scores hold NaN; check the weights and the photo")
    found, of_positives = np.unique(flat[positive], return_counts=True)
    positives = np.zeros(distinct.size, np.int64)
    positives[np.searchsorted(distinct, found)] = of_positives
    return Ranks(distinct, positives, counts - positives)


class Pool:
    """Ranks of many pictures in a fixed memory of 16 MB; see the header."""

    def __init__(self) -> None:
        self._counts = np.zeros((2, 1 << (32 - _SHIFT)), np.int64)

    def add(self, scores: np.ndarray, labels: np.ndarray) -> None:
        """Count one picture, tile or batch; arguments and errors as for `rank`."""
        largest = np.finfo(np.float32).max  # the step of infinity would contain NaN, too
        ranks = rank(np.clip(np.asarray(scores, np.float32), -largest, largest), labels)
        steps = _to_ordered(ranks.scores) >> _SHIFT
        np.add.at(self._counts[0], steps, ranks.positives)
        np.add.at(self._counts[1], steps, ranks.negatives)

    def compute_ranks(self) -> Ranks:
        """The ranks of all added scores; each score is the lower end of its step."""
        steps = np.flatnonzero(self._counts.any(axis=0))
        scores = _from_ordered((steps << _SHIFT).astype(np.uint32))
        return Ranks(scores, self._counts[0, steps], self._counts[1, steps])


def _to_ordered(scores: np.ndarray) -> np.ndarray:
    """Whole numbers in the order of float32 scores: IEEE 754's bits, the negative ones flipped."""
    bits = (scores + np.float32(0)).view(np.uint32)  # -0 becomes 0
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _from_ordered(numbers: np.ndarray) -> np.ndarray:
    bits = np.where(numbers >> 31, numbers & np.uint32((1 << 31) - 1), ~numbers)
    return bits.astype(np.uint32).view(np.float32)


# Figures


def area_under_roc(ranks: Ranks) -> float:
    """Share of pairs in which the positive has the higher score, ties counting half."""
    if ranks.of_one_class:
        return NAN
    below = np.cumsum(ranks.negatives) - ranks.negatives
    doubled = int((ranks.positives * (2 * below + ranks.negatives)).sum())
    return doubled / (2.0 * ranks.num_positives * ranks.num_negatives)


def average_precision(ranks: Ranks) -> float:
    """Area under the steps of precision over recall."""
    if ranks.of_one_class:
        return NAN
    hits, false_alarms = _count_at_or_above(ranks)
    precision = hits / (hits + false_alarms)
    gained = ranks.positives[::-1] / ranks.num_positives
    return float((gained * precision).sum())


def best_f1(ranks: Ranks) -> float:
    """Largest F1 over all thresholds: an upper bound, because the labels choose the threshold."""
    if ranks.of_one_class:
        return NAN
    hits, false_alarms = _count_at_or_above(ranks)
    return float((2 * hits / (hits + false_alarms + ranks.num_positives)).max())


def recall_at(ranks: Ranks, false_alarm_rate: float) -> float:
    """Largest share of positives found at thresholds that at most this share of negatives reaches.

    With fewer than 1 / rate negatives, none may reach it.
    """
    if ranks.of_one_class:
        return NAN
    hits, false_alarms = _count_at_or_above(ranks)
    # Without the small term, 0.29 * 100 = 28.999... would be rounded down to 28.
    allowed = hits[false_alarms <= false_alarm_rate * ranks.num_negatives + 1e-9]
    return float(allowed.max() / ranks.num_positives) if allowed.size else 0.0


def _count_at_or_above(ranks: Ranks) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives at or above each score, from the highest score on."""
    return np.cumsum(ranks.positives[::-1]), np.cumsum(ranks.negatives[::-1])


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """Expected calibration error of probabilities (n,) in [0, 1] for labels (n,).

    The mean over photos of the difference, in their bin of [0, 1], between the mean probability
    and the share of positives (Guo et al., "On Calibration of Modern Neural Networks", 2017, for
    the positive class). Raises InputError outside [0, 1]; NaN for no photo.
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels).astype(bool)
    if p.shape != y.shape or p.ndim != 1:
        raise InputError(f"shapes {p.shape} and {y.shape}; give two of (n,)")
    if not ((p >= 0) & (p <= 1)).all():
        raise InputError("a calibration error needs probabilities in [0, 1]; calibrate the scores")
    if not p.size:
        return NAN
    bins = np.minimum((p * num_bins).astype(int), num_bins - 1)
    gaps = np.bincount(bins, p - y, num_bins)
    return float(np.abs(gaps).sum() / p.size)
