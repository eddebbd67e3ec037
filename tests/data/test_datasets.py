"""The data sets of recipes and tables, and `overpaint data check`."""

import csv
import hashlib
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from helpers.locked import lock
from overpaint.cli import build
from overpaint.data import datasets as module
from overpaint.data.datasets import Dataset, check_datasets, hash_files, list_datasets
from overpaint.errors import ConfigError

ROOT = Path(__file__).parents[2]


def dataset(folder: str, contents: dict[str, bytes], **more: object) -> Dataset:
    lines = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in contents.items())
    about = {"title": "T", "address": "https://example.org", "licence": "CC0", "what": "w"}
    return Dataset.model_validate(
        {
            **about,
            "folder": folder,
            "used_for": "tests",
            "files": len(contents),
            "bytes": sum(map(len, contents.values())),
            "sha256": hashlib.sha256("".join(lines).encode()).hexdigest(),
            **more,
        }
    )


def write(folder: Path, contents: dict[str, bytes]) -> None:
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


PHOTOS = {"B.png": b"2", "a.png": b"1", "sub/c d.png": b"3"}
INDEX = b"id,mask\n1,pairs/1.png\n2,\n"
PAIRS = {"1.png": b"x", "index.csv": INDEX}


@pytest.fixture(autouse=True)
def manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small data sets, one with an index."""
    index = {
        "file": "index.csv",
        "paths": ["mask"],
        "relative_to": "data folder",
        "columns": {"id": "", "mask": ""},
        "made": "by hand",
        "sources": ["https://example.org/one", "https://example.org/two"],
    }
    found = (
        dataset("photos/a", PHOTOS),
        dataset("pairs", PAIRS, index=index, address=None, licence="MIT"),
    )
    monkeypatch.setattr(module, "list_datasets", lambda: found)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path / "photos" / "a", PHOTOS)
    write(tmp_path / "pairs", PAIRS)
    return tmp_path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(build(), ["data", "check", *map(str, arguments)])


def states(folder: Path) -> dict[str, str]:
    return {f.dataset.folder: f.state for f in check_datasets(folder)}


def test_a_complete_folder(data: Path) -> None:
    (data / "photos" / "a" / ".DS_Store").write_bytes(b"left by a file manager")
    assert states(data) == {"photos/a": "complete", "pairs": "complete"}
    result = run(data)
    assert result.exit_code == 0
    assert "example.org" not in result.stdout
    assert "2 of 2 data sets are complete" in result.stderr


def test_what_is_missing_is_named_with_where_to_get_it(data: Path) -> None:
    for path in (data / "photos" / "a").rglob("*.png"):
        path.unlink()
    (data / "pairs" / "1.png").unlink()
    assert states(data) == {"photos/a": "missing", "pairs": "incomplete"}
    result = run(data)
    assert result.exit_code == 1
    assert "1 files missing: pairs/1.png" in result.stdout
    for text in ("https://example.org", "https://example.org/two", "CC0", "MIT", "no files in"):
        assert text in result.stdout
    assert "0 of 2" in result.stderr


def test_fewer_more_and_other_files(data: Path) -> None:
    (data / "photos" / "a" / "B.png").write_bytes(b"other")
    assert states(data)["photos/a"] == "different"
    (data / "photos" / "a" / "B.png").rename(data / "photos" / "a" / "C.png")
    assert states(data)["photos/a"] == "different"
    (data / "photos" / "a" / "d.png").write_bytes(b"one more")
    (finding, _) = check_datasets(data)
    assert (finding.state, "1 too many" in finding.details) == ("different", True)
    (data / "photos" / "a" / "d.png").unlink()
    (data / "photos" / "a" / "C.png").unlink()
    (finding, _) = check_datasets(data)
    assert (finding.state, finding.details) == ("incomplete", "2 of 3 files")
    (data / "pairs" / "index.csv").unlink()
    assert check_datasets(data)[1].details == "1 files missing: pairs/index.csv"


def test_some_of_them_and_as_json(data: Path) -> None:
    (data / "pairs" / "1.png").unlink()
    assert run(data, "--only", "photos").exit_code == 0
    result = run(data, "--json")
    first, second = map(json.loads, result.stdout.splitlines())
    assert (result.exit_code, first["state"], second["state"]) == (1, "complete", "incomplete")
    assert second["where"] == "https://example.org/one, https://example.org/two"
    with pytest.raises(ConfigError, match="'phot'; there are photos/a, pairs"):
        check_datasets(data, ("phot",))
    with pytest.raises(ConfigError, match="no such folder"):
        check_datasets(data / "lost")


def test_the_list_is_that_of_sha256sum(data: Path) -> None:
    one, two, three = (hashlib.sha256(x).hexdigest() for x in (b"2", b"1", b"3"))
    text = f"{one}  B.png\n{two}  a.png\n{three}  sub/c d.png\n"
    assert hash_files(data / "photos" / "a") == hashlib.sha256(text.encode()).hexdigest()


class TestShippedManifest:
    def test_it_describes_the_folder_that_the_numbers_were_made_with(
        self, shared_data: Path
    ) -> None:
        for each in list_datasets():
            files = module.list_files(shared_data / each.folder)
            assert len(files) == each.files, each.folder
            assert sum(p.stat().st_size for p in files) == each.bytes, each.folder
            if each.index is not None:
                with (shared_data / each.folder / each.index.file).open(newline="") as file:
                    columns = csv.DictReader(file).fieldnames
                assert columns == list(each.index.columns), each.folder
        small = next(d for d in list_datasets() if d.folder == "faces/celeba")
        assert hash_files(shared_data / small.folder) == small.sha256

    def test_every_folder_that_a_recipe_names_is_described(self) -> None:
        folders = {d.folder for d in list_datasets()}
        tops = {f.partition("/")[0] for f in folders}
        named = set()
        for path in [*ROOT.glob("recipes/**/*.yaml"), *ROOT.glob("recipes/*.sh")]:
            text = path.read_text()
            named |= set(re.findall(r"objects:(masks/\w+)", text))
            named |= set(re.findall(r"\$DATA/(\w+)", text))
        assert {"photos", "faces", "masks/person"} <= named
        assert named <= folders | tops

    def test_no_script_has_a_folder_of_data_by_default(self) -> None:
        scripts = [
            p for f in ("recipes", "benchmarks", "experiments") for p in ROOT.glob(f"{f}/*.py")
        ]
        assert len(scripts) > 5
        for path in scripts:
            assert not re.search(r'"shared"|\.\./', path.read_text()), path


def test_a_folder_without_permission_is_told(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock(data / "photos" / "a", monkeypatch)
    with pytest.raises(ConfigError, match=r"a: cannot be read .*make it readable"):
        check_datasets(data)
