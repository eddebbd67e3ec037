"""One photo in, one `Detection` out: heatmap, mask, regions, a calibrated score and a verdict.

- fp32, channels last, inference mode. Folding batch norm into the convolutions was measured on
  NIX-Net 32/64/128: no gain where it can be done without knowing the model, so it is left out.
- The verdict rests on the calibrated thresholds alone. A threshold given by the caller changes
  the mask, the fraction and the regions, and is stated with its own false-alarm rate.
- A large photo is looked at in tiles (`overpaint.detection.tiles`) of the detector's own size, so
  that 12 megapixels take less than 3 GB. A detector's score of the whole photo is then the highest
  of its tiles.
- Several detectors, or "all", are fused (`overpaint.detection.fusion`).
- Transparent parts of a photo are filled before the detector looks, and belong neither to the
  statistic nor to the mask (`overpaint.detection.transparency`); shares are of what is left. A
  photo that is mostly transparent has no verdict.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from overpaint import __version__
from overpaint.detection.calibration import (
    Band,
    Calibration,
    Judged,
    QualityBand,
    judge,
    logit_of,
    quality_band,
    sigmoid,
)
from overpaint.detection.fusion import FusedDetection, FusedRunner
from overpaint.detection.result import Detection, percent
from overpaint.detection.tiles import tiled_maps
from overpaint.detection.transparency import counted_pixels, filled, hidden_pixels, left_out
from overpaint.detectors.base import Detector
from overpaint.errors import InputError, WeightsError
from overpaint.images import File, Photo, is_file, read_image
from overpaint.images.decoding import from_pillow
from overpaint.images.regions import find_regions
from overpaint.weights import WeightsRecord, build, load_weights
from overpaint.weights.find_weights import ALL, find, select

DEFAULT_MODEL = "nixnet-s"
TILE = 1024
"""Pixels, of a module that does not say its own."""
OVERLAP = 128
"""Pixels; at most a quarter of a tile."""

MIN_REGION = 32 * 32
"""Pixels above the calibrated threshold in one piece that make a photo inconclusive."""

MAX_HIDDEN = 0.5
"""Share of a photo that may be transparent where there is to be a verdict."""

NO_CALIBRATION = "these weights have no calibration; `overpaint calibrate` makes one"

Picture = File | np.ndarray | Image.Image
"""A photo: its file (path, bytes, binary stream), uint8 (h, w, 3) in RGB, or a PIL image."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a detector says of a photo."""

    logits: np.ndarray
    """float32 (h, w)."""
    confidence: np.ndarray | None
    """Logits, float32 (h, w), of a detector that says how far to trust each pixel."""
    scores: tuple[float, ...]
    """Logit of each tile, of a detector that judges the photo apart from its pixels."""


