"""Calibration: from a detector's logits to a threshold, a score and a verdict.

- Verdicts are made from logits averaged over a window (`Calibration.window`): each region gets one
  decision, and single pixels of an untouched photo cannot decide. The heatmap is not averaged.
- The statistic of a photo (`q99`) is the averaged logit that 1 % of its pixels exceed. It needs no
  choice of threshold.
- Thresholds and scores are fitted per quality band, as a photo that JPEG has smoothed gives
  other logits than one that it has not. `evaluation.fit_calibration` fits; this file only reads.
- A false alarm is an untouched photo with `q99 >= threshold`: more than 1 % of it in the mask.
- The default mask is wider than what lies above the threshold (`judge`).
- The curve of the untouched photos' q99 is stored, so that the false-alarm rate of a threshold
  chosen by hand can be stated too.
- A rate is stated with the bound that the number of photos allows (Clopper and Pearson 1934,
  one-sided, 95 %). The variants of one photo are not independent: n is the number of photos.
- Ordinary edits (blur, rotation, montage) are no inpainting. The threshold may be raised for
  them; how many of them reach it is stored by kind.
- Outside what was tested there is no verdict. No verdict ever says that a photo is authentic.
"""

import json
import math
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from torch.nn import functional as F

from overpaint import atomic
from overpaint.data.ordinary_edits import WORDS
from overpaint.errors import WeightsError
from overpaint.images.regions import select_seeded

LOSSLESS, HIGH, MEDIUM, LOW = QUALITY_BANDS = ("lossless", "jpeg>=90", "jpeg75-90", "jpeg<75")

Band = Literal[
    "no verdict of its own",
    "uncalibrated",
    "outside the tested range",
    "no trace found",
    "inconclusive",
    "strong trace",
]

AREA = 0.01  # the share of a photo's pixels that lies above q99

# Finer towards 1, where the thresholds that matter lie: 49 even levels and four in the tail.
QUANTILE_LEVELS: tuple[float, ...] = (
    *(round(0.02 * i, 2) for i in range(50)),
    0.985,
    0.99,
    0.995,
    1.0,
)


def q99(logits: np.ndarray) -> float:
    """The logit that 1 % of the pixels exceed (fewer where values tie), of (h, w) or (n,) logits.

    It is a value of the map itself, not an interpolation: with n pixels, `floor(n / 100)` are
    above it. A 1 × 1 map gives its only value, an empty one -inf.
    """
    values = np.asarray(logits).reshape(-1)
    if not values.size:
        return -np.inf
    rank = values.size - 1 - int(values.size * AREA)
    return float(np.partition(values, rank)[rank])


def average_logits(logits: np.ndarray, window: int) -> np.ndarray:
    """Means of float32 logits (h, w) in a square window around each pixel, of what there is of it
    at the borders. window: its side, pixels, odd; 1 gives the logits themselves."""
    if window == 1:
        return logits
    x, half = torch.from_numpy(logits)[None], window // 2
    x = F.avg_pool2d(x, (window, 1), 1, (half, 0), count_include_pad=False)
    return F.avg_pool2d(x, (1, window), 1, (0, half), count_include_pad=False)[0].numpy()


def _average_counted(logits: np.ndarray, window: int, counted: np.ndarray) -> np.ndarray:
    """As `average_logits`, of the counted pixels alone; -inf at the others."""
    sums = average_logits(np.where(counted, logits, 0).astype(np.float32), window)
    share = average_logits(counted.astype(np.float32), window)
    out = np.full_like(logits, -np.inf)
    np.divide(sums, share, out=out, where=counted)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """A photo's logits, and what its default threshold makes of them."""

    logits: np.ndarray = field(repr=False)
    """float32 (h, w); the heatmap is their sigmoid."""
    smoothed: np.ndarray = field(repr=False)
    """float32 (h, w): averaged, which is what thresholds are set on."""
    window: int
    """Side of the window of these averages, pixels."""
    threshold: float
    """A logit."""
    statistic: float
    """q99 of `smoothed`."""
    mask: np.ndarray = field(repr=False)
    """bool (h, w): what is marked at the default threshold."""
    counted: np.ndarray | None = field(default=None, repr=False)
    """bool (h, w): the pixels that statistic and mask are of; None where they are all. At the
    others both kinds of logits are -inf."""

    def share(self, mask: np.ndarray) -> float:
        """Of the counted pixels, in a mask, bool (h, w): 0..1; 0 where none counts."""
        num = mask.size if self.counted is None else np.count_nonzero(self.counted)
        return float(np.count_nonzero(mask) / max(num, 1))


