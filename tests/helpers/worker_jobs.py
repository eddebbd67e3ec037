"""Jobs for a worker's process, which imports this file by its name; and a worker without one."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args

from overpaint import progress
from overpaint.app.table import JobKind
from overpaint.errors import ImageError, TooLargeError


def do(job: Any) -> Iterator[Any]:
    """What the job says: ("crash",), ("sleep", seconds), ("refuse", words), ("too large", words),
    ("fill memory",), ("fail", words), ("parts", number), or an answer that names the process."""
    match job:
        case ("crash",):
            os._exit(3)
        case ("sleep", seconds):
            time.sleep(seconds)
        case ("refuse", words):
            raise ImageError(words)
        case ("too large", words):
            raise TooLargeError(words)
        case ("fill memory",):
            raise MemoryError
        case ("fail", words):
            raise KeyError(words)
        case ("busy",):  # says all the time that it goes on
            while True:
                progress.tell(0.1)
        case ("parts", number):
            for part in range(number):
                progress.tell(part / number)
                yield part
    yield job, os.getpid()


def fail_to_prepare() -> None:
    raise ImageError("no weights")


class Doer:
    """A worker that does what it is told, in the thread that asks."""

    def __init__(self, do: Callable[[Any], Iterable[Any]]) -> None:
        """do: as of `ProcessWorker`."""
        self.do, self.jobs, self.closed = do, list[Any](), False

    def call(
        self,
        job: Any,
        take: Callable[[Any], None],
        tell: Callable[[float], None],
        cancelled: threading.Event,
    ) -> None:
        self.jobs.append(job)
        with progress.send_to(tell):
            for found in self.do(job):
                take(found)

    def close(self) -> None:
        self.closed = True


def make_doers(do: Callable[[Any], Iterable[Any]]) -> dict[JobKind, Doer]:
    """A worker for each kind of job."""
    return {kind: Doer(do) for kind in get_args(JobKind)}
