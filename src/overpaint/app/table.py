"""The job table: what waits, what is done, and what came of it.

- One queue and one worker for each kind of job, so that a long report does not hold up a detection.
- A photo that waits lies in its job's files; it is given up as soon as its worker has it.
- What a job found is kept until it is deleted, for `Limits.keep_seconds` at most, and the oldest of
  all as long as they take more than `Limits.keep_bytes`.
- A job's number is drawn at random, 128 bits: only who was told it can ask for it.
"""

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Literal

from overpaint.app.files import JobFiles
from overpaint.app.guard import Limits
from overpaint.app.worker import JobError, Kind, Worker

JobKind = Literal["detect", "inpaint", "report"]
State = Literal["queued", "running", "done", "failed", "cancelled"]

_log = logging.getLogger(__name__)


class QueueFullError(Exception):
    """No more jobs may wait."""


@dataclass(frozen=True, slots=True)
class Found:
    """A part of a job's answer."""

    result: Mapping[str, Any] | None
    """What JSON can hold; None where this part has none."""
    files: tuple["FoundFile", ...] = ()


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of it."""

    name: str
    data: bytes
    media_type: str
    shown_name: str


@dataclass(eq=False)
class Job:
    """One job. Everything but its number, kind and making changes under the table's lock."""

    kind: JobKind
    make: Callable[[JobFiles], Any]
    """From what was uploaded to what the worker gets."""
    uploads: JobFiles
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: State = "queued"
    share: float = 0.0
    error: tuple[Kind, str] | None = None
    result: Mapping[str, Any] | None = None
    files: JobFiles | None = None
    ended: float = 0.0
    """By the table's clock."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    watchers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = field(default_factory=set)

    @property
    def is_over(self) -> bool:
        return self.state not in ("queued", "running")


class Table:
    """The jobs of a server."""

    def __init__(
        self,
        workers: Mapping[JobKind, Worker],
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workers, self._limits, self._clock = workers, limits, clock
        self._changed = threading.Condition()
        self._jobs: dict[str, Job] = {}
        self._queues: dict[JobKind, deque[Job]] = {kind: deque() for kind in workers}
        self._running: dict[JobKind, Job] = {}
        self._closing = False
        self._threads = [
            threading.Thread(target=self._serve, args=(kind,), name=f"{kind} jobs", daemon=True)
            for kind in workers
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, kind: JobKind, uploads: JobFiles, make: Callable[[JobFiles], Any]) -> Job:
        """A new job at the end of its queue. Raises `QueueFullError`, with the uploads given up."""
        job = Job(kind, make, uploads)
        with self._changed:
            if self._closing or sum(map(len, self._queues.values())) >= self._limits.max_queued:
                uploads.close()
                raise QueueFullError
            self._jobs[job.id] = job
            self._queues[kind].append(job)
            self._changed.notify_all()
        return job

    def get(self, number: str) -> Job | None:
        with self._changed:
            return self._jobs.get(number)

    def ahead(self, job: Job) -> int:
        """Jobs that are done before it, the running one among them."""
        with self._changed:
            queue = self._queues[job.kind]
            if job not in queue:
                return 0
            return queue.index(job) + (job.kind in self._running)

    def delete(self, job: Job) -> None:
        """Cancel it where it is not over, and give up its files."""
        with self._changed:
            self._jobs.pop(job.id, None)
            if job.state == "queued":
                self._queues[job.kind].remove(job)
                self._end(job, "cancelled")
                for waiting in self._queues[job.kind]:
                    self._tell(waiting)
            elif job.state == "running":
                job.cancelled.set()  # its thread does the rest
            elif job.files is not None:
                job.files.close()

    def sweep(self) -> None:
        """Forget what was kept long enough."""
        with self._changed:
            over = sorted((j for j in self._jobs.values() if j.is_over), key=lambda j: j.ended)
            sizes = {job.id: job.files.size if job.files else 0 for job in over}
            total, now = sum(sizes.values()), self._clock()
            for job in over:
                late = now - job.ended >= self._limits.keep_seconds
                if late or (total > self._limits.keep_bytes and job is not over[-1]):
                    total -= sizes[job.id]
                    self.delete(job)

    async def watch(self, job: Job, every: float) -> AsyncGenerator[bool]:
        """Yields True at once and whenever the job has changed, the last time when it is over, and
        False after every so many seconds without a change."""
        event = asyncio.Event()
        watcher = (asyncio.get_running_loop(), event)
        with self._changed:
            job.watchers.add(watcher)
        try:
            has_changed = True
            while True:
                event.clear()
                is_over = job.is_over  # before the caller looks, or the end could be missed
                yield has_changed
                if is_over:
                    return
                has_changed = True
                try:
                    await asyncio.wait_for(event.wait(), every)
                except TimeoutError:
                    has_changed = False
        finally:
            with self._changed:
                job.watchers.discard(watcher)

    def close(self) -> None:
        """Cancel everything, end the workers, give up all files."""
        with self._changed:
            self._closing = True
            for job in list(self._jobs.values()):
                self.delete(job)
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for worker in self._workers.values():
            worker.close()

    def _serve(self, kind: JobKind) -> None:
        """One job of a kind after the other."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queues[kind] or self._closing)
                if self._closing:
                    return
                job = self._queues[kind].popleft()
                job.state, job.files = "running", JobFiles()
                self._running[kind] = job
                self._tell(job)
            error = self._do(job)
            with self._changed:
                del self._running[kind]
                job.error = error
                if job.cancelled.is_set():
                    self._end(job, "cancelled")
                elif error is None:
                    job.share = 1.0
                    self._end(job, "done")
                else:
                    self._end(job, "failed")
                for waiting in self._queues[kind]:  # one less is ahead of them
                    self._tell(waiting)
            self.sweep()

    def _do(self, job: Job) -> tuple[Kind, str] | None:
        """Why it could not be done; None where it was."""
        try:
            work = job.make(job.uploads)
            job.uploads.close()
            self._workers[job.kind].call(
                work,
                lambda found: self._take(job, found),
                lambda share: self._hear(job, share),
                job.cancelled,
            )
        except JobError as error:
            if error.kind == "failed":
                _log.error("%s failed: %s", job.kind, error)
            return error.kind, str(error)
        except Exception:  # of the disk, or a bug: the next job is to be done
            _log.exception("%s failed", job.kind)
            return "failed", ""
        return None

    def _take(self, job: Job, found: Found) -> None:
        assert job.files is not None, "made when it began"
        for file in found.files:
            job.files.add(file.name, BytesIO(file.data), file.media_type, file.shown_name)
        with self._changed:
            if found.result is not None:
                job.result = found.result
            self._tell(job)

    def _hear(self, job: Job, share: float) -> None:
        with self._changed:
            if job.share < share <= 1:
                job.share = share
                self._tell(job)

    def _end(self, job: Job, state: State) -> None:
        job.state, job.ended = state, self._clock()
        if state == "cancelled":
            job.error = "cancelled", "the job was cancelled; send it again if you want its result"
        job.uploads.close()
        if state != "done":
            job.result = None
            if job.files is not None:
                job.files.close()
        self._tell(job)

    def _tell(self, job: Job) -> None:
        for loop, event in job.watchers:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(event.set)
