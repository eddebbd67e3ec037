"""The command line: detect, models and demo, with what they print, write and return."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from helpers.random_weights import save_random, save_small_detector
from overpaint.cli import build, main
from overpaint.data.finding import find_photos
from overpaint.detection.report import _RAMP, CAVEAT, Writer, choose_names, draw_overlay
from overpaint.hashes import file_sha256
from overpaint.images import Photo, read_image, read_mask, write_jpeg, write_png

KEYS = {
    *("file", "sha256", "width", "height", "score", "band", "fraction", "regions", "threshold"),
    *("false_alarm_rate", "model", "weights_sha256", "version", "seconds"),
    *("heatmap", "mask", "overlay"),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a calibrated NIX-Net and an autoencoder, both with random weights."""
    folder = tmp_path_factory.mktemp("weights")
    save_small_detector(folder)
    save_random(folder, "autoencoder", "conv-autoencoder", {"width": 8}, "ae", licence="Apache-2.0")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (130, 150, 3), dtype=np.uint8)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build(), [str(a) for a in arguments])


def detect(weights: Path, *arguments: object) -> Result:
    return run("detect", *arguments, "--model", weights / "net.json")


def records(result: Result) -> list[dict]:
    """Every line of stdout must be one JSON object."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_good_and_bad_files(weights: Path, here: Path) -> None:
    write_png("good.png", pixels())
    write_jpeg("also.jpg", pixels(1), 92)
    Path("bad.jpg").write_bytes(b"not a photo")
    result = detect(weights, "bad.jpg", "missing.png", "good.png", "also.jpg", "--json")
    assert result.exit_code == 1
    by_file = {record["file"]: record for record in records(result)}
    assert set(by_file) == {"bad.jpg", "missing.png", "good.png", "also.jpg"}
    for name in ("bad.jpg", "missing.png"):
        assert name in by_file[name]["error"]
        assert "score" not in by_file[name]
    for name in ("good.png", "also.jpg"):
        record = by_file[name]
        assert set(record) >= KEYS
        assert record["calibration_sha256"] == file_sha256(weights / "net.calibration.json")
        assert "error" not in record
        assert record["sha256"] == hashlib.sha256(Path(name).read_bytes()).hexdigest()
        assert (record["width"], record["height"]) == (150, 130)
        assert record["false_alarm_rate"] == 0.01
        assert json.loads(Path(f"overpaint-results/{Path(name).stem}.json").read_text()) == record
    assert by_file["also.jpg"]["quality"] == "jpeg>=90"
    assert "2 of 4 could not be examined" in result.stderr


def test_what_is_written(weights: Path, here: Path) -> None:
    write_png("p.png", pixels())
    detect(weights, "p.png", "--out", "a/b")
    with Image.open("a/b/p.heatmap.png") as image:
        assert image.mode.startswith("I;16")
        heat = np.asarray(image)
    level = int(np.median(heat))
    threshold = (level + 0.5) / 65535  # between two levels, so that rounding decides nothing
    result = detect(weights, "p.png", "--json", "--out", "a/b", "--threshold", threshold)
    (record,) = records(result)
    mask = read_mask(record["mask"], size=(130, 150))
    np.testing.assert_array_equal(mask, heat > level)
    assert record["fraction"] == pytest.approx(mask.mean())
    assert 0 < record["fraction"] < 1
    assert read_image(record["overlay"]).pixels.shape == (130, 150, 3)
    assert {p.name for p in Path("a/b").iterdir()} == {
        f"p.{end}" for end in ("heatmap.png", "mask.png", "overlay.png", "json")
    }


def test_a_table_for_people(weights: Path, here: Path) -> None:
    write_png("[red]p.png", pixels())
    result = detect(weights, "[red]p.png")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "[red]p.png" in text
    assert "threshold 0.73 for lossless: false-alarm rate 1 %" in text
    assert CAVEAT in text
    assert result.stderr == ""


def test_the_table_has_the_notes_of_a_photo_and_of_several_once(weights: Path, here: Path) -> None:
    pages = [Image.fromarray(pixels(seed)) for seed in range(3)]
    pages[0].save("pages.tif", save_all=True, append_images=pages[1:])
    for seed in (1, 2):
        write_png(f"grey{seed}.png", pixels(seed)[..., 0])
    text = " ".join(detect(weights, "pages.tif", "grey1.png", "grey2.png").stdout.split())
    assert text.count("note: first of 3 pictures in it, the only one read") == 1
    assert text.count("grey copied to three channels") == 1
    assert "note 1 (2 photos): grey copied to three channels" in text
    assert text.count("below: 1") == 2
    found = records(detect(weights, "grey1.png", "--json"))[0]
    alone = " ".join(detect(weights, "grey1.png").stdout.split())
    assert found["notes"]
    assert all(f"note: {note}" in alone for note in found["notes"])


def test_the_reason_of_an_inconclusive_verdict_is_in_the_table(
    weights: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from overpaint.detection import runner

    write_png("p.png", pixels())
    doubt = runner.AS_AFTER_EDITS.format(rate="1 %")
    judged = ("inconclusive", doubt)
    monkeypatch.setattr(runner, "_decide_verdict", lambda *_: judged)
    text = " ".join(detect(weights, "p.png").stdout.split())
    assert f"note: {doubt}" in text
    assert "note: other edits (blur, noise reduction, rotation, montage) may leave such" in text


def test_with_several_detectors_each_note_is_in_one_row(weights: Path, here: Path) -> None:
    write_png("p.png", pixels()[..., 0])
    text = run("detect", "p.png", *["--model", weights / "net.json"] * 2).stdout
    assert text.count("note: grey copied") == 1


def test_a_threshold_of_ones_own_is_stated_with_its_rate(weights: Path, here: Path) -> None:
    write_png("p.png", pixels())
    (record,) = records(detect(weights, "p.png", "--json", "--threshold", "0.5"))
    assert record["threshold"] == 0.5
    assert record["false_alarm_rate"] == pytest.approx(1 - 199 / 200 * 13 / 14, abs=0.001)
    (record,) = records(detect(weights, "p.png", "--json", "--threshold", "1"))
    assert record["false_alarm_rate"] is None
    assert "none of the 201" in record["false_alarm_note"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["detect"],
        ["detect", "p.png", "--threshold", "1.5"],
        ["detect", "p.png", "--threshold", "high"],
        ["detect", "p.png", "--threshold", "nan"],
        ["detect", "p.png", "--memory", "nan"],
        ["detect", "p.png", "--memory", "inf"],
        ["detect", "p.png", "--memory", "0"],
        ["detect", "p.png", "--no-such-option"],
        ["detect", "p.png", "--model", "no-such-model"],
        ["no-such-command"],
    ],
)
def test_wrong_use_is_exit_code_2(here: Path, arguments: list[str]) -> None:
    write_png("p.png", pixels())
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr
    assert {p.name for p in here.iterdir()} == {"p.png"}


def test_a_share_of_weights_is_finite(here: Path) -> None:
    result = run("weights", "average", "a.safetensors", "inf=nixnet-s")
    assert result.exit_code == 2
    assert "with a finite share" in result.stderr


def test_an_output_folder_that_is_a_file_is_wrong_use(weights: Path, here: Path) -> None:
    write_png("p.png", pixels())
    result = detect(weights, "p.png", "--out", "p.png")
    assert result.exit_code == 2
    assert "p.png" in result.stderr


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="takes files of root elsewhere")
def test_a_folder_that_takes_no_results_is_found_out_before_the_work(
    weights: Path, here: Path
) -> None:
    write_png("p.png", pixels())
    result = detect(weights, "p.png", "--out", "/proc/self")
    assert result.exit_code == 2
    assert "/proc/self: cannot be written into" in result.stderr
    assert result.stdout == ""


def test_folders_globs_and_names_that_collide(weights: Path, here: Path) -> None:
    for seed, name in enumerate(("a/x.png", "a/deep/X.jpg", "b/x.png", "b/y.png")):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        write_png(name, pixels(seed))
    result = detect(weights, "a", "b/*.png", "b/x.png", "--json")
    assert result.exit_code == 0
    found = records(result)
    assert [r["file"] for r in found] == ["a/deep/X.jpg", "a/x.png", "b/x.png", "b/y.png"]
    written = [r[kind] for r in found for kind in ("heatmap", "mask", "overlay")]
    assert len({path.casefold() for path in written}) == 12
    assert all(Path(path).is_file() for path in written)
    assert found[3]["mask"] == "overpaint-results/y.mask.png"
    for r in found[:3]:
        digits = hashlib.sha256(str(Path(r["file"]).resolve()).encode()).hexdigest()[:8]
        assert Path(r["mask"]).name == f"{Path(r['file']).stem}-{digits}.mask.png"
    again = records(detect(weights, "b", "a", "--json"))
    assert sorted(r["mask"] for r in again) == sorted(r["mask"] for r in found)


def test_inputs_are_never_written_over(weights: Path, here: Path) -> None:
    write_png("p.png", pixels(0))
    write_png("p.heatmap.png", pixels(1))
    Path("q.mask.png").symlink_to("q.png")
    write_png("q.png", pixels(2))
    before = {name: Path(name).read_bytes() for name in ("p.png", "p.heatmap.png", "q.png")}
    result = detect(weights, "p.png", "p.heatmap.png", "q.png", "--json", "--out", ".")
    assert result.exit_code == 0
    masks = {r["file"]: r["mask"] for r in records(result)}
    assert masks.pop("p.heatmap.png") == "p.heatmap.mask.png"
    for file, mask in masks.items():
        digits = hashlib.sha256(str(Path(file).resolve()).encode()).hexdigest()[:8]
        assert mask == f"{Path(file).stem}-{digits}.mask.png"
    assert {name: Path(name).read_bytes() for name in before} == before
    assert Path("q.mask.png").is_symlink()
    assert not Path("p.json").exists()


def test_a_second_run_replaces_its_results_and_does_not_examine_them(
    weights: Path, here: Path
) -> None:
    write_png("p.png", pixels())
    first = records(detect(weights, ".", "--json", "--out", "."))
    Path("p.mask.png").rename("saved.png")
    result = detect(weights, ".", "--json", "--out", ".")
    assert [r["file"] for r in records(result)] == [r["file"] for r in first] == ["p.png"]
    assert "4 files passed over: 1 no picture (1 .json), 3 written by overpaint" in result.stderr
    read_mask("p.mask.png", size=(130, 150))
    named = records(detect(weights, "p.mask.png", "--json"))
    assert [r["file"] for r in named] == ["p.mask.png"]


def test_a_photo_that_bursts_the_memory_does_not_stop_the_rest(
    weights: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_png("a.png", pixels())
    write_png("b.png", pixels())

    def write(self: Writer, photo: Photo, found: object) -> dict:
        if photo.path.stem == "a":
            raise MemoryError
        return {"file": photo.path.stem}

    monkeypatch.setattr(Writer, "write", write)
    result = detect(weights, "a.png", "b.png", "--json")
    assert result.exit_code == 1
    assert [r.get("error") for r in records(result)] == ["MemoryError", None]


def test_names_without_collision_stay_as_they_are() -> None:
    assert choose_names([Path("a.jpg"), Path("b/c.d.png")]) == ["a", "c.d"]
    one, other = choose_names([Path("a.jpg"), Path("a.png")])
    assert one != other
    assert one.startswith("a-")
    assert len(one) == len("a-") + 8
    decomposed, composed = choose_names([Path("e\u0301.png"), Path("b/\u00e9.png")])
    assert "-" in decomposed
    assert "-" in composed


def test_the_ramp_gets_lighter_all_the_way() -> None:
    linear = ((_RAMP / 255 + 0.055) / 1.055) ** 2.4
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16
    assert (np.diff(lightness) > 10).all()
    blue_to_yellow = _RAMP[:, :2].mean(axis=1) - _RAMP[:, 2]
    assert (np.diff(blue_to_yellow) > 0).all()


def test_the_overlay_shows_photo_heat_and_outline() -> None:
    heat = np.zeros((60, 80), np.float32)
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:50] = True
    heat[mask] = 1
    out = draw_overlay(np.full((60, 80, 3), 100, np.uint8), heat, mask)
    np.testing.assert_array_equal(out[0, 0], np.rint(50 + _RAMP[0] / 2))
    np.testing.assert_array_equal(out[30, 40], np.rint(50 + _RAMP[-1] / 2))
    np.testing.assert_array_equal(out[[19, 30], [40, 50]], 0)  # black just outside
    np.testing.assert_array_equal(out[[20, 39], [40, 40]], 255)  # white just inside


def test_help_is_shown_without_loading_what_is_slow_to_load() -> None:
    code = (
        "import sys; from overpaint.cli import main; sys.argv = ['overpaint', '--help']\n"
        "try: main()\n"
        "except SystemExit: print(*sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Usage" in shown.stdout
    loaded = {name.partition(".")[0] for name in shown.stdout.splitlines()[-1].split()}
    assert "typer" in loaded
    slow = {"PIL", "cv2", "fsspec", "numpy", "pydantic", "rich", "scipy", "torch"}
    assert not slow & loaded, f"loaded for --help: {sorted(slow & loaded)}"


def test_an_expected_error_is_one_line_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"")
    monkeypatch.setattr(
        sys, "argv", ["overpaint", "weights", "show", str(tmp_path / "x.safetensors")]
    )
    for stream in ("stdout", "stderr"):  # which are given a filter
        monkeypatch.setattr(sys, stream, getattr(sys, stream))
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert ended.value.code == 1
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert "x.json" in err


def test_version() -> None:
    from overpaint import __version__

    assert run("--version").stdout.strip() == __version__


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_models_lists_what_has_a_record_and_tells_the_rest(
    tmp_path: Path, how: tuple[str, ...]
) -> None:
    path = save_small_detector(tmp_path)
    for name in ("a", "z"):
        path.with_name(f"{name}.safetensors").write_bytes(path.read_bytes())
    path.with_name("z.json").write_bytes(path.with_suffix(".json").read_bytes())
    result = run("models", tmp_path, *how)
    assert result.exit_code == 1
    assert str(path) in result.stdout
    first, second, last = result.stderr.splitlines()
    assert "a.json" in first
    assert "z.json: is the record of net.safetensors, not of z.safetensors" in second
    assert last == "2 could not be used; the rest is done"


def test_models_lists_every_record(weights: Path) -> None:
    text = run("models", weights).stdout
    for part in (
        "net\n",
        "ae\n",
        "detector, nixnet",
        "Apache-2.0",
        str(weights / "ae.safetensors"),
    ):
        assert part in text
    lines = records(run("models", weights, "--json"))
    assert [line["name"] for line in lines] == ["ae", "net"]
    for line in lines:
        content = Path(line["path"]).read_bytes()
        assert line["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.slow
def test_demo_prints_what_the_files_say(weights: Path, here: Path) -> None:
    models = ("--model", weights / "net.json", "--autoencoder", weights / "ae.json")
    result = run("demo", *models, "--inpainter", "mean")
    assert result.exit_code == 0, result.output
    out = here / "demo-output"
    truth = read_mask(out / "truth.png").astype(bool)
    assert 0.04 <= truth.mean() <= 0.05
    untouched = read_image(out / "untouched.png").pixels
    for name in ("filled", "redrawn"):
        edited = read_image(out / f"{name}.png").pixels
        assert (edited != untouched).any(axis=2)[truth].mean() > 0.9
        np.testing.assert_array_equal(edited[~truth], untouched[~truth])
        mask = read_mask(out / f"{name}.mask.png").astype(bool)
        iou = (mask & truth).sum() / (mask | truth).sum()
        f1 = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
        assert f"IoU {iou:.2f}, F1 {f1:.2f}" in result.stdout
    assert (out / "filled.png.receipt.json").exists()
    for name in ("filled", "redrawn", "untouched"):
        assert json.loads((out / f"{name}.json").read_text())["words"] in result.stdout
    assert run("demo", *models, "--inpainter", "mean").exit_code == 0  # again, over its own files
    search = find_photos([out])  # what the demo made is there to be looked at
    assert {p.stem for p in search.photos} == {"truth", "filled", "redrawn", "untouched"}


@pytest.mark.parametrize("name", ["truth.png", "filled.png", "redrawn.png", "untouched.png"])
def test_the_demo_replaces_no_file_of_the_users(name: str, weights: Path, here: Path) -> None:
    Path("mine").mkdir()
    write_png(f"mine/{name}", pixels())
    before = Path("mine", name).read_bytes()
    models = ("--model", weights / "net.json", "--autoencoder", weights / "ae.json")
    result = run("demo", *models, "--inpainter", "mean", "--out", "mine")
    assert result.exit_code == 1
    assert f"{name}: " in str(result.exception)
    assert Path("mine", name).read_bytes() == before


@pytest.mark.slow
def test_the_demo_with_the_shipped_weights_finds_the_region(here: Path) -> None:
    result = run("demo")
    assert result.exit_code == 0, result.output
    truth = read_mask("demo-output/truth.png").astype(bool)
    mask = read_mask("demo-output/redrawn.mask.png").astype(bool)
    emblem = truth.copy()
    emblem[:, 270:] = False  # the name tag beside it is missed
    assert (mask & emblem).sum() > 0.9 * emblem.sum()
    assert mask.sum() < 0.1 * mask.size


def test_another_runs_photo_of_one_name_and_other_files_are_kept(weights: Path, here: Path) -> None:
    for seed, folder in enumerate("abc"):
        Path(folder).mkdir()
        write_png(f"{folder}/x.png", pixels(seed))
    detect(weights, "a/x.png", "--out", "r")
    first = {p: p.read_bytes() for p in Path("r").iterdir()}
    (other,) = records(detect(weights, "b/x.png", "--out", "r", "--json"))
    assert Path(other["mask"]).name.startswith("x-")
    assert {p: p.read_bytes() for p in first} == first
    (again,) = records(detect(weights, "b/x.png", "--out", "r", "--json"))
    assert again["mask"] == other["mask"]
    Path("c/x.json").write_text('{"tool": "of the user"}')
    (third,) = records(detect(weights, "c/x.png", "--out", "c", "--json"))
    assert Path(third["mask"]).name.startswith("x-")
    assert Path("c/x.json").read_text() == '{"tool": "of the user"}'


def test_a_failure_takes_the_place_of_what_was_said_before(weights: Path, here: Path) -> None:
    write_png("x.png", pixels())
    detect(weights, "x.png", "--out", "r")
    Path("x.png").write_bytes(b"no photo")
    (failed,) = records(detect(weights, "x.png", "--out", "r", "--json"))
    assert [p.name for p in Path("r").iterdir()] == ["x.json"]
    assert json.loads(Path("r/x.json").read_text()) == failed
    assert "not a photo" in failed["error"]


def test_a_photo_that_is_gone_takes_what_was_said_of_it_with_it(weights: Path, here: Path) -> None:
    write_png("x.png", pixels())
    detect(weights, "x.png", "--out", "r")
    Path("x.png").unlink()
    result = detect(weights, "x.png", "y*.png", "x", "--out", "r", "--json")
    assert result.exit_code == 1
    failed = next(r for r in records(result) if r["file"] == "x.png")
    assert [p.name for p in Path("r").iterdir()] == ["x.json"]  # and none of a glob or a folder
    assert json.loads(Path("r/x.json").read_text()) == failed
    assert "no such file" in failed["error"]


def test_a_bad_line_of_a_list_costs_that_line(weights: Path, here: Path) -> None:
    write_png("x.png", pixels())
    Path("l.txt").write_bytes(b"x.png\nnul\0.png\n\xff\xfe.png\n" + b"n" * 300 + b".png\n")
    result = detect(weights, "l.txt", "--json")
    assert result.exit_code == 1, result.exception
    assert [("error" in r, len(r["file"])) for r in records(result)] == [
        *((True, 8), (True, 6), (True, 304), (False, 5))
    ]
    assert [p.name for p in Path("overpaint-results").glob("*.json")] == ["x.json"]


def test_a_record_that_cannot_be_replaced_is_told(
    weights: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_png("x.png", pixels())
    write_png("y.png", pixels(1))
    detect(weights, "x.png", "--out", "r")
    Path("x.png").write_bytes(b"no photo")
    before = {p: p.read_bytes() for p in Path("r").iterdir()}

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    unlink = Path.unlink
    with monkeypatch.context() as patch:  # what is there is another user's, in a folder for all
        patch.setattr(Path, "unlink", lambda p, **_: refuse() if p in before else unlink(p))
        patch.setattr(Path, "replace", refuse)
        result = detect(weights, "x.png", "y.png", "--out", "r", "--json")
    assert result.exit_code == 1
    first, second = records(result)
    assert "x.png: not a photo" in first["error"]
    assert "an earlier run's record stays in r/x.json" in first["error"]
    assert "cannot be written (Permission denied)" in second["error"]
    assert {p: p.read_bytes() for p in before} == before


def test_a_photo_that_disappears_after_it_was_found(
    weights: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("p").mkdir()
    for seed, name in enumerate("xy"):
        write_png(f"p/{name}.png", pixels(seed))

    def found_and_lost(*arguments: Any, **options: Any) -> Any:
        search = find_photos(*arguments, **options)
        Path("p/x.png").unlink()
        return search

    monkeypatch.setattr("overpaint.data.finding.find_photos", found_and_lost)
    result = detect(weights, "p", "--json")
    assert result.exit_code == 1
    lost, there = records(result)
    assert lost["error"] == "p/x.png: there is no such file; check the spelling"
    assert "error" not in there
    assert result.stderr == "1 of 2 could not be examined\n"


def test_long_names_are_shortened_by_bytes(weights: Path, here: Path) -> None:
    long = ["ż" * 125 + ".png", "n" * 250 + ".png"]
    for seed, name in enumerate(long):
        write_png(name, pixels(seed))
    result = detect(weights, *long, "--json")
    assert result.exit_code == 0, result.stdout
    assert all(Path(r["overlay"]).is_file() for r in records(result))
