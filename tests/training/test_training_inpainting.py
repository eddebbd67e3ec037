"""Training of inpainters: photos and holes, recipes, and which losses train which network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.recipes import recipes
from overpaint.data import masks
from overpaint.data.sources import PhotoSource
from overpaint.errors import ConfigError
from overpaint.registry import inpainters
from overpaint.training.config import create_model, load_config
from overpaint.training.inpainting.base import InpainterRun, InpaintingTask, make_inpainting_task
from overpaint.training.inpainting.data import InpaintingData, PhotosAndHoles
from overpaint.training.inpainting.safepaint import SafePaintTask

RECIPES = recipes("inpainters")


@pytest.fixture
def photos(photo_folder: Path) -> PhotoSource:
    return PhotoSource.from_paths([photo_folder])


def recipe(**changes: Any) -> InpainterRun:
    values: dict[str, Any] = {
        "name": "test",
        "inpainter": "aotgan",
        "model": {"width": 4, "num_blocks": 1},
        "backbone": "none",
        "data": {"size": 64},
        "loop": {"steps": 2, "batch_size": 2},
        "loss": {"perceptual_weight": 0, "style_weight": 0, "discriminator_width": 4},
        "validation_photos": 1,
    }
    return InpainterRun.model_validate(values | changes)


def task(photos: PhotoSource, **changes: Any) -> InpaintingTask[Any, Any]:
    return make_inpainting_task(recipe(**changes), photos, photos)


def test_samples_are_a_function_of_seed_and_number(photos: PhotoSource) -> None:
    data = InpaintingData(size=64, shrink=1.5)
    one, same, other = (PhotosAndHoles(photos, data, masks.brush, s) for s in (0, 0, 1))
    backwards = {i: same[i] for i in reversed(range(4))}
    for i in range(4):
        sample = one[i]
        assert sample["image"].shape == (3, 64, 64)
        assert sample["mask"].shape == (1, 64, 64)
        assert set(sample["mask"].unique().tolist()) <= {0.0, 1.0}
        assert 0 <= sample["image"].min() <= sample["image"].max() <= 1
        assert all(torch.equal(value, backwards[i][name]) for name, value in sample.items())
    for name in ("image", "mask"):
        assert not all(torch.equal(one[i][name], other[i][name]) for i in range(4))


def test_without_shrinking_pixels_are_the_photos_own(photos: PhotoSource) -> None:
    crop = PhotosAndHoles(photos, InpaintingData(size=64), masks.brush, 0)[3]["image"]
    levels = (crop * 255).numpy()
    assert np.allclose(levels, levels.round(), atol=1e-4)


def test_holes_have_the_share_that_the_recipe_asks_for(photos: PhotoSource) -> None:
    train = task(photos, data={"size": 64, "ratio": [0.2, 0.3]}).train
    for i in range(6):
        assert 0.2 <= train[i]["mask"].mean() < 0.3


def test_the_first_samples_are_smaller_and_show_as_much(photos: PhotoSource) -> None:
    data = {"size": 96, "early_size": 64, "early_samples": 4}
    run = task(photos, data=data)
    assert [run.train[i]["image"].shape[1] for i in (0, 3, 4, 9)] == [64, 64, 96, 96]
    assert [run.train[i]["mask"].shape[1] for i in (0, 3, 4, 9)] == [64, 64, 96, 96]
    assert run.validation[0]["image"].shape == (3, 96, 96)
    # The whole view of a photo without shrinking is the same one, brought to another size.
    one = PhotosAndHoles(photos, InpaintingData(**data), masks.brush, 0)
    largest = one.crops[0]["image"]
    assert largest.shape == (3, 96, 96)
    assert abs(one[0]["image"].mean() - largest.mean()) < 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"size": 64, "early_samples": 3}}, "multiple of loop.batch_size 2"),
        ({"data": {"size": 64, "early_samples": 4}}, "early_size 128: .* at most 64"),
        ({"loss": {}}, "or name a backbone"),
        ({"loss": {"l1_wieght": 1}}, "did you mean 'l1_weight'"),
        ({"model": {"widht": 4}}, "widht.*did you mean 'model.width'"),
        ({"inpainter": "telea", "model": {}}, r"nothing to train, .* losses of aotgan, ctsdg"),
    ],
)
def test_impossible_recipes_are_refused(
    photos: PhotoSource, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        task(photos, **changes)


@pytest.mark.parametrize(
    ("data", "message"),
    [({"size": 62}, "multiple of 4"), ({"size": 60}, "greater than or equal to 64")],
)
def test_impossible_sizes_are_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(data=data)


def test_losses_of_one_network_do_not_train_another(photos: PhotoSource) -> None:
    run = recipe()
    model = create_model(inpainters, run.inpainter, run.model)
    with pytest.raises(ConfigError, match="these losses train a SafePaint"):
        SafePaintTask(run, model, photos, photos)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_of_the_benchmark_share_photos_and_holes(path: Path) -> None:
    run, first = (load_config(InpainterRun, p) for p in (path, RECIPES[0]))
    assert run.name == path.stem
    assert run.inpainter in inpainters.list_names()
    assert run.data == first.data
    assert run.loop.seed == first.loop.seed
