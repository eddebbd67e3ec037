"""Plots of the rows: heat tables, robustness and hole-size curves, ROC and precision-recall.

matplotlib is in the extra `plots`. Each photo set has its own figure; seeds are averaged.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from overpaint.benchmark.plan import Cell
from overpaint.benchmark.recipe import ANY, QUALITY, Recipe
from overpaint.benchmark.rendering import WORDS
from overpaint.benchmark.rows import ALL, UNSEEN, BenchmarkRow
from overpaint.benchmark.stages import read_scores
from overpaint.benchmark.store import Stage, Store
from overpaint.errors import ConfigError
from overpaint.metrics import mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Line = tuple[str, str]
"""Detector and training data."""


def require_matplotlib() -> Any:
    """matplotlib.figure; raises ConfigError, naming the extra to install, without it."""
    try:
        import matplotlib.figure
    except ImportError as error:
        raise ConfigError('plots need matplotlib: pip install "overpaint[plots]"') from error
    return matplotlib.figure


def write_plots(
    recipe: Recipe,
    cells: Sequence[Cell],
    rows: Sequence[BenchmarkRow],
    store: Store,
    errors: Mapping[Stage, str],
    out: Path,
) -> list[Path]:
    """Those that the axes of the recipe allow, as PNG files; -> their paths.

    A heat table for each photo set, where there are several inpainters; curves over processing and
    over bins where these have several values; ROC and precision-recall of each detector.
    """
    require_matplotlib()
    metric = next((m for m in recipe.metrics if m not in QUALITY), None)
    if metric is None:
        return []
    shown = [r for r in rows if r.metric == metric and r.detector and not r.error]
    sets = dict.fromkeys(r.photos for r in shown)
    written = []
    for photos in sets:
        here = [r for r in shown if r.photos == photos]
        first = next(iter(recipe.processing))
        whole = [r for r in here if r.processing == first]
        drawn: dict[str, Callable[[Axes], None] | None] = {
            "heat": _plot_heat(whole, metric),
            "robustness": _plot_curves(here, metric, "processing"),
            "holes": _plot_curves([r for r in whole if r.bin != ANY], metric, "bin"),
        }
        points = _pool_points(cells, store, errors, photos, first)
        drawn |= {"roc": _plot_roc(points), "precision-recall": _plot_precision_recall(points)}
        for kind, draw in drawn.items():
            if draw is not None:
                written.append(_save(draw, out / f"{kind}-{_make_file_part(photos)}.png", photos))
    return written


def _make_file_part(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)


def _save(draw: "Callable[[Axes], None]", path: Path, title: str) -> Path:
    figure = require_matplotlib().Figure(figsize=(7, 5), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    draw(axes)
    axes.set_title(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the version of matplotlib, so that the same rows give the same file.
    figure.savefig(path, metadata={"Software": None})
    return path


def _get_line(row: BenchmarkRow) -> Line:
    return row.detector, row.training


def _make_label(line: Line, lines: Iterable[Line]) -> str:
    """The detector, and its training data where a detector has several."""
    detector, training = line
    several = sum(1 for other, _ in dict.fromkeys(lines) if other == detector) > 1
    return f"{detector}, {training}" if several else detector


def _compute_means(rows: Iterable[BenchmarkRow], axis: str) -> dict[Line, dict[str, float]]:
    """By line and value of an axis, the mean over all else (seeds, masks, bins)."""
    groups: dict[Line, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[_get_line(row)][row.get_coordinate(axis)].append(row.value)
    return {
        line: {value: mean(numbers) for value, numbers in found.items()}
        for line, found in groups.items()
    }


def _choose_limits(metric: str) -> tuple[float, float]:
    """What a figure can be."""
    return (-1, 1) if "mcc" in metric else (0, 1)


def _plot_heat(rows: Sequence[BenchmarkRow], metric: str) -> "Callable[[Axes], None] | None":
    """Detectors against inpainters."""
    means = _compute_means([r for r in rows if r.inpainter not in ("", ALL, UNSEEN)], "inpainter")
    columns = list(dict.fromkeys(c for found in means.values() for c in found))
    if len(columns) < 2:
        return None
    values = np.array([[found.get(c, math.nan) for c in columns] for found in means.values()])

    def draw(axes: "Axes") -> None:
        figure: Any = axes.figure
        height, width = values.shape
        figure.set_size_inches(4 + 0.6 * width, 3 + 0.4 * height)
        low, high = _choose_limits(metric)
        image = axes.imshow(values, vmin=low, vmax=high, cmap="viridis", aspect="auto")
        axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
        axes.set_yticks(range(len(means)), [_make_label(line, means) for line in means])
        for (i, j), value in np.ndenumerate(values):
            if not math.isnan(value):
                colour = "black" if value > low + 0.6 * (high - low) else "white"
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, size=8)
        figure.colorbar(image, label=WORDS.get(metric, metric))

    return draw


def _plot_curves(
    rows: Sequence[BenchmarkRow], metric: str, axis: str
) -> "Callable[[Axes], None] | None":
    """The mean over inpainters, along processing or hole bins."""
    means = _compute_means([r for r in rows if r.inpainter not in (ALL, UNSEEN)], axis)
    values = list(dict.fromkeys(v for found in means.values() for v in found))
    if len(values) < 2:
        return None

    def draw(axes: "Axes") -> None:
        for line, found in means.items():
            numbers = [found.get(v, math.nan) for v in values]
            axes.plot(values, numbers, marker="o", label=_make_label(line, means))
        axes.set_ylim(*_choose_limits(metric))  # whole, so that a small difference looks small
        axes.set_ylabel(WORDS.get(metric, metric))
        axes.set_xlabel("hole, % of the picture" if axis == "bin" else axis)
        axes.tick_params(axis="x", rotation=30)
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)

    return draw


def _pool_points(
    cells: Iterable[Cell], store: Store, errors: Mapping[Stage, str], photos: str, processing: str
) -> dict[Line, np.ndarray]:
    """By detector: (2, thresholds), how many inpainted and untouched pixels reach each one, pooled
    over all pictures that it examined."""
    points: dict[Line, np.ndarray] = {}
    for cell in cells:
        axes = cell.axes
        if not axes["detector"] or cell.scores in errors:
            continue
        if (axes["photos"], axes["processing"]) == (photos, processing):
            curve = np.array(read_scores(store.find_folder(cell.scores))["curve"])
            line = axes["detector"], axes["training"]
            points[line] = points.get(line, 0) + curve
    return points


def _plot_points(
    points: Mapping[Line, np.ndarray],
    xy: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    labels: tuple[str, str],
) -> "Callable[[Axes], None] | None":
    if not points:
        return None

    def draw(axes: "Axes") -> None:
        for line, counts in points.items():
            axes.plot(*xy(counts), label=_make_label(line, points))
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)

    return draw


def _plot_roc(points: Mapping[Line, np.ndarray]) -> "Callable[[Axes], None] | None":
    def compute_xy(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hits, alarms = counts / np.maximum(counts[:, :1], 1)
        return np.append(alarms, 0.0), np.append(hits, 0.0)

    return _plot_points(points, compute_xy, ("untouched pixels flagged", "inpainted pixels found"))


def _plot_precision_recall(points: Mapping[Line, np.ndarray]) -> "Callable[[Axes], None] | None":
    def compute_xy(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hits, alarms = counts[:, counts.sum(axis=0) > 0]
        return hits / max(int(counts[0, 0]), 1), hits / np.maximum(hits + alarms, 1)

    return _plot_points(points, compute_xy, ("inpainted pixels found (recall)", "precision"))
