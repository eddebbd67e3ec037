"""Where photos come from: files, folders, globs, list files, archives, fsspec addresses.

- `find_images` is for commands that take photos on the local disk; `PhotoSource` is for training
  and takes archives (.zip, .tar) and addresses (s3://, gs://, https://, ...) as well.
- `split` decides by a hash of names, never by position: a photo stays in its part when others
  come or go, on every machine. Copies of one photo under two names may land in two parts.
- Hidden files and folders (a name that starts with a dot) are passed over.
- fsspec reads archives, too. A file system is opened once per process and thread, so that
  workers that were forked never share a file position.
"""

from __future__ import annotations

import glob
import hashlib
import os
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

import fsspec
import numpy as np

from overpaint.decoding import check_num_bytes, pixel_limit
from overpaint.errors import ConfigError, ImageError
from overpaint.images import Photo, decode_image, image_suffixes, read_image

Part = Literal["train", "validation", "test"]
T = TypeVar("T", str, Path)

_ARCHIVES = {".zip": "zip", ".tar": "tar"}
_PARTS: dict[str, range] = {"train": range(8), "validation": range(8, 9), "test": range(9, 10)}


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """Photos named by files, folders (searched to the bottom, sorted), globs and .txt lists.

    A list file holds one path a line, relative to the list. A file that is named itself is taken
    whatever its suffix; in folders and globs the suffix decides. Each photo comes once, in the
    order given. Raises `ImageError` for a path that matches nothing.
    """
    return list(dict.fromkeys(p for path in _expand_lists(paths) for p in _find(path)))


def split(paths: Iterable[T], part: Part, seed: int = 0) -> list[T]:
    """The photos of one part: 80 % train, 10 % validation, 10 % test.

    Decided by SHA-256 of the seed and the last two components of the path (folder and file name).
    Raises `ConfigError` for another part.
    """
    if part not in _PARTS:
        raise ConfigError(f"part {part!r}: choose one of {', '.join(_PARTS)}")
    return [path for path in paths if _tenth(str(path), seed) in _PARTS[part]]


class PhotoSource:
    """Photos to train on, decoded when asked for; small enough to send to worker processes.

    names: path or address of each photo; a member of an archive is "archive::member".
    """

    def __init__(self, photos: Sequence[tuple[str, str, str]]) -> None:
        """photos: (name, address of the file system or "" for a local file, path in it)."""
        self._photos = tuple(photos)

    @classmethod
    def from_paths(
        cls,
        paths: Iterable[str | Path],
        part: Part | None = None,
        exclude: Iterable[str | Path] = (),
        seed: int = 0,
    ) -> PhotoSource:
        """Collect photos from what `find_images` takes, archives and fsspec addresses.

        part, seed: see `split`; None takes all. exclude: photos to leave out, compared by the
        last two components of the path; a bare file name is left out in every folder. Raises
        `ImageError` when a path matches nothing or no photo is left.
        """
        photos = {photo[0]: photo for path in _expand_lists(paths) for photo in _photos_in(path)}
        kept = split(photos, part, seed) if part else list(photos)
        unwanted = {"/".join(_parts(str(path))[-2:]) for path in exclude}
        kept = [name for name in kept if not unwanted & {_key(name), _parts(name)[-1]}]
        if not kept:
            raise ImageError(
                f"none of the {len(photos)} photos is left (part: {part or 'all'}, after excluding "
                f"{len(unwanted)} names); give more photos or another part"
            )
        return cls([photos[name] for name in kept])

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self._photos]

    def __len__(self) -> int:
        return len(self._photos)

    def photo(self, index: int) -> Photo:
        """The photo with its hash and notes; raises `ImageError`."""
        name, root, path = self._photos[index]
        return decode_image(_fetch(name, root, path), name) if root else read_image(path)

    def read(self, index: int) -> np.ndarray:
        """The photo's pixels: uint8 (h, w, 3), RGB, upright; raises `ImageError`."""
        return self.photo(index).pixels


