"""The folder of a scan's results: shards, a journal of the newest rows, and the settings.

- `part-NNNNNN.parquet`: a shard of `SHARD_ROWS` rows, zstd, written to a temporary name, synced and
  renamed. A shard is never changed.
- `part-NNNNNN.journal`: the rows that will become that shard, one JSON object a line, written at
  once. So a process that is killed loses only the photos in work. An incomplete last line is
  dropped; a journal whose shard exists is removed.
- `scan.json`: the settings of every row. A folder never has rows of two models.
- One process writes at a time: it holds a file lock, which the system releases when the process
  ends. Where Python has no `fcntl` (Windows) nothing prevents two.
- A photo that changed or failed may be examined again; the newest row counts. `examined` rises from
  row to row, also after the clock was set back.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import io
import json
import os
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

from overpaint.data.sources import Place, Stamp
from overpaint.errors import ScanError
from overpaint.images import write_bytes
from overpaint.scan.rows import (
    SCHEMA_VERSION,
    VERSION_KEY,
    PhotoRow,
    copy_row,
    find_name,
    import_pyarrow,
    make_schema,
)

SHARD_ROWS = 1000

SETTINGS = "scan.json"
TOOL = "overpaint scan"
_BINARY = ("heatmap", "path_bytes")
_CACHED_SHARDS = 4


class Results:
    """A folder of results that is open for writing.

    An index of the photos that are done is kept in memory, about 0.3 KB a photo.
    """

    def __init__(self, folder: Path, *, by_content: bool = False, retry: bool = False) -> None:
        """by_content: a photo is done when the newest row of its path has its SHA-256; otherwise
        when that row has its size and time of change. retry: photos that failed are not done. Makes
        the folder; raises `ScanError` where it cannot be used."""
        self.folder = folder
        self.by_content = by_content
        self.retry = retry
        self.num_written = 0
        """Number of rows since the folder was opened."""
        self._schema = make_schema()
        self._done: dict[bytes, bytes] = {}
        """Hashes of each path and of its state in the newest row. Not of earlier states: a file
        that was restored to one of these has a newest row with the verdict of other content."""
        self._known: dict[bytes, int] = {}
        """Shard and row of each file that was examined (`_join_numbers`), by its SHA-256."""
        self.unsearched: dict[str, str] = {}
        """Names of all that could not be found or searched, by the newest row, and the source."""
        self._latest = 0
        """The greatest `examined` of all rows, microseconds since 1970."""
        self._cached: dict[int, list[PhotoRow]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            others = not (folder / SETTINGS).exists() and any(
                not path.name.startswith(".") for path in folder.iterdir()
            )
            if others:
                raise ScanError(f"{folder}: holds other files; give a new folder with --out")
            self._lock = _lock_folder(folder)
        except OSError as error:
            raise ScanError(f"{folder}: cannot be used ({error.strerror})") from error
        try:
            self._recover()
            shards = sorted(folder.glob("part-*.parquet"), key=_parse_number)
            for path in shards:
                self._index_shard(path)
            self._number = 1 + max((_parse_number(path) for path in shards), default=-1)
        except BaseException:
            self._lock.close()
            raise
        self._journal: IO[bytes] | None = None
        self._rows: list[PhotoRow] = []

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write the remaining rows as a shard, and release the lock."""
        try:
            self._flush()
        finally:
            self._lock.close()

    def use(self, settings: dict[str, Any]) -> None:
        """Store the settings of the rows; `ScanError` when the existing rows have others."""
        path = self.folder / SETTINGS
        wanted = {"tool": TOOL, "schema": SCHEMA_VERSION, **settings}
        if not path.exists():
            write_bytes(path, (json.dumps(wanted, indent=1) + "\n").encode())
            return
        there = _read_settings(self.folder)
        for name in wanted:
            if there.get(name) != wanted[name]:
                raise ScanError(
                    f"{self.folder}: made with {name} {there.get(name)}, not {wanted[name]}; "
                    "give another --out"
                )

    @property
    def num_done(self) -> int:
        """Number of paths whose newest row says in which state they are done."""
        return len(self._done)

    def is_done(self, place: Place, stamp: Stamp) -> bool:
        """Whether the newest row of a photo is of this state; False where that depends on its
        content."""
        if self.by_content and stamp != Stamp():
            return False
        return self._done.get(_hash(os.fsencode(place.name))) == _hash_stamp(stamp)

    def is_done_content(self, place: Place, sha256: str) -> bool:
        """Whether the newest row of a photo is of this content; False where that depends on its
        state."""
        if not self.by_content:
            return False
        return self._done.get(_hash(os.fsencode(place.name))) == _hash(sha256.encode())

    def find_same(self, place: Place, stamp: Stamp, sha256: str) -> PhotoRow | None:
        """A row for a photo, copied from that of an identical file; None where there is none."""
        at = self._known.get(bytes.fromhex(sha256))
        if at is None:
            return None
        shard, index = _split_numbers(at)
        rows = self._rows if shard == self._number else self._read_shard(shard)
        return copy_row(rows[index], place, stamp)

    def add(self, row: PhotoRow) -> None:
        """Store a row: in the journal at once, later in a shard."""
        row = {name: row.get(name) for name in self._schema.names}
        row["examined"] = self._latest = max(time.time_ns() // 1000, self._latest + 1)
        self._write(_encode_line(row))
        self._index_row(row, _join_numbers(self._number, len(self._rows)))
        self._rows.append(row)
        self.num_written += 1
        if len(self._rows) >= SHARD_ROWS:
            self._flush()

    def _write(self, line: bytes) -> None:
        path = self.folder / f"part-{self._number:06}.journal"
        try:
            if self._journal is None:
                self._journal = path.open("ab", buffering=0)
            if self._journal.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise ScanError(
                f"{path}: cannot be written ({error.strerror}); make room, and the same command "
                "goes on from there"
            ) from error

    def _flush(self) -> None:
        if not self._rows or self._journal is None:
            return
        _write_shard(self.folder / f"part-{self._number:06}.parquet", self._rows, self._schema)
        self._journal.close()
        (self.folder / f"part-{self._number:06}.journal").unlink()
        self._journal, self._rows, self._number = None, [], self._number + 1

    def _recover(self) -> None:
        """Make shards of the journals that an ended process left, and remove temporary files."""
        for path in self.folder.glob(".*.part"):
            path.unlink()
        for path in sorted(self.folder.glob("part-*.journal")):
            shard = path.with_suffix(".parquet")
            rows = [] if shard.exists() else list(_read_journal(path))
            if rows:
                _write_shard(shard, rows, self._schema)
            path.unlink()

    def _index_shard(self, path: Path) -> None:
        """Add the rows of a shard to the index."""
        file = ("path", "path_bytes", "sha256", "bytes", "modified")
        columns = [*file, "same_as", "examined", "error", "source"]
        number = _parse_number(path)
        for index, row in enumerate(_read(path, columns)):
            self._latest = max(self._latest, _count_microseconds(row["examined"]))
            self._index_row(row, _join_numbers(number, index))

    def _index_row(self, row: PhotoRow, at: int) -> None:
        path, sha256 = _hash(row["path_bytes"] or row["path"].encode()), row["sha256"]
        if row["source"] is not None:
            self.unsearched[find_name(row)] = row["source"]
        elif self.unsearched:
            self.unsearched.pop(find_name(row), None)
        is_repaired = row["error"] is None and sha256 is None
        if is_repaired or (row["error"] is not None and self.retry):
            self._done.pop(path, None)
        elif self.by_content and sha256 is not None:
            self._done[path] = _hash(sha256.encode())
        else:
            self._done[path] = _hash_stamp(Stamp(row["bytes"], row["modified"] or ""))
        if sha256 is not None and row["error"] is None and row["same_as"] is None:
            self._known[bytes.fromhex(sha256)] = at

    def _read_shard(self, number: int) -> list[PhotoRow]:
        if number not in self._cached:
            while len(self._cached) >= _CACHED_SHARDS:
                self._cached.pop(next(iter(self._cached)))
            self._cached[number] = _read(self.folder / f"part-{number:06}.parquet")
        return self._cached[number]


def open_dataset(folder: Path) -> Any:
    """All rows of a folder, also while a scan is writing it, as a pyarrow dataset.

    Raises `ScanError` for a folder without results, and for a damaged shard.
    """
    pa = import_pyarrow()
    _read_settings(folder)
    # Journals are read before shards are listed, as a journal may become a shard in between.
    journals = {path: list(_read_journal(path)) for path in sorted(folder.glob("part-*.journal"))}
    shards = sorted(folder.glob("part-*.parquet"))
    for shard in shards:
        _check(shard)
    rows = [
        row for path, rows in journals.items() if path.with_suffix(".parquet") not in shards
        for row in rows
    ]  # fmt: skip
    wanted = make_schema()
    files = pa.dataset.dataset([str(path) for path in shards], schema=wanted)
    return pa.dataset.dataset([files, pa.dataset.dataset(_make_table(rows, wanted))])


def _read_settings(folder: Path) -> dict[str, Any]:
    try:
        there = json.loads((folder / SETTINGS).read_bytes())
        if not isinstance(there, dict) or there.get("tool") != TOOL:
            raise ValueError(f"{SETTINGS} is not of a scan")
    except (OSError, ValueError) as error:
        raise ScanError(
            f"{folder}: no results of `overpaint scan` ({getattr(error, 'strerror', 0) or error})"
        ) from error
    if there.get("schema") != SCHEMA_VERSION:
        raise ScanError(
            f"{folder}: written with columns of version {there.get('schema')}, and this overpaint "
            f"has {SCHEMA_VERSION}; use the overpaint that wrote them, or scan anew"
        )
    return there


def _check(shard: Path) -> None:
    """Raise `ScanError` for a shard that is damaged, or of another version."""
    pa = import_pyarrow()
    try:
        found = (pa.parquet.read_schema(shard).metadata or {}).get(VERSION_KEY)
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise ScanError(
            f"{shard}: damaged ({error}); remove it, and scan again: its photos are examined anew"
        ) from error
    if found != str(SCHEMA_VERSION).encode():
        raise ScanError(f"{shard}: not a shard of version {SCHEMA_VERSION}; move it elsewhere")


def _read(shard: Path, columns: list[str] | None = None) -> list[PhotoRow]:
    _check(shard)
    pa = import_pyarrow()
    try:
        # `read_table` takes a path with a "=" for a folder of partitions.
        with pa.parquet.ParquetFile(shard) as file:
            table = file.read(columns=columns)
    except (OSError, ValueError) as error:
        raise ScanError(f"{shard}: damaged ({error}); remove it, and scan again") from error
    return table.to_pylist()


def _write_shard(path: Path, rows: list[PhotoRow], wanted: Any) -> None:
    pa = import_pyarrow()
    buffer = io.BytesIO()
    pa.parquet.write_table(_make_table(rows, wanted), buffer, compression="zstd")
    temporary = path.with_name(f".{path.stem}.part")
    try:
        with temporary.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())  # before the journal is removed
        temporary.replace(path)
    except OSError as error:
        raise ScanError(
            f"{path}: cannot be written ({error.strerror}); the rows are in the journal beside it, "
            "and the same command goes on from there"
        ) from error


