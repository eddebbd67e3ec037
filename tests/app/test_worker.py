"""The process that does the jobs: what it answers, and that it is there again after each end."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.worker_jobs import do, fail_to_prepare
from overpaint.app.worker import JobError, ProcessWorker


class Asked:
    """What a job gave."""

    def __init__(self) -> None:
        self.parts, self.shares = list[Any](), list[float]()
        self.cancelled = threading.Event()

    def of(self, worker: ProcessWorker, job: Any) -> "Asked":
        worker.call(job, self.parts.append, self.shares.append, self.cancelled)
        return self


@pytest.fixture
def worker() -> Iterator[ProcessWorker]:
    made = ProcessWorker(do, seconds=60)
    yield made
    made.close()


def ask(worker: ProcessWorker, job: Any) -> Any:
    return Asked().of(worker, job).parts[-1]


def error(worker: ProcessWorker, job: Any) -> tuple[str, str]:
    with pytest.raises(JobError) as caught:
        ask(worker, job)
    return caught.value.kind, str(caught.value)


def test_jobs_are_done_in_one_other_process(worker: ProcessWorker) -> None:
    worker.start()
    (first, one), (second, other) = ask(worker, "a"), ask(worker, b"b" * 5_000_000)
    assert (first, len(second)) == ("a", 5_000_000)
    assert one == other != os.getpid()
    if sys.platform == "linux":
        assert Path(f"/proc/{one}/oom_score_adj").read_text().strip() == "500"


def test_parts_and_progress_come_as_they_are_there(worker: ProcessWorker) -> None:
    asked = Asked().of(worker, ("parts", 4))
    assert asked.parts[:4] == [0, 1, 2, 3]
    assert asked.shares == [0, 0.25, 0.5, 0.75]


def test_errors_of_the_input_come_back_and_others_by_their_kind(worker: ProcessWorker) -> None:
    assert error(worker, ("refuse", "no photo")) == ("refused", "no photo")
    assert error(worker, ("too large", "many pixels")) == ("too large", "many pixels")
    kind, said = error(worker, ("fill memory",))
    assert (kind, said.split(";")[0]) == ("too large", "not enough memory for this photo")
    assert error(worker, ("fail", "x")) == ("failed", "KeyError: 'x'")
    assert ask(worker, 1)[0] == 1


def test_a_crash_ends_the_job_and_not_the_worker(worker: ProcessWorker) -> None:
    before = ask(worker, 1)[1]
    kind, said = error(worker, ("crash",))
    assert kind == "ended"
    assert "ended its process; give another photo" in said
    answer, after = ask(worker, 2)
    assert answer == 2
    assert after != before


@pytest.mark.slow
def test_a_job_that_takes_too_long_is_ended(worker: ProcessWorker) -> None:
    ask(worker, 1)  # the process has started
    worker._seconds = 0.5
    for job in (("sleep", 60), ("busy",)):
        kind, said = error(worker, job)
        assert kind == "ended"
        assert "took longer than 0.5 s" in said
        worker._seconds = 60
        assert ask(worker, 2)[0] == 2
        worker._seconds = 0.5


@pytest.mark.parametrize("job", [("sleep", 60), ("busy",)])
def test_a_job_that_is_cancelled_ends_at_once(worker: ProcessWorker, job: Any) -> None:
    before, asked = ask(worker, 1)[1], Asked()
    timer = threading.Timer(0.3, asked.cancelled.set)
    timer.start()
    started = time.monotonic()
    with pytest.raises(JobError) as caught:
        asked.of(worker, job)
    assert caught.value.kind == "cancelled"
    assert time.monotonic() - started < 5
    assert not Path(f"/proc/{before}").exists()
    assert ask(worker, 2)[0] == 2


def test_what_cannot_be_prepared_does_not_stop_the_jobs() -> None:
    worker = ProcessWorker(do, seconds=60, prepare=fail_to_prepare)
    try:
        assert ask(worker, 1)[0] == 1
    finally:
        worker.close()


def test_many_threads_get_their_own_answers(worker: ProcessWorker) -> None:
    found: dict[int, int] = {}

    def one(number: int) -> None:
        found[number] = ask(worker, number)[0]

    threads = [threading.Thread(target=one, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: i for i in range(20)}
