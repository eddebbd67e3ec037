"""Rows that follow a calibration which was rewritten with the same thresholds."""

import csv
import io
import json
import shutil
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from overpaint.benchmark import rows as tables
from overpaint.benchmark.restating import restate_calibration
from overpaint.errors import ConfigError
from overpaint.evaluation.rows import Row, Source, read_rows, write_results
from overpaint.hashes import file_sha256
from overpaint.weights import read_record

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture
def calibrations(tmp_path: Path) -> tuple[Path, Path]:
    """The shipped one, and the same with edits counted."""
    record = read_record("nixnet-s")
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    shutil.copy(record.folder / str(record.calibration), before)
    values = json.loads(before.read_text())
    band = values["bands"]["lossless"]
    band["edits"] = {"median": {"num": 4, "num_reached": 3, "num_strong": 1}}
    band["strong_logit"] = band["threshold_logit"] + 1
    after.write_text(json.dumps(values))
    return before, after


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RESULTS, tmp_path / "results"))


def texts(folder: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in folder.rglob("*.csv")}


def drop_sources(text: str) -> list[dict[str, str]]:
    return [line | {"source": ""} for line in csv.DictReader(io.StringIO(text))]


def test_rows_name_the_new_file_and_keep_their_numbers(
    calibrations: tuple[Path, Path], results: Path
) -> None:
    before, after = calibrations
    old, new = map(file_sha256, calibrations)
    first, text = read_rows(results / "triplets.csv"), texts(results)
    table = tables.read_rows(results / "tables" / "heat.csv")
    assert any(row.calibration_sha256 == old for row in first)
    assert any(row.calibration_sha256 == old for row in table)
    changed = restate_calibration(results, before, after)
    assert {results / "sources.csv", results / "triplets.csv"} <= set(changed)
    for path, was in text.items():
        now = path.read_text()
        assert old[:12] not in now, path
        assert (now == was) == (path not in changed)
        if path.stem not in ("sources", "provenance"):
            assert drop_sources(now) == drop_sources(was)
    rows = read_rows(results / "triplets.csv")
    assert [r.calibration_sha256.replace(new, old) for r in rows] == [
        r.calibration_sha256 for r in first
    ]
    in_table = tables.read_rows(results / "tables" / "heat.csv")
    assert [
        repr(replace(r, calibration_sha256=r.calibration_sha256.replace(new, old)))
        for r in in_table
    ] == [repr(r) for r in table]
    restate_calibration(results, after, before)
    assert texts(results) == text


def test_the_detectors_that_looked_at_fills_are_restated(
    calibrations: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = (file_sha256(path)[:12] for path in calibrations)
    seen = f"a {'1' * 12} {old}; b {old} -; c {'2' * 12} {'3' * 12}"
    source = Source("inpainting", "telea", "commit", "config", "", "protocol", seen_by=seen)
    row = Row("inpainting", "telea", "telea", "auc", 0.5, 3, 0.4, 0.6, *astuple(source)[2:])
    write_results(tmp_path / "r", [row], [])
    restate_calibration(tmp_path / "r", *calibrations)
    (found,) = read_rows(tmp_path / "r" / "inpainting.csv")
    assert found.seen_by == f"a {'1' * 12} {new}; b {old} -; c {'2' * 12} {'3' * 12}"
    assert replace(found, seen_by=seen) == row


def test_doing_it_again_finishes_what_was_interrupted(
    calibrations: tuple[Path, Path], results: Path
) -> None:
    text = (results / "triplets.csv").read_text()
    restate_calibration(results, *calibrations)
    whole = texts(results)
    (results / "triplets.csv").write_text(text)
    with pytest.raises(ConfigError, match="not a file of results"):
        read_rows(results / "triplets.csv")
    assert restate_calibration(results, *calibrations) == [results / "triplets.csv"]
    assert texts(results) == whole
    assert restate_calibration(results, *calibrations) == []


def test_other_thresholds_are_refused(calibrations: tuple[Path, Path], results: Path) -> None:
    before, after = calibrations
    values = json.loads(after.read_text())
    values["bands"]["lossless"]["threshold_logit"] += 1e-6
    after.write_text(json.dumps(values))
    text = texts(results)
    with pytest.raises(ConfigError, match=r"after\.json: its thresholds.*measure again"):
        restate_calibration(results, before, after)
    assert texts(results) == text
