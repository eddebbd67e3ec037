"""A scan: its rows, what it does again and what not, and how it ends."""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import Result

from conftest import textured
from helpers.random_weights import save_small_detector
from helpers.scans import fill, rows, run, scan
from overpaint.data.sources import Place, Stamp
from overpaint.detection.report import make_record
from overpaint.detection.runner import DetectorRunner
from overpaint.errors import ScanError
from overpaint.images import read_image
from overpaint.scan import results
from overpaint.scan.detector import DetectorSettings
from overpaint.scan.local_engine import LocalEngine, _Photo, _Run
from overpaint.scan.reading import summarise
from overpaint.scan.rows import make_error_row
from overpaint.scan.scanning import _sample

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")

SRC = Path(__file__).parents[2] / "src"
HOSTILE = "<img src=x onerror=alert(1)>\u202e&\"'.png"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_detector(tmp_path_factory.mktemp("weights"))


def name(path: str) -> str:
    """Of the file, also where it is in an archive."""
    return Path(path.replace("::", "/")).name


@pytest.fixture(scope="module")
def scanned(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The folder of a scan of many kinds of sources: photos/, box.zip, box.tar, results/."""
    here = tmp_path_factory.mktemp("scanned")
    paths = fill(here / "photos", 4)
    shutil.copy(paths[0], here / "photos" / "copy.png")
    Image.fromarray(textured(140, 150, seed=50)).save(here / "photos" / "5.jpg", quality=80)
    shutil.copy(here / "photos" / "5.jpg", here / "photos" / HOSTILE)
    (here / "photos" / "bad.jpg").write_bytes(b"\xff\xd8\xff" + b"no photo" * 40)
    with zipfile.ZipFile(here / "box.zip", "w") as box:
        box.write(paths[1], "in.zip.png")
    other = here / "other.png"
    Image.fromarray(textured(150, 140, seed=51)).save(other)
    with tarfile.open(here / "box.tar", "w") as box:
        box.add(other, "in.tar.png")
    (here / "list.txt").write_text("other.png\ngone.png\n")
    sources = [here / name for name in ("photos", "box.zip", "box.tar", "list.txt")]
    return here, scan(model, *sources, "-o", here / "results")


@pytest.mark.slow
def test_every_photo_has_one_row_and_a_bad_file_an_error(scanned: tuple[Path, Result]) -> None:
    here, result = scanned
    assert result.exit_code == 1, result.output
    found = {name(row["path"]): row for row in rows(here / "results")}
    assert len(rows(here / "results")) == len(found) == 12
    failed = {one for one, row in found.items() if row["error"]}
    assert failed == {"bad.jpg", "gone.png"}
    assert found["bad.jpg"]["sha256"]
    assert found["bad.jpg"]["bytes"] == 323
    assert "no such file" in found["gone.png"]["error"]
    same = {one: name(row["same_as"]) for one, row in found.items() if row["same_as"]}
    # The first of two identical files to be read is examined.
    assert {frozenset(pair) for pair in same.items()} == {
        frozenset(("000.png", "copy.png")),
        frozenset(("5.jpg", HOSTILE)),
        frozenset(("001.png", "in.zip.png")),
        frozenset(("other.png", "in.tar.png")),
    }
    assert "2  could not be examined" in result.stdout


def test_the_figures_are_those_of_detect(scanned: tuple[Path, Result], model: Path) -> None:
    here, _ = scanned
    runner = DetectorRunner(model)
    compared = 0
    for row in rows(here / "results"):
        if row["error"] or "::" in row["path"]:
            continue
        expected = make_record(runner.run(read_image(row["path"])))
        for column in set(expected) & set(row) - {"path", "seconds", "score", "fraction"}:
            assert row[column] == expected[column], column
        assert row["score"] == pytest.approx(expected["score"], abs=1e-5)
        assert row["fraction"] == pytest.approx(expected["fraction"], abs=1e-3)
        assert row["verdict"] == expected["words"]
        assert row["runtime"] == f"torch {torch.__version__}, fp32, cpu"
        assert row["calibration_sha256"] == runner.calibration_sha256
        compared += 1
    assert compared == 8


def test_the_heatmap_is_small_and_grey(scanned: tuple[Path, Result], model: Path) -> None:
    here, _ = scanned
    row = next(row for row in rows(here / "results") if row["path"].endswith("003.png"))
    small = Image.open(io.BytesIO(row["heatmap"]))
    assert (small.format, small.mode, max(small.size)) == ("PNG", "L", 96)
    full = DetectorRunner(model).run(read_image(row["path"])).heatmap
    assert np.asarray(small).mean() / 255 == pytest.approx(full.mean(), abs=0.005)


@pytest.mark.slow
def test_what_is_done_is_not_done_again(
    scanned: tuple[Path, Result], model: Path, tmp_path: Path
) -> None:
    here, _ = scanned
    shutil.copytree(here / "results", tmp_path / "out")
    out, photos = tmp_path / "out", here / "photos"
    before = rows(out)
    result = scan(model, photos, here / "box.zip", here / "list.txt", "-o", out)
    assert result.exit_code == 0, result.output
    assert rows(out) == before
    assert "0 photos in" in result.stdout
    assert "10 were done before" in result.stdout
    # A new time of change: read again, and known by its content, so without the network.
    os.utime(photos / "000.png", ns=(1, 1))
    Image.fromarray(textured(130, 133, seed=99)).save(photos / "new.png")
    result = scan(model, photos, "--retry", "-o", out)
    assert result.exit_code == 1, result.output
    added = [row for row in rows(out) if row not in before]
    assert {Path(row["path"]).name for row in added} == {"000.png", "new.png", "bad.jpg"}
    touched = next(row for row in added if row["path"].endswith("000.png"))
    assert touched["same_as"]
    assert touched["modified"] == "1"
    newest = {Path(row["path"]).name: row for row in rows(out, "photos")}
    assert len(newest) == 13
    assert newest["000.png"] == touched
    # By content: touched or not, it is read, and no row is added.
    os.utime(photos / "001.png", ns=(2, 2))
    result = scan(model, photos, "--by-content", "--limit", 3, "-o", out)
    assert len(rows(out)) == len(before) + 3


def test_a_shard_that_cannot_be_written_does_not_keep_the_folder_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ScanError("no room")

    opened = results.Results(tmp_path / "out")
    opened.use({})
    opened.add(make_error_row(Place("a.png", "", "a.png"), Stamp(), "no photo"))
    with monkeypatch.context() as patch:
        patch.setattr(results, "_write_shard", refuse)
        with pytest.raises(ScanError, match="no room"):
            opened.close()
    with results.Results(tmp_path / "out") as again:
        assert again.num_done == 1


@pytest.mark.slow
def test_results_of_other_weights_are_not_mixed(
    scanned: tuple[Path, Result], model: Path, tmp_path: Path
) -> None:
    here, _ = scanned
    out = tmp_path / "out"
    shutil.copytree(here / "results", out)
    fill(tmp_path / "photos", 1)
    result = scan(model, tmp_path / "photos", "-o", out, "--threshold", 0.3)
    assert result.exit_code == 2
    assert "made with threshold None, not 0.3" in result.output
    assert len(rows(out)) == 12
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("mine")
    result = scan(model, tmp_path / "photos", "-o", tmp_path / "mine")
    assert result.exit_code == 2
    assert "holds other files" in result.output
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    result = scan(model.with_name("none.json"), tmp_path / "photos", "-o", tmp_path / "new")
    assert result.exit_code == 2
    assert "none.json" in result.output


def test_summary_and_query(scanned: tuple[Path, Result]) -> None:
    here, _ = scanned
    out = here / "results"
    found = json.loads(run("summary", out, "--json").stdout)
    assert (found["photos"], found["looked_at"], found["num_errors"]) == (12, 6, 2)
    assert sum(found["bands"].values()) == 10
    assert "12 photos, 6 examined, 4 identical" in run("summary", out).stdout
    sql = "SELECT path, score, heatmap, examined FROM photos WHERE error IS NULL ORDER BY score"
    lines = [json.loads(line) for line in run("query", out, sql, "--json").stdout.splitlines()]
    assert [line["score"] for line in lines] == sorted(line["score"] for line in lines)
    assert len(lines) == 10
    table = run("query", out, "SELECT path FROM photos WHERE contains(path, 'img')").stdout
    assert "\\u202e" in table
    assert "\u202e" not in table
    for sql, words in {
        "SELECT nothing FROM photos": "nothing",
        f"COPY photos TO '{here / 'x.csv'}'": "disabled",
        "SELECT * FROM read_text('/etc/hostname')": "disabled",
    }.items():
        result = run("query", out, sql)
        assert result.exit_code == 2
        assert words in result.output
    result = run("summary", here / "photos")
    assert result.exit_code == 2
    assert "no results of `overpaint scan`" in result.output


def test_an_error_names_the_file_of_its_row(tmp_path: Path) -> None:
    names = ["/photos/a.jpg", "/photos/a.jpg.jpg", os.fsdecode(b"/photos/\xff.jpg")]
    photos = [_Photo(Place(one, "", one), Stamp(1, "1"), "ab" * 32) for one in names]
    with results.Results(tmp_path / "out") as opened:
        opened.use({})
        run_ = _Run(LocalEngine(DetectorSettings("none"), networks=1), [], opened)
        # The second and third come while the first is in work.
        assert [run_._look_up(photo, "ab" * 32) for photo in photos] == [
            ([], True),
            *([([], False)] * 2),
        ]
        first = photos[0]
        failed = make_error_row(first.place, first.stamp, f"{names[0]}: damaged", first.sha256)
        for row in run_._settle(first, failed):
            opened.add(row)
    found = rows(tmp_path / "out")
    assert len(found) == 3
    for row in found:
        assert row["error"] == f"{row['path']}: damaged"
    assert summarise(tmp_path / "out").errors == {"PATH: damaged": 3}


@pytest.mark.slow
def test_reasons_of_relative_sources_and_lines_are_counted_together(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("gone1.png\ngone2.png\ngone3.png\n")
    result = scan(model, "gone4.png", "../gone5.png", "list.txt", "-o", "out")
    assert result.exit_code == 1, result.output
    reasons = summarise("out").errors
    assert list(reasons.values()) == [3, 2]
    assert all(reason.startswith("PATH: no such file") for reason in reasons)
    assert rows(tmp_path / "out")[-1]["error"].startswith(str(tmp_path / "gone4.png"))


def test_the_gallery_holds_the_highest_scores_and_no_live_names(
    scanned: tuple[Path, Result], tmp_path: Path
) -> None:
    here, _ = scanned
    page = tmp_path / "hits.html"
    result = run("gallery", here / "results", "-o", page, "--top", 9)
    assert result.exit_code == 0, result.output
    text = page.read_text(encoding="utf-8")
    assert text.count("<li ") == text.count("<img ") == 9
    assert "<img src=x" not in text
    assert "\u202e" not in text
    scores = [part.split('"')[0] for part in text.split('data-score="')[1:]]
    assert scores == sorted(scores, reverse=True)
    assert "http" not in text.replace("http-equiv", "")
    assert run("gallery", here / "results", "-o", page).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert "&lt;img src=x onerror=alert(1)&gt;\\u202e&amp;&quot;&#x27;.png" in text


def test_the_gallery_replaces_no_other_file(scanned: tuple[Path, Result], tmp_path: Path) -> None:
    page = tmp_path / "notes.html"
    page.write_text("<!doctype html><p>notes")
    result = run("gallery", scanned[0] / "results", "-o", page)
    assert result.exit_code == 2
    assert "notes.html: exists and is no page" in result.output
    assert page.read_text() == "<!doctype html><p>notes"


def test_a_sample_is_the_same_until_photos_are_added_or_removed() -> None:
    def place(name: str) -> Place:
        return Place(f"/photos/{name}.jpg", "", f"/photos/{name}.jpg")

    places, added = [[place(f"{kind}{i}") for i in range(100)] for kind in ("", "added")]
    sample = _sample(places, 10)
    assert len(set(sample)) == 10
    assert sample == [one for one in places if one in sample], "in their order"
    assert set(_sample(places[::-1], 10)) == set(sample)
    grown = set(_sample(places + added, 10))
    assert len(grown) == 10
    assert grown - set(sample) <= set(added)
    assert grown & set(sample)
    assert grown & set(added)
    shrunk = set(_sample([one for one in places if one != sample[0]], 10))
    assert len(shrunk) == 10
    assert set(sample) - shrunk == {sample[0]}


@pytest.mark.slow
def test_limit_sample_and_since(model: Path, tmp_path: Path) -> None:
    paths = fill(tmp_path / "photos", 8)
    for i, path in enumerate(paths):
        os.utime(path, (0, 86400 * i))
    out = tmp_path / "out"
    result = scan(model, tmp_path / "photos", "-o", out, "--since", "1970-01-05", "--limit", 2)
    assert result.exit_code == 0, result.output
    names = [Path(row["path"]).stem for row in rows(out)]
    assert names in (["003", "004"], ["004", "005"])  # by the time zone
    scan(model, tmp_path / "photos", "-o", tmp_path / "some", "--sample", 3)
    chosen = {row["path"] for row in rows(tmp_path / "some")}
    scan(model, tmp_path / "photos", "-o", tmp_path / "some", "--sample", 3)
    assert {row["path"] for row in rows(tmp_path / "some")} == chosen
    assert len(chosen) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "package"), [("onnx", "onnxruntime"), ("openvino",) * 2])
def test_other_runtimes_say_the_same(
    scanned: tuple[Path, Result],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runtime: str,
    package: str,
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip(package, reason=f"the extra {runtime} is not installed")
    monkeypatch.setenv("OVERPAINT_CACHE", str(tmp_path / "cache"))
    here, _ = scanned
    expected = {row["path"]: row for row in rows(here / "results")}
    photos, out = here / "photos" / "00[0-2].png", tmp_path / "out"
    result = scan(model, photos, "-o", out, "--runtime", runtime, "--memory", 4)
    assert result.exit_code == 0, result.output
    found = rows(out)
    assert len(found) == 3
    for row in found:
        assert row["runtime"].startswith(f"{package} ")
        there = expected[row["path"]]
        assert row["score"] == pytest.approx(there["score"], abs=1e-4)
        assert (row["band"], row["sha256"]) == (there["band"], there["sha256"])
    assert len(list((tmp_path / "cache").glob("*.onnx"))) == 1


def start(model: Path, photos: Path, out: Path) -> subprocess.Popen[bytes]:
    arguments = ["--model", model, "--workers", 1, "--threads", 1, "-o", out]
    return subprocess.Popen(
        [sys.executable, "-m", "overpaint", "scan", photos, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def num_rows(out: Path) -> int:
    """Whole lines of journals; of a run without a full shard."""
    with contextlib.suppress(OSError):
        return sum(path.read_bytes().count(b"\n") for path in out.glob("part-*.journal"))
    return 0


def wait_for_rows(process: subprocess.Popen[bytes], out: Path, num: int) -> None:
    until = time.monotonic() + 120
    while num_rows(out) < num and process.poll() is None:
        assert time.monotonic() < until, "no rows"
        time.sleep(0.01)


def children(process: subprocess.Popen[bytes]) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_killed_at_random_and_resumed(model: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    # So many that a quick machine is not done with them when the kill comes.
    paths = fill(tmp_path / "photos", 200)
    shutil.copy(paths[3], tmp_path / "photos" / "copy.png")
    out = tmp_path / "out"
    rng, seen = random.Random(5), 0
    for num in (1, 6, 12):
        process = start(model, tmp_path / "photos", out)
        wait_for_rows(process, out, num)
        time.sleep(rng.uniform(0, 0.05))
        theirs = children(process)
        process.kill()
        process.communicate()
        assert len(rows(out)) > seen, "readable after the kill, with what was done"
        seen = len(rows(out))
        until = time.monotonic() + 30
        while any(map(alive, theirs)):
            assert time.monotonic() < until, "a process outlived its coordinator"
            time.sleep(0.05)
    # A kill may come in the middle of a line.
    with next(iter(out.glob("*.journal"))).open("ab") as file:
        file.write(b'{"path": "/half')
    result = scan(model, tmp_path / "photos", "-o", out)
    assert result.exit_code == 0, result.output
    counts = Counter(row["path"] for row in rows(out))
    assert set(counts) == {str(path) for path in (tmp_path / "photos").iterdir()}
    assert set(counts.values()) == {1}
    for shard in out.glob("part-*.parquet"):
        assert pyarrow.parquet.read_table(shard).num_rows
    assert {path.name for path in out.iterdir()} == {
        *(f"part-{i:06}.parquet" for i in range(4)),
        *("scan.json", ".lock"),
    }


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_finishes_the_photos_in_work(model: Path, tmp_path: Path, number: int) -> None:
    fill(tmp_path / "photos", 40, side=200)
    out = tmp_path / "out"
    process = start(model, tmp_path / "photos", out)
    wait_for_rows(process, out, 2)
    os.killpg(process.pid, number)  # as a terminal and a service manager do: to all of them
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert b"the same command goes on from there" in said
    assert 2 <= len(rows(out)) < 40
    assert not any(row["error"] for row in rows(out))
    assert not list(out.glob("*.journal"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_a_network_process_that_dies_costs_one_photo(model: Path, tmp_path: Path) -> None:
    fill(tmp_path / "photos", 40, side=200)
    out = tmp_path / "out"
    process = start(model, tmp_path / "photos", out)
    wait_for_rows(process, out, 2)
    pids = children(process)
    network = next(p for p in pids if "libtorch" in Path(f"/proc/{p}/maps").read_text())
    os.kill(network, signal.SIGSTOP)
    other = start(model, tmp_path / "photos", out)  # one process writes at a time
    _, said = other.communicate(timeout=60)
    assert (other.returncode, b"another scan is writing" in said) == (2, True)
    os.kill(network, signal.SIGKILL)
    process.communicate(timeout=120)
    found = rows(out)
    assert len({row["path"] for row in found}) == len(found) == 40
    (error,) = [row["error"] for row in found if row["error"]]
    assert "the process that had it ended (signal 9)" in error
    assert process.returncode == 1
