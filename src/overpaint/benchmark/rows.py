"""The rows of a benchmark: one for each cell and metric, with all that it takes to trace it.

- A figure of single pictures is their mean, its interval a bootstrap over pictures. A figure of
  whole photos ("image:") has one over photos of both kinds; a pooled one, of all pixels as one, has
  none.
- Rows of the inpainter `ALL` are means over the inpainters of a combination, and those of `UNSEEN`
  over those whose fills the detector was not trained on; both have an interval that draws
  inpainters and photos anew, a photo for all inpainters that filled it.
- A cell that failed is a row with its error and no value. So is a mean over inpainters of which one
  failed: a mean of the others would be another figure.
- `publish_rows` makes them small for a commit: the metrics of a cell stand in one line, and what
  many rows share in one `provenance.csv`.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from overpaint import hashes
from overpaint.benchmark.plan import Cell
from overpaint.benchmark.recipe import FRECHET, QUALITY, Recipe
from overpaint.benchmark.stages import read_scores
from overpaint.benchmark.store import Stage, Store
from overpaint.errors import ConfigError
from overpaint.evaluation.rows import format_value, list_metrics
from overpaint.images import write_bytes
from overpaint.metrics import bootstrap, bootstrap_levels, mean
from overpaint.named_metrics import METRICS, Photos, compute_figures

ALL, UNSEEN = "all", "unseen"
RESAMPLES = 1000
"""Of the photos, for figures of whole photos."""
PROVENANCE = "provenance.csv"
SHARED = (
    "table",
    "scale",
    "detector_sha256",
    "calibration_sha256",
    "inpainter_sha256",
    "steps",
    "data_hash",
    "picture_seed",
    "config_hash",
    "commit",
)
"""What the rows of one cell share."""
FIGURE = ("metric", "value", "ci_low", "ci_high")
"""What differs between the metrics of one cell."""
OVER_PICTURES, OVER_BOTH = "pictures", "generators and pictures"


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """One figure of one cell."""

    table: str
    scale: str
    detector: str
    training: str
    inpainter: str
    photos: str
    mask: str
    bin: str
    processing: str
    seed: str
    """Of the training of the detector, or of the inpainter; "" of given weights."""
    metric: str
    value: float = math.nan
    n: int = 0
    ci_low: float = math.nan
    ci_high: float = math.nan
    interval: str = ""
    """Over what; "" without one."""
    error: str = ""
    detector_sha256: str = ""
    calibration_sha256: str = ""
    inpainter_sha256: str = ""
    steps: str = ""
    """Of the detector's training in this table; "" of given weights."""
    data_hash: str = ""
    """SHA-256 of the names and bytes of the test pictures."""
    picture_seed: int = 0
    config_hash: str = ""
    commit: str = ""
    """Of the code that made the scores."""
    device: str = ""
    """Of the networks; "" for the processor."""

    def get_coordinate(self, axis: str) -> str:
        """The value on an axis."""
        return str(getattr(self, axis))


RowT = TypeVar("RowT", bound=BenchmarkRow)


@dataclass(frozen=True, slots=True)
class Measured:
    """A cell whose scores are there."""

    cell: Cell
    row: BenchmarkRow
    """Without metric and value."""
    values: Mapping[str, Mapping[str, float]]
    """By metric of single pictures, by picture: fills of one photo have one name."""


def make_rows(
    recipe: Recipe,
    cells: Iterable[Cell],
    store: Store,
    errors: Mapping[Stage, str],
    *,
    means: bool = True,
) -> list[BenchmarkRow]:
    """All rows: those of single cells, then those over inpainters, unless `means` is False."""
    rows: list[BenchmarkRow] = []
    measured: list[Measured] = []
    failed: list[Cell] = []
    for cell in cells:
        of_cell, numbers = measure(recipe, cell, store, errors)
        rows += of_cell
        if numbers is None:
            failed.append(cell)
        else:
            measured.append(numbers)
    return rows + (average_inpainters(recipe, measured, failed) if means else [])


