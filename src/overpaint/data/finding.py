"""Photos on the local disk: what files, folders, globs and list files name, and what is left out.

- Whatever is named and cannot be searched or is not there is reported alone, and all other paths
  are read: one line of a list, one glob, one folder without permission.
- In folders and globs the suffix decides, and where it is not known the content: the first bytes of
  a file say whether it holds a picture, also one of a kind that cannot be read (JPEG 2000, camera
  raw), which the reader then refuses by name. All else is counted, nothing is left out in silence.
- Pictures that overpaint wrote as findings (heatmaps, masks, overlays) are no photos. A text chunk
  in them says so (`read_result_mark`), not their names.
- Links to folders are followed, after the folders that are really there, and each folder is
  searched once: so links in a circle end, and a photo goes by the name of its real place.
- A photo comes once, however many paths lead to it. Masks are found by their names, so several of
  these may lead to one file (`Search.every_name`).
- Pipes, sockets and devices are never opened.
- `os.path` and not `pathlib`: it raises for no name, and a folder may hold a million of them.
"""
# ruff: noqa: PTH112, PTH113, PTH114, PTH116, PTH118

from __future__ import annotations

import contextlib
import fnmatch
import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from overpaint.errors import ImageError
from overpaint.images import image_suffixes
from overpaint.terminal import make_printable

MARK = "overpaint"
"""Keyword of the PNG text chunk, the first after the header, in every picture of findings."""

HEAD = 256
"""Bytes from the start of a file that tell what it holds."""

_NAMED = 5

PHOTOS_END_IN = f"photos end in {', '.join(sorted(image_suffixes))}"

