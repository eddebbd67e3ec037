"""`overpaint scan`: many photos into one table, and what is read from it.

Exit codes: 0 every photo was examined; 1 some could not be; 2 the command was used wrongly, or the
model or the results could not be used; 130 and 143 after Ctrl-C and SIGTERM. What was found in a
photo does not change the exit code.
"""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from overpaint.defaults import DEFAULT_DETECTOR
from overpaint.devices import DEVICE_HELP, MEMORY_HELP, RUNTIME_HELP, RuntimeName
from overpaint.errors import OverpaintError
from overpaint.terminal import make_printable, make_progress_bar, say, say_json, show

if TYPE_CHECKING:
    from overpaint.scan.scanning import Progress

MAX_TABLE = 1000
"""Rows of an answer that are shown as a table."""

_EVERY = 60  # seconds between lines about the progress where there is no terminal


class _PhotosByDefault(TyperGroup):
    """A group whose first argument, where it is no command, is a source of photos."""

    default = "photos"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = [self.default, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    help="Many photos into one table of Parquet shards: `overpaint scan SOURCE… -o RESULTS`, which "
    "is short for `overpaint scan photos`. A source named as a command is written ./query.",
    cls=_PhotosByDefault,
    no_args_is_help=True,
)

Folder = Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder that a scan wrote.")]