def judge(
    logits: np.ndarray,
    threshold: float = 0.0,
    window: int = 1,
    counted: np.ndarray | None = None,
) -> Judgement:
    """What a default threshold, a logit, makes of a photo's float32 logits (h, w).

    counted: bool (h, w), the pixels that belong to the photo; None for all. Without any the
    statistic is -inf.

    Where 99 of 100 untouched photos have to stay below it, a threshold leaves the core alone of a
    region that it finds. So a photo that reaches it shows whole regions: pixels that are rather
    inpainted than not (logit 0) and hang together. Each is judged as the photo is, by whether more
    than 1 % of it reaches the threshold. In any other photo the pixels at or above the threshold
    are marked alone, 1 % of it at most: which photos have more than 1 % in the mask, and with it
    the false-alarm rate, is as without.
    """
    if counted is None:
        evidence = average_logits(logits, window)
        statistic = q99(evidence)
    else:
        evidence = _average_counted(logits, window, counted)
        logits = np.where(counted, logits, np.float32(-np.inf))
        statistic = q99(evidence[counted])
    mask = evidence >= threshold
    if 0 < threshold <= statistic:
        mask |= select_seeded(logits >= 0, mask, AREA)
    return Judgement(logits, evidence, window, threshold, statistic, mask, counted)


def untouched_quantiles(statistics: np.ndarray) -> tuple[float, ...]:
    """Quantiles of the untouched photos' q99 at `QUANTILE_LEVELS`, as `QualityBand` stores them."""
    return tuple(float(v) for v in np.quantile(np.asarray(statistics, float), QUANTILE_LEVELS))


def quality_band(jpeg_quality: int | None, lossy: bool) -> str:
    """The band of a photo: one of `QUALITY_BANDS`.

    `jpeg_quality` is 1..100 or None when the file is no JPEG. A lossy file that is no JPEG (WebP,
    HEIC) has no comparable quality and counts as "jpeg75-90".
    """
    if jpeg_quality is None:
        return MEDIUM if lossy else LOSSLESS
    if jpeg_quality >= 90:
        return HIGH
    return MEDIUM if jpeg_quality >= 75 else LOW


def bound_rate(num_reached: int, num: int, confidence: float = 0.95) -> float:
    """The largest share in [0, 1] at which `num_reached` or fewer of `num` independent trials have
    a probability of at least 1 - `confidence` (Clopper and Pearson, one-sided)."""
    if num_reached >= num:
        return 1.0

    def probability(share: float) -> float:
        """That at most `num_reached` of `num` come out, for a share in (0, 1)."""
        yes, no = math.log(share), math.log1p(-share)
        return math.fsum(
            math.exp(
                math.lgamma(num + 1) - math.lgamma(i + 1) - math.lgamma(num - i + 1)
                + i * yes + (num - i) * no
            )
            for i in range(num_reached + 1)
        )  # fmt: skip

    low, high = 0.0, 1.0
    for _ in range(60):  # bisection: the probability falls as the share rises
        middle = (low + high) / 2
        low, high = (middle, high) if probability(middle) > 1 - confidence else (low, middle)
    return high


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EditCount(_Frozen):
    """How an ordinary edit of untouched photos fares."""

    num: int = Field(ge=1)
    """Photos after that edit."""
    num_reached: int = Field(ge=0)
    """Those whose q99 reaches the threshold."""

    @property
    def rate(self) -> float:
        """Share in [0, 1] of a "strong trace"."""
        return self.num_reached / self.num


