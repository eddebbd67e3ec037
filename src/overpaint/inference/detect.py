"""One photo in, one `Detection` out: heatmap, mask, regions, a calibrated score and a verdict.

- fp32, channels last, inference mode. Folding batch norm into the convolutions was measured on
  NIX-Net 32/64/128: no gain where it can be done without knowing the model, so it is left out.
- The verdict rests on the calibrated thresholds alone. A threshold given by the caller changes
  the mask, the fraction and the regions, and is stated with its own false-alarm rate.
"""

import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from overpaint import __version__
from overpaint.errors import InputError, WeightsError
from overpaint.images import Photo, read_image
from overpaint.inference.calibration import (
    Band,
    Calibration,
    QualityBand,
    logit_of,
    q99,
    quality_band,
    sigmoid,
)
from overpaint.inference.detection import Detection
from overpaint.inference.regions import find_regions
from overpaint.inference.tiles import tiled
from overpaint.weights import build, load_weights, read_record

if TYPE_CHECKING:
    from PIL import Image

DEFAULT_MODEL = "nixnet-s"
TILE = 1024
OVERLAP = 128

MIN_REGION = 32 * 32
"""Pixels above the calibrated threshold in one piece that make a photo inconclusive."""

# Modes that become RGB without scaling or clipping.
_PIL_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}


