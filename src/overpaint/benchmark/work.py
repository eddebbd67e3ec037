"""What each kind of stage does."""

from pathlib import Path
from typing import Any

import torch

from overpaint.benchmark import stages
from overpaint.benchmark.hardening import stages as hardening_stages
from overpaint.benchmark.stages import Folders, Work
from overpaint.benchmark.store import Stage

WORK: dict[str, Work] = stages.WORK | hardening_stages.WORK


def run_stage(stage: Stage, folders: Folders, out: Path, device: str) -> dict[str, Any]:
    """Make a stage's result on one thread, so that it is the same whatever runs beside it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return WORK[stage.kind](stage, folders, out, device)
    finally:
        torch.set_num_threads(threads)