def measure(
    recipe: Recipe, cell: Cell, store: Store, errors: Mapping[Stage, str]
) -> tuple[list[BenchmarkRow], Measured | None]:
    """The rows of one cell, and its numbers; None where it failed."""
    base = _make_base(recipe, cell, store)
    metrics = [m for m in recipe.metrics if (m in QUALITY) == (cell.axes["detector"] == "")]
    if failed := errors.get(cell.scores):
        return [replace(base, metric=m, error=failed) for m in metrics], None
    scores = read_scores(store.find_folder(cell.scores))
    values = _list_values(scores)
    no_originals = errors.get(cell.originals) if cell.originals else None
    rows = [
        replace(base, metric=metric, error=no_originals)
        if no_originals and _get_level(metric) == "image"
        else _make_row(base, metric, scores, values, cell, store)
        for metric in metrics
    ]
    return rows, Measured(cell, base, values)


def _get_level(metric: str) -> str:
    return METRICS[metric].level if metric in METRICS else "picture"


def _make_base(recipe: Recipe, cell: Cell, store: Store) -> BenchmarkRow:
    detector, inpainter = (
        _describe_model(cell.models.get(r), store) for r in ("detector", "inpainter")
    )
    about = store.read_about(cell.scores) or {}
    data = cell.data_hash
    if isinstance(data, Stage):
        data = str(data.settings.get("content", ""))
    axes: dict[str, Any] = dict(cell.axes)
    trained = cell.models.get("detector")
    return BenchmarkRow(
        table=recipe.name,
        scale=recipe.scale,
        **axes,
        metric="",
        detector_sha256=str(detector.get("weights_sha256", "")),
        calibration_sha256=str(detector.get("calibration_sha256", "")),
        inpainter_sha256=str(inpainter.get("weights_sha256", "")),
        steps=str(trained.units) if isinstance(trained, Stage) else "",
        data_hash=data,
        picture_seed=recipe.seed,
        config_hash=recipe.hash,
        commit=about.get("commit", ""),
        device="" if store.device_kind == "cpu" else store.device_kind,
    )


def _describe_model(model: Stage | Mapping[str, Any] | None, store: Store) -> Mapping[str, Any]:
    """Hashes of what was given, or what the record of a training says."""
    if isinstance(model, Stage):
        return (store.read_about(model) or {}).get("info", {})
    return model or {}


def _list_values(scores: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    values: dict[str, dict[str, float]] = {}
    for picture in scores["pictures"]:
        for name, value in picture["numbers"].items():
            of_metric = values.setdefault(name, {})
            of_metric[picture["picture"]] = math.nan if value is None else value
    return values


def _make_row(
    base: BenchmarkRow,
    metric: str,
    scores: Mapping[str, Any],
    values: Mapping[str, Mapping[str, float]],
    cell: Cell,
    store: Store,
) -> BenchmarkRow:
    level = _get_level(metric)
    if level == "pooled" or metric == FRECHET:
        value, n = scores["pooled"].get(metric, math.nan), len(scores["pictures"])
        return replace(base, metric=metric, value=value, n=n)
    if level == "image":
        return _make_photo_row(base, metric, values, cell, store)
    numbers = list(values.get(metric, {}).values())
    n = sum(not math.isnan(v) for v in numbers)
    low, high = bootstrap(numbers)
    over = OVER_PICTURES if n > 1 else ""
    return replace(
        base, metric=metric, value=mean(numbers), n=n, ci_low=low, ci_high=high, interval=over
    )


def _make_photo_row(
    base: BenchmarkRow,
    metric: str,
    values: Mapping[str, Mapping[str, float]],
    cell: Cell,
    store: Store,
) -> BenchmarkRow:
    scores, labels = (np.array(list(values[name].values())) for name in ("score", "forged"))
    if cell.originals is not None:
        untouched = _list_values(read_scores(store.find_folder(cell.originals)))
        scores = np.append(scores, list(untouched["score"].values()))
        labels = np.append(labels, list(untouched["forged"].values()))
    if len(np.unique(labels)) < 2:  # a set without untouched pictures
        return replace(base, metric=metric)
    # Photos of several quality bands have no threshold in common.
    thresholds = set(values["default_score"].values())
    default = thresholds.pop() if len(thresholds) == 1 else None
    default = None if default is None or math.isnan(default) else default

    def compute_figure(chosen: np.ndarray) -> float:
        return compute_figures(Photos(scores[chosen], labels[chosen], default), [metric])[metric]

    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(labels == kind) for kind in (1, 0)]
    draws = [
        compute_figure(np.concatenate([g[rng.integers(g.size, size=g.size)] for g in groups]))
        for _ in range(RESAMPLES)
    ]
    low, high = np.nanquantile(draws, [0.025, 0.975])
    value = compute_figure(np.arange(labels.size))
    ends = {"ci_low": float(low), "ci_high": float(high), "interval": OVER_PICTURES}
    return replace(base, metric=metric, value=value, n=labels.size, **ends)


