"""Which loss trains which detector."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from overpaint.data.real_fills import describe_fills
from overpaint.data.sources import Part
from overpaint.data.universal import Pairs, mask_mixture
from overpaint.errors import ConfigError
from overpaint.registry import detectors
from overpaint.training.config import create_model
from overpaint.training.detection.base import DetectorRun, DetectorTask, make_model
from overpaint.training.detection.forged import ForgedDataset
from overpaint.training.detection.iidnet import IIDNetTask
from overpaint.training.detection.ldicn import LDICNTask
from overpaint.training.detection.mantranet import ManTraNetTask
from overpaint.training.detection.nixnet import NIXNetTask
from overpaint.training.detection.psccnet import PSCCNetTask
from overpaint.training.detection.trufor import TruForTask

TASKS: tuple[type[DetectorTask[Any, Any]], ...] = (
    IIDNetTask,
    LDICNTask,
    ManTraNetTask,
    NIXNetTask,
    PSCCNetTask,
    TruForTask,
)


def task_of(run: DetectorRun) -> type[DetectorTask[Any, Any]]:
    """The kind of task for the run's detector; raises ConfigError for one without a loss."""
    with torch.device("meta"):  # no values yet: the task builds it
        model = create_model(detectors, run.detector, run.model)
    for task in TASKS:
        if isinstance(model, task.architecture):
            return task
    known = ", ".join(sorted(task.architecture.__name__ for task in TASKS))
    raise ConfigError(f"detector {run.detector!r}: nothing to train; there are losses of {known}")


def detection_task(
    run: DetectorRun,
    train: Pairs,
    validation: Pairs,
    assets: Path = Path(),
    exclude: Collection[str] = (),
) -> DetectorTask[Any, Any]:
    """The task of the run's detector; raises as `DetectorTask`, and for one without a loss."""
    return task_of(run)(run, train, validation, assets, exclude)


def check(run: DetectorRun, assets: Path, exclude: Collection[str] = ()) -> None:
    """Raise what `detection_task` would, as far as it can be told without reconstructions."""
    task_of(run).load_terms(run)
    make_model(run)
    mask_mixture(run.data.masks, assets)
    if run.fills.share:
        describe_fills(run.fills, assets)
    if run.forged.share:
        parts: tuple[Part, ...] = ("train", "validation")
        for part in parts:
            ForgedDataset(run.data, run.forged, part, run.loop.seed, assets, exclude)
