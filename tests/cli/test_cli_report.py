"""`overpaint report`: what it writes, prints and returns."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner, Result

from helpers.bright_detectors import calibration, registered, save, two_tone
from overpaint.cli import build
from overpaint.images import write_png
from overpaint.report.api import make_command as command_of


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where we are: a photo; and two calibrated detectors."""
    monkeypatch.chdir(tmp_path)
    write_png("p.png", two_tone())
    with registered(tmp_path) as folder:
        save(folder, "a", fitted=calibration())
        save(folder, "b", gain=10, fitted=calibration(threshold=1))
        yield tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build(), ["report", *map(str, arguments)])


def test_a_page_and_its_json_file(here: Path) -> None:
    result = run("p.png", "--model", "a", "-o", "r.html")
    assert result.exit_code == 0, result.output
    assert "p.png: moderate support; strong trace" in result.stdout
    assert "Report: r.html; its JSON file: r.json" in result.stdout
    found = json.loads(Path("r.json").read_text())
    assert found["parameters"] == {"models": ["a"], "threshold": None, "c2pa_trust_sha256": None}
    assert found["command"] == "overpaint report --out r.html --model a p.png"
    assert found["command"] in Path("r.html").read_text()


def test_the_command_makes_it_again(here: Path) -> None:
    write_png("it's a \u202ephoto.png", two_tone())
    result = run("it's a \u202ephoto.png", "--model", "all", "--threshold", 0.7, "-o", "r.html")
    assert result.exit_code == 0, result.output
    first = Path("r.json").read_text()
    command = json.loads(first)["command"]
    # What bash makes of it.
    script = f"show() {{ printf '%s\\0' \"$@\"; }}; show {command}"
    words = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout
    arguments = words.decode().split("\0")[:-1]
    assert arguments[:2] == ["overpaint", "report"]
    again = run(*arguments[2:], "--overwrite")
    assert again.exit_code == 0, again.output
    second = json.loads(Path("r.json").read_text())
    assert second["command"] == command
    assert second["photos"] == json.loads(first)["photos"]
    assert second["parameters"]["threshold"] == 0.7


def test_words_that_a_shell_would_take_for_others() -> None:
    command = command_of(["-p.png", "a b\\'\x1b.png"], Path("r.html"), ["net"], [], None, None)
    assert command == ("overpaint report --out r.html --model net -- -p.png $'a b\\\\\\'\\x1b.png'")
    assert command.isprintable()


def test_several_photos_and_one_that_fails(here: Path) -> None:
    write_png("folder-q.png", np.full((160, 200, 3), 20, np.uint8))
    Path("bad.png").write_bytes(b"no picture")
    result = run("p.png", "bad.png", "gone.png", "folder-q.png", "--model", "a", "-o", "r.html")
    assert result.exit_code == 1
    assert "2 of 4 could not be examined" in result.stderr
    assert "folder-q.png: no support either way; no trace found" in result.stdout
    photos = json.loads(Path("r.json").read_text())["photos"]
    assert ["error" in photo for photo in photos] == [False, True, False, True]
    text = Path("r.html").read_text()
    assert text.count('<article class="chapter">') == 4
    assert "gone.png: no such file" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["p.png", "-o", "p.png"], "ends in .html"),
        (["p.png", "-o", "gone/r.html"], "no folder gone"),
        (["p.png", "-o", "/dev/null/r.html"], "no folder /dev/null"),
        (["p.png", "-o", f"{'r' * 251}.html"], "cannot be written"),
        (["p.png", "-o", "r.html", "--model", "unknown"], "unknown"),
        (["p.png", "-o", "r.html", "--threshold", "2"], "from 0 to 1"),
        (["p.png", "-o", "r.html", "--trust", "gone.pem"], "gone.pem"),
    ],
)
def test_wrong_use(here: Path, arguments: list[str], said: str) -> None:
    before = Path("p.png").read_bytes()
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert Path("p.png").read_bytes() == before
    assert not Path("r.html").exists()
    assert not Path("r.json").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that refuses all files")
def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overpaint.report.api.make_chapters", lambda *_, **__: pytest.fail("made"))
    result = run("p.png", "--model", "a", "-o", "/proc/r.html")
    assert result.exit_code == 2
    assert "/proc/r.html: cannot be written" in result.stderr


def test_a_pipe_in_the_place_of_a_report_is_not_waited_for(here: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    for name in ("r.html", "s.json"):
        os.mkfifo(name)
        result = run("p.png", "--model", "a", "-o", f"{name[0]}.html", "--overwrite")
        assert result.exit_code == 2
        assert "is no report of overpaint" in result.stderr


def test_nothing_is_written_over_unasked(here: Path) -> None:
    Path("r.html").write_text("<p>mine</p>")
    assert run("p.png", "--model", "a", "-o", "r.html", "--overwrite").exit_code == 2
    assert Path("r.html").read_text() == "<p>mine</p>"
    assert run("p.png", "--model", "a", "-o", "s.html").exit_code == 0
    first = Path("s.json").read_bytes()
    assert run("p.png", "--model", "a", "-o", "s.html").exit_code == 2
    assert Path("s.json").read_bytes() == first
    assert run("p.png", "--model", "a", "-o", "s.html", "--overwrite").exit_code == 0


def test_certificates_are_named_by_their_hash(here: Path) -> None:
    Path("anchors.pem").write_text("")
    result = run("p.png", "--model", "a", "-o", "r.html", "--trust", "anchors.pem")
    assert result.exit_code == 0, result.output
    found = json.loads(Path("r.json").read_text())
    assert found["parameters"]["c2pa_trust_sha256"].startswith("e3b0c44298fc1c14")


def test_the_command_starts_without_what_is_slow_to_load() -> None:
    code = (
        "import overpaint.cli.report, sys; sys.exit(bool({'torch', 'jinja2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_photo_that_says_it_is_a_finding_is_named_on_the_page(here: Path) -> None:
    """Twenty bytes would otherwise hide it from a report on its folder."""
    folder = here / "evidence"
    folder.mkdir()
    write_png(folder / "p.png", two_tone())
    text = PngInfo()
    text.add_text("overpaint", "hi")
    Image.fromarray(two_tone()).save(folder / "forged.png", pnginfo=text)
    result = run(folder, "--model", "a", "-o", "r.html")
    assert result.exit_code == 0
    assert "1 written by overpaint (forged.png)" in result.stderr
    assert json.loads((here / "r.json").read_bytes())["passed_over"] == ["forged.png"]
    assert "forged.png" in (here / "r.html").read_text()


def test_a_page_never_takes_the_json_file_of_another(here: Path) -> None:
    assert run("p.png", "--model", "a", "-o", "r.html").exit_code == 0
    result = run("p.png", "--model", "a", "-o", "r.htm", "--overwrite")
    assert result.exit_code == 2
    assert "r.html is there, to which r.json belongs" in result.stderr


def test_the_command_names_a_raised_limit_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command_of(["a.png"], Path("r.html"), ["m"]).startswith("overpaint report")
    monkeypatch.setenv("OVERPAINT_MAX_PIXELS", "300000000")
    command = command_of(["a.png"], Path("r.html"), ["m"])
    assert command.startswith("OVERPAINT_MAX_PIXELS=300000000 overpaint report --out r.html")
