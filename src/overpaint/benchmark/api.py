"""A recipe in, its rows, tables and plots out."""

import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from overpaint.atomic import make_folder
from overpaint.benchmark.plan import Cell, plan
from overpaint.benchmark.plots import require_matplotlib, write_plots
from overpaint.benchmark.recipe import AXES, Recipe, load_recipe
from overpaint.benchmark.rendering import write_tables
from overpaint.benchmark.rows import BenchmarkRow, make_rows, write_rows
from overpaint.benchmark.running import Outlook, Progress, Report, check_work, look_ahead, run
from overpaint.benchmark.store import Store
from overpaint.errors import ConfigError

ROWS = "rows.csv"


@dataclass(frozen=True, slots=True)
class Done:
    """What a benchmark gave."""

    recipe: Recipe
    rows: list[BenchmarkRow]
    files: list[Path]

    @property
    def num_failed(self) -> int:
        """Rows with an error."""
        return sum(1 for row in self.rows if row.error)


def prepare(
    path: str | Path, data: str | Path, cache: str | Path, scale: str | None, only: Iterable[str]
) -> tuple[Recipe, list[Cell]]:
    """The recipe and its cells, those that `only` names ("AXIS=PATTERN", all of which must hold).

    Raises ConfigError.
    """
    recipe = load_recipe(Path(path), scale)
    cells = plan(recipe, Path(path).parent, Path(data), Path(cache))
    return recipe, select_cells(cells, only)


def select_cells(cells: Iterable[Cell], only: Iterable[str]) -> list[Cell]:
    """Of the cells, those that match each of "AXIS=PATTERN"; several of one axis are alternatives.

    PATTERN: as of a shell, for instance "Stable*". Raises ConfigError where none is left.
    """
    wanted: dict[str, list[str]] = {}
    for text in only:
        axis, equals, pattern = text.partition("=")
        if not equals or axis not in AXES or axis == "metric":
            known = ", ".join(a for a in AXES if a != "metric")
            raise ConfigError(f"--only {text}: write AXIS=PATTERN, with one of the axes {known}")
        wanted.setdefault(axis, []).append(pattern)
    kept = [
        cell
        for cell in cells
        if all(
            any(fnmatch.fnmatchcase(cell.axes[axis], p) for p in patterns)
            for axis, patterns in wanted.items()
        )
    ]
    if not kept:
        raise ConfigError(f"--only {' '.join(only)}: no cell of the recipe matches")
    return kept


def benchmark(
    path: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    cache: str | Path = "cache/benchmark",
    scale: str | None = None,
    only: Iterable[str] = (),
    resume: bool = False,
    jobs: int = 1,
    device: str = "cpu",
    report: Report = lambda _: None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Done:
    """Measure what is missing of a recipe, and write rows.csv, table.md, .tex and .csv, and plots.

    path: the recipe. data: folder below which its photos, masks and pairs lie. out: folder that is
    written. cache: folder of all results, of any recipe. scale: of the recipe; None: lite, if there
    is one. only: see `select_cells`; there is no mean over a choice of inpainters. resume: results
    of other code count, and failures are not tried again. jobs: processes. A cell that fails is a
    row with its error.
    Raises ConfigError for the recipe and for `out`, InputError for `jobs` and `device`.
    """
    check_work(jobs, device)
    store, folder = Store(Path(cache), resume, device), Path(out)
    only = list(only)
    with store.lock():
        recipe, cells = prepare(path, data, cache, scale, only)
        # Before anything is measured.
        make_folder(folder, ConfigError, "choose another --out")
        if recipe.plots:
            require_matplotlib()
        how = {"report": report, "on_progress": on_progress}
        errors = run(cells, store, jobs=jobs, **how)  # type: ignore[arg-type]
        # A mean over some of the inpainters would have the name of that over all.
        means = not any(text.startswith("inpainter=") for text in only)
        rows = make_rows(recipe, cells, store, errors, means=means)
        write_rows(folder / ROWS, rows)
        files = [folder / ROWS, *write_tables(recipe, rows, folder)]
        if recipe.plots:
            files += write_plots(recipe, cells, rows, store, errors, folder)
    return Done(recipe, rows, files)


def estimate_run(
    path: str | Path,
    data: str | Path,
    *,
    cache: str | Path = "cache/benchmark",
    scale: str | None = None,
    only: Iterable[str] = (),
    resume: bool = False,
    device: str = "cpu",
) -> Outlook:
    """What a run would make, and how long that takes; nothing is made. Arguments as above."""
    _, cells = prepare(path, data, cache, scale, list(only))
    return look_ahead(cells, Store(Path(cache), resume, device))
