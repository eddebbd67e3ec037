"""Photos for training and measuring, from the local disk, archives and fsspec addresses.

- `overpaint.data.finding` looks for photos on the local disk; a `PhotoSource` takes archives (.zip,
  .tar) and fsspec addresses (s3://, gs://, https://, ...) as well.
- An error in one path, line or member of an archive skips that one alone, and is kept in
  `PhotoSource.problems` for the caller to report.
- `split` decides by a hash of names, never by position: a photo stays in its part when others
  come or go, on every machine. Copies of one photo under two names may land in two parts.
- Hidden files and folders (a name that starts with a dot) are passed over. In archives the content
  decides where the suffix is not known; at addresses the suffix alone, as looking costs a request.
- fsspec reads archives, too. A file system is opened once per process and thread, so that
  workers that were forked never share a file position.
- A `Stamp` tells one state of a photo from another without reading it.
"""

from __future__ import annotations

import email.utils
import glob
import hashlib
import os
import threading
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, TypeVar

import fsspec
import numpy as np

from overpaint.data.finding import (
    HEAD,
    PHOTOS_END_IN,
    Search,
    is_picture,
    read_result_mark,
)
from overpaint.errors import ConfigError, ImageError
from overpaint.images import Photo, decode_image, image_suffixes, read_file_bytes, read_image
from overpaint.images.decoding import check_num_bytes, find_pixel_limit

Part = Literal["train", "validation", "test"]
T = TypeVar("T", str, Path)
S = TypeVar("S")

_ARCHIVES = {".zip": "zip", ".tar": "tar"}
_PARTS: dict[Part, range] = {"train": range(8), "validation": range(8, 9), "test": range(9, 10)}


# What storages call the marks by which one state of a file differs from the next; the first counts.
_TAGS = ("ETag", "etag", "md5Hash", "md5", "content_md5")
_TIMES = ("mtime", "LastModified", "last_modified", "Last-Modified", "updated", "created")


class Place(NamedTuple):
    """Where one photo is."""

    name: str
    """Path or address; a member of an archive is "archive::member"."""
    root: str
    """Address of the file system; "" for a local file."""
    path: str
    """In that file system."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """A state of a photo's file, as its storage tells it."""

    num_bytes: int | None = None
    tag: str = ""
    """Another one after every change: nanoseconds of the last one, or an ETag; "" where the storage
    has neither."""
    changed: float | None = None
    """Seconds since 1970; of a member, those of its archive."""


def find_places(paths: Iterable[str | Path]) -> tuple[list[Place], Search]:
    """All photos of files, folders, globs, lists, archives and addresses, each once, in the order
    given; and the search, with its problems and what was passed over. Raises nothing."""
    search = Search()
    places: dict[str, Place] = {}
    for path, where in search.list_named(paths):
        num = len(search.problems)
        places |= {place.name: place for place in _find_places_in(path, where, search)}
        search.named |= {problem: path for problem, _ in search.problems[num:] if problem != path}
    return list(places.values()), search


def read_place(place: Place) -> bytes:
    """All bytes of a photo's file; raises `ImageError`."""
    if place.root:
        return _fetch(*place)
    return read_file_bytes(place.path)[0]


def read_stamp(place: Place) -> Stamp:
    """The state of a photo's file; an empty one where it cannot be told, as reading will say why.

    At an address this costs a request, unless the photo was listed.
    """
    try:
        if not place.root:
            status = os.stat(place.path)  # noqa: PTH116 (Path raises for some names)
            return Stamp(status.st_size, str(status.st_mtime_ns), status.st_mtime)
        info = _file_system(place.root, os.getpid(), threading.get_ident()).info(place.path)
        archive = place.root.partition("://::file://")[2]
        if archive:
            status = os.stat(archive)  # noqa: PTH116
            return Stamp(info.get("size"), str(status.st_mtime_ns), status.st_mtime)
    except Exception:  # every kind of storage has its own errors
        return Stamp()
    times = [info[key] for key in _TIMES if info.get(key)]
    tags = [info[key] for key in _TAGS if info.get(key)] + times
    return Stamp(info.get("size"), str(tags[0]) if tags else "", _read_seconds(times))


def _read_seconds(times: Sequence[Any]) -> float | None:
    """Since 1970, of what a storage says first; None where that is no time."""
    try:
        time = times[0]
        if isinstance(time, str):
            time = datetime.fromisoformat(time) if time[:1].isdigit() else _parse_http_date(time)
        return time.timestamp() if isinstance(time, datetime) else float(time)
    except (IndexError, TypeError, ValueError):
        return None


def _parse_http_date(text: str) -> datetime:
    return email.utils.parsedate_to_datetime(text)


