"""Training on what `overpaint forge` writes: cut out at the hole, labelled truly, split."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from helpers.detection_task_contract import Redrawn, recipe
from overpaint.data.degrade import Degrade
from overpaint.data.forgeries import read_forgeries
from overpaint.data.masks import boxes
from overpaint.data.sources import Part, PhotoSource, split
from overpaint.data.universal import UniversalConfig, UniversalDataset
from overpaint.errors import ConfigError
from overpaint.evaluation.forge import forge
from overpaint.images import write_png
from overpaint.training.detection.base import check, make_detection_task, start
from overpaint.training.detection.forged import (
    ForgedConfig,
    ForgedDataset,
    Mixed,
    crop_at_hole,
    describe_forgeries,
)

SIDE, SIZE = 56, 32
PARTS: tuple[Part, ...] = ("train", "validation", "test")
NOTHING = Degrade(probability=0)


def photo_of(part: Part, number: int = 0) -> str:
    return split((f"photos/{i}.png" for i in range(500)), part)[number]


def forgeries(folder: Path, *photos: str, hole: slice = slice(40, 46), inpainter: str = "a") -> str:
    """A folder of one forgery of each photo, as of the command.

    A pixel's red is its row, its green its column, and its blue 0, or 255 where it was filled in.
    """
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.uint8)
    original = np.dstack([rows, columns, np.zeros_like(rows)])
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[hole, hole] = 255
    inpainted = np.dstack([rows, columns, mask])
    lines = []
    for i, photo in enumerate(photos):
        row: dict[str, Any] = {"index": i, "seed": 0, "photo": photo, "inpainter": inpainter}
        for kind, pixels in (("original", original), ("mask", mask), ("inpainted", inpainted)):
            row[kind] = f"{kind}/{i:06d}.png"
            (folder / kind).mkdir(parents=True, exist_ok=True)
            write_png(folder / row[kind], pixels)
        lines.append(json.dumps(row) + "\n")
    (folder / "manifest.jsonl").write_text("".join(lines))
    return folder.name


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Folder of the folder "set", with two photos of each part."""
    forgeries(tmp_path / "set", *(photo_of(part, i) for part in PARTS for i in range(2)))
    return tmp_path


def settings(**changes: Any) -> UniversalConfig:
    values = {"size": SIZE, "bank": {"g": 1}, "untouched": 0, "degrade": NOTHING}
    return UniversalConfig(**(values | changes))


def forged(assets: Path, seed: int = 0, part: Part = "train", **changes: Any) -> ForgedDataset:
    config = ForgedConfig(folders={"set": 1}, share=1)
    return ForgedDataset(settings(**changes), config, part, seed, assets)


def test_what_the_command_writes_is_read(photo_folder: Path, tmp_path: Path) -> None:
    done = forge(
        tmp_path / "set", PhotoSource.from_paths([photo_folder]), "mean", ["boxes"], size=48
    )
    found = []
    for part in PARTS:
        wanted = split([row.photo for row in done.rows], part)
        if wanted:
            rows = read_forgeries(tmp_path / "set", part)
            assert [row.photo for row in rows] == wanted
            found += rows
    assert {row.files for row in found} == {row.files for row in done.rows}
    sample = forged(tmp_path).sample(0)
    assert (sample.redrawn_by, sample.mask.any()) == ("mean", True)


