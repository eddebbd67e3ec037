"""Checkpoints of a run: written to a temporary name, then renamed, so that none is ever half.

A checkpoint carries everything the next step depends on (parameters, average, optimisers, step,
best figure, torch's random state), so that a resumed run equals an uninterrupted one bit for
bit. The data need no state: a sample is a function of the seed and its running number.
"""

from pathlib import Path
from typing import Any

import torch

from overpaint.errors import TrainingError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` to `path` atomically. Plain tensors, numbers, strings and containers only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def load_checkpoint(path: Path, config_hash: str) -> dict[str, Any]:
    """Read a checkpoint of the run whose configuration has `config_hash`.

    Raises TrainingError when the file is damaged or belongs to another configuration.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise TrainingError(
            f"{path}: damaged checkpoint ({type(error).__name__}); "
            "delete it to start the run from the beginning"
        ) from error
    if state.get("config_hash") != config_hash:
        raise TrainingError(
            f"{path}: belongs to another configuration ({state.get('config_hash')}, now "
            f"{config_hash}); choose another --out, or delete the folder"
        )
    return state
