"""Printed lines of `overpaint benchmark` and `overpaint harden`: plan, progress, outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from overpaint.terminal import make_progress_bar, say

if TYPE_CHECKING:
    from overpaint.benchmark.running import Outlook, Progress


def say_outlook(ahead: Outlook) -> None:
    """Print the missing cells and the estimated time."""
    for stage in ahead.stages:
        say(f"{stage.kind:<15} {stage.units:>6} {stage.label}")
    say(ahead.words)


@contextmanager
def show_progress(title: str) -> Iterator[Callable[[Progress], None]]:
    """A progress bar; yields the function to call with each state."""
    with make_progress_bar() as bar:
        line = bar.add_task(title, total=None)

        def show(state: Progress) -> None:
            words = f"{title}, {state.failed} failed" if state.failed else title
            finished, words = state.done + state.failed, f"{words}, {state.time_left}"
            bar.update(line, total=state.num, completed=finished, description=words)

        yield show


def say_outcome(files: list[Path], num_failed: int, num_rows: int, rows: Path) -> None:
    """Print the files; exit with 1 if rows failed. rows: the file that lists them."""
    for file in files:
        say(file)
    if num_failed:
        say(f"{num_failed} of {num_rows} rows failed, see {rows}", err=True)
        raise typer.Exit(1)
