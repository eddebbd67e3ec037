"""The job table: queues, workers and results.

- One queue and one worker for each kind of job, so that a long report does not delay a detection.
- The uploads of a queued job are stored in a file, which is deleted when its worker has them.
- Results are kept until they are deleted, for at most `Limits.keep_seconds`; the oldest are deleted
  while all take more than `Limits.keep_bytes` or are more than `Limits.keep_jobs`, as each is an
  open file.
- A job's number is random, 128 bits, so that only its sender knows it.
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
    """Fields that JSON can hold; None where this part has only files."""
    files: tuple["FoundFile", ...] = ()


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of a job's answer."""

    name: str
    data: bytes = field(repr=False)
    media_type: str
    shown_name: str


@dataclass(eq=False)
class Job:
    """One job. Fields other than `id`, `kind` and `make` change under the table's lock."""

    kind: JobKind
    make: Callable[[JobFiles], Any]
    """Makes the worker's argument of the uploads."""
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
        """Add a job to its queue. Raises `QueueFullError`, and then closes the uploads."""
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

    def count_ahead(self, job: Job) -> int:
        """Number of jobs that are done before it, including the running one."""
        with self._changed:
            queue = self._queues[job.kind]
            if job not in queue:
                return 0
            return queue.index(job) + (job.kind in self._running)

    def delete(self, job: Job) -> None:
        """Cancel the job if it is not over, and delete its files."""
        with self._changed:
            self._jobs.pop(job.id, None)
            if job.state == "queued":
                self._queues[job.kind].remove(job)
                self._end(job, "cancelled")
                for waiting in self._queues[job.kind]:
                    self._notify(waiting)
            elif job.state == "running":
                job.cancelled.set()  # the serving thread ends it
            elif job.files is not None:
                job.files.close()

    def sweep(self) -> None:
        """Delete results that are too old or too large."""
        with self._changed:
            over = sorted((j for j in self._jobs.values() if j.is_over), key=lambda j: j.ended)
            sizes = {job.id: job.files.size if job.files else 0 for job in over}
            total, num, now = sum(sizes.values()), len(over), self._clock()
            for job in over:
                late = now - job.ended >= self._limits.keep_seconds
                full = total > self._limits.keep_bytes or num > self._limits.keep_jobs
                if late or (full and job is not over[-1]):
                    total, num = total - sizes[job.id], num - 1
                    self.delete(job)

    async def watch(self, job: Job, every: float) -> AsyncGenerator[bool]:
        """Yield True at once and whenever the job has changed, the last time when it is over, and
        False after each `every` seconds without a change."""
        event = asyncio.Event()
        watcher = (asyncio.get_running_loop(), event)
        with self._changed:
            job.watchers.add(watcher)
        try:
            has_changed = True
            while True:
                event.clear()
                is_over = job.is_over  # read before the caller sees the job, to not miss its end
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
        """Cancel all jobs, end the workers, delete all files."""
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
        """Run the jobs of a kind, one after the other."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queues[kind] or self._closing)
                if self._closing:
                    return
                job = self._queues[kind].popleft()
                job.state = "running"
                self._running[kind] = job
                self._notify(job)
            error = self._run_job(job)
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
                for waiting in self._queues[kind]:  # fewer jobs are ahead of them
                    self._notify(waiting)
            self.sweep()

    def _run_job(self, job: Job) -> tuple[Kind, str] | None:
        """Run a job; returns its error, or None."""
        try:
            job.files = JobFiles()
            work = job.make(job.uploads)
            job.uploads.close()
            self._workers[job.kind].call(
                work,
                lambda found: self._add_found(job, found),
                lambda share: self._set_share(job, share),
                job.cancelled,
            )
        except JobError as error:
            if error.kind == "failed":
                _log.error("%s failed: %s", job.kind, error)
            return error.kind, str(error)
        except Exception:  # a full disk, too many open files, a bug: on to the next job
            _log.exception("%s failed", job.kind)
            return "failed", ""
        return None

    def _add_found(self, job: Job, found: Found) -> None:
        assert job.files is not None, "made when it started"
        for file in found.files:
            job.files.add(file.name, BytesIO(file.data), file.media_type, file.shown_name)
        with self._changed:
            if found.result is not None:
                job.result = found.result
            self._notify(job)

    def _set_share(self, job: Job, share: float) -> None:
        with self._changed:
            if job.share < share <= 1:
                job.share = share
                self._notify(job)

    def _end(self, job: Job, state: State) -> None:
        job.state, job.ended = state, self._clock()
        if state == "cancelled":
            job.error = "cancelled", "the job was cancelled; send it again if you want its result"
        job.uploads.close()
        if state != "done":
            job.result = None
            if job.files is not None:
                job.files.close()
        self._notify(job)

    def _notify(self, job: Job) -> None:
        for loop, event in job.watchers:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(event.set)
