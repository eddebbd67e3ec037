"""Weights that nobody trained, on disk with their record."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from helpers.bright_detectors import calibration
from overpaint.weights import Kind, WeightsRecord, save_weights
from overpaint.weights.store import REGISTRIES


def save_random(
    folder: Path,
    kind: Kind,
    architecture: str,
    config: dict[str, Any],
    name: str = "random",
    module: nn.Module | None = None,
    **changes: Any,
) -> WeightsRecord:
    """Save `module`, or a new network of that architecture, as weights of unknown origin.

    changes: to the other arguments of `save_weights`.
    """
    origin = dict.fromkeys(("data", "recipe", "commit", "licence"), "none")
    return save_weights(
        folder,
        REGISTRIES[kind].create(architecture, **config) if module is None else module,
        name=name,
        kind=kind,
        architecture=architecture,
        config=config,
        **{**origin, **changes},
    )


def save_small_detector(folder: Path) -> Path:
    """Save a small NIX-Net named "net", with a calibration whose threshold is the logit 1."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    calibration(threshold=1).save(folder / "net.calibration.json")
    settings = {"calibration": "net.calibration.json"}
    return save_random(folder, "detector", "nixnet", {"widths": [4, 4, 4]}, "net", **settings).path
