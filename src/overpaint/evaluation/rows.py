"""Rows of `results/*.csv`: every published number with what it takes to trace it.

- One file per set ("universal", "triplets", ...), and `pictures.csv` with the numbers of each
  picture, from which every mean can be worked out again.
- Measuring some weights anew replaces their rows of those sets and leaves all others.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

from overpaint.errors import ConfigError
from overpaint.evaluation.metrics import bootstrap, mean
from overpaint.images import write_bytes

PICTURES = "pictures"
NUMBERS = (
    "auc",
    *(f"{m}@{at}" for at in ("0.5", "default") for m in ("iou", "precision", "recall", "f1")),
    "q99",
    "fraction",
    "psnr",
    "l1",
    "ssim",
    "vgg-distilled",
    "lpips-alex",
)
"""Columns of `pictures.csv` that hold numbers; empty where one does not apply."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a number comes from: the same for all rows of one set and weights."""

    set: str
    weights: str
    """Name of the weights; "" where none take part."""
    commit: str
    config_hash: str
    weights_sha256: str
    protocol: str


@dataclass(frozen=True, slots=True)
class Row:
    """One number; the interval is a 95 % bootstrap over pictures, empty (NaN) for a single one."""

    set: str
    method: str
    weights: str
    metric: str
    value: float
    n: int
    ci_low: float
    ci_high: float
    commit: str
    config_hash: str
    weights_sha256: str
    protocol: str


@dataclass(frozen=True, slots=True)
class Picture:
    """The numbers of one picture, by the names in `NUMBERS`."""

    set: str
    method: str
    weights: str
    picture: str
    numbers: Mapping[str, float] = field(default_factory=dict)


def row(source: Source, method: str, metric: str, groups: Sequence[Sequence[float]]) -> Row:
    """The mean over groups of the groups' means; one group is the plain mean.

    A group's NaNs (pictures without a number) are left out and not counted.
    """
    n = sum(1 for group in groups for v in group if not math.isnan(v))
    value = sum(mean(group) for group in groups) / len(groups)
    low, high = bootstrap(groups) if n > 1 else (math.nan, math.nan)
    return Row(
        method=method, metric=metric, value=value, n=n, ci_low=low, ci_high=high, **asdict(source)
    )


def values_of(pictures: Iterable[Picture], number: str) -> list[float]:
    """One number of each picture that has it."""
    return [p.numbers[number] for p in pictures if number in p.numbers]


class _Keyed(Protocol):
    @property
    def set(self) -> str: ...
    @property
    def weights(self) -> str: ...


K = TypeVar("K", bound=_Keyed)


def _merged(old: Iterable[K], new: Sequence[K]) -> list[K]:
    replaced = {(r.set, r.weights) for r in new}
    return [*(r for r in old if (r.set, r.weights) not in replaced), *new]


def write_results(folder: Path, rows: Sequence[Row], pictures: Sequence[Picture]) -> list[Path]:
    """Merge the rows into `folder`/SET.csv and the pictures into pictures.csv; -> the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in dict.fromkeys(r.set for r in rows):
        path = folder / f"{name}.csv"
        old = read_rows(path) if path.exists() else []
        merged = _merged(old, [r for r in rows if r.set == name])
        columns = [f.name for f in fields(Row)]
        _write(path, columns, ([_text(getattr(r, c)) for c in columns] for r in merged))
        written.append(path)
    if pictures:
        path = folder / f"{PICTURES}.csv"
        merged = _merged(read_pictures(path) if path.exists() else [], pictures)
        columns = ["set", "method", "weights", "picture"]
        lines = (
            [getattr(p, c) for c in columns]
            + [_text(p.numbers[n]) if n in p.numbers else "" for n in NUMBERS]
            for p in merged
        )
        _write(path, [*columns, *NUMBERS], lines)
        written.append(path)
    return written


def read_rows(path: Path) -> list[Row]:
    """The rows of one file; raises ConfigError naming it when it is missing or malformed."""
    try:
        return [_row(values) for values in _read(path)]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: not a file of results ({error}); measure again") from error


def _row(values: Mapping[str, str]) -> Row:
    columns: dict[str, Any] = dict(values)
    for name in ("value", "ci_low", "ci_high"):
        columns[name] = float(values[name] or "nan")
    columns["n"] = int(values["n"])
    return Row(**columns)


def read_pictures(path: Path) -> list[Picture]:
    """The rows of `pictures.csv`."""
    return [
        Picture(
            r["set"],
            r["method"],
            r["weights"],
            r["picture"],
            {n: float(r[n]) for n in NUMBERS if r.get(n)},  # an older file has fewer columns
        )
        for r in _read(path)
    ]


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); run recipes/measure.py"
        ) from error


def _text(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return "" if math.isnan(value) else f"{value:.6g}"


def _write(path: Path, columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(lines)
    write_bytes(path, buffer.getvalue().encode())
