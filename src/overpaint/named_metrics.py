"""The figures of detection by name: of a picture, pooled over pictures, and of whole photos.

- One definition each, on the counts of `metrics` and the ranks of `ranks`. A name states the level
  (none: one picture, to be averaged over pictures; "pooled:": all pixels of all pictures pooled;
  "image:": one score for each photo), another project's protocol ("trufor:", "imdl-benco:") and the
  threshold ("@0.5", "@default" for the calibrated one, "@best" for the one with the best figure).
  Columns of a table are names, so that different protocols have different columns.
- Scores are heatmaps, whose half is 0.5, or logits, whose half is 0. Logits distinguish values that
  a heatmap in float32 rounds to 1.
- An undefined figure is NaN, which `metrics.mean` leaves out.

The other projects' protocols, from their public code (facts only):
- TruFor (grip-unina/TruFor @ae54475): pixels near the border of the true mask are ignored, 7 inside
  (erosion by 15) and 5 outside (dilation by 11); F1 is the larger one of the map and the inverted
  map, for each picture; forged pictures only. If no pixel of the true mask is left, F1 is 0 at the
  best threshold; at 0.5 the picture is left out if nothing was found in it either.
- IMDL-BenCo (scu-zjz/IMDLBenCo @3efef9b): found is above 0.5, not at it; F1 and IoU of an empty
  mask are 0, also if nothing was found. "imdl-benco-double:" uses the larger one of the map and the
  inverted map. In their AUC a sort decides the order of ties; here ties count half.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np

from overpaint.errors import InputError, UnknownNameError
from overpaint.metrics import Counts, count, overlap
from overpaint.ranks import (
    NAN,
    Pool,
    Ranks,
    area_under_roc,
    average_precision,
    best_f1,
    calibration_error,
    rank,
    recall_at,
)

Level = Literal["picture", "pooled", "image"]
Protocol = Literal["overpaint", "trufor", "imdl-benco"]
ERODED, DILATED = 15, 11  # pixels; windows of TruFor's border band
FALSE_ALARM_RATE = 0.01


@dataclass(frozen=True)
class Scored:
    """A detector's scores of one picture. Raises InputError for differing shapes."""

    scores: np.ndarray
    """(h, w), higher for inpainted."""
    mask: np.ndarray
    """(h, w), anything but 0 = inpainted."""
    half: float = 0.5
    """The score that stands for 0.5: 0.5 for heatmaps, 0 for logits."""
    default: np.ndarray | None = None
    """(h, w), the mask at the calibrated threshold; None without a calibration."""

    @cached_property
    def truth(self) -> np.ndarray:
        return np.asarray(self.mask).astype(bool)

    @cached_property
    def ranks(self) -> Ranks:
        return rank(self.scores, self.truth)

    @cached_property
    def at_half(self) -> Counts:
        return count(np.asarray(self.scores) >= self.half, self.truth)

    @cached_property
    def at_default(self) -> Counts | None:
        return None if self.default is None else count(self.default, self.truth)

    @cached_property
    def above_half(self) -> Counts:
        return count(np.asarray(self.scores) > self.half, self.truth)


class Pooled:
    """Pooled pixels of many pictures. All pictures need the same scale of scores."""

    def __init__(self) -> None:
        self.at_half = Counts()
        self.at_default: Counts | None = Counts()
        self._pool = Pool()

    def add(self, picture: Scored) -> None:
        """Count one picture; without its `default`, all "@default" are undefined."""
        self._pool.add(picture.scores, picture.truth)
        self.at_half = self.at_half + picture.at_half
        of_picture = picture.at_default
        both = of_picture is not None and self.at_default is not None
        self.at_default = self.at_default + of_picture if both else None  # type: ignore[operator]

    @property
    def ranks(self) -> Ranks:
        return self._pool.compute_ranks()


@dataclass(frozen=True)
class Photos:
    """One score for each photo."""

    scores: np.ndarray
    """(n,)"""
    labels: np.ndarray
    """(n,), anything but 0 = inpainted."""
    default: float | None = None
    """The calibrated threshold of the score; None without a calibration."""

    @cached_property
    def ranks(self) -> Ranks:
        return rank(self.scores, self.labels)

    @cached_property
    def at_half(self) -> Counts:
        return self._count_at(0.5)

    @cached_property
    def at_default(self) -> Counts | None:
        return None if self.default is None else self._count_at(self.default)

    def _count_at(self, threshold: float) -> Counts:
        return count(np.asarray(self.scores) >= threshold, np.asarray(self.labels).astype(bool))


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure."""

    name: str
    level: Level
    """The argument of `compute`: a `Scored`, a `Pooled` or a `Photos`."""
    protocol: Protocol
    what: str
    """In words, for a table's notes."""
    compute: Callable[[Any], float]
    higher_is_better: bool = True


