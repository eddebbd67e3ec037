"""Which losses train which inpainter."""

from pathlib import Path
from typing import Any

import torch

from overpaint.data.sources import PhotoSource
from overpaint.errors import ConfigError
from overpaint.registry import inpainters
from overpaint.training.config import create_model
from overpaint.training.inpainting.aotgan import AOTGANTask
from overpaint.training.inpainting.base import InpainterRun, InpaintingTask
from overpaint.training.inpainting.ctsdg import CTSDGTask
from overpaint.training.inpainting.deepfill_v1 import DeepFillV1Task
from overpaint.training.inpainting.deepfill_v2 import DeepFillV2Task
from overpaint.training.inpainting.edgeconnect import EdgeConnectTask
from overpaint.training.inpainting.fcf import FcFTask
from overpaint.training.inpainting.glcic import GLCICTask
from overpaint.training.inpainting.lama import LaMaTask
from overpaint.training.inpainting.madf import MADFTask
from overpaint.training.inpainting.safepaint import SafePaintTask

TASKS: tuple[type[InpaintingTask[Any, Any]], ...] = (
    AOTGANTask,
    CTSDGTask,
    DeepFillV1Task,
    DeepFillV2Task,
    EdgeConnectTask,
    FcFTask,
    GLCICTask,
    LaMaTask,
    MADFTask,
    SafePaintTask,
)


def inpainting_task(
    run: InpainterRun, photos: PhotoSource, validation: PhotoSource, assets: Path = Path()
) -> InpaintingTask[Any, Any]:
    """The task of the run's inpainter; raises as `InpaintingTask`, and for one without losses."""
    with torch.device("meta"):  # no values yet: the task builds it
        model = create_model(inpainters, run.inpainter, run.model)
    for task in TASKS:
        if isinstance(model, task.architecture):
            return task(run, photos, validation, assets)
    known = ", ".join(sorted(task.architecture.__name__ for task in TASKS))
    raise ConfigError(f"inpainter {run.inpainter!r}: nothing to train; there are losses of {known}")