class DetectorRunner:
    """A detector that is ready to look at photos."""

    def __init__(
        self,
        model: str | Path | nn.Module = DEFAULT_MODEL,
        *,
        threshold: float | None = None,
        tile: int | None = None,
        overlap: int | None = None,
        device: str = "cpu",
    ) -> None:
        """model: shipped or imported name, path of weights, or a detector module (which is
        uncalibrated, and put into eval mode). threshold: on the heatmap, 0..1; None takes the
        calibrated one, with a false-alarm rate of 1 %, or 0.5 without calibration. tile, overlap:
        see `tiles.tiled`; None takes the detector's.

        Raises `WeightsError`, `UnknownNameError`, `InputError`.
        """
        if threshold is not None and not 0 <= threshold <= 1:
            raise InputError(f"threshold {threshold}: give a probability from 0 to 1")
        self.calibration: Calibration | None = None
        self.calibration_sha256: str | None = None
        if isinstance(model, nn.Module):
            module, self.name, self.weights_sha256 = model.eval(), type(model).__name__, None
        else:
            record, state = load_weights(find(model).path, kind="detector")
            module = build(record, state)
            self.name, self.weights_sha256 = record.name, record.sha256
            if record.calibration is not None:
                path = record.folder / record.calibration
                self.calibration = Calibration.load(path)
                self.calibration_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.threshold = threshold
        self.device = device
        self.stride = int(getattr(module, "stride", 1))
        self.tile: int = getattr(module, "tile", TILE) if tile is None else tile
        quarter = self.tile // 4 // self.stride * self.stride
        self.overlap = min(OVERLAP, quarter) if overlap is None else overlap

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (h, w, 3) to float32 (h, w); `WeightsError` when the network gives no numbers."""
        return self.look(pixels).logits

    def look(self, pixels: np.ndarray) -> Seen:
        """All that the detector says of uint8 (h, w, 3); errors as of `logits`."""
        maps, scores = self._look(pixels)
        if not np.isfinite([maps.min(), maps.max(), *scores]).all():
            raise WeightsError(f"{self.name}: the network gave NaN or infinity; get other weights")
        return Seen(maps[0], maps[1] if len(maps) > 1 else None, tuple(scores))

    def _look(self, pixels: np.ndarray) -> tuple[np.ndarray, list[float]]:
        """Maps float32 (c, h, w) of a photo, and the tiles' scores."""
        scores: list[float] = []

        def fn(image: Tensor) -> Tensor:
            if not isinstance(self.module, Detector):
                return self.module(image)
            found = self.module.examine(image)
            if found.score is not None:
                scores.append(float(found.score))
            maps = (found.logits, found.confidence)
            return torch.cat([x for x in maps if x is not None], dim=1)

        maps = tiled_maps(
            fn,
            pixels,
            tile=self.tile,
            overlap=self.overlap,
            stride=self.stride,
            device=self.device,
        )
        return maps, scores

    def fitted(self, quality: str) -> QualityBand | None:
        """The calibration for photos of a quality band; None without."""
        return self.calibration.bands.get(quality) if self.calibration else None

    def judge(self, logits: np.ndarray, quality: str, counted: np.ndarray | None = None) -> Judged:
        """What the calibration makes of a photo's logits (h, w); without one, a threshold of 0.

        counted: bool (h, w), the pixels that belong to the photo; None for all.
        """
        fitted = self.fitted(quality)
        if fitted is None or self.calibration is None:
            return judge(logits, counted=counted)
        return judge(logits, fitted.threshold_logit, self.calibration.window, counted)

    def verdict(self, judged: Judged, quality: str) -> Band:
        """The verdict on a photo of a quality band, whatever threshold the caller chose."""
        fitted = self.fitted(quality)
        if fitted is None:
            return "uncalibrated"
        largest, _ = find_regions(judged.mask, judged.smoothed, max_regions=1)
        return _verdict(fitted, judged.statistic, largest[0].area if largest else 0)

    def run(self, photo: Photo) -> Detection:
        """Detect in a photo that has been read; the time grows with its pixels."""
        return self.run_judged(photo)[0]

    def run_judged(self, photo: Photo) -> tuple[Detection, Judged]:
        """As `run`, with the logits that it rests on."""
        started = time.perf_counter()
        hidden = hidden_pixels(photo.alpha)
        counted = None if hidden is None else counted_pixels(hidden)
        seen = self.look(photo.pixels if hidden is None else filled(photo.pixels, hidden))
        quality = quality_band(photo.jpeg_quality, photo.lossy)
        fitted, judged = self.fitted(quality), self.judge(seen.logits, quality, counted)
        chosen = judged.threshold if self.threshold is None else logit_of(self.threshold)
        heatmap = _heat(judged.logits)
        mask = judged.mask if self.threshold is None else judged.smoothed >= chosen
        if counted is not None:
            mask = mask & counted  # a threshold of 0 is a logit of -inf
        regions, num_regions = find_regions(mask, heatmap)
        band, reason = self._no_verdict(photo, hidden, counted)
        if fitted is not None and band is None:
            # The verdict never depends on a threshold that the caller chose.
            usual = regions
            if self.threshold is not None:
                usual, _ = find_regions(judged.mask, heatmap, max_regions=1)
            band = _verdict(fitted, judged.statistic, usual[0].area if usual else 0)
        caveats = self.calibration.caveats(*photo.pixels.shape[:2]) if self.calibration else ()
        rate, note = fitted.false_alarms(chosen) if fitted and not reason else (None, reason)
        if hidden is not None:
            caveats = (left_out(hidden), *caveats)
        if len(seen.scores) > 1:
            caveats = (*caveats, f"the image score is the highest of {len(seen.scores)} tiles")
        found = Detection(
            path=photo.path if photo.path.name else None,
            sha256=photo.sha256 or None,
            heatmap=heatmap,
            mask=mask,
            regions=regions,
            num_regions=num_regions,
            fraction=judged.share(mask),
            statistic=judged.statistic,
            score=fitted.score(judged.statistic) if fitted else sigmoid(judged.statistic),
            band=band or "uncalibrated",
            reason=reason,
            threshold=sigmoid(chosen) if self.threshold is None else self.threshold,
            false_alarm_rate=rate,
            false_alarm_note=note,
            quality=quality,
            notes=(*photo.notes, *caveats),
            model=self.name,
            weights_sha256=self.weights_sha256,
            version=__version__,
            seconds=time.perf_counter() - started,
            calibrated=fitted is not None,
            false_alarm_bound=fitted.bound(rate) if fitted and rate is not None else None,
            num_photos=fitted.num_photos if fitted else None,
            edits=fitted.edit_rates if fitted else {},
            window=judged.window,
            image_score=sigmoid(max(seen.scores)) if seen.scores else None,
            confidence=None if seen.confidence is None else _heat(seen.confidence),
        )
        if found.edits_words:
            found = replace(found, notes=(*found.notes, found.edits_words))
        return found, judged

    def _no_verdict(
        self, photo: Photo, hidden: np.ndarray | None, counted: np.ndarray | None
    ) -> tuple[Band | None, str | None]:
        """(band, reason) where nothing can be said, otherwise (None, None)."""
        if self.calibration is None:
            return "uncalibrated", NO_CALIBRATION
        reasons = self.calibration.outside(
            photo.height, photo.width, photo.jpeg_quality, photo.lossy
        )
        if hidden is not None and counted is not None:
            share, least = float(hidden.mean()), self.calibration.min_side**2
            if share > MAX_HIDDEN:
                reasons += (f"{percent(share)} of it is transparent",)
            elif (num := np.count_nonzero(counted)) < least:
                reasons += (f"{num:,} pixels are left beside transparent ones, under {least:,}",)
        return ("outside the tested range", "; ".join(reasons)) if reasons else (None, None)


