"""Universal data: bit-exact outside the mask, the same for a seed and number, labelled truly."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import default_rng
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from helpers.recipes import recipes
from overpaint.data import masks
from overpaint.data.autoencoder import conv_autoencoder, reconstruct
from overpaint.data.classical_redraws import TRACES
from overpaint.data.degrade import Degrade, History, replay
from overpaint.data.sources import PhotoSource
from overpaint.data.universal import (
    LivePairs,
    Pair,
    Pairs,
    Sample,
    UniversalConfig,
    UniversalDataset,
    blend,
    draw_weighted,
    make_mask_mixture,
    make_test_set,
)
from overpaint.errors import ConfigError, ImageError, UnknownNameError
from overpaint.training.config import load_config, read_recipe
from overpaint.training.detection.base import DetectorRun

SIZE = 48
NOTHING = {"history": History(probability=0), "degrade": Degrade(probability=0)}
WEIGHTS = {"one": 1.0, "two": 1.0}


@pytest.fixture(scope="module")
def bank() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    small = {"width": 4, "latent_channels": 4, "num_blocks": 1}
    kinds = {"one": "nearest", "two": "transposed"}
    return {name: conv_autoencoder(upsampler=k, **small).eval() for name, k in kinds.items()}


@pytest.fixture
def photos(photo_folder: Path) -> PhotoSource:
    return PhotoSource.from_paths([photo_folder])


class Noted:
    """Pairs that remember the last one; made by `pairs`, or one and the same photo."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def draw(self, rng: np.random.Generator) -> Pair:
        self.last = self.pairs.draw(rng)
        return self.last


class Constant:
    """Always the same pair: noise of low values, redrawn as noise of high values."""

    def __init__(self, side: int) -> None:
        rng = default_rng(0)
        photo, redrawn = (
            rng.integers(a, a + 100, (side, side, 3), dtype=np.uint8) for a in (0, 150)
        )
        self.pair = Pair(photo, redrawn, "photo.png", "one")

    def draw(self, rng: np.random.Generator) -> Pair:
        return self.pair


def settings(**changes: Any) -> UniversalConfig:
    return UniversalConfig(**({"size": SIZE, "bank": WEIGHTS} | changes))


def live(photos: PhotoSource, bank: Mapping[str, nn.Module], config: UniversalConfig) -> LivePairs:
    crop = config.degrade.find_margin(config.size)
    return LivePairs(photos, bank, config.bank, config.history, crop)


def symmetries(pixels: np.ndarray) -> Iterator[np.ndarray]:
    for turns in range(4):
        turned = np.rot90(pixels, turns)
        yield from (turned, turned[:, ::-1])


def is_turned(sample: Sample, photo: np.ndarray, redrawn: np.ndarray) -> bool:
    """Whether one symmetry of the square gives the sample outside its mask and inside of it."""
    hole = sample.mask != 0
    return any(
        np.array_equal(sample.pixels[~hole], p[~hole])
        and np.array_equal(sample.pixels[hole], r[hole])
        for p, r in zip(symmetries(photo), symmetries(redrawn), strict=True)
    )


# Eq. 2


@pytest.mark.parametrize("member", ["one", "two"])
def test_blend_is_the_photo_outside_the_mask_bit_for_bit(
    member: str, bank: dict[str, nn.Module], photo: np.ndarray
) -> None:
    for i, mask_fn in enumerate(masks.MASKS.values()):
        rng = default_rng(i)
        pixels = rng.permutation(photo.reshape(-1, 3)).reshape(photo.shape) if i % 2 else photo
        height, width, _ = photo.shape
        mask, redrawn = mask_fn(height, width, rng), reconstruct(bank[member], pixels)
        out = blend(pixels, redrawn, mask)
        assert out.dtype == np.uint8
        assert np.array_equal(out[mask == 0], pixels[mask == 0])
        assert np.array_equal(out[mask == 1], redrawn[mask == 1])
        assert (out != pixels).any()


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float32])
def test_blend_takes_any_kind_of_mask(kind: type, photo: np.ndarray) -> None:
    mask = np.zeros(photo.shape[:2], kind)
    mask[3:9] = 255 if kind is np.uint8 else 1
    out = blend(photo, 255 - photo, mask)
    assert np.array_equal(out[3:9], 255 - photo[3:9])
    assert np.array_equal(np.delete(out, range(3, 9), 0), np.delete(photo, range(3, 9), 0))


