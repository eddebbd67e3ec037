"""Files and folders that a recipe names."""

from pathlib import Path


def find_asset(name: str, assets: Path) -> Path:
    """The file or folder below `assets` if it is there, otherwise as it is named."""
    below = assets / name
    return below if below.exists() else Path(name)