# Public signatures of picture formats; those of camera raw that are no TIFF, too.
_SIGNATURES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a"),
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"II\xbc\x01"),  # TIFF, BigTIFF, JPEG XR
    *(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),  # JPEG 2000
    *(b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a"),  # JPEG XL
    *(b"8BPS", b"v/1\x01", b"qoif"),  # Photoshop, OpenEXR, QOI
    *(b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM"),
)
_BRANDS = re.compile(rb"....ftyp(avi[fs]|hei[cmsx]|hev[cmsx]|m[is]f1|crx )", re.DOTALL)
_WEBP = re.compile(rb"RIFF....WEBP", re.DOTALL)
_BMP = re.compile(rb"BM....\0{4}....[\x0c\x28\x34\x38\x40\x6c\x7c]\0{3}", re.DOTALL)
_NETPBM = re.compile(rb"P[1-7]\s+(\d|#)|P7\nWIDTH|P[Ff]\n")


def is_picture(head: bytes) -> bool:
    """Whether a file that starts with these bytes (32 suffice) holds a picture, readable or not."""
    patterns = (_BRANDS, _WEBP, _BMP, _NETPBM)
    return head.startswith(_SIGNATURES) or any(pattern.match(head) for pattern in patterns)


def read_result_mark(head: bytes) -> str | None:
    """The text chunk of a picture of findings; None for every other file.

    head: the first `HEAD` bytes of the file.
    """
    # Signature 8 bytes; header chunk 25; then length 4, type 4, keyword, zero, text (PNG, 11.3.3).
    start = f"tEXt{MARK}\0".encode()
    if head[:8] != b"\x89PNG\r\n\x1a\n" or not head.startswith(start, 37):
        return None
    length = int.from_bytes(head[33:37], "big")
    return head[41 : 41 + length].partition(b"\0")[2].decode("latin-1")


def read_head(path: str | Path) -> bytes:
    """The first `HEAD` bytes of a regular file, b"" of anything else; raises OSError."""
    # A name may change hands after it was looked at: opening a pipe would wait for its writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    number = os.open(path, flags)
    try:
        return os.read(number, HEAD) if stat.S_ISREG(os.fstat(number).st_mode) else b""
    finally:
        os.close(number)


@dataclass(slots=True)
class Search:
    """Looks for photos, and keeps count of all else. Paths are looked for in the order given."""

    results: bool = False
    """Whether pictures of findings count as photos."""
    every_name: bool = False
    """Whether a file, or a folder that is no loop, comes under each of its names."""
    problems: list[tuple[str, ImageError]] = field(default_factory=list)
    """What could not be found or searched: the path, and why."""
    named: dict[str, str] = field(default_factory=dict)
    """Of a problem's path, what was named and led to it, where that is another path."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """What is no photo: the kind, and how many."""
    findings: list[str] = field(default_factory=list)
    """Pictures that were passed over because they say that overpaint wrote them. Anybody can write
    this into a photo."""
    without_picture: Counter[str] = field(default_factory=Counter)
    """Files that hold no picture: the suffix, and how many."""
    _photos: dict[str, Path] = field(default_factory=dict)
    """By their real paths, or by those that lead to them."""
    _real: dict[str, str] = field(default_factory=dict)
    """Real paths of folders."""
    _num_seen: int = 0

    @property
    def photos(self) -> list[Path]:
        return list(self._photos.values())

    @property
    def words(self) -> str | None:
        """What was passed over, in one line; None when nothing was."""
        num = self.passed_over.total() + self.without_picture.total() + len(self.findings)
        if not num:
            return None
        said = [f"{n} {kind}" for kind, n in sorted(self.passed_over.items())]
        if self.findings:
            names = [make_printable(Path(path).name) for path in self.findings[:_NAMED]]
            names += ["others"] if len(self.findings) > _NAMED else []
            said.append(f"{len(self.findings)} written by overpaint ({', '.join(names)})")
        if suffixes := self.without_picture.most_common(6):
            usual = [f"{n} {suffix or 'without suffix'}" for suffix, n in suffixes[:5]]
            usual += ["others"] if len(suffixes) > 5 else []
            said.insert(0, f"{self.without_picture.total()} no picture ({', '.join(usual)})")
        return f"{num} file{'' if num == 1 else 's'} passed over: {', '.join(said)}"

    def add_problem(self, path: str | Path, reason: str, where: str = "") -> None:
        self.problems.append((str(path), ImageError(f"{path}: {reason}{where}")))

    def list_named(self, paths: Iterable[str | Path]) -> Iterator[tuple[str, str]]:
        """The paths, with every list file replaced by its lines; and where each is named."""
        for path in [paths] if isinstance(paths, str | Path) else paths:
            text = str(path)
            if "://" in text or not text.lower().endswith(".txt") or _holds_a_picture(text):
                yield text, ""
            else:
                yield from self._read_lines(text)

    def _read_lines(self, listing: str) -> Iterator[tuple[str, str]]:
        try:
            if not stat.S_ISREG(os.stat(listing).st_mode):
                raise OSError("this is no file")
            data = Path(listing).read_bytes().removeprefix(b"\xef\xbb\xbf")
        except (OSError, ValueError) as error:
            self.add_problem(listing, f"the list cannot be read ({find_reason(error)})")
            return
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            self.add_problem(listing, "the list cannot be read (UTF-16); save it as UTF-8")
            return
        for number, line in enumerate(data.splitlines(), start=1):
            if not (line := line.strip()):
                continue
            try:
                text, remedy = line.decode(), ""
            except UnicodeDecodeError:  # perhaps the very bytes of a name
                text, remedy = os.fsdecode(line), "; save the list as UTF-8"
            where = f" ({listing}, line {number}{remedy})"
            yield (text if "://" in text else str(Path(listing).parent / text)), where

    def look(self, path: str, where: str = "") -> list[Path]:
        """The photos that one path names and none before did; where: for its problems."""
        before = len(self._photos), len(self.problems), self._num_seen
        try:
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            if glob.has_magic(path) and not os.path.lexists(path):
                self._search_glob(path, where)
                missing = "no match"
            else:
                is_link = os.path.islink(path)
                missing = "a link to nothing" if is_link else "no such file, folder or match"
        except (OSError, ValueError) as error:
            self.add_problem(
                path, f"cannot be read ({find_reason(error)}); check name and access", where
            )
            return []
        else:
            missing = "the folder holds no photo"
            if stat.S_ISDIR(mode):
                self._search_folder(path)
            else:  # named itself, so taken whatever it holds: the reader says what is wrong
                self._add(path)
        if (len(self.problems), self._num_seen) == before[1:]:
            self.add_problem(path, f"{missing}; {PHOTOS_END_IN}", where)
        return self.photos[before[0] :]

    def _search_folder(self, top: str) -> None:
        found: list[str] = []
        for _, entries in self._walk(top):
            for entry in entries:
                if entry.name.startswith("."):
                    self.passed_over["hidden"] += 1
                elif not _is_folder(entry) and self._is_photo(entry.path):
                    found.append(entry.path)
        for path in sorted(found):
            self._add(path)

    def _search_glob(self, pattern: str, where: str) -> None:
        anchor, *parts = ["", *Path(pattern).parts]
        if Path(pattern).anchor:
            anchor, *parts = parts
        found: list[str] = []
        for path in dict.fromkeys(self._find_matches(anchor or ".", parts)):
            if os.path.isdir(path):
                self.passed_over["folders matched by a glob"] += 1
            elif self._is_photo(path):
                found.append(path)
        for path in sorted(found):
            self._add(path)

    def _find_matches(self, folder: str, parts: list[str]) -> Iterator[str]:
        """The matches of a glob below a folder; links in a circle end, unlike in Python's own."""
        part, *rest = parts
        if part == "**":
            for below, entries in self._walk(folder):
                if rest:
                    yield from self._find_matches(below, rest)
                else:
                    plain = (e for e in entries if not _is_folder(e) and e.name[:1] != ".")
                    yield from (entry.path for entry in plain)
        elif not glob.has_magic(part):
            path = os.path.join(folder, part)
            if rest and os.path.isdir(path):
                yield from self._find_matches(path, rest)
            elif not rest and os.path.lexists(path):
                yield path
        else:
            for entry in self._list_entries(folder):
                hidden = entry.name.startswith(".") and not part.startswith(".")
                if hidden or not fnmatch.fnmatch(entry.name, part):
                    continue
                if not rest:
                    yield entry.path
                elif _is_folder(entry):
                    yield from self._find_matches(entry.path, rest)

    def _walk(self, top: str) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
        """Every folder from `top` down but hidden ones, each once, with what lies in it.

        With `every_name`, each once on every way that leads to it.
        """
        nothing: frozenset[str] = frozenset()
        folders, links, done = [(top, nothing)], [], set()
        while folders or links:
            folder, above = folders.pop() if folders else links.pop(0)
            real = self._find_real_folder(folder)
            if real in (above if self.every_name else done):
                self.passed_over["links to folders that were searched"] += 1
                continue
            done.add(real)
            entries = self._list_entries(folder)
            yield folder, entries
            above = above | {real} if self.every_name else nothing
            for entry in entries:
                if not entry.name.startswith(".") and _is_folder(entry):
                    (links if entry.is_symlink() else folders).append((entry.path, above))

    def _list_entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as found:
                return sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            reason = (
                f"the folder cannot be searched ({find_reason(error)}); change its access rights"
            )
            self.add_problem(folder, reason)
            return []

    def _is_photo(self, path: str) -> bool:
        """Whether a file that was found, and not named, is to be read as a photo."""
        suffix = Path(path).suffix.lower()
        known = suffix in image_suffixes
        try:
            mode = os.stat(path).st_mode
            plain = stat.S_ISREG(mode)
            head = read_head(path) if plain and (not known or suffix == ".png") else b""
        except OSError as error:
            # What is named as a photo is left to the reader, to say the same of every one.
            if not known:
                self.add_problem(
                    path, f"cannot be read ({find_reason(error)}); change its access rights"
                )
            return known
        if not plain and not known:
            self.passed_over["devices, pipes or sockets"] += 1
            return False
        if not self.results and read_result_mark(head) is not None:
            self.findings.append(path)
            return False
        if known or is_picture(head):
            return True
        self.without_picture[suffix] += 1
        return False

    def _add(self, path: str) -> None:
        self._num_seen += 1
        found, key = Path(path), path if self.every_name else self._find_real_path(path)
        if self._photos.setdefault(key, found) != found:
            self.passed_over["photos named twice"] += 1

    def _find_real_path(self, path: str) -> str:
        if os.path.islink(path):
            return os.path.realpath(path)
        folder, name = os.path.split(path)
        if name in ("", ".", ".."):
            return os.path.realpath(path)
        return os.path.join(self._find_real_folder(folder), name)

    def _find_real_folder(self, folder: str) -> str:
        """Looked up once, as a folder may hold a million photos."""
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        return self._real[folder]


def find_photos(
    paths: Iterable[str | Path], *, results: bool = False, every_name: bool = False
) -> Search:
    """Photos named by files, folders (searched to the bottom, sorted), globs and .txt lists.

    A list file holds one path a line, relative to the list. A file that is named itself is taken
    whatever its suffix and content. Nothing is raised: what is wrong with a path is in `problems`,
    and what is no photo is counted in `passed_over`. results: take pictures of findings as well.
    every_name: take a file under all names that lead to it, and not once.
    """
    search = Search(results, every_name)
    for path, where in search.list_named(paths):
        search.look(path, where)
    return search


def find_reason(error: Exception) -> str:
    """What the system says, without number and name of the file."""
    return getattr(error, "strerror", None) or str(error)


def list_below(folder: str | Path) -> Iterator[Path]:
    """The files and folders below a folder, to the bottom; links to folders are not followed.

    Raises OSError for a folder that cannot be read, which `Path.rglob` passes over.
    """

    def stop(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=stop):
        yield from (Path(place, name) for name in (*folders, *files))


@contextlib.contextmanager
def refuse_unreadable(place: str | Path) -> Iterator[None]:
    """Turn an OSError in the block into an `ImageError` that names its file, or else `place`."""
    try:
        yield
    except OSError as error:
        raise ImageError(
            f"{error.filename or place}: cannot be read ({find_reason(error)}); change its access "
            "rights, or fetch it again"
        ) from error


def expand_home(root: str) -> Path:
    """The path with ~ for the home folder; raises `ImageError` where there is none."""
    try:
        return Path(root).expanduser()
    except RuntimeError as error:
        raise ImageError(f"{root}: there is no such home folder; write the path in full") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a list that a data set comes with; raises `ImageError`."""
    try:
        with refuse_unreadable(path):
            return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ImageError(f"{path}: is no text in UTF-8 ({error}); fetch it again") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _holds_a_picture(path: str) -> bool:
    try:
        return os.path.isfile(path) and is_picture(read_head(path))
    except (OSError, ValueError):
        return False
