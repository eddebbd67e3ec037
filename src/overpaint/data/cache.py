"""Reconstructions computed once: photos after random histories, each redrawn by the bank.

A good autoencoder costs more than a training step of the detector, and the same reconstruction
serves many crops, masks and degradations. A cache is a folder of memory-mapped arrays:

    cache.json            what it was made from (recipe, members, weights, photos), how far
    photos.npy            uint8 (num, side, side, 3): crops of photos after a random history
    reconstructions.npy   uint8 (num, members, side, side, 3): in the order of the names

Entry i is a function of (seed, i) alone; a build that was interrupted goes on where it stopped.
Every member redraws every entry, so that one cache serves any weights, ablations included.
float32 throughout: bfloat16 adds an error of about one grey level (measured on TAEF2), which is
the size of the residuals that a detector is based on.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from torch import nn

from overpaint import atomic
from overpaint.data.autoencoder import reconstruct_batch
from overpaint.data.universal import LivePairs, Pair, draw_weighted
from overpaint.errors import TrainingError

CHUNK = 8
"""Entries between two marks of progress, and photos in one call of a member."""


class CachedPairs:
    """Pairs from a finished cache folder, the members drawn by `weights`.

    Raises TrainingError when there is no cache, or it is unfinished or lacks a member.
    """

    def __init__(self, folder: Path, weights: Mapping[str, float]) -> None:
        about = _read_json(folder / "cache.json")
        if about is None:
            raise TrainingError(f"{folder}: holds no cache; build one, or name another folder")
        if about["done"] < about["num"]:
            raise TrainingError(f"{folder}: the cache is unfinished; run the same command again")
        if missing := sorted(set(weights) - set(about["members"])):
            raise TrainingError(f"{folder}: the cache lacks {', '.join(missing)}; choose another")
        self.members: list[str] = about["members"]
        self.sources: list[str] = about["sources"]
        self.num: int = about["num"]
        self.weights = weights
        self.photos = np.load(folder / "photos.npy", mmap_mode="r")
        self.reconstructions = np.load(folder / "reconstructions.npy", mmap_mode="r")

    def draw(self, rng: np.random.Generator) -> Pair:
        index = int(rng.integers(len(self.photos)))
        member = draw_weighted(self.weights, rng)
        photo = np.asarray(self.photos[index])
        redrawn = np.asarray(self.reconstructions[index, self.members.index(member)])
        source = self.sources[choose_photo(index, self.num, len(self.sources))]
        return Pair(photo, redrawn, source, member)


def choose_photo(entry: int, num: int, num_photos: int) -> int:
    """The photo that entry `entry` of `num` shows: all in turn, or evenly many of each folder.

    Photos are in the order of their folders, so the first few would be those of one folder.
    """
    return entry % num_photos if num >= num_photos else entry * num_photos // num


def build_cache(
    folder: Path,
    live: LivePairs,
    *,
    num: int,
    seed: int,
    key: Mapping[str, Any],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Fill `folder` with `num` entries, or go on filling it.

    key: what the entries depend on beside the seed, photos and bank (any JSON). Raises
    TrainingError when the folder holds a cache of another key, other photos or weights, or lacks
    a member, so that no run trains on the reconstructions of another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = _claim(folder, live, {"key": dict(key), "num": num, "seed": seed, "side": live.crop})
    side, mode = live.crop, "r+" if about["done"] else "w+"
    photos = open_memmap(folder / "photos.npy", mode, np.uint8, (num, side, side, 3))
    shape = (num, len(about["members"]), side, side, 3)
    redrawn = open_memmap(folder / "reconstructions.npy", mode, np.uint8, shape)
    while about["done"] < num:
        chunk = range(about["done"], min(about["done"] + CHUNK, num))
        for i in chunk:
            index = choose_photo(i, num, len(live.photos))
            photos[i], _ = live.draw_photo(index, np.random.default_rng([seed, i]))
        for number, name in enumerate(about["members"]):
            batch = photos[chunk.start : chunk.stop]
            redrawn[chunk.start : chunk.stop, number] = reconstruct_batch(live.bank[name], batch)
        photos.flush()
        redrawn.flush()
        about["done"] = chunk.stop
        _write_json(folder / "cache.json", about)
        progress(about["done"], num)


def _claim(folder: Path, live: LivePairs, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the folder's cache.json, present or future.

    Raises TrainingError when it is that of another cache.
    """
    current = {
        **json.loads(json.dumps(wanted)),
        "members": sorted(live.bank),
        "weights": {name: _hash_module(live.bank[name]) for name in sorted(live.bank)},
        "sources": live.photos.names,
    }
    found = _read_json(folder / "cache.json")
    if found is None:
        return {**current, "done": 0}
    other = [name for name in wanted if found[name] != current[name]]
    if _list_file_names(found["sources"]) != _list_file_names(current["sources"]):
        other.append("photos")
    lacking = set(live.bank) - set(found["members"])
    if lacking or (found["done"] < found["num"] and len(live.bank) < len(found["members"])):
        other.append("members")
    known = found["weights"]
    other += [f"weights of {n}" for n, w in current["weights"].items() if known.get(n, w) != w]
    if other:
        raise TrainingError(
            f"{folder}: a cache of another recipe (not the same: {', '.join(other)}); "
            "delete it or choose another"
        )
    return found


def _hash_module(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _list_file_names(paths: list[str]) -> list[str]:
    """Without their folders, which may be spelled in several ways."""
    return [Path(path).name for path in paths]


def _read_json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.exists() else None


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    atomic.write(path, json.dumps(value).encode(), TrainingError)
