"""The job table: order, progress, cancelling, and how long results are kept."""

import asyncio
import io
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from helpers.worker_jobs import Doer
from overpaint import progress
from overpaint.app.files import JobFiles
from overpaint.app.guard import Limits
from overpaint.app.table import Found, FoundFile, Job, QueueFullError, Table
from overpaint.app.worker import JobError


class Gate:
    """Work that waits until it is let through, and notices when it is cancelled."""

    def __init__(self) -> None:
        self.open, self.running = threading.Event(), threading.Semaphore(0)

    def __call__(self, job: Any) -> Iterator[Found]:
        self.running.release()
        progress.tell(0.5)
        assert self.open.wait(60)
        file = FoundFile("x.txt", job, "text/plain", "shown.txt")
        yield Found({"said": job.decode()}, (file,))


class Cancellable(Doer):
    """A worker whose job ends when it is cancelled, as that of a process does."""

    def call(self, job: Any, take: Any, tell: Any, cancelled: threading.Event) -> None:
        if job == b"endless":
            tell(0.1)
            assert cancelled.wait(60)
            raise JobError("cancelled", "the job was cancelled")
        super().call(job, take, tell, cancelled)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Here:
    """A table with one kind of job, and what belongs to it."""

    def __init__(self, **limits: Any) -> None:
        self.gate, self.clock = Gate(), Clock()
        self.doer = Cancellable(self.gate)
        self.table = Table({"detect": self.doer}, Limits(**limits), self.clock)

    def submit(self, data: bytes = b"a photo") -> Job:
        uploads = JobFiles()
        uploads.add("photo", io.BytesIO(data))
        return self.table.submit("detect", uploads, lambda kept: kept.read("photo"))

    def wait(self, job: Job) -> Job:
        """Until it is over."""
        for _ in range(6000):
            if job.is_over:
                return job
            time.sleep(0.01)
        raise AssertionError("the job did not end")

    def done(self, data: bytes = b"a photo") -> Job:
        self.gate.open.set()
        return self.wait(self.submit(data))


@pytest.fixture
def here() -> Iterator[Here]:
    made = Here()
    yield made
    made.gate.open.set()
    made.table.close()


def test_a_job_is_done_and_its_uploads_are_given_up(here: Here) -> None:
    job = here.done()
    assert (job.state, job.share, job.error) == ("done", 1, None)
    assert job.result == {"said": "a photo"}
    assert job.files is not None
    assert job.files.read("x.txt") == b"a photo"
    assert job.uploads.entries == {}
    assert here.table.get(job.id) is job
    assert len(job.id) >= 22


def test_one_after_the_other_and_how_many_are_ahead(here: Here) -> None:
    jobs = [here.submit(str(number).encode()) for number in range(3)]
    assert here.gate.running.acquire(timeout=60)
    assert [here.table.count_ahead(job) for job in jobs] == [0, 1, 2]
    assert [job.state for job in jobs] == ["running", "queued", "queued"]
    assert jobs[0].share == 0.5
    here.gate.open.set()
    assert here.wait(jobs[2]).state == "done"
    assert here.doer.jobs == [b"0", b"1", b"2"]


def test_a_waiting_job_that_is_deleted_is_never_begun(here: Here) -> None:
    first, second, third = (here.submit(str(number).encode()) for number in range(3))
    assert here.gate.running.acquire(timeout=60)
    here.table.delete(second)
    assert (second.state, here.table.get(second.id)) == ("cancelled", None)
    assert second.error is not None
    assert second.error[0] == "cancelled"
    assert second.uploads.entries == {}
    assert here.table.count_ahead(third) == 1
    here.gate.open.set()
    here.wait(third)
    assert here.doer.jobs == [b"0", b"2"]
    assert first.state == "done"


def test_a_running_job_that_is_deleted_ends(here: Here) -> None:
    job, after = here.submit(b"endless"), here.submit(b"next")
    while job.share == 0:
        time.sleep(0.01)
    here.gate.open.set()
    here.table.delete(job)
    assert here.wait(job).state == "cancelled"
    assert (job.files and job.files.entries, here.table.get(job.id)) == ({}, None)
    assert here.wait(after).state == "done"


