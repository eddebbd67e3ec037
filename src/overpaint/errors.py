"""The errors that overpaint raises for wrong input.

A message names the file (or the argument) and the remedy, so that a command can print it unchanged.
All derive from `OverpaintError`, which a batch catches to continue with the next photo.
"""


class OverpaintError(Exception):
    """Base of all errors caused by the input and not by a bug."""


class ImageError(OverpaintError):
    """A photo or mask file that cannot be read, is too large, or cannot be written."""


class TooLargeError(ImageError):
    """A photo or mask of more pixels, or of more bytes, than the limit allows."""


class InputError(OverpaintError, ValueError):
    """A tensor or argument that breaks a public contract (shape, range, finite values)."""


class ConfigError(OverpaintError):
    """A run's configuration with an unknown key or an impossible value."""


class WeightsError(OverpaintError):
    """Weights that are missing, damaged, or made for another network."""


class TrainingError(OverpaintError):
    """A run that cannot go on: non-finite loss, no photos, a checkpoint of another run."""


class ScanError(OverpaintError):
    """Results of a scan that cannot be read or continued, or a scan that cannot go on."""


class UnknownNameError(OverpaintError, KeyError):
    """A model name that is not registered; the message suggests the nearest names."""

    def __str__(self) -> str:  # KeyError would show the message in quotes
        return str(self.args[0])
