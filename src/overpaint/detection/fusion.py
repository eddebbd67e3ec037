"""Several detectors on one photo: the verdict of each, their mean, and where they disagree.

- The logits of different detectors have no common scale. Each detector's calibration for the
  photo's quality converts its logits to probabilities, p = sigmoid(slope * (logit - threshold)):
  0.5 at its default threshold, with the slope of its fitted score (Platt scaling). A detector whose
  calibration found no separation has a slope of nearly 0, so its probabilities are about 0.5.
- The fused heatmap is the mean of these probabilities at each pixel, and the fused score the mean
  of the scores. The disagreement is the standard deviation of the same probabilities (divided by
  their number): 0 where all agree, 0.5 at most.
- Only calibrated detectors are fused. Where none is calibrated, the mean is that of the plain
  heatmaps, and the result states that it is uncalibrated.
- The mean itself is not calibrated, so it has no verdict and no false-alarm rate. The result lists
  the detectors' verdicts.
- If a detector fails, the others are still used.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

import numpy as np

from overpaint import __version__, progress
from overpaint.detection.calibration import Band, logit_of, q99
from overpaint.detection.result import (
    FAILURES,
    Detection,
    Examiner,
    Threshold,
    Verdict,
    check_threshold,
    format_probability,
)
from overpaint.detection.transparency import describe_left_out, find_counted, find_hidden
from overpaint.errors import InputError, OverpaintError
from overpaint.images import Photo
from overpaint.images.regions import find_regions

if TYPE_CHECKING:
    from overpaint.detection.runner import DetectorRunner

FUSED = "fused"

FUSED_THRESHOLD = 0.5
"""Of the mask of the mean, unless the caller chose one."""

KEPT_BYTES, MOMENTS_BYTES = 9, 8
"""For each pixel of the photo: of each detection that is kept (heatmap, confidence, mask), and of
the running mean and deviation."""

_VERDICTS = (*reversed(get_args(Band)), "failed")


@dataclass(frozen=True, slots=True)
class Failure:
    """A detector that could not examine a photo."""

    model: str
    weights_sha256: str | None
    error: str


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FusedDetection(Detection):
    """The mean of several detectors; see the module's header.

    Heatmap, mask, regions and score are those of the mean; `calibrated`: whether the fused
    detectors are calibrated. Every detector's heatmap and mask are kept, 5 bytes a pixel each.
    """

    detectors: tuple[Detection | Failure, ...]
    """Each detector's result, in the order of the call."""
    fused: tuple[str, ...]
    """Names of the detectors in the mean."""
    disagreement: np.ndarray = field(repr=False)
    """float32 (h, w) in [0, 0.5]: standard deviation of the fused detectors' probabilities."""

    @property
    def disagreement_q99(self) -> float:
        """The disagreement that 1 % of the pixels exceed."""
        return q99(self.disagreement)

    @property
    def words(self) -> str:
        """The detectors' verdicts, then the mean: "2 detectors: 1 strong trace, 1 no trace found;
        fused: 3.1 % of the photo, 2 regions; disagreement 0.21"."""
        verdicts = Counter(d.band if isinstance(d, Detection) else "failed" for d in self.detectors)
        said = ", ".join(f"{verdicts[v]} {v}" for v in _VERDICTS if verdicts[v])
        num = len(self.detectors)
        out = f"{num} detector{'' if num == 1 else 's'}: {said}; fused: {self.extent}"
        if len(self.fused) > 1:
            out += f"; disagreement {self.disagreement_q99:.2f}"
        if not {"strong trace", "inconclusive"} & set(verdicts):
            out += "; this does not show that the photo is authentic"
        return out

    @property
    def fusion_words(self) -> str:
        """The detectors in the mean, in one line."""
        out = f"fused: mean of {', '.join(self.fused)}, "
        if not self.calibrated:
            return f"{out}each as it is, as none is calibrated"
        out += "each calibrated so that 0.5 is its own default threshold"
        found = [d for d in self.detectors if isinstance(d, Detection)]
        left_out = ", ".join(d.model for d in found if not d.calibrated)
        return f"{out}; left out, as uncalibrated: {left_out}" if left_out else out

    @property
    def threshold_words(self) -> str:
        """The threshold of the fused heatmap, and why it has no false-alarm rate."""
        return f"threshold {format_probability(self.threshold)} of the fused heatmap: {self.reason}"


