"""What the worker's process does with a photo."""

import base64
import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from overpaint.detection.api import make_runner
from overpaint.detection.report import Runner, record
from overpaint.images import read_image


@dataclass(frozen=True, slots=True)
class DetectJob:
    """A photo's file, and what to look for in it."""

    data: bytes
    model: str
    threshold: float | None
    with_heatmap: bool
    max_pixels: int


def detect(job: DetectJob) -> dict[str, Any]:
    """The record of a detection, without paths; `heatmap`: PNG of 16 bit in base64, or None.

    Raises `ImageError` and `InputError` for what cannot be examined.
    """
    photo = read_image(job.data, max_pixels=job.max_pixels)
    found = _runner(job.model, job.threshold).run(photo)
    said = {key: value for key, value in record(found).items() if key not in ("file", "path")}
    return said | {"heatmap": _png(found.heatmap) if job.with_heatmap else None}


@lru_cache(maxsize=2)
def _runner(model: str, threshold: float | None) -> Runner:
    return make_runner([model], threshold=threshold)


def _png(heatmap: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.rint(heatmap * 65535).astype(np.uint16)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
