"""Inpainters, one paper a file. Importing this package registers them all."""

from overpaint.inpainters import classical, patchmatch, safepaint
from overpaint.inpainters.base import Inpainter, compose

__all__ = ["Inpainter", "classical", "compose", "patchmatch", "safepaint"]
