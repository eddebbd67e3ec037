"""Which weights a name means, and what is said where there are none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.bright_detectors import registered, save
from overpaint.detection.api import load_detector
from overpaint.errors import InputError, WeightsError
from overpaint.weights.resolve import find, select


@pytest.fixture
def imported(tmp_path: Path) -> Iterator[Path]:
    with registered(tmp_path) as folder:
        yield folder


def names(models: list[str | Path], folders: tuple[Path, ...] = ()) -> list[str]:
    return [record.name for record in select(models, folders)]


def test_all_are_those_of_every_place_and_each_once(imported: Path, tmp_path: Path) -> None:
    save(tmp_path / "pretrained", "shipped", gain=1)
    save(imported, "mine", gain=2)
    save(tmp_path / "run", "trained", gain=3)
    save(tmp_path / "run", "copy-of-mine", gain=2)
    assert names(["all"]) == ["shipped", "mine"]
    assert names(["all"], (tmp_path / "run",)) == ["shipped", "mine", "trained"]
    assert names(["mine", "all", "mine"]) == ["mine", "shipped"]
    assert names([tmp_path / "run" / "trained.safetensors", "shipped"]) == ["trained", "shipped"]


def test_a_name_is_looked_up_in_the_callers_folders_last(imported: Path, tmp_path: Path) -> None:
    save(imported, "net", gain=1)
    for folder, gain in (("run", 2), ("other", 3)):
        save(tmp_path / folder, "net", gain=gain)
        save(tmp_path / folder, "only", gain=gain)
    folders = (tmp_path / "run", tmp_path / "other")
    assert find("net", "detector", folders).folder == imported
    assert find("only", "detector", folders).folder == tmp_path / "run"


def test_a_network_without_weights_says_how_to_get_some(imported: Path, tmp_path: Path) -> None:
    save(imported, "mine", gain=2)
    with pytest.raises(WeightsError, match=r"weights import judge net\.pth.*train it") as told:
        find("judge", "detector")
    assert "use weights that are here (mine), or the path" in str(told.value)
    with pytest.raises(WeightsError, match=r"fails is a network without weights here; train it"):
        find("fails", "detector")
    with pytest.raises(WeightsError, match="bright is a network, and mine its weights here"):
        load_detector("bright")
    with pytest.raises(WeightsError, match="nothing-like-it: there are no such weights here"):
        find("nothing-like-it", "detector")


def test_what_is_wrong_with_a_place_is_said(imported: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="overpaint models"):
        select(["all"])
    with pytest.raises(WeightsError, match=r"nowhere: no such folder"):
        select(["all"], [tmp_path / "nowhere"])
    with pytest.raises(InputError, match="name one"):
        select([])
    record = save(imported, "mine")
    (imported / "mine.json").write_text(record.model_dump_json().replace("detector", "inpainter"))
    with pytest.raises(WeightsError, match="of kind 'inpainter'"):
        find("mine", "detector")
