"""The examples of the guide, run against a server."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import overpaint
from conftest import textured

pytestmark = pytest.mark.slow

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "platform.md"
ADDRESS = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    section = GUIDE.read_text(encoding="utf-8").partition("## From another program")[2]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a server."""
    command = [sys.executable, "-m", "overpaint", "app", "--port", "0"]
    environment = {key: value for key, value in os.environ.items() if key != "OVERPAINT_TOKEN"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[2].rstrip("/")
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the files that the examples name."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(textured(140, 160, seed=0)).save("photo.jpg", quality=92)
    mask = np.zeros((140, 160), np.uint8)
    mask[40:60, 50:90] = 255
    Image.fromarray(mask).save("mask.png")


def test_the_python_example(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks("python")
    assert ADDRESS in example
    exec(compile(example.replace(ADDRESS, address), str(GUIDE), "exec"), {})
    found = overpaint.detect("photo.jpg")
    assert capsys.readouterr().out.startswith(found.words)
    heat = np.asarray(Image.open("heatmap.png"))
    assert (heat.dtype, heat.shape) == (np.uint16, (140, 160))


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_the_curl_examples(address: str) -> None:
    lines = "".join(blocks("console")).splitlines()
    commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ curl")]
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command.replace(ADDRESS, address))
        done = subprocess.run([*words, "--silent"], capture_output=True, check=True, text=True)
        assert '"state":"done"' in done.stdout
