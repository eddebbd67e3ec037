"""What a run writes while it goes: a JSONL file, TensorBoard events, a progress bar.

A run that resumes first deletes the rows after its checkpoint, so that every step has one row,
however often the run was interrupted.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from torch import Tensor

from overpaint import atomic
from overpaint.errors import TrainingError
from overpaint.terminal import make_console, make_progress_bar, say


class RunLog:
    """`log.jsonl` and TensorBoard events in a run's folder; silent in all but the main process."""

    def __init__(self, out: Path, step: int, *, enabled: bool = True) -> None:
        """step: where the run begins or resumes; the rows after it are deleted."""
        self.out, self.step, self.enabled = out, step, enabled
        self.console = make_console(err=True, quiet=not enabled)
        self.writer: Any = None

    def __enter__(self) -> "RunLog":
        if self.enabled:
            try:
                self.out.mkdir(parents=True, exist_ok=True)
                _trim(self.out / "log.jsonl", self.step)
                self.file = (self.out / "log.jsonl").open("a", encoding="utf-8")
            except OSError as error:
                raise TrainingError(
                    f"{self.out}: cannot be written ({error.strerror}); choose another --out"
                ) from error
            self.writer = _open_tensorboard(self.out, self.step)
        return self

    def __exit__(self, *_: object) -> None:
        if self.enabled:
            self.file.close()
        if self.writer is not None:
            self.writer.close()

    def say(self, text: str) -> None:
        say(text, above=self.console)

    def add_scalars(self, step: int, values: dict[str, float], *, show: bool = False) -> None:
        """One row; a value that is not finite becomes null, as JSON has no NaN."""
        if not self.enabled:
            return
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        row = {"step": step, "time": round(time.time(), 1), **finite}
        self.file.write(json.dumps(row, allow_nan=False) + "\n")
        self.file.flush()
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)
        if show:
            self.say(f"step {step}: " + ", ".join(f"{k} {v:.4g}" for k, v in values.items()))

    def add_pictures(self, step: int, pictures: dict[str, Tensor]) -> None:
        if self.writer is not None:
            for name, picture in pictures.items():
                self.writer.add_image(name, picture.float().cpu().clamp(0, 1), step)

    @contextmanager
    def show_progress(self, total: int) -> Iterator[Callable[[dict[str, float], int], None]]:
        """A bar with images/s, time left and losses; yields the function to call after a step."""
        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.0f} images/s"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
        )
        started, seen = time.perf_counter(), 0
        with make_progress_bar(*columns, screen=self.console) as bar:
            task = bar.add_task("training", total=total, completed=self.step, rate=0.0, losses="")

            def advance(losses: dict[str, float], num_images: int) -> None:
                nonlocal seen
                seen += num_images
                rate = seen / (time.perf_counter() - started)
                text = " ".join(f"{k} {v:.3g}" for k, v in losses.items())
                bar.update(task, advance=1, rate=rate, losses=text)

            yield advance


def _trim(path: Path, step: int) -> None:
    """Leave out the rows after `step`, and a last line that a crash cut short."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    if kept != lines:
        atomic.write(path, "".join(kept).encode(), TrainingError)


def _open_tensorboard(out: Path, step: int) -> Any:
    """A TensorBoard writer that hides events after `step`, or None without the `train` extra."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)
