"""The benchmark of inpainters: its cases, its numbers, its rows and tables, and the two recipes."""

import importlib.util
import math
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from conftest import textured
from overpaint.data.masks import brush, find_ratio_bin, hole_ratio
from overpaint.data.sources import PhotoSource
from overpaint.detection.runner import DetectorRunner
from overpaint.errors import ConfigError, ImageError, WeightsError
from overpaint.evaluation import inpainting, known_pixels, tables
from overpaint.evaluation.inpainting import (
    BINS,
    UNTOUCHED,
    Case,
    FillScorers,
    InpaintingSettings,
    Method,
    draw_cases,
    draw_free_form,
    list_default_methods,
    load_method,
    make_rows,
    measure_inpainters,
    measure_method,
)
from overpaint.evaluation.rows import (
    Picture,
    Row,
    Source,
    find_pictures_file,
    read_pictures,
    read_rows,
    write_results,
)
from overpaint.images import write_png
from overpaint.inpainters.base import Inpainter
from overpaint.inpainting.api import inpaint
from overpaint.layers.perceptual import Backbone
from overpaint.metrics import EQUAL_PSNR
from overpaint.registry import inpainters

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TOY = "test-flat"
SIZE = 64
SETTINGS = InpaintingSettings(size=SIZE, bins=("10-20", "40-50"), num=3)
SOURCE = Source("inpainting", "toy", "c0ffee", "abc", "", "as in the test")


class Flat(Inpainter):
    """Fills every hole with mid-grey, level 128."""

    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        return torch.full_like(image, 128 / 255)


class Grey(torch.nn.Module):
    """A detector that takes level 128 for filled: logit 1 there, -1 elsewhere."""

    stride = 1

    def forward(self, image: Tensor) -> Tensor:
        return 2 * ((image - 128 / 255).abs().amax(dim=1, keepdim=True) < 1e-3).float() - 1


