"""Real fills: read as they lie in the folder, drawn evenly, cut out and degraded like others."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.detection_task_contract import Redrawn, picture, recipe
from helpers.real_fills import HOLE, WHITE, known, write_fills
from overpaint.data.real_fills import (
    SEEN,
    RealFillDataset,
    RealFills,
    cut_window,
    describe_fills,
    imitate_enlarging,
    list_trained_families,
    read_fills,
)
from overpaint.data.universal import UniversalConfig
from overpaint.errors import ConfigError, ImageError
from overpaint.training.detection.base import DetectorRun, check, make_detection_task, start

ENTRIES = (
    *((f"a{i}", "train", "many", "s") for i in range(9)),
    ("b", "train", "few", "st"),
    ("c", "train", "few", "sto"),
    ("d", "train", "lanpaint-one", "stor"),
    ("e", "train", "lanpaint-two", "story"),
    ("f", "dev", "few", "another"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_fills(tmp_path / "fills", *ENTRIES)


def settings(**changes: Any) -> UniversalConfig:
    values: dict[str, Any] = {"size": 48, "bank": {"g": 1}, "degrade": {"probability": 0}}
    return UniversalConfig.model_validate(values | changes)


def dataset(folder: Path, config: UniversalConfig | None = None, **how: Any) -> RealFillDataset:
    fills = RealFills.model_validate({"share": 1, "shrunk": 0, "folder": str(folder)} | how)
    return RealFillDataset(config or settings(), fills, "train", Redrawn(), 0)


class TestReading:
    def test_known_pixels_fill_and_mask_make_the_picture(self, folder: Path) -> None:
        first = read_fills(folder)[0]
        pixels, mask = first.read()
        np.testing.assert_array_equal(mask, HOLE)
        np.testing.assert_array_equal(pixels[HOLE == 0], known("s")[HOLE == 0])
        assert (pixels[HOLE == 1] == WHITE).all()

    def test_pools_and_families(self, folder: Path) -> None:
        assert [f.id for f in read_fills(folder, ("dev",))] == ["f"]
        left = read_fills(folder, ("train",), ["many", "lanpaint"])
        assert [f.id for f in left] == ["b", "c"]
        assert list_trained_families(RealFills(leave_out=("many",)), folder.parent) == (
            "few",
            "lanpaint",
        )
        text = describe_fills(RealFills(share=0.5, leave_out=("few",)), folder.parent)
        assert text == "a share of 0.5 real fills by lanpaint 2, many 9 (left out: few)"

    def test_a_photo_is_in_one_pool(self, tmp_path: Path) -> None:
        entries = ("a", "train", "many", "s"), ("b", "dev", "many", "t"), ("c", "dev", "many", "s")
        with pytest.raises(ConfigError, match="source s is in both pools"):
            read_fills(write_fills(tmp_path / "twice", *entries))
        entries = *entries[:2], (min(SEEN), "dev", "many", "u")
        assert [f.id for f in read_fills(write_fills(tmp_path / "seen", *entries))] == ["a", "b"]

    def test_errors(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match="no family is called 'fewer'; there are few, "):
            read_fills(folder, leave_out=["fewer"])
        with pytest.raises(ConfigError, match="no real fill is left of the pools dev"):
            read_fills(folder, ("dev",), ["few"])
        with pytest.raises(ImageError, match=r"nowhere.*cannot be read"):
            read_fills(folder / "nowhere")
        Image.new("RGB", (9, 9)).save(folder / "fill" / "a0.webp", lossless=True)
        with pytest.raises(ImageError, match=r"a0\.webp: does not cover the hole"):
            read_fills(folder)[0].read()
        index = folder / "index.csv"
        index.write_text(index.read_text().replace("train", "test"))
        with pytest.raises(ImageError, match="no pool is called 'test'"):
            read_fills(folder)


class TestSamples:
    def test_families_then_sources_are_equally_likely(self, folder: Path) -> None:
        some = dataset(folder)
        sources = Counter(some.sample(i).source for i in range(300))
        assert sum(sources.values()) == 300
        assert 75 < sources["s"] < 125  # one source of one family of three
        for name in ("st", "sto", "stor", "story"):
            assert 30 < sources[name] < 75

    def test_the_mask_marks_the_fill(self, folder: Path) -> None:
        some = dataset(folder)
        for i in range(20):
            sample = some.sample(i)
            assert sample.pixels.shape == (48, 48, 3)
            np.testing.assert_array_equal(sample.mask == 1, (sample.pixels == WHITE).all(axis=2))
            assert 0.03 < sample.mask.mean() < 0.97
            assert sample.redrawn_by == "tool"

    def test_a_sample_is_a_function_of_seed_and_number(self, folder: Path) -> None:
        config = settings(degrade={"probability": 1, "scale": (0.75, 1.3)}, alike=0.5)
        how = {"enlarged": 0.5, "pasted": 0.5, "shrunk": 0.5, "anywhere": 0.5}
        one, other = (dataset(folder, config, **how) for _ in range(2))
        for i in (5, 0, 3):
            assert torch.equal(one[i]["image"], other[i]["image"])
            assert torch.equal(one[i]["mask"], other[i]["mask"])
        assert not torch.equal(one[0]["image"], one[3]["image"])

    def test_pasted_into_another_photo(self, folder: Path) -> None:
        sample = dataset(folder, pasted=1).sample(0)
        assert sample.redrawn_by == "tool+pasted"
        assert (sample.pixels[sample.mask == 1] == WHITE).all()
        photos = {tuple(p) for seed in range(4) for p in picture(seed).reshape(-1, 3).tolist()}
        assert {tuple(p) for p in sample.pixels[sample.mask == 0].tolist()} <= photos

    def test_windows_at_the_border_or_anywhere(self) -> None:
        picture = np.zeros((90, 90, 3), np.uint8)
        mask = np.zeros((90, 90), np.uint8)
        mask[:30, :30] = 1
        rng = np.random.default_rng(0)
        found = {
            anywhere: np.mean(
                [cut_window(picture, mask, 30, rng, anywhere=anywhere)[1].any() for _ in range(200)]
            )
            for anywhere in (False, True)
        }
        assert found[True] < 0.4
        assert found[False] > 0.75
        small = cut_window(picture[:20], mask[:20], 30, rng, anywhere=True)
        assert small[0].shape == (30, 30, 3)
        assert small[1].shape == (30, 30)

    def test_enlarged_fills_have_lost_their_finest_detail(self, photo: np.ndarray) -> None:
        soft = imitate_enlarging(photo, (0.4, 0.5), np.random.default_rng(0))
        assert soft.shape == photo.shape

        def roughness(pixels: np.ndarray) -> float:
            return float(np.abs(np.diff(pixels.astype(float), axis=1)).mean())

        assert roughness(soft) < 0.7 * roughness(photo)


class TestRecipe:
    def test_train_trains_and_dev_validates(self, folder: Path) -> None:
        run = recipe(fills={"share": 1, "folder": str(folder)})
        task = make_detection_task(run, Redrawn(), Redrawn())
        assert (task.train[0]["mask"] == 1).any()
        validated = RealFillDataset(run.data, run.fills, "dev", Redrawn(), 2**32 - 1)
        for i, sample in enumerate(task.validation):
            assert torch.equal(sample["image"], validated[i]["image"])

    @pytest.mark.slow
    def test_what_cannot_be_trained(self, folder: Path) -> None:
        checked(recipe(fills={"folder": "nowhere"}), Path())  # nothing is drawn
        with pytest.raises(ImageError, match="nowhere"):
            checked(recipe(fills={"share": 0.5, "folder": "nowhere"}), Path())
        with pytest.raises(ConfigError, match="no family is called 'x'"):
            checked(recipe(fills={"share": 0.5, "leave_out": ["x"]}), folder.parent)
        with pytest.raises(ValueError, match="above 1"):
            recipe(fills={"share": 0.6}, forged={"share": 0.6, "folders": {"x": 1}})


def checked(run: DetectorRun, assets: Path) -> None:
    check(run, start(run).model, assets)
