"""Growing a hole: how far, with which weights, and what of the photo it leaves alone."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import overpaint
from conftest import textured
from helpers.handmade import save
from helpers.holed import holes, noise
from overpaint.errors import ImageError, InputError
from overpaint.inpainting.edges import MAX_RADIUS, choose_radius, compute_fill_weight
from overpaint.inpainting.holes import take_mask


def slow_distance(marked: np.ndarray) -> np.ndarray:
    """To the nearest marked pixel, one by one."""
    y, x = np.nonzero(marked)
    rows, columns = np.mgrid[: marked.shape[0], : marked.shape[1]]
    return np.sqrt((rows[..., None] - y) ** 2 + (columns[..., None] - x) ** 2).min(axis=2)


MARKED = {
    "several": holes((40, 50), (5, 5, 9, 20), (30, 40, 31, 41), (33, 8, 38, 9)),
    "corners": holes((40, 50), (0, 0, 2, 3), (39, 49, 40, 50)),
    "whole side": holes((40, 50), (0, 0, 40, 4)),
    "line of one pixel": np.eye(40, 50, dtype=np.uint8),
    "specks": (np.random.default_rng(2).random((40, 50)) < 0.01).astype(np.uint8),
    "one pixel": holes((1, 1), (0, 0, 1, 1)),
    "one row": holes((1, 30), (0, 12, 1, 14)),
}


class TestWeights:
    @pytest.mark.parametrize("radius", [1, 2, 5, 16, 64])
    @pytest.mark.parametrize("case", MARKED)
    def test_the_hole_ends_at_the_radius_and_fades_in_its_outer_half(self, case, radius):
        marked = MARKED[case] == 1
        weight, distance = compute_fill_weight(marked, radius), slow_distance(marked)
        np.testing.assert_array_equal(weight > 0, distance <= radius)
        assert (weight[distance <= radius - radius // 2] == 1).all()
        fading = (distance > radius - radius // 2) & (distance <= radius)
        expected = (radius + 1 - distance[fading]) / (radius // 2 + 1)
        np.testing.assert_allclose(weight[fading], np.minimum(expected, 1), atol=1e-6)

    def test_without_a_radius_it_is_the_mask(self):
        for marked in MARKED.values():
            np.testing.assert_array_equal(compute_fill_weight(marked == 1, 0), marked)

    @pytest.mark.parametrize("radius", [-1, MAX_RADIUS + 1])
    def test_another_radius_is_an_error(self, radius):
        with pytest.raises(InputError, match="give a whole number of 0 to 64"):
            compute_fill_weight(MARKED["several"] == 1, radius)

    @pytest.mark.parametrize(
        ("side", "radius"),
        [(60, 0), (128, 1), (256, 2), (512, 4), (1024, 8), (2048, 16), (9000, 16)],
    )
    def test_the_usual_radius_follows_the_longer_side(self, side, radius):
        assert choose_radius((side, 50)) == choose_radius((50, side, 3)) == radius


class TestMasks:
    def test_a_soft_edge_is_filled_whole_when_the_hole_grows(self) -> None:
        hard = Image.fromarray(holes((70, 100), (24, 30, 46, 70)) * 255)
        soft = np.asarray(hard.filter(ImageFilter.GaussianBlur(6)))
        taken = take_mask(soft, soft.shape, dilate=2)
        assert (taken.weight[soft >= 32] == 1).all()
        assert not taken.weight[slow_distance(soft >= 32) > 2].any()
        assert any("as bright as 32 beside it" in note for note in taken.notes)
        np.testing.assert_array_equal(take_mask(soft, soft.shape).pixels, soft >= 128)
        turned = take_mask(255 - soft, soft.shape, invert=True, dilate=2)
        np.testing.assert_array_equal(turned.weight, taken.weight)

    def test_grey_apart_from_any_white_is_no_hole(self) -> None:
        mask = holes((90, 90), (10, 10, 20, 20)) * 255 + holes((90, 90), (60, 60, 70, 70)) * 100
        taken = take_mask(mask.astype(np.uint8), mask.shape, dilate=1)
        assert not taken.pixels[40:, 40:].any()

    def test_it_is_said_by_how_much_the_hole_was_grown(self) -> None:
        mask = holes((90, 90), (10, 10, 20, 20))
        assert take_mask(mask, mask.shape, dilate=1).notes == ("hole grown by 1 pixel",)
        said = "hole grown by 5 pixels; the fill fades out over the outer 2"
        assert take_mask(mask, mask.shape, dilate=5).notes == (said,)

    def test_the_usual_radius_is_taken_for_none(self) -> None:
        mask = holes((512, 300), (100, 100, 120, 120))
        assert take_mask(mask, mask.shape, dilate=None).radius == 4

    def test_a_hole_that_grows_over_the_whole_photo_is_an_error(self, tmp_path: Path) -> None:
        mask = np.zeros((40, 40), np.uint8)
        mask[::4, ::4] = 255
        path = save(tmp_path / "m.png", mask)
        with pytest.raises(ImageError, match=r"m\.png: grown by 5 pixels.*--dilate 0"):
            take_mask(path, mask.shape, dilate=5)


class TestPhotos:
    @pytest.mark.parametrize("model", ["mean", "telea", "safepaint-s"])
    @pytest.mark.parametrize("case", ["several", "corners", "whole side", "line of one pixel"])
    def test_outside_the_grown_hole_every_pixel_is_the_photos(self, case: str, model: str) -> None:
        photo, mask = noise(40, 50), MARKED[case]
        done = overpaint.inpaint(photo, mask, model=model, dilate=2)
        np.testing.assert_array_equal(done.mask, slow_distance(mask) <= 2)
        known = done.mask == 0
        np.testing.assert_array_equal(done.pixels[known], photo[known])

    def test_what_the_mask_covers_is_not_mixed_in(self) -> None:
        """A white disc on black, marked but for its rim: inside the mask nothing of it is left."""
        rows, columns = np.mgrid[:80, :80]
        radius = np.hypot(rows - 40, columns - 40)
        disc = ((21 - radius).clip(0, 1) * 255).astype(np.uint8)
        photo = np.repeat(disc[..., None], 3, axis=2)
        mask = (radius <= 19).astype(np.uint8)
        left = overpaint.inpaint(photo, mask, model="telea", dilate=0).pixels
        gone = overpaint.inpaint(photo, mask, model="telea", dilate=4).pixels
        assert left[mask == 1].mean() > 100  # the rim bleeds into a hole that is not grown
        assert gone[mask == 1].max() == 0
        assert gone.max() < 16  # where the ring fades out, of a rim that the mask left out

    def test_the_fill_runs_into_the_photo(self) -> None:
        """On a flat photo and a fill of another tone the step at the edge becomes a ramp."""
        photo = np.full((64, 64, 3), (90, 100, 110), np.uint8)
        photo[:, :8] = 250  # what "mean" mixes in
        mask = holes((64, 64), (20, 30, 40, 50))
        steps = {}
        for radius in (0, 8):
            row = overpaint.inpaint(photo, mask, model="mean", dilate=radius).pixels[30, 10:, 0]
            steps[radius] = np.abs(np.diff(row.astype(int))).max()
        assert steps[0] > 15
        assert steps[8] <= steps[0] / 3

    def test_a_mask_may_be_jagged_and_soft_and_the_photo_of_16_bit(self, tmp_path: Path) -> None:
        from helpers.deep_pictures import png

        values = textured(120, 160, 3).astype(np.uint16) << 8 | 0x37
        (tmp_path / "a.png").write_bytes(png(values))
        rng = np.random.default_rng(4)
        rough = Image.fromarray(rng.integers(0, 256, (12, 16), dtype=np.uint8))
        mask = np.asarray(rough.resize((160, 120), Image.Resampling.BICUBIC)).copy()
        mask[mask < 150] = 0
        out = tmp_path / "b.png"
        done = overpaint.inpaint(tmp_path / "a.png", mask, model="telea", dilate=3, out=out)
        known = done.mask == 0
        assert known.any()
        assert done.samples.dtype == np.uint16
        np.testing.assert_array_equal(done.samples[known], values[known])
        assert (done.samples != values)[mask >= 128].mean() > 0.9
