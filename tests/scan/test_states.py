"""Which rows of a scan count: of files that change and come back, and of sources that failed."""

import hashlib
import os
import shutil
import time
import tracemalloc
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.random_weights import save_small_detector
from helpers.scans import fill, rows, scan
from overpaint.data.sources import Place, Stamp, _file_system, read_place, read_stamp
from overpaint.scan import results, scanning
from overpaint.scan.reading import summarise
from overpaint.scan.results import Results
from overpaint.scan.rows import PhotoRow, describe_place, make_error_row

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_detector(tmp_path_factory.mktemp("weights"))


@pytest.mark.slow
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


class HashingEngine:
    """An engine whose rows have no more than the SHA-256 of the file."""

    threshold: float | None = None
    about: PhotoRow = dict.fromkeys(("model", "weights_sha256", "calibration_sha256"), "none")
    words = "hashes"

    def __enter__(self) -> "HashingEngine":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, places: Iterable[Place], *_: object) -> Iterator[PhotoRow]:
        for place in places:
            yield make_row(place, read_stamp(place), hashlib.sha256(read_place(place)).hexdigest())


def make_row(place: Place, stamp: Stamp, sha256: str) -> PhotoRow:
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
                {
                    **dict.fromkeys(("same_as", "error", "source")),
                    **make_row(place, stamp, f"{i:064x}"),
                },
                i,
            )
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert taken / num < 300


def hash_photos(out: Path, *sources: Path | str) -> tuple[set[str], dict[str, str]]:
    """Scan without a network; the names of the photos, and the error of each other path."""
    _file_system.cache_clear()  # each scan has a process of its own
    scanning.scan(sources, out, HashingEngine())
    found = rows(out, "photos")
    assert summarise(out).num_errors == sum(row["error"] is not None for row in found)
    errors = {Path(row["path"]).name: row["error"] for row in found if row["error"]}
    return {Path(row["path"]).name for row in found if not row["error"]}, errors


def test_the_error_of_a_source_ends_when_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (photo,) = fill(tmp_path / "photos", 1)
    (tmp_path / "empty").mkdir()
    Path("box.zip").write_bytes(b"cut short")
    Path("list.txt").write_text("photos", encoding="utf-16")
    sources = [tmp_path / "empty", "box.zip", "list.txt", "*.png", "gone"]
    photos, errors = hash_photos(tmp_path / "out", *sources)
    assert not photos
    assert set(errors) == {"empty", "box.zip", "list.txt", "*.png", "gone"}
    assert hash_photos(tmp_path / "out", *sources) == (photos, errors)
    assert len(rows(tmp_path / "out")) == 5, "no row is written twice"

    shutil.copy(photo, tmp_path / "empty" / "new.png")
    with zipfile.ZipFile("box.zip", "w") as box:
        box.write(photo, "in.zip.png")
    Path("list.txt").write_text("photos")
    shutil.copy(photo, "top.png")
    photos, errors = hash_photos(tmp_path / "out", *sources)
    assert photos == {"new.png", "box.zip::in.zip.png", "000.png", "top.png"}
    assert set(errors) == {"gone"}
    num = len(rows(tmp_path / "out"))
    assert hash_photos(tmp_path / "out", *sources) == (photos, errors)
    assert len(rows(tmp_path / "out")) == num, "no row is written twice"

    Path("box.zip").write_bytes(b"cut short again")
    assert set(hash_photos(tmp_path / "out", *sources)[1]) == {"gone", "box.zip"}


def test_the_error_of_a_source_stays_until_it_is_named_again(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    fill(photos, 1)
    (photos / "box.zip").write_bytes(b"cut short")
    (photos / "empty").mkdir()
    (tmp_path / "list.txt").write_text("photos/gone.png\n")
    out, failed = tmp_path / "out", {"box.zip", "empty", "gone.png"}
    hash_photos(out, photos / "box.zip", photos / "empty", tmp_path / "list.txt")
    # The search of the folder above meets no error: it does not look into archives, passes over
    # empty folders, and does not know of the list.
    assert set(hash_photos(out, photos)[1]) == failed
    fill(photos / "empty", 1)
    assert set(hash_photos(out, photos)[1]) == failed
    assert set(hash_photos(out, photos / "empty")[1]) == failed - {"empty"}


@pytest.mark.parametrize("again", ["photos", "photos/locked"])
def test_the_error_of_a_folder_in_a_source_ends_when_either_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    locked = tmp_path / "photos" / "locked"
    fill(locked.parent, 1)
    fill(locked / "below", 2)
    list_folder = os.scandir

    def refuse(path: str) -> Any:
        if path == str(locked):
            raise PermissionError(13, "Permission denied")
        return list_folder(path)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        for _ in range(2):
            photos, errors = hash_photos(out, tmp_path / "photos")
            assert (photos, set(errors)) == ({"000.png"}, {"locked"})
        (row,) = [row for row in rows(out) if row["error"]]
        assert row["source"] == str(tmp_path / "photos")
        # Not searched: what is above it failed.
        (tmp_path / "photos").rename(tmp_path / "moved")
        assert set(hash_photos(out, tmp_path / "photos")[1]) == {"locked", "photos"}
        (tmp_path / "moved").rename(tmp_path / "photos")
    assert hash_photos(out, tmp_path / again)[1].keys() <= {"photos"}
    assert hash_photos(out, tmp_path / "photos") == ({"000.png", "001.png"}, {})


def test_a_source_that_becomes_a_photo_has_the_row_of_the_photo(tmp_path: Path) -> None:
    photo, out = tmp_path / "a.png", tmp_path / "out"
    assert set(hash_photos(out, photo)[1]) == {"a.png"}
    shutil.copy(fill(tmp_path / "kept", 1)[0], photo)
    assert hash_photos(out, photo) == ({"a.png"}, {})
    assert len(rows(out)) == 2
