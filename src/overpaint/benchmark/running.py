"""Make the missing results of a plan, in parallel processes, with progress and the time left.

- A stage starts when all that it needs is there. If one fails, those that need it fail, and no
  others.
- Processes are started by spawn, each on one thread: the result of a stage does not depend on their
  number.
- The time left is estimated from the time of a unit (a step, a picture) of the same kind in earlier
  runs with this cache. For kinds that never ran it is unknown, and reported as unknown.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overpaint.benchmark.plan import Cell
from overpaint.benchmark.store import Stage, Store
from overpaint.benchmark.work import run_stage
from overpaint.devices import find_device
from overpaint.errors import InputError, OverpaintError
from overpaint.process import end_with_parent, keep_freed_memory
from overpaint.run_identity import find_commit
from overpaint.terminal import guard
from overpaint.training.loop import InterruptedRunError

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outlook:
    """What there is to do, and for how long."""

    stages: list[Stage]
    """Not made yet, what is needed first."""
    num_made: int
    seconds: float
    """Of one process, for the stages whose pace is known."""
    unknown: dict[str, int]
    """Kinds of stages whose pace is not known -> how many."""

    @property
    def words(self) -> str:
        left = f"{self.num_made} results are there, {len(self.stages)} to make"
        if not self.stages:
            return left
        times = []
        if self.seconds or not self.unknown:
            times.append(f"about {_format_duration(self.seconds)} of one process")
        if self.unknown:
            parts = ", ".join(f"{num} {kind}" for kind, num in self.unknown.items())
            times.append(f"an unknown time for {parts}")
        return f"{left}: {', and '.join(times)}"


def check_work(jobs: int, device: str) -> None:
    """Raise InputError for a number of processes, or a device, that cannot be had."""
    if jobs < 1:
        raise InputError(f"jobs {jobs}: give 1 or more")
    if find_device(device).type == "cuda" and jobs > 1:
        raise InputError(f"jobs {jobs}: a graphics card is used by one process; give 1")


def look_ahead(cells: Sequence[Cell], store: Store) -> Outlook:
    """What is missing of some cells."""
    everything = dict.fromkeys(stage for cell in cells for stage in cell.list_stages())
    wanted = dict.fromkeys(_list_wanted(cells, store))
    left = [stage for stage in everything if stage in wanted]
    paces = store.measure_paces()
    known = [s for s in left if s.pace in paces]
    unknown: dict[str, int] = {}
    for stage in left:
        if stage.pace not in paces and stage.kind not in ("missing", "photos"):
            unknown[stage.kind] = unknown.get(stage.kind, 0) + 1
    seconds = sum(paces[s.pace] * s.units for s in known)
    return Outlook(left, len(everything) - len(left), seconds, unknown)


def _list_wanted(cells: Sequence[Cell], store: Store) -> Iterable[Stage]:
    """The missing results, and what they need that is missing; not what only made old ones need."""
    waiting = [s for c in cells for s in (c.scores, c.originals) if s is not None]
    seen: set[Stage] = set()
    while waiting:
        stage = waiting.pop()
        if stage not in seen and store.read_about(stage) is None:
            seen.add(stage)
            yield stage
            waiting += stage.needs.values()
        seen.add(stage)


@dataclass
class Progress:
    """State of a run, for whoever shows it."""

    num: int
    done: int = 0
    failed: int = 0
    seconds_left: float = 0.0
    """Of what is left and whose pace is known."""
    is_known: bool = False
    """Whether that is all that is left."""

    @property
    def time_left(self) -> str:
        """In words."""
        left = f"{_format_duration(self.seconds_left)} left"
        return left if self.is_known else f"at least {left}"


@dataclass
class _Run:
    store: Store
    left: dict[Stage, None]
    report: Report
    on_progress: Callable[[Progress], None]
    jobs: int
    commit: str = field(default_factory=find_commit)
    errors: dict[Stage, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.progress = Progress(len(self.left))
        self.paces = self.store.measure_paces()

    def list_ready(self) -> Iterator[Stage]:
        """Those whose needs are there; they may be taken out of `left` meanwhile."""
        for stage in list(self.left):
            if stage in self.left and not any(n in self.left for n in stage.needs.values()):
                yield stage

    def start(self, stage: Stage) -> tuple[Stage, dict[str, Path], Path, str] | None:
        """What a process is told; None where the stage has failed already."""
        broken = next((n for n in stage.needs.values() if n in self.errors), None)
        error = self.errors[broken] if broken is not None else self.store.read_failure(stage)
        if error is not None:
            self.errors[stage] = error
            self.progress.failed += 1
            self._tell_progress()
            return None
        folders = {role: self.store.find_folder(s) for role, s in stage.needs.items()}
        return stage, folders, self.store.begin(stage), self.store.device

    def finish(self, stage: Stage, seconds: float, info: Mapping[str, Any] | str) -> None:
        if isinstance(info, str):
            self.errors[stage] = info
            self.store.fail(stage, info)
            self.progress.failed += 1
            lines = [f"failed: {stage.label}: {info}"]
        else:
            self.store.finish(stage, self.commit, seconds, info)
            self.progress.done += 1
            self.paces.setdefault(stage.pace, seconds / max(stage.units, 1))
            lines = [f"{stage.label}: {_format_duration(seconds)}"]
            lines += [f"{stage.label}: left out: {p}" for p in info.get("problems", ())]
        self._tell_progress()
        state = self.progress
        where = f"{state.done + state.failed} of {state.num}, {state.time_left}"
        for line in lines:
            self.report(f"[{where}] {line}")

    def _tell_progress(self) -> None:
        known = [s for s in self.left if s.pace in self.paces]
        seconds = sum(self.paces[s.pace] * s.units for s in known)
        self.progress.seconds_left = seconds / self.jobs
        self.progress.is_known = len(known) == len(self.left)
        self.on_progress(self.progress)


def run(
    cells: Sequence[Cell],
    store: Store,
    *,
    jobs: int = 1,
    report: Report = lambda _: None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> dict[Stage, str]:
    """Make what is missing; -> the errors of the stages that failed, or that need one that did.

    jobs: processes; 1 works in this one. They end with this one. Ctrl-C ends the run; what was made
    stays.
    """
    outlook = look_ahead(cells, store)
    state = _Run(store, dict.fromkeys(outlook.stages), report, on_progress, jobs)
    pool: AbstractContextManager[ProcessPoolExecutor | None] = nullcontext()
    if jobs > 1 and len(state.left) > 1:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=start_process)
    with pool as executor:
        if executor is None:
            _run_one_by_one(state)
        else:
            _run_in_parallel(state, executor)
    return state.errors


def _run_one_by_one(state: _Run) -> None:
    while state.left:
        stage = next(state.list_ready())
        told = state.start(stage)
        del state.left[stage]
        if told is not None:
            state.finish(stage, *_time_stage(*told))


def _run_in_parallel(state: _Run, pool: ProcessPoolExecutor) -> None:
    running: dict[Future[tuple[float, dict[str, Any] | str]], Stage] = {}
    started: set[Stage] = set()
    while state.left or running:
        for stage in state.list_ready():
            if stage in started or len(running) >= state.jobs:
                continue
            told = state.start(stage)
            if told is None:
                del state.left[stage]
            else:
                started.add(stage)
                running[pool.submit(_time_stage, *told)] = stage
        finished, _ = wait(running, return_when=FIRST_COMPLETED) if running else ((), ())
        for future in finished:
            stage = running.pop(future)
            del state.left[stage]
            try:
                state.finish(stage, *future.result())
            except BrokenProcessPool as error:  # killed, as a system does that is out of memory
                raise OverpaintError(
                    f"{stage.label}: its process was killed, perhaps for want of memory; run the "
                    "same command again with fewer --jobs"
                ) from error


def start_process() -> None:
    """What each process of a pool begins with."""
    guard()
    end_with_parent()
    keep_freed_memory()


def _time_stage(
    stage: Stage, folders: Mapping[str, Path], out: Path, device: str
) -> tuple[float, dict[str, Any] | str]:
    """Seconds, and what the stage found or why it failed."""
    begun = time.perf_counter()
    try:
        info: dict[str, Any] | str = run_stage(stage, folders, out, device)
    except InterruptedRunError as error:  # Ctrl-C during a training, which has saved its state
        raise KeyboardInterrupt from error
    except Exception as error:  # of any kind: hours of other stages may have no part in it
        known = isinstance(error, OverpaintError)
        info = str(error) if known else f"{type(error).__name__}: {error}"
    return time.perf_counter() - begun, info


def _format_duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
