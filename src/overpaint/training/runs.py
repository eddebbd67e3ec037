"""Whole runs: photos and a recipe in, weights with a record out.

Photos are split once by their names (`data.sources.split`): 80 % are trained on, 10 % validate
and calibrate, 10 % are kept for the published figures.
"""

import subprocess
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from rich.progress import Progress
from torch import nn

from overpaint.data.sources import PhotoSource
from overpaint.training.autoencoder import AutoencoderRun, AutoencoderTask
from overpaint.training.config import config_hash
from overpaint.training.detector import DetectorRun, DetectorTask, make_pairs
from overpaint.training.loop import fit
from overpaint.weights import Kind, WeightsRecord, save_weights


def train_autoencoder(
    run: AutoencoderRun,
    photos: Sequence[str],
    out: Path,
    export: Path,
    *,
    recipe: Path,
    exclude: Collection[str] = (),
    device: str = "cpu",
) -> WeightsRecord:
    """Train, then write NAME.safetensors and NAME.json into `export`."""
    commit = _commit()
    train, validation = _split(photos, exclude)
    torch.manual_seed(run.loop.seed)
    task = AutoencoderTask(run, train, validation)
    best = fit(task, run.loop, out, config_hash(run), device)
    about = {"kind": "autoencoder", "architecture": "conv-autoencoder", "config": run.model}
    return _export(run, task.modules["model"], best, export, recipe, train, commit, **about)


def train_detector(
    run: DetectorRun,
    photos: Sequence[str],
    out: Path,
    export: Path,
    *,
    recipe: Path,
    exclude: Collection[str] = (),
    device: str = "cpu",
    assets: Path = Path(),
    cache: Path | None = None,
) -> WeightsRecord:
    """Reconstruct (cached), train, then write NAME.safetensors and NAME.json into `export`."""
    commit = _commit()
    train, validation = _split(photos, exclude)
    with Progress() as bar:
        line = bar.add_task("reconstructions")
        pairs = make_pairs(
            run, train, assets, cache, lambda done, num: bar.update(line, total=num, completed=done)
        )
    held_out = make_pairs(run, validation, assets)
    torch.manual_seed(run.loop.seed)
    task = DetectorTask(run, pairs, held_out, assets)
    best = fit(task, run.loop, out, config_hash(run), device)
    about = {"kind": "detector", "architecture": run.detector, "config": run.model}
    return _export(run, task.modules["model"], best, export, recipe, train, commit, **about)


def _split(photos: Sequence[str], exclude: Collection[str]) -> tuple[PhotoSource, PhotoSource]:
    train = PhotoSource.from_paths(photos, part="train", exclude=exclude)
    return train, PhotoSource.from_paths(photos, part="validation", exclude=exclude)


def _export(
    run: AutoencoderRun | DetectorRun,
    module: nn.Module,
    best: Path,
    folder: Path,
    recipe: Path,
    photos: PhotoSource,
    commit: str,
    *,
    kind: Kind,
    architecture: str,
    config: dict[str, object],
) -> WeightsRecord:
    state = torch.load(best, map_location="cpu", weights_only=True)
    module.load_state_dict(state["model"])
    figures = {k: round(float(v), 4) for k, v in state["figures"].items() if k != "figure"}
    return save_weights(
        folder,
        module,
        name=run.name,
        kind=kind,
        architecture=architecture,
        config=config,
        data=describe(photos),
        recipe=f"{recipe.as_posix()} (config {config_hash(run)}, best at step {state['step']})",
        commit=commit,
        licence="Apache-2.0; trained on pictures licensed for research, see the model card",
        validation=figures,
    )


def describe(photos: PhotoSource) -> str:
    """Number of photos by folder, for a record: "880 photos: bsds500 400, imagenet 480"."""
    folders = Counter(Path(name).parent.name or name for name in photos.names)
    return f"{len(photos)} photos: " + ", ".join(f"{k} {n}" for k, n in sorted(folders.items()))


def _commit() -> str:
    """This project's commit at the start of a run, "-dirty" with uncommitted changes.

    "unknown" outside a checkout.
    """
    here = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    found = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
