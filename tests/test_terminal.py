"""Nothing of what is printed steers a terminal, fakes a line, or fails on a stream's encoding."""

import ast
import io
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

from overpaint import terminal
from overpaint.cli import COMMANDS
from overpaint.terminal import make_printable, say, say_json

ROOT = Path(__file__).parents[1] / "src" / "overpaint"
HOSTILE = "a\x1b[2J\x1b]0;owned\x07\nok.png: no trace\r\u202egnp.\x9b31m\x7f"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\r\tc\0\x7f\x85\x9b", "a\\nb\\r\\tc\\x00\\x7f\\x85\\x9b"),
        ("\u202egnp.exe\u2066\u200f\u061c", "\\u202egnp.exe\\u2066\\u200f\\u061c"),
        ("\u2028\u2029\ufeff\u200b\xad\U000e0041", "\\u2028\\u2029\\ufeff\\u200b\\xad\\U000e0041"),
        ("gr\udcf6\udcdfe", "gr\\xf6\\xdfe"),  # a file name in Latin-1
        ("\ud800", "\\ud800"),
        ("größe [red] żółć 日本 \\x1b", "größe [red] żółć 日本 \\x1b"),
        ("9.00\u202fAM\xa0.png", "9.00\u202fAM\xa0.png"),  # as macOS names screenshots
        ("👨\u200d👩 می\u200cشد", "👨\u200d👩 می\u200cشد"),
        (Path("p.png"), "p.png"),
    ],
)
def test_what_is_not_visible_is_spelled_out(text: object, shown: str) -> None:
    assert make_printable(text) == shown


@pytest.mark.slow
def test_every_character_but_visible_ones_is_spelled_in_ascii() -> None:
    hidden = "".join(c for c in map(chr, range(0x110000)) if not c.isprintable())
    kept = set(make_printable(hidden)) - set(map(chr, range(32, 127)))
    assert kept == {
        *"\u200c\u200d",
        *"\xa0\u1680\u202f\u205f\u3000",
        *map(chr, range(0x2000, 0x200B)),
    }


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii", "utf-16"])
def test_no_encoding_of_a_stream_is_an_error(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding, newline="\n"))
    say(HOSTILE, "zażółć 😀")
    first, second, rest = written.getvalue().decode(encoding).split("\n")
    assert (first, rest) == (make_printable(HOSTILE), "")
    assert second == ("zażółć 😀" if "utf" in encoding else second)
    assert second.startswith("za")


def test_json_is_ascii_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    record = {"file": HOSTILE + "\udcff ü \U0001f600"}
    say_json(record)
    out = capsys.readouterr().out
    assert out.isascii()
    assert out == make_printable(out[:-1]) + "\n"
    assert json.loads(out) == record


def test_text_above_a_bar_is_filtered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    say("[red]\x1b[2J " + "x" * 200, above=terminal.make_console(err=True))
    assert sys.stderr.getvalue() == "[red]\\x1b[2J " + "x" * 200 + "\n"  # type: ignore[attr-defined]


def printing(path: Path) -> Iterator[str]:
    """Where a module prints past `overpaint.terminal`."""
    for node in ast.walk(ast.parse(path.read_text())):
        name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        name = ast.unparse(node) if isinstance(node, ast.Attribute) else name
        last = name.rpartition(".")[2]
        if last in ("print", "echo", "secho", "print_json", "pprint", "Console", "warn") or (
            name in ("sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__")
        ):
            yield f"{path.relative_to(ROOT)}:{node.lineno}: {name}"  # type: ignore[attr-defined]


@pytest.mark.slow
def test_all_that_is_printed_goes_through_one_place() -> None:
    found = [w for p in sorted(ROOT.rglob("*.py")) if p.name != "terminal.py" for w in printing(p)]
    assert not found
    assert len(list(printing(ROOT / "terminal.py"))) > 3  # the search itself finds what there is


SESSION = """
import json, sys
from pathlib import Path
from overpaint.cli import main
codes = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["overpaint", *arguments]
    try:
        main()
        codes.append(0)
    except SystemExit as end:
        codes.append(end.code or 0)
Path("codes.json").write_text(json.dumps(codes))
"""


