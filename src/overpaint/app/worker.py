"""One process that does jobs, so that a crash of a decoder or a network ends it and nothing else.

- The process is started at the first job and after each end. It is spawned, as a forked one would
  share torch's threads.
- A job is a call of a generator function in the process: what it yields are the parts of its
  answer, which are handed on at once. In between it tells how far it is (`overpaint.progress`).
- A job has a time limit, within which the process also has to start. One that takes longer, or is
  cancelled, is ended with its process.
- Jobs and answers go through a pipe and never through a file, so nothing is left to delete.
- Where the system runs out of memory, Linux ends this process rather than the server.
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
from overpaint.process import release_memory

Job = Any
"""What `pickle` takes."""

Kind = Literal["too large", "refused", "ended", "cancelled", "failed"]
"""Why there is no answer: the input is too large or wrong; the process ended or took too long; the
caller cancelled it; a bug."""

_NO_MEMORY = "not enough memory for this photo; give a smaller one"
_EVERY = 0.05
"""Seconds between looks at whether a job was cancelled or is late."""


class JobError(OverpaintError):
    """A job that ended without an answer."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind: Kind = kind


class Worker(Protocol):
    """What does one job at a time, from any thread."""

    def call(
        self,
        job: Job,
        take: Callable[[Any], None],
        tell: Callable[[float], None],
        cancelled: threading.Event,
    ) -> None: ...

    def close(self) -> None: ...


class ProcessWorker:
    """A worker in a process of its own."""

    def __init__(
        self,
        handle: Callable[[Job], Iterable[Any]],
        *,
        seconds: float,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """handle: a generator function of a module, which the process imports. seconds: for one
        job. prepare: is called once in the process, before its first job."""
        self._handle = handle
        self._prepare = prepare
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: Any = None
        self._pipe: Connection | None = None

    def start(self) -> None:
        """Start the process before there is a job for it."""
        with self._lock:
            self._started()

    def call(
        self,
        job: Job,
        take: Callable[[Any], None],
        tell: Callable[[float], None],
        cancelled: threading.Event,
    ) -> None:
        """Do a job; returns when it is done. take: gets each part of its answer. tell: hears how
        much is done, 0..1. cancelled: ends the job and its process when set.

        Raises `JobError`.
        """
        until = time.monotonic() + self._seconds
        with self._lock:
            pipe = self._started()
            try:
                self._wait(pipe, until, cancelled)
                pipe.recv()  # that it is ready: before, nobody would read what is sent
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
        """Until there is something to receive."""
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

    def _started(self) -> Connection:
        if self._process is None or self._pipe is None or not self._process.is_alive():
            self._end()
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(
                target=_work,
                args=(theirs, self._handle, self._prepare),
                name="overpaint worker",
                daemon=True,
            )
            self._process.start()
            theirs.close()  # or the end of the process would not be seen
        return self._pipe

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def _work(
    pipe: Connection,
    handle: Callable[[Job], Iterable[Any]],
    prepare: Callable[[], None] | None,
) -> None:
    """What runs in the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server gets it as well, and ends this
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    if prepare is not None:
        with contextlib.suppress(OverpaintError):  # the first job will say it again
            prepare()
    with contextlib.suppress(EOFError, OSError):  # the server is gone
        while True:
            pipe.send(("ready",))
            job = pipe.recv()
            pipe.send(_done(pipe, handle, job))
            del job
            release_memory()


def _done(pipe: Connection, handle: Callable[[Job], Iterable[Any]], job: Job) -> tuple[str, ...]:
    """Do a job; returns the last message about it."""
    try:
        with progress.heard_by(lambda share: pipe.send(("progress", share))):
            for found in handle(job):
                pipe.send(("part", found))
    except MemoryError:
        return "too large", _NO_MEMORY
    except TooLargeError as error:
        return "too large", str(error)
    except (ImageError, InputError) as error:
        return "refused", str(error)
    except Exception as error:  # whatever it is, the next job is to be done
        if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):  # torch's
            return "too large", _NO_MEMORY
        return "failed", f"{type(error).__name__}: {error}"
    return ("done",)
