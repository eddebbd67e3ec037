"""The published results: small, and of weights and calibrations that are here."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from overpaint.benchmark.hardening.rows import HardeningRow
from overpaint.benchmark.plan import GIVEN
from overpaint.benchmark.rows import PROVENANCE, BenchmarkRow
from overpaint.benchmark.rows import read_rows as read_benchmark_rows
from overpaint.evaluation.rows import (
    SOURCES,
    Row,
    find_pictures_file,
    read_pictures,
    read_rows,
    read_sources,
)
from overpaint.metrics import mean
from overpaint.weights import WeightsRecord, list_records, read_record

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
EXPERIMENTS = RESULTS / "experiments"
TABLES = RESULTS / "tables"
"""Rows of `overpaint benchmark` and `harden`, which say themselves whence they are."""
SETS = [p for p in sorted(RESULTS.rglob("*.csv")) if p.stem != SOURCES and p.parent != TABLES]


def of_calibration(record: WeightsRecord) -> str:
    """The SHA-256 of a record's calibration, "" without."""
    if record.calibration is None:
        return ""
    return hashlib.sha256((record.folder / record.calibration).read_bytes()).hexdigest()


def judged_by_threshold(row: Row) -> bool:
    """Whether the number depends on the calibration."""
    verdicts = ("flagged@", "strong@", "inconclusive@")
    return row.metric.endswith("@default") or row.metric.startswith(verdicts)


def problem(row: Row, here: dict[str, WeightsRecord], by_sha256: dict[str, WeightsRecord]) -> str:
    """Why a row must not be published; "" for nothing."""
    if row.historical:
        return ""
    record = here.get(row.weights) or by_sha256.get(row.weights_sha256)
    if row.weights_sha256:
        if record is None or record.sha256 != row.weights_sha256:
            return "other weights than those that are here"
        if judged_by_threshold(row) and row.calibration_sha256 != of_calibration(record):
            return "another calibration than the one that is here"
    for name, weights, calibration in (s.split() for s in row.seen_by.split("; ") if s):
        if name not in here or not here[name].sha256.startswith(weights):
            return f"seen by other weights of {name}"
        if judged_by_threshold(row) and not of_calibration(here[name]).startswith(calibration):
            return f"seen by {name} with another calibration"
    return ""


def read_table_rows(path: Path) -> list[BenchmarkRow]:
    """Of either command: those of `harden` have columns of their own."""
    header = path.read_text(encoding="utf-8").partition("\n")[0].split(",")
    kind = HardeningRow if "round" in header else BenchmarkRow
    return [*read_benchmark_rows(path, kind)]


@pytest.fixture(scope="module")
def here() -> dict[str, WeightsRecord]:
    """The records of shipped and benchmark weights by their names."""
    records = [*list_records(), *list_records(ROOT / "benchmarks" / "weights")]
    return {r.name: r for r in records}


def test_results_are_small() -> None:
    files = [p for p in RESULTS.rglob("*") if p.is_file()]
    assert len(files) > 10
    assert sum(p.stat().st_size for p in files) <= 1.5e6


@pytest.mark.parametrize("path", SETS, ids=lambda p: str(p.relative_to(RESULTS)))
def test_rows_are_of_the_weights_and_the_calibration_that_are_here(
    path: Path, here: dict[str, WeightsRecord]
) -> None:
    records = [read_record(p) for p in (ROOT / "experiments" / "records").glob("*.json")]
    by_sha256 = {r.sha256: r for r in (*records, *here.values())}
    rows = read_rows(path)
    assert rows
    found = {f"{r.weights}: {text}" for r in rows if (text := problem(r, here, by_sha256))}
    assert not found


@pytest.mark.parametrize(
    "path", sorted(p for p in TABLES.glob("*.csv") if p.name != PROVENANCE), ids=lambda p: p.name
)
def test_tables_start_from_weights_that_are_here(
    path: Path, here: dict[str, WeightsRecord]
) -> None:
    known = {record.sha256 for record in here.values()}
    given = [r for r in read_table_rows(path) if r.training == GIVEN and not r.error]
    assert {r.detector_sha256 for r in given} <= known
    assert all(r.commit and r.config_hash for r in given)


def test_rows_of_other_weights_or_another_calibration_are_refused(
    here: dict[str, WeightsRecord],
) -> None:
    record = here["nixnet-s"]
    rows = read_rows(RESULTS / "triplets.csv")
    row = next(r for r in rows if r.weights == "nixnet-s" and judged_by_threshold(r))
    row = replace(
        row, weights_sha256=record.sha256, calibration_sha256=of_calibration(record), historical=""
    )
    assert not problem(row, here, {})
    assert "other weights" in problem(replace(row, weights_sha256="0" * 64), here, {})
    assert "another calibration" in problem(replace(row, calibration_sha256="0" * 64), here, {})
    assert "another calibration" in problem(replace(row, calibration_sha256=""), here, {})
    unknown = replace(row, weights="unknown", weights_sha256="0" * 64)
    assert "other weights" in problem(unknown, here, {})
    assert not problem(replace(unknown, historical="of an older mixture, not kept"), here, {})
    fill = replace(row, weights="telea", weights_sha256="", metric="auc")
    assert not problem(replace(fill, seen_by=f"nixnet-s {record.sha256[:12]} -"), here, {})
    assert "seen by" in problem(replace(fill, seen_by="nixnet-s 000000000000 -"), here, {})


@pytest.mark.parametrize("folder", [RESULTS, EXPERIMENTS], ids=lambda p: p.name)
def test_each_source_is_used_and_known_by_its_hash(folder: Path) -> None:
    sources = read_sources(folder / f"{SOURCES}.csv")
    assert all(source.key == key for key, source in sources.items())
    sets = [p for p in folder.glob("*.csv") if p.stem != SOURCES]
    used = {r.source.key for path in sets for r in read_rows(path)}
    assert used == sources.keys()


def test_published_means_are_those_of_the_published_pictures() -> None:
    rows = [r for r in read_rows(RESULTS / "triplets.csv") if r.metric == "auc"]
    pictures = read_pictures(find_pictures_file(RESULTS, "triplets"))
    checked = 0
    for r in rows:
        of_row = [p for p in pictures if (p.weights, p.method) == (r.weights, r.method)]
        if of_row:
            assert mean([p.numbers["auc"] for p in of_row]) == pytest.approx(r.value, abs=1e-5)
            checked += 1
    assert checked > 50