class Pixels(Backbone):
    """A backbone whose one feature is the picture."""

    perceptual_layers = ("pixels",)

    def forward(self, image: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        return dict.fromkeys(layers, image)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a registered inpainter without weights, for the time of one test."""
    inpainters.list_names()  # so that the registry is full before it is copied
    monkeypatch.setattr(inpainters, "_entries", dict(inpainters._entries))
    inpainters.register(TOY, Flat, paper="none", licence="Apache-2.0", trainable=False)
    return TOY


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with 40 photos; one in five is too small for a crop."""
    folder = tmp_path / "data" / "photos" / "made"
    folder.mkdir(parents=True)
    for i in range(40):
        height = 48 if i % 5 == 0 else 72
        write_png(folder / f"{i}.png", textured(height, 80, seed=i))
    return tmp_path / "data"


def source(data: Path) -> PhotoSource:
    return PhotoSource.from_paths([data / "photos"])


def square(level: int) -> Case:
    """A photo of one level, 20 x 20, with a hole of 10 x 10."""
    mask = np.zeros((20, 20), np.uint8)
    mask[5:15, 5:15] = 1
    return Case("made/one.png", "20-30", np.full((20, 20, 3), level, np.uint8), mask)


class TestCases:
    @pytest.mark.parametrize("label", InpaintingSettings().bins)
    def test_a_hole_lies_in_its_bin(self, label: str) -> None:
        rng = np.random.default_rng(1)
        for _ in range(3):
            assert find_ratio_bin(draw_free_form(SIZE, label, rng)) == label

    def test_a_hole_is_made_of_brushes_laid_over_each_other(self) -> None:
        strokes = np.random.default_rng(3)
        mask = brush(SIZE, SIZE, strokes)
        while hole_ratio(mask) < 0.4:
            mask |= brush(SIZE, SIZE, strokes)
        assert find_ratio_bin(mask) == "40-50"  # with this seed, the first try
        assert np.array_equal(draw_free_form(SIZE, "40-50", np.random.default_rng(3)), mask)

    def test_every_photo_stands_once_in_each_bin(self, data: Path) -> None:
        cases = draw_cases(source(data), SETTINGS)
        assert Counter(c.bin for c in cases) == {"10-20": 3, "40-50": 3}
        assert all(find_ratio_bin(c.mask) == c.bin for c in cases)
        assert set(Counter(c.name for c in cases).values()) == {2}
        for one, other in zip(cases[::2], cases[1::2], strict=True):
            assert one.name == other.name
            assert np.array_equal(one.photo, other.photo)

    def test_crops_are_parts_of_photos_that_are_large_enough(self, data: Path) -> None:
        cases = draw_cases(source(data), InpaintingSettings(size=SIZE, bins=("10-20",), num=99))
        assert len(cases) == 32  # of 40, and no more than there are
        pixels = textured(72, 80, seed=int(Path(cases[0].name).stem))
        windows = np.lib.stride_tricks.sliding_window_view(pixels, (SIZE, SIZE), axis=(0, 1))
        wanted = np.moveaxis(cases[0].photo, 2, 0)
        assert (windows == wanted).all(axis=(2, 3, 4)).any()

    def test_the_same_seed_gives_the_same_cases(self, data: Path) -> None:
        one, same = (draw_cases(source(data), SETTINGS) for _ in range(2))
        other = draw_cases(source(data), InpaintingSettings(SIZE, SETTINGS.bins, 3, seed=1))
        assert [c.name for c in one] == [c.name for c in same] != [c.name for c in other]
        pairs = list(zip(one, same, strict=True))
        assert all(np.array_equal(a.photo, b.photo) for a, b in pairs)
        assert all(np.array_equal(a.mask, b.mask) for a, b in pairs)

    def test_a_photo_keeps_its_hole_when_bins_are_left_out(self, data: Path) -> None:
        both = draw_cases(source(data), SETTINGS)
        fewer = draw_cases(source(data), InpaintingSettings(SIZE, ("40-50",), 3))
        for one, other in zip(both[1::2], fewer, strict=True):
            assert np.array_equal(one.mask, other.mask)

    def test_what_cannot_be_measured_is_refused(self, data: Path) -> None:
        with pytest.raises(ImageError, match="has 500 pixels"):
            draw_cases(source(data), InpaintingSettings(size=500))
        with pytest.raises(ConfigError, match="no bin is called '15-25'"):
            InpaintingSettings(bins=("15-25",))
        with pytest.raises(ConfigError, match="at least one photo"):
            InpaintingSettings(num=0)


class TestMethods:
    def test_the_default_ones_need_no_weights_or_have_them(self, toy: str) -> None:
        names = list(list_default_methods())
        assert names[0] == UNTOUCHED
        assert toy in names
        assert "safepaint" not in names  # a network with random weights

    def test_a_fill_is_the_composed_picture(self, toy: str, photo: np.ndarray) -> None:
        mask = np.zeros(photo.shape[:2], np.uint8)
        mask[10:20, 5:9] = 1
        filled = load_method("shown as", toy)(photo, mask)
        assert (filled[mask == 1] == 128).all()
        assert np.array_equal(filled[mask == 0], photo[mask == 0])
        assert np.array_equal(load_method(UNTOUCHED)(photo, mask), photo)


class TestNumbers:
    def test_by_hand(self, toy: str) -> None:
        """A quarter of the values is off by 28 levels."""
        scorers = FillScorers(Pixels(), None, {"grey": DetectorRunner(Grey())})
        quality, traces = measure_method(load_method(toy), [square(100)], scorers)
        assert quality.method == "20-30"
        assert quality.numbers["psnr"] == pytest.approx(20 * math.log10(255 / 14))
        assert quality.numbers["l1"] == pytest.approx(7 / 255)
        assert quality.numbers["vgg-distilled"] == pytest.approx(7 / 255)
        assert 0 < quality.numbers["ssim"] < 1
        assert "lpips-alex" not in quality.numbers  # no stand-in without its weights
        assert traces.method == "20-30, grey"
        assert traces.numbers["auc"] == 1.0
        assert traces.numbers["f1@0.5"] == 1.0

    def test_an_equal_picture_has_a_finite_psnr(self, toy: str) -> None:
        (picture,) = measure_method(load_method(toy), [square(128)], FillScorers())
        assert picture.numbers["psnr"] == EQUAL_PSNR
        assert picture.numbers["l1"] == 0
        assert picture.numbers["ssim"] == pytest.approx(1)

    def test_nothing_beats_an_equal_picture(self) -> None:
        photo = np.zeros((256, 256, 3), np.uint8)
        other = photo.copy()
        other[0, 0, 0] = 1
        assert FillScorers().measure_quality(other, photo)["psnr"] <= EQUAL_PSNR

    def test_the_untouched_photo_shows_what_no_trace_is(self) -> None:
        scorers = FillScorers(detectors={"grey": DetectorRunner(Grey())})
        _, traces = measure_method(load_method(UNTOUCHED), [square(100)], scorers)
        assert traces.numbers["auc"] == 0.5


class TestRows:
    def test_all_bins_are_averaged_photo_by_photo(self) -> None:
        values = {("a", "10-20"): 20.0, ("a", "20-30"): 10.0, ("b", "10-20"): 40.0}
        pictures = [
            Picture("inpainting", label, "toy", name, {"psnr": value})
            for (name, label), value in values.items()
        ]
        rows = {r.method: r for r in make_rows(SOURCE, pictures)}
        assert (rows["10-20"].value, rows["10-20"].n) == (30.0, 2)
        assert (rows["all"].value, rows["all"].n) == (27.5, 2)  # of photos: 15 and 40
        assert (rows["all"].ci_low, rows["all"].ci_high) == (15.0, 40.0)

    def test_one_detector_a_row(self) -> None:
        pictures = [
            Picture("inpainting", f"10-20, {name}", "toy", "a", {"auc": value, "q99": 3.0})
            for name, value in (("one", 0.5), ("two", 0.75))
        ]
        rows = {(r.method, r.metric): r.value for r in make_rows(SOURCE, pictures)}
        assert rows == {
            ("10-20, one", "auc"): 0.5,
            ("10-20, two", "auc"): 0.75,
            ("all, one", "auc"): 0.5,
            ("all, two", "auc"): 0.75,
        }


class TestWholeBenchmark:
    @pytest.fixture
    def spied(self, data: Path, toy: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Case]]:
        """The cases that each method was measured on, filled in by the run."""
        seen: dict[str, list[Case]] = {}
        measure = inpainting.measure_method

        def spy(method: Method, cases: list[Case], scorers: FillScorers) -> list[Picture]:
            seen[method.name] = list(cases)
            return measure(method, cases, scorers)

        monkeypatch.setattr(inpainting, "measure_method", spy)
        monkeypatch.setattr(inpainting, "find_test_photos", lambda folder, seed: source(folder))
        return seen

    def run(self, data: Path, out: Path, **methods: str) -> list[Row]:
        return measure_inpainters(methods, data, out, detectors={}, settings=SETTINGS)

    def test_methods_get_the_same_cases_and_rows_are_reproducible(
        self, data: Path, tmp_path: Path, toy: str, spied: dict[str, list[Case]]
    ) -> None:
        first = self.run(data, tmp_path / "r", flat=toy, untouched=UNTOUCHED)
        cases = spied["flat"]
        assert [id(c) for c in cases] == [id(c) for c in spied["untouched"]]
        assert all(find_ratio_bin(c.mask) == c.bin for c in cases)
        assert self.run(data, tmp_path / "again", flat=toy, untouched=UNTOUCHED) == first
        values = {(r.weights, r.method, r.metric): r for r in first}
        assert values["flat", "10-20", "psnr"].value > values["flat", "40-50", "psnr"].value
        assert values["untouched", "40-50", "psnr"].value == EQUAL_PSNR
        assert values["flat", "10-20", "psnr"].n == values["flat", "all", "psnr"].n == 3

    def test_an_inpainter_measured_anew_replaces_its_own_rows_only(
        self, data: Path, tmp_path: Path, toy: str, spied: dict[str, list[Case]]
    ) -> None:
        out = tmp_path / "r"
        first = self.run(data, out, flat=toy, untouched=UNTOUCHED)
        self.run(data, out, flat=toy)
        rows = read_rows(out / "inpainting.csv")
        assert Counter(r.weights for r in rows) == Counter(r.weights for r in first)
        pictures = [
            p for p in read_pictures(find_pictures_file(out, "inpainting")) if p.weights == "flat"
        ]
        l1 = [p.numbers["l1"] for p in pictures if p.method == "10-20"]
        (row,) = [r for r in rows if (r.weights, r.method, r.metric) == ("flat", "10-20", "l1")]
        assert row.value == pytest.approx(np.mean(l1), rel=1e-4)

    def test_weights_are_read_before_the_first_picture_is_filled(
        self, data: Path, tmp_path: Path, toy: str, spied: dict[str, list[Case]]
    ) -> None:
        with pytest.raises(WeightsError):
            self.run(data, tmp_path / "r", flat=toy, lost=str(tmp_path / "lost.safetensors"))
        assert not spied


