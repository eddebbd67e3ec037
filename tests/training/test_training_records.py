"""What the record of trained weights says of photos and recipe."""

from pathlib import Path
from typing import Any

import pytest

from helpers.recipes import recipes
from overpaint.data.sources import PhotoSource, Place
from overpaint.evaluation.rows import read_rows
from overpaint.training import runs
from overpaint.training.autoencoder import AutoencoderRun
from overpaint.training.config import hash_config, load_config, read_recipe
from overpaint.training.detection.base import DetectorRun
from overpaint.training.inpainting.base import InpainterRun
from overpaint.weights import read_record

ROOT = Path(__file__).parents[2]
RUNS: dict[str, Any] = {
    "autoencoder": AutoencoderRun,
    "detector": DetectorRun,
    "inpainter": InpainterRun,
}
FIRST_STAGE = "18f39ce96db2"
"""Of nixnet-s: what its overrides were was not recorded."""
EXPERIMENTS = ROOT / "results" / "experiments"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestRecordWords:
    def test_folders_of_the_photos(self) -> None:
        names = ["/data/a/1.png", "/data/a/2.png", "x/b.zip::c/3.png", "x/b.zip::4.png"]
        source = PhotoSource([Place(name, "", name) for name in names])
        assert runs.describe(source) == "4 photos: a 2, b.zip 1, c 1"

    def test_photos_in_the_current_folder(self, here: Path) -> None:
        source = PhotoSource([Place(name, "", name) for name in ("1.png", "2.png")])
        assert runs.describe(source) == f"2 photos: {here.name} 2"

    def test_a_recipe_without_the_folders_of_this_machine(self, here: Path) -> None:
        assert runs._shorten_recipe_path(Path("recipes/a.yaml")) == "recipes/a.yaml"
        assert runs._shorten_recipe_path(here / "recipes" / "a.yaml") == "recipes/a.yaml"
        assert runs._shorten_recipe_path(here.parent / "secret" / "a.yaml") == "a.yaml"


def test_experiments_were_measured_with_the_weights_of_their_records() -> None:
    measured = {r.weights: r.weights_sha256 for r in read_rows(EXPERIMENTS / "robustness.csv")}
    records = [
        read_record(path) for path in sorted((ROOT / "experiments" / "records").glob("*.json"))
    ]
    assert len(records) > 15
    for record in records:
        assert measured[record.name] == record.sha256, record.name
        assert f"name={record.name}" in record.overrides


@pytest.mark.parametrize(
    "path",
    [
        *(ROOT / "src" / "overpaint" / "pretrained").glob("*.safetensors"),
        *(ROOT / "benchmarks" / "weights").glob("*.safetensors"),
        *(ROOT / "experiments" / "records").glob("*.json"),
    ],
    ids=lambda path: path.stem,
)
def test_recipe_and_overrides_of_a_record_give_the_recorded_configuration(path: Path) -> None:
    record = read_record(path)
    trained = [entry for entry in (*record.ancestors, record) if entry.recipe is not None]
    assert trained
    for entry in trained:
        if entry.sha256 == FIRST_STAGE:
            continue
        run = load_config(RUNS[record.kind], ROOT / str(entry.recipe), entry.overrides)
        assert hash_config(run) == entry.config_hash, entry.name


OWN = [path for path in recipes() if "tables" not in path.parts]
"""Not those of the tables, whose weights stay in the benchmark's cache."""


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_a_recipe_exports_its_own_name(path: Path) -> None:
    name = read_recipe(path)["name"]
    assert name == path.stem or (path.stem, name) == ("ablation", "ablation-full")
