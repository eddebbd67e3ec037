"""Checkpoints of a run: written to a temporary name, then renamed, so that none is ever half.

A checkpoint carries everything the next step depends on (parameters, average, optimisers, step,
best figure), so that a resumed run equals an uninterrupted one bit for bit. Data and random
numbers need no state: both are functions of the seed and a running number.
"""

from pathlib import Path
from typing import Any

import torch

from overpaint.atomic import replacing
from overpaint.data.finding import find_reason
from overpaint.errors import TrainingError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` to `path` atomically. Plain tensors, numbers, strings and containers only.

    Raises TrainingError when it cannot be written; an older file of that name is then untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # An open file, and not its name, which torch would store in it.
        with replacing(path) as temporary, temporary.open("xb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise TrainingError(
            f"{path}: cannot be written ({find_reason(error)}); make room, and run the same "
            "command to resume"
        ) from error


def load_checkpoint(path: Path, config_hash: str, data_hash: str = "") -> dict[str, Any]:
    """Read a checkpoint of the run whose configuration has `config_hash`, onto the CPU.

    data_hash: of what its samples are made from; "" for any. Raises TrainingError when the file is
    missing, damaged, or of another configuration or other data. Checkpoints of older versions do
    not name their data.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = dict(state)["config_hash"]
    except FileNotFoundError as error:
        raise TrainingError(f"{path}: missing; delete the folder and train again") from error
    except Exception as error:  # torch.load raises nearly any kind
        raise TrainingError(
            f"{path}: damaged checkpoint ({type(error).__name__}); "
            "delete it to start the run from the beginning"
        ) from error
    if found != config_hash:
        raise TrainingError(
            f"{path}: belongs to another configuration ({found}, now {config_hash}); "
            "choose another --out, or delete the folder"
        )
    known = state.get("data_hash", "")
    if data_hash and known and known != data_hash:
        raise TrainingError(
            f"{path}: was trained on other photos, forgeries or fills than are given now; give the "
            "same, in the same order and with the same --exclude, or choose another --out"
        )
    return state
