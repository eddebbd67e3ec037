"""The photos of a recipe: those of a part, brought to a size, and what their content is.

A photo keeps its name (folder and file) when it is brought to another size, and its part with it.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from overpaint import hashes
from overpaint.benchmark.recipe import Fit, PhotoSet
from overpaint.data.sources import Part, PhotoSource, Place, read_place, stamp
from overpaint.errors import ConfigError, ImageError
from overpaint.images import write_bytes, write_png

LIST = "photos.json"
PARTS: tuple[Part, ...] = ("train", "validation", "test")


def choose(photos: PhotoSet, data: Path, part: Part, seed: int) -> list[Place]:
    """The photos of one part, at most as many as the set says, drawn by the seed; by their order.

    Raises ImageError for a folder that is missing or holds none of this part.
    """
    source = PhotoSource.from_paths([data / photos.source], part)
    if source.problems:  # a figure of a part of the photos would be another figure
        raise ImageError(source.problems[0])
    limit: int | None = getattr(photos, part)
    chosen = range(len(source))
    if limit is not None and limit < len(source):
        rng = np.random.default_rng([seed, PARTS.index(part)])
        chosen = sorted(rng.permutation(len(source))[:limit].tolist())
    return [source.places[i] for i in chosen]


def content_hash(places: Sequence[Place], memory: Path) -> str:
    """SHA-256 of names and bytes. memory: folder that keeps it until a file changes."""
    stamps = json.dumps([(p.name, *_plain(p)) for p in places])
    known = memory / f"{hashes.sha256(stamps.encode())[:24]}.txt"
    if known.is_file():
        return known.read_text(encoding="ascii")
    lines = [f"{key_of(p.name)} {hashes.sha256(read_place(p))}" for p in places]
    found = hashes.sha256("\n".join(lines).encode("utf-8", "surrogateescape"))
    memory.mkdir(parents=True, exist_ok=True)
    write_bytes(known, found.encode())
    return found


def _plain(place: Place) -> tuple[int | None, str]:
    state = stamp(place)
    return state.num_bytes, state.tag


def key_of(name: str) -> str:
    """Folder and file name."""
    return "/".join(name.replace("::", "/").replace("\\", "/").split("/")[-2:])


def bring_to_size(places: Sequence[Place], fit: Fit, size: int, out: Path) -> None:
    """Write the photos as PNG files of `size` and the list of them, by their own names."""
    source, entries = PhotoSource(places), []
    for index, place in enumerate(places):
        path = out / f"{index:06d}.png"
        if not path.is_file():
            write_png(path, fitted(source.read(index), size, fit))
        entries.append([place.name, path.name])
    write_bytes(out / LIST, json.dumps(entries).encode())


def sized_photos(folder: Path) -> list[Place]:
    """What `bring_to_size` wrote."""
    entries = json.loads((folder / LIST).read_text(encoding="utf-8"))
    return [Place(name, "", str(folder / file)) for name, file in entries]


def fitted(pixels: np.ndarray, size: int, fit: Fit) -> np.ndarray:
    """uint8 (h, w, 3) to (size, size, 3).

    crop: the middle of the photo at its own resolution; resize: the middle square, scaled. Raises
    ImageError for a photo that is too small to be cropped.
    """
    height, width = pixels.shape[:2]
    side = size if fit == "crop" else min(height, width)
    if min(height, width) < side:
        raise ImageError(
            f"{width} x {height} pixels are too few to crop {size} out of them; give fit: resize"
        )
    if fit not in ("crop", "resize"):
        raise ConfigError(f"fit {fit!r} leaves a photo as it is")
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    if side == size:
        return square
    kernel = Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(square).resize((size, size), kernel))
