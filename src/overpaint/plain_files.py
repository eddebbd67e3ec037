"""Reading of small files that a stranger may have put there, such as a receipt beside a photo.

A pipe would keep its reader waiting, a device never ends, and a file may have any size. So only a
regular file is read, and no more than a limit.
"""

import os
import stat
from pathlib import Path

MAX_BYTES = 2**24
"""Largest file that is read: far more than any record or receipt of overpaint has."""


def read_plain_file(path: str | Path) -> bytes:
    """All of a file. Raises OSError, also for no regular file and for more than `MAX_BYTES`."""
    # The kind is asked of the open file, as a name may change hands: opening a pipe without a
    # writer must not wait, and Windows must not change line ends.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is no regular file")
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise OSError(f"it has more than {MAX_BYTES:,} bytes")
    return data
