"""The result of detection for one photo, and its wording. No verdict says that it is authentic."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path

import numpy as np

from overpaint.detection.calibration import Band, EditCount
from overpaint.errors import InputError, OverpaintError
from overpaint.images.regions import Region

WHOLE = 0.5
"""Share of a photo in the mask above which an edit of the whole photo is more likely."""
WHOLE_EDIT = (
    "most of the photo, so it may be an edit of the whole photo, such as a median filter, noise "
    "reduction or a rotation: that is an edit and not inpainting"
)
SMOOTH = (
    "it reaches the threshold that {rate} of untouched photos reach, but what is marked has hardly "
    "any fine detail, like a blurred region or a plain surface, so it is no strong trace"
)
AS_AFTER_EDITS = (
    "it reaches the threshold that {rate} of untouched photos reach, but not the higher one that "
    "few photos reach after an ordinary edit, so it is no strong trace"
)
BELOW = (
    "it does not reach the threshold that {rate} of untouched photos reach, but a lower one, which "
    "{lower_rate} of them reach"
)
ONE_REGION = (
    "it does not reach the threshold that {rate} of untouched photos reach, but has at least one "
    "clear region"
)
NOTABLE = 0.05
"""Lowest rate at which a kind of edit is named."""

MEANINGS: Mapping[Band, str] = {
    "strong trace": (
        "It reaches the threshold that {rate} of untouched photos of this quality reach."
    ),
    "no trace found": (
        "It reaches neither the threshold of a trace nor the lower one, and has no clear region. "
        "That does not show that the photo is authentic."
    ),
}
"""Explanation of each verdict without a `Verdict.doubt`; see `Detection.meaning`."""
BEYOND_EDITS = (
    " It also reaches that of a strong trace, and what is marked has fine detail: after each kind "
    "of ordinary edit at most {most} of the calibration photos have one."
)
NOT_BEYOND_EDITS = (
    " There is no higher threshold for edited photos with this detector, so an ordinary edit may "
    "give the same verdict."
)

# RuntimeError: what torch raises when memory runs out.
FAILURES = (OverpaintError, OSError, MemoryError, RuntimeError)
"""Errors of one photo in one detector, after which the other photos and detectors go on."""


@dataclass(frozen=True, slots=True)
class Source:
    """The photo that was examined."""

    path: Path | None
    """Its file; None for bytes, an array or a PIL image."""
    sha256: str | None
    """Of the file's bytes; None for an array or a PIL image."""
    quality: str
    """Its quality band, one of `calibration.QUALITY_BANDS`."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Verdict and score of a photo; they do not depend on the caller's threshold."""

    band: Band
    reason: str | None
    """Why there is no verdict (band "outside the tested range", "uncalibrated", "no verdict of
    its own"), otherwise None."""
    score: float
    """In [0, 1]. If `calibrated`, the probability that the photo is inpainted, where half of the
    photos are. Otherwise the sigmoid of q99."""
    statistic: float
    """q99: the logit, averaged over the threshold's window, that 1 % of the pixels exceed."""
    calibrated: bool
    """Whether score and default threshold were fitted for photos of this quality; if not, the
    threshold is 0.5."""
    doubt: str | None = None
    """Why the photo is inconclusive, otherwise None."""
    reached: bool | None = None
    """Whether the photo reaches the default threshold; None without a calibration."""
    false_alarm_rate: float | None = None
    """Share of untouched photos of this quality that reach the default threshold; None without a
    calibration."""
    beyond_edits: bool = False
    """Whether a strong trace needs more than the default threshold (`QualityBand.strong_logit`)."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """The threshold of the mask, and its false-alarm rate."""

    value: float
    """On the heatmap, 0..1."""
    window: int = 1
    """Side of the window, pixels, in which log odds of the heatmap are averaged before the
    comparison with the threshold (`calibration.average_logits`); 1 for no averaging."""
    false_alarm_rate: float | None = None
    """Share of untouched photos of this quality with more than 1 % of their area in the mask."""
    bound: float | None = None
    """Upper 95 % confidence bound of that rate (`calibration.QualityBand.bound`)."""
    num_photos: int | None = None
    """Number of untouched photos of this quality on which the rate was measured."""
    note: str | None = None
    """Why the rate is unknown, otherwise None."""


@dataclass(frozen=True, slots=True)
class Examiner:
    """The detector, version and runtime that examined the photo."""

    model: str
    weights_sha256: str | None
    calibration_sha256: str | None
    """Of the calibration's file; None without one, and of several detectors."""
    version: str
    """Of overpaint."""
    seconds: float
    """Time in the detector, without reading and writing files."""
    runtime: str
    """The program that ran the network: name and version, precision, device."""


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """The result of detection for one photo."""

    source: Source
    verdict: Verdict
    mask_threshold: Threshold
    examiner: Examiner
    heatmap: np.ndarray = field(repr=False)
    """float32 (h, w) in [0, 1]: 1 = inpainted; 0 in and near transparent parts of the photo."""
    mask: np.ndarray = field(repr=False)
    """bool (h, w): pixels where the averaged heatmap reaches the threshold. If the photo reaches
    the default threshold, whole regions (`calibration.judge`)."""
    regions: tuple[Region, ...]
    """Connected regions of the mask, largest first; at most `regions.MAX_REGIONS`."""
    num_regions: int
    """Number of all regions of at least `regions.MIN_AREA` pixels."""
    fraction: float
    """Share of the photo's pixels in the mask, 0..1; transparent pixels and their neighbours are
    not counted (`overpaint.detection.transparency`)."""
    notes: tuple[str, ...]
    """Conversions while reading, and limits of the verdict."""
    edits: Mapping[str, EditCount] = field(default_factory=dict)
    """By kind of ordinary edit, in words: how many photos of this quality, edited but not
    inpainted, reach the default threshold, and how many have a strong trace; empty if it was not
    measured."""
    image_score: float | None = None
    """In [0, 1], of a detector with a separate score for the whole photo; not calibrated. For a
    photo in tiles it is the highest score of a tile."""
    confidence: np.ndarray | None = field(default=None, repr=False)
    """float32 (h, w) in [0, 1]: reliability of each pixel, of a detector with such an output."""

    @property
    def path(self) -> Path | None:
        """Of the photo's file."""
        return self.source.path

    @property
    def sha256(self) -> str | None:
        """Of the photo's file."""
        return self.source.sha256

    @property
    def quality(self) -> str:
        """The photo's quality band."""
        return self.source.quality

    @property
    def band(self) -> Band:
        """The verdict in a word or two."""
        return self.verdict.band

    @property
    def reason(self) -> str | None:
        """Why there is no verdict, otherwise None."""
        return self.verdict.reason

    @property
    def meaning(self) -> str:
        """Explanation of the verdict, in a sentence or two."""
        if doubt := self.verdict.doubt:
            return f"{doubt[0].upper()}{doubt[1:]}."
        if not (meaning := MEANINGS.get(self.band)):
            return f"There is no verdict: {self.reason}."
        rate = self.verdict.false_alarm_rate
        if self.band != "strong trace" or rate is None:
            return meaning
        meaning = meaning.format(rate=format_percent(rate))
        if not self.verdict.beyond_edits:
            return meaning + NOT_BEYOND_EDITS
        most = max((count.num_strong / count.num for count in self.edits.values()), default=0.0)
        return meaning + BEYOND_EDITS.format(most=format_percent(most))

    @property
    def score(self) -> float:
        """In [0, 1]; its meaning depends on `calibrated` (`Verdict.score`)."""
        return self.verdict.score

    @property
    def calibrated(self) -> bool:
        """Whether score and default threshold were fitted for photos of this quality."""
        return self.verdict.calibrated

    @property
    def threshold(self) -> float:
        """Of the mask, on the heatmap, 0..1."""
        return self.mask_threshold.value

    @property
    def false_alarm_rate(self) -> float | None:
        """Share of untouched photos of this quality with more than 1 % of their area in the mask;
        None where it is unknown (`mask_threshold.note` says why)."""
        return self.mask_threshold.false_alarm_rate

    @property
    def model(self) -> str:
        """Name of the detector's weights."""
        return self.examiner.model

    @property
    def weights_sha256(self) -> str | None:
        """Of the detector's weights; None for a module given by the caller."""
        return self.examiner.weights_sha256

    @property
    def seconds(self) -> float:
        """Time in the detector, without reading and writing files."""
        return self.examiner.seconds

    @property
    def width(self) -> int:
        return self.heatmap.shape[1]

    @property
    def height(self) -> int:
        return self.heatmap.shape[0]

    @property
    def extent(self) -> str:
        """The mask in words: "3.1 % of the photo, 2 regions"."""
        count = f"{self.num_regions or 'no'} region{'' if self.num_regions == 1 else 's'}"
        return f"{format_percent(self.fraction)} of the photo, {count}"

    @property
    def words(self) -> str:
        """The verdict in one line: "strong trace of inpainting: 3.1 % of the photo, 2 regions"."""
        extent = self.extent
        if self.band == "strong trace":
            whole = f"; {WHOLE_EDIT}" if self.fraction > WHOLE else ""
            return f"strong trace of inpainting: {extent}{whole}"
        if self.band == "inconclusive":
            return f"inconclusive: {extent}"
        if self.band == "no trace found":
            rest = f" ({extent} above the threshold)" if self.num_regions else ""
            return f"no trace found{rest}; this does not show that the photo is authentic"
        return f"{self.band}, no verdict ({self.reason}): {extent} above the threshold"

    @property
    def threshold_words(self) -> str:
        """The threshold and its false-alarm rate in one line."""
        of = f"for {self.quality}" if self.calibrated else "of the uncalibrated heatmap"
        at = f"threshold {format_probability(self.threshold)} {of}"
        limit = self.mask_threshold
        if limit.window > 1:
            at += f", on averages over {limit.window} pixels square"
        if limit.false_alarm_rate is None:
            return f"{at}: false-alarm rate unknown ({limit.note})"
        bound = ""
        if limit.bound is not None:
            bound = (
                f"at most {format_percent(limit.bound)} with 95 % confidence, "
                f"{limit.num_photos} photos; "
            )
        return (
            f"{at}: false-alarm rate {format_percent(limit.false_alarm_rate)} ({bound}untouched "
            "photos with more than 1 % of their area above it)"
        )

    @property
    def edits_words(self) -> str:
        """How often ordinary edits give such a trace, in one line; "" where there is no trace."""
        if self.band not in ("strong trace", "inconclusive"):
            return ""
        if not self.edits:
            return (
                "other edits (blur, noise reduction, rotation, montage) may leave such a trace "
                "without any inpainting; how often was not measured for this detector"
            )
        if self.verdict.reached is False:
            return (
                "ordinary edits may leave as much without any inpainting; how often they do was "
                "measured for the default threshold alone, which this photo does not reach"
            )
        strong = self.band == "strong trace"
        does = "give a strong trace" if strong else "reach the threshold"
        counts = {
            kind: (count.num_strong if strong else count.num_reached, count.num)
            for kind, count in self.edits.items()
        }
        worst = sorted(counts.items(), key=lambda item: (-item[1][0] / item[1][1], item[0]))
        said = [f"{kind} {some} of {num}" for kind, (some, num) in worst if some / num >= NOTABLE]
        if not said:
            fewest = min(count.num for count in self.edits.values())
            return (
                f"no kind of ordinary edit makes {format_percent(NOTABLE)} of untouched photos or "
                f"more {does} ({fewest} photos of each kind were tested)"
            )
        return f"untouched photos {does} after ordinary edits, too: {', '.join(said)}"


def check_threshold(threshold: object) -> None:
    """Raise `InputError` for what is no threshold of a heatmap; None is the default one."""
    if threshold is None:
        return
    if not isinstance(threshold, Real) or not 0 <= float(threshold) <= 1:
        raise InputError(f"threshold {threshold!r}: give a probability from 0 to 1, a number")


def format_percent(share: float) -> str:
    """0.031 -> "3.1 %"; only 0 is shown as 0 %."""
    if 0 < share < 0.001:
        return "under 0.1 %"
    return f"{100 * share:.1f} %".replace(".0 %", " %")


def format_probability(value: float) -> str:
    """With at least two digits, and enough that it differs from 0 and 1: 0.50, 0.93, 0.99987."""
    gap = min(value, 1 - value)
    digits = 2 if gap <= 0 else min(12, 1 - int(np.floor(np.log10(gap))))
    whole, _, rest = f"{value:.{digits}f}".partition(".")
    return f"{whole}.{rest.rstrip('0'):0<2}"