# From counts


def matthews(counts: Counts) -> float:
    """Matthews' correlation coefficient; 0 where a row or column of the table is empty."""
    hits, false_alarms, misses, rejections = counts
    sums = (hits + false_alarms, hits + misses, rejections + false_alarms, rejections + misses)
    if not all(sums):
        return 0.0
    root = float(np.prod(np.sqrt(np.array(sums, np.float64))))
    return (hits * rejections - false_alarms * misses) / root


def accuracy(counts: Counts) -> float:
    """Share of correct pixels or photos; NaN for none."""
    return (counts.hits + counts.rejections) / sum(counts) if sum(counts) else NAN


def balanced_accuracy(counts: Counts) -> float:
    """Mean of the recalls of both classes; NaN for one class."""
    positives, negatives = counts.hits + counts.misses, counts.rejections + counts.false_alarms
    if not positives or not negatives:
        return NAN
    return (counts.hits / positives + counts.rejections / negatives) / 2


def _f1(counts: Counts) -> float:
    return overlap(counts)["f1"]


def _iou(counts: Counts) -> float:
    return overlap(counts)["iou"]


def _invert(counts: Counts) -> Counts:
    """The counts of the inverted prediction."""
    hits, false_alarms, misses, rejections = counts
    return Counts(misses, rejections, hits, false_alarms)


# TruFor


def find_border_band(truth: np.ndarray) -> np.ndarray:
    """Pixels that TruFor's protocol ignores: near the border of the true mask (h, w)."""
    inside = ~_dilate(~truth, ERODED)
    outside = ~_dilate(truth, DILATED)
    return ~(inside | outside)


