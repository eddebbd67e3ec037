"""Damaged files through the command line: benchmarks/fuzz_files.py, on few of them, and itself."""

import importlib.util
import json
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType

import numpy as np
import pytest

from overpaint.cli import main
from overpaint.images import read_image

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz_files.py"


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    pytest.importorskip("pillow_heif", reason="damages HEIC files")
    spec = importlib.util.spec_from_file_location("fuzz_files", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_files"] = module  # for its dataclasses
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_every_damaged_file_is_examined_or_refused(
    fuzz: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def here(
        command: list[str], environment: Mapping[str, str], seconds: float
    ) -> CompletedProcess[str]:
        """In this process, which spares three starts; a crash or a hang ends the tests."""
        code = 0
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", command[2:])
            for stream in ("stdout", "stderr"):  # which are given a filter
                patch.setattr(sys, stream, getattr(sys, stream))
            patch.setenv("OVERPAINT_MAX_PIXELS", environment["OVERPAINT_MAX_PIXELS"])
            try:
                main()
            except SystemExit as ended:
                code = ended.code
        return CompletedProcess(command, code, *capfd.readouterr())

    monkeypatch.setattr(fuzz, "execute", here)
    found = fuzz.fuzz(tmp_path, num=24, seed=1, inpainter="mean")
    assert {name: out.faults for name, out in found.items()} == {name: [] for name in found}
    for out in found.values():
        assert out.done.total() + out.refused.total() == 24
        assert out.done
        assert out.refused


def test_the_same_seed_gives_the_same_files(fuzz: ModuleType, tmp_path: Path) -> None:
    one, other = (fuzz.make(tmp_path / name, num=8, seed=3) for name in "ab")
    sound, again = ({p.name: p.read_bytes() for p in made.sound.iterdir()} for made in (one, other))
    assert sound == again
    assert {Path(name).suffix[1:] for name in sound} == set(fuzz.FORMATS)
    for path in one.damaged.iterdir():
        assert path.read_bytes() == (other.damaged / path.name).read_bytes() != sound[path.name]


def test_chunks_are_those_of_the_format(fuzz: ModuleType) -> None:
    pixels = fuzz.draw_scene(np.random.default_rng(0))
    for suffix, encoders in fuzz.FORMATS.items():
        for encode in encoders:
            data = encode(pixels)
            spans = fuzz.list_chunks(data)
            assert all(a < b <= len(data) for a, b in spans), suffix
            assert all(b <= c for (_, b), (c, _) in pairwise(spans)), suffix
    png = fuzz.FORMATS["png"][0](pixels)
    assert next(png[a + 4 : a + 8] for a, _ in fuzz.list_chunks(png)) == b"IHDR"
    jpeg = fuzz.FORMATS["jpg"][0](pixels)
    assert [jpeg[a + 1] for a, _ in fuzz.list_chunks(jpeg)][-2:] == [0xC4, 0xDA]
    assert [read_image(data).format for data in (png, jpeg)] == ["PNG", "JPEG"]


@pytest.mark.parametrize(
    ("says", "status", "fault"),
    [
        ([{"words": "x"}, {"words": "x"}], 0, None),
        ([{"words": "x"}], 0, "b.png: 0 records"),
        ([{"words": "x"}, {"words": ""}], 0, "b.png: no words"),
        ([{"words": "x"}, {"error": "b.png: damaged"}], 1, "does not name it"),
        ([{"words": "x"}, {"error": "FOLDER/b.png: damaged"}], 1, None),
        ([{"words": "x"}, {"error": "FOLDER/b.png: damaged"}], 0, "exit status 0, not 1"),
        ([{"words": "x"}, {"words": "x"}], -11, "exit status"),
        (["Traceback (most recent call last):", {"words": "x"}, {"words": "x"}], 0, "on stderr"),
    ],
)
def test_faults_are_seen(
    fuzz: ModuleType,
    says: list[dict[str, str] | str],
    status: int,
    fault: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, beside = tmp_path / "photos", tmp_path / "masks"
    for place in (folder, beside):
        place.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(b"x")
    records = [s for s in says if isinstance(s, dict)]
    for record, name in zip(records, ("a.png", "b.png"), strict=False):
        record["file"] = str(folder / name)
        if "error" in record:
            record["error"] = record["error"].replace("FOLDER", str(folder))
    lines = [f"echo '{json.dumps(record)}'" for record in records]
    lines += [f"echo '{line}' >&2" for line in says if isinstance(line, str)]
    end = "kill -SEGV $$" if status < 0 else f"exit {status}"
    program = tmp_path / "program"
    program.write_text("\n".join(["#!/bin/sh", *lines, end]))
    program.chmod(0o755)
    monkeypatch.setattr(fuzz.sys, "executable", str(program))
    faults = fuzz.run(["detect"], folder, beside).faults
    assert len(faults) == (fault is not None), faults
    assert fault is None or fault in faults[0]
