"""The local engine: processes on this machine, coordinated by the one that calls it.

- Decoding processes read, hash and decode ahead; each network process holds one model, one photo in
  work and one waiting, so that it never waits for a file that could have been read before.
- All goes through the coordinator, which so knows which photo each process has: where one dies, by
  a signal or for want of memory, that photo gets an error row, and another process takes its place.
- What waits for a network is bounded, in photos and in bytes.
- Identical files are looked at once: those that come while the first is in work wait for its row.
- By default each network process runs on one thread: photos are independent, and threads of one
  network wait for each other.
- Photos pass through pipes and no shared memory, of which a killed process would leave pieces.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from overpaint.data.sources import Place, Stamp
from overpaint.errors import ScanError
from overpaint.scan import workers
from overpaint.scan.engine import Known
from overpaint.scan.examiner import Examiner
from overpaint.scan.rows import Row, copied_row, error_row, where

MAX_WAITING_BYTES = 2**28
"""Decoded photos that wait for a network process."""

MEMORY = 3 * 2**29
"""Bytes that a network process needs: with a photo of 12 megapixels, about 1.2 GB."""

_AHEAD = 2
"""Photos that a network process has: one in work, one waiting."""

_BLINK = 0.25  # seconds after which a request to stop is noticed at the latest


@dataclass(slots=True, eq=False)
class _Photo:
    """A photo on its way."""

    place: Place
    stamp: Stamp = field(default_factory=Stamp)
    sha256: str | None = None
    data: bytes = b""
    """Of the decoded photo, as it goes to a network process."""


@dataclass(slots=True, eq=False)
class _Worker:
    """A process, its pipe, and the photos that it has."""

    process: Any
    pipe: Connection
    photos: deque[_Photo] = field(default_factory=deque)
    ready: bool = False

    def close(self) -> None:
        self.pipe.close()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def kill(self) -> None:
        self.process.kill()
        self.close()

    @property
    def end(self) -> str:
        """How the process ended, for a row."""
        self.process.join(5)
        code = self.process.exitcode
        how = f"signal {-code}" if code and code < 0 else f"exit code {code}"
        return f"the process that had it ended ({how}); perhaps memory ran out"


class LocalEngine:
    """Processes that examine photos with one model; to be entered with `with`."""

    def __init__(
        self,
        examiner: Examiner,
        *,
        networks: int | None = None,
        threads: int | None = None,
        decoders: int | None = None,
    ) -> None:
        """examiner: what each network process starts. networks: None takes one for each processor,
        as far as there is memory for what each may take, or `MEMORY`; on a graphics card one.
        threads: of each network process; None shares the processors out. decoders: None takes one
        for four networks, and on a graphics card one for each processor but one."""
        num, on_card = num_processors(), examiner.device != "cpu"
        fitting = int(_free_memory() // (examiner.memory or MEMORY))
        self.networks = networks or (1 if on_card else max(1, min(num, fitting)))
        self.threads = threads or max(1, num // self.networks)
        self.decoders = decoders or (max(1, num - 1) if on_card else -(-self.networks // 4))
        self._examiner = examiner
        self.threshold = examiner.threshold
        self._context = multiprocessing.get_context("spawn")
        self._decoders: list[_Worker] = []
        self._networks: list[_Worker] = []
        self.about: Row = {}
        """What rows have in common: model, weights, calibration, runtime."""

    @property
    def words(self) -> str:
        """Processes and threads, in one line."""
        return (
            f"{_counted(self.networks, 'network process', 'es')} of "
            f"{_counted(self.threads, 'thread')}, "
            f"{_counted(self.decoders, 'decoding process', 'es')}"
        )

    def __enter__(self) -> LocalEngine:
        """Start the processes and wait for the first model; raises `ScanError`."""
        try:
            self._decoders = [
                self._start(workers.decode_photos, ready=True) for _ in range(self.decoders)
            ]
            # The first one measures runtimes and exports the network, where that has to be done.
            self._networks = [self._network()]
            if self._examiner.runtime != "torch":
                self._wait_for_model(self._networks[0])
            self._networks += [self._network() for _ in range(1, self.networks)]
            for worker in self._networks:
                if not worker.ready:
                    self._wait_for_model(worker)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._decoders:
            worker.kill()  # it reads, and nothing else
        for worker in self._networks:
            worker.close()

    def run(
        self, places: Iterable[Place], results: Known, stopping: Callable[[], bool]
    ) -> Iterator[Row | None]:
        """Rows of the places as they come, not in order; None for a photo that is done by content.

        results: asked for identical photos; the caller adds each row before it asks for the next.
        stopping: asked often; once it is true, the photos that networks are at are finished, and no
        others.
        """
        run = _Run(self, places, results)
        while True:
            if stopping():
                yield from run.finish()
                return
            run.hand_out()
            if run.is_over:
                return
            pipes = {worker.pipe: worker for worker in (*self._decoders, *self._networks)}
            for pipe in wait([*pipes], _BLINK):
                worker = pipes[cast("Connection", pipe)]
                heard = run.hear_network if worker in self._networks else run.hear_decoder
                yield from heard(worker)

    def replace(self, worker: _Worker) -> None:
        """Start another process in the place of one that has ended."""
        worker.close()
        if worker in self._networks:
            if not worker.ready:
                raise ScanError(f"a network process could not start ({worker.end})")
            self._networks[self._networks.index(worker)] = self._network()
        else:
            new = self._start(workers.decode_photos, ready=True)
            self._decoders[self._decoders.index(worker)] = new

    def _network(self) -> _Worker:
        return self._start(workers.run_network, self._examiner, self.threads)

    def _start(self, work: Callable[..., None], *arguments: Any, ready: bool = False) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=workers.quietly, args=(work, theirs, *arguments), daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(process, cast("Connection", ours), ready=ready)

    def _wait_for_model(self, worker: _Worker) -> None:
        try:
            self.heard_about(worker, worker.pipe.recv())
        except (EOFError, ConnectionError) as error:
            raise ScanError(f"a network process could not start ({worker.end})") from error

    def heard_about(self, worker: _Worker, said: tuple[str, Row] | str) -> None:
        """Take the first word of a network process; `ScanError` when it is an error."""
        if isinstance(said, str):
            raise ScanError(said)
        runtime, about = said
        self.about = self.about or about
        if about != self.about:
            model = self._examiner.model
            raise ScanError(f"the weights {model} were changed meanwhile; scan again")
        self._examiner = replace(self._examiner, runtime=runtime)  # all take the same
        worker.ready = True


class _Run:
    """One run of an engine: which photo is where."""

    def __init__(self, engine: LocalEngine, places: Iterable[Place], results: Known) -> None:
        self._engine = engine
        self._places: Iterator[Place] = iter(places)
        self._results = results
        self._decoded: deque[_Photo] = deque()
        self._in_work: dict[str, list[_Photo]] = {}
        """By SHA-256: the photos that wait for the row of an identical one."""
        self._exhausted = False

    @property
    def is_over(self) -> bool:
        busy = any(w.photos for w in (*self._engine._decoders, *self._engine._networks))
        return self._exhausted and not busy and not self._decoded

    def hand_out(self) -> None:
        """Give photos to the networks that have room, and places to the decoders that are idle."""
        for worker in self._engine._networks:
            while self._decoded and worker.ready and len(worker.photos) < _AHEAD:
                photo = self._decoded.popleft()
                worker.photos.append(photo)
                _send(worker, photo.data)
                photo.data = b""
        for worker in self._engine._decoders:
            if worker.photos or self._exhausted or not self._has_room():
                continue
            place = next(self._places, None)
            if place is None:
                self._exhausted = True
                return
            worker.photos.append(_Photo(place))
            _send(worker, pickle.dumps(place))

    def _has_room(self) -> bool:
        num = len(self._decoded) + sum(bool(w.photos) for w in self._engine._decoders)
        waiting = sum(len(photo.data) for photo in self._decoded)
        return num < 2 * self._engine.networks and waiting < MAX_WAITING_BYTES

    def hear_decoder(self, worker: _Worker) -> Iterator[Row | None]:
        """Take a message of a decoding process, or its end."""
        photo = worker.photos[0] if worker.photos else None
        try:
            kind, *rest = worker.pipe.recv()
            if photo is not None and kind == workers.DECODED:
                photo.data = worker.pipe.recv_bytes()
        except (EOFError, ConnectionError):
            end = worker.end
            self._engine.replace(worker)
            if photo is not None:
                row = error_row(photo.place, photo.stamp, end, photo.sha256)
                yield from self._settle(photo, row)
            return
        if photo is None:
            raise ScanError(f"a decoding process spoke unasked ({kind})")
        if kind == workers.HASHED:
            photo.stamp, photo.sha256 = rest
            rows, wanted = self._look_up(photo, rest[1])
            _send(worker, pickle.dumps(wanted))
            if not wanted:
                worker.photos.popleft()
            yield from rows
            return
        worker.photos.popleft()
        if kind == workers.DECODED:
            self._decoded.append(photo)
        else:
            photo.stamp, reason = rest
            row = error_row(photo.place, photo.stamp, reason, photo.sha256)
            yield from self._settle(photo, row)

    def _look_up(self, photo: _Photo, sha256: str) -> tuple[list[Row | None], bool]:
        """The rows that there are now that a photo's hash is known, and whether to decode it."""
        if self._results.is_done_content(photo.place, sha256):
            return [None], False
        if row := self._results.same(photo.place, photo.stamp, sha256):
            return [row], False
        if sha256 in self._in_work:
            self._in_work[sha256].append(photo)
            return [], False
        self._in_work[sha256] = []
        return [], True

    def hear_network(self, worker: _Worker) -> Iterator[Row]:
        """Take a row of a network process, its first word, or its end."""
        try:
            heard = worker.pipe.recv()
        except (EOFError, ConnectionError):
            photos, end = worker.photos, worker.end
            self._engine.replace(worker)
            if photos:
                first = photos.popleft()
                yield from self._settle(
                    first, error_row(first.place, first.stamp, end, first.sha256)
                )
            # Their pixels went with the process.
            self._again(photos)
            return
        if not worker.ready:
            self._engine.heard_about(worker, heard)
            return
        yield from self._heard_row(worker, heard)

    def _heard_row(self, worker: _Worker, heard: Row) -> Iterator[Row]:
        photo = worker.photos.popleft()
        if "error" in heard:
            row = error_row(photo.place, photo.stamp, heard["error"], photo.sha256)
        else:
            row = {**heard, **where(photo.place, photo.stamp)}
        yield from self._settle(photo, row)

    def _again(self, photos: Iterable[_Photo]) -> None:
        """Read photos anew, and those that wait for them."""
        lost = [
            other.place
            for photo in photos
            for other in (photo, *self._in_work.pop(photo.sha256 or "", []))
        ]
        self._places = itertools.chain(lost, self._places)
        self._exhausted = self._exhausted and not lost

    def _settle(self, photo: _Photo, row: Row) -> Iterator[Row]:
        """The row of a photo, and of those that are identical to it."""
        yield row
        for other in self._in_work.pop(photo.sha256 or "", []):
            yield copied_row({"same_as": None, **row}, other.place, other.stamp)

    def finish(self) -> Iterator[Row]:
        """Rows of the photos that networks are at."""
        for worker in self._engine._networks:
            _send(worker, workers.STOP)
        for worker in self._engine._networks:
            while worker.ready:
                try:
                    heard = worker.pipe.recv()
                except (EOFError, ConnectionError):
                    break
                yield from self._heard_row(worker, heard)


def _send(worker: _Worker, data: bytes) -> None:
    """Send, unless the process has ended: that is heard when its pipe is read."""
    try:
        worker.pipe.send_bytes(data)
    except ConnectionError:
        return


def num_processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _free_memory() -> int:
    """Bytes; much where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**40


def _counted(num: int, what: str, plural: str = "s") -> str:
    return f"{num} {what}{'' if num == 1 else plural}"