@app.command()
def photos(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Photos, folders, globs, .txt lists, .zip and .tar archives, s3:// and other "
            "addresses of fsspec.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")],
    model: Annotated[
        str, typer.Option("--model", help="Name (see `overpaint models`) or weights file.")
    ] = DEFAULT_DETECTOR,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            min=0,
            max=1,
            help="Probability 0..1 from which a pixel counts as inpainted. Default: calibrated.",
        ),
    ] = None,
    runtime: Annotated[RuntimeName, typer.Option("--runtime", help=RUNTIME_HELP)] = "torch",
    device: Annotated[str, typer.Option("--device", help=DEVICE_HELP)] = "cpu",
    memory: Annotated[float | None, typer.Option("--memory", min=0, help=MEMORY_HELP)] = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            "--engine",
            help="Where processes run: local, or the Ray cluster that RAY_ADDRESS names (extra "
            "`ray`).",
        ),
    ] = "local",
    gpus: Annotated[
        float | None,
        typer.Option(
            "--gpus", min=0, help="GPUs that Ray reserves for each network, or a share of one."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            help="Number of network processes. Default: one for each processor, as memory allows.",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", min=1, help="Threads of each. Default: processors divided evenly."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Number of photos at most in this run.")
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample",
            min=1,
            help="Number of photos, chosen by hashes of their paths: the same in every run over "
            "the same photos.",
        ),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option("--since", help="Date or time: photos that were changed then or later."),
    ] = None,
    by_content: Annotated[
        bool,
        typer.Option(
            "--by-content",
            help="Resumption by SHA-256: every file is read, also where size and time of change "
            "are those of the earlier run.",
        ),
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Another attempt at photos that failed before.")
    ] = False,
) -> None:
    """Examine photos and keep one row of each.

    The same command, given again, continues where it ended, also after a crash. Identical files are
    examined once. SIGTERM and Ctrl-C finish the photos in work; given twice, they end at once.
    """
    from overpaint.scan.detector import DetectorSettings
    from overpaint.scan.local_engine import LocalEngine
    from overpaint.scan.ray_engine import RayEngine
    from overpaint.scan.scanning import scan

    if gpus is not None and engine != "ray":
        raise typer.BadParameter("it is for --engine ray", param_hint="--gpus")
    detector = DetectorSettings(
        model,
        threshold=threshold,
        runtime=runtime,
        device=device,
        memory=memory if memory is None else memory * 1e9,
    )
    if engine == "ray":
        used = RayEngine(detector, networks=workers, threads=threads, gpus=gpus)
    else:
        used = LocalEngine(detector, networks=workers, threads=threads)
    say(used.words, err=True)
    try:
        with _show_progress() as report:
            done = scan(
                sources,
                out,
                used,
                limit=limit,
                sample=sample,
                since=since,
                by_content=by_content,
                retry=retry,
                report=report,
                note=lambda text: say(text, err=True),
            )
    except OverpaintError as error:
        say(f"overpaint scan: {error}", err=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        say("stopped at once; the same command goes on from there", err=True)
        raise typer.Exit(130) from None
    _say_end(done, out)
    if done.interrupted is not None:
        raise typer.Exit(128 + done.interrupted)
    if done.failed:
        raise typer.Exit(1)


def _say_end(done: Progress, out: Path) -> None:
    from overpaint.scan.scanning import format_duration

    for band, num in done.bands.most_common():
        say(f"{num:>9}  {band}")
    say(f"{done.done} photos in {format_duration(done.seconds)}, {done.rate:.2f} photos/s: {out}")
    if done.before:
        say(f"{done.before} were done before")
    if done.old:
        say(f"{done.old} were not changed since then")
    say("a photo without a trace is not shown to be authentic")
    if done.interrupted is not None:
        left = f"{done.total - done.done} are left; the same command goes on from there"
        say(f"stopped by signal {done.interrupted}: {left}", err=True)


@contextlib.contextmanager
def _show_progress() -> Iterator[Callable[[Progress], None]]:
    """A progress bar on a terminal; elsewhere a line from time to time."""
    from rich.progress import BarColumn, TextColumn

    with make_progress_bar(BarColumn(), TextColumn("{task.fields[words]}")) as bar:
        task = bar.add_task("", total=None, words="looking for photos, loading the model")
        said = time.monotonic()

        def report(done: Progress) -> None:
            nonlocal said
            bar.update(task, total=done.total, completed=done.done, words=done.words)
            if bar.disable and time.monotonic() - said > _EVERY:
                said = time.monotonic()
                say(done.words, err=True)

        yield report


@app.command()
def summary(
    results: Folder,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Counts of verdicts, failures and identical files, and the models of the rows."""
    from dataclasses import asdict

    from overpaint.scan.reading import summarise

    with _catch_errors():
        found = summarise(results)
    if as_json:
        say_json(asdict(found))
        return
    same = found.photos - found.num_errors - found.looked_at
    say(f"{found.photos} photos, {found.looked_at} examined, {same} identical to one of these")
    for band, num in found.bands.items():
        say(f"{num:>9}  {band}")
    if found.num_errors:
        say(f"{found.num_errors:>9}  could not be examined:")
    for reason, num in found.errors.items():
        say(f"{num:>15}  {reason}")
    say(f"{found.megapixels:.1f} megapixels, {found.seconds:.1f} s in the detector")
    for name, values in found.made_with.items():
        say(f"{name}: {', '.join(values) or '-'}")


@app.command()
def query(
    results: Folder,
    sql: Annotated[
        str,
        typer.Argument(
            metavar="SQL",
            help="SELECT of DuckDB on `photos`, the newest row of each, or `rows`, all of them.",
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line; bytes in base64.")
    ] = False,
) -> None:
    """Answer to an SQL query on the results, for instance
    "SELECT path, score FROM photos ORDER BY score DESC LIMIT 20"."""
    from overpaint.scan.reading import run_query

    with _catch_errors():
        answer = run_query(results, sql)
        if as_json:
            for row in answer.rows:
                say_json(dict(zip(answer.columns, map(_to_json_value, row), strict=True)))
        else:
            _show(answer.columns, answer.rows)


def _show(columns: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    from itertools import islice

    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for name in columns:
        table.add_column(Text(make_printable(name)), overflow="fold")
    for row in islice(rows, MAX_TABLE):
        table.add_row(*(Text(make_printable(_shorten(value))) for value in row))
    show(table)
    if next(rows, None) is not None:
        say(f"more than {MAX_TABLE} rows; --json gives all", err=True)


def _shorten(value: Any) -> str:
    if value is None:
        return "-"
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)


def _to_json_value(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(key): _to_json_value(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json_value(one) for one in value]
    if isinstance(value, float) and value - value != 0:  # JSON has neither NaN nor infinity
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


@app.command()
def gallery(
    results: Folder,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file.")] = Path("hits.html"),
    top: Annotated[int, typer.Option("--top", min=1, help="Number of photos at most.")] = 200,
    least: Annotated[
        float, typer.Option("--least", min=0, max=1, help="Lowest score on the page.")
    ] = 0.0,
) -> None:
    """One HTML page of the highest scores, with small heatmaps and filters."""
    from overpaint.scan.gallery import write_gallery

    with _catch_errors():
        num = write_gallery(results, out, top=top, least=least)
    say(f"{num} photos: {out}")


@contextlib.contextmanager
def _catch_errors() -> Iterator[None]:
    try:
        yield
    except OverpaintError as error:
        say(f"overpaint scan: {error}", err=True)
        raise typer.Exit(2) from error
