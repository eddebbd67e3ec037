"""How far it is from a call of the API to the network."""

import traceback
from pathlib import Path

import pytest
from torch import Tensor

import overpaint
from conftest import textured
from helpers.bright_detectors import Bright, registered, save

PACKAGE = str(Path(overpaint.__file__).parent)


def test_detect_reaches_the_network_in_at_most_seven_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: list[list[str]] = []

    def logits(self: Bright, image: Tensor) -> Tensor:
        stack = traceback.extract_stack()
        ways.append([frame.name for frame in stack if frame.filename.startswith(PACKAGE)])
        return self.of_brightness(image)

    with registered(tmp_path) as folder:
        record = save(folder, "found")
        monkeypatch.setattr(Bright, "_compute_logits", logits)
        overpaint.detect(textured(40, 50, 0), model=record.path)
    (way,) = ways
    # What `_compute_logits` is of another class is one of the seven; the fake stands in this file.
    assert way == ["detect", "run", "assess", "look", "examine_in_tiles", "examine"]
    assert len(way) + 1 <= 7