class FusedRunner:
    """Several loaded detectors, whose results are fused."""

    name = FUSED
    weights_sha256 = None

    def __init__(
        self,
        runners: Sequence["DetectorRunner"],
        *,
        threshold: float | None = None,
        memory: float | None = None,
    ) -> None:
        """runners: at least one; if several have the same name, the first 8 digits of their
        weights' SHA-256 are added to it. threshold: on the fused heatmap, 0..1; None for 0.5.
        memory: as of `DetectorRunner`, for all of them together.

        Raises `InputError`.
        """
        check_threshold(threshold)
        if not runners:
            raise InputError("a fusion needs at least one detector")
        self.runners = list(runners)
        self.threshold = FUSED_THRESHOLD if threshold is None else threshold
        count = Counter([FUSED, *(runner.name for runner in runners)])
        for number, runner in enumerate(self.runners, start=1):
            if count[runner.name] > 1:
                runner.name += f"-{(runner.weights_sha256 or str(number))[:8]}"
        if memory is not None:
            for runner in self.runners:
                runner.limit_memory(memory, KEPT_BYTES * (len(self.runners) - 1) + MOMENTS_BYTES)

    def run(self, photo: Photo) -> FusedDetection:
        """Detect in a photo that has been read. Raises `OverpaintError` when all detectors fail."""
        started = time.perf_counter()
        results: list[Detection | Failure] = []
        moments = Moments()
        for number, runner in enumerate(self.runners):
            try:
                with progress.map_to(number / len(self.runners), (number + 1) / len(self.runners)):
                    assessed = runner.assess(photo)
                detection = runner.conclude(photo, assessed)
            except FAILURES as error:
                results.append(Failure(runner.name, runner.weights_sha256, describe_error(error)))
                continue
            results.append(detection)
            if fitted := runner.get_fitted_band(detection.quality):
                moments.add(fitted.compute_probabilities(assessed.judged.smoothed))
        found = [d for d in results if isinstance(d, Detection)]
        if not found:
            errors = "; ".join(f"{d.model}: {d.error}" for d in results if isinstance(d, Failure))
            raise OverpaintError(f"no detector could examine it: {errors}")
        calibrated = [d for d in found if d.calibrated]
        if not calibrated:
            for detection in found:
                moments.add(detection.heatmap)
        return self._fuse(photo, results, calibrated or found, moments, started)

    def _fuse(
        self,
        photo: Photo,
        results: list[Detection | Failure],
        fused: list[Detection],
        moments: "Moments",
        started: float,
    ) -> FusedDetection:
        heatmap = moments.mean
        hidden = find_hidden(photo.alpha)
        mask, counted, notes = heatmap >= self.threshold, np.ones(heatmap.shape, bool), photo.notes
        if hidden is not None:
            counted, notes = find_counted(hidden), (*notes, describe_left_out(hidden))
            mask &= counted
        regions, num_regions = find_regions(mask, heatmap)
        reason = "the mean has no calibration of its own, the detectors' verdicts have"
        if not fused[0].calibrated:
            reason = "no detector is calibrated"
        return FusedDetection(
            source=fused[0].source,
            verdict=Verdict(
                band="no verdict of its own",
                reason=reason,
                score=float(np.mean([d.score for d in fused])),
                statistic=logit_of(min(max(q99(heatmap[counted]), 1e-7), 1 - 1e-7)),
                calibrated=fused[0].calibrated,
            ),
            mask_threshold=Threshold(self.threshold, note=reason),
            examiner=Examiner(
                FUSED,
                weights_sha256=None,
                calibration_sha256=None,
                version=__version__,
                seconds=time.perf_counter() - started,
                runtime="; ".join(dict.fromkeys(d.examiner.runtime for d in fused)),
            ),
            heatmap=heatmap,
            mask=mask,
            regions=regions,
            num_regions=num_regions,
            fraction=float(np.count_nonzero(mask) / max(np.count_nonzero(counted), 1)),
            notes=notes,
            detectors=tuple(results),
            fused=tuple(d.model for d in fused),
            disagreement=moments.compute_deviation(),
        )


class Moments:
    """Running mean and standard deviation of maps (Welford 1962)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: np.ndarray = np.zeros((), np.float32)
        self._squares: np.ndarray = np.zeros((), np.float32)

    def add(self, values: np.ndarray) -> None:
        """values: float32 (h, w), of the same shape at every call."""
        self.count += 1
        step = values - self.mean
        self.mean = self.mean + step / np.float32(self.count)
        self._squares = self._squares + step * (values - self.mean)

    def compute_deviation(self) -> np.ndarray:
        """float32 (h, w): the population standard deviation (divided by the number of maps)."""
        return np.sqrt(self._squares / np.float32(self.count))


def describe_error(error: BaseException) -> str:
    """The error's message, or its type's name if the message is empty."""
    return str(error) or type(error).__name__
