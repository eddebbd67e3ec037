"""The local engine: processes on this machine, coordinated by the calling process.

- Decoding processes read, hash and decode photos in advance. Each network process has one model,
  one photo in work and one waiting, so that it never waits for a file that could have been read.
- Every photo passes through the coordinator, which therefore knows the photos of each process. When
  a process dies, by a signal or because memory ran out, the photo in work gets an error row, and
  the process is replaced.
- The queue of decoded photos is bounded, in photos and in bytes.
- Identical files are examined once: those that come while the first is in work wait for its row.
- By default each network process has one thread: photos are independent, while the threads of one
  network wait for each other.
- Photos are sent through pipes and not through shared memory, which a killed process would leak.
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
from overpaint.scan.detector import DetectorSettings
from overpaint.scan.engine import Known
from overpaint.scan.rows import PhotoRow, copy_row, describe_place, make_error_row

MAX_WAITING_BYTES = 2**28
"""Limit for the decoded photos that wait for a network process."""

MEMORY = 3 * 2**29
"""Bytes reserved for a network process, which takes about 1.2 GB for a photo of 12 megapixels."""

_AHEAD = 2
"""Photos of a network process: one in work, one waiting."""

_POLL = 0.25  # seconds: a request to stop is noticed after this at the latest


@dataclass(slots=True, eq=False)
class _Photo:
    """A photo between reading and its row."""

    place: Place
    stamp: Stamp = field(default_factory=Stamp)
    sha256: str | None = None
    data: bytes = b""
    """The decoded photo, pickled for a network process."""


@dataclass(slots=True, eq=False)
class _Worker:
    """A process, its pipe, and its photos."""

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
        """How the process ended, for an error row."""
        self.process.join(5)
        code = self.process.exitcode
        how = f"signal {-code}" if code and code < 0 else f"exit code {code}"
        return f"the process that had it ended ({how}); perhaps memory ran out"


class LocalEngine:
    """Processes that examine photos with one model; a context manager."""

    def __init__(
        self,
        detector: DetectorSettings,
        *,
        networks: int | None = None,
        threads: int | None = None,
        decoders: int | None = None,
    ) -> None:
        """detector: what each network process starts. networks: number of network processes; None
        takes one per processor, limited by free memory (`detector.memory` or `MEMORY` each), and
        one for a graphics card. threads: of each network process; None divides the processors
        evenly. decoders: number of decoding processes; None takes one per four networks, and for a
        graphics card one per processor but one."""
        num, on_card = count_processors(), detector.device != "cpu"
        fitting = int(_measure_free_memory() // (detector.memory or MEMORY))
        self.networks = networks or (1 if on_card else max(1, min(num, fitting)))
        self.threads = threads or max(1, num // self.networks)
        self.decoders = decoders or (max(1, num - 1) if on_card else -(-self.networks // 4))
        self._detector = detector
        self.threshold = detector.threshold
        self._context = multiprocessing.get_context("spawn")
        self._decoders: list[_Worker] = []
        self._networks: list[_Worker] = []
        self.about: PhotoRow = {}
        """What all rows have in common: model, weights, calibration, runtime."""

    @property
    def words(self) -> str:
        """Processes and threads, in one line."""
        return (
            f"{_format_count(self.networks, 'network process', 'es')} of "
            f"{_format_count(self.threads, 'thread')}, "
            f"{_format_count(self.decoders, 'decoding process', 'es')}"
        )

    def __enter__(self) -> LocalEngine:
        """Start the processes and wait for the first model; raises `ScanError`."""
        try:
            self._decoders = [
                self._start(workers.decode_photos, ready=True) for _ in range(self.decoders)
            ]
            # The first one measures runtimes and exports the network where necessary.
            self._networks = [self._start_network()]
            if self._detector.runtime != "torch":
                self._wait_for_model(self._networks[0])
            self._networks += [self._start_network() for _ in range(1, self.networks)]
            for worker in self._networks:
                if not worker.ready:
                    self._wait_for_model(worker)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._decoders:
            worker.kill()  # decoding writes nothing that could be left half done
        for worker in self._networks:
            worker.close()

    def run(
        self, places: Iterable[Place], results: Known, stopping: Callable[[], bool]
    ) -> Iterator[PhotoRow | None]:
        """As `Engine.run`; once `stopping` returns true, only the photos in work are finished."""
        run = _Run(self, places, results)
        while True:
            if stopping():
                yield from run.finish()
                return
            run.distribute()
            if run.is_over:
                return
            pipes = {worker.pipe: worker for worker in (*self._decoders, *self._networks)}
            for pipe in wait([*pipes], _POLL):
                worker = pipes[cast("Connection", pipe)]
                if worker in self._networks:
                    yield from run.receive_from_network(worker)
                else:
                    yield from run.receive_from_decoder(worker)

    def replace(self, worker: _Worker) -> None:
        """Replace a process that has ended by a new one."""
        worker.close()
        if worker in self._networks:
            if not worker.ready:
                raise ScanError(f"a network process could not start ({worker.end})")
            self._networks[self._networks.index(worker)] = self._start_network()
        else:
            new = self._start(workers.decode_photos, ready=True)
            self._decoders[self._decoders.index(worker)] = new

    def _start_network(self) -> _Worker:
        return self._start(workers.run_network, self._detector, self.threads)

    def _start(self, work: Callable[..., None], *arguments: Any, ready: bool = False) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=workers.run_quietly, args=(work, theirs, *arguments), daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(process, cast("Connection", ours), ready=ready)

    def _wait_for_model(self, worker: _Worker) -> None:
        try:
            self.take_first_message(worker, worker.pipe.recv())
        except (EOFError, ConnectionError) as error:
            raise ScanError(f"a network process could not start ({worker.end})") from error

    def take_first_message(self, worker: _Worker, said: tuple[str, PhotoRow] | str) -> None:
        """Handle the first message of a network process; `ScanError` when it is an error."""
        if isinstance(said, str):
            raise ScanError(said)
        runtime, about = said
        self.about = self.about or about
        if about != self.about:
            model = self._detector.model
            raise ScanError(f"the weights {model} changed during the scan; scan again")
        self._detector = replace(self._detector, runtime=runtime)  # all use the first one's choice
        worker.ready = True


class _Run:
    """One run of an engine, and where each of its photos is."""

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

    def distribute(self) -> None:
        """Send decoded photos to networks that have room, and places to decoders that are idle."""
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

    def receive_from_decoder(self, worker: _Worker) -> Iterator[PhotoRow | None]:
        """Handle a message of a decoding process, or its end."""
        photo = worker.photos[0] if worker.photos else None
        try:
            kind, *rest = worker.pipe.recv()
            if photo is not None and kind == workers.DECODED:
                photo.data = worker.pipe.recv_bytes()
        except (EOFError, ConnectionError):
            end = worker.end
            self._engine.replace(worker)
            if photo is not None:
                row = make_error_row(photo.place, photo.stamp, end, photo.sha256)
                yield from self._settle(photo, row)
            return
        if photo is None:
            raise ScanError(f"a decoding process without a photo sent a message ({kind})")
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
            row = make_error_row(photo.place, photo.stamp, reason, photo.sha256)
            yield from self._settle(photo, row)

    def _look_up(self, photo: _Photo, sha256: str) -> tuple[list[PhotoRow | None], bool]:
        """For a hashed photo: the rows that can be given at once, and whether to decode it."""
        if self._results.is_done_content(photo.place, sha256):
            return [None], False
        if row := self._results.find_same(photo.place, photo.stamp, sha256):
            return [row], False
        if sha256 in self._in_work:
            self._in_work[sha256].append(photo)
            return [], False
        self._in_work[sha256] = []
        return [], True

    def receive_from_network(self, worker: _Worker) -> Iterator[PhotoRow]:
        """Handle a row of a network process, its first message, or its end."""
        try:
            heard = worker.pipe.recv()
        except (EOFError, ConnectionError):
            photos, end = worker.photos, worker.end
            self._engine.replace(worker)
            if photos:
                first = photos.popleft()
                yield from self._settle(
                    first, make_error_row(first.place, first.stamp, end, first.sha256)
                )
            # The pixels of the waiting photos were lost with the process.
            self._requeue(photos)
            return
        if not worker.ready:
            self._engine.take_first_message(worker, heard)
            return
        yield from self._receive_row(worker, heard)

    def _receive_row(self, worker: _Worker, heard: PhotoRow) -> Iterator[PhotoRow]:
        photo = worker.photos.popleft()
        if "error" in heard:
            row = make_error_row(photo.place, photo.stamp, heard["error"], photo.sha256)
        else:
            row = {**heard, **describe_place(photo.place, photo.stamp)}
        yield from self._settle(photo, row)

    def _requeue(self, photos: Iterable[_Photo]) -> None:
        """Put photos, and those that wait for their rows, before the places not yet read."""
        lost = [
            other.place
            for photo in photos
            for other in (photo, *self._in_work.pop(photo.sha256 or "", []))
        ]
        self._places = itertools.chain(lost, self._places)
        self._exhausted = self._exhausted and not lost

    def _settle(self, photo: _Photo, row: PhotoRow) -> Iterator[PhotoRow]:
        """Yield the row of a photo, and those of the photos that are identical to it."""
        yield row
        for other in self._in_work.pop(photo.sha256 or "", []):
            yield copy_row({"same_as": None, **row}, other.place, other.stamp)

    def finish(self) -> Iterator[PhotoRow]:
        """Let the networks end after the photos in work; yields their rows."""
        for worker in self._engine._networks:
            _send(worker, workers.STOP)
        for worker in self._engine._networks:
            while worker.ready:
                try:
                    heard = worker.pipe.recv()
                except (EOFError, ConnectionError):
                    break
                yield from self._receive_row(worker, heard)


def _send(worker: _Worker, data: bytes) -> None:
    """Send, unless the process has ended, which is noticed when its pipe is read."""
    try:
        worker.pipe.send_bytes(data)
    except ConnectionError:
        return


def count_processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _measure_free_memory() -> int:
    """Bytes of free memory; 1 TiB where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**40


def _format_count(num: int, what: str, plural: str = "s") -> str:
    return f"{num} {what}{'' if num == 1 else plural}"
