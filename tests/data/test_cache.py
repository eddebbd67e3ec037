"""The cache of reconstructions: it resumes exactly, and never mixes two recipes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import default_rng

from overpaint.data.autoencoder import conv_autoencoder, reconstruct
from overpaint.data.cache import CHUNK, CachedPairs, build_cache, choose_photo
from overpaint.data.degrade import History, replay
from overpaint.data.sources import PhotoSource, Place
from overpaint.data.universal import LivePairs
from overpaint.errors import TrainingError

SIDE, NUM = 24, 2 * CHUNK + 3
KEY = {"history": "as below"}


class StoppedError(Exception):
    pass


@pytest.fixture
def live(photo_folder: Path) -> LivePairs:
    torch.manual_seed(0)
    bank = {
        name: conv_autoencoder(width=4, latent_channels=4, num_blocks=1, upsampler=kind).eval()
        for name, kind in (("b", "nearest"), ("a", "shuffle"))
    }
    photos = PhotoSource.from_paths([photo_folder])
    return LivePairs(photos, bank, dict.fromkeys(bank, 1.0), History(), SIDE)


def build(folder: Path, live: LivePairs, **changes: Any) -> Path:
    build_cache(folder, live, **({"num": NUM, "seed": 3, "key": KEY} | changes))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def interrupt(folder: Path, live: LivePairs, after: int) -> list[int]:
    """Build until `after` marks of progress; -> the marks."""
    marks: list[int] = []

    def progress(done: int, num: int) -> None:
        assert num == NUM
        marks.append(done)
        if len(marks) == after:
            raise StoppedError

    with pytest.raises(StoppedError):
        build(folder, live, progress=progress)
    return marks


def test_entries_are_photos_with_a_history_and_their_reconstructions(
    tmp_path: Path, live: LivePairs
) -> None:
    folder = build(tmp_path / "cache", live)
    photos, redrawn = (np.load(folder / f"{n}.npy") for n in ("photos", "reconstructions"))
    assert photos.shape == (NUM, SIDE, SIDE, 3)
    assert redrawn.shape == (NUM, 2, SIDE, SIDE, 3)
    about = json.loads((folder / "cache.json").read_text())
    assert about["members"] == ["a", "b"]
    assert about["sources"] == live.photos.names
    for i in (0, CHUNK, NUM - 1):
        expected, _ = live.draw_photo(i % len(live.photos), default_rng([3, i]))
        assert np.array_equal(photos[i], expected)
        for number, name in enumerate("ab"):
            alone = reconstruct(live.bank[name], photos[i]).astype(int)
            assert np.abs(alone - redrawn[i, number]).max() <= 1  # singly, sums round differently


def test_an_interrupted_build_goes_on_to_the_same_arrays(tmp_path: Path, live: LivePairs) -> None:
    whole = content(build(tmp_path / "whole", live))
    assert interrupt(tmp_path / "parts", live, after=1) == [CHUNK]
    assert interrupt(tmp_path / "parts", live, after=1) == [2 * CHUNK]
    assert content(build(tmp_path / "parts", live)) == whole


def test_work_after_the_last_mark_is_done_again(tmp_path: Path, live: LivePairs) -> None:
    whole = content(build(tmp_path / "whole", live))
    folder = tmp_path / "parts"
    interrupt(folder, live, after=2)
    photos = np.load(folder / "photos.npy", mmap_mode="r+")
    photos[2 * CHUNK :] = 77  # as if the machine had stopped amid the third chunk
    photos.flush()
    assert content(build(folder, live)) == whole


def test_a_finished_cache_is_left_alone(tmp_path: Path, live: LivePairs) -> None:
    before = content(build(tmp_path / "cache", live))
    # Nothing may be read, and where the photos lie does not matter.
    gone = [f"elsewhere/{Path(name).name}" for name in live.photos.names]
    live.photos = PhotoSource([Place(name, "", name) for name in gone])
    assert content(build(tmp_path / "cache", live)) == before


def test_other_photos_and_weights_are_refused(tmp_path: Path, live: LivePairs) -> None:
    folder = build(tmp_path / "cache", live)
    before, photos = content(folder), live.photos
    live.photos = PhotoSource(photos._photos[::-1])
    with pytest.raises(TrainingError, match="not the same: photos"):
        build(folder, live)
    live.photos = photos
    with torch.no_grad():
        next(live.bank["b"].parameters()).mul_(1.001)  # trained again under the same name
    with pytest.raises(TrainingError, match="not the same: weights of b"):
        build(folder, live)
    assert content(folder) == before


@pytest.mark.parametrize("change", [{"num": NUM + 1}, {"seed": 4}, {"key": {"history": "other"}}])
@pytest.mark.parametrize("finished", [False, True])
def test_another_recipe_is_refused(
    tmp_path: Path, live: LivePairs, change: dict[str, Any], finished: bool
) -> None:
    folder = tmp_path / "cache"
    build(folder, live) if finished else interrupt(folder, live, after=1)
    before = content(folder)
    with pytest.raises(
        TrainingError, match=rf"another recipe .*{next(iter(change))}.*delete it or choose"
    ):
        build(folder, live, **change)
    live.crop += 8
    with pytest.raises(TrainingError, match="same: side"):
        build(folder, live)
    assert content(folder) == before


def test_a_bank_that_the_cache_lacks_is_refused(tmp_path: Path, live: LivePairs) -> None:
    folder = build(tmp_path / "cache", live)
    one = live.bank["a"]
    live.bank = {"a": one}
    build(folder, live)  # a finished cache serves a part of its bank
    live.bank = {"a": one, "c": one}
    with pytest.raises(TrainingError, match="same: members"):
        build(folder, live)
    with pytest.raises(TrainingError, match="lacks c, d"):
        CachedPairs(folder, {"a": 1.0, "d": 1.0, "c": 1.0})


def test_an_unfinished_cache_takes_the_whole_bank_only(tmp_path: Path, live: LivePairs) -> None:
    folder = tmp_path / "cache"
    interrupt(folder, live, after=1)
    with pytest.raises(TrainingError, match="unfinished; run the same command again"):
        CachedPairs(folder, {"a": 1.0})
    live.bank = {"a": live.bank["a"]}
    with pytest.raises(TrainingError, match="same: members"):
        build(folder, live)


def test_no_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no cache"):
        CachedPairs(tmp_path, {"a": 1.0})


def test_drawn_pairs_are_entries_of_the_cache(tmp_path: Path, live: LivePairs) -> None:
    folder = build(tmp_path / "cache", live)
    photos, redrawn = (np.load(folder / f"{n}.npy") for n in ("photos", "reconstructions"))
    pairs, rng = CachedPairs(folder, {"b": 1.0, "a": 3.0}), default_rng(0)
    drawn = [pairs.draw(rng) for _ in range(200)]
    for pair in drawn[:20]:
        (i,) = np.flatnonzero((photos == pair.photo).all(axis=(1, 2, 3)))
        assert np.array_equal(redrawn[i, "ab".index(pair.member)], pair.reconstruction)
        assert pair.source == live.photos.names[i % len(live.photos)]
    assert 0.62 < np.mean([pair.member == "a" for pair in drawn]) < 0.88
    only = CachedPairs(folder, {"b": 1.0})
    assert {only.draw(rng).member for _ in range(20)} == {"b"}


def test_live_pairs_are_of_the_photo_after_its_history(live: LivePairs) -> None:
    live.history = History(probability=1, resize=1, scale=(0.5, 0.5), jpeg=1)
    side = live.history.find_margin(SIDE)
    live.photos = _Exactly(live.photos, side)  # as large as the margin: nothing to cut before
    for seed in range(4):
        pair = live.draw(default_rng(seed))
        source = live.photos.read(live.photos.names.index(pair.source))
        assert [step.name for step in pair.history][:2] == ["resize", "jpeg"]
        assert np.array_equal(replay(source, None, pair.history)[0], pair.photo)
        assert np.array_equal(reconstruct(live.bank[pair.member], pair.photo), pair.reconstruction)


class _Exactly(PhotoSource):
    """Photos cut to a square of one side."""

    def __init__(self, photos: PhotoSource, side: int) -> None:
        self._photos, self._side = photos._photos, side

    def read(self, index: int) -> np.ndarray:
        return super().read(index)[: self._side, : self._side]


def test_a_short_cache_shows_photos_of_every_folder() -> None:
    shown = [choose_photo(i, 4, 10) for i in range(4)]
    assert shown == [0, 2, 5, 7]
    assert [choose_photo(i, 12, 10) for i in range(12)] == [*range(10), 0, 1]