def _dilate(mask: np.ndarray, window: int) -> np.ndarray:
    """The maximum over a square window; outside the picture values are 0."""
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (window // 2, window // 2)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(mask, padding), window, axis)
        mask = np.asarray(windows.any(axis=-1))
    return mask


def _trufor_best(picture: Scored) -> float:
    looked_at = ~find_border_band(picture.truth)
    ranks = rank(picture.scores[looked_at], picture.truth[looked_at])
    if ranks.num_positives and not ranks.num_negatives:
        return 1.0
    return max(best_f1(ranks), best_f1(ranks.reversed())) if ranks.num_positives else 0.0


def _trufor_fixed(picture: Scored) -> float:
    looked_at = ~find_border_band(picture.truth)
    found, truth = picture.scores[looked_at] > picture.half, picture.truth[looked_at]
    if np.unique(np.concatenate([found, truth])).size < 2:
        return NAN
    return max(_f1_or_0(count(found, truth)), _f1_or_0(count(~found, truth)))


# IMDL-BenCo


def _f1_or_0(counts: Counts) -> float:
    return _f1(counts) if counts.hits else 0.0


def _iou_or_0(counts: Counts) -> float:
    return _iou(counts) if counts.hits else 0.0


def _measure_benco(of_counts: Callable[[Counts], float], picture: Scored) -> float:
    return of_counts(picture.above_half)


def _measure_benco_double(of_counts: Callable[[Counts], float], picture: Scored) -> float:
    counts = picture.above_half
    return max(of_counts(counts), of_counts(_invert(counts)))


def _double_auc(picture: Scored) -> float:
    figure = area_under_roc(picture.ranks)
    return max(figure, 1 - figure)


# By name


def _measure_half(of_counts: Callable[[Counts], float], of: Any) -> float:
    return of_counts(of.at_half)


def _measure_default(of_counts: Callable[[Counts], float], of: Any) -> float:
    return NAN if of.at_default is None else of_counts(of.at_default)


def _measure_ranked(of_ranks: Callable[[Ranks], float], of: Any) -> float:
    return of_ranks(of.ranks)


_COUNTED: dict[str, tuple[Callable[[Counts], float], str]] = {
    "iou": (_iou, "intersection over union"),
    "f1": (_f1, "F1"),
    "mcc": (matthews, "Matthews' correlation coefficient"),
    "accuracy": (accuracy, "share of correct pixels"),
}
_THRESHOLDS = {
    "@0.5": (_measure_half, "at 0.5"),
    "@default": (_measure_default, "at the calibrated threshold"),
}
_RANKED: dict[str, tuple[Callable[[Ranks], float], str]] = {
    "auc": (area_under_roc, "area under the ROC curve, ties counting half"),
    "ap": (average_precision, "average precision"),
    "f1@best": (best_f1, "F1 at the best threshold for the true mask"),
}


def _list_pixel_metrics(level: Level, prefix: str, words: str) -> list[Metric]:
    found = [
        Metric(
            f"{prefix}{name}{at}", level, "overpaint", f"{what} {when}, {words}", partial(how, of)
        )
        for name, (of, what) in _COUNTED.items()
        for at, (how, when) in _THRESHOLDS.items()
    ]
    return found + [
        Metric(
            f"{prefix}{name}", level, "overpaint", f"{what}, {words}", partial(_measure_ranked, of)
        )
        for name, (of, what) in _RANKED.items()
    ]


def _list_photo_metrics() -> list[Metric]:
    found = [
        Metric(
            f"image:balanced-accuracy{at}",
            "image",
            "overpaint",
            f"balanced accuracy of photos {when}",
            partial(how, balanced_accuracy),
        )
        for at, (how, when) in _THRESHOLDS.items()
    ]
    ranked: dict[str, tuple[Callable[[Ranks], float], str]] = {
        "image:auc": (area_under_roc, "area under the ROC curve of photos, ties counting half"),
        "image:ap": (average_precision, "average precision of photos"),
        "image:tpr@fpr1%": (
            partial(recall_at, false_alarm_rate=FALSE_ALARM_RATE),
            "share of inpainted photos found with at most 1 % of the untouched ones flagged",
        ),
    }
    found += [
        Metric(name, "image", "overpaint", what, partial(_measure_ranked, of))
        for name, (of, what) in ranked.items()
    ]
    return [
        *found,
        Metric(
            "image:ece",
            "image",
            "overpaint",
            "expected calibration error of the photos' scores, 15 bins",
            lambda photos: calibration_error(photos.scores, photos.labels),
            higher_is_better=False,
        ),
    ]


def _list_peer_metrics() -> list[Metric]:
    trufor = "border band ignored, the larger of map and inverted map, per picture"
    found = [
        Metric("trufor:f1@best", "picture", "trufor", f"best F1, {trufor}", _trufor_best),
        Metric("trufor:f1@0.5", "picture", "trufor", f"F1 at 0.5, {trufor}", _trufor_fixed),
    ]
    counted = {"f1@0.5": _f1_or_0, "iou@0.5": _iou_or_0, "accuracy@0.5": accuracy}
    kinds = {
        "imdl-benco": (_measure_benco, partial(_measure_ranked, area_under_roc), "per picture"),
        "imdl-benco-double": (
            _measure_benco_double,
            _double_auc,
            "the larger of map and inverted map, per picture",
        ),
    }
    for prefix, (how, auc, words) in kinds.items():
        found += [
            Metric(f"{prefix}:{name}", "picture", "imdl-benco", f"{name}, {words}", partial(how, f))
            for name, f in counted.items()
        ]
        found.append(Metric(f"{prefix}:auc", "picture", "imdl-benco", f"AUC, {words}", auc))
    return found


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        *_list_pixel_metrics("picture", "", "per picture"),
        *_list_peer_metrics(),
        *_list_pixel_metrics("pooled", "pooled:", "all pixels of all pictures pooled"),
        *_list_photo_metrics(),
    )
}


def list_names(level: Level, protocol: Protocol | None = "overpaint") -> tuple[str, ...]:
    """The figures of a level and protocol; None for all protocols."""
    return tuple(
        m.name for m in METRICS.values() if m.level == level and protocol in (None, m.protocol)
    )


def compute_figures(
    of: Scored | Pooled | Photos, wanted: Iterable[str] | None = None
) -> dict[str, float]:
    """Figures by name; those of its level and of this project's own protocol when None.

    Raises UnknownNameError, and InputError for figures of another level or impossible scores.
    """
    level: Level = {Scored: "picture", Pooled: "pooled", Photos: "image"}[type(of)]  # type: ignore
    found = {}
    for name in list_names(level) if wanted is None else wanted:
        if name not in METRICS:
            raise UnknownNameError(f"no metric is called {name!r}; there are {', '.join(METRICS)}")
        if METRICS[name].level != level:
            raise InputError(f"{name}: a figure of the level {METRICS[name].level}, not {level}")
        found[name] = METRICS[name].compute(of)
    return found
