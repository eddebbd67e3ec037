"""The figures of the papers' tables, beside which ours are shown.

`papers.csv` holds one figure a line by the names that the recipes use. Not there: SafePaint's
tables 3 to 6, of which we had the captions alone; the rendered tables say so.
"""

import csv
from functools import lru_cache
from pathlib import Path

from overpaint.benchmark.recipe import Recipe
from overpaint.benchmark.rows import BenchmarkRow

FIGURES = Path(__file__).with_name("papers.csv")
AXES = ("detector", "training", "inpainter", "photos", "bin", "metric")

REFERENCES: dict[str, str] = {
    "nixnet-table-1": "Li et al., IJCAI 2021 (arXiv 2106.01532), table 1, page 5",
    "nixnet-table-2": "Li et al., IJCAI 2021 (arXiv 2106.01532), table 2, page 6",
    "safepaint-table-1": "Chen et al., ACM MM 2024 (arXiv 2404.18136), table 1, page 7",
    "safepaint-table-2": "Chen et al., ACM MM 2024 (arXiv 2404.18136), table 2, page 7",
    "safepaint-table-3": "Chen et al., ACM MM 2024 (arXiv 2404.18136), table 3, page 8",
    "safepaint-table-4": "Chen et al., ACM MM 2024 (arXiv 2404.18136), table 4, page 8",
    "safepaint-table-5": "Chen et al., ACM MM 2024 (arXiv 2404.18136), table 5, page 8",
    "safepaint-table-6": "Chen et al., ACM MM 2024 (arXiv 2404.18136), table 6, page 8",
}


@lru_cache(maxsize=1)
def _read_figures() -> dict[tuple[str, ...], float]:
    with FIGURES.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    return {(line["table"], *(line[a] for a in AXES)): float(line["value"]) for line in lines}


def find_paper_figure(recipe: Recipe, row: BenchmarkRow) -> float | None:
    """What the paper has in the place of a row; None where it has nothing."""
    photos = recipe.photos.get(row.photos)
    stands_for = photos.stands_for if photos else ""
    place = {axis: row.get_coordinate(axis) for axis in AXES} | {"photos": stands_for}
    return _read_figures().get((recipe.paper, *(place[axis] for axis in AXES)))


def has_figures(table: str) -> bool:
    """Whether any figure of a table is known."""
    return any(key[0] == table for key in _read_figures())
