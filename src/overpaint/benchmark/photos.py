"""The photos of a recipe: those of a part, brought to a size, and what their content is.

A photo keeps its name (folder and file) when it is brought to another size, and its part with it.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from overpaint import hashes
from overpaint.benchmark.recipe import PhotoSet
from overpaint.data.photo_sets import LAYOUTS, Fit, open_photos
from overpaint.data.sources import Part, PhotoSource, Place, read_place, read_stamp, shorten_name
from overpaint.errors import ImageError
from overpaint.images import write_bytes, write_png

LIST = "photos.json"
PARTS: tuple[Part, ...] = ("train", "validation", "test")


def choose(photos: PhotoSet, data: Path, part: Part, seed: int) -> list[Place]:
    """The photos of one part, at most as many as the set says, drawn by the seed; by their order.

    Raises ImageError for a folder that is missing or holds none of this part.
    """
    # The seed of the split is that of all trainings, so that weights trained on these photos under
    # the same name saw no test photo: a set by name and its plain folder are divided differently.
    found = open_photos(resolve_below(data, photos.source, LAYOUTS), part, size=None)
    if found.problems:  # a figure of a part of the photos would be another figure
        raise ImageError(found.problems[0])
    source = found.source
    limit: int | None = getattr(photos, part)
    chosen = range(len(source))
    if limit is not None and limit < len(source):
        rng = np.random.default_rng([seed, PARTS.index(part)])
        chosen = sorted(rng.permutation(len(source))[:limit].tolist())
    return [source.places[i] for i in chosen]


def hash_contents(places: Sequence[Place], memory: Path) -> str:
    """SHA-256 of names and bytes. memory: folder that keeps it until a file changes."""
    stamps = json.dumps([(p.name, *_read_state(p)) for p in places])
    known = memory / f"{hashes.sha256(stamps.encode())[:24]}.txt"
    if known.is_file():
        return known.read_text(encoding="ascii")
    lines = [f"{shorten_name(p.name)} {hashes.sha256(read_place(p))}" for p in places]
    found = hashes.sha256("\n".join(lines).encode("utf-8", "surrogateescape"))
    memory.mkdir(parents=True, exist_ok=True)
    write_bytes(known, found.encode())
    return found


def _read_state(place: Place) -> tuple[int | None, str]:
    state = read_stamp(place)
    return state.num_bytes, state.tag


def resolve_below(data: Path, spec: str, kinds: Collection[str]) -> str:
    """A spec FOLDER or KIND:FOLDER with its folder below `data`, unless it is absolute."""
    kind, colon, folder = spec.partition(":")
    return f"{kind}:{data / folder}" if colon and kind in kinds else str(data / spec)


def bring_to_size(places: Sequence[Place], fit: Fit, out: Path) -> None:
    """Write the photos as PNG files of one size and the list of them, by their own names."""
    source, entries = PhotoSource(places), []
    for index, place in enumerate(places):
        path = out / f"{index:06d}.png"
        if not path.is_file():
            write_png(path, fit(source.read(index), shorten_name(place.name)))
        entries.append([place.name, path.name])
    write_bytes(out / LIST, json.dumps(entries).encode())


def list_sized_photos(folder: Path) -> list[Place]:
    """What `bring_to_size` wrote."""
    entries = json.loads((folder / LIST).read_text(encoding="utf-8"))
    return [Place(name, "", str(folder / file)) for name, file in entries]
