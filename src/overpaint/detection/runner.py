"""One photo in, one `Detection` out: heatmap, mask, regions, a calibrated score and a verdict.

- fp32, channels last, inference mode, in torch or another runtime (`overpaint.detection.runtimes`).
  In torch a network folds its batch norms itself where that saves a map (`layers.folding`); in an
  exported graph all are folded.
- The verdict depends on the calibrated thresholds only. A threshold given by the caller changes
  the mask, the fraction and the regions, and is stated with its own false-alarm rate.
- A large photo is processed in tiles (`overpaint.detection.tiles`) of the detector's own size, so
  that 12 megapixels take less than 3 GB. A detector's score of the whole photo is then the highest
  score of a tile.
- Several detectors, or "all", are fused (`overpaint.detection.fusion`).
- Transparent parts of a photo are filled before detection, and are left out of the statistic and
  the mask (`overpaint.detection.transparency`); shares are of the other pixels. A photo that is
  mostly transparent has no verdict.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from overpaint import __version__, hashes
from overpaint.defaults import DEFAULT_DETECTOR
from overpaint.detection.calibration import (
    Band,
    Calibration,
    Judgement,
    QualityBand,
    find_quality,
    judge,
    logit_of,
    sigmoid,
)
from overpaint.detection.graphs import GraphDetector
from overpaint.detection.memory import Budget, check_memory
from overpaint.detection.result import (
    AS_AFTER_EDITS,
    BELOW,
    ONE_REGION,
    SMOOTH,
    Detection,
    Examiner,
    Source,
    Threshold,
    Verdict,
    check_threshold,
    format_percent,
)
from overpaint.detection.runtimes import describe_runtime, load_runtime
from overpaint.detection.smoothness import is_smooth
from overpaint.detection.tiles import Seen, examine_in_tiles, place_tiles
from overpaint.detection.transparency import (
    describe_left_out,
    fill_hidden,
    find_counted,
    find_hidden,
)
from overpaint.detectors.base import Detector, Findings
from overpaint.devices import find_device
from overpaint.errors import WeightsError
from overpaint.images import Photo
from overpaint.images.regions import find_regions
from overpaint.weights.resolve import load

TILE = 1024
"""Side of a tile, pixels, for a module without the attribute `tile`."""
OVERLAP = 64
"""Overlap of tiles, pixels; at most a quarter of a tile. With 64, logits near seams differ from
those of a pass over the whole photo no more than elsewhere; with 32 they do."""

MANY_PIXELS = 3 * 2**18
"""Pixels, of all tiles of a photo, from which a graph is compiled for the tiles' size. It takes a
quarter less memory than the graph for all sizes, and a tenth or more less time for each tile; from
here on that saves as much time as compiling takes."""

MIN_REGION = 32 * 32
"""Area of a region, pixels above the calibrated threshold, that makes a photo inconclusive."""

MAX_HIDDEN = 0.5
"""Largest transparent share of a photo that still has a verdict."""

NO_CALIBRATION = "these weights have no calibration; `overpaint calibrate` makes one"


@dataclass(frozen=True, slots=True, eq=False)
class Assessed:
    """A detector's output for a photo and its comparison with the calibration."""

    seen: Seen
    judged: Judgement
    quality: str
    """The photo's quality band."""
    hidden: np.ndarray | None = field(repr=False)
    """bool (h, w): the transparent pixels; None for none."""
    counted: np.ndarray | None = field(repr=False)
    """bool (h, w): the pixels that belong to the photo; None for all."""
    started: float
    """Seconds, by `time.perf_counter`."""


