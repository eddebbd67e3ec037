"""The process that does the jobs: what it answers, and that it is there again after each end."""

import os
import threading
from collections.abc import Iterator

import pytest

from helpers.worker_jobs import do
from overpaint.app.worker import JobError, ProcessWorker
from overpaint.errors import ImageError, InputError


@pytest.fixture
def worker() -> Iterator[ProcessWorker]:
    made = ProcessWorker(do, seconds=60)
    yield made
    made.close()


def test_jobs_are_done_in_one_other_process(worker: ProcessWorker) -> None:
    (first, one), (second, other) = worker.call("a"), worker.call(b"b" * 5_000_000)
    assert (first, len(second)) == ("a", 5_000_000)
    assert one == other != os.getpid()


def test_errors_of_the_input_come_back_and_others_by_their_kind(worker: ProcessWorker) -> None:
    with pytest.raises(ImageError, match="no photo"):
        worker.call(("refuse", "no photo"))
    with pytest.raises(InputError, match="not enough memory"):
        worker.call(("fill memory",))
    with pytest.raises(RuntimeError, match="KeyError: 'x'"):
        worker.call(("fail", "x"))
    assert worker.call(1)[0] == 1


def test_a_crash_ends_the_job_and_not_the_worker(worker: ProcessWorker) -> None:
    before = worker.call(1)[1]
    with pytest.raises(JobError, match="ended its process"):
        worker.call(("crash",))
    answer, after = worker.call(2)
    assert answer == 2
    assert after != before


def test_a_job_that_takes_too_long_is_ended(worker: ProcessWorker) -> None:
    worker.call(1)  # the process has started
    worker._seconds = 0.5
    with pytest.raises(JobError, match=r"took longer than 0\.5 s"):
        worker.call(("sleep", 60))
    worker._seconds = 60
    assert worker.call(2)[0] == 2


def test_many_threads_get_their_own_answers(worker: ProcessWorker) -> None:
    found: dict[int, int] = {}

    def ask(number: int) -> None:
        found[number] = worker.call(number)[0]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: i for i in range(20)}
