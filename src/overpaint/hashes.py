"""SHA-256, which identifies photos, masks, weights and results."""

import hashlib
from pathlib import Path


def sha256(data: bytes) -> str:
    """Of bytes: 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: str | Path) -> str:
    """Of a file, read piece by piece: 64 hexadecimal digits. Raises OSError."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
