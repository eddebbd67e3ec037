"""`overpaint detect` with several models: rows, records, pictures, exit codes."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from helpers.bright_detectors import calibration, registered, save, two_tone
from overpaint.cli import build
from overpaint.images import write_png

STEEP = calibration(threshold=1, slope=2, intercept=-2)


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of imported weights, with two calibrated detectors; photos where we are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    write_png("p.png", two_tone())
    write_png("q.png", two_tone()[:, ::-1])
    with registered(tmp_path) as folder:
        save(folder, "a", gain=20, fitted=calibration())
        save(folder, "b", gain=10, fitted=STEEP)
        yield folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build(), ["detect", *map(str, arguments)])


def records(result: Result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def rows(result: Result) -> list[list[str]]:
    """The cells of the table's rows; they start with a blank and are at least two apart.

    A line of notes has one cell alone.
    """
    lines = [line for line in result.stdout.splitlines() if line.startswith("  ") and line.strip()]
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[1:]]
    return [row for row in cells if len(row) > 1]


def test_one_record_with_one_for_each_detector(imported: Path) -> None:
    result = run("p.png", "--model", "all", "--json")
    assert result.exit_code == 0
    (record,) = records(result)
    assert record["model"] == "fused"
    assert record["fused"] == [d["model"] for d in record["detectors"]] == ["a", "b"]
    assert record["fusion"].startswith("fused: mean of a, b, each calibrated")
    assert record["score"] == pytest.approx((0.952574 + 0.982014) / 2, abs=1e-6)
    assert record["disagreement_q99"] == pytest.approx(0.050609, abs=1e-5)
    assert (record["weights_sha256"], record["false_alarm_rate"]) == (None, None)
    assert record["calibration_sha256"] is None  # each detector has its own
    for found in record["detectors"]:
        assert found["band"] == "strong trace"
        assert found["false_alarm_rate"] == 0.01
        assert found["calibrated"] is True
        assert found["sha256"] == record["sha256"]
        assert len(found["weights_sha256"]) == len(found["calibration_sha256"]) == 64
        assert "heatmap" not in found
    assert json.loads(Path("overpaint-results/p.json").read_text()) == record


def test_pictures_are_those_of_the_mean(imported: Path) -> None:
    (record,) = records(run("p.png", "--model", "a", "--model", "b", "--json"))
    names = {f"p.{kind}.png" for kind in ("heatmap", "mask", "overlay", "disagreement")}
    assert {path.name for path in Path("overpaint-results").iterdir()} == names | {"p.json"}
    heat, differ = (np.asarray(Image.open(record[k])) for k in ("heatmap", "disagreement"))
    assert heat.dtype == differ.dtype == np.uint16
    # 65535 times the mean and half the difference of 0.880797 and 0.982014
    assert abs(int(heat[0, 0]) - 61040) <= 1
    assert abs(int(differ[0, 0]) - 3317) <= 1


def test_the_table_has_a_row_for_each_and_one_for_the_mean(imported: Path) -> None:
    result = run("p.png", "q.png", "--model", "all")
    assert result.exit_code == 0
    table = rows(result)
    assert [row[:2] for row in table if row[0] in ("p.png", "q.png")] == [
        ["p.png", "a"],
        ["q.png", "a"],
    ]
    assert [row[-3] if len(row) > 3 else row[0] for row in table] == ["a", "b", "fused"] * 2
    assert [row[-1] for row in table] == ["0.95", "0.98", "0.97"] * 2
    assert "note 1 (2 photos): other edits (blur, noise reduction, rotation" in result.stdout
    assert table[2][1].startswith("2 detectors: 2 strong trace; fused: 50 % of the photo, 1 region")
    for line in (
        "a: threshold 0.982 for lossless: false-alarm rate 1 %",
        "b: threshold 0.73 for lossless: false-alarm rate 1 %",
        "fused: mean of a, b, each calibrated so that 0.5 is its own default threshold",
        "threshold 0.50 of the fused heatmap: the mean has no calibration of its own",
    ):
        assert line in result.stdout.replace("\n", " ")


def test_one_that_fails_has_a_row_and_exit_code_1(imported: Path) -> None:
    save(imported, "broken", "fails")
    result = run("p.png", "--model", "all", "--json")
    assert result.exit_code == 1
    (record,) = records(result)
    assert record["fused"] == ["a", "b"]
    errors = {d["model"]: d.get("error") for d in record["detectors"]}
    assert errors.pop("broken") == "not enough memory: you tried to allocate 9 GB"
    assert errors == {"a": None, "b": None}
    assert "1 of 1 not by every detector" in result.stderr
    table = run("p.png", "--model", "all")
    assert table.exit_code == 1
    assert "could not be examined: not enough memory" in table.stdout


def test_a_photo_that_none_can_examine_is_one_error(imported: Path) -> None:
    save(imported, "broken", "fails")
    Path("bad.jpg").write_bytes(b"no photo")
    result = run("p.png", "bad.jpg", "--model", "broken", "--model", "fails-too", "--json")
    assert result.exit_code == 2  # no such weights
    save(imported, "fails-too", "fails", gain=3)
    result = run("p.png", "bad.jpg", "--model", "broken", "--model", "fails-too", "--json")
    assert result.exit_code == 1
    one, other = records(result)
    assert "broken: not enough memory" in one["error"]
    assert "fails-too: not enough memory" in one["error"]
    assert "bad.jpg" in other["error"]
    assert (one["model"], other["model"]) == ("fused", "fused")
    for name, record in (("p", one), ("bad", other)):
        assert json.loads(Path(f"overpaint-results/{name}.json").read_text()) == record
    assert len(list(Path("overpaint-results").iterdir())) == 2


def test_uncalibrated_scores_are_marked(imported: Path) -> None:
    save(imported, "raw", gain=10.5)
    result = run("p.png", "--model", "raw")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "uncalibrated, no verdict (these weights have no calibration" in text
    assert "0.96*" in text  # sigmoid(10.5 * 0.3)
    assert "* uncalibrated: " in text
    assert "threshold 0.50 of the uncalibrated heatmap: false-alarm rate unknown" in text
    (record,) = records(run("p.png", "--model", "raw", "--json"))
    assert (record["calibrated"], record["threshold"]) == (False, 0.5)
    table = run("p.png", "--model", "all").stdout
    assert "left out, as uncalibrated: raw" in " ".join(table.split())
    (record,) = records(run("p.png", "--model", "all", "--json"))
    assert record["fused"] == ["a", "b"]
    assert [d["calibrated"] for d in record["detectors"]] == [True, True, False]


def test_folders_of_weights(imported: Path, tmp_path: Path) -> None:
    save(tmp_path / "run", "c", gain=4, fitted=calibration())
    arguments = ("p.png", "--json", "--weights-dir", tmp_path / "run")
    (record,) = records(run(*arguments, "--model", "all"))
    assert record["fused"] == ["a", "b", "c"]
    (record,) = records(run(*arguments, "--model", "c"))
    assert record["model"] == "c"
    assert "detectors" not in record


def test_weights_without_a_record_are_told_and_the_others_used(
    imported: Path, tmp_path: Path
) -> None:
    save(tmp_path / "run", "c", gain=4, fitted=calibration())
    (tmp_path / "run" / "foreign.safetensors").write_bytes(b"of another program")
    (imported / "broken.safetensors").write_bytes(b"")
    (imported / "broken.json").write_text("{")
    arguments = ("p.png", "--json", "--weights-dir", tmp_path / "run")
    result = run(*arguments, "--model", "all")
    (record,) = records(result)
    assert (record["fused"], result.exit_code) == (["a", "b", "c"], 1)
    first, *_, last = result.stderr.splitlines()
    assert f"{imported / 'broken.json'}: not a record of weights" in first
    assert result.stderr.count("foreign.safetensors: cannot read") == 1
    assert last == "2 of the weights here could not be used"
    assert run(*arguments, "--model", "c").exit_code == 0  # the others are not asked for
    result = run(*arguments, "--model", "d")
    assert result.exit_code == 2
    assert "d: there are no such weights here; use weights that are here (a, b, c)" in result.stderr


def test_weights_of_one_name_are_told_apart(imported: Path, tmp_path: Path) -> None:
    ours = save(tmp_path / "run", "a", gain=4, fitted=calibration())
    (record,) = records(run("p.png", "--model", "a", "--model", ours.path, "--json"))
    names = [d["model"] for d in record["detectors"]]
    assert names == [f"a-{d['weights_sha256'][:8]}" for d in record["detectors"]]
    assert len(set(names)) == 2


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--model", "judge"], "overpaint weights import judge net.pth"),
        (["--model", "fails"], "train it"),
        (["--model", "a", "--model", "nothing"], "nothing: there are no such weights"),
        (["--model", "all", "--weights-dir", "nowhere"], "no such folder"),
    ],
)
def test_wrong_use(imported: Path, arguments: list[str], why: str) -> None:
    result = run("p.png", *arguments)
    assert result.exit_code == 2
    assert why in result.stderr
    assert not Path("overpaint-results").exists()


def test_results_are_neither_examined_nor_written_over_inputs(imported: Path) -> None:
    assert run(".", "--model", "all", "--out", ".").exit_code == 0
    again = run(".", "--model", "all", "--out", ".", "--json")
    assert [r["file"] for r in records(again)] == ["p.png", "q.png"]
    assert "8 written by overpaint" in again.stderr
    before = Path("p.disagreement.png").read_bytes()
    named = run("p.png", "p.disagreement.png", "--model", "all", "--out", ".", "--json")
    assert Path(records(named)[0]["disagreement"]).name.startswith("p-")
    assert Path("p.disagreement.png").read_bytes() == before
