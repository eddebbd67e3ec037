"""Atomic writing of files.

Data are written to a temporary file in the same folder, which is then renamed. An older file of
that name is unchanged until then, and remains if something fails. The temporary name is always
short, because file systems limit a name to 255 bytes.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from overpaint.errors import OverpaintError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path, which is renamed to `path` when the block ends without an error.

    Otherwise the temporary file is deleted. Raises OSError.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_same_file(one: str | Path, other: str | Path) -> bool:
    """Whether two names are of one file, however they are spelled, also through links."""
    with contextlib.suppress(OSError, ValueError):
        return Path(one).samefile(other)
    return os.path.realpath(one) == os.path.realpath(other)


def make_folder(folder: Path, failure: type[OverpaintError], remedy: str) -> None:
    """Make a folder and those above it, unless it is there.

    failure: type of the error that is raised, with the folder and the remedy, if that fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise failure(f"{folder}: cannot be made ({reason}); {remedy}") from error


def write(path: str | Path, data: bytes, failure: type[OverpaintError]) -> None:
    """Write a file atomically.

    failure: type of the error that is raised, with the file and the remedy, if writing fails.
    """
    try:
        with replacing(path) as temporary, temporary.open("xb") as file:
            file.write(data)
    except OSError as error:
        remedy = "the folder must exist, be writable and have room"
        reason = error.strerror or str(error)
        raise failure(f"{path}: cannot be written ({reason}); {remedy}") from error