def _make_table(rows: list[PhotoRow], wanted: Any) -> Any:
    return import_pyarrow().Table.from_pylist(rows, schema=wanted)


def _encode_line(row: PhotoRow) -> bytes:
    plain = dict(row)
    for name in _BINARY:
        if plain[name] is not None:
            plain[name] = base64.b64encode(plain[name]).decode()
    return json.dumps(plain).encode() + b"\n"


def _read_journal(path: Path) -> Iterator[PhotoRow]:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):  # cut when the process was killed
                return
            try:
                row = json.loads(line)
                for name in _BINARY:
                    if row[name] is not None:
                        row[name] = base64.b64decode(row[name])
            except (ValueError, KeyError, TypeError) as error:
                raise ScanError(f"{path}: damaged ({error}); remove it, and scan again") from error
            yield row


def _hash_stamp(stamp: Stamp) -> bytes:
    return _hash(f"{stamp.num_bytes}\0{stamp.tag}".encode())


def _hash(data: bytes) -> bytes:
    # 15 bytes, as an object of 16 takes 64 bytes of memory and not 48.
    return hashlib.blake2b(data, digest_size=15).digest()


def _join_numbers(shard: int, row: int) -> int:
    """One number, which takes less memory than a pair."""
    return shard << 32 | row


def _split_numbers(at: int) -> tuple[int, int]:
    return at >> 32, at & 0xFFFFFFFF


def _count_microseconds(when: datetime) -> int:
    """Since 1970, of a time in UTC without zone, as pyarrow gives it."""
    return (when - datetime(1970, 1, 1)) // timedelta(microseconds=1)


def _parse_number(path: Path) -> int:
    try:
        return int(path.stem.removeprefix("part-"))
    except ValueError as error:
        raise ScanError(f"{path}: not named as a shard is; move it elsewhere") from error


def _lock_folder(folder: Path) -> IO[bytes]:
    """The open lock file; `ScanError` when another process holds it."""
    file = (folder / ".lock").open("ab")
    with contextlib.suppress(ImportError):
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise ScanError(f"{folder}: another scan is writing there; wait for its end") from error
    return file
