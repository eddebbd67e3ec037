"""Detectors, one paper a file. Importing this package imports them all; each registers itself."""

from overpaint.detectors.base import Detector
from overpaint.registry import import_modules

__all__ = ["Detector"]

import_modules(__name__, __path__)
