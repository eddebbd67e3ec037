"""Scans by the command line, of made photos, with a small network."""

from pathlib import Path
from typing import Any

from PIL import Image
from typer.testing import CliRunner, Result

from conftest import textured
from overpaint.cli import build
from overpaint.scan.reading import run_query


def fill(folder: Path, num: int, side: int = 130) -> list[Path]:
    """Photos, each another one."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:03}.png" for i in range(num)]
    for i, path in enumerate(paths):
        Image.fromarray(textured(side, side + i % 7, seed=i)).save(path)
    return paths


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build(), ["scan", *(str(a) for a in arguments)])


def scan(model: Path, *arguments: object) -> Result:
    return run(*arguments, "--model", model, "--workers", 1, "--threads", 1)


def rows(out: Path, table: str = "rows") -> list[dict[str, Any]]:
    answer = run_query(out, f"SELECT * FROM {table} ORDER BY path, examined")
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
