"""Detectors, one paper a file. Importing this package registers them all."""

from overpaint.detectors import nixnet
from overpaint.detectors.base import Detector

__all__ = ["Detector", "nixnet"]
