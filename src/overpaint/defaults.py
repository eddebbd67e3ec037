"""What is taken where a command or function names no detector. It imports nothing."""

DEFAULT_DETECTOR = "nixnet-real"
"""A shipped name."""
