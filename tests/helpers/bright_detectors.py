"""Detectors that one can calculate, their calibrations, and their weights on disk."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from overpaint import weights
from overpaint.detection.calibration import (
    QUALITY_BANDS,
    Calibration,
    QualityBand,
    bound_rate,
    compute_untouched_quantiles,
)
from overpaint.detectors.base import Detector, Findings
from overpaint.registry import Entry, Official, detectors
from overpaint.weights import WeightsRecord, save_weights


class Bright(Detector):
    """The logit is gain * (brightness - 0.5)."""

    def __init__(self, gain: float = 20) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(float(gain)))

    def _compute_logits(self, image: Tensor) -> Tensor | Findings:
        return self.of_brightness(image)

    def of_brightness(self, image: Tensor) -> Tensor:
        return self.gain * (image.mean(dim=1, keepdim=True) - 0.5)


class Judge(Bright):
    """Says more: the score is 2 where the photo's first pixel is white, otherwise -2, and the
    confidence is half of the logit."""

    tile = 64

    def _compute_logits(self, image: Tensor) -> Findings:
        logits = self.of_brightness(image)
        score = 4 * image[:, 0, 0, 0].floor() - 2
        return Findings(logits, score, logits / 2)


class Fails(Bright):
    """Runs out of memory."""

    def _compute_logits(self, image: Tensor) -> Tensor:
        raise RuntimeError("not enough memory: you tried to allocate 9 GB")


def calibration(
    threshold: float = 4, slope: float = 1, intercept: float = -3, bands: Any = QUALITY_BANDS
) -> Calibration:
    """The lower threshold is 2 below the default one, which 2 of 201 untouched photos reach."""
    below = np.linspace(threshold - 14, threshold, 200)[:-1]
    band = QualityBand(
        threshold_logit=threshold,
        inconclusive_logit=threshold - 2,
        slope=slope,
        intercept=intercept,
        num_untouched=201,
        num_photos=201,
        false_alarm_bound=bound_rate(2, 201),
        num_inpainted=100,
        untouched_quantiles=compute_untouched_quantiles(
            np.array([*below, threshold + 1, threshold + 2])
        ),
    )
    return Calibration(
        bands=dict.fromkeys(bands, band), window=1, max_pixels_tested=10**6, data="-"
    )


def save(
    folder: Path,
    name: str,
    architecture: str = "bright",
    fitted: Any = None,
    gain: float = 20,
    families: tuple[str, ...] = (),
) -> WeightsRecord:
    """Weights of a registered one, with a calibration where one is given."""
    if fitted is not None:
        folder.mkdir(parents=True, exist_ok=True)
        fitted.save(folder / f"{name}.calibration.json")
    return save_weights(
        folder,
        detectors.create(architecture, gain=gain),
        name=name,
        kind="detector",
        architecture=architecture,
        config={"gain": gain},
        data="-",
        recipe="-",
        commit="-",
        licence="Apache-2.0",
        families=families,
        calibration=f"{name}.calibration.json" if fitted is not None else None,
    )


@contextmanager
def registered(folder: Path) -> Iterator[Path]:
    """The detectors above by name, nothing shipped, and the empty folder of imported weights."""
    official = Official("someone/detector@0123456", "CC BY-NC 4.0", dict, files=("net.pth",))
    with pytest.MonkeyPatch.context() as patch:
        detectors.list_names()  # so that they are registered before
        for name, made in {"bright": Bright, "judge": Judge, "fails": Fails}.items():
            published = official if name == "judge" else None
            entry = Entry(name, made, "A paper", "Apache-2.0", "tiny", published)
            patch.setitem(detectors._entries, name, entry)
        patch.setattr(weights.store, "PRETRAINED", folder / "pretrained")
        patch.setitem(os.environ, "OVERPAINT_WEIGHTS", str(folder / "imported"))
        yield folder / "imported"


def two_tone(height: int = 160, width: int = 200) -> np.ndarray:
    """Left half 0.8 bright, right half 0.2: uint8 (h, w, 3)."""
    pixels = np.full((height, width, 3), 204, np.uint8)
    pixels[:, width // 2 :] = 51
    return pixels