def test_a_folder_may_lie_outside_of_the_assets(here: Path, tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    inside, config = forged(here), ForgedConfig(folders={str(here / "set"): 1}, share=1)
    outside = ForgedDataset(settings(), config, "train", 0, tmp_path / "assets")
    assert np.array_equal(inside.sample(3).pixels, outside.sample(3).pixels)


def test_a_sample_is_cut_out_at_the_hole_and_labelled_truly(here: Path) -> None:
    dataset, places = forged(here), set()
    for i in range(20):
        sample = dataset.sample(i)
        row, column, blue = (sample.pixels[..., c].astype(int) for c in range(3))
        hole = (row >= 40) & (row < 46) & (column >= 40) & (column < 46)
        assert np.array_equal(sample.mask, hole)
        assert np.array_equal(sample.mask * 255, blue)
        assert sample.mask.any()
        assert len(np.unique(row * SIDE + column)) == SIZE**2  # nothing is scaled
        places.add((row.min(), column.min()))
    assert len(places) > 10


@pytest.mark.parametrize("at", [(20, 25), (0, 39), (3, 1)])
def test_every_window_with_the_hole_is_drawn_and_no_other(at: tuple[int, int]) -> None:
    mask, picture = np.zeros((30, 40), np.uint8), np.zeros((30, 40, 3), np.uint8)
    mask[at] = 1
    places = set()
    for seed in range(400):
        piece = crop_at_hole(picture, mask, 6, np.random.default_rng(seed))
        assert piece.shape == (6, 6, 4)
        ((row, column),) = np.argwhere(piece[..., 3])
        places.add((at[0] - row, at[1] - column))
    tops, lefts = (
        {first for first in range(i - 5, i + 1) if 0 <= first <= side - 6}
        for i, side in zip(at, mask.shape, strict=True)
    )
    assert places == {(top, left) for top in tops for left in lefts}


def test_a_piece_that_is_too_small_is_mirrored(here: Path) -> None:
    item = forged(here, size=72)[0]
    assert item["image"].shape == (3, 72, 72)
    assert torch.equal(item["mask"][0], item["image"][2])


def test_untouched_samples_are_the_original_at_the_same_place(here: Path) -> None:
    half, every = (forged(here, untouched=share) for share in (0.5, 1))
    for i in range(10):
        sample = every.sample(i)
        assert (sample.redrawn_by, sample.mask.any(), sample.pixels[..., 2].any()) == ("", 0, 0)
        assert sample.pixels[..., 0].max() >= 40  # where the hole is in the other one
    assert 15 < sum(bool(half.sample(i).mask.any()) for i in range(50)) < 35


def test_samples_are_degraded_as_universal_ones(here: Path) -> None:
    degrade = Degrade(probability=1, resize=1, scale=(0.75, 1.3), jpeg=1, webp=0)
    for i in range(5):
        sample = forged(here, degrade=degrade).sample(i)
        names = [step.name for step in sample.degradations]
        assert names[0] == "resize"
        assert names[-1] == "jpeg"
        assert sample.pixels.shape == (SIZE, SIZE, 3)
        assert set(np.unique(sample.mask)) <= {0, 1}


def test_a_photo_stays_in_its_part_and_can_be_left_out(here: Path) -> None:
    for part in PARTS:
        rows = read_forgeries(here / "set", part)
        assert [row.photo for row in rows] == [photo_of(part, 0), photo_of(part, 1)]
    left = Path(photo_of("train", 1)).name
    (row,) = read_forgeries(here / "set", "train", exclude=[left])
    assert row.photo == photo_of("train", 0)
    (row,) = read_forgeries(here / "set", "train", exclude=[f"photos/{left}"])
    assert row.photo == photo_of("train", 0)


def test_a_photo_whose_part_cannot_be_told_is_refused(here: Path) -> None:
    for name in ("1.png", "../1.png"):
        forgeries(here / "other", photo_of("train"), name)
        with pytest.raises(ConfigError, match=r"names 1 photos without their folder, as .*1\.png"):
            read_forgeries(here / "other", "train")


def test_folders_are_drawn_by_their_weights(here: Path) -> None:
    forgeries(here / "other", photo_of("train"), inpainter="b")
    config = ForgedConfig(folders={"set": 3, "other": 1, "nowhere": 0}, share=0.5)
    dataset = ForgedDataset(settings(), config, "train", 0, here)
    names = [dataset.sample(i).redrawn_by for i in range(100)]
    assert set(names) == {"a", "b"}
    assert 60 < names.count("a") < 90
    assert describe_forgeries(config, here) == "0.5 of the samples from forgeries by a, b"


def mixed(assets: Path, share: float, seed: int = 0) -> Mixed:
    universal = UniversalDataset(settings(untouched=0.2), Redrawn(), boxes, seed)
    return Mixed(universal, [(forged(assets, seed), share)], seed)


@pytest.mark.parametrize("workers", [0, 2])
def test_same_seed_same_samples_whatever_the_number_of_workers(workers: int, here: Path) -> None:
    dataset = mixed(here, 0.5)
    loader = DataLoader(dataset, sampler=range(8), batch_size=2, num_workers=workers)  # type: ignore[arg-type]
    batches = list(loader)
    for i in reversed(range(8)):
        for name, value in dataset[i].items():
            assert torch.equal(value, batches[i // 2][name][i % 2])
    (one, _), other = dataset.others[0], forged(here, seed=1)
    assert not all(torch.equal(other[i]["image"], one[i]["image"]) for i in range(4))


def test_the_rest_are_the_universal_samples_of_the_same_numbers(here: Path) -> None:
    dataset, num = mixed(here, 0.3), 60
    chosen = 0
    for i in range(num):
        sources = [
            torch.equal(dataset[i]["image"], part[i]["image"])
            for part in (dataset.others[0][0], dataset.rest)
        ]
        assert sum(sources) == 1
        chosen += sources[0]
    assert 8 < chosen < 30


def test_which_forgery_does_not_depend_on_that_it_is_one(here: Path) -> None:
    forgeries(here / "other", photo_of("train"), inpainter="b")
    config = ForgedConfig(folders={"set": 1, "other": 1}, share=0.5)
    other = ForgedDataset(settings(), config, "train", 0, here)
    dataset = Mixed(mixed(here, 0.5).rest, [(other, 0.5)], 0)
    chosen = [i for i in range(40) if torch.equal(dataset[i]["image"], other[i]["image"])]
    names = [other.sample(i).redrawn_by for i in chosen]
    assert min(names.count("a"), names.count("b")) > len(names) / 4


class TestRecipe:
    def test_a_share_of_the_samples_is_forged_in_training_and_validation(self, here: Path) -> None:
        run = recipe(forged={"folders": {"set": 1}, "share": 1}, model={"widths": [4, 4, 4]})
        task = make_detection_task(run, Redrawn(), Redrawn(), here)
        for dataset, part in ((task.train, "train"), (None, "validation")):
            samples = [dataset[i] for i in range(6)] if dataset else task.validation
            wanted = forged(here, 0 if dataset else 2**32 - 1, part, size=64, untouched=0.4)  # type: ignore[arg-type]
            for i, sample in enumerate(samples):
                assert torch.equal(sample["image"], wanted[i]["image"])

    def test_without_a_share_nothing_is_read(self) -> None:
        unused = recipe(forged={"folders": {"nowhere": 1}})
        check(unused, start(unused).model, Path())

    def test_what_does_not_fit(self, here: Path) -> None:
        for folders in ({}, {"set": 0}):
            with pytest.raises(ValueError, match="at least one folder a weight above 0"):
                recipe(forged={"folders": folders, "share": 0.5})
        run = recipe(forged={"folders": {"nowhere": 1}, "share": 0.5})
        with pytest.raises(ConfigError, match="nowhere holds no forgeries; see `overpaint forge`"):
            check(run, start(run).model, here)
        forgeries(here / "few", photo_of("train"))
        run = recipe(forged={"folders": {"few": 1}, "share": 0.5})
        with pytest.raises(ConfigError, match=r"none of the 1 .* of the validation part; forge"):
            check(run, start(run).model, here)
