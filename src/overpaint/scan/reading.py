"""Reading a folder of results: SQL queries and a summary.

- `photos` has the newest row of each photo, and of each source that cannot be searched; `rows` has
  all. For the columns see `overpaint.scan.rows.make_schema`.
- DuckDB reads the shards through pyarrow, only the columns and rows that a query needs, and cannot
  read or write other files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overpaint.errors import ScanError
from overpaint.scan.results import open_dataset

PHOTOS = """
CREATE VIEW photos AS SELECT * FROM rows
QUALIFY row_number() OVER (PARTITION BY path, path_bytes ORDER BY examined DESC) = 1
AND (sha256 IS NOT NULL OR error IS NOT NULL)
"""
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a query: the names of its columns, and its rows."""

    columns: list[str]
    rows: Iterator[tuple[Any, ...]]


def connect(folder: str | Path) -> Any:
    """A DuckDB connection with the views `rows` and `photos`; raises `ScanError`."""
    try:
        import duckdb
    except ImportError as error:
        raise ScanError("queries need DuckDB: pip install 'overpaint[scan]'") from error
    dataset = open_dataset(Path(folder))
    connection = duckdb.connect(
        config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    )
    connection.register("rows", dataset)
    connection.execute(PHOTOS)
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def run_query(folder: str | Path, sql: str) -> Answer:
    """The answer to one SQL statement; raises `ScanError` for a wrong one."""
    import duckdb

    connection = connect(folder)
    try:
        connection.execute(sql)
    except duckdb.Error as error:
        raise ScanError(f"the query: {error}") from error
    columns = [about[0] for about in connection.description or ()]
    return Answer(columns, _fetch(connection))


def _fetch(connection: Any) -> Iterator[tuple[Any, ...]]:
    import duckdb

    try:
        while rows := connection.fetchmany(_BATCH):
            yield from rows
    except duckdb.Error as error:
        raise ScanError(f"the query: {error}") from error


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts over the newest row of each photo."""

    photos: int
    looked_at: int
    """Photos that the detector examined: one of several identical files."""
    bands: dict[str, int]
    """Number of photos by verdict, most frequent first."""
    errors: dict[str, int]
    """Number of photos by the reason why they could not be examined; the most frequent reasons."""
    num_errors: int
    seconds: float
    """Total time in the detector."""
    megapixels: float
    """Total size of the photos that the detector examined."""
    made_with: dict[str, list[str]]
    """Values of model, weights_sha256, calibration_sha256, runtime, version."""


def summarise(folder: str | Path) -> Summary:
    """The counts of a folder of results; raises `ScanError`."""
    db = connect(folder)

    def ask(sql: str) -> list[tuple[Any, ...]]:
        return db.execute(sql).fetchall()

    ((photos, looked_at, num_errors, seconds, megapixels),) = ask(
        "SELECT count(*), count(*) FILTER (error IS NULL AND same_as IS NULL), count(error), "
        "coalesce(sum(seconds) FILTER (same_as IS NULL), 0), "
        "coalesce(sum(width::DOUBLE * height / 1e6) FILTER (same_as IS NULL), 0) FROM photos"
    )
    bands = ask(
        "SELECT band, count(*) AS n FROM photos WHERE error IS NULL GROUP BY band ORDER BY n DESC"
    )
    # Errors name the path, and perhaps the line of a list, which would make each reason unique.
    errors = ask(
        "SELECT regexp_replace(replace(error, path, 'PATH'), ', line [0-9]+', ', line N') "
        "AS reason, count(*) AS n FROM photos "
        "WHERE error IS NOT NULL GROUP BY reason ORDER BY n DESC, reason LIMIT 10"
    )
    names = ("model", "weights_sha256", "calibration_sha256", "runtime", "version")
    made_with = {
        name: [
            row[0]
            for row in ask(
                f"SELECT DISTINCT {name} FROM photos WHERE {name} IS NOT NULL ORDER BY 1"
            )
        ]
        for name in names
    }
    return Summary(
        photos, looked_at, dict(bands), dict(errors), num_errors, seconds, megapixels, made_with
    )
