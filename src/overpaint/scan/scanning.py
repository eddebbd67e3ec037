"""`scan`: from sources to a folder of results, by an engine.

- Photos are taken in the order of the sources, or a sample of them by a hash of their names: the
  same photos on every run, whatever else comes or goes.
- What could not be found or searched gets an error row, as a photo that cannot be read does.
- A first SIGTERM or Ctrl-C ends the run after the photos in work; a second ends it at once. Either
  way what is done is kept, and the same command goes on from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import FrameType

from overpaint.data.sources import Place, Stamp, find_places, stamp
from overpaint.scan.engine import Engine
from overpaint.scan.results import Results
from overpaint.scan.rows import error_row

FAILED = "could not be examined"


@dataclass(slots=True)
class Progress:
    """How far a run is."""

    total: int
    """Photos that are to be examined in this run."""
    before: int
    """Photos that were done before."""
    old: int = 0
    """Photos that were not changed since the time given."""
    done: int = 0
    bands: Counter[str] = field(default_factory=Counter)
    """Verdicts of the rows of this run; `FAILED` for errors."""
    network_seconds: float = 0.0
    """Time in the detector, all processes together."""
    started: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0
    interrupted: int | None = None
    """Number of the signal that ended the run early."""

    @property
    def failed(self) -> int:
        return self.bands[FAILED]

    @property
    def rate(self) -> float:
        """Photos per second."""
        return self.done / max(self.seconds, 1e-9)

    @property
    def remaining(self) -> float | None:
        """Seconds; None before the first photo is done."""
        return (self.total - self.done) / self.rate if self.done else None

    @property
    def words(self) -> str:
        """In one line: photos, photos/s, time left, failures."""
        left = "?" if self.remaining is None else duration(self.remaining)
        return (
            f"{self.done}/{self.total}, {self.rate:.2f} photos/s, {left} left, {self.failed} failed"
        )


def duration(seconds: float) -> str:
    """3725 -> "1:02:05"; days where there are any."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return (f"{days} d " if days else "") + f"{hour}:{minute:02}:{second:02}"


def scan(
    sources: Iterable[str | Path],
    out: str | Path,
    engine: Engine,
    *,
    limit: int | None = None,
    sample: int | None = None,
    since: datetime | None = None,
    by_content: bool = False,
    retry: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
    note: Callable[[str], None] = lambda text: None,
) -> Progress:
    """Examine photos and keep one row of each in a folder; returns what was done.

    sources: as of `find_places`. limit: most photos to examine in this run. sample: so many photos
    of all, chosen by their names. since: photos that were changed then or later, and those whose
    storage does not say. by_content, retry: see `Results`. report: called after each photo. note:
    told in words what a person should know.

    Raises `ScanError` for a folder that cannot be used, or weights that cannot be loaded; a photo
    that cannot be examined gets a row that says why.
    """
    with stopping_on_signals() as stop, Results(Path(out), by_content=by_content, retry=retry) as r:
        found, search = find_places(sources)
        if search.words:
            note(search.words)
        places = [_absolute(place) for place in found]
        problems = {_absolute(Place(p, "", p)): str(error) for p, error in search.problems}
        del found, search
        if sample is not None:
            places = _sampled(places, sample)
        progress = Progress(0, 0)
        todo = list(itertools.islice(_undone(places, r, since, progress), limit))
        del places
        new = [(p, why) for p, why in problems.items() if not r.is_done(p, Stamp())]
        progress.total = len(todo) + len(new)
        with engine:
            r.use(_settings(engine))
            progress.started = time.perf_counter()
            for row in engine.run(todo, r, lambda: stop() is not None):
                if row is None:
                    progress.total -= 1
                    progress.before += 1
                else:
                    r.add(row)
                    _count(progress, row)
                report(progress)
        for place, why in new:
            row = error_row(place, Stamp(), why)
            r.add(row)
            _count(progress, row)
        progress.interrupted = stop()
    return progress


def _absolute(place: Place) -> Place:
    """With the name that it has from every folder; addresses have it already."""
    if not place.root and "://" not in place.name:
        name = os.path.abspath(place.name)  # noqa: PTH100 (Path raises for some names)
        return Place(name, "", name)
    if "://::file://" in place.root:
        archive, _, member = place.name.partition("::")
        return place._replace(name=f"{os.path.abspath(archive)}::{member}")  # noqa: PTH100
    return place


def _settings(engine: Engine) -> dict[str, object]:
    names = ("model", "weights_sha256", "calibration_sha256")
    return {**{name: engine.about[name] for name in names}, "threshold": engine.threshold}


def _undone(
    places: Iterable[Place], results: Results, since: datetime | None, progress: Progress
) -> Iterator[Place]:
    """The places that are to be examined; counts the others."""
    for place in places:
        # At an address a stamp costs a request, so none is asked for where nothing depends on it.
        state = stamp(place) if since is not None or results.num_done else Stamp()
        if since is not None and state.changed is not None and state.changed < since.timestamp():
            progress.old += 1
        elif results.num_done and results.is_done(place, state):
            progress.before += 1
        else:
            yield place


def _count(progress: Progress, row: dict[str, object]) -> None:
    progress.done += 1
    progress.seconds = time.perf_counter() - progress.started
    progress.bands[str(row.get("band") or FAILED)] += 1
    if row.get("same_as") is None:
        progress.network_seconds += float(row.get("seconds") or 0)  # type: ignore[arg-type]


def _sampled(places: list[Place], num: int) -> list[Place]:
    """So many, in their order."""

    def draw(place: Place) -> bytes:
        return hashlib.blake2b(os.fsencode(place.name), digest_size=8).digest()

    chosen = {place.name for place in heapq.nsmallest(num, places, key=draw)}
    return [place for place in places if place.name in chosen]


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[Callable[[], int | None]]:
    """Give a function that says which of SIGINT and SIGTERM came; the second raises
    `KeyboardInterrupt`. Outside the main thread, where Python hears none, signals stay as are."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