# Samples


@pytest.mark.parametrize(
    "changes", [{}, {"moved": 1.0}, {"traces": dict.fromkeys(TRACES, 5.0)}], ids=str
)
def test_sample_equals_its_photo_outside_the_mask(
    changes: dict[str, Any], photos: PhotoSource, bank: dict[str, nn.Module]
) -> None:
    config = settings(**NOTHING | {"untouched": 0} | changes)
    pairs = Noted(live(photos, bank, config))
    dataset = UniversalDataset(config, pairs, make_mask_mixture({"brush": 1, "boxes": 1}), seed=1)
    for i in range(12):
        sample = dataset.sample(i)
        known = sample.mask == 0
        assert set(np.unique(sample.mask)) == {0, 1}
        assert any(
            np.array_equal(sample.pixels[known], p[known]) for p in symmetries(pairs.last.photo)
        )
        assert sample.source == pairs.last.source
        if sample.redrawn_by in bank:
            assert is_turned(sample, pairs.last.photo, pairs.last.reconstruction)


@pytest.mark.slow
def test_who_redrew_is_said(photos: PhotoSource, bank: dict[str, nn.Module]) -> None:
    config = settings(traces=dict.fromkeys(TRACES, 0.5), moved=0.5, untouched=0.2)
    dataset = UniversalDataset(config, live(photos, bank, config), masks.boxes, seed=0)
    samples = [dataset.sample(i) for i in range(150)]
    plain = {*bank, *TRACES}
    assert {s.redrawn_by for s in samples} == {"", *plain, *(f"{name}+moved" for name in plain)}
    assert all((s.redrawn_by == "") == (not s.mask.any()) for s in samples)


def test_share_of_untouched_samples() -> None:
    config = settings(**NOTHING, untouched=0.3)
    dataset = UniversalDataset(config, Constant(SIZE), masks.boxes, seed=0)
    empty = [not dataset.sample(i).mask.any() for i in range(600)]
    assert 0.24 < np.mean(empty) < 0.36


@pytest.mark.parametrize(("share", "expected"), [(0.0, False), (1.0, True)])
def test_all_or_none_are_untouched(share: float, expected: bool) -> None:
    config = settings(**NOTHING, untouched=share)
    dataset = UniversalDataset(config, Constant(SIZE), masks.boxes, seed=0)
    assert {not dataset.sample(i).mask.any() for i in range(30)} == {expected}


def test_untouched_samples_equal_the_photo_and_are_degraded_alike() -> None:
    """An untouched photo differs from an edited one by the edit alone."""
    for degrade in (Degrade(probability=0), Degrade(probability=1, blur=1, noise=1)):
        config, pairs = settings(degrade=degrade, untouched=1), Constant(degrade.find_margin(SIZE))
        dataset = UniversalDataset(config, pairs, masks.boxes, seed=2)
        for i in range(6):
            sample = dataset.sample(i)
            assert bool(sample.degradations) == bool(degrade.probability)
            expected, _ = replay(pairs.pair.photo, None, sample.degradations)
            assert any(np.array_equal(sample.pixels, p) for p in symmetries(expected))


def test_degradations_come_after_the_blend_and_can_be_replayed() -> None:
    degrade = Degrade(probability=1, resize=0.5, blur=0.5, noise=0.5, jpeg=0.5, webp=0.5)
    config, pairs = settings(degrade=degrade, untouched=0), Constant(degrade.find_margin(SIZE))
    mask = masks.boxes(degrade.find_margin(SIZE), degrade.find_margin(SIZE), default_rng(1))
    dataset = UniversalDataset(config, pairs, lambda h, w, rng: mask, seed=0)
    blended = blend(pairs.pair.photo, pairs.pair.reconstruction, mask)
    names = set()
    for i in range(20):
        sample = dataset.sample(i)
        pixels, moved = replay(blended, mask, sample.degradations)
        both = np.dstack([sample.pixels, sample.mask])
        assert any(np.array_equal(both, b) for b in symmetries(np.dstack([pixels, moved])))
        names |= {step.name for step in sample.degradations}
    assert names == {"resize", "crop", "blur", "noise", "jpeg", "webp"}