class DetectorRunner:
    """A detector that is ready to look at photos."""

    def __init__(
        self,
        model: str | Path | nn.Module = DEFAULT_MODEL,
        *,
        threshold: float | None = None,
        tile: int = TILE,
        overlap: int = OVERLAP,
        device: str = "cpu",
    ) -> None:
        """model: shipped name, path of weights, or a detector module (which is uncalibrated, and
        put into eval mode). threshold: on the heatmap, 0..1; None takes the calibrated one, with a
        false-alarm rate of 1 %, or 0.5 without calibration. tile, overlap: see `tiles.tiled`.

        Raises `WeightsError`, `UnknownNameError`, `InputError`.
        """
        if threshold is not None and not 0 <= threshold <= 1:
            raise InputError(f"threshold {threshold}: give a probability from 0 to 1")
        self.calibration: Calibration | None = None
        if isinstance(model, nn.Module):
            module, self.name, self.weights_sha256 = model.eval(), type(model).__name__, None
        else:
            record, state = load_weights(model, kind="detector")
            module = build(record, state)
            self.name, self.weights_sha256 = record.name, record.sha256
            if record.calibration is not None:
                self.calibration = Calibration.load(record.folder / record.calibration)
        self.module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.threshold = threshold
        self.tile, self.overlap, self.device = tile, overlap, device

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (h, w, 3) to float32 (h, w); `WeightsError` when the network gives no numbers."""
        out = tiled(
            self.module,
            pixels,
            tile=self.tile,
            overlap=self.overlap,
            stride=int(getattr(self.module, "stride", 1)),
            device=self.device,
        )
        if not np.isfinite(out.min()) or not np.isfinite(out.max()):
            raise WeightsError(f"{self.name}: the network gave NaN or infinity; get other weights")
        return out

    def run(self, photo: Photo) -> Detection:
        """Detect in a photo that has been read; the time grows with its pixels."""
        started = time.perf_counter()
        logits = self.logits(photo.pixels)
        statistic = q99(logits)
        quality = quality_band(photo.jpeg_quality, photo.lossy)
        fitted = self.calibration.bands.get(quality) if self.calibration else None
        default = fitted.threshold_logit if fitted else 0.0
        chosen = default if self.threshold is None else logit_of(self.threshold)
        heatmap = torch.from_numpy(logits).sigmoid().numpy()
        mask = logits >= chosen
        regions, num_regions = find_regions(mask, heatmap)
        band, reason = self._no_verdict(photo)
        if fitted is not None and band is None:
            # The verdict never depends on a threshold that the caller chose.
            usual = regions
            if chosen != default:
                usual, _ = find_regions(logits >= default, heatmap, max_regions=1)
            band = _verdict(fitted, statistic, usual[0].area if usual else 0)
        caveats = self.calibration.caveats(*photo.pixels.shape[:2]) if self.calibration else ()
        rate, note = fitted.false_alarms(chosen) if fitted and not reason else (None, reason)
        return Detection(
            path=photo.path if photo.sha256 else None,
            sha256=photo.sha256 or None,
            heatmap=heatmap,
            mask=mask,
            regions=regions,
            num_regions=num_regions,
            fraction=float(mask.mean()),
            statistic=statistic,
            score=fitted.score(statistic) if fitted else sigmoid(statistic),
            band=band or "uncalibrated",
            reason=reason,
            threshold=sigmoid(default) if self.threshold is None else self.threshold,
            false_alarm_rate=rate,
            false_alarm_note=note,
            quality=quality,
            notes=(*photo.notes, *caveats),
            model=self.name,
            weights_sha256=self.weights_sha256,
            version=__version__,
            seconds=time.perf_counter() - started,
        )

    def _no_verdict(self, photo: Photo) -> tuple[Band | None, str | None]:
        """(band, reason) where nothing can be said, otherwise (None, None)."""
        if self.calibration is None:
            return "uncalibrated", "these weights have no calibration"
        reasons = self.calibration.outside(
            photo.height, photo.width, photo.jpeg_quality, photo.lossy
        )
        return ("outside the tested range", "; ".join(reasons)) if reasons else (None, None)


def _verdict(fitted: QualityBand, statistic: float, largest_area: int) -> Band:
    if statistic >= fitted.threshold_logit:
        return "strong trace"
    if statistic >= fitted.inconclusive_logit or largest_area >= MIN_REGION:
        return "inconclusive"
    return "no trace found"


def detect(
    image: "str | Path | np.ndarray | Image.Image",
    model: str | Path = DEFAULT_MODEL,
    threshold: float | None = None,
) -> Detection:
    """Find inpainted regions in one photo of any size; nothing is scaled.

    image: path of a photo (best: its file's JPEG quality is then known), uint8 array (h, w, 3) in
    RGB, or PIL image. model: shipped name or path of weights; the last few stay in memory.
    threshold: on the heatmap, 0..1; None takes the calibrated one.
    Raises `ImageError` (unreadable file), `InputError` (wrong array, mode or threshold),
    `WeightsError` and `UnknownNameError`.
    """
    photo = as_photo(image)
    return _runner(str(model), read_record(model).sha256, threshold).run(photo)


def load_detector(name: str | Path = DEFAULT_MODEL) -> nn.Module:
    """The detector with its weights, in eval mode: float (b, 3, h, w) in [0, 1] to logits
    (b, 1, h, w). Raises `WeightsError`, `UnknownNameError`."""
    record, state = load_weights(name, kind="detector")
    return build(record, state)


@lru_cache(maxsize=4)
def _runner(model: str, sha256: str, threshold: float | None) -> DetectorRunner:
    """The hash is part of the key, so that weights that were replaced are loaded anew."""
    return DetectorRunner(model, threshold=threshold)


def as_photo(image: "str | Path | np.ndarray | Image.Image") -> Photo:
    """A path, an array uint8 (h, w, 3) or a PIL image as a `Photo`; `ImageError`, `InputError`."""
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(f"array {image.dtype} {image.shape}: give uint8 (h, w, 3), RGB")
        note = "array: taken as lossless"
        return Photo(image, Path(), "", "array", None, False, (note,))
    return _from_pil(image)


def _from_pil(image: "Image.Image") -> Photo:
    from PIL import ImageOps

    if image.mode not in _PIL_MODES:
        raise InputError(f"PIL image of mode {image.mode}: convert it to RGB, or give its path")
    stored = image.format or "PIL image"
    upright = ImageOps.exif_transpose(image)
    # By way of RGBA, because the colour beneath full transparency must survive.
    upright = upright.convert("RGBA") if image.mode in ("P", "PA", "LA", "RGBA") else upright
    pixels = np.array(upright.convert("RGB"))
    lossy = stored in ("JPEG", "MPO", "WEBP", "AVIF", "HEIF", "GIF")
    note = f"{stored}: quality unknown, give the path" if lossy else f"{stored}: taken as lossless"
    return Photo(pixels, Path(), "", stored, None, lossy, (note,))
