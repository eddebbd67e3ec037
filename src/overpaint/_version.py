"""The version of the package; pyproject.toml and everything that is written take it from here."""

__version__ = "0.1.0"
