"""Training of detectors: recipes, their hashes, and which loss trains which network."""

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.detection_task_contract import Redrawn, recipe
from helpers.recipes import recipes
from overpaint.errors import ConfigError
from overpaint.registry import Entry, build_on_meta, detectors
from overpaint.training.config import load_config
from overpaint.training.detection.base import (
    DetectorRun,
    DetectorTask,
    check,
    make_detection_task,
    start,
)
from overpaint.training.detection.ldicn import LDICNTask
from overpaint.training.discovery import find_task

RECIPES = Path(__file__).parents[2] / "recipes"
COMPARED = recipes("detectors")
TINY = {"model": {"widths": [4, 4, 4]}}


@pytest.mark.parametrize("path", COMPARED, ids=lambda path: path.stem)
def test_recipes_of_the_comparison_differ_in_the_detector_alone(path: Path) -> None:
    run, shipped = (load_config(DetectorRun, p) for p in (path, RECIPES / "nixnet-s-1-base.yaml"))
    assert run.detector == path.stem.partition("-")[0]
    find_task(start(run).model, DetectorTask).load_terms(run)
    # What the cache depends on is that of the shipped detector.
    assert (run.cache, run.loop.seed) == (shipped.cache, shipped.loop.seed)
    assert (run.data.history, run.data.bank.keys()) == (
        shipped.data.history,
        shipped.data.bank.keys(),
    )
    first = load_config(DetectorRun, COMPARED[0])
    assert run.data == first.data
    same = {"optimizer": first.loop.optimizer}
    assert run.loop.model_copy(update=same) == first.loop
    assert run.validation_samples == first.validation_samples


def test_there_is_a_recipe_and_a_task_for_every_detector() -> None:
    runs = [load_config(DetectorRun, path) for path in COMPARED]
    assert len({run.name for run in runs} | {"nixnet-s"}) == len(runs) + 1
    trained = {find_task(start(run).model, DetectorTask) for run in runs}
    assert trained == {_task(name) for name in detectors.list_names()}


def _task(name: str) -> type[DetectorTask[Any, Any]]:
    with build_on_meta():
        return find_task(detectors.create(name), DetectorTask)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"detector": "ldicn", "loss": {"positive_weight": 2}},
            "loss: unknown key 'positive_weight'",
        ),
        ({"detector": "nixnet", "model": {"widht": 1}}, "widht"),
        ({**TINY, "loss": {"focal_gamma": -1}}, "loss: focal_gamma: .* equal to 0, not -1"),
    ],
)
def test_impossible_recipes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(recipe(**changes))


def checked(run: DetectorRun) -> None:
    check(run, start(run).model, Path())


def test_a_detector_without_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    detectors.list_names()
    entry: Entry[Any] = Entry("plain", lambda: torch.nn.Conv2d(3, 1, 1), "none", "Apache-2.0")
    monkeypatch.setitem(detectors._entries, "plain", entry)
    with pytest.raises(ConfigError, match=r"nothing to train, .* losses of iidnet, ldicn"):
        make_detection_task(recipe(detector="plain"), Redrawn(), Redrawn())


def test_the_loss_of_one_detector_does_not_train_another() -> None:
    with pytest.raises(ConfigError, match="this loss trains a LDICN"):
        LDICNTask(recipe(**TINY), start(recipe(**TINY)).model, Redrawn(), Redrawn())


def test_validation_samples_of_which_none_is_inpainted() -> None:
    run = recipe(**TINY)
    data = run.data.model_copy(update={"untouched": 1.0})
    with pytest.raises(ConfigError, match="none of the 6 validation samples is inpainted"):
        make_detection_task(run.model_copy(update={"data": data}), Redrawn(), Redrawn())