class TestTables:
    @pytest.fixture
    def results(self, tmp_path: Path) -> Path:
        for name, value in (("telea", 20.0), ("mean", 10.0), (UNTOUCHED, EQUAL_PSNR)):
            pictures = [Picture("inpainting", "10-20", name, "a", {"psnr": value})]
            seen = Picture("inpainting", "10-20, nixnet-s", name, "a", {"auc": value / 40})
            named = Source("inpainting", name, "c", "h", "", "p")
            write_results(tmp_path, make_rows(named, [*pictures, seen]), [])
        return tmp_path

    def test_one_inpainter_a_line_and_one_bin_a_column(self, results: Path) -> None:
        psnr = tables.render("inpainting", results).splitlines()
        assert psnr[0] == "| PSNR by hole | 10-20 % | 20-30 % | 30-40 % | 40-50 % | 50-60 % | all |"
        assert psnr[2] == "| telea | 20.0 dB | n/a | n/a | n/a | n/a | 20.0 dB |"
        assert psnr[3].startswith("| mean | 10.0 dB |")
        assert psnr[4].startswith("| untouched | equal |")
        auc = tables.render("inpainting-auc", results).splitlines()
        assert auc[2] == "| telea | 0.500 | n/a | n/a | n/a | n/a | 0.500 |"

    def test_named_weights_are_shown_in_the_order_of_their_names(self, results: Path) -> None:
        lines = tables.render("inpainting", results, "mean,telea").splitlines()
        assert [line.split(" | ")[0] for line in lines[2:]] == ["| mean", "| telea"]
        with pytest.raises(ConfigError, match="inpainting meen; measure it"):
            tables.render("inpainting", results, "telea,meen")

    def test_lpips_without_its_weights_is_not_available(self, results: Path) -> None:
        lines = tables.render("inpainting-lpips", results).splitlines()
        names = ("telea", "mean", UNTOUCHED)
        assert lines[2:] == [f"| {n} | n/a | n/a | n/a | n/a | n/a | n/a |" for n in names]

    def test_every_bin_of_a_table_can_be_measured(self) -> None:
        assert set(InpaintingSettings().bins) <= set(BINS)
        for name in ("inpainting", "inpainting-vgg"):
            assert set(tables.LAYOUTS[name].columns) == {*InpaintingSettings().bins, "all"}


