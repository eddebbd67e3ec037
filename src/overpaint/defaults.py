"""The detector of commands and functions that name none. This module imports nothing."""

DEFAULT_DETECTOR = "nixnet-real"
"""A shipped name."""
