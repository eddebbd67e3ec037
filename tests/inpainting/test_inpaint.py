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
from helpers.edited_pictures import STORE, with_manifests
from helpers.handmade import save
from helpers.holed import holes, noise
from helpers.random_weights import save_random
from overpaint import weights
from overpaint.errors import ImageError, InputError, OverpaintError, WeightsError
from overpaint.images import read_image, read_mask, write_png
from overpaint.inpainters import Inpainter
from overpaint.inpainting.api import Inpainted, inpaint_file
from overpaint.inpainting.inpainter_runner import InpainterRunner, check_known, shrink
from overpaint.provenance.checking import check_file
from overpaint.provenance.marking import Edited, read_source
from overpaint.provenance.metadata import read_xmp
from overpaint.provenance.xmp import COMPOSITE, HUMAN_EDITS, read_mark
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
    inpainters.list_names()  # loads the registry, so that the entry is not lost by loading it later
    monkeypatch.setitem(
        inpainters._entries, "flat", Entry("flat", Flat, "none", "none", trainable=False)
    )
    return "flat"


@pytest.fixture(scope="module")
def safepaint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small SafePaint, random ones."""
    torch.manual_seed(0)
    config = {"width": 4, "num_blocks": 1, "vector_size": 5}
    module = inpainters.create("safepaint", **config)
    return save_inpainter(tmp_path_factory.mktemp("weights"), module, config).path


def save_inpainter(folder: Path, module: nn.Module, config: dict[str, Any]) -> Any:
    return save_random(folder, "inpainter", "safepaint", config, "tiny", module)


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
            done = overpaint.inpaint(pixels, mask, model=model, dilate=0)
            assert np.array_equal(done.pixels[mask == 0], before[mask == 0])
            filled = (done.pixels[mask == 1] == FLAT).all(axis=1).mean()
            # Where the fill was enlarged, it runs smoothly into the known pixels.
            assert filled == 1 or (filled > 0.9 and max(size) > 256)
            assert done.num_holes == len(boxes)
            assert "array(" not in repr(done)
        assert np.array_equal(pixels, before)

    def test_they_do_with_a_network_of_random_weights(self, safepaint: Path) -> None:
        pixels = textured(201, 333, seed=3)
        mask = holes((201, 333), (0, 30, 50, 80), (70, 90, 190, 300))
        done = overpaint.inpaint(pixels, mask, model=safepaint, size=128, dilate=0)
        assert np.array_equal(done.pixels[mask == 0], pixels[mask == 0])
        assert (done.pixels != pixels)[mask == 1].mean() > 0.9
        again = overpaint.inpaint(pixels, mask, model=safepaint, size=128, dilate=0)
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
        overpaint.inpaint(np.zeros((*size, 3), np.uint8), mask, model=spy, dilate=0)
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
            dilate=0,
        )
        assert spy.sizes == [(256, 256)] * 8
        # Each box is 128 wide, filled from the left. The first view starts where the photo does,
        # the others 64 before their box, but the last, which ends where the photo does.
        known = [int((mask[mask.any(dim=1)][0] == 0).sum()) for mask in spy.seen]
        assert known == [0, 64, 64, 64, 64, 64, 64, 128]

    @pytest.mark.parametrize("known", [slice(1500, None), slice(0, 200)])
    def test_a_hole_over_a_whole_side_is_filled_inwards_from_what_is_known(
        self, known: slice
    ) -> None:
        photo = np.full((80, 1700, 3), (200, 60, 40), np.uint8)
        mask = np.ones((80, 1700), np.uint8)
        mask[:, known] = 0
        done = overpaint.inpaint(photo, mask, model="mean", size=200, dilate=0)
        assert done.num_windows > 5
        assert np.array_equal(done.pixels, photo)

    def test_what_is_too_thin_to_be_seen_in_a_scaled_window_is_an_error(self) -> None:
        photo = np.full((700, 700, 3), (200, 60, 40), np.uint8)
        mask = np.ones((700, 700), np.uint8)
        mask[::3, ::3] = 0
        window = InpainterRunner("mean", size=64)._fill
        with pytest.raises(InputError, match="too thin to be seen at a working size of 64"):
            window(photo, mask)

    def test_size_changes_what_the_network_sees(self) -> None:
        mask = holes((700, 700), (200, 200, 500, 500))
        for size in (64, 100, 512):
            spy = Spy()
            photo = np.zeros((700, 700, 3), np.uint8)
            overpaint.inpaint(photo, mask, model=spy, size=size, dilate=0)
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
        monkeypatch.setattr(weights.store, "PRETRAINED", tmp_path / "pretrained")

    def test_without_the_shipped_weights_the_error_names_what_can_be_used(self, flat: str) -> None:
        with pytest.raises(WeightsError, match="safepaint-s: there are no such weights") as got:
            overpaint.inpaint(noise(9, 9), holes((9, 9), (1, 1, 2, 2)), model="safepaint-s")
        methods = str(got.value).split("needs none (")[1].split(")")[0].split(", ")
        assert flat in methods
        assert "safepaint" not in methods

    def test_a_registered_network_without_weights_is_never_used(self, flat: str) -> None:
        with pytest.raises(WeightsError, match=r"safepaint is a network.*none \(.*flat"):
            overpaint.load_inpainter("safepaint")

    def test_a_method_without_weights_is_used_by_name(self, flat: str) -> None:
        assert isinstance(overpaint.load_inpainter(flat), Flat)
        done = overpaint.inpaint(noise(9, 9), holes((9, 9), (1, 1, 2, 2)), model=flat)
        assert (done.model, done.weights_sha256) == ("flat", None)
        assert (done.path, done.receipt, done.notes) == (None, None, ())
        assert done.words == "1 hole, 1.2 % of the photo, filled in by flat"

    def test_shipped_weights_are_used_by_name_and_others_by_path(
        self, safepaint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(weights.store, "PRETRAINED", safepaint.parent)
        by_name, by_path = (overpaint.load_inpainter(name) for name in ("tiny", safepaint))
        assert not by_name.training
        states = by_name.state_dict(), by_path.state_dict()
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
        runner = InpainterRunner("tiny")
        assert runner.name == "tiny"
        assert runner.weights_sha256 == hashlib.sha256(safepaint.read_bytes()).hexdigest()
        with pytest.raises(WeightsError, match=r"weights that are here \(tiny\)"):
            overpaint.load_inpainter("tyni")

    def test_weights_of_a_detector_are_refused(self, tmp_path: Path, safepaint: Path) -> None:
        record = json.loads(safepaint.with_suffix(".json").read_text()) | {"kind": "detector"}
        path = tmp_path / safepaint.with_suffix(".json").name
        path.write_text(json.dumps(record))
        with pytest.raises(WeightsError, match="kind 'detector', not 'inpainter'"):
            overpaint.load_inpainter(path)

    def test_replaced_weights_are_loaded_anew(self, tmp_path: Path) -> None:
        config = {"width": 2, "num_blocks": 1, "vector_size": 1}
        photo, mask = textured(70, 70, seed=1), holes((70, 70), (20, 20, 30, 30))
        results = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            save_inpainter(tmp_path, inpainters.create("safepaint", **config), config)
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
        how = {"working_size": 1024, "invert_mask": False, "dilate": 1, "flatten": None}
        assert receipt["parameters"] == how
        assert b"digitalsourcetype/humanEdits" in out.read_bytes()

    def test_the_mask_is_that_of_the_upright_photo(self, tmp_path: Path, flat: str) -> None:
        upright = np.full((40, 60, 3), (1, 0, 0), np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6  # stored lying on its side
        Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "p.png", exif=exif)
        mask = holes((40, 60), (0, 40, 10, 60))  # at the top right as one sees it
        done = overpaint.inpaint(tmp_path / "p.png", mask, model=flat, out=tmp_path / "o.png")
        written = read_image(tmp_path / "o.png").pixels
        assert (written[:10, 40:] == FLAT).all()
        assert (written[mask == 0] == (1, 0, 0)).all()
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

    @pytest.mark.parametrize("name", ["out.png", "out.png.receipt.json"])
    def test_a_link_to_nothing_is_not_replaced(
        self, files: tuple[Path, Path, Path], flat: str, name: str
    ) -> None:
        photo, mask, out = files
        link = out.with_name(name)
        link.symlink_to("elsewhere")
        for overwrite, reason in ((False, "--overwrite"), (True, "no receipt")):
            with pytest.raises(ImageError, match=reason):
                overpaint.inpaint(photo, mask, model=flat, out=out, overwrite=overwrite)
        assert link.is_symlink()
        assert not link.exists()

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that refuses all files")
    def test_what_cannot_be_written_is_refused_before_the_work(
        self, files: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("overpaint.inpainting.api.read_source", lambda _: pytest.fail("read"))
        with pytest.raises(ImageError, match=r"/proc/out\.png: cannot be written"):
            overpaint.inpaint(*files[:2], model="mean", out="/proc/out.png")

    def test_manifests_of_a_replaced_result_do_not_stay_beside_the_new_one(
        self, files: tuple[Path, Path, Path], flat: str
    ) -> None:
        photo, mask, out = files
        plain = photo.with_name("plain.png")
        write_png(plain, read_image(photo).pixels)
        photo.write_bytes(with_manifests(photo.read_bytes()))
        beside = out.with_name("out.png.source.c2pa")
        overpaint.inpaint(photo, mask, model=flat, out=out)
        assert beside.read_bytes() == STORE
        overpaint.inpaint(plain, mask, model=flat, out=out, overwrite=True)
        assert not beside.exists()
        assert check_file(out)["failed"] == []
        overpaint.inpaint(photo, mask, model=flat, out=out, overwrite=True)
        assert beside.read_bytes() == STORE

    def test_manifests_that_no_receipt_names_are_somebody_elses(
        self, files: tuple[Path, Path, Path], flat: str
    ) -> None:
        photo, mask, out = files
        beside = out.with_name("out.png.source.c2pa")
        beside.write_bytes(b"somebody's")
        with pytest.raises(ImageError, match=r"out\.png\.source\.c2pa: has no receipt.*remove"):
            overpaint.inpaint(photo, mask, model=flat, out=out, overwrite=True)
        beside.unlink()
        overpaint.inpaint(photo, mask, model=flat, out=out)
        beside.write_bytes(b"somebody's")
        assert "does not name out.png.source.c2pa" in check_file(out)["failed"][0]
        with pytest.raises(ImageError, match="does not name it; move it away"):
            overpaint.inpaint(photo, mask, model=flat, out=out, overwrite=True)
        assert beside.read_bytes() == b"somebody's"

    @pytest.mark.parametrize("colour", [(1, 2, 3), 0, b"red", "", "reddish", "#ff000080"])
    def test_a_background_that_is_no_colour_is_named_with_what_to_give(
        self, files: tuple[Path, Path, Path], flat: str, colour: Any
    ) -> None:
        photo, mask, out = files
        for where in (None, out):
            with pytest.raises(InputError, match=r"colour .*give a name such as white, or #rrggbb"):
                overpaint.inpaint(photo, mask, model=flat, out=where, flatten=colour)
        with pytest.raises(InputError, match=r"colour .*give a name"):
            inpaint_file(read_source(photo), mask, out, model=flat, flatten=colour)
        assert not out.exists()

    def test_what_would_stop_the_writing_is_found_before_the_filling(
        self, files: tuple[Path, Path, Path]
    ) -> None:
        photo, mask, out = files
        spy = Spy()
        no_names = [out.with_name("ü" * n + ".png") for n in (122, 200)]  # without the receipt, too
        no_names.append(out.parent / ("x" * 300) / "x.png")
        reasons = {out.with_suffix(".gif"): r"\.png, ", out / "x.png": "folder"}
        reasons |= dict.fromkeys(no_names, r"too long\); choose a shorter one")
        for name, reason in reasons.items():
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

    def test_the_alpha_of_a_pil_image_is_kept_or_laid_on_a_colour(self, flat: str) -> None:
        values = np.random.default_rng(0).integers(0, 256, (30, 40, 4), dtype=np.uint8)
        values[:, :10, 3], mask = 0, holes((30, 40), (5, 20, 15, 30))
        how: dict[str, Any] = {"model": flat, "dilate": 0}
        done = overpaint.inpaint(Image.fromarray(values), mask, **how)
        assert np.array_equal(done.samples[mask == 0], values[mask == 0])
        assert np.array_equal(done.samples[..., 3], values[..., 3])
        laid = overpaint.inpaint(Image.fromarray(values), mask, flatten="white", **how)
        assert laid.samples.shape == (30, 40, 3)
        assert (laid.samples[:, :10] == 255).all()
        grey = overpaint.inpaint(Image.fromarray(values[..., 0]), mask, **how)
        assert "grey copied to three channels" in grey.notes


class TestMark:
    """Which tool filled a hole decides what the mark may say of it."""

    def test_of_a_network(self, tmp_path: Path, safepaint: Path, photo: np.ndarray) -> None:
        done, edited = _marked_by(safepaint, tmp_path, photo)
        assert done.trained
        assert edited.receipt["digital_source_type"] == COMPOSITE
        mark = read_mark(read_xmp(edited.data, tmp_path / "out.png")[1])
        assert mark.source_type == COMPOSITE

    def test_of_a_method_without_weights(self, tmp_path: Path, photo: np.ndarray) -> None:
        done, edited = _marked_by("mean", tmp_path, photo)
        assert not done.trained
        assert edited.receipt["digital_source_type"] == HUMAN_EDITS
        mark = read_mark(read_xmp(edited.data, tmp_path / "out.png")[1])
        assert mark.source_type == HUMAN_EDITS


def _marked_by(model: str | Path, folder: Path, photo: np.ndarray) -> tuple[Inpainted, Edited]:
    write_png(folder / "photo.png", photo)
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[20:40, 20:40] = 255
    source = read_source(folder / "photo.png")
    return inpaint_file(source, mask, folder / "out.png", model=model)