def split(paths: Iterable[T], part: Part, seed: int = 0) -> list[T]:
    """The photos of one part: 80 % train, 10 % validation, 10 % test.

    Decided by SHA-256 of the seed and the last two components of the path (folder and file name).
    Raises `ConfigError` for another part.
    """
    if part not in _PARTS:
        raise ConfigError(f"part {part!r}: choose one of {', '.join(_PARTS)}")
    return [path for path in paths if _find_tenth(str(path), seed) in _PARTS[part]]


def find_part(name: str, seed: int = 0) -> Part:
    """The part of one photo; see `split`."""
    tenth = _find_tenth(name, seed)
    return next(part for part, tenths in _PARTS.items() if tenth in tenths)


def hash_data_list(names: Iterable[str]) -> str:
    """SHA-256 (hex) of the sorted list of photos, one a line, each as FOLDER/FILE.

    Two machines with the same photos get the same hash, wherever the folders lie.
    """
    lines = "\n".join(sorted(shorten_name(name) for name in names))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


class PhotoSource:
    """Photos to train on, decoded when asked for; small enough to send to worker processes.

    names: path or address of each photo; a member of an archive is "archive::member".
    """

    def __init__(
        self,
        photos: Sequence[Place],
        problems: Sequence[str] = (),
        passed_over: str | None = None,
    ) -> None:
        self._photos = tuple(photos)
        self.problems = tuple(problems)
        """What was asked for and could not be found or searched, one message each."""
        self.passed_over = passed_over
        """What was found and is no photo, in one line."""

    @classmethod
    def from_paths(
        cls,
        paths: Iterable[str | Path],
        part: Part | None = None,
        exclude: Iterable[str | Path] = (),
        seed: int = 0,
    ) -> PhotoSource:
        """Collect photos from what `finding.find_photos` takes, archives and fsspec addresses.

        part, seed: see `split`; None takes all. exclude: see `leave_out`. Raises `ImageError`
        when no photo is found, or none is left.
        """
        places, search = find_places(paths)
        photos = {place.name: place for place in places}
        if search.problems and not photos:
            raise search.problems[0][1]
        unwanted = list(exclude)
        kept = leave_out(split(photos, part, seed) if part else photos, unwanted)
        if not kept:
            raise ImageError(
                f"none of the {len(photos)} photos is left (part: {part or 'all'}, after excluding "
                f"{len(unwanted)} names); give more photos or another part"
            )
        problems = [str(error) for _, error in search.problems]
        return cls([photos[name] for name in kept], problems, search.words)

    @classmethod
    def join(cls, sources: Sequence[PhotoSource]) -> PhotoSource:
        """All photos of several sources, each once by its name, with the problems of all."""
        places = {place.name: place for source in sources for place in source._photos}
        problems = [problem for source in sources for problem in source.problems]
        passed = "; ".join(filter(None, (source.passed_over for source in sources)))
        return cls(list(places.values()), problems, passed or None)

    @property
    def places(self) -> list[Place]:
        """Where the photos are."""
        return list(self._photos)

    @property
    def names(self) -> list[str]:
        return [place.name for place in self._photos]

    def __len__(self) -> int:
        return len(self._photos)

    def read_photo(self, index: int) -> Photo:
        """The photo with its hash and notes; raises `ImageError`."""
        place = self._photos[index]
        return decode_image(_fetch(*place), place.name) if place.root else read_image(place.path)

    def read(self, index: int) -> np.ndarray:
        """The photo's pixels: uint8 (h, w, 3), RGB, upright; raises `ImageError`."""
        return self.read_photo(index).pixels


def _is_photo(relative: str) -> bool:
    return PurePosixPath(relative).suffix.lower() in image_suffixes and not _is_hidden(relative)


def _is_hidden(relative: str) -> bool:
    path = PurePosixPath(relative.replace("\\", "/"))
    return any(part.startswith(".") for part in path.parts)


def _split_name(name: str) -> list[str]:
    """Path components, with an archive's members counted as lying in a folder of its name."""
    plain = name.replace("::", "/").replace("\\", "/")
    return [p for p in unicodedata.normalize("NFC", plain).split("/") if p not in ("", ".")]


def shorten_name(name: str) -> str:
    """Folder and file name: what a photo is known by on every machine."""
    # Not `Path.absolute`, which keeps "..": "../a.jpg" would be another photo than "set/a.jpg".
    whole = name if "://" in name or "::" in name else os.path.abspath(name)  # noqa: PTH100
    return "/".join(_split_name(whole)[-2:])


def find_file_name(name: str) -> str:
    """The last component of a photo's name, in one spelling of its characters (NFC)."""
    return _split_name(name)[-1]


