"""The files of one job, in a temporary file without a name.

They are stored one after the other. The system frees the file when it is closed, and also when the
server is killed, so that nothing of a photo stays on the disk.
"""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_CHUNK = 2**18


@dataclass(frozen=True, slots=True)
class Entry:
    """A file and how it is sent."""

    start: int
    size: int
    """Bytes."""
    media_type: str
    shown_name: str
    """The name under which a browser saves it."""


class JobFiles:
    """Written once, read from any thread."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="overpaint-")  # noqa: SIM115 (closed by `close`)
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._num_readers, self._closed = 0, False

    def add(self, name: str, source: BinaryIO, media_type: str = "", shown_name: str = "") -> None:
        """Store a stream, from its current position. Raises OSError, and ValueError once closed."""
        with self._lock:
            start = self._file.seek(0, 2)
            shutil.copyfileobj(source, self._file, _CHUNK)
            size = self._file.tell() - start
            self._entries[name] = Entry(start, size, media_type, shown_name or name)

    @property
    def entries(self) -> dict[str, Entry]:
        with self._lock:
            return {} if self._closed else dict(self._entries)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries.values())

    def read(self, name: str) -> bytes:
        """A file's content. Raises KeyError for an unknown name, and ValueError once closed."""
        return b"".join(self.read_chunks(name))

    def read_chunks(self, name: str) -> Iterator[bytes]:
        """As `read`, in pieces. Closing frees the files only after their last reader has ended."""
        with self._lock:
            if self._closed:
                raise ValueError("the files are closed")
            entry = self._entries[name]
            self._num_readers += 1
        return self._read_chunks(entry)

    def _read_chunks(self, entry: Entry) -> Iterator[bytes]:
        try:
            for start in range(0, entry.size, _CHUNK):
                with self._lock:
                    self._file.seek(entry.start + start)
                    chunk = self._file.read(min(_CHUNK, entry.size - start))
                yield chunk
        finally:
            with self._lock:
                self._num_readers -= 1
                self._free()

    def close(self) -> None:
        """Delete all files, once their readers have ended."""
        with self._lock:
            self._closed = True
            self._free()

    def _free(self) -> None:
        if self._closed and not self._num_readers:
            self._file.close()
