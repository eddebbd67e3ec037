"""Tiny runs for the tests of the loop: photos made by code, networks of a few parameters."""

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from overpaint.data.autoencoder import Autoencoder, AutoencoderConfig
from overpaint.data.universal import LivePairs
from overpaint.training.autoencoder import AutoencoderRun, AutoencoderTask
from overpaint.training.config import LoopConfig
from overpaint.training.detection.base import DetectorRun, make_detection_task
from overpaint.training.detection.nixnet import NIXNetTask
from overpaint.training.distributed import Processes
from overpaint.training.loop import fit

HASH = "0123456789ab"


class Photos:
    """Stands for a `PhotoSource`."""

    names = ("a", "b", "c")

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> np.ndarray:
        """Waves and noise: uint8 (40, 48, 3)."""
        rows, columns = np.mgrid[:40, :48]
        waves = [np.sin(rows / (3 + index) + columns / (4 + i) + i) for i in range(3)]
        noise = np.random.default_rng(index).normal(0, 6, (40, 48, 3))
        return (128 + 80 * np.dstack(waves) + noise).round().clip(0, 255).astype(np.uint8)


PHOTOS: Any = Photos()


def loop_config(**changes: Any) -> LoopConfig:
    values: dict[str, Any] = {
        "steps": 7,
        "batch_size": 4,
        "bf16": False,
        "workers": 0,
        "log_every": 1,
        "validate_every": 3,
        "checkpoint_every": 2,
        "optimizer": {"learning_rate": 2e-3, "warmup_steps": 2, "schedule": "cosine"},
    }
    return LoopConfig.model_validate(values | changes)


def gan(config: LoopConfig) -> AutoencoderTask:
    """An autoencoder whose GAN term joins at step 2: two optimisers, spectral norm."""
    run = AutoencoderRun.model_validate(
        {
            "name": "tiny",
            "model": {"width": 4, "depth": 1, "latent_channels": 4, "num_blocks": 1},
            "loss": {"adversarial_from": 2, "discriminator_width": 2},
            "loop": config,
            "crop": 24,
            "validation_crop": 24,
            "validation_photos": 2,
        }
    )
    return AutoencoderTask(run, PHOTOS, PHOTOS)


def nixnet(config: LoopConfig) -> NIXNetTask:
    """NIX-Net on universal data of an untrained autoencoder: batch norm, masks, pictures."""
    run = DetectorRun.model_validate(
        {
            "name": "tiny",
            "model": {"widths": [4, 4, 4]},
            "loop": config,
            "data": {
                "size": 24,
                "bank": {"g": 1},
                "untouched": 0.25,
                # Files would tie the golden curve to a version of the JPEG library.
                "history": {"probability": 0},
                "degrade": {"probability": 0},
            },
            "validation_samples": 4,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        bank = {"g": Autoencoder(AutoencoderConfig(width=4, depth=1, num_blocks=1)).eval()}
    pairs = LivePairs(PHOTOS, bank, run.data.bank, run.data.history, 40)
    return cast(NIXNetTask, make_detection_task(run, pairs, pairs))


class Numbers(Dataset[dict[str, Any]]):
    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"number": index, "x": torch.full((3,), float(index))}


class Tiny:
    """A linear layer with dropout; notes what it sees, and follows a script of figures."""

    rates: Mapping[str, float] = {}
    loss_terms: Mapping[str, Tensor] = {}

    def __init__(self, figures: list[float] | None = None) -> None:
        self.modules: dict[str, nn.Module] = {
            "model": nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        }
        self.figures = figures or []
        self.numbers: list[int] = []

    def make_dataset(self) -> Dataset[Any]:
        return Numbers()

    def compute_losses(self, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        self.numbers += batch["number"].tolist()
        yield "model", self.compute_loss(batch["x"] / 100, step)

    def compute_loss(self, x: Tensor, step: int) -> Tensor:
        return (self.modules["model"](x) - 1).square().mean()

    def validate(self, model: nn.Module) -> dict[str, float]:
        torch.rand(3)  # must not reach into the next step
        return {"figure": self.figures.pop(0) if self.figures else 1.0}

    def draw_pictures(self, model: nn.Module) -> dict[str, Tensor]:
        return {}


def train(task: Any, config: LoopConfig, out: Path) -> Path:
    with Processes() as processes:
        return fit(task, config, out, HASH, processes)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def stop_at(task: Any, step: int, action: Callable[[], None]) -> Any:
    """The task, with something that happens in the middle of a step: after its first loss."""
    losses = task.compute_losses

    def stopping(batch: Any, now: int) -> Iterator[tuple[str, Tensor]]:
        for item in losses(batch, now):
            yield item
            if now == step:
                action()

    task.compute_losses = stopping
    return task


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def crash() -> None:
    raise MemoryError


def make(kind: Callable[..., Any], config: LoopConfig, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return kind() if kind is Tiny else kind(config)


def assert_same(one: Any, other: Any, place: str = "") -> None:
    """Equality bit for bit of nested containers of tensors."""
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_same(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, list | tuple):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{place}/{i}")
    elif isinstance(one, Tensor):
        assert torch.equal(one, other), place
    else:
        assert one == other, place
