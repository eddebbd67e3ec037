"""Atomic writing of files.

Data are written to a temporary file in the same folder, which is then renamed. An older file of
that name is unchanged until then, and remains if something fails. The temporary name is always
short, because file systems limit a name to 255 bytes.
"""

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from overpaint.errors import OverpaintError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path, which is renamed to `path` when the block ends without an error.

    Otherwise the temporary file is deleted. Raises OSError.
    """
    path = Path(path)
    temporary = _make_temporary_name(path)
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
    """Make a folder and those above it, unless it is there, and try to write into it.

    Before long work whose results it is for. failure: type of the error that is raised, with the
    folder and the remedy, if that fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _try_file(folder / "result")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise failure(f"{folder}: cannot be written into ({reason}); {remedy}") from error


def write(path: str | Path, data: bytes, failure: type[OverpaintError]) -> None:
    """Write a file atomically.

    failure: type of the error that is raised, with the file and the remedy, if writing fails.
    """
    try:
        with replacing(path) as temporary, temporary.open("xb") as file:
            file.write(data)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _describe(path, error, failure) from error


def write_together(files: Iterable[tuple[Path, bytes]], failure: type[OverpaintError]) -> None:
    """As `write`, for files that belong together: none is replaced before all are written."""
    path = Path()
    try:
        with contextlib.ExitStack() as renames:
            for path, data in files:
                temporary = renames.enter_context(replacing(path))
                with temporary.open("xb") as file:
                    file.write(data)
    except (OSError, ValueError) as error:
        raise _describe(path, error, failure) from error


def check_writable(path: str | Path, failure: type[OverpaintError]) -> None:
    """Raise the error of `write` if a file of this name cannot be written, before long work.

    It is tried with an empty file beside it, which is removed; room and quota are not.
    """
    try:
        is_taken(path)  # an error for a name that the file system does not take
        _try_file(Path(path))
    except (OSError, ValueError) as error:
        raise _describe(path, error, failure) from error


def _try_file(path: Path) -> None:
    """Make and remove an empty file beside a path."""
    trial = _make_temporary_name(path)
    trial.open("xb").close()
    trial.unlink()


def is_taken(path: str | Path) -> bool:
    """Whether anything has this name, be it a link to nothing.

    Raises OSError or ValueError for a name that no file can have.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _make_temporary_name(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(6)}.part")


def _describe(path: str | Path, error: Exception, failure: type[OverpaintError]) -> OverpaintError:
    reason = getattr(error, "strerror", None) or str(error)
    remedy = "the folder must exist, be writable and have room"
    return failure(f"{path}: cannot be written ({reason}); {remedy}")