def _verdict(fitted: QualityBand, statistic: float, largest_area: int) -> Band:
    if statistic >= fitted.threshold_logit:
        return "strong trace"
    if statistic >= fitted.inconclusive_logit or largest_area >= MIN_REGION:
        return "inconclusive"
    return "no trace found"


def _heat(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).sigmoid().numpy()


@overload
def detect(
    image: Picture,
    model: Literal["all"],
    threshold: float | None = None,
) -> FusedDetection: ...


@overload
def detect(
    image: Picture,
    model: str | Path | Sequence[str | Path] = DEFAULT_MODEL,
    threshold: float | None = None,
) -> Detection: ...


def detect(
    image: Picture,
    model: str | Path | Sequence[str | Path] = DEFAULT_MODEL,
    threshold: float | None = None,
) -> Detection:
    """Find inpainted regions in one photo of any size; nothing is scaled.

    image: a photo's file as a path, bytes or a binary stream (best: its JPEG quality is then
    known), uint8 array (h, w, 3) in RGB, or PIL image. model: shipped or imported name, or path of
    weights; the last few stay in memory. Several, or "all" that are here, give a `FusedDetection`.
    threshold: on the heatmap, of several models on the fused one, 0..1; None takes the calibrated
    one.
    Raises `ImageError` (unreadable file), `InputError` (wrong kind, array, mode or threshold),
    `WeightsError` and `UnknownNameError`.
    """
    photo = as_photo(image)
    models = [model] if isinstance(model, str | Path) else list(model)
    records = select(models)
    weights = tuple((str(record.path), record.sha256) for record in records)
    return _runner(weights, _is_fusion(models, records), threshold).run(photo)


def make_runner(
    models: Sequence[str | Path],
    *,
    threshold: float | None = None,
    folders: Sequence[str | Path] = (),
) -> DetectorRunner | FusedRunner:
    """The runner of one model, or of several as a fusion; "all" is always one.

    Arguments and errors as of `select` and `DetectorRunner`.
    """
    records = select(models, folders)
    paths = [str(record.path) for record in records]
    return _built(paths, _is_fusion(models, records), threshold)


def load_detector(name: str | Path = DEFAULT_MODEL) -> nn.Module:
    """The detector with its weights, in eval mode: float (b, 3, h, w) in [0, 1] to logits
    (b, 1, h, w). Raises `WeightsError`, `UnknownNameError`."""
    record, state = load_weights(find(name).path, kind="detector")
    return build(record, state)


def _is_fusion(models: Sequence[str | Path], records: Sequence[WeightsRecord]) -> bool:
    return len(records) > 1 or ALL in models


def _built(
    paths: Sequence[str], fusion: bool, threshold: float | None
) -> DetectorRunner | FusedRunner:
    if fusion:
        return FusedRunner([DetectorRunner(path) for path in paths], threshold=threshold)
    return DetectorRunner(paths[0], threshold=threshold)


@lru_cache(maxsize=4)
def _runner(
    weights: tuple[tuple[str, str], ...], fusion: bool, threshold: float | None
) -> DetectorRunner | FusedRunner:
    """weights: paths and hashes, these so that weights that were replaced are loaded anew."""
    return _built([path for path, _ in weights], fusion, threshold)


def as_photo(image: Picture) -> Photo:
    """A photo of any of the kinds as a `Photo`; `ImageError`, `InputError` with the remedy."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            remedy = "give uint8 (h, w, 3), RGB: scale other ranges to 0..255, leave alpha out"
            raise InputError(f"array {image.dtype} {image.shape}: {remedy}")
        return Photo(image, Path(), "", "array", None, False, ("array: taken as lossless",))
    if isinstance(image, Image.Image):
        try:
            return from_pillow(image)
        except OSError as error:  # read when its pixels are asked for
            raise InputError(f"PIL image: cannot be read ({error}); give its path") from error
    if isinstance(image, Tensor):
        remedy = "give its pixels, overpaint.images.to_pixels(tensor)"
        raise InputError(f"a photo is no tensor; {remedy} for floats (1, 3, h, w) in 0..1")
    if not is_file(image):
        kinds = "a path, bytes, a binary stream, a uint8 array (h, w, 3) or a PIL image"
        raise InputError(f"a photo is no {type(image).__name__}; give {kinds}")
    return read_image(image)
