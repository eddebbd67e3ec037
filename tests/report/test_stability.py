"""What becomes of a region after changes of the photo, by detectors that one can calculate."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from helpers.bright_detectors import Bright, two_tone
from overpaint.detection.runner import DetectorRunner
from overpaint.images import Photo
from overpaint.report.stability import CHANGES, describe_changes, try_changes


class AtItsPlace(nn.Module):
    """Marks what is bright in every second column, counted from the photo's left border."""

    def forward(self, image: Tensor) -> Tensor:
        logits = 40 * (image.mean(dim=1, keepdim=True) - 0.5)
        logits[..., 1::2] = -20
        return logits


def a_photo(pixels: np.ndarray) -> Photo:
    return Photo(pixels, Path("p.png"), "0" * 64, "PNG", None, False)


def test_a_region_that_stays_after_every_change() -> None:
    photo, runner = a_photo(two_tone()), DetectorRunner(Bright())
    found = runner.run(photo)
    tried = try_changes(photo, found.mask, runner)
    assert [t.change.name for t in tried] == list(CHANGES)
    for one in tried:
        assert one.change.problem is None
        assert one.change.iou is not None
        assert one.change.iou > 0.97
        share = one.stays(found.mask, found.regions[0])
        assert share is not None
        assert share > 0.98
        assert one.mask is not None
        assert one.mask.shape == found.mask.shape
    words = describe_changes(tried, found.mask, found.regions)
    assert words.startswith("The largest region stays after JPEG 95, JPEG 85, resize to 0.9, shift")
    # The first row and column are gone, and all else is where it was.
    shifted = tried[-1].mask
    assert shifted is not None
    assert not shifted[0].any()
    np.testing.assert_array_equal(shifted[1:, 1:], found.mask[1:, 1:])


def test_a_region_that_hangs_on_the_grid_of_pixels_goes() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, ::2] = 255
    photo, runner = a_photo(pixels), DetectorRunner(AtItsPlace())
    found = runner.run(photo)
    assert found.num_regions == 32
    tried = {t.change.name: t for t in try_changes(photo, found.mask, runner)}
    shift = tried["shift by one pixel"]
    assert shift.change.iou == 0
    assert shift.stays(found.mask, found.regions[0]) == 0
    assert "goes after" in describe_changes(list(tried.values()), found.mask, found.regions)


def test_the_quality_band_after_jpeg_is_that_of_the_jpeg() -> None:
    photo, runner = a_photo(two_tone()), DetectorRunner(Bright())
    tried = try_changes(photo, runner.run(photo).mask, runner)
    assert [t.change.quality for t in tried] == ["jpeg>=90", "jpeg75-90", "lossless", "lossless"]
    poor = replace(photo, jpeg_quality=60, lossy=True)
    tried = try_changes(poor, runner.run(poor).mask, runner)
    assert [t.change.quality for t in tried][2:] == ["jpeg<75", "jpeg<75"]


def test_transparent_parts_stay_out() -> None:
    alpha = np.full((160, 200), 255, np.uint8)
    alpha[:, :60] = 0
    photo, runner = replace(a_photo(two_tone()), alpha=alpha), DetectorRunner(Bright())
    found = runner.run(photo)
    for one in try_changes(photo, found.mask, runner):
        assert one.mask is not None
        assert not one.mask[:, :55].any()
        share = one.stays(found.mask, found.regions[0])
        assert share is not None
        assert share > 0.75  # the border of what is transparent moves


def test_nothing_marked() -> None:
    photo, runner = a_photo(np.zeros((40, 50, 3), np.uint8)), DetectorRunner(Bright())
    found = runner.run(photo)
    tried = try_changes(photo, found.mask, runner)
    assert {t.change.iou for t in tried} == {None}
    assert "nor after any" in describe_changes(tried, found.mask, found.regions)


def test_what_cannot_be_tried_is_said() -> None:
    photo, runner = a_photo(np.full((1, 40, 3), 255, np.uint8)), DetectorRunner(Bright())
    found = runner.run(photo)
    tried = {t.change.name: t for t in try_changes(photo, found.mask, runner)}
    shift = tried["shift by one pixel"]
    assert shift.change.problem == "there is no pixel to leave out"
    assert shift.stays(found.mask, found.regions[0]) is None
    assert tried["JPEG 95"].change.problem is None


def test_a_detector_that_fails_after_a_change() -> None:
    class OnlyOnce(Bright):
        def _compute_logits(self, image: Tensor) -> Tensor:
            if image.shape[-1] != 200:
                raise RuntimeError("not enough memory")
            return super()._compute_logits(image)

    photo, runner = a_photo(two_tone()), DetectorRunner(OnlyOnce())
    with torch.inference_mode():
        tried = try_changes(photo, runner.run(photo).mask, runner)
    assert [t.change.problem for t in tried] == [None, None, *["not enough memory"] * 2]


def test_specks_are_no_region_and_not_nothing() -> None:
    pixels = two_tone()
    pixels[:] = 51
    pixels[10:12, 10:12] = 204  # too small for a region
    photo, runner = a_photo(pixels), DetectorRunner(Bright())
    found = runner.run(photo)
    assert found.mask.any()
    words = describe_changes(try_changes(photo, found.mask, runner), found.mask, found.regions)
    assert words.startswith("No region is marked in the photo itself")
