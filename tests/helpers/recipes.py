"""The recipes of trainings in the repository, without the files that recipes only extend."""

from pathlib import Path

ROOT = Path(__file__).parents[2] / "recipes"


def recipes(folder: str = "") -> list[Path]:
    """Those of a folder below recipes/, or of all."""
    found = sorted((ROOT / folder).rglob("*.yaml"))
    others = {"common", "harden"}
    return [path for path in found if path.stem not in others and path.parent.name != "tables"]
