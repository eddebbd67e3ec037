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
from overpaint.training.inpainting.safepaint import SafePaintTask

TASKS: tuple[type[InpaintingTask[Any, Any]], ...] = (AOTGANTask, SafePaintTask)


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
