"""Whole runs: photos and a recipe in, weights with a record out.

Photos are split once by their names (`data.sources.split`): 80 % are trained on, 10 % validate
and calibrate, 10 % are kept for the published figures.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from overpaint import hashes
from overpaint.data.photo_sets import collect_photos
from overpaint.data.real_fills import describe_fills, list_fills, list_trained_families
from overpaint.data.sources import PhotoSource, describe_unmatched, hash_data_list, shorten_name
from overpaint.data.universal import Pairs
from overpaint.run_identity import find_commit
from overpaint.terminal import make_progress_bar, say
from overpaint.training.autoencoder import ARCHITECTURE, AutoencoderRun, AutoencoderTask
from overpaint.training.checkpoint import load_checkpoint
from overpaint.training.config import hash_config
from overpaint.training.detection.base import (
    DetectorRun,
    check,
    make_detection_task,
    make_pairs,
    start,
)
from overpaint.training.detection.forged import (
    describe_forgeries,
    list_forged_photos,
    list_forgeries,
)
from overpaint.training.distributed import Processes
from overpaint.training.inpainting.base import InpainterRun, make_inpainting_task
from overpaint.training.inpainting.base import start as start_inpainter
from overpaint.training.loop import Task, fit
from overpaint.weights import Kind, WeightsRecord, save_weights

AnyRun = AutoencoderRun | DetectorRun | InpainterRun


class Divided(NamedTuple):
    """Photos that were divided otherwise than by their names."""

    train: PhotoSource
    validation: PhotoSource


Photos = Sequence[str] | Divided
"""Paths, which are split by their names, or photos that are divided already."""


def train_autoencoder(
    run: AutoencoderRun,
    photos: Photos,
    out: Path,
    export: Path,
    *,
    recipe: Path,
    overrides: Sequence[str] = (),
    exclude: Collection[str] = (),
    device: str = "cpu",
    problem: Callable[[str], None] = lambda _: None,
) -> WeightsRecord | None:
    """Train, then write NAME.safetensors and NAME.json into `export`.

    recipe, overrides: what `run` was read from, for the record. problem: called with each path,
    line or member of `photos` that could not be found or searched. -> the record, or None in all
    but the first of several processes.
    """
    about = _describe_run(run, "autoencoder", ARCHITECTURE, recipe, overrides)
    train, validation = _split(photos, exclude, problem)
    with Processes(device) as processes:
        torch.manual_seed(run.loop.seed)
        task = AutoencoderTask(run, train, validation)
        data = hash_samples(train, validation)
        return _fit_and_export(run, task, out, export, train, about, processes, data)


def train_detector(
    run: DetectorRun,
    photos: Photos,
    out: Path,
    export: Path,
    *,
    recipe: Path,
    overrides: Sequence[str] = (),
    exclude: Collection[str] = (),
    device: str = "cpu",
    problem: Callable[[str], None] = lambda _: None,
    assets: Path = Path(),
    cache: Path | None = None,
    export_only: bool = False,
) -> WeightsRecord | None:
    """Reconstruct (cached), train, then write NAME.safetensors and NAME.json into `export`.

    Arguments and result as for `train_autoencoder`; assets: folder of what the recipe names by
    "taef2:" and "objects:"; cache: folder of the reconstructions, None to make them on the fly;
    export_only: train nothing, and write the (averaged) weights of the last checkpoint in `out`.
    """
    about = _describe_run(run, "detector", run.detector, recipe, overrides)
    torch.manual_seed(run.loop.seed)
    begun = start(run)
    parents = [*([] if begun.record is None else [begun.record]), *begun.parts]
    if parents:
        about |= {"parents": [(parent, 1) for parent in parents], "new_parts": begun.fresh}
    forged = list_forged_photos(run.forged, assets)
    train, validation = _split(photos, exclude, problem, forged)
    check(run, begun.model, assets, exclude)  # the reconstructions may take hours
    others = [
        *list_forgeries(run.forged, assets, exclude),
        *(list_fills(run.fills, assets) if run.fills.share else ()),
    ]
    data = hash_samples(train, validation, others)
    about["data"] = describe(train)
    if run.forged.share:
        about["data"] += f"; {describe_forgeries(run.forged, assets, exclude)}"
    if run.fills.share:
        about["data"] += f"; {describe_fills(run.fills, assets)}"
        about["families"] = list_trained_families(run.fills, assets)
    if export_only:
        state = load_checkpoint(out / "last.pt", hash_config(run), data)
        values = state["average"] if run.loop.ema_decay else state["modules"]["model"]
        return _export(run, begun.model, values, state["step"], {}, export, train, about)
    with Processes(device) as processes:
        pairs = _cache_pairs(run, train, assets, cache, processes)
        held_out = make_pairs(run, validation, assets)
        both = train, validation
        task = make_detection_task(run, pairs, held_out, assets, exclude, begun.model, both)
        return _fit_and_export(run, task, out, export, train, about, processes, data)


def train_inpainter(
    run: InpainterRun,
    photos: Photos,
    out: Path,
    export: Path,
    *,
    recipe: Path,
    overrides: Sequence[str] = (),
    exclude: Collection[str] = (),
    device: str = "cpu",
    problem: Callable[[str], None] = lambda _: None,
    assets: Path = Path(),
) -> WeightsRecord | None:
    """Train, then write NAME.safetensors and NAME.json into `export`.

    Arguments and result as for `train_autoencoder`; assets: folder of the files that the recipe
    names.
    """
    about = _describe_run(run, "inpainter", run.inpainter, recipe, overrides)
    train, validation = _split(photos, exclude, problem)
    with Processes(device) as processes:
        torch.manual_seed(run.loop.seed)
        model, parent = start_inpainter(run)
        if parent is not None:
            about["parents"] = [(parent, 1)]
        task = make_inpainting_task(run, train, validation, assets, model)
        data = hash_samples(train, validation)
        return _fit_and_export(run, task, out, export, train, about, processes, data)


def describe(photos: PhotoSource) -> str:
    """Number of photos by folder, for a record: "880 photos: bsds500 400, imagenet 480"."""
    places = (Path(name.replace("::", "/")) for name in photos.names)
    folders = Counter(place.absolute().parent.name for place in places)
    return f"{len(photos)} photos: " + ", ".join(f"{k} {n}" for k, n in sorted(folders.items()))


def hash_samples(train: PhotoSource, validation: PhotoSource, others: Iterable[str] = ()) -> str:
    """SHA-256 (hex) of what the samples of a run are made from: photos by folder and file name.

    Their order counts, as samples are drawn by it. others: names of forgeries and fills.
    """
    parts = [*map(shorten_name, train.names), "", *map(shorten_name, validation.names), "", *others]
    return hashes.sha256("\n".join(parts).encode("utf-8", "surrogateescape"))


def _split(
    photos: Photos,
    exclude: Collection[str],
    problem: Callable[[str], None],
    others: Sequence[str] = (),
) -> tuple[PhotoSource, PhotoSource]:
    """The photos that train and those that validate; others: names that may be excluded, too."""
    if isinstance(photos, Divided):
        return photos
    train = collect_photos(photos, part="train", exclude=exclude)
    if train.passed_over:
        say(train.passed_over, err=True)
    for line in train.problems:
        problem(line)
    if exclude:  # a slip in a name would train on what was to be left out
        for line in describe_unmatched([*collect_photos(photos).names, *others], exclude):
            problem(line)
    return train, collect_photos(photos, part="validation", exclude=exclude)


def _cache_pairs(
    run: DetectorRun, photos: PhotoSource, assets: Path, cache: Path | None, processes: Processes
) -> Pairs:
    """`make_pairs` with a bar; the first of several processes fills the cache for all."""
    if not processes.is_main:
        processes.barrier()
        return make_pairs(run, photos, assets, cache)
    with make_progress_bar() as bar:
        line = bar.add_task("reconstructions", total=None, visible=bool(run.cache.num))
        pairs = make_pairs(
            run,
            photos,
            assets,
            cache,
            lambda done, num: bar.update(line, total=num, completed=done),
        )
    processes.barrier()
    return pairs


def _describe_run(
    run: AnyRun, kind: Kind, architecture: str, recipe: Path, overrides: Sequence[str]
) -> dict[str, Any]:
    """What the record says and only the start of a run knows."""
    return {
        "name": run.name,
        "kind": kind,
        "architecture": architecture,
        "config": run.model,
        "commit": find_commit(),
        "recipe": _shorten_recipe_path(recipe),
        "overrides": overrides,
        "config_hash": hash_config(run),
        "licence": "Apache-2.0; trained on pictures licensed for research, see the model card",
    }


def _fit_and_export(
    run: AnyRun,
    task: Task,
    out: Path,
    folder: Path,
    photos: PhotoSource,
    about: dict[str, Any],
    processes: Processes,
    data_hash: str,
) -> WeightsRecord | None:
    """Train, and let the first process write the exported state into `folder`."""
    best = fit(task, run.loop, out, hash_config(run), processes, data_hash)
    if not processes.is_main:
        return None
    state = load_checkpoint(best, hash_config(run))
    module, step, figures = task.modules["model"], state["step"], state["figures"]
    return _export(run, module, state["model"], step, figures, folder, photos, about)


def _export(
    run: AnyRun,
    module: nn.Module,
    values: Mapping[str, Tensor],
    step: int,
    measured: Mapping[str, float],
    folder: Path,
    photos: PhotoSource,
    about: dict[str, Any],
) -> WeightsRecord:
    """Write `values` as the weights of a module; measured: on the validation data, if at all."""
    module.load_state_dict(values)
    figures = {k: float(v) for k, v in measured.items() if k != "figure"}
    # A record holds numbers; "not a number" would come back as null.
    about["validation"] = {k: round(v, 4) for k, v in figures.items() if math.isfinite(v)}
    about |= {"step": step, "data_sha256": hash_data_list(photos.names)}
    about.setdefault("data", describe(photos))
    return save_weights(folder, module, **about)


def _shorten_recipe_path(recipe: Path) -> str:
    """The path as one types it, without the folders of this machine."""
    here, place = Path.cwd(), recipe.absolute()
    return place.relative_to(here).as_posix() if place.is_relative_to(here) else recipe.name