def test_a_finished_job_that_is_deleted_has_no_files(here: Here) -> None:
    job = here.done()
    here.table.delete(job)
    assert here.table.get(job.id) is None
    assert job.files is not None
    assert job.files.entries == {}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (JobError("refused", "no photo"), "refused"),
        (JobError("failed", "KeyError: 1"), "failed"),
        (OSError("the disk is full"), "failed"),
    ],
)
def test_a_job_that_fails_leaves_nothing_but_its_reason(
    here: Here, error: Exception, kind: str
) -> None:
    def fail(job: Any) -> Iterator[Found]:
        yield Found({"half": True}, (FoundFile("x", b"x", "", ""),))
        raise error

    here.doer.do = fail
    job = here.done()
    assert (job.state, job.result) == ("failed", None)
    assert job.error is not None
    assert job.error[0] == kind
    assert job.files is not None
    assert job.files.entries == {}
    here.doer.do = here.gate
    assert here.done().state == "done"


def test_no_more_wait_than_may() -> None:
    here = Here(max_queued=2)
    jobs = [here.submit()]
    assert here.gate.running.acquire(timeout=60)
    jobs += [here.submit(), here.submit()]
    uploads = JobFiles()
    with pytest.raises(QueueFullError):
        here.table.submit("detect", uploads, bytes)
    assert uploads._file.closed
    here.gate.open.set()
    assert [here.wait(job).state for job in jobs] == ["done"] * 3
    assert here.done().state == "done"
    here.table.close()


def test_results_are_forgotten_after_their_time() -> None:
    here = Here(keep_seconds=100)
    old = here.done()
    here.clock.now = 60
    new = here.done()
    here.clock.now = 99
    here.table.sweep()
    assert here.table.get(old.id) is old
    here.clock.now = 100
    here.table.sweep()
    assert (here.table.get(old.id), here.table.get(new.id)) == (None, new)
    assert old.files is not None
    assert old.files.entries == {}
    here.table.close()


def test_the_oldest_results_go_when_all_take_too_much() -> None:
    here = Here(keep_bytes=2500)
    jobs = []
    for number in range(4):
        here.clock.now = number
        jobs.append(here.done(str(number).encode() * 1000))
    here.table.sweep()
    assert [here.table.get(job.id) is job for job in jobs] == [False, False, True, True]
    large = here.done(b"x" * 5000)  # larger than all may be together: who asked still gets it
    here.table.sweep()
    assert here.table.get(large.id) is large
    assert here.table.get(jobs[3].id) is None
    here.table.close()


def test_the_oldest_results_go_when_there_are_too_many() -> None:
    here = Here(keep_jobs=2)
    jobs = []
    for number in range(4):
        here.clock.now = number
        jobs.append(here.done())
    here.table.sweep()
    assert [here.table.get(job.id) is job for job in jobs] == [False, False, True, True]
    here.table.close()


def test_a_job_for_which_no_file_can_be_opened_fails_and_the_next_one_is_done(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> JobFiles:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr("overpaint.app.table.JobFiles", fail)
        failed = here.wait(here.submit())
    assert (failed.state, failed.error) == ("failed", ("failed", ""))
    assert here.done().state == "done"


def test_who_watches_hears_every_change_and_the_end(here: Here) -> None:
    async def watched() -> list[tuple[bool, str]]:
        job, seen = here.submit(), []
        async for changed in here.table.watch(job, every=0.05):
            seen.append((changed, job.state))
            if (False, "running") in seen:  # nothing changes while it waits
                here.gate.open.set()
        assert job.watchers == set()
        return seen

    seen = asyncio.run(watched())
    assert seen[0][0] is True
    assert seen[-1] == (True, "done")


def test_who_watches_a_finished_job_hears_so_at_once(here: Here) -> None:
    job = here.done()

    async def watched() -> list[bool]:
        return [changed async for changed in here.table.watch(job, every=60)]

    assert asyncio.run(watched()) == [True]


def test_the_end_of_the_server_ends_all() -> None:
    here = Here()
    done = here.done()
    running, waiting = here.submit(b"endless"), here.submit()
    while running.share == 0:
        time.sleep(0.01)
    here.table.close()
    assert [job.state for job in (done, running, waiting)] == ["done", "cancelled", "cancelled"]
    assert all(not (job.files and job.files.entries) for job in (done, running, waiting))
    assert here.doer.closed
    with pytest.raises(QueueFullError):
        here.submit()
