"""Masks by name: files with their bins, drawn ones, and folders of another layout."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.locked import lock
from overpaint.data.mask_sets import NVIDIA_BINS, draw_mask, open_masks
from overpaint.data.masks import hole_ratio
from overpaint.errors import ConfigError, ImageError, InputError


def save(path: Path, ratio: float, side: int = 100) -> Path:
    """A mask, white in its upper rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((side, side), np.uint8)
    mask[: round(ratio * side)] = 255
    Image.fromarray(mask).save(path)
    return path


@pytest.fixture
def nvidia(tmp_path: Path) -> Path:
    """Two masks of each bin in the published places, one of them at its upper end."""
    folder = tmp_path / "mask" / "testing_mask_dataset"
    for i, (low, high) in enumerate(NVIDIA_BINS):
        save(folder / f"{2000 * i:05}.png", (low + high) / 2)
        save(folder / f"{2000 * i + 1999:05}.png", high)
    return tmp_path


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


class TestNvidia:
    @pytest.mark.parametrize("bounds", NVIDIA_BINS)
    def test_a_bin_gives_its_own_masks(self, nvidia: Path, bounds: tuple[float, float]) -> None:
        low, high = bounds
        for seed in range(5):
            found = draw_mask(f"nvidia:{nvidia}", 50, np.random.default_rng(seed), bounds)
            assert found.shape == (50, 50)
            assert found.dtype == np.uint8
            assert low <= hole_ratio(found) < high
            assert set(np.unique(found)) == {0, 1}
            assert found[0, 0] == 1, "white is the hole"

    def test_a_bin_across_two_of_theirs_is_looked_for_among_all(self, nvidia: Path) -> None:
        found = draw_mask(f"nvidia:{nvidia}", (40, 60), rng(), (0.19, 0.26))
        assert found.shape == (40, 60)
        assert 0.19 <= hole_ratio(found) < 0.26

    def test_without_a_bin_any(self, nvidia: Path) -> None:
        masks = open_masks(f"nvidia:{nvidia}")
        ratios = {
            round(hole_ratio(masks(100, 100, np.random.default_rng(i))), 2) for i in range(60)
        }
        assert len(ratios) > 8

    def test_missing_numbers_and_another_layout(self, nvidia: Path, tmp_path: Path) -> None:
        for name in ("02000", "03999"):
            (nvidia / "mask" / "testing_mask_dataset" / f"{name}.png").unlink()
        with pytest.raises(ImageError, match="numbers 02000 to 03999"):
            open_masks(f"nvidia:{nvidia}", NVIDIA_BINS[1])
        save(tmp_path / "other" / "a.png", 0.2)
        with pytest.raises(ImageError, match=r"holds a\.png; expected testing_mask_dataset"):
            open_masks(f"nvidia:{tmp_path / 'other'}")


class TestFolder:
    def test_bins_by_counted_ratio(self, tmp_path: Path) -> None:
        for i in range(10):
            save(tmp_path / f"{i}.png", 0.05 + i / 10)
        for i in range(10):
            found = draw_mask(f"folder:{tmp_path}", 100, rng(), (i / 10, (i + 1) / 10))
            assert hole_ratio(found) == pytest.approx(0.05 + i / 10)
        with pytest.raises(
            InputError, match=r"none of 10 masks has a hole ratio in \[0.96, 0.99\)"
        ):
            draw_mask(f"folder:{tmp_path}", 100, rng(), (0.96, 0.99))

    def test_black_holes(self, tmp_path: Path) -> None:
        save(tmp_path / "keep.png", 0.7)
        assert hole_ratio(draw_mask(f"folder-black:{tmp_path}", 100, rng())) == pytest.approx(0.3)
        assert hole_ratio(draw_mask(f"folder:{tmp_path}", 100, rng())) == pytest.approx(0.7)

    def test_a_damaged_mask_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
        with pytest.raises(ImageError, match=r"broken\.png"):
            draw_mask(f"folder:{tmp_path}", 10, rng())

    def test_an_empty_folder_and_none(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="no mask images"):
            open_masks(f"folder:{tmp_path}")
        with pytest.raises(ImageError, match="no such folder"):
            open_masks(f"folder:{tmp_path / 'nowhere'}")


def test_object_masks(tmp_path: Path) -> None:
    save(tmp_path / "shape.png", 0.5)
    found = draw_mask(f"objects:{tmp_path}", 64, rng(), (0.05, 0.3))
    assert 0.05 <= hole_ratio(found) < 0.3


@pytest.mark.parametrize("kind", ["brush", "free-form", "lama-thick", "boxes"])
def test_drawn_masks(kind: str) -> None:
    found = draw_mask(kind, 64, rng(), (0.1, 0.2))
    assert 0.1 <= hole_ratio(found) < 0.2
    assert np.array_equal(found, draw_mask(kind, 64, rng(), (0.1, 0.2))), "a function of the seed"


def test_generators_can_be_sent_to_workers(nvidia: Path) -> None:
    for spec in (f"nvidia:{nvidia}", f"folder:{nvidia}", "lama-thin"):
        masks = open_masks(spec, (0.1, 0.3))
        again = pickle.loads(pickle.dumps(masks))
        assert np.array_equal(again(64, 64, rng()), masks(64, 64, rng()))


@pytest.mark.parametrize("spec", ["pencil", "nvidia", "nvidia:", "places2:x"])
def test_an_unknown_kind_is_told(spec: str) -> None:
    with pytest.raises(ConfigError, match="folder-black:ROOT"):
        open_masks(spec)


def test_an_impossible_bin_is_told() -> None:
    with pytest.raises(ConfigError, match="low < high"):
        open_masks("brush", (0.3, 0.3))


@pytest.mark.parametrize("kind", ["folder", "folder-black", "objects"])
def test_a_folder_of_masks_without_permission_is_told(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "m.png", 0.2)
    (tmp_path / "more").mkdir()
    lock(tmp_path / "more", monkeypatch)
    with pytest.raises(ImageError, match=r"more: cannot be read .*access rights"):
        open_masks(f"{kind}:{tmp_path}")


def test_the_nvidia_set_without_permission_is_told(
    nvidia: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(nvidia / "mask" / "testing_mask_dataset", monkeypatch)
    with pytest.raises(ImageError, match=r"testing_mask_dataset: cannot be read"):
        open_masks(f"nvidia:{nvidia}")
