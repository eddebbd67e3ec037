"""Which rows of a scan count: of files that change and come back, and of sources that failed."""

import os
import shutil
import time
import tracemalloc
from pathlib import Path

import pytest

from helpers.random_weights import save_small_detector
from helpers.scans import fill, rows, scan
from overpaint.data.sources import Place, Stamp
from overpaint.scan import results
from overpaint.scan.results import Results
from overpaint.scan.rows import describe_place, make_error_row

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_detector(tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize("options", [[], ["--by-content"]], ids=["by state", "by content"])
def test_a_restored_file_has_the_verdict_of_its_own_content(
    model: Path, tmp_path: Path, options: list[str]
) -> None:
    first, second = fill(tmp_path / "kept", 2)
    os.utime(first, ns=(10**18, 10**18))
    photo, out = tmp_path / "photos" / "a.png", tmp_path / "out"
    photo.parent.mkdir()
    for source in (first, second, first, first):  # the last: nothing to do
        shutil.copy2(source, photo)
        assert scan(model, photo, "-o", out, *options).exit_code == 0
    one, other, restored = rows(out)
    assert one["sha256"] == restored["sha256"] != other["sha256"]
    assert one["score"] == restored["score"] != other["score"]
    assert one["modified"] == restored["modified"]
    assert restored["same_as"], "copied, and not examined again"
    assert rows(out, "photos") == [restored]


def make_row(place: Place, stamp: Stamp, sha256: str) -> dict[str, object]:
    return {**describe_place(place, stamp), "sha256": sha256}


@pytest.mark.parametrize("retry", [False, True])
def test_a_file_that_failed_in_between_is_done_by_its_newest_row(
    tmp_path: Path, retry: bool
) -> None:
    place, good, bad = Place("a.png", "", "a.png"), Stamp(1, "1"), Stamp(2, "2")
    with Results(tmp_path / "out", retry=retry) as opened:
        opened.use({})
        opened.add(make_row(place, good, "aa"))
        assert opened.is_done(place, good)
        opened.add(make_error_row(place, bad, "no photo"))
        assert not opened.is_done(place, good)
        assert opened.is_done(place, bad) is not retry
    with Results(tmp_path / "out", retry=retry) as opened:
        assert not opened.is_done(place, good)
        assert opened.is_done(place, bad) is not retry
        assert opened.num_done == (0 if retry else 1)


def test_the_newest_row_counts_after_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, now = Place("a.png", "", "a.png"), time.time_ns()
    for i, nanoseconds in enumerate((now, now - 10**15, now - 2 * 10**15)):
        monkeypatch.setattr(results.time, "time_ns", lambda at=nanoseconds: at)
        with Results(tmp_path / "out") as opened:
            opened.use({})
            opened.add(make_row(place, Stamp(i, str(i)), f"a{i}"))
            opened.add(make_row(place, Stamp(i, f"{i} again"), f"b{i}"))
    assert [row["sha256"] for row in rows(tmp_path / "out")] == ["a0", "b0", "a1", "b1", "a2", "b2"]
    (newest,) = rows(tmp_path / "out", "photos")
    assert newest["sha256"] == "b2"
    with Results(tmp_path / "out") as opened:
        assert opened.is_done(place, Stamp(2, "2 again"))
        assert not opened.is_done(place, Stamp(2, "2"))


def test_identical_files_are_found_in_every_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "SHARD_ROWS", 3)
    places = [Place(f"{i}.png", "", f"{i}.png") for i in range(8)]
    with Results(tmp_path / "out") as opened:
        opened.use({})
        for i, place in enumerate(places):
            opened.add({**make_row(place, Stamp(i, str(i)), f"{i:064x}"), "score": i / 10})
    with Results(tmp_path / "out") as opened:
        assert opened.num_done == 8
        for i in range(8):
            same = opened.find_same(Place("copy.png", "", "copy.png"), Stamp(1, "c"), f"{i:064x}")
            assert same is not None
            assert (same["path"], same["same_as"]) == ("copy.png", f"{i}.png")
            assert same["score"] == i / 10


def test_the_index_takes_no_more_memory_than_is_stated(tmp_path: Path) -> None:
    num = 20_000
    with Results(tmp_path / "out") as opened:
        tracemalloc.start()
        for i in range(num):
            place, stamp = Place(f"/photos/{i:09}.jpg", "", ""), Stamp(i, str(10**18 + i))
            opened._index_row(
                {"same_as": None, "error": None, **make_row(place, stamp, f"{i:064x}")}, i
            )
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert taken / num < 300
