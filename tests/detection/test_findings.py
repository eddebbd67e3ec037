"""What a detector says beside its logits: a score, a confidence, the tile it wants."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from helpers.bright_detectors import Bright, Fails, Judge, registered, save, two_tone
from overpaint.detection.report import Writer
from overpaint.detection.result import Detection
from overpaint.detection.runner import OVERLAP, TILE, DetectorRunner
from overpaint.images import Photo, read_image, write_png
from overpaint.registry import build_on_meta, detectors


@pytest.fixture
def imported(tmp_path: Path) -> Iterator[Path]:
    with registered(tmp_path) as folder:
        yield folder


def judged(pixels: np.ndarray) -> Detection:
    return DetectorRunner(Judge()).run(Photo(pixels, Path("p.png"), "", "PNG", None, False))


def test_score_and_confidence_of_a_photo_of_one_tile() -> None:
    pixels = two_tone(40, 60)
    found = judged(pixels)
    assert found.image_score == pytest.approx(0.119203)  # sigmoid(-2)
    assert found.confidence is not None
    np.testing.assert_allclose(found.confidence[:, 0], 0.952574, rtol=1e-5)  # sigmoid(6 / 2)
    np.testing.assert_allclose(found.confidence[:, -1], 0.047426, rtol=1e-4)
    np.testing.assert_allclose(found.heatmap[:, 0], 0.997527, rtol=1e-5)
    pixels[0, 0] = 255
    assert judged(pixels).image_score == pytest.approx(0.880797)


def test_of_a_photo_in_tiles_the_score_is_the_highest_of_theirs() -> None:
    pixels = two_tone(60, 200)
    assert "tiles" not in str(judged(pixels[:, :64]).notes)
    low = judged(pixels)
    # One row of four tiles of 64 or fewer pixels; each starts 46 after the last.
    assert low.notes == ("the image score is the highest of 4 tiles",)
    assert low.image_score == pytest.approx(0.119203)
    pixels[0, 92] = 255
    assert judged(pixels).image_score == pytest.approx(0.880797)
    assert low.confidence is not None
    assert low.confidence.shape == (60, 200)
    np.testing.assert_allclose(low.confidence[:, -1], 0.047426, rtol=1e-4)


def test_a_detector_that_says_no_more_has_neither() -> None:
    found = DetectorRunner(Bright()).run(Photo(two_tone(), Path(), "", "PNG", None, False))
    assert (found.image_score, found.confidence) == (None, None)


def test_the_tile_is_the_detectors_own() -> None:
    runner = DetectorRunner(Judge())
    assert (runner.tile, runner.overlap) == (64, 16)
    assert (DetectorRunner(Bright()).tile, DetectorRunner(Bright()).overlap) == (1024, OVERLAP)
    assert DetectorRunner(nn.Identity()).tile == TILE
    given = DetectorRunner(Judge(), tile=128, overlap=8)
    assert (given.tile, given.overlap) == (128, 8)


def test_every_registered_detector_has_a_tile_that_its_stride_divides() -> None:

    for name in detectors.list_names():
        with build_on_meta():
            model = detectors.create(name)
        overlap = min(OVERLAP, model.tile // 4 // model.stride * model.stride)
        assert 256 <= model.tile <= 1024, name
        assert model.tile % model.stride == overlap % model.stride == 0, name


def test_what_is_written(imported: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "p.png", two_tone(40, 60))
    photo = read_image(tmp_path / "p.png")
    writer = Writer(tmp_path / "out", [photo.path])
    runner = DetectorRunner(save(imported, "judge-s", "judge").path)
    record = writer.write(photo, runner.run(photo))
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        f"p.{end}" for end in ("heatmap.png", "mask.png", "overlay.png", "confidence.png", "json")
    }
    levels = np.asarray(Image.open(record["confidence"]))
    assert (levels[0, 0], levels[0, -1]) == (62427, 3108)  # 65535 times the above
    assert record["image_score"] == pytest.approx(0.119203)
    assert json.loads((tmp_path / "out" / "p.json").read_text()) == record
    record = writer.write(photo, DetectorRunner(Bright()).run(photo))
    assert record["image_score"] is None
    assert not (tmp_path / "out" / "p.confidence.png").exists()  # nothing of the other model stays


def test_a_detector_that_fails_alone_fails() -> None:
    with pytest.raises(RuntimeError, match="9 GB"):
        DetectorRunner(Fails()).run(Photo(two_tone(), Path(), "", "PNG", None, False))
