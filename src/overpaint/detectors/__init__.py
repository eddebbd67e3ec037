"""Detectors, one paper a file. Importing this package registers them all."""

from overpaint.detectors import nixnet
from overpaint.detectors.base import Detector, check_image

__all__ = ["Detector", "check_image", "nixnet"]
