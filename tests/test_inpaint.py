"""Filling holes: rules for masks, windows, known pixels, names of models, and what is written."""

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import overpaint
from conftest import textured
from handmade import save
from overpaint import weights
from overpaint.errors import ImageError, InputError, OverpaintError, WeightsError
from overpaint.images import read_image, read_mask, write_png
from overpaint.inference.fill import InpainterRunner, check_known, shrink
from overpaint.inference.holes import Box, find_windows, take_mask
from overpaint.inpainters import Inpainter
from overpaint.registry import Entry, inpainters


class Flat(Inpainter):
    """A method without weights: the hole becomes (51, 102, 153)."""

    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        return torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).expand_as(image)


class Spy(Flat):
    """A network by its looks, which keeps the masks that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen: list[Tensor] = []

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        self.seen.append(mask[0, 0])
        return super().forward(image, mask)

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        return [tuple(mask.shape) for mask in self.seen]


class Identity(nn.Module):
    """Returns what it sees, hole included: for testing where a fill lands."""

    working_size: ClassVar[int] = 64

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        return image


FLAT = np.array([51, 102, 153])


@pytest.fixture
def flat(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name under which `Flat` is registered during a test."""
    inpainters.names()  # loads the registry, so that the entry is not lost by loading it later
    monkeypatch.setitem(inpainters._entries, "flat", Entry("flat", Flat, "none", "none"))
    return "flat"


