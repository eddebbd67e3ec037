"""Reconstructions computed once: photos after random histories, and what the bank makes of them.

A good autoencoder costs more than a training step of the detector, and the same reconstruction
serves many crops, masks and degradations. A cache is a folder of memory-mapped arrays:

    cache.json            what it was made from (config, photos, members) and how far it got
    photos.npy            uint8 (n, side, side, 3): crops of photos after a random history
    reconstructions.npy   uint8 (n, slots, side, side, 3): by `members` of the bank
    members.npy           uint8 (n, slots): which member made each, an index into the names

Entry i is a function of (seed, i) alone; a build that was interrupted goes on where it stopped.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import nn

from overpaint.data.autoencoder import reconstruct_batch
from overpaint.data.universal import LivePairs, Pair
from overpaint.errors import TrainingError

CHUNK = 64
"""Entries between two marks of progress; also the most that one call of a member redraws."""


class CachedPairs:
    """Pairs from a finished cache folder."""

    def __init__(self, folder: Path) -> None:
        about = json.loads((folder / "cache.json").read_text())
        if about["done"] < about["num"]:
            raise TrainingError(f"{folder}: the cache is unfinished; run the same command again")
        self.names: list[str] = about["names"]
        self.sources: list[str] = about["sources"]
        self.photos = np.load(folder / "photos.npy", mmap_mode="r")
        self.reconstructions = np.load(folder / "reconstructions.npy", mmap_mode="r")
        self.members = np.load(folder / "members.npy")

    def draw(self, rng: np.random.Generator) -> Pair:
        index = int(rng.integers(len(self.photos)))
        slot = int(rng.integers(self.members.shape[1]))
        name = self.names[self.members[index, slot]]
        photo, redrawn = self.photos[index], self.reconstructions[index, slot]
        return Pair(np.asarray(photo), np.asarray(redrawn), self.sources[index], name)


def build_cache(
    folder: Path,
    live: LivePairs,
    *,
    num: int,
    slots: int,
    seed: int,
    key: Mapping[str, Any],
    progress: Callable[[int, int], None] = lambda done, total: None,
    bf16: bool = True,
) -> CachedPairs:
    """Fill `folder` with `num` entries of `slots` reconstructions each, or go on filling it.

    key: what the cache depends on (any JSON); another key in the folder is an error, so that no
    run trains on the reconstructions of another. bf16 halves the time; its rounding is far below
    an autoencoder's own error. Raises TrainingError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = {"key": dict(key), "num": num, "slots": slots, "seed": seed, "side": live.crop}
    about |= {"names": sorted(live.bank), "done": 0, "sources": []}
    if (folder / "cache.json").exists():
        found = json.loads((folder / "cache.json").read_text())
        if {**found, "done": 0, "sources": []} != json.loads(json.dumps(about)):
            raise TrainingError(f"{folder}: a cache of another recipe; delete it or choose another")
        about = found
    side, mode = live.crop, "r+" if about["done"] else "w+"
    photos = open_memmap(folder / "photos.npy", mode, np.uint8, (num, side, side, 3))
    redrawn = open_memmap(
        folder / "reconstructions.npy", mode, np.uint8, (num, slots, side, side, 3)
    )
    members = open_memmap(folder / "members.npy", mode, np.uint8, (num, slots))
    while about["done"] < num:
        first = about["done"]
        entries = range(first, min(first + CHUNK, num))
        for i in entries:
            photos[i], members[i], source = _entry(live, seed, i, slots, about["names"])
            about["sources"].append(source)
        chunk = slice(entries.start, entries.stop)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            redrawn[chunk] = _redraw(live.bank, about["names"], photos[chunk], members[chunk])
        for array in (photos, redrawn, members):
            array.flush()
        about["done"] = entries.stop
        _write_json(folder / "cache.json", about)
        progress(about["done"], num)
    return CachedPairs(folder)


def _entry(
    live: LivePairs, seed: int, index: int, slots: int, names: list[str]
) -> tuple[np.ndarray, list[int], str]:
    """Photo, members and source of entry `index`: the photos take turns, the members are drawn."""
    rng = np.random.default_rng([seed, index])
    photo_index = index % len(live.photos)
    photo, _ = live.photo(photo_index, rng)
    weights = np.array([live.weights[name] for name in names], dtype=float)
    enough = np.count_nonzero(weights) >= slots
    drawn = rng.choice(len(names), size=slots, replace=not enough, p=weights / weights.sum())
    return photo, drawn.tolist(), live.photos.names[photo_index]


def _redraw(
    bank: Mapping[str, nn.Module], names: list[str], photos: np.ndarray, members: np.ndarray
) -> np.ndarray:
    """uint8 (n, side, side, 3), (n, slots) -> (n, slots, side, side, 3)."""
    out = np.empty((*members.shape, *photos.shape[1:]), np.uint8)
    for number, name in enumerate(names):
        where = np.argwhere(members == number)
        for start in range(0, len(where), 8):
            rows, slots = where[start : start + 8].T
            out[rows, slots] = reconstruct_batch(bank[name], photos[rows])
    return out


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)
