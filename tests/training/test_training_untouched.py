"""Training on untouched photos: any photo of the part, those that are named more often."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.detection_task_contract import Redrawn, recipe
from helpers.tiny_runs import PHOTOS, Photos
from overpaint.data.masks import boxes
from overpaint.data.universal import UniversalConfig
from overpaint.errors import ConfigError
from overpaint.training.detection.base import make_detection_task
from overpaint.training.detection.untouched import UntouchedConfig, UntouchedDataset

SIZE = 24


def samples(tmp_path: Path, weights: str | None = None, **changes: Any) -> UntouchedDataset:
    """Of the photos a, b and c; weights: text of the file."""
    plain = {"history": {"probability": 0}, "degrade": {"probability": 0}}
    config = UniversalConfig.model_validate({"size": SIZE, "bank": {"g": 1}, **plain, **changes})
    often = None
    if weights is not None:
        (tmp_path / "weights.csv").write_text(weights)
        often = "weights.csv"
    untouched = UntouchedConfig(share=1, often=often)
    return UntouchedDataset(config, untouched, PHOTOS, boxes, 0, tmp_path)


def test_every_photo_is_shown_as_it_is(tmp_path: Path) -> None:
    data, seen = samples(tmp_path), set()
    for index in range(30):
        sample = data.sample(index)
        seen.add(sample.source)
        assert sample.pixels.shape == (SIZE, SIZE, 3)
        assert not sample.mask.any()
        photo = PHOTOS.read(PHOTOS.names.index(sample.source))
        assert set(map(tuple, sample.pixels.reshape(-1, 3))) <= set(
            map(tuple, photo.reshape(-1, 3))
        )
    assert seen == {"a", "b", "c"}


def test_a_sample_is_a_function_of_seed_and_number(tmp_path: Path) -> None:
    first, again = samples(tmp_path), samples(tmp_path)
    for index in (7, 0):
        assert np.array_equal(first.sample(index).pixels, again.sample(index).pixels)


def test_named_photos_are_drawn_as_often_as_their_weight(tmp_path: Path) -> None:
    data = samples(tmp_path, "photo,weight,statistic\nb,6,4.1\nc,0,1\nother,3,0\n")
    assert data.shares == pytest.approx([1 / 7, 6 / 7, 0])
    drawn = [data.sample(index).source for index in range(140)]
    assert "c" not in drawn
    assert 105 <= drawn.count("b") <= 132  # 120, and three standard deviations


def test_other_edits_are_among_them(tmp_path: Path) -> None:
    data = samples(tmp_path, negatives={"share": 1, "kinds": {"blur": 1}})
    assert all(data.sample(i).redrawn_by == "not inpainted: blur" for i in range(5))
    assert not data.sample(0).mask.any()


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("name,weight\nb,1\n", "needs the columns photo and weight"),
        ("photo,weight\nb,much\n", "could not convert"),
        ("photo,weight\nz,1\n", "names none of the 3 photos"),
        ("photo,weight\nb,-1\n", "at least 0"),
        ("photo,weight\na,0\nb,0\nc,0\n", "one above it"),
        ("photo,weight\nb,nan\n", "at least 0"),
    ],
)
def test_files_of_weights_that_are_wrong(tmp_path: Path, weights: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        samples(tmp_path, weights)
    assert "weights.csv" in str(caught.value)


def test_a_training_draws_its_share(tmp_path: Path) -> None:
    run = recipe()
    run = run.model_copy(update={"untouched": UntouchedConfig(share=1)})
    with pytest.raises(ConfigError, match="given no photos"):
        make_detection_task(run, Redrawn(), Redrawn(), tmp_path)
    run = run.model_copy(update={"untouched": UntouchedConfig(share=0.5)})
    task = make_detection_task(run, Redrawn(), Redrawn(), tmp_path, photos=(PHOTOS, PHOTOS))
    empty = [not task.train[i]["mask"].any() for i in range(60)]
    assert 20 <= sum(empty) <= 55  # 30 of them, and some of the others


def test_the_weights_are_those_of_the_training_photos_alone(tmp_path: Path) -> None:
    (tmp_path / "weights.csv").write_text("photo,weight\na,5\n")
    untouched = UntouchedConfig(share=0.5, often="weights.csv")
    run = recipe().model_copy(update={"untouched": untouched})
    others: Any = Photos()
    others.names = ("x", "y", "z")
    task = make_detection_task(run, Redrawn(), Redrawn(), tmp_path, photos=(PHOTOS, others))
    assert task.validation


def test_shares_are_at_most_one_together() -> None:
    values = recipe().model_dump(exclude={"untouched"})
    values |= {"untouched": {"share": 0.6}, "fills": values["fills"] | {"share": 0.5}}
    with pytest.raises(ValueError, match="forged, fills and untouched are above 1"):
        type(recipe()).model_validate(values)
