"""Calibration: from a detector's logits to a threshold, a score and a verdict.

- Verdicts are made from logits averaged over a window (`Calibration.window`): each region gets one
  decision, and single pixels of an untouched photo cannot decide. The heatmap is not averaged.
- The statistic of a photo (`q99`) is the averaged logit that 1 % of its pixels exceed. It needs no
  choice of threshold.
- Thresholds and scores are fitted per quality band, because JPEG compression changes a photo's
  logits. `evaluation.fit_calibration` fits them; this file applies them.
- A false alarm is an untouched photo with `q99 >= threshold`: more than 1 % of it in the mask.
- The default mask is larger than the area above the threshold (`judge`).
- Quantiles of the untouched photos' q99 are stored, so that the false-alarm rate of a threshold
  chosen by the user can be stated, too.
- A rate is stated with the bound that the number of photos allows (Clopper and Pearson 1934,
  one-sided, 95 %). The variants of one photo are not independent: n is the number of photos.
- Ordinary edits (blur, rotation, montage) are not inpainting, and many photos are edited. A strong
  trace therefore has to reach a second, higher threshold, which at most 5 % of the validation
  photos reach after each kind of edit, and what it marks has to have fine detail (`smoothness`).
  The mask does not depend on either.
- Outside the tested range there is no verdict. No verdict says that a photo is authentic.
"""

import json
import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from overpaint import atomic
from overpaint.data.ordinary_edits import WORDS
from overpaint.errors import WeightsError
from overpaint.images import Photo
from overpaint.images.regions import select_seeded
from overpaint.layers.windows import average_windows

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

TIMES_INCONCLUSIVE = 10
"""Rate of the lower threshold as a multiple of the false-alarm rate; the product is at most 0.5, or
the false-alarm rate where that is more."""

# Even levels, and four near 1, where thresholds lie.
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
    """Means of float32 logits (h, w) in a square window around each pixel.

    At the borders only the part of the window inside the photo is averaged. window: its side,
    pixels, odd; 1 returns the logits unchanged.
    """
    if window == 1:
        return logits
    return average_windows(torch.from_numpy(logits)[None], window)[0].numpy()


def _average_counted(logits: np.ndarray, window: int, counted: np.ndarray) -> np.ndarray:
    """As `average_logits`, over the counted pixels only; -inf at the others."""
    sums = average_logits(np.where(counted, logits, 0).astype(np.float32), window)
    share = average_logits(counted.astype(np.float32), window)
    out = np.full_like(logits, -np.inf)
    np.divide(sums, share, out=out, where=counted)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """A photo's logits, and the statistic and the mask at its default threshold."""

    logits: np.ndarray = field(repr=False)
    """float32 (h, w); the heatmap is their sigmoid."""
    smoothed: np.ndarray = field(repr=False)
    """float32 (h, w): averaged logits, which are compared with thresholds."""
    window: int
    """Side of the averaging window, pixels."""
    threshold: float
    """A logit."""
    statistic: float
    """q99 of `smoothed`."""
    mask: np.ndarray = field(repr=False)
    """bool (h, w): the pixels marked at the default threshold."""
    counted: np.ndarray | None = field(default=None, repr=False)
    """bool (h, w): the pixels used for statistic and mask; None for all. At the others both kinds
    of logits are -inf."""

    def measure_share(self, mask: np.ndarray) -> float:
        """Share of the counted pixels in a mask, bool (h, w): 0..1; 0 if no pixel is counted."""
        num = mask.size if self.counted is None else np.count_nonzero(self.counted)
        return float(np.count_nonzero(mask) / max(num, 1))


def judge(
    logits: np.ndarray,
    threshold: float = 0.0,
    window: int = 1,
    counted: np.ndarray | None = None,
) -> Judgement:
    """Statistic and mask of a photo's float32 logits (h, w) at a default threshold, a logit.

    counted: bool (h, w), the pixels that belong to the photo; None for all. If none is counted,
    the statistic is -inf.

    99 of 100 untouched photos have to stay below the threshold, so it is high, and only the core of
    an inpainted region exceeds it. If a photo reaches the threshold, its mask therefore has whole
    regions: connected pixels with a logit of 0 or more, of which more than 1 % reach the threshold.
    In any other photo the mask has only the pixels at or above the threshold, at most 1 % of the
    photo. The larger regions do not change which photos have more than 1 % of their area in the
    mask, so the false-alarm rate stays the same.
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


def compute_untouched_quantiles(statistics: np.ndarray) -> tuple[float, ...]:
    """Quantiles of the untouched photos' q99 at `QUANTILE_LEVELS`, as `QualityBand` stores them."""
    return tuple(float(v) for v in np.quantile(np.asarray(statistics, float), QUANTILE_LEVELS))