def session(
    commands: list[list[str]], folder: Path, encoding: str
) -> tuple[list[int], bytes, bytes]:
    """Exit codes, stdout and stderr of commands, run one after the other in one process."""
    done = subprocess.run(
        [sys.executable, "-c", SESSION, json.dumps(commands)],
        capture_output=True,
        check=False,
        cwd=folder,
        env=environment(PYTHONIOENCODING=encoding),
    )
    assert b"Traceback" not in done.stderr, done.stderr
    return json.loads((folder / "codes.json").read_text()), done.stdout, done.stderr


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT.parent), **more}


def harmless(output: bytes) -> bool:
    return not set(output) & (set(range(32)) - {9, 10} | {127}) and "\u202e".encode() not in output


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "ascii:strict"])
def test_every_command_speaks_on_every_stream(encoding: str, tmp_path: Path) -> None:
    names = [[], *([name] for name in COMMANDS)]
    codes, out, _ = session([[*name, "--help"] for name in names], tmp_path, encoding)
    assert codes == [0] * len(names)
    assert out.count(b"Usage:") == len(names)
    wrong = "--\x1b[2J\u202e\udcffżółć"
    codes, out, err = session([[*name, wrong] for name in names], tmp_path, encoding)
    assert codes == [2] * len(names)
    assert out == b""
    assert harmless(err)
    assert err.count(b"\\x1b[2J\\u202e\\xff") == len(names)


@pytest.mark.skipif(os.name == "nt", reason="Windows forbids such file names")
@pytest.mark.parametrize(
    "encoding", ["ascii", *(pytest.param(e, marks=pytest.mark.slow) for e in ("cp1252", "utf-8"))]
)
def test_names_and_text_in_pictures_do_no_harm(encoding: str, tmp_path: Path) -> None:
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "<a:\x1b[2J>\u202e")
    picture = Image.fromarray(np.full((64, 64, 3), 99, np.uint8))
    folder = tmp_path / "żółć"
    folder.mkdir()
    for name in (HOSTILE + ".png", "gr\udcf6\udcdfe.png"):
        picture.save(folder / name, pnginfo=text)
    (folder / "bad\x1b[2J.png").write_bytes(b"no photo")
    mask = np.zeros((64, 64), np.uint8)
    mask[20:30, 20:30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (tmp_path / "list\x1b[2J.txt").write_bytes("żółć/\u202egone\x1b[2J.png\n".encode())
    commands = [
        ["detect", "żółć", "list\x1b[2J.txt"],
        ["inpaint", "żółć", "mask.png", "-o", "out", "--model", "mean"],
        ["provenance", *(str(path) for path in sorted(folder.iterdir()))],
        ["train", "detector", "--config", "none\x1b[2J.yaml", "--photos", "żółć"],
        ["models", "none\x1b[2J\u202e"],
    ]
    codes, out, err = session([*commands, ["detect", "żółć", "--json"]], tmp_path, encoding)
    assert codes == [1, 1, 1, 2, 2, 1]
    assert harmless(out + err)
    assert b"ok.png: no trace\\r\\u202egnp.\\x9b31m\\x7f.png" in out
    assert b"\\xf6\\xdfe.png" in out
    files = {json.loads(line)["file"] for line in out.splitlines() if line.startswith(b"{")}
    assert files == {f"żółć/{path.name}" for path in folder.iterdir()}


@pytest.mark.skipif(os.name == "nt", reason="has no such pipes")
@pytest.mark.parametrize("arguments", ["--help", "provenance a.png b.png"])
def test_a_pipe_that_nobody_reads_any_more_ends_the_command_quietly(
    arguments: str, tmp_path: Path
) -> None:
    script = f"{sys.executable} -m overpaint {arguments} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, check=False, cwd=tmp_path, env=environment()
    )
    assert done.stdout == b"1\n"
    assert done.stderr in (b"", b"2 of 2 could not be read, in 0 a check failed\n")
