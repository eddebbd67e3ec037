"""`scan`: from sources to a folder of results, by an engine.

- Photos are examined in the order of the sources. A sample is the photos whose names have the
  lowest hashes: the same on every run over the same photos. Photos that are added, with lower
  hashes, take the places of some in the sample; photos that are removed are replaced by others.
- A source that could not be found or searched gets an error row, like a photo that cannot be read.
  After a later run that searched it without this error, the error no longer counts.
- A first SIGTERM or Ctrl-C ends the run after the photos in work; a second ends it at once. In both
  cases the rows so far are kept, and the same command continues from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import itertools
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import FrameType

from overpaint.data.finding import Search
from overpaint.data.sources import Place, Stamp, find_places, read_stamp
from overpaint.scan.engine import Engine
from overpaint.scan.results import Results
from overpaint.scan.rows import PhotoRow, make_problem_row, make_repaired_row, to_utf8

FAILED = "could not be examined"


@dataclass(slots=True)
class Progress:
    """The progress of a run."""

    total: int
    """Photos that are to be examined in this run."""
    before: int
    """Photos that were done before this run."""
    old: int = 0
    """Photos that were not changed since the given time."""
    done: int = 0
    bands: Counter[str] = field(default_factory=Counter)
    """Verdicts of the rows of this run; `FAILED` for errors."""
    network_seconds: float = 0.0
    """Time in the detector, summed over all processes."""
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
        left = "?" if self.remaining is None else format_duration(self.remaining)
        return (
            f"{self.done}/{self.total}, {self.rate:.2f} photos/s, {left} left, {self.failed} failed"
        )


def format_duration(seconds: float) -> str:
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
    """Examine photos and store one row of each in a folder; returns what was done.

    sources: as in `find_places`. limit: largest number of photos to examine in this run. sample:
    number of photos, those whose names have the lowest hashes. since: only photos that were changed
    then or later, or whose storage gives no time. by_content, retry: see `Results`. report: called
    after each photo. note: called with messages for the user.

    Raises `ScanError` for a folder that cannot be used, or weights that cannot be loaded; a photo
    that cannot be examined gets a row with the reason.
    """
    sources = [sources] if isinstance(sources, str | Path) else [*sources]
    with catch_signals() as stop, Results(Path(out), by_content=by_content, retry=retry) as r:
        found, search = find_places(sources)
        if search.words:
            note(search.words)
        places = [_make_absolute(place) for place in found]
        problems = dict(_describe_problem(path, str(e), search) for path, e in search.problems)
        repaired = _find_repaired(r.unsearched, sources, places, problems)
        del found, search
        if sample is not None:
            places = _sample(places, sample)
        progress = Progress(0, 0)
        todo = list(itertools.islice(_select_undone(places, r, since, progress), limit))
        del places
        new = [row for place, row in problems.items() if not r.is_done(place, Stamp())]
        progress.total = len(todo) + len(new)
        with engine:
            r.use(_list_settings(engine))
            for place in repaired:
                r.add(make_repaired_row(place))
            progress.started = time.perf_counter()
            for row in engine.run(todo, r, lambda: stop() is not None):
                if row is None:
                    progress.total -= 1
                    progress.before += 1
                else:
                    r.add(row)
                    _count(progress, row)
                report(progress)
        for row in new:
            r.add(row)
            _count(progress, row)
        progress.interrupted = stop()
    return progress


def _make_absolute(place: Place) -> Place:
    """The place with an absolute name; addresses are absolute already."""
    if not place.root and "://" not in place.name:
        name = os.path.abspath(place.name)  # noqa: PTH100 (Path raises for some names)
        return Place(name, "", name)
    if "://::file://" in place.root:
        archive, _, member = place.name.partition("::")
        return place._replace(name=f"{os.path.abspath(archive)}::{member}")  # noqa: PTH100
    return place


def _describe_problem(path: str, error: str, search: Search) -> tuple[Place, PhotoRow]:
    """The place of a problem and its row, with the same name in the error, which begins with it."""
    place = _make_absolute(Place(path, "", path))
    if error.startswith(path):
        error = place.name + error.removeprefix(path)
    source = search.named.get(path, path)
    return place, make_problem_row(place, error, _make_absolute(Place(source, "", source)).name)


def _find_repaired(
    unsearched: Mapping[str, str],
    sources: Sequence[str | Path],
    photos: Iterable[Place],
    problems: Collection[Place],
) -> list[Place]:
    """What could not be found or searched before, and now was: itself, or its source, is among the
    sources, and a search of these met no problem there.

    unsearched: the name of each, and its source. photos, problems: what the search found; a photo
    gets a row of its own. What is in a folder or archive with a problem was not searched.
    """
    if not unsearched:
        return []
    are_photos = {place.name for place in photos if place.name in unsearched}
    broken = {place.name for place in problems}
    by_source: dict[str, list[str]] = {}
    for name, source in unsearched.items():
        if name not in are_photos and not broken & {source, *_list_above(name)}:
            by_source.setdefault(source, []).append(name)
            by_source.setdefault(to_utf8(name), []).append(name)
    lines = (path for path, _ in Search().list_named(sources))
    repaired = dict.fromkeys(
        name
        for path in itertools.chain(map(str, sources), lines)
        for name in by_source.get(to_utf8(_make_absolute(Place(path, "", path)).name), ())
    )
    return [Place(name, "", name) for name in repaired]


def _list_above(name: str) -> set[str]:
    """A path or address, and all folders and archives that it is in."""
    ends = (found.start() for found in re.finditer(rf"::|/|{re.escape(os.sep)}", name))
    return {name, *(name[:end] for end in ends)}


def _list_settings(engine: Engine) -> dict[str, object]:
    names = ("model", "weights_sha256", "calibration_sha256")
    return {**{name: engine.about[name] for name in names}, "threshold": engine.threshold}


def _select_undone(
    places: Iterable[Place], results: Results, since: datetime | None, progress: Progress
) -> Iterator[Place]:
    """Yield the places that are to be examined; counts the others in `progress`."""
    for place in places:
        # The stamp of an address costs a request, so it is read only where it matters.
        state = read_stamp(place) if since is not None or results.num_done else Stamp()
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


def _sample(places: list[Place], num: int) -> list[Place]:
    """The `num` places whose names have the lowest hashes, in their order."""

    def draw(place: Place) -> bytes:
        return hashlib.blake2b(os.fsencode(place.name), digest_size=8).digest()

    chosen = {place.name for place in heapq.nsmallest(num, places, key=draw)}
    return [place for place in places if place.name in chosen]


@contextlib.contextmanager
def catch_signals() -> Iterator[Callable[[], int | None]]:
    """Yield a function that returns the number of the first SIGINT or SIGTERM, or None.

    The second signal raises `KeyboardInterrupt`. Outside the main thread, where Python cannot catch
    signals, their handlers are unchanged.
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
    before = {number: signal.signal(number, receive) for number in numbers}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