def _expand_lists(paths: Iterable[str | Path]) -> Iterator[str]:
    """The paths, with every list file replaced by its lines."""
    for path in [paths] if isinstance(paths, str | Path) else paths:
        text = str(path)
        if "://" in text or not text.lower().endswith(".txt"):
            yield text
            continue
        try:
            lines = Path(text).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ImageError(
                f"{text}: the list cannot be read ({error}); save it as UTF-8"
            ) from error
        for line in filter(None, map(str.strip, lines)):
            yield line if "://" in line else str(Path(text).parent / line)


def _find(path: str) -> list[Path]:
    place = Path(path)
    if place.is_file():
        return [place]
    if place.is_dir():
        found = [p for p in place.rglob("*") if _is_photo(p.relative_to(place)) and p.is_file()]
    else:
        matches = map(Path, glob.glob(path, recursive=True))  # noqa: PTH207 (takes absolute ones)
        found = [p for p in matches if _is_photo(p.name) and p.is_file()]
    if not found:
        kind = "the folder holds no photo" if place.is_dir() else "no such file, folder or match"
        raise ImageError(f"{path}: {kind}; photos end in {', '.join(sorted(image_suffixes))}")
    return sorted(found, key=Path.as_posix)


def _is_photo(relative: str | Path) -> bool:
    path = PurePosixPath(str(relative).replace("\\", "/"))
    return path.suffix.lower() in image_suffixes and not any(p.startswith(".") for p in path.parts)


def _parts(name: str) -> list[str]:
    """Path components, with an archive's members counted as lying in a folder of its name."""
    plain = name.replace("::", "/").replace("\\", "/")
    return [p for p in unicodedata.normalize("NFC", plain).split("/") if p not in ("", ".")]


def _key(name: str) -> str:
    """Folder and file name: what a photo is known by on every machine."""
    whole = name if "://" in name or "::" in name else str(Path(name).absolute())
    return "/".join(_parts(whole)[-2:])


def _tenth(name: str, seed: int) -> int:
    digest = hashlib.sha256(f"{seed}/{_key(name)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 10


def _photos_in(path: str) -> list[tuple[str, str, str]]:
    """(name, file system, path in it) of every photo that one path, archive or address names."""
    if "://" in path:
        return _photos_at(path)
    if path.lower().endswith((".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")):
        raise ImageError(
            f"{path}: a compressed tar cannot be read at random; unpack it, or use .tar"
        )
    kind = _ARCHIVES.get(Path(path).suffix.lower())
    if kind is None or Path(path).is_dir():
        return [(str(found), "", str(found)) for found in _find(path)]
    root = f"{kind}://::file://{Path(path).absolute().as_posix()}"
    members = _list(path, root, "")
    return [(f"{path}::{member}", root, member) for member in members]


def _photos_at(address: str) -> list[tuple[str, str, str]]:
    try:
        files, start = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ImageError(f"{address}: {error}; install the package that fsspec names") from error
    one = _is_photo(PurePosixPath(start).name) and not glob.has_magic(start)
    found = [start] if one else _list(address, address, start)  # one is looked for when read
    return [(files.unstrip_protocol(path), address, path) for path in found]


def _list(name: str, root: str, start: str) -> list[str]:
    """Sorted photos below `start`, or matching it where it is a glob."""
    try:
        files = _file_system(root, os.getpid(), threading.get_ident())
        found = map(str, files.glob(start) if glob.has_magic(start) else files.find(start))
    except Exception as error:  # every kind of storage has its own errors
        raise ImageError(f"{name}: cannot be listed ({error}); check name and access") from error
    photos = sorted(path for path in found if _is_photo(path.removeprefix(start)))
    if not photos:
        raise ImageError(
            f"{name}: holds no photo; photos end in {', '.join(sorted(image_suffixes))}"
        )
    return photos


def _fetch(name: str, root: str, path: str) -> bytes:
    try:
        files = _file_system(root, os.getpid(), threading.get_ident())
        check_num_bytes(name, files.info(path).get("size") or 0, pixel_limit(None))
        return files.cat_file(path)
    except ImageError:
        raise
    except Exception as error:  # as for listing
        raise ImageError(f"{name}: cannot be read ({error}); check name and access") from error


@lru_cache(maxsize=32)
def _file_system(root: str, pid: int, thread: int) -> Any:
    return fsspec.core.url_to_fs(root)[0]
