"""Detectors, one paper a file. Importing this package registers them all."""

from overpaint.detectors import iidnet, ldicn, mantranet, nixnet, psccnet, trufor
from overpaint.detectors.base import Detector

__all__ = ["Detector", "iidnet", "ldicn", "mantranet", "nixnet", "psccnet", "trufor"]