class QualityBand(_Frozen):
    """What was fitted on validation photos of one quality. Thresholds are logits of q99."""

    threshold_logit: float
    """At most `false_alarm_rate` of the untouched photos have a q99 at or above it."""
    inconclusive_logit: float
    """The lower threshold, with ten times the rate that was asked for."""
    slope: float = Field(gt=0)
    """Platt scaling: score = sigmoid(slope · q99 + intercept); positive, so monotone."""
    intercept: float
    num_untouched: int = Field(ge=1)
    """Variants of untouched photos."""
    num_photos: int = Field(ge=1)
    """The photos that these are variants of."""
    num_inpainted: int = Field(ge=0)
    untouched_quantiles: tuple[float, ...]
    """q99 of the untouched photos at `QUANTILE_LEVELS`; make it with `untouched_quantiles()`."""
    false_alarm_rate: float = Field(default=0.01, ge=0, lt=1)
    false_alarm_bound: float = Field(gt=0, le=1)
    """`bound` of that rate."""
    edits: dict[str, EditCount] = {}
    """By kind (`data.ordinary_edits`); empty where they were not measured."""

    @model_validator(mode="after")
    def _bounded(self) -> "QualityBand":
        if self.num_photos > self.num_untouched:
            raise ValueError(f"{self.num_untouched} variants of {self.num_photos} photos")
        bound = self.bound(self.false_alarm_rate)
        if abs(bound - self.false_alarm_bound) > 1e-6:
            raise ValueError(
                f"{self.num_photos} photos bound a rate of {self.false_alarm_rate:g} by "
                f"{bound:.6f}, not by {self.false_alarm_bound:g}"
            )
        return self

    def bound(self, rate: float) -> float:
        """What a false-alarm rate in [0, 1], measured on these photos, may be at most, with 95 %
        confidence.

        Variants of one photo are taken as one trial, as they are alike, and parts of a photo as a
        whole one. Of the default threshold, the rank convention says how many variants reach it
        (`evaluation.fit_calibration`); of others the share is interpolated, and rounded up.
        """
        exact = rate * self.num_untouched
        reached = math.floor(exact + 1e-9) if rate == self.false_alarm_rate else math.ceil(exact)
        alarms = math.ceil(reached * self.num_photos / self.num_untouched - 1e-9)
        return bound_rate(alarms, self.num_photos)

    @field_validator("untouched_quantiles")
    @classmethod
    def _curve(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if len(values) != len(QUANTILE_LEVELS):
            raise ValueError(f"needs {len(QUANTILE_LEVELS)} quantiles, got {len(values)}")
        if any(b < a for a, b in pairwise(values)):
            raise ValueError("the quantiles must not decrease")
        return values

    @property
    def edit_rates(self) -> dict[str, float]:
        """Share of each kind of ordinary edit that reaches the threshold, 0..1, by its words."""
        return {WORDS.get(kind, kind): count.rate for kind, count in self.edits.items()}

    def score(self, statistic: float) -> float:
        """Calibrated score in [0, 1] of a photo's q99; never falls when q99 rises."""
        return sigmoid(self.slope * statistic + self.intercept)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Logits of pixels, float32, to a scale that all detectors share: [0, 1], a half at the
        default threshold, and as steep in log odds as the fitted score."""
        scaled = (logits - np.float32(self.threshold_logit)) * np.float32(0.5 * self.slope)
        return 0.5 + 0.5 * np.tanh(scaled)

    def false_alarms(self, logit: float) -> tuple[float | None, str | None]:
        """(rate in [0, 1], None) for a threshold given as a logit, or (None, why it is unknown).

        Interpolated from the stored curve. Above the highest untouched photo only a bound is
        known, so no number is given.
        """
        if logit == self.threshold_logit:
            return self.false_alarm_rate, None
        if logit > self.untouched_quantiles[-1]:
            return None, (
                f"none of the {self.num_photos} untouched photos reached this threshold, in "
                f"{self.num_untouched} variants: it is at most {100 * self.bound(0):.1f} % with "
                "95 % confidence"
            )
        if logit <= self.untouched_quantiles[0]:
            return 1.0, None
        below = float(np.interp(logit, self.untouched_quantiles, QUANTILE_LEVELS))
        return round(1.0 - below, 6), None


class Calibration(_Frozen):
    """The calibration of one weights file, and the limits of what was tested."""

    bands: dict[str, QualityBand]
    window: int = Field(ge=1)
    """Side of the window that logits are averaged over (`average_logits`), pixels, odd; 1 leaves
    them unchanged."""
    min_side: int = Field(default=128, ge=1)
    """Shorter side in pixels, below which nothing was tested."""
    min_jpeg_quality: int = Field(default=50, ge=1, le=100)
    max_pixels_tested: int = Field(ge=1)
    data: str
    """The photos and masks it was fitted on, in words."""

    @field_validator("window")
    @classmethod
    def _odd(cls, window: int) -> int:
        if window % 2 == 0:
            raise ValueError(f"the window must be odd, so that it has a middle, not {window}")
        return window

    @field_validator("bands")
    @classmethod
    def _known(cls, bands: dict[str, QualityBand]) -> dict[str, QualityBand]:
        unknown = sorted(set(bands) - set(QUALITY_BANDS))
        if unknown:
            raise ValueError(f"unknown quality bands {unknown}; known: {list(QUALITY_BANDS)}")
        return bands

    def outside(
        self, height: int, width: int, jpeg_quality: int | None, lossy: bool
    ) -> tuple[str, ...]:
        """Why a photo lies outside the tested range; empty when it lies inside."""
        reasons = []
        if min(height, width) < self.min_side:
            reasons.append(f"shorter side {min(height, width)} px is under {self.min_side} px")
        if jpeg_quality is not None and jpeg_quality < self.min_jpeg_quality:
            reasons.append(f"JPEG quality {jpeg_quality} is under {self.min_jpeg_quality}")
        band = quality_band(jpeg_quality, lossy)
        if band not in self.bands:
            reasons.append(f"no calibration for the quality {band}")
        return tuple(reasons)

    def caveats(self, height: int, width: int) -> tuple[str, ...]:
        """What a reader of a verdict has to know. A large photo keeps its verdict: it is looked at
        pixel by pixel like a small one, but its camera's own noise is less smoothed."""
        if height * width <= self.max_pixels_tested:
            return ()
        size, tested = height * width / 1e6, self.max_pixels_tested / 1e6
        return (f"{size:.1f} megapixels, calibrated on photos of up to {tested:.1f}",)

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all; raises `WeightsError` where that cannot be done."""
        text = json.dumps(self.model_dump(), indent=1) + "\n"
        atomic.write(path, text.encode(), WeightsError)

    @classmethod
    def load(cls, path: str | Path) -> "Calibration":
        """Read what `save` wrote; `WeightsError` names the file when it is missing or damaged."""
        try:
            return cls.model_validate_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            raise WeightsError(
                f"{path}: not a readable calibration ({error}); fetch it again together with its "
                "weights, or fit it anew"
            ) from error


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-x)) in double precision, without overflow for any finite x."""
    return float(0.5 * (1.0 + np.tanh(0.5 * logit)))


def logit_of(probability: float) -> float:
    """The inverse of `sigmoid`: 0 gives -inf, 1 gives +inf."""
    with np.errstate(divide="ignore"):
        return float(np.log(probability) - np.log1p(-probability))
