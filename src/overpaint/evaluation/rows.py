"""Published numbers: summaries as CSV, their provenance once, per-picture numbers as Parquet.

- `results/SET.csv`: one line for each detector or inpainter, method and number of pictures; the
  columns are metrics, each with the ends of its interval ("auc", "auc low", "auc high").
- `results/sources.csv`: the provenance of a line (commit, configuration, weights, calibration,
  protocol), joined by its column `source`, a hash of the whole provenance. A line without its
  source is an error, so no number can have the provenance of another.
- `results/pictures/SET.parquet`: the numbers of each picture, from which every mean can be computed
  again, as 32-bit floats. Only writing and reading these needs pyarrow (the extra `results`).
- Measuring some weights again replaces their rows of those sets and keeps all others.
"""

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeVar

from overpaint import hashes
from overpaint.errors import ConfigError
from overpaint.images import write_bytes
from overpaint.metrics import bootstrap, bootstrap_levels, mean

PICTURES = "pictures"
SOURCES = "sources"
NUMBERS = (
    "auc",
    *(f"{m}@{at}" for at in ("0.5", "default") for m in ("iou", "f1")),
    "q99",
    "fraction",
    "psnr",
    "l1",
    "ssim",
    "vgg-distilled",
    "lpips-alex",
)
"""Numbers of a picture that are kept."""
F1_OF = {"f1@0.5": "iou@0.5", "f1@default": "iou@default"}
"""The numbers that are computed from another one, 2 IoU / (1 + IoU), and not stored."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a number comes from: the same for all rows of one set and weights."""

    set: str
    weights: str
    """Name of the weights; "" for a measurement without weights."""
    commit: str
    config_hash: str
    weights_sha256: str
    protocol: str
    calibration_sha256: str = ""
    """Of the calibration file whose thresholds were used; "" where none was."""
    seen_by: str = ""
    """For fills: "NAME WEIGHTS CALIBRATION; ...", the detectors that scored them, by the first 12
    digits of both hashes; "-" for no calibration."""
    historical: str = ""
    """Why the row is kept although its weights or calibration are not in the repository; written
    by hand into `sources.csv`."""

    @property
    def key(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of all but the remark `historical`."""
        values = {k: v for k, v in asdict(self).items() if k != "historical"}
        return hashes.sha256(json.dumps(values, sort_keys=True).encode())[:12]


@dataclass(frozen=True, slots=True)
class Row:
    """One number, with a 95 % bootstrap interval, which is NaN for a single picture.

    It resamples pictures; that of a mean over generators resamples generators and photos.
    """

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
    calibration_sha256: str = ""
    seen_by: str = ""
    historical: str = ""

    @property
    def source(self) -> Source:
        """Where the number comes from."""
        return Source(**{f.name: getattr(self, f.name) for f in fields(Source)})


@dataclass(frozen=True, slots=True)
class Picture:
    """The numbers of one picture, by the names in `NUMBERS`."""

    set: str
    method: str
    weights: str
    picture: str
    numbers: Mapping[str, float] = field(default_factory=dict)


def make_row(source: Source, method: str, metric: str, values: Iterable[float]) -> Row:
    """The mean over pictures; NaNs (pictures without a number) are left out and not counted."""
    kept = [v for v in values if not math.isnan(v)]
    low, high = bootstrap(kept)
    return Row(
        method=method,
        metric=metric,
        value=mean(kept),
        n=len(kept),
        ci_low=low,
        ci_high=high,
        **asdict(source),
    )


def make_mean_row(
    source: Source, method: str, metric: str, generators: Sequence[Mapping[str, float]]
) -> Row:
    """The mean over generators of their means over photos; n counts generators' photos.

    generators: of each, a number by photo. The interval resamples generators and photos, a photo
    that several generators filled for all of them together.
    """
    # NaN where one of them has no number: a mean over the others would be another figure.
    value = sum(mean(numbers.values()) for numbers in generators) / len(generators)
    low, high = (math.nan, math.nan) if math.isnan(value) else bootstrap_levels(generators)
    return Row(
        method=method,
        metric=metric,
        value=value,
        n=sum(not math.isnan(v) for numbers in generators for v in numbers.values()),
        ci_low=low,
        ci_high=high,
        **asdict(source),
    )


def list_values(pictures: Iterable[Picture], number: str) -> list[float]:
    """One number of each picture that has it."""
    return [p.numbers[number] for p in pictures if number in p.numbers]


def average_by_photo(
    pictures: Iterable[Picture], photos: Mapping[str, str], number: str
) -> dict[str, float]:
    """The mean of a number over the pictures of each photo.

    photos: by a picture's id the photo it was made from; a picture not in it is a photo of its own.
    """
    values: dict[str, list[float]] = defaultdict(list)
    for picture in pictures:
        if number in picture.numbers:
            photo = photos.get(picture.picture, picture.picture)
            values[photo].append(picture.numbers[number])
    return {photo: mean(group) for photo, group in values.items()}


class _Keyed(Protocol):
    @property
    def set(self) -> str: ...
    @property
    def weights(self) -> str: ...


K = TypeVar("K", bound=_Keyed)


def _merge(old: Iterable[K], new: Sequence[K]) -> list[K]:
    replaced = {(r.set, r.weights) for r in new}
    return [*(r for r in old if (r.set, r.weights) not in replaced), *new]


def write_results(folder: Path, rows: Sequence[Row], pictures: Sequence[Picture]) -> list[Path]:
    """Merge rows and pictures into the files of `folder`; -> the files that were written.

    Raises ConfigError when pictures are given and pyarrow is missing, and for unreadable files.
    """
    if pictures:
        require_parquet()
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    if rows:
        # Sources first: if this is interrupted, the old lines have no source, and none a wrong one.
        path = folder / f"{SOURCES}.csv"
        old = list(read_sources(path).values()) if path.exists() else []
        _write_sources(path, _merge(old, list(dict.fromkeys(r.source for r in rows))))
        written.append(path)
    for name in dict.fromkeys(r.set for r in rows):
        path = folder / f"{name}.csv"
        replaced = {r.weights for r in rows if r.set == name}
        kept = _read_rows(path, without=replaced) if path.exists() else []
        _write_rows(path, [*kept, *(r for r in rows if r.set == name)])
        written.append(path)
    for name in dict.fromkeys(p.set for p in pictures):
        path = find_pictures_file(folder, name)
        seen = read_pictures(path) if path.exists() else []
        _write_pictures(path, _merge(seen, [p for p in pictures if p.set == name]))
        written.append(path)
    return written


def find_pictures_file(folder: Path, of_set: str) -> Path:
    """Where the numbers of a set's pictures are."""
    return folder / PICTURES / f"{of_set}.parquet"


# Summaries


def read_rows(path: Path) -> list[Row]:
    """The rows of SET.csv, joined with `sources.csv` beside it.

    Raises ConfigError naming the file when it is missing or malformed or a source is missing.
    """
    return _read_rows(path)


def _read_rows(path: Path, without: Iterable[str] = ()) -> list[Row]:
    left_out = set(without)
    lines = [line for line in _read(path) if line.get("weights") not in left_out]
    sources = read_sources(path.with_name(f"{SOURCES}.csv")) if lines else {}
    about = {key: asdict(source) for key, source in sources.items()}
    try:
        return [r for line in lines for r in _convert_rows(line, about[line["source"]])]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: not a file of results ({error}); measure again") from error


def list_metrics(line: Mapping[str, str]) -> list[str]:
    """The metrics with a number, which may be "nan", in a line whose columns are metrics."""
    return [name for name in line if f"{name} low" in line and line[name]]


def _convert_rows(line: Mapping[str, str], source: Mapping[str, Any]) -> list[Row]:
    return [
        Row(
            method=line["method"],
            metric=metric,
            value=float(line[metric]),
            n=int(line["n"]),
            ci_low=float(line[f"{metric} low"] or "nan"),
            ci_high=float(line[f"{metric} high"] or "nan"),
            **source,
        )
        for metric in list_metrics(line)
    ]


def _write_rows(path: Path, rows: Sequence[Row]) -> None:
    metrics = dict.fromkeys(r.metric for r in rows)
    columns = [c for m in metrics for c in (m, f"{m} low", f"{m} high")]
    lines: dict[tuple[str, str, str, int], dict[str, str]] = {}
    for r in rows:
        line = lines.setdefault((r.source.key, r.weights, r.method, r.n), {})
        # A number that could not be computed is written as such: an empty cell is no row.
        line[r.metric] = format_value(r.value) or "nan"
        line[f"{r.metric} low"], line[f"{r.metric} high"] = (
            format_value(r.ci_low),
            format_value(r.ci_high),
        )
    cells = ([*key, *(line.get(c, "") for c in columns)] for key, line in lines.items())
    _write(path, ["source", "weights", "method", "n", *columns], cells)


def read_sources(path: Path) -> dict[str, Source]:
    """The sources by their keys; raises ConfigError when the file is missing or malformed."""
    try:
        return {line.pop("source"): Source(**line) for line in _read(path)}
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a file of sources ({error}); measure again") from error


def _write_sources(path: Path, sources: Sequence[Source]) -> None:
    columns = [f.name for f in fields(Source)]
    lines = ([s.key, *(getattr(s, c) for c in columns)] for s in sources)
    _write(path, ["source", *columns], lines)


# Pictures


def require_parquet() -> ModuleType:
    """pyarrow.parquet; raises ConfigError, naming the extra to install, without it."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            "the numbers of single pictures are in Parquet files, which need pyarrow: "
            'pip install "overpaint[results]"'
        ) from error
    return pyarrow.parquet


def read_pictures(path: Path) -> list[Picture]:
    """The pictures of one set, `pictures/SET.parquet`; raises ConfigError when it is unreadable."""
    parquet = require_parquet()
    try:
        # An open file, and not a path, of which a folder SET=... would become a column.
        with path.open("rb") as file:
            table = parquet.read_table(file)
        lines = table.to_pylist()
        return [
            Picture(
                path.stem,
                line["method"],
                line["weights"],
                line["picture"],
                _add_f1({n: line[n] for n in NUMBERS if line.get(n) is not None}),
            )
            for line in lines
        ]
    except (OSError, KeyError, ValueError) as error:  # of pyarrow, ArrowInvalid is a ValueError
        raise ConfigError(f"{path}: cannot be read ({error}); measure again") from error


def _add_f1(numbers: dict[str, float]) -> dict[str, float]:
    derived = {f1: numbers[iou] for f1, iou in F1_OF.items() if iou in numbers}
    return numbers | {f1: 2 * iou / (1 + iou) for f1, iou in derived.items()}


def _write_pictures(path: Path, pictures: Sequence[Picture]) -> None:
    import pyarrow as pa

    labels = ("weights", "method", "picture")
    columns: dict[str, Any] = {c: pa.array([getattr(p, c) for p in pictures]) for c in labels}
    for number in NUMBERS:
        if F1_OF.get(number) in columns:
            continue
        values = [p.numbers.get(number) for p in pictures]
        if any(v is not None for v in values):
            columns[number] = pa.array(values, pa.float32())
    buffer = io.BytesIO()
    # A dictionary of nearly distinct numbers only costs space. Split into streams, their bytes need
    # less of it: that of the exponents is nearly constant.
    require_parquet().write_table(
        pa.table(columns),
        buffer,
        compression="zstd",
        compression_level=19,
        use_dictionary=list(labels),
        use_byte_stream_split=[c for c in columns if c not in labels],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())


# Files


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); run benchmarks/measure.py"
        ) from error


def format_value(value: Any) -> str:
    """A value as a cell of a CSV file: numbers with five digits, NaN as an empty cell."""
    if not isinstance(value, float):
        return str(value)
    return "" if math.isnan(value) else f"{value:.5g}"


def _write(path: Path, columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(lines)
    write_bytes(path, buffer.getvalue().encode())
