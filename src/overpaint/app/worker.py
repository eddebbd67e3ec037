"""A process that runs jobs, so that a crash of a decoder or a network ends only this process.

- The process is started for the first job, and again after it has ended. It is spawned, as a forked
  process would share torch's threads.
- A job is a call of a generator function in the process. What it yields are the parts of its
  answer, which are passed on at once; in between it reports progress (`overpaint.progress`).
- A job has a time limit, which includes the start of the process. A job that exceeds it, or is
  cancelled, is ended with its process.
- Jobs and answers are sent through a pipe, so there are no files to delete.
- When the system runs out of memory, Linux ends this process rather than the server.
"""

import contextlib
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, Protocol

from overpaint import progress
from overpaint.errors import ImageError, InputError, OverpaintError, TooLargeError
from overpaint.process import end_with_parent, keep_freed_memory, release_memory

Job = Any
"""Anything that `pickle` takes."""

Kind = Literal["too large", "refused", "ended", "cancelled", "failed"]
"""Why there is no answer: the input is too large or wrong; the process ended or took too long; the
caller cancelled it; a bug."""

_NO_MEMORY = "not enough memory for this photo; give a smaller one"
_EVERY = 0.05
"""Seconds between checks whether a job was cancelled or is late."""


class JobError(OverpaintError):
    """A job that ended without an answer."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind: Kind = kind


class Worker(Protocol):
    """Runs one job at a time, for any thread."""

    def call(
        self,
        job: Job,
        take: Callable[[Any], None],
        tell: Callable[[float], None],
        cancelled: threading.Event,
    ) -> None: ...

    def close(self) -> None: ...


class ProcessWorker:
    """A worker in a separate process."""

    def __init__(
        self,
        handle: Callable[[Job], Iterable[Any]],
        *,
        seconds: float,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """handle: a generator function of a module, which the process imports. seconds: time limit
        of one job. prepare: called once in the process, before its first job."""
        self._handle = handle
        self._prepare = prepare
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: Any = None
        self._pipe: Connection | None = None

    def start(self) -> None:
        """Start the process before its first job."""
        with self._lock:
            self._ensure_started()

    def call(
        self,
        job: Job,
        take: Callable[[Any], None],
        tell: Callable[[float], None],
        cancelled: threading.Event,
    ) -> None:
        """Run a job; returns when it is done.

        take: called with each part of its answer. tell: called with the share that is done, 0..1.
        cancelled: ends the job and its process when set. Raises `JobError`.
        """
        until = time.monotonic() + self._seconds
        with self._lock:
            pipe = self._ensure_started()
            try:
                self._wait(pipe, until, cancelled)
                pipe.recv()  # "ready": a job sent before would block while the process starts
                pipe.send(job)
                while True:
                    self._wait(pipe, until, cancelled)
                    match pipe.recv():
                        case ("progress", share):
                            tell(share)
                        case ("part", found):
                            take(found)
                        case ("done",):
                            return
                        case (kind, message):
                            raise JobError(kind, message)
            except (EOFError, OSError) as error:
                self._end()
                remedy = "give another photo, or a smaller one"
                raise JobError("ended", f"the job ended its process; {remedy}") from error

    def _wait(self, pipe: Connection, until: float, cancelled: threading.Event) -> None:
        """Wait until there is a message to receive."""
        while True:
            if cancelled.is_set():
                self._end()
                raise JobError("cancelled", "the job was cancelled")
            if time.monotonic() > until:
                self._end()
                remedy = "give another photo, or a smaller one"
                raise JobError("ended", f"the job took longer than {self._seconds:g} s; {remedy}")
            if pipe.poll(_EVERY):
                return

    def close(self) -> None:
        """End the process; a later job starts another."""
        with self._lock:
            self._end()

    def _ensure_started(self) -> Connection:
        if self._process is None or self._pipe is None or not self._process.is_alive():
            self._end()
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(
                target=_run_jobs,
                args=(theirs, self._handle, self._prepare),
                name="overpaint worker",
                daemon=True,
            )
            self._process.start()
            theirs.close()  # otherwise the end of the process would not close the pipe
        return self._pipe

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def _run_jobs(
    pipe: Connection,
    handle: Callable[[Job], Iterable[Any]],
    prepare: Callable[[], None] | None,
) -> None:
    """The main function of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server also gets it, and ends this process
    end_with_parent()
    keep_freed_memory()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    if prepare is not None:
        with contextlib.suppress(OverpaintError):  # the first job raises it again
            prepare()
    with contextlib.suppress(EOFError, OSError):  # the server has ended
        while True:
            pipe.send(("ready",))
            job = pipe.recv()
            pipe.send(_run_job(pipe, handle, job))
            del job
            release_memory()


def _run_job(pipe: Connection, handle: Callable[[Job], Iterable[Any]], job: Job) -> tuple[str, ...]:
    """Run a job; returns the last message about it."""
    try:
        with progress.send_to(lambda share: pipe.send(("progress", share))):
            for found in handle(job):
                pipe.send(("part", found))
    except MemoryError:
        return "too large", _NO_MEMORY
    except TooLargeError as error:
        return "too large", str(error)
    except (ImageError, InputError) as error:
        return "refused", str(error)
    except Exception as error:  # the process goes on to the next job
        if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):  # torch's
            return "too large", _NO_MEMORY
        return "failed", f"{type(error).__name__}: {error}"
    return ("done",)
