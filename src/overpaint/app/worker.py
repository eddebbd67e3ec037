"""One process that does jobs, so that a crash of a decoder or a network ends it and nothing else.

- The process is started at the first job and after each end. It is spawned, as a forked one would
  share torch's threads.
- A job has a time limit, within which the process also has to start. One that takes longer is ended
  with its process.
- Jobs and answers go through a pipe and never through a file, so nothing is left to delete.
"""

import multiprocessing
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Protocol

from overpaint.errors import ImageError, InputError, OverpaintError

Job = Any
"""What `pickle` takes."""


class JobError(OverpaintError):
    """A job that ended without an answer: its process ended, or it took too long."""


class Worker(Protocol):
    """What does one job at a time, from any thread."""

    def call(self, job: Job) -> Any: ...

    def close(self) -> None: ...


class ProcessWorker:
    """A worker in a process of its own."""

    def __init__(self, handle: Callable[[Job], Any], *, seconds: float) -> None:
        """handle: a function of a module, which the process imports. seconds: for one job."""
        self._handle = handle
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: Any = None
        self._pipe: Connection | None = None

    def call(self, job: Job) -> Any:
        """The answer. Raises `ImageError` and `InputError` as the job did, `JobError` where it
        ended without one, and RuntimeError with the kind of any other error."""
        with self._lock:
            process, pipe = self._started()
            late = threading.Event()

            def stop() -> None:
                late.set()
                process.kill()

            timer = threading.Timer(self._seconds, stop)
            timer.start()
            kind = answer = None
            try:
                pipe.send(job)
                kind, answer = pipe.recv()
            except (EOFError, OSError):
                pass
            finally:
                timer.cancel()
                timer.join()  # it may be ending the process right now
                if kind is None or late.is_set():
                    self._end()
        if kind is None:
            said = f"took longer than {self._seconds:g} s" if late.is_set() else "ended its process"
            raise JobError(f"the job {said}; give another photo, or a smaller one")
        if kind == "answer":
            return answer
        kinds = {"ImageError": ImageError, "InputError": InputError}
        raise kinds[kind](answer) if kind in kinds else RuntimeError(f"{kind}: {answer}")

    def close(self) -> None:
        """End the process; a later job starts another."""
        with self._lock:
            self._end()

    def _started(self) -> tuple[Any, Connection]:
        if self._process is None or self._pipe is None or not self._process.is_alive():
            self._end()
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(
                target=_work, args=(theirs, self._handle), name="overpaint worker", daemon=True
            )
            self._process.start()
            theirs.close()  # or the end of the process would not be seen
        return self._process, self._pipe

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def _work(pipe: Connection, handle: Callable[[Job], Any]) -> None:
    """What runs in the process."""
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
        try:
            answer = ("answer", handle(job))
        except MemoryError:
            answer = ("InputError", "not enough memory for this photo; give a smaller one")
        except Exception as error:  # whatever it is, the next job is to be done
            answer = (_kind(error), str(error))
        pipe.send(answer)


def _kind(error: Exception) -> str:
    known = (kind for kind in (ImageError, InputError) if isinstance(error, kind))
    return next(known, type(error)).__name__
