"""Devices: names, what is not there, and that a name reaches the networks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import overpaint
from conftest import textured
from helpers.bright_detectors import Bright, registered, save
from overpaint.cli import build
from overpaint.detection.runner import DetectorRunner
from overpaint.devices import find_device, use_exact_float32
from overpaint.errors import InputError
from overpaint.evaluation.forge import forge
from overpaint.images import write_png
from overpaint.inpainting.inpainter_runner import InpainterRunner

no_card = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
card = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:x", ""])
def test_what_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="give cpu or cuda"):
        find_device(name)


def test_the_processor_is_always_there() -> None:
    assert find_device("cpu") == torch.device("cpu")
    with use_exact_float32():
        assert not torch.backends.cudnn.allow_tf32


@no_card
@pytest.mark.parametrize(
    "make",
    [
        lambda: find_device("cuda"),
        lambda: DetectorRunner(Bright(), device="cuda"),
        lambda: InpainterRunner("telea", device="cuda"),
        lambda: overpaint.detect(textured(40, 50, 0), device="cuda"),
    ],
)
def test_a_card_that_is_not_there_is_an_error(make: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=r"finds no CUDA device.*--device cpu"):
        make()


@no_card
def test_the_commands_say_so_before_anything_is_done(tmp_path: Path) -> None:
    write_png(tmp_path / "p.png", textured(40, 50, 0))
    with registered(tmp_path) as folder:
        record = save(folder, "found")
        line = ["detect", tmp_path / "p.png", "--model", record.path, "--out", tmp_path / "out"]
        result = CliRunner().invoke(build(), [*map(str, line), "--device", "cuda"])
    assert result.exit_code == 2
    assert "finds no CUDA device" in result.output
    assert not (tmp_path / "out").exists()
    for line in (
        ["inpaint", tmp_path / "p.png", tmp_path / "p.png", "--out", tmp_path / "o.png"],
        ["forge", tmp_path / "p.png", "--inpainter", "telea", "--masks", "boxes", "--out", "f"],
        ["evaluate", "--data", tmp_path, "--only", "untouched", "--out", tmp_path / "results"],
    ):
        result = CliRunner().invoke(build(), [*map(str, line), "--device", "cuda"])
        assert "finds no CUDA device" in f"{result.output}{result.exception}", line
        assert result.exit_code != 0


@card
def test_a_card_finds_what_the_processor_finds(tmp_path: Path) -> None:
    pixels = textured(200, 300, 0)
    one, other = (overpaint.detect(pixels, device=name) for name in ("cpu", "cuda"))
    np.testing.assert_allclose(one.heatmap, other.heatmap, rtol=0, atol=1e-3)


@card
def test_a_card_is_used_by_one_process(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="used by one process"):
        forge(tmp_path, None, "telea", ["boxes"], workers=2, device="cuda")  # type: ignore[arg-type]