def test_a_sample_keeps_the_history_of_its_photo(
    photos: PhotoSource, bank: dict[str, nn.Module]
) -> None:
    config = settings(
        history=History(probability=1, jpeg=1, twice=1), degrade=Degrade(probability=0)
    )
    dataset = UniversalDataset(config, live(photos, bank, config), masks.brush, seed=0)
    for i in range(5):
        sample = dataset.sample(i)
        assert [step.name for step in sample.history][-2:] == ["jpeg", "jpeg"]
        assert sample.degradations == ()


def test_a_hole_that_the_cut_misses_counts_as_untouched() -> None:
    def corner(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        mask = np.zeros((height, width), np.uint8)
        mask[:3, :3] = 1
        return mask

    degrade = Degrade(probability=1, resize=0.1, scale=(0.5, 1))
    config, pairs = settings(degrade=degrade, untouched=0), Constant(degrade.find_margin(SIZE))
    dataset = UniversalDataset(config, pairs, corner, seed=0)
    samples = [dataset.sample(i) for i in range(40)]
    assert {s.redrawn_by for s in samples} == {"", "one"}
    assert all((s.redrawn_by == "") == (not s.mask.any()) for s in samples)


@pytest.mark.parametrize("workers", [0, 2])
def test_same_seed_same_samples_whatever_the_number_of_workers(
    workers: int, photos: PhotoSource, bank: dict[str, nn.Module]
) -> None:
    config = settings(traces=dict.fromkeys(TRACES, 0.1), moved=0.3)
    dataset = UniversalDataset(config, live(photos, bank, config), masks.brush, seed=5)
    loader = DataLoader(dataset, sampler=range(8), batch_size=2, num_workers=workers)  # type: ignore[arg-type]
    batches = list(loader)
    for i in reversed(range(8)):  # nor the order
        item = dataset[i]
        assert torch.equal(item["image"], batches[i // 2]["image"][i % 2])
        assert torch.equal(item["mask"], batches[i // 2]["mask"][i % 2])
    other = UniversalDataset(config, live(photos, bank, config), masks.brush, seed=6)
    assert not torch.equal(other[0]["image"], dataset[0]["image"])


def test_items_are_tensors_of_the_stated_shape_and_range(
    photos: PhotoSource, bank: dict[str, nn.Module]
) -> None:
    config = settings(degrade=Degrade(probability=1, resize=1, scale=(0.5, 1.5)), untouched=0)
    dataset = UniversalDataset(config, live(photos, bank, config), masks.boxes, seed=0)
    for i in range(6):
        item, sample = dataset[i], dataset.sample(i)
        assert item["image"].shape == (3, SIZE, SIZE)
        assert item["mask"].shape == (1, SIZE, SIZE)
        assert item["image"].dtype == item["mask"].dtype == torch.float32
        assert set(item["mask"].unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(
            (item["image"] * 255).round().byte().permute(1, 2, 0).contiguous(),
            torch.from_numpy(sample.pixels),
        )


# Settings


def test_draw_follows_the_weights_and_not_their_order() -> None:
    names = [draw_weighted({"b": 3.0, "a": 1.0, "c": 0.0}, default_rng(i)) for i in range(800)]
    assert names == [
        draw_weighted({"c": 0.0, "a": 1.0, "b": 3.0}, default_rng(i)) for i in range(800)
    ]
    assert set(names) == {"a", "b"}
    assert 0.7 < np.mean([name == "b" for name in names]) < 0.8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"traces": {"periodical": 1.0}}, "no periodical; there are .*periodic"),
        ({"bank": {}}, "bank: give at least one"),
        ({"bank": {"one": 0.0}}, "bank: give at least one"),
        ({"bank": {"one": -1.0}}, "greater than or equal to 0"),
        ({"traces": {"periodic": float("nan")}}, "finite"),
        ({"size": 8}, "16"),
        ({"histroy": {}}, "histroy"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**changes)


@pytest.mark.parametrize(
    "path", [p for p in recipes() if "detector" in read_recipe(p)], ids=lambda p: p.stem
)
def test_recipes_of_detectors_are_valid(path: Path) -> None:
    run = load_config(DetectorRun, path)
    assert run.cache.num == 0 or run.cache.side >= run.data.degrade.find_margin(run.data.size)
    with pytest.raises(ConfigError, match=r"did you mean 'data\.untouched'"):
        load_config(DetectorRun, path, ["data.untuched=0.1"])


@pytest.fixture
def mask_folder(tmp_path: Path) -> Path:
    """One mask file: a white ring on black."""
    grey = np.zeros((60, 60), np.uint8)
    grey[10:50, 10:50] = 255
    grey[20:40, 20:40] = 0
    (tmp_path / "assets" / "rings").mkdir(parents=True)
    Image.fromarray(grey).save(tmp_path / "assets" / "rings" / "a.png")
    return tmp_path / "assets"


def test_shapes_are_redrawn_or_kept(mask_folder: Path) -> None:
    redraw = make_mask_mixture({"objects:rings": 1.0}, mask_folder)
    keep = make_mask_mixture({"keep:rings": 1.0}, mask_folder)
    for seed in range(6):
        for mask_fn, centre in ((redraw, 0), (keep, 1)):
            mask = mask_fn(64, 64, default_rng(seed))
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert box[len(box) // 2, len(box) // 2] == centre
            assert box[len(box) // 2].min() == 0  # the ring's hole, or the ring


def test_mixture_of_shapes_and_strokes(mask_folder: Path) -> None:
    mask_fn = make_mask_mixture(
        {"objects:rings": 1.0, "brush": 1.0, "keep:rings": 0.0}, mask_folder
    )
    ring = make_mask_mixture({"objects:rings": 1.0}, mask_folder)
    drawn = [mask_fn(64, 64, default_rng(i)) for i in range(20)]
    assert len({m.tobytes() for m in drawn}) == 20
    assert ring(64, 64, default_rng(0)).any()


@pytest.mark.parametrize("kind", ["objects", "keep"])
def test_missing_shapes_and_unknown_kinds_are_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="none"):
        make_mask_mixture({f"{kind}:none": 1.0}, tmp_path)
    with pytest.raises(UnknownNameError, match="brush"):
        make_mask_mixture({"brsh": 1.0})
    with pytest.raises(UnknownNameError):
        make_mask_mixture({"shapes:none": 1.0}, tmp_path)


# The test set of the paper


def test_test_set_is_lossless_deterministic_and_takes_turns(
    photos: PhotoSource, bank: dict[str, nn.Module]
) -> None:
    def draw(seed: int, members: Mapping[str, nn.Module] = bank, num: int = 7) -> list[Sample]:
        return list(make_test_set(photos, members, size=64, num=num, seed=seed))

    samples, again, other = draw(0), draw(0), draw(1)
    assert [s.redrawn_by for s in samples] == ["one", "two", "one", "two", "one", "two", "one"]
    assert [s.source for s in samples] == [*photos.names, photos.names[0]]
    for i, sample in enumerate(samples):
        assert np.array_equal(sample.pixels, again[i].pixels)
        assert not np.array_equal(sample.mask, other[i].mask)
        assert sample.pixels.shape == (64, 64, 3)
        assert sample.mask.any()
        assert sample.history == sample.degradations == ()
    # Photo and mask are those of any bank, and of any number of samples.
    single = draw(0, {"two": bank["two"]}, num=3)
    for one, sample in zip(single, samples, strict=False):
        assert np.array_equal(one.mask, sample.mask)
        known = one.mask == 0
        assert np.array_equal(one.pixels[known], sample.pixels[known])


def test_test_set_equals_the_photo_outside_the_mask(
    photos: PhotoSource, bank: dict[str, nn.Module]
) -> None:
    last = photos.names.index(next(n for n in photos.names if n.endswith("5.jpg")))
    photo = photos.read(last)
    assert photo.shape == (64, 64, 3)  # so that the crop is all of it
    *_, sample = make_test_set(photos, bank, size=64, num=last + 1, seed=0)
    known = sample.mask == 0
    assert np.array_equal(sample.pixels[known], photo[known])
    redrawn = reconstruct(bank[sample.redrawn_by], photo)
    assert np.array_equal(sample.pixels[~known], redrawn[~known])


def test_alike_colours_are_those_of_the_whole_sample() -> None:
    def made(share: float) -> UniversalDataset:
        config = settings(**NOTHING, alike=share, untouched=0)
        return UniversalDataset(config, Constant(SIZE), masks.boxes, seed=0)

    plain, alike = made(0.0), made(1.0)
    for i in range(4):
        one, other = plain.sample(i), alike.sample(i)
        np.testing.assert_array_equal(one.mask, other.mask)
        assert [step.name for step in other.degradations] == ["halved_colours"]
        fine = [np.diff(s.pixels[..., 0].astype(float) - s.pixels[..., 1]) for s in (one, other)]
        assert np.abs(fine[1]).mean() < 0.9 * np.abs(fine[0]).mean()