class TestKnownPixels:
    @pytest.fixture
    def photo_file(self, tmp_path: Path, photo: np.ndarray) -> Path:
        write_png(tmp_path / "photo.png", photo)
        return tmp_path / "photo.png"

    def test_none_is_changed_in_the_written_file(
        self, photo_file: Path, toy: str, photo: np.ndarray
    ) -> None:
        mask = brush(photo.shape[0], photo.shape[1], np.random.default_rng(0))
        found = known_pixels.count_changed(photo_file, mask, toy, photo_file.with_name("out.png"))
        known = (
            inpaint(photo_file, mask, model=toy).mask == 0
        )  # without the ring that was filled, too
        assert 0.5 < known.mean() < (mask == 0).mean()
        assert found == (0, int(known.sum()))

    def test_a_changed_pixel_is_counted(
        self, photo_file: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def careless(path: Path, mask: np.ndarray, *, model: str, out: Path) -> SimpleNamespace:
            changed = photo.copy()
            changed[:2, :3] ^= 1  # six pixels, two of them in the hole
            write_png(out, changed)
            return SimpleNamespace(mask=mask)

        monkeypatch.setattr(known_pixels, "inpaint", careless)
        mask = np.zeros(photo.shape[:2], np.uint8)
        mask[:2, 0] = 1
        out = photo_file.with_name("out.png")
        assert known_pixels.count_changed(photo_file, mask, TOY, out) == (
            4,
            photo[..., 0].size - 2,
        )

    def test_rows_of_a_data_folder(self, data: Path, tmp_path: Path, toy: str) -> None:
        rows = known_pixels.measure_known_pixels([toy], data, tmp_path / "r", num=2)
        assert [r.value for r in read_rows(tmp_path / "r" / "known_pixels.csv")] == [
            r.value for r in rows
        ]
        changed, compared = rows
        assert (changed.metric, changed.value, changed.n) == ("changed", 0, 2)
        assert compared.value > 1000
        table = tables.render("known_pixels", tmp_path / "r")
        assert table.splitlines()[2] == f"| {TOY} | 0 in 2 photos |"


class TestContactSheet:
    @pytest.fixture
    def recipe(self) -> ModuleType:
        spec = importlib.util.spec_from_file_location(
            "contact_sheet", BENCHMARKS / "contact_sheet.py"
        )
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def test_a_row_per_photo_and_a_column_per_inpainter(self, recipe: ModuleType) -> None:
        photo = np.full((90, 100, 3), 50, np.uint8)
        photo[:, 50:] = 200
        mask = np.zeros((90, 100), np.uint8)
        mask[20:40, 10:30] = 1
        names = ["mean", "safepaint-s:stage-1", "safepaint-s", "auto"]
        (row,) = recipe.make_rows([(photo, mask)], names)
        shown, hole, flat, first, second, chosen = row
        assert (shown == photo).all()
        assert (hole[mask == 1] == recipe.HOLE).all()
        assert np.ptp(flat[mask == 1], axis=0).max() <= 1
        assert (first != second)[mask == 1].any()
        assert (chosen == recipe.fill(photo, mask, recipe.load("patchmatch"))).all()
        for fill in (flat, first, second, chosen):
            assert (fill[mask == 0] == photo[mask == 0]).all()

    def test_a_first_stage_is_of_safepaint_alone(self, recipe: ModuleType) -> None:
        with pytest.raises(ConfigError, match="mean:stage-1: give NAME:stage-1 with weights of"):
            recipe.load("mean:stage-1")

    def test_blocks_of_different_height_are_beside_each_other(
        self, recipe: ModuleType, tmp_path: Path
    ) -> None:
        blocks = [np.zeros((40, 20, 3), np.uint8), np.zeros((20, 30, 3), np.uint8)]
        recipe.write_sheet(tmp_path / "sheet.webp", blocks)
        with Image.open(tmp_path / "sheet.webp") as sheet:
            assert (sheet.format, sheet.size) == ("WEBP", (20 + 30 + 2 * 4, 40))
