"""Masks: what they mean, and the windows from which their holes are filled."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.handmade import save
from helpers.holed import holes
from overpaint.errors import ImageError, InputError
from overpaint.images import read_mask
from overpaint.inpainting.holes import find_windows, take_mask


class TestMasks:
    def test_white_is_the_hole_by_the_rule_of_read_mask(self, tmp_path: Path) -> None:
        grey = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
        path = save(tmp_path / "m.png", grey)
        taken = take_mask(path, (20, 30))
        np.testing.assert_array_equal(taken.pixels, read_mask(path))
        assert taken.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert taken.share == pytest.approx((grey >= 128).mean())

    def test_arrays_of_every_kind_mean_the_same(self) -> None:
        mask = holes((9, 9), (2, 3, 5, 6))
        taken = [take_mask(m, (9, 9)) for m in (mask, mask == 1, mask * 255, mask * 200)]
        assert all(np.array_equal(t.pixels, mask) and t.pixels.dtype == np.uint8 for t in taken)
        assert len({t.sha256 for t in taken}) == 1

    @pytest.mark.parametrize(
        "mask", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4), int)]
    )
    def test_other_arrays_are_refused(self, mask: np.ndarray) -> None:
        with pytest.raises(InputError, match="give bool or uint8"):
            take_mask(mask, (4, 4))

    @pytest.mark.parametrize("size", [(6, 4), (8, 12), (2, 3)])
    def test_another_size_is_refused_also_at_equal_proportions(
        self, tmp_path: Path, size: tuple[int, int]
    ) -> None:
        mask = holes((4, 6), (1, 1, 2, 2))
        path = save(tmp_path / "m.png", mask * 255)
        with pytest.raises(ImageError, match=rf"m\.png: .*6 x 4.*{size[1]} x {size[0]}.*upright"):
            take_mask(path, size)
        with pytest.raises(InputError, match="6 x 4"):
            take_mask(mask, size)

    def test_a_soft_mask_is_cut_at_128_with_a_note(self, tmp_path: Path) -> None:
        ramp = np.tile(np.linspace(0, 255, 60).astype(np.uint8), (40, 1))
        taken = take_mask(save(tmp_path / "m.png", ramp), ramp.shape)
        assert taken.pixels[0].tolist() == [0] * 30 + [1] * 30
        share = 100 * ((ramp >= 32) & (ramp <= 223)).mean()
        assert taken.notes == (
            f"soft mask: {share:.0f} % of it is grey; what is as bright as 128 was filled",
        )

    def test_a_hard_mask_saved_as_jpeg_or_smoothed_at_its_edge_gets_no_note(
        self, tmp_path: Path
    ) -> None:
        mask = holes((200, 200), (50, 40, 120, 160)) * 255
        assert take_mask(save(tmp_path / "m.jpg", mask, quality=75), mask.shape).notes == ()
        smooth = np.array(Image.fromarray(mask).resize((199, 199), Image.Resampling.BILINEAR))
        assert take_mask(smooth, smooth.shape).notes == ()

    def test_an_empty_mask_says_what_its_brightest_value_is(self, tmp_path: Path) -> None:
        path = save(tmp_path / "m.png", np.full((9, 9), 127, np.uint8))
        with pytest.raises(ImageError, match=r"m\.png: nothing to fill.*brightest is 127.*white"):
            take_mask(path, (9, 9))

    def test_over_90_percent_counts_as_inverted_and_can_be_turned_around(self) -> None:
        mask = np.ones((10, 10), np.uint8)
        mask[0] = 0
        assert take_mask(mask, (10, 10)).share == 0.9
        mask[0, 0] = 1
        with pytest.raises(InputError, match=r"91 %.*inverted\? White is.*use --invert-mask"):
            take_mask(mask, (10, 10))
        turned = take_mask(mask, (10, 10), invert=True)
        np.testing.assert_array_equal(turned.pixels, 1 - mask)
        assert turned.notes == ("mask inverted: black is what was removed",)
        with pytest.raises(InputError, match=r"91 %.*leave out --invert-mask"):
            take_mask(1 - mask, (10, 10), invert=True)
        with pytest.raises(InputError, match="inverted, the mask is empty"):
            take_mask(np.ones((3, 3), np.uint8), (3, 3), invert=True)

    def test_a_file_of_0_and_1_is_refused_as_in_read_mask(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="0 and 255"):
            take_mask(save(tmp_path / "m.png", np.eye(4, dtype=np.uint8)), (4, 4))

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_transparency_is_refused_and_an_opaque_alpha_is_not(
        self, tmp_path: Path, mode: str
    ) -> None:
        image = Image.fromarray(holes((9, 9), (2, 3, 5, 6)) * 255).convert(mode)
        image.save(tmp_path / "opaque.png")
        assert take_mask(tmp_path / "opaque.png", (9, 9)).pixels.sum() == 9
        image.putalpha(Image.fromarray(np.eye(9, dtype=np.uint8) * 255))
        image.save(tmp_path / "m.png")
        with pytest.raises(ImageError, match=r"m\.png: the mask has transparency.*save it without"):
            take_mask(tmp_path / "m.png", (9, 9))

    def test_masks_of_every_kind_mean_the_same(self, tmp_path: Path) -> None:
        grey = holes((9, 9), (2, 3, 5, 6)) * 255
        data = save(tmp_path / "m.png", grey).read_bytes()
        wide = Image.fromarray(grey.astype(np.uint16) * 257)
        pictures = [Image.fromarray(grey), Image.fromarray(grey > 0), wide]
        for mask in (tmp_path / "m.png", data, io.BytesIO(data), *pictures):
            assert np.array_equal(take_mask(mask, (9, 9)).pixels, grey // 255)
        assert take_mask(data, (9, 9)).sha256 == hashlib.sha256(data).hexdigest()
        assert take_mask(data, (9, 9)).path is None

    @pytest.mark.parametrize(
        ("mask", "remedy"),
        [
            (torch.ones(9, 9), r"give mask\.cpu\(\)\.numpy\(\)"),
            (None, "a NoneType; give a path, bytes"),
            (Image.new("RGBA", (9, 9)), "transparency; give mask.convert"),
            (Image.new("L", (9, 9), 1), "holds 0 and 1; give 0 and 255"),
            (Image.new("F", (9, 9)), "mode F.*scale"),
        ],
    )
    def test_what_is_no_mask_says_what_to_give(self, mask: Any, remedy: str) -> None:
        with pytest.raises(InputError, match=remedy):
            take_mask(mask, (9, 9))


def rotated_wire() -> np.ndarray:
    mask = np.zeros((600, 900), np.uint8)
    for x in range(900):
        mask[x // 2 : x // 2 + 9, x] = 1
    return mask


def disc(size: int, radius: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size // 2
    return (x**2 + y**2 <= radius**2).astype(np.uint8)


def specks(density: float) -> np.ndarray:
    return (np.random.default_rng(1).random((300, 500)) < density).astype(np.uint8)


SHAPES = {
    "two far": holes((900, 1200), (10, 10, 40, 50), (700, 1000, 800, 1100)),
    "wire": rotated_wire(),
    "disc": disc(900, 200),
    "few specks": specks(0.001),
    "many specks": specks(0.3),
    "full width": holes((500, 1500), (200, 0, 260, 1500)),
    "one pixel": holes((1, 1), (0, 0, 1, 1)),
    "corner": holes((777, 555), (776, 554, 777, 555)),
}


class TestWindows:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_each_hole_is_filled_once_within_a_view_of_the_photo(self, shape: str) -> None:
        mask = SHAPES[shape]
        height, width = mask.shape
        left = mask.copy()
        for box, view in find_windows(mask, 256, min_view=256):
            assert left[box.part].any()
            assert np.array_equal(left[box.part], mask[box.part])
            left[box.part] = 0
            assert 0 <= view.top <= box.top < box.bottom <= view.bottom <= height
            assert 0 <= view.left <= box.left < box.right <= view.right <= width
            side = max(view.height, view.width)
            assert (view.height, view.width) == (min(side, height), min(side, width))
            for context, length in ((view.height, height), (view.width, width)):
                longest = max(box.height, box.width)
                around = max(64, longest // 2)
                assert context >= min(length, max(256, longest + 2 * around))
        assert not left.any()

    def test_a_large_hole_stays_whole_and_sees_half_its_side_around(self) -> None:
        ((box, view),) = find_windows(holes((3000, 4000), (1000, 2000, 1300, 2300)), 256)
        assert box == (1000, 2000, 1300, 2300)
        assert view == (850, 1850, 1450, 2450)

    def test_a_small_hole_sees_64_pixels_or_the_least_that_is_asked_for(self) -> None:
        mask = holes((1000, 1000), (500, 500, 510, 520))
        assert find_windows(mask, 256)[0].view == (431, 436, 579, 584)
        assert find_windows(mask, 256, min_view=256)[0].view == (377, 382, 633, 638)

    def test_a_view_at_the_border_is_moved_inwards(self) -> None:
        ((_, view),) = find_windows(holes((400, 900), (0, 890, 10, 900)), 256, min_view=256)
        assert view == (0, 644, 256, 900)

    def test_near_holes_share_a_window_and_far_ones_do_not(self) -> None:
        near = holes((900, 900), (400, 400, 420, 420), (440, 490, 470, 520))
        assert [w.box for w in find_windows(near, 256)] == [(400, 400, 470, 520)]
        far = holes((900, 900), (400, 400, 420, 420), (400, 700, 420, 720))
        assert [w.box for w in find_windows(far, 256)] == [
            (400, 400, 420, 420),
            (400, 700, 420, 720),
        ]

    def test_a_wire_is_filled_in_pieces_that_need_no_scaling(self) -> None:
        windows = find_windows(rotated_wire(), 256)
        assert max(max(w.view.height, w.view.width) for w in windows) <= 256
        assert 900 / 128 <= len(windows) <= 16

    def test_a_thick_or_round_hole_is_not_sliced(self) -> None:
        assert len(find_windows(disc(900, 200), 256)) == 1
        band = holes((1000, 1500), (200, 0, 328, 1500))  # 128 thick: half of the working size
        assert len(find_windows(band, 256)) == 16  # halved until at most 128 long
        band[328] = 1
        assert len(find_windows(band, 256)) == 1

    def test_a_large_hole_is_cut_off_from_a_small_one_beside_it(self) -> None:
        mask = holes((1000, 1000), (100, 100, 500, 500), (300, 510, 310, 520))
        assert [w.box for w in find_windows(mask, 256)] == [
            (100, 100, 500, 500),
            (300, 510, 310, 520),
        ]


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "WEBP"])
def test_a_mask_of_several_pictures_is_refused(tmp_path: Path, kind: str) -> None:
    objects = [np.zeros((20, 30), np.uint8) for _ in range(2)]
    objects[0][2:5, 2:5] = objects[1][12:15, 12:15] = 255  # of which one would stay in the photo
    first, second = map(Image.fromarray, objects)
    first.save(tmp_path / "m", kind, save_all=True, append_images=[second])
    with pytest.raises(ImageError, match="m: the mask holds several pictures"):
        take_mask(tmp_path / "m", (20, 30))