class DetectorRunner:
    """A loaded detector with its calibration and runtime."""

    def __init__(
        self,
        model: str | Path | nn.Module = DEFAULT_DETECTOR,
        *,
        threshold: float | None = None,
        tile: int | None = None,
        overlap: int | None = None,
        device: str = "cpu",
        runtime: str = "torch",
        memory: float | None = None,
    ) -> None:
        """model: shipped or imported name, path of weights, or a detector module (which is
        uncalibrated, and put into eval mode). threshold: on the heatmap, 0..1; None for the
        calibrated threshold, or 0.5 without calibration. tile, overlap: pixels, see
        `tiles.examine_in_tiles`; None for the detector's. device: cpu or cuda. runtime: torch,
        onnx, openvino or auto (`overpaint.detection.runtimes`). memory: limit of this process in
        bytes; if needed, tiles are made smaller (`overpaint.detection.memory`).

        Raises `WeightsError`, `UnknownNameError`, `InputError`.
        """
        check_threshold(threshold)
        check_memory(memory)
        self.device = find_device(device)
        self.calibration: Calibration | None = None
        self.calibration_sha256: str | None = None
        if isinstance(model, nn.Module):
            module, record, self.name = model.eval(), None, type(model).__name__
        else:
            module, record = load(model, "detector")
            self.name = record.name if record else str(model)
        self.weights_sha256 = record.sha256 if record else None
        if record is not None and record.calibration is not None:
            path = record.folder / record.calibration
            self.calibration = Calibration.load(path)
            self.calibration_sha256 = hashes.file_sha256(path)
        module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.module = load_runtime(module, record, runtime, self.device)
        self.runtime = describe_runtime(self.module, self.device)
        self.threshold = threshold
        self.stride = int(getattr(module, "stride", 1))
        self.tile: int = getattr(module, "tile", TILE) if tile is None else tile
        quarter = self.tile // 4 // self.stride * self.stride
        self.overlap = min(OVERLAP, quarter) if overlap is None else overlap
        self.budget: Budget | None = None
        if memory is not None:
            self.limit_memory(memory)

    def limit_memory(self, memory: float, kept: int = 0) -> None:
        """Make tiles smaller, if needed, so that the process stays below `memory` bytes.

        kept: bytes for each pixel of a photo that the caller keeps meanwhile. Everything else that
        stays in memory, such as other detectors, has to be loaded before. Raises `InputError`.
        """
        self.budget = Budget.measure(self._examine, memory, self.stride, self.device, kept)

    @property
    def _examine(self) -> Callable[[Tensor], Findings]:
        """Of the current module, because tests replace it."""
        return self.module.examine if isinstance(self.module, Detector) else self._examine_plain

    def _examine_plain(self, image: Tensor) -> Findings:
        """The findings of a module that is no `Detector`: logits only."""
        return Findings(self.module(image))

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (h, w, 3) to float32 (h, w); `WeightsError` when a logit is NaN or infinite."""
        return self.look(pixels).logits

    def look(self, pixels: np.ndarray) -> Seen:
        """All outputs of the detector for uint8 (h, w, 3); errors as for `logits`, and `InputError`
        where the memory limit is too low."""
        tile = self.find_tile(*pixels.shape[:2])
        overlap = min(self.overlap, tile // 4 // self.stride * self.stride)
        with self._use_graph(pixels.shape[:2], tile, overlap):
            seen = examine_in_tiles(
                self._examine,
                pixels,
                tile=tile,
                overlap=overlap,
                stride=self.stride,
                device=self.device,
                at_once=self._find_tiles_at_once(),
            )
        maps = [x for x in (seen.logits, seen.confidence) if x is not None]
        ends = [end for x in maps for end in (x.min(), x.max())]
        if not np.isfinite([*ends, *seen.scores]).all():
            raise WeightsError(f"{self.name}: the network gave NaN or infinity; get other weights")
        return seen

    def _find_tiles_at_once(self) -> int:
        """One with a memory limit, which is measured for one tile, and on a graphics processor."""
        if self.budget is not None or self.device.type != "cpu":
            return 1
        return getattr(self.module, "tiles_at_once", 1)

    @contextmanager
    def _use_graph(self, size: tuple[int, ...], tile: int, overlap: int) -> Iterator[None]:
        """Of an exported detector, its graph for one photo, in one thread at a time.

        It is compiled for the tiles' size if they have many pixels. At the end its memory is freed,
        which the next steps need for maps of the whole photo.
        """
        if not isinstance(graph := self.module, GraphDetector):
            yield
            return
        rows, columns = (place_tiles(n, tile, overlap, self.stride) for n in size)
        height, width = rows[0][1].size, columns[0][1].size
        num_tiles = len(rows) * len(columns)
        with graph.in_use:
            if num_tiles * height * width >= MANY_PIXELS:
                graph.prepare(height, width, num_tiles if self.budget is None else 1)
            try:
                yield
            finally:
                graph.release()

    def find_tile(self, height: int, width: int) -> int:
        """Largest side of a photo's tiles, pixels; `InputError` if the memory limit is too low."""
        return self.tile if self.budget is None else self.budget.find_tile(height, width, self.tile)

    def get_fitted_band(self, quality: str) -> QualityBand | None:
        """The calibration for photos of a quality band; None where there is none."""
        return self.calibration.bands.get(quality) if self.calibration else None

    def judge(
        self, logits: np.ndarray, quality: str, counted: np.ndarray | None = None
    ) -> Judgement:
        """A photo's logits (h, w), compared with the default threshold; without calibration 0.

        counted: bool (h, w), the pixels that belong to the photo; None for all.
        """
        fitted = self.get_fitted_band(quality)
        if fitted is None or self.calibration is None:
            return judge(logits, counted=counted)
        return judge(logits, fitted.threshold_logit, self.calibration.window, counted)

    def decide_verdict(self, judged: Judgement, quality: str, pixels: np.ndarray) -> Band:
        """The verdict on a photo of a quality band, independent of the caller's threshold.

        pixels: uint8 (h, w, 3).
        """
        fitted = self.get_fitted_band(quality)
        if fitted is None:
            return "uncalibrated"
        largest, _ = find_regions(judged.mask, judged.smoothed, max_regions=1)
        return _decide_verdict(fitted, judged, largest[0].area if largest else 0, pixels)[0]

    def run(self, photo: Photo) -> Detection:
        """Detect in a photo that has been read; the time grows with its pixels."""
        return self.conclude(photo, self.assess(photo))

    def assess(self, photo: Photo) -> Assessed:
        """Run the detector on a photo, without its transparent parts, and apply the calibration."""
        started = time.perf_counter()
        hidden = find_hidden(photo.alpha)
        counted = None if hidden is None else find_counted(hidden)
        seen = self.look(photo.pixels if hidden is None else fill_hidden(photo.pixels, hidden))
        quality = find_quality(photo)
        judged = self.judge(seen.logits, quality, counted)
        return Assessed(seen, judged, quality, hidden, counted, started)

    def conclude(self, photo: Photo, assessed: Assessed) -> Detection:
        """The detection that follows from the result of `assess`."""
        seen, judged, quality = assessed.seen, assessed.judged, assessed.quality
        hidden, counted, fitted = assessed.hidden, assessed.counted, self.get_fitted_band(quality)
        chosen = judged.threshold if self.threshold is None else logit_of(self.threshold)
        heatmap = _to_heatmap(judged.logits)
        mask = judged.mask if self.threshold is None else judged.smoothed >= chosen
        if counted is not None:
            mask = mask & counted  # a threshold of 0 is a logit of -inf
        regions, num_regions = find_regions(mask, heatmap)
        band, reason = self._explain_no_verdict(photo, hidden, counted)
        doubt = None
        if fitted is not None and band is None:
            # The verdict never depends on a threshold that the caller chose.
            usual = regions
            if self.threshold is not None:
                usual, _ = find_regions(judged.mask, heatmap, max_regions=1)
            area = usual[0].area if usual else 0
            band, doubt = _decide_verdict(fitted, judged, area, photo.pixels)
        caveats = self.calibration.list_caveats(*photo.pixels.shape[:2]) if self.calibration else ()
        rate, note = (
            fitted.find_false_alarm_rate(chosen) if fitted and not reason else (None, reason)
        )
        if hidden is not None:
            caveats = (describe_left_out(hidden), *caveats)
        if (tile := self.find_tile(*photo.pixels.shape[:2])) < self.tile:
            caveats = (f"processed in tiles of {tile} pixels because of the memory limit", *caveats)
        if len(seen.scores) > 1:
            caveats = (*caveats, f"the image score is the highest of {len(seen.scores)} tiles")
        found = Detection(
            source=Source(photo.path if photo.path.name else None, photo.sha256 or None, quality),
            verdict=Verdict(
                band=band or "uncalibrated",
                reason=reason,
                score=fitted.score(judged.statistic) if fitted else sigmoid(judged.statistic),
                statistic=judged.statistic,
                calibrated=fitted is not None,
                doubt=doubt,
                reached=judged.statistic >= fitted.threshold_logit if fitted else None,
                false_alarm_rate=fitted.false_alarm_rate if fitted else None,
                beyond_edits=fitted is not None and fitted.strong_logit is not None,
            ),
            mask_threshold=Threshold(
                value=sigmoid(chosen) if self.threshold is None else self.threshold,
                window=judged.window,
                false_alarm_rate=rate,
                bound=fitted.bound(rate) if fitted and rate is not None else None,
                num_photos=fitted.num_photos if fitted else None,
                note=note,
            ),
            examiner=Examiner(
                self.name,
                self.weights_sha256,
                self.calibration_sha256,
                __version__,
                seconds=time.perf_counter() - assessed.started,
                runtime=self.runtime,
            ),
            heatmap=heatmap,
            mask=mask,
            regions=regions,
            num_regions=num_regions,
            fraction=judged.measure_share(mask),
            notes=(*photo.notes, *caveats, *([doubt] if doubt else [])),
            edits=fitted.edits_by_words if fitted else {},
            image_score=sigmoid(max(seen.scores)) if seen.scores else None,
            confidence=None if seen.confidence is None else _to_heatmap(seen.confidence),
        )
        if found.edits_words:
            found = replace(found, notes=(*found.notes, found.edits_words))
        return found

    def _explain_no_verdict(
        self, photo: Photo, hidden: np.ndarray | None, counted: np.ndarray | None
    ) -> tuple[Band | None, str | None]:
        """(band, reason) where there is no verdict, otherwise (None, None)."""
        if self.calibration is None:
            return "uncalibrated", NO_CALIBRATION
        reasons = self.calibration.explain_outside(
            photo.height, photo.width, photo.jpeg_quality, photo.lossy
        )
        if hidden is not None and counted is not None:
            share, least = float(hidden.mean()), self.calibration.min_side**2
            if share > MAX_HIDDEN:
                reasons += (f"{format_percent(share)} of it is transparent",)
            elif (num := np.count_nonzero(counted)) < least:
                reasons += (f"{num:,} pixels are left beside transparent ones, under {least:,}",)
        return ("outside the tested range", "; ".join(reasons)) if reasons else (None, None)


def _decide_verdict(
    fitted: QualityBand, judged: Judgement, largest_area: int, pixels: np.ndarray
) -> tuple[Band, str | None]:
    """The verdict, and why it is inconclusive, otherwise None."""
    rates = {
        "rate": format_percent(fitted.false_alarm_rate),
        "lower_rate": format_percent(fitted.inconclusive_rate),
    }
    if judged.statistic >= fitted.threshold_logit:
        # Without a threshold for edited photos the detector was not measured on them.
        if fitted.strong_logit is not None and is_smooth(pixels, judged.mask):
            return "inconclusive", SMOOTH.format(**rates)
        if fitted.strong_logit is not None and judged.statistic < fitted.strong_logit:
            return "inconclusive", AS_AFTER_EDITS.format(**rates)
        return "strong trace", None
    if judged.statistic >= fitted.inconclusive_logit:
        return "inconclusive", BELOW.format(**rates)
    if largest_area >= MIN_REGION:
        return "inconclusive", ONE_REGION.format(**rates)
    return "no trace found", None


def _to_heatmap(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).sigmoid().numpy()