def leave_out(names: Iterable[T], exclude: Iterable[str | Path]) -> list[T]:
    """The photos that `exclude` does not name.

    A path names the photo of that folder and file name (the last two components), a bare file
    name those of this name in every folder.
    """
    unwanted = {_find_excluded(str(path)) for path in exclude}
    return [n for n in names if not unwanted & {shorten_name(str(n)), find_file_name(str(n))}]


def describe_unmatched(names: Iterable[str], exclude: Iterable[str | Path]) -> list[str]:
    """A problem for each path in `exclude` that names none of the photos."""
    known = {known for name in names for known in (shorten_name(name), find_file_name(name))}
    unmatched = [path for path in exclude if _find_excluded(str(path)) not in known]
    return [f"{p}: to be excluded, but none of the photos has this name" for p in unmatched]


def _find_excluded(path: str) -> str:
    return shorten_name(path) if len(_split_name(path)) > 1 else find_file_name(path)


def _find_tenth(name: str, seed: int) -> int:
    digest = hashlib.sha256(
        f"{seed}/{shorten_name(name)}".encode("utf-8", "surrogateescape")
    ).digest()
    return int.from_bytes(digest[:8], "big") % 10


def _find_places_in(path: str, where: str, search: Search) -> list[Place]:
    """Every photo that one path, archive or address names."""
    try:
        if "://" in path:
            return _list_photos_at(path, search)
        if path.lower().endswith((".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")):
            raise ImageError(
                f"{path}: a compressed tar cannot be read at random; unpack it, or use .tar"
            )
        kind = _ARCHIVES.get(Path(path).suffix.lower())
        if kind is not None and not os.path.isdir(path):  # noqa: PTH112 (Path raises for some names)
            return _list_members(path, kind, search)
    except ImageError as error:
        search.problems.append((path, ImageError(f"{error}{where}")))
        return []
    return [Place(str(found), "", str(found)) for found in search.look(path, where)]


def _list_members(archive: str, kind: str, search: Search) -> list[Place]:
    """The photos in an archive; a member that cannot be looked into is a problem of its own."""
    root = f"{kind}://::file://{Path(archive).absolute().as_posix()}"
    photos = []
    for member in _list_sorted(archive, root, ""):
        name, suffix = f"{archive}::{member}", PurePosixPath(member).suffix.lower()
        if _is_hidden(member):
            search.passed_over["hidden"] += 1
            continue
        try:
            head = b"" if suffix in image_suffixes - {".png"} else _read_head(root, member)
        except Exception as error:  # as for listing
            search.add_problem(name, f"cannot be read ({error}); make the archive anew")
            continue
        if read_result_mark(head) is not None:
            search.findings.append(name)
        elif suffix in image_suffixes or is_picture(head):
            photos.append(Place(name, root, member))
        else:
            search.without_picture[suffix] += 1
    return _check_any(photos, archive)


def _list_photos_at(address: str, search: Search) -> list[Place]:
    try:
        files, start = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ImageError(f"{address}: {error}; install the package that fsspec names") from error
    one = _is_photo(PurePosixPath(start).name) and not glob.has_magic(start)
    found = [start]  # looked for when read
    if not one:
        listed = _list_sorted(address, address, start)
        found = _check_any(
            [path for path in listed if _is_photo(path.removeprefix(start))], address
        )
        if others := len(listed) - len(found):
            search.passed_over["hidden or without a photo's suffix"] += others
    return [Place(files.unstrip_protocol(path), address, path) for path in found]


def _list_sorted(name: str, root: str, start: str) -> list[str]:
    """Sorted files below `start`, or matching it where it is a glob."""
    try:
        files = _file_system(root, os.getpid(), threading.get_ident())
        files.invalidate_cache()  # a listing from before would leave out what is new
        return sorted(map(str, files.glob(start) if glob.has_magic(start) else files.find(start)))
    except Exception as error:  # every kind of storage has its own errors
        raise ImageError(f"{name}: cannot be listed ({error}); check name and access") from error


def _check_any(photos: list[S], name: str) -> list[S]:
    if not photos:
        raise ImageError(f"{name}: holds no photo; {PHOTOS_END_IN}")
    return photos


def _read_head(root: str, path: str) -> bytes:
    with _file_system(root, os.getpid(), threading.get_ident()).open(path) as file:
        return file.read(HEAD)


def _fetch(name: str, root: str, path: str) -> bytes:
    try:
        files = _file_system(root, os.getpid(), threading.get_ident())
        check_num_bytes(name, files.info(path).get("size") or 0, find_pixel_limit(None))
        return files.cat_file(path)
    except ImageError:
        raise
    except Exception as error:  # as for listing
        raise ImageError(f"{name}: cannot be read ({error}); check name and access") from error


@lru_cache(maxsize=32)
def _file_system(root: str, pid: int, thread: int) -> Any:
    return fsspec.core.url_to_fs(root)[0]
