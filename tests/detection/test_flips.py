"""Detection as the mean over the photo and its mirror images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import overpaint
from conftest import textured
from helpers.bright_detectors import Bright, Judge
from helpers.detector_contract import warmed
from overpaint.cli import build
from overpaint.detection.fusion import FusedDetection
from overpaint.detection.runner import FLIPS, DetectorRunner, make_runner
from overpaint.detectors.nixnet import NIXNet, NIXNetConfig
from overpaint.images import Photo, read_image, write_png

SIZES = [(64, 48), (53, 75), (13, 61)]


@pytest.fixture(scope="module")
def network() -> NIXNet:
    torch.manual_seed(0)
    return warmed(NIXNet(NIXNetConfig((8, 12, 16))))  # type: ignore[return-value]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_png(tmp_path / "photo.png", textured(130, 140, 0))
    return tmp_path / "photo.png"


@pytest.mark.parametrize("size", SIZES)
def test_logits_are_the_mean_of_four_looks(size: tuple[int, int], network: NIXNet) -> None:
    pixels = textured(*size, 1)
    plain, both = (DetectorRunner(network, flips=flips).logits for flips in (False, True))
    expected = (
        plain(pixels)
        + plain(pixels[::-1])[::-1]
        + plain(pixels[:, ::-1])[:, ::-1]
        + plain(pixels[::-1, ::-1])[::-1, ::-1]
    ) / 4
    found = both(pixels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert np.abs(found - plain(pixels)).max() > 1e-3


@pytest.mark.parametrize("tile", [None, 32])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("axes", FLIPS[1:], ids=str)
def test_a_flipped_photo_gets_the_flipped_heatmap(
    axes: tuple[int, ...], size: tuple[int, int], tile: int | None, network: NIXNet
) -> None:
    pixels = textured(*size, 2)
    plain, both = (DetectorRunner(network, tile=tile, flips=f).logits for f in (False, True))
    found, flipped = both(pixels), both(np.flip(pixels, axes))
    np.testing.assert_allclose(np.flip(flipped, axes), found, rtol=0, atol=1e-5)
    once = np.flip(plain(np.flip(pixels, axes)), axes)
    assert np.abs(once - plain(pixels)).max() > 1e-3


def test_confidence_is_flipped_back_as_well() -> None:
    pixels = textured(40, 56, 3)
    seen = DetectorRunner(Judge(), flips=True).look(pixels)
    once = DetectorRunner(Judge()).look(pixels)
    assert seen.confidence is not None
    assert once.confidence is not None
    np.testing.assert_allclose(seen.logits, once.logits, rtol=0, atol=1e-5)
    np.testing.assert_allclose(seen.confidence, once.confidence, rtol=0, atol=1e-5)


def test_the_score_of_a_photo_is_the_mean_of_four() -> None:
    pixels = np.zeros((40, 56, 3), np.uint8)
    pixels[-1, -1] = 255  # the first pixel of one look in four: 2, and three times -2
    assert DetectorRunner(Judge()).look(pixels).scores == (-2,)
    assert DetectorRunner(Judge(), flips=True).look(pixels).scores == (-1,)


def test_the_score_of_a_photo_in_tiles_is_the_mean_of_the_highest() -> None:
    pixels = np.zeros((40, 200, 3), np.uint8)
    pixels[0, 0] = 255
    once, seen = (DetectorRunner(Judge(), overlap=0, flips=f).look(pixels) for f in (False, True))
    assert sorted(once.scores) == [-2, -2, -2, 2]
    assert max(seen.scores) == -1
    assert len(seen.scores) == 4


def test_there_is_no_verdict_with_flips(path: Path) -> None:
    photo = read_image(path)
    once, found = (make_runner(["nixnet-s"], flips=flips).run(photo) for flips in (False, True))
    assert once.calibrated
    assert (found.calibrated, found.band, found.threshold) == (False, "uncalibrated", 0.5)
    assert found.false_alarm_rate is None
    assert found.reason == "calibrations are of one look, and not of the mean over flips"
    assert found.notes == (*once.notes, "mean over the photo, its mirror images and both at once")
    assert np.abs(found.heatmap - once.heatmap).max() > 1e-4


def test_without_flips_nothing_is_said_of_them() -> None:
    photo = Photo(textured(40, 40, 0), Path("p.png"), "0" * 64, "PNG", None, False)
    found = DetectorRunner(Bright()).run(photo)
    assert "flips" not in str(found.reason)
    assert not found.notes


def test_detect_keeps_runners_with_and_without_flips_apart(path: Path) -> None:
    once, found, again = (overpaint.detect(path, flips=flips) for flips in (False, True, False))
    assert (once.band == "uncalibrated", found.band == "uncalibrated") == (False, True)
    assert np.array_equal(once.heatmap, again.heatmap)
    flipped = make_runner(["nixnet-s"], flips=True).run(read_image(path))
    assert np.array_equal(found.heatmap, flipped.heatmap)


def test_a_fusion_of_flipped_looks_is_uncalibrated(path: Path) -> None:
    found = make_runner(["all"], flips=True).run(read_image(path))
    assert isinstance(found, FusedDetection)
    assert not found.calibrated
    alone = make_runner(["nixnet-s"], flips=True).run(read_image(path))
    assert np.array_equal(found.heatmap, alone.heatmap)


def test_the_command_says_that_flips_have_no_verdict(path: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        build(), ["detect", str(path), "--out", str(tmp_path / "out"), "--flips", "--json"]
    )
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["band"] == "uncalibrated"
    assert record["notes"][-1] == "mean over the photo, its mirror images and both at once"
