"""The files of one job, kept where no name leads to them.

They lie one behind the other in a temporary file that has no name: the system frees it when it is
closed, and also when the server is killed, so that nothing of a photo stays on the disk.
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
    """What a browser calls it where it saves it."""


class JobFiles:
    """Written once, read from any thread."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="overpaint-")  # noqa: SIM115 (closed by `close`)
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._num_readers, self._closed = 0, False

    def add(self, name: str, source: BinaryIO, media_type: str = "", shown_name: str = "") -> None:
        """Keep what a stream gives, from where it stands. Raises OSError, and ValueError once
        closed."""
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
        """Bytes of them all."""
        return sum(entry.size for entry in self.entries.values())

    def read(self, name: str) -> bytes:
        """Raises KeyError for a name that is not there, and ValueError once closed."""
        return b"".join(self.chunks(name))

    def chunks(self, name: str) -> Iterator[bytes]:
        """The same in pieces. What is being read is kept until then, also when closed meanwhile."""
        with self._lock:
            if self._closed:
                raise ValueError("the files are closed")
            entry = self._entries[name]
            self._num_readers += 1
        return self._chunks(entry)

    def _chunks(self, entry: Entry) -> Iterator[bytes]:
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
        """Give them up."""
        with self._lock:
            self._closed = True
            self._free()

    def _free(self) -> None:
        if self._closed and not self._num_readers:
            self._file.close()
