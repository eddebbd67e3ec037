"""The one way in which files are written: whole or not at all.

What is written goes to a temporary name in the same folder and is then moved into its place. An
older file of that name stays as it was until then, and for good where something fails. The
temporary name is short, whatever the file's: file systems count 255 bytes of a name.
"""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

from overpaint.errors import OverpaintError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a name to write to, which is moved to `path` when the block ends without an error.

    Otherwise it is cleared away. Raises OSError.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write(path: str | Path, data: bytes, failure: type[OverpaintError]) -> None:
    """Write a file so that it appears whole or not at all.

    failure: what is raised, naming the file and the remedy, where it cannot be written.
    """
    try:
        with replacing(path) as temporary, temporary.open("xb") as file:
            file.write(data)
    except OSError as error:
        remedy = "the folder must exist, be writable and have room"
        reason = error.strerror or str(error)
        raise failure(f"{path}: cannot be written ({reason}); {remedy}") from error
