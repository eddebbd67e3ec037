"""Photos with transparent parts: what is filled in before a detector looks, and what counts."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from conftest import textured
from helpers.bright_detectors import calibration
from overpaint.detection.calibration import average_logits, judge, q99
from overpaint.detection.fusion import FusedRunner
from overpaint.detection.result import Detection
from overpaint.detection.runner import DetectorRunner
from overpaint.detection.transparency import MARGIN, fill_hidden, find_counted, find_hidden
from overpaint.images import Photo
from overpaint.images.from_arrays import as_photo


class Brightness(nn.Module):
    """The logit is 20 (brightness - 0.5)."""

    def forward(self, image: Tensor) -> Tensor:
        return 20 * (image.mean(dim=1, keepdim=True) - 0.5)


def run(pixels: np.ndarray, alpha: np.ndarray | None, **options: Any) -> Detection:
    runner = DetectorRunner(Brightness(), **options)
    runner.calibration = calibration()
    return runner.run(dataclasses.replace(as_photo(pixels), alpha=alpha))


def test_what_is_less_than_half_opaque_is_hidden() -> None:
    alpha = np.array([[0, 127, 128, 255]], np.uint8)
    np.testing.assert_array_equal(find_hidden(alpha), [[True, True, False, False]])
    assert find_hidden(None) is None
    assert find_hidden(np.full((2, 2), 128, np.uint8)) is None


def test_hidden_pixels_take_the_nearest_of_their_row() -> None:
    row = np.arange(12, dtype=np.uint8)
    pixels = np.repeat(np.tile(row, (3, 1))[..., None], 3, axis=2)
    hidden = np.ones((3, 12), bool)
    hidden[:, 4:7] = False
    expected = [4, 4, 4, 4, 4, 5, 6, 6, 6, 6, 6, 6]
    np.testing.assert_array_equal(fill_hidden(pixels, hidden)[1, :, 0], expected)


def test_the_nearest_visible_pixel_is_taken() -> None:
    pixels = textured(40, 50, 3)
    hidden = np.ones((40, 50), bool)
    hidden[10:30, 15:35] = False
    out = fill_hidden(pixels, hidden)
    np.testing.assert_array_equal(out[~hidden], pixels[~hidden])
    np.testing.assert_array_equal(out[20, 34 + 3], pixels[20, 34])
    np.testing.assert_array_equal(out[10 - 4, 20], pixels[10, 20])
    np.testing.assert_array_equal(out[3, 8], pixels[10, 15])


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_every_hidden_pixel_becomes_a_visible_one(share: float) -> None:
    rng = np.random.default_rng(0)
    pixels, hidden = textured(30, 41, 1), rng.random((30, 41)) < share
    pixels[hidden] = 0
    out = fill_hidden(pixels, hidden)
    visible = {tuple(p) for p in pixels[~hidden]} or {(0, 0, 0)}
    assert {tuple(p) for p in out.reshape(-1, 3)} <= visible


def test_what_is_near_what_is_hidden_does_not_count() -> None:
    hidden = np.zeros((60, 70), bool)
    hidden[30, 40] = True
    counted = find_counted(hidden, 4)
    expected = np.ones((60, 70), bool)
    expected[26:35, 36:45] = False
    np.testing.assert_array_equal(counted, expected)
    hidden[0, 0] = True
    assert find_counted(hidden, 4)[:5, :5].sum() == 0
    assert find_counted(hidden, 4)[5, 5]


@pytest.mark.parametrize("window", [1, 5])
def test_statistic_and_mask_are_of_the_counted_pixels_alone(window: int) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(30, 40)).astype(np.float32)
    counted = rng.random((30, 40)) < 0.7
    noisy = np.where(counted, logits, 50).astype(np.float32)
    judged = judge(noisy, 1.0, window, counted)
    again = judge(np.where(counted, logits, -50).astype(np.float32), 1.0, window, counted)
    assert judged.statistic == again.statistic
    np.testing.assert_array_equal(judged.mask, again.mask)
    assert not judged.mask[~counted].any()
    assert judged.statistic == q99(judged.smoothed[counted])
    assert judged.measure_share(judged.mask) == judged.mask.sum() / counted.sum()
    whole = judge(logits, 1.0, window, np.ones_like(counted))
    np.testing.assert_allclose(whole.smoothed, average_logits(logits, window), atol=1e-6)


def test_white_beneath_transparency_is_no_trace_and_white_beside_it_is() -> None:
    pixels, alpha = np.zeros((300, 300, 3), np.uint8), np.full((300, 300), 255, np.uint8)
    pixels[:, 200:], alpha[:, 200:] = 255, 0
    assert run(pixels, None).band == "strong trace"
    found = run(pixels, alpha)
    assert (found.band, found.fraction, found.num_regions) == ("no trace found", 0.0, 0)
    assert found.heatmap[:, 200 - MARGIN :].max() == 0
    assert "transparent: 33.3 %, left out with 24 pixels around" in found.notes[-1]
    pixels[100:150, 50:100] = 255
    found = run(pixels, alpha)
    assert found.band == "strong trace"
    assert found.fraction == 2500 / (300 * (200 - MARGIN))
    assert run(pixels, alpha, threshold=0.0).fraction == 1
    assert not run(pixels, alpha, threshold=0.0).mask[:, 200 - MARGIN :].any()


def test_mostly_transparent_or_too_little_left_has_no_verdict() -> None:
    pixels, alpha = np.full((300, 300, 3), 255, np.uint8), np.full((300, 300), 255, np.uint8)
    alpha[:, 140:] = 0
    found = run(pixels, alpha)
    assert found.band == "outside the tested range"
    assert "53.3 % of it is transparent" in found.words
    alpha[:] = 255
    alpha[::20, ::20] = 0
    found = run(pixels, alpha)
    assert found.band == "outside the tested range"
    assert " pixels are left beside transparent ones, under 16,384" in found.words
    alpha[:] = 0
    assert (run(pixels, alpha).score, run(pixels, alpha).fraction) == (0.0, 0.0)
    assert "100 % of it is transparent" in run(pixels, alpha).words


def test_a_fusion_counts_the_same_pixels() -> None:
    pixels, alpha = np.zeros((300, 300, 3), np.uint8), np.full((300, 300), 255, np.uint8)
    pixels[:, 200:], alpha[:, 200:] = 255, 0
    runners = [DetectorRunner(Brightness()), DetectorRunner(Brightness())]
    for one in runners:
        one.calibration = calibration()
    photo: Photo = dataclasses.replace(as_photo(pixels), alpha=alpha)
    found = FusedRunner(runners).run(photo)
    assert (found.fraction, found.num_regions) == (0.0, 0)
    assert found.disagreement.max() == 0
    assert "transparent: 33.3 %" in found.notes[-1]
    assert found.verdict.statistic < 0