def find_quality_band(jpeg_quality: int | None, lossy: bool) -> str:
    """The band of a photo: one of `QUALITY_BANDS`.

    `jpeg_quality` is 1..100 or None when the file is no JPEG. A lossy file that is no JPEG (WebP,
    HEIC) has no comparable quality and counts as "jpeg75-90".
    """
    if jpeg_quality is None:
        return MEDIUM if lossy else LOSSLESS
    if jpeg_quality >= 90:
        return HIGH
    return MEDIUM if jpeg_quality >= 75 else LOW


def find_quality(photo: Photo) -> str:
    """The quality band of a photo's file."""
    return find_quality_band(photo.jpeg_quality, photo.lossy)


def bound_rate(num_reached: int, num: int, confidence: float = 0.95) -> float:
    """The largest share in [0, 1] at which `num_reached` or fewer of `num` independent trials have
    a probability of at least 1 - `confidence` (Clopper and Pearson, one-sided)."""
    if num_reached >= num:
        return 1.0

    def compute_probability(share: float) -> float:
        """Of at most `num_reached` successes in `num` trials, for a share in (0, 1)."""
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
        if compute_probability(middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def bound_rate_of_variants(num_reached: int, num_variants: int, num_photos: int) -> float:
    """`bound_rate` for variants of photos, of which `num_reached` reach the threshold.

    The variants of one photo are similar, so they count as one trial; a fraction of a photo is
    rounded up to one.
    """
    # Without the small term, a product such as 0.07 * 100 = 7.000000000000001 would give 8.
    return bound_rate(math.ceil(num_reached * num_photos / num_variants - 1e-9), num_photos)


def find_inconclusive_rate(rate: float) -> float:
    """The false-alarm rate of the lower threshold, for that of the default one; both 0..1."""
    return max(rate, min(0.5, TIMES_INCONCLUSIVE * rate))


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EditCount(_Frozen):
    """How many photos have a trace after one kind of ordinary edit."""

    num: int = Field(ge=1)
    """Number of edited photos."""
    num_reached: int = Field(ge=0)
    """Number of those whose q99 reaches the threshold."""
    num_strong: int = Field(ge=0)
    """Number of those with a "strong trace"."""


class QualityBand(_Frozen):
    """Thresholds and score for one quality, fitted on validation photos. Thresholds are logits."""

    threshold_logit: float
    """At most `false_alarm_rate` of the untouched photos have a q99 at or above it."""
    inconclusive_logit: float
    """The lower threshold, with the false-alarm rate `inconclusive_rate`; at most
    `threshold_logit`."""
    strong_logit: float | None = None
    """Of a "strong trace": `threshold_logit`, or higher where ordinary edits reach that. None where
    edits were not measured: then every trace is a strong one."""
    slope: float = Field(gt=0)
    """Platt scaling: score = sigmoid(slope · q99 + intercept); positive, so monotone."""
    intercept: float
    num_untouched: int = Field(ge=1)
    """Number of variants of untouched photos."""
    num_photos: int = Field(ge=1)
    """Number of photos from which these variants were made."""
    num_inpainted: int = Field(ge=0)
    untouched_quantiles: tuple[float, ...]
    """q99 of the untouched photos at `QUANTILE_LEVELS`; see `compute_untouched_quantiles`."""
    false_alarm_rate: float = Field(default=0.01, ge=0, lt=1)
    false_alarm_bound: float = Field(gt=0, le=1)
    """`bound` of that rate."""
    edits: dict[str, EditCount] = {}
    """Counts by kind of edit (`data.ordinary_edits`); empty where they were not measured."""

    @model_validator(mode="after")
    def _check_bound(self) -> "QualityBand":
        if self.strong_logit is not None and self.strong_logit < self.threshold_logit:
            raise ValueError("strong_logit is below threshold_logit")
        if self.num_photos > self.num_untouched:
            raise ValueError(f"{self.num_untouched} variants of {self.num_photos} photos")
        bound = self.bound(self.false_alarm_rate)
        if abs(bound - self.false_alarm_bound) > 1e-6:
            raise ValueError(
                f"{self.num_photos} photos bound a rate of {self.false_alarm_rate:g} by "
                f"{bound:.6f}, not by {self.false_alarm_bound:g}"
            )
        return self

    @model_validator(mode="after")
    def _check_thresholds(self) -> "QualityBand":
        """The default threshold has to have the stated rate, within one step of the quantiles."""
        if self.inconclusive_logit > self.threshold_logit:
            raise ValueError("inconclusive_logit is above threshold_logit")
        last = self.num_untouched - 1
        reached = min(self._count_reached(), last)
        level = 1 - reached / max(last, 1)  # of the highest value below the threshold
        below = max(bisect_left(QUANTILE_LEVELS, level) - 1, 0)
        above = min(bisect_right(QUANTILE_LEVELS, level), len(QUANTILE_LEVELS) - 1)
        low, high = self.untouched_quantiles[below], self.untouched_quantiles[above]
        # Thresholds are the next float32 above a value, and quantiles are not rounded to float32.
        slack = abs(self.threshold_logit) * 2**-22 + 1e-44
        if not low - slack <= self.threshold_logit <= high + slack:
            raise ValueError(
                f"threshold_logit is {self.threshold_logit:g}, but by untouched_quantiles the "
                f"threshold with a false-alarm rate of {self.false_alarm_rate:g} is from {low:g} "
                f"to {high:g}"
            )
        return self

    def _count_reached(self) -> int:
        """How many of the untouched variants may reach the default threshold."""
        return math.floor(self.false_alarm_rate * self.num_untouched + 1e-9)

    def bound(self, rate: float) -> float:
        """Upper 95 % confidence bound of a false-alarm rate in [0, 1] measured on these photos.

        For the default threshold, the rank convention gives the number of variants that reach it
        (`evaluation.fit_calibration`); for other thresholds the number is interpolated and rounded
        up.
        """
        if rate == self.false_alarm_rate:
            reached = self._count_reached()
        else:
            reached = math.ceil(rate * self.num_untouched)
        return bound_rate_of_variants(reached, self.num_untouched, self.num_photos)

    @field_validator("untouched_quantiles")
    @classmethod
    def _check_quantiles(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if len(values) != len(QUANTILE_LEVELS):
            raise ValueError(f"needs {len(QUANTILE_LEVELS)} quantiles, got {len(values)}")
        if any(b < a for a, b in pairwise(values)):
            raise ValueError("the quantiles must not decrease")
        return values

    @property
    def inconclusive_rate(self) -> float:
        """Share of the untouched photos that may reach `inconclusive_logit`."""
        return find_inconclusive_rate(self.false_alarm_rate)

    @property
    def edits_by_words(self) -> dict[str, EditCount]:
        """The counts by the edit's name in plain words."""
        return {WORDS.get(kind, kind): count for kind, count in self.edits.items()}

    def score(self, statistic: float) -> float:
        """Calibrated score in [0, 1] of a photo's q99, monotone in q99."""
        return sigmoid(self.slope * statistic + self.intercept)

    def compute_probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Pixel logits, float32, on a scale common to all detectors: [0, 1], 0.5 at the default
        threshold; in log odds the slope is that of the fitted score."""
        scaled = (logits - np.float32(self.threshold_logit)) * np.float32(0.5 * self.slope)
        return 0.5 + 0.5 * np.tanh(scaled)

    def find_false_alarm_rate(self, logit: float) -> tuple[float | None, str | None]:
        """(rate in [0, 1], None) for a threshold given as a logit, or (None, why it is unknown).

        Interpolated from the stored quantiles. Above the highest of them only a bound is known, so
        no rate is given.
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
    """Side of the window for averaging logits (`average_logits`), pixels, odd; 1 for none."""
    min_side: int = Field(default=128, ge=1)
    """Smallest tested length of a photo's shorter side, pixels."""
    min_jpeg_quality: int = Field(default=50, ge=1, le=100)
    """Lowest tested JPEG quality."""
    max_pixels_tested: int = Field(ge=1)
    """Number of pixels of the largest tested photo."""
    data: str
    """Description of the photos and masks used for the fit."""

    @field_validator("window")
    @classmethod
    def _check_window(cls, window: int) -> int:
        if window % 2 == 0:
            raise ValueError(f"the window must be odd, so that it has a middle, not {window}")
        return window

    @field_validator("bands")
    @classmethod
    def _check_bands(cls, bands: dict[str, QualityBand]) -> dict[str, QualityBand]:
        unknown = sorted(set(bands) - set(QUALITY_BANDS))
        if unknown:
            raise ValueError(f"unknown quality bands {unknown}; known: {list(QUALITY_BANDS)}")
        return bands

    def explain_outside(
        self, height: int, width: int, jpeg_quality: int | None, lossy: bool
    ) -> tuple[str, ...]:
        """Why a photo lies outside the tested range; empty when it lies inside."""
        reasons = []
        if min(height, width) < self.min_side:
            reasons.append(f"shorter side {min(height, width)} px is under {self.min_side} px")
        if jpeg_quality is not None and jpeg_quality < self.min_jpeg_quality:
            reasons.append(f"JPEG quality {jpeg_quality} is under {self.min_jpeg_quality}")
        band = find_quality_band(jpeg_quality, lossy)
        if band not in self.bands:
            reasons.append(f"no calibration for the quality {band}")
        return tuple(reasons)

    def list_caveats(self, height: int, width: int) -> tuple[str, ...]:
        """Notes on limits of a verdict. A photo larger than the tested ones has a verdict, but its
        camera noise is less smoothed than in the photos of the calibration."""
        if height * width <= self.max_pixels_tested:
            return ()
        size, tested = height * width / 1e6, self.max_pixels_tested / 1e6
        return (f"{size:.1f} megapixels, calibrated on photos of up to {tested:.1f}",)

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically; raises `WeightsError` where the file cannot be written."""
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
