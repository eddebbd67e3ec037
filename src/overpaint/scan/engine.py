"""What an engine of a scan is: processes that examine photos, here or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from overpaint.data.sources import Place, Stamp
from overpaint.scan.results import Results
from overpaint.scan.rows import Row


class Known(Protocol):
    """What an engine asks of the rows that there are; `Results` is one."""

    def is_done_content(self, place: Place, sha256: str) -> bool: ...

    def same(self, place: Place, stamp: Stamp, sha256: str) -> Row | None: ...


class Engine(Protocol):
    """To be entered with `with`, which raises `ScanError` where it cannot work."""

    threshold: float | None
    about: Row
    """What rows have in common, once it is entered: model, weights, calibration, runtime."""

    @property
    def words(self) -> str:
        """What it works with, in one line."""
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(self, *_: object) -> None: ...

    def run(
        self, places: Iterable[Place], results: Results, stopping: Callable[[], bool]
    ) -> Iterator[Row | None]:
        """Rows of the places as they come, not in order; None for a photo that is done by content.

        results: asked for identical photos; the caller adds each row before it asks for the next.
        stopping: asked often; once it is true, no other photos are begun.
        """
        ...
