"""What the record of trained weights says of photos and recipe."""

from pathlib import Path

import pytest

from overpaint.data.sources import PhotoSource
from overpaint.evaluation.rows import read_rows
from overpaint.training import runs
from overpaint.weights import read_record

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "results" / "experiments"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestRecordWords:
    def test_folders_of_the_photos(self) -> None:
        names = ["/data/a/1.png", "/data/a/2.png", "x/b.zip::c/3.png", "x/b.zip::4.png"]
        source = PhotoSource([(name, "", name) for name in names])
        assert runs.describe(source) == "4 photos: a 2, b.zip 1, c 1"

    def test_photos_in_the_current_folder(self, here: Path) -> None:
        source = PhotoSource([("1.png", "", "1.png"), ("2.png", "", "2.png")])
        assert runs.describe(source) == f"2 photos: {here.name} 2"

    def test_a_recipe_without_the_folders_of_this_machine(self, here: Path) -> None:
        assert runs._in_words(Path("recipes/a.yaml"), ()) == "recipes/a.yaml"
        assert runs._in_words(here / "recipes" / "a.yaml", ["x=1", "y=2"]) == (
            "recipes/a.yaml --set x=1 --set y=2"
        )
        assert runs._in_words(here.parent / "secret" / "a.yaml", ()) == "a.yaml"


def test_experiments_were_measured_with_the_weights_of_their_records() -> None:
    measured = {r.weights: r.weights_sha256 for r in read_rows(EXPERIMENTS / "robustness.csv")}
    records = [
        read_record(path) for path in sorted((ROOT / "experiments" / "records").glob("*.json"))
    ]
    assert len(records) > 15
    for record in records:
        assert measured[record.name] == record.sha256, record.name
        assert f"--set name={record.name}" in record.recipe
        assert "(config " in record.recipe