@pytest.fixture(scope="module")
def safepaint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small SafePaint, random ones."""
    torch.manual_seed(0)
    config = {"width": 4, "num_blocks": 1, "vector_size": 5}
    module = inpainters.create("safepaint-small", **config)
    return save_inpainter(tmp_path_factory.mktemp("weights"), module, config).path


def save_inpainter(folder: Path, module: nn.Module, config: dict[str, Any]) -> Any:
    return weights.save_weights(
        folder,
        module,
        name="tiny",
        kind="inpainter",
        architecture="safepaint-small",
        config=config,
        data="none",
        recipe="none",
        commit="none",
        licence="Apache-2.0",
    )


def holes(size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> np.ndarray:
    """A mask with holes at (top, left, bottom, right): uint8 (h, w)."""
    mask = np.zeros(size, np.uint8)
    for box in boxes:
        mask[Box(*box).part] = 1
    return mask


def noise(height: int, width: int) -> np.ndarray:
    """A photo of which hardly a pixel equals another: uint8 (h, w, 3)."""
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


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


def slow_shrink(
    pixels: np.ndarray, hole: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    image, mask = np.zeros((height, width, 3)), np.zeros((height, width))
    for i in range(height):
        rows = slice(
            int(np.floor(i * len(hole) / height)), int(np.ceil((i + 1) * len(hole) / height))
        )
        for j in range(width):
            n = hole.shape[1]
            columns = slice(int(np.floor(j * n / width)), int(np.ceil((j + 1) * n / width)))
            image[i, j] = pixels[rows, columns].mean(axis=(0, 1)) / 255
            mask[i, j] = hole[rows, columns].max()
    return image, mask


class TestScaling:
    @pytest.mark.parametrize("size", [(90, 61), (40, 200), (77, 1), (33, 34)])
    def test_shrinking_covers_the_same_pixels_in_photo_and_mask(
        self, size: tuple[int, int]
    ) -> None:
        rng = np.random.default_rng(3)
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        hole = (rng.random(size) < 0.02).astype(np.uint8)
        image, mask = shrink(pixels, hole, 32)
        assert max(image.shape[2:]) == 32
        expected, its_mask = slow_shrink(pixels, hole, *map(int, image.shape[2:]))
        np.testing.assert_allclose(image[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)
        np.testing.assert_array_equal(mask[0, 0].numpy(), its_mask)

    def test_a_small_window_is_not_scaled(self) -> None:
        pixels = textured(30, 32, seed=1)
        image, mask = shrink(pixels, holes((30, 32), (1, 1, 2, 2)), 32)
        np.testing.assert_array_equal((image[0] * 255).round().permute(1, 2, 0), pixels)
        assert mask.sum() == 1

    @pytest.mark.parametrize("place", [(200, 300), (0, 0), (317, 441)])
    def test_a_scaled_fill_lands_in_its_place(self, place: tuple[int, int]) -> None:
        """A plane stays a plane when it is shrunk and enlarged; a shift would show in its slope."""
        y, x = np.mgrid[:517, :641]
        plane = np.stack([y // 3, x // 3, (x + y) // 6], axis=-1).astype(np.uint8)
        top, left = place
        mask = holes((517, 641), (top, left, top + 200, left + 200))
        done = overpaint.inpaint(plane, mask, model=Identity())
        error = np.abs(done.pixels.astype(int) - plane)[mask == 1]
        assert error.max() <= 3  # three levels are nine pixels, two of the shrunk ones
        assert abs((done.pixels.astype(int) - plane)[mask == 1].mean()) < 0.3


CASES = {
    "several": ((301, 405), [(3, 4, 9, 90), (150, 200, 180, 230), (290, 1, 299, 404)]),
    "corners": ((97, 63), [(0, 0, 9, 9), (90, 55, 97, 63)]),
    "one pixel": ((65, 67), [(33, 34, 34, 35)]),
    "one pixel of a few": ((3, 2), [(1, 1, 2, 2)]),
    "full width": ((333, 700), [(100, 0, 140, 700)]),
    "full height and thick": ((333, 700), [(0, 200, 333, 500)]),
    "larger than the network's size": ((640, 777), [(100, 100, 500, 600)]),
}


class TestKnownPixels:
    @pytest.mark.parametrize("case", CASES)
    def test_they_come_back_bit_for_bit_and_the_hole_is_filled(self, case: str) -> None:
        size, boxes = CASES[case]
        pixels, mask = noise(*size), holes(size, *boxes)
        before = pixels.copy()
        for model in (Flat(), Spy()):
            done = overpaint.inpaint(pixels, mask, model=model)
            assert np.array_equal(done.pixels[mask == 0], before[mask == 0])
            filled = (done.pixels[mask == 1] == FLAT).all(axis=1).mean()
            # Where the fill was enlarged, it runs smoothly into the known pixels.
            assert filled == 1 or (filled > 0.9 and max(size) > 256)
            assert done.num_holes == len(boxes)
        assert np.array_equal(pixels, before)

    def test_they_do_with_a_network_of_random_weights(self, safepaint: Path) -> None:
        pixels = textured(201, 333, seed=3)
        mask = holes((201, 333), (0, 30, 50, 80), (70, 90, 190, 300))
        done = overpaint.inpaint(pixels, mask, model=safepaint, size=128)
        assert np.array_equal(done.pixels[mask == 0], pixels[mask == 0])
        assert (done.pixels != pixels)[mask == 1].mean() > 0.9
        again = overpaint.inpaint(pixels, mask, model=safepaint, size=128)
        assert np.array_equal(done.pixels, again.pixels)

    def test_a_change_of_a_known_pixel_is_an_error(self) -> None:
        photo, mask = noise(9, 9), holes((9, 9), (2, 2, 5, 5))
        filled = photo.copy()
        filled[2:5, 2:5] ^= 1
        check_known(filled, photo, mask)
        filled[8, 8, 2] ^= 1
        with pytest.raises(OverpaintError, match=r"1 known pixels were changed.*report it"):
            check_known(filled, photo, mask)

    def test_of_a_large_photo_only_the_surroundings_are_seen(self) -> None:
        spy, size = Spy(), (2000, 3000)
        mask = holes(size, (100, 100, 140, 130), (1000, 2000, 1300, 2300))
        overpaint.inpaint(np.zeros((*size, 3), np.uint8), mask, model=spy)
        assert spy.sizes == [(256, 256), (256, 256)]
        small, large = (int(mask.sum()) for mask in spy.seen)
        assert small == 40 * 30
        assert large == pytest.approx((300 * 256 / 600) ** 2, rel=0.02)  # its view is 600 wide

    def test_what_is_filled_is_known_to_the_next_window_and_the_rest_is_not(self) -> None:
        spy = Spy()
        overpaint.inpaint(
            np.zeros((300, 1024, 3), np.uint8),
            holes((300, 1024), (100, 0, 110, 1024)),
            model=spy,
        )
        assert spy.sizes == [(256, 256)] * 8
        # Each box is 128 wide, filled from the left. The first view starts where the photo does,
        # the others 64 before their box, but the last, which ends where the photo does.
        known = [int((mask[mask.any(dim=1)][0] == 0).sum()) for mask in spy.seen]
        assert known == [0, 64, 64, 64, 64, 64, 64, 128]

    def test_size_changes_what_the_network_sees(self) -> None:
        mask = holes((700, 700), (200, 200, 500, 500))
        for size in (64, 100, 512):
            spy = Spy()
            overpaint.inpaint(np.zeros((700, 700, 3), np.uint8), mask, model=spy, size=size)
            assert spy.sizes == [(size, size)]
        with pytest.raises(InputError, match="64 to 2048"):
            InpainterRunner(Spy(), size=63)

    def test_a_network_that_gives_nan_is_an_error(self) -> None:
        class Broken(nn.Module):
            def forward(self, image: Tensor, mask: Tensor) -> Tensor:
                return image * torch.nan

        with pytest.raises(WeightsError, match="Broken: the network gave NaN"):
            overpaint.inpaint(noise(9, 9), holes((9, 9), (1, 1, 2, 2)), model=Broken())


class TestModels:
    @pytest.fixture(autouse=True)
    def nothing_shipped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(weights, "PRETRAINED", tmp_path / "pretrained")

    def test_without_the_default_weights_the_error_names_what_can_be_used(self, flat: str) -> None:
        with pytest.raises(WeightsError, match="safepaint-s: there are no such weights") as got:
            overpaint.inpaint(noise(9, 9), holes((9, 9), (1, 1, 2, 2)))
        methods = str(got.value).split("needs none (")[1].split(")")[0].split(", ")
        assert flat in methods
        assert "safepaint" not in methods

    def test_a_registered_network_without_weights_is_never_used(self, flat: str) -> None:
        with pytest.raises(WeightsError, match=r"safepaint-small is a network.*none \(.*flat"):
            overpaint.load_inpainter("safepaint-small")

    def test_a_method_without_weights_is_used_by_name(self, flat: str) -> None:
        assert isinstance(overpaint.load_inpainter(flat), Flat)
        done = overpaint.inpaint(noise(9, 9), holes((9, 9), (1, 1, 2, 2)), model=flat)
        assert (done.model, done.weights_sha256) == ("flat", None)
        assert (done.path, done.receipt, done.notes) == (None, None, ())
        assert done.words == "1 hole, 1.2 % of the photo, filled in by flat"

    def test_shipped_weights_are_used_by_name_and_others_by_path(
        self, safepaint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(weights, "PRETRAINED", safepaint.parent)
        by_name, by_path = (overpaint.load_inpainter(name) for name in ("tiny", safepaint))
        assert not by_name.training
        states = by_name.state_dict(), by_path.state_dict()
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
        runner = InpainterRunner("tiny")
        assert runner.name == "tiny"
        assert runner.weights_sha256 == hashlib.sha256(safepaint.read_bytes()).hexdigest()
        with pytest.raises(WeightsError, match=r"use shipped weights \(tiny\)"):
            overpaint.load_inpainter("tyni")

    def test_weights_of_a_detector_are_refused(self, tmp_path: Path, safepaint: Path) -> None:
        record = json.loads(safepaint.with_suffix(".json").read_text()) | {"kind": "detector"}
        (tmp_path / "d.json").write_text(json.dumps(record))
        with pytest.raises(WeightsError, match="kind 'detector', not 'inpainter'"):
            overpaint.load_inpainter(tmp_path / "d.json")

    def test_replaced_weights_are_loaded_anew(self, tmp_path: Path) -> None:
        config = {"width": 2, "num_blocks": 1, "vector_size": 1}
        photo, mask = textured(70, 70, seed=1), holes((70, 70), (20, 20, 30, 30))
        results = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            save_inpainter(tmp_path, inpainters.create("safepaint-small", **config), config)
            results.append(overpaint.inpaint(photo, mask, model=tmp_path / "tiny.json"))
        assert results[0].weights_sha256 != results[1].weights_sha256
        assert not np.array_equal(results[0].pixels, results[1].pixels)


class TestFiles:
    @pytest.fixture
    def files(self, tmp_path: Path) -> tuple[Path, Path, Path]:
        """Photo, mask (one hole of 20 x 30) and a place for the result."""
        photo, mask = tmp_path / "p.jpg", tmp_path / "m.png"
        save(photo, textured(96, 128, seed=4), quality=91)
        write_png(mask, holes((96, 128), (40, 50, 60, 80)) * 255)
        return photo, mask, tmp_path / "out.png"

    def test_the_file_holds_the_pixels_and_the_receipt_says_how(
        self, files: tuple[Path, Path, Path], flat: str
    ) -> None:
        photo, mask, out = files
        done = overpaint.inpaint(photo, mask, model=flat, out=out)
        before = read_image(photo).pixels
        assert np.array_equal(read_image(out).pixels, done.pixels)
        assert np.array_equal(done.pixels[done.mask == 0], before[done.mask == 0])
        assert done.path == out
        assert done.receipt is not None
        receipt = json.loads(done.receipt.read_text())
        assert receipt["mask_sha256"] == hashlib.sha256(mask.read_bytes()).hexdigest()
        assert (receipt["model"], receipt["weights_sha256"]) == ("flat", None)
        assert receipt["parameters"] == {"working_size": 1024, "invert_mask": False}
        assert b"compositeWithTrainedAlgorithmicMedia" in out.read_bytes()

    def test_the_mask_is_that_of_the_upright_photo(self, tmp_path: Path, flat: str) -> None:
        upright = np.zeros((40, 60, 3), np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6  # stored lying on its side
        Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "p.png", exif=exif)
        mask = holes((40, 60), (0, 40, 10, 60))  # at the top right as one sees it
        done = overpaint.inpaint(tmp_path / "p.png", mask, model=flat, out=tmp_path / "o.png")
        written = read_image(tmp_path / "o.png").pixels
        assert (written[:10, 40:] == FLAT).all()
        assert not written[mask == 0].any()
        assert any("upright" in note for note in done.notes)
        lying = save(tmp_path / "m.png", np.rot90(mask * 255).copy())
        with pytest.raises(ImageError, match=r"60 x 40.*upright"):
            overpaint.inpaint(tmp_path / "p.png", lying, model=flat)

    def test_jpeg_is_written_for_a_jpeg_name(
        self, files: tuple[Path, Path, Path], flat: str
    ) -> None:
        photo, mask, out = files
        done = overpaint.inpaint(photo, mask, model=flat, out=out.with_suffix(".jpg"))
        written = read_image(out.with_suffix(".jpg"))
        assert (written.format, written.jpeg_quality) == ("JPEG", 91)
        assert np.abs(written.pixels.astype(int) - done.pixels).mean() < 4
        assert any("JPEG" in note for note in done.notes)

    def test_an_input_is_never_written_over(
        self, files: tuple[Path, Path, Path], flat: str
    ) -> None:
        photo, mask, out = files
        out.symlink_to(photo)
        before = photo.read_bytes(), mask.read_bytes()
        for name in (photo, mask, out):
            with pytest.raises(ImageError, match="input and is never written over"):
                overpaint.inpaint(photo, mask, model=flat, out=name, overwrite=True)
        assert (photo.read_bytes(), mask.read_bytes()) == before

    def test_only_an_earlier_result_is_replaced_and_only_when_asked(
        self, files: tuple[Path, Path, Path], flat: str
    ) -> None:
        photo, mask, out = files
        out.write_bytes(b"somebody's")
        for overwrite, reason in ((False, "--overwrite"), (True, "no receipt")):
            with pytest.raises(ImageError, match=rf"out\.png: .*{reason}"):
                overpaint.inpaint(photo, mask, model=flat, out=out, overwrite=overwrite)
        assert out.read_bytes() == b"somebody's"
        out.unlink()
        overpaint.inpaint(photo, mask, model=flat, out=out)
        first = out.read_bytes()
        with pytest.raises(ImageError, match="--overwrite"):
            overpaint.inpaint(photo, mask, model=flat, out=out)
        assert out.read_bytes() == first
        again = overpaint.inpaint(photo, read_mask(mask)[::-1], model=flat, out=out, overwrite=True)
        assert np.array_equal(read_image(out).pixels, again.pixels)
        assert out.read_bytes() != first

    def test_what_would_stop_the_writing_is_found_before_the_filling(
        self, files: tuple[Path, Path, Path]
    ) -> None:
        photo, mask, out = files
        spy = Spy()
        for name, reason in ((out.with_suffix(".webp"), r"\.png or"), (out / "x.png", "folder")):
            with pytest.raises(ImageError, match=reason):
                overpaint.inpaint(photo, mask, model=spy, out=name)
        with pytest.raises(InputError, match="path of a photo"):
            overpaint.inpaint(textured(96, 128, 0), mask, model=spy, out=out)
        assert spy.seen == []
        assert not out.exists()

    def test_path_array_and_pil_image_give_the_same(
        self, files: tuple[Path, Path, Path], flat: str
    ) -> None:
        photo, mask, _ = files
        kinds = photo, read_image(photo).pixels, Image.open(photo)
        results = [overpaint.inpaint(kind, mask, model=flat).pixels for kind in kinds]
        assert all(np.array_equal(result, results[0]) for result in results)