def average_inpainters(
    recipe: Recipe, measured: Sequence[Measured], failed: Iterable[Cell] = ()
) -> list[BenchmarkRow]:
    """Means over the inpainters of each combination of the other axes, where there are several.

    failed: the cells without numbers; a mean that lacks one of them is an error.
    """
    groups: dict[tuple[str, ...], list[Measured]] = {}
    for each in measured:
        if each.cell.axes["inpainter"]:
            groups.setdefault(_find_group(each.cell), []).append(each)
    missing: dict[tuple[str, ...], list[str]] = {}
    for cell in failed:
        missing.setdefault(_find_group(cell), []).append(cell.axes["inpainter"])
    rows = []
    for key, group in groups.items():
        seen = recipe.training.get(group[0].row.training)
        unseen = [m for m in group if seen and m.row.inpainter not in seen.inpainters]
        kinds = {ALL: group, UNSEEN: unseen if seen and seen.inpainters else []}
        for name, chosen in kinds.items():
            lost = [
                inpainter
                for inpainter in missing.get(key, [])
                if name == ALL or (seen and inpainter not in seen.inpainters)
            ]
            if len(chosen) + len(lost) > 1 and chosen:
                made = [
                    _make_mean_row(name, metric, chosen)
                    for metric in _list_picture_metrics(recipe, chosen)
                ]
                rows += [mark_incomplete(row, lost) for row in made] if lost else made
    return rows


def mark_incomplete(row: RowT, lost: Iterable[str]) -> RowT:
    """A mean's row without a value, because some of its inpainters failed."""
    nan = math.nan
    error = f"no mean: failed with {', '.join(lost)}"
    return replace(row, value=nan, n=0, ci_low=nan, ci_high=nan, interval="", error=error)


def _find_group(cell: Cell) -> tuple[str, ...]:
    """What the cells that differ in the inpainter alone have in common."""
    return tuple(v for axis, v in cell.axes.items() if axis != "inpainter")


def _list_picture_metrics(recipe: Recipe, group: Sequence[Measured]) -> list[str]:
    return [m for m in recipe.metrics if all(m in each.values for each in group)]


def _make_mean_row(name: str, metric: str, group: Sequence[Measured]) -> BenchmarkRow:
    values = [each.values[metric] for each in group]
    # NaN where one of them has no number: a mean over the others would be another figure.
    value = sum(mean(numbers.values()) for numbers in values) / len(values)
    low, high = (math.nan, math.nan) if math.isnan(value) else bootstrap_levels(values)
    n = sum(not math.isnan(v) for numbers in values for v in numbers.values())
    return replace(
        group[0].row,
        inpainter=name,
        inpainter_sha256="",
        metric=metric,
        value=value,
        n=n,
        ci_low=low,
        ci_high=high,
        interval="" if math.isnan(low) else OVER_BOTH,
    )


# The file


