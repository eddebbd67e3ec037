"""The interface of a scan's engines: processes that examine photos, locally or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from overpaint.data.sources import Place, Stamp
from overpaint.scan.results import Results
from overpaint.scan.rows import PhotoRow


class Known(Protocol):
    """What an engine asks of the existing rows; `Results` implements it."""

    def is_done_content(self, place: Place, sha256: str) -> bool: ...

    def find_same(self, place: Place, stamp: Stamp, sha256: str) -> PhotoRow | None: ...


class Engine(Protocol):
    """A context manager; entering it raises `ScanError` where the engine cannot start."""

    threshold: float | None
    about: PhotoRow
    """What all rows have in common, set on entry: model, weights, calibration, runtime."""

    @property
    def words(self) -> str:
        """Its processes, in one line."""
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(self, *_: object) -> None: ...

    def run(
        self, places: Iterable[Place], results: Results, stopping: Callable[[], bool]
    ) -> Iterator[PhotoRow | None]:
        """Yield a row for each place, in any order; None for a photo whose content is done.

        results: the rows so far, to find identical photos; the caller adds each row before it takes
        the next. stopping: called often; once it returns true, no further photos are started.
        """
        ...
