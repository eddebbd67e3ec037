"""Weights that nobody trained, on disk with their record."""

from pathlib import Path
from typing import Any

from torch import nn

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