def write_rows(
    path: Path, rows: Iterable[BenchmarkRow], kind: type[BenchmarkRow] = BenchmarkRow
) -> None:
    """A CSV file, a line for each row."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(f.name for f in fields(kind))
    for row in rows:
        writer.writerow(format_value(value) for value in asdict(row).values())
    write_bytes(path, buffer.getvalue().encode("utf-8", "replace"))


def publish_rows(path: Path, folder: Path) -> Path:
    """Write the rows of a `rows.csv` as `folder`/TABLE.csv, and what they share beside it.

    The columns are metrics, each with the ends of its interval, as in `evaluation.rows`. A source
    is what many rows share (`SHARED`), named by a hash of it. Sources of the table's rows before
    are replaced, those of other tables kept. Returns the file of the rows. Raises
    ConfigError for a file without rows.
    """
    lines = read_lines(path)
    tables = {line["table"] for line in lines}
    if len(tables) != 1:
        raise ConfigError(f"{path}: holds the rows of {len(tables)} tables; give those of one")
    place, sources = folder / f"{tables.pop()}.csv", {}
    if (folder / PROVENANCE).exists():
        old = {line["source"]: line for line in read_lines(folder / PROVENANCE)}
        sources = {key: line for key, line in old.items() if line["table"] != place.stem}
    for line in lines:
        source = {name: line.pop(name, "") for name in SHARED}
        key = make_source_key(source)
        sources[key] = {"source": key, **source}
        line["source"] = key
    metrics = dict.fromkeys(line["metric"] for line in lines)
    filled = [n for n in lines[0] if n not in FIGURE and any(line[n] for line in lines)]
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / PROVENANCE, ["source", *SHARED], sources.values())
    write_lines(place, [*filled, *(c for m in metrics for c in _name_columns(m))], _widen(lines))
    return place


def _widen(lines: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """A line for all metrics of a cell that differ in nothing but `FIGURE`."""
    wide: dict[tuple[str, ...], dict[str, str]] = {}
    for line in lines:
        shared = {name: cell for name, cell in line.items() if name not in FIGURE}
        metric, value, low, high = (line[name] for name in FIGURE)
        # A number that could not be computed is written as such: an empty cell is no row.
        figure = zip(_name_columns(metric), (value or "nan", low, high), strict=True)
        wide.setdefault(tuple(shared.values()), shared).update(figure)
    return [*wide.values()]


def _narrow(line: Mapping[str, str]) -> list[dict[str, str]]:
    """A line for each metric of what `_widen` made."""
    metrics = list_metrics(line)
    columns = [name for name in line if name.endswith(" low")]
    figures = {c for name in columns for c in _name_columns(name.removesuffix(" low"))}
    shared = {name: cell for name, cell in line.items() if name not in figures}
    found = ((m, *(line[c] for c in _name_columns(m))) for m in metrics)
    return [shared | dict(zip(FIGURE, figure, strict=True)) for figure in found]


def _name_columns(metric: str) -> tuple[str, str, str]:
    return metric, f"{metric} low", f"{metric} high"


def make_source_key(source: Mapping[str, str]) -> str:
    """The key in `provenance.csv` of what rows share; its names are in the order of `SHARED`."""
    return hashes.sha256(json.dumps(source).encode())[:12]


def read_rows(path: Path, kind: type[RowT] = BenchmarkRow) -> list[RowT]:  # type: ignore[assignment]
    """What `write_rows` or `publish_rows` wrote; raises ConfigError naming the file."""
    try:
        lines = read_lines(path)
        if lines and "source" in lines[0]:
            sources = {line.pop("source"): line for line in read_lines(path.with_name(PROVENANCE))}
            lines = [line for wide in lines for line in _narrow(wide)]
            lines = [sources[line.pop("source")] | line for line in lines]
        return [kind(**_parse_line(line, kind)) for line in lines]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: no rows of a benchmark ({error}); run it again") from error


def _parse_line(line: Mapping[str, str], kind: type[BenchmarkRow]) -> dict[str, Any]:
    named = {f.name: "" for f in fields(kind)} | dict(line)
    numbers = {k: float(named[k] or "nan") for k in ("value", "ci_low", "ci_high")}
    counts = {k: int(named[k]) for k in ("n", "picture_seed", "round") if k in named}
    return {**named, **numbers, **counts}


def read_lines(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file by the names in its header."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_lines(path: Path, names: Sequence[str], lines: Iterable[Mapping[str, str]]) -> None:
    """A CSV file of the named columns."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_bytes(path, buffer.getvalue().encode())
