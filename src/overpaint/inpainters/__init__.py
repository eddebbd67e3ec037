"""Inpainters, one paper a file. Importing this package registers them all."""

from overpaint.inpainters import (
    aotgan,
    classical,
    ctsdg,
    deepfill_v1,
    deepfill_v2,
    edgeconnect,
    fcf,
    glcic,
    lama,
    madf,
    patchmatch,
    safepaint,
)
from overpaint.inpainters.base import Inpainter, compose

__all__ = [
    "Inpainter",
    "aotgan",
    "classical",
    "compose",
    "ctsdg",
    "deepfill_v1",
    "deepfill_v2",
    "edgeconnect",
    "fcf",
    "glcic",
    "lama",
    "madf",
    "patchmatch",
    "safepaint",
]
