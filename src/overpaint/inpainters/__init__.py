"""Inpainters, one paper a file. Importing this package imports them all; each registers itself."""

from overpaint.inpainters.base import Inpainter, compose
from overpaint.registry import import_modules

__all__ = ["Inpainter", "compose"]

import_modules(__name__, __path__)
