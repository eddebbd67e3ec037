"""`overpaint detect`: find inpainted regions in photos, write what was found, say it in words.

Exit codes: 0 every photo was examined; 1 some could not be; 2 the command was used wrongly, or
the model could not be loaded. What was found in a photo does not change the exit code.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from overpaint.inference.detect import DetectorRunner
    from overpaint.inference.report import Writer

Record = dict[str, Any]


def detect(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Photos, folders (searched to the bottom), globs."),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder for heatmaps, masks, overlays and records.")
    ] = Path("overpaint-results"),
    model: Annotated[
        str, typer.Option("--model", help="Shipped name (see `overpaint models`) or weights file.")
    ] = "nixnet-s",
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            help="Probability 0..1 from which a pixel counts as inpainted. Default: the calibrated "
            "one, at which 1 % of untouched photos raise a false alarm.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line instead of a table.")
    ] = False,
) -> None:
    """Find regions that an inpainting network filled in.

    Writes NAME.heatmap.png (16 bit), NAME.mask.png, NAME.overlay.png and NAME.json for each photo
    to --out; photos of one name get 8 digits from their path's hash. Inputs are never written over;
    results of an earlier run are. Photos are never scaled.

    Exit code 0: all examined. 1: some failed, the rest is done. 2: wrong use. A photo without a
    trace is not shown to be authentic.
    """
    from overpaint.errors import OverpaintError
    from overpaint.inference.detect import DetectorRunner
    from overpaint.inference.report import Writer, failure

    if threshold is not None and not 0 <= threshold <= 1:
        raise typer.BadParameter("give a probability from 0 to 1", param_hint="--threshold")
    try:
        runner = DetectorRunner(model, threshold=threshold)
        photos, problems = _find(paths)
        writer = Writer(out, photos)
    except OverpaintError as error:
        typer.echo(f"overpaint detect: {error}", err=True)
        raise typer.Exit(2) from error
    records = [failure(path, error, runner) for path, error in problems]
    if as_json:
        for record in records:
            _print_json(record)
    for record in _examine(photos, runner, writer):
        records.append(record)
        if as_json:
            _print_json(record)
    if not as_json:
        _print_table(records, out)
    failed = sum("error" in record for record in records)
    if failed:
        typer.echo(f"{failed} of {len(records)} could not be examined", err=True)
        raise typer.Exit(1)


def _find(paths: list[str]) -> tuple[list[Path], list[tuple[str, Exception]]]:
    """The photos that the arguments name, and what is wrong with the other arguments.

    Pictures that an earlier run wrote are left out, unless they are named themselves.
    """
    from overpaint.data.sources import find_images
    from overpaint.errors import ImageError

    photos: dict[Path, None] = {}
    problems: list[tuple[str, Exception]] = []
    num_skipped = 0
    for path in dict.fromkeys(paths):
        try:
            found = find_images([path])
        except (ImageError, OSError) as error:
            problems.append((path, error))
            continue
        kept = [p for p in found if str(p) == path or not _is_own_result(p)]
        num_skipped += len(found) - len(kept)
        photos.update(dict.fromkeys(kept))
    if num_skipped:
        typer.echo(f"left out {num_skipped} pictures written by an earlier run", err=True)
    return list(photos), problems


def _is_own_result(path: Path) -> bool:
    name, _, kind = path.stem.rpartition(".")
    is_picture = path.suffix == ".png" and kind in ("heatmap", "mask", "overlay")
    return is_picture and path.with_name(f"{name}.json").is_file()


def _examine(photos: list[Path], runner: "DetectorRunner", writer: "Writer") -> Iterator[Record]:
    """The records, with a progress bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeRemainingColumn

    from overpaint.inference.report import examine

    columns = (SpinnerColumn(), *Progress.get_default_columns()[:2], MofNCompleteColumn())
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,  # or records would be sent to stderr
        disable=not sys.stderr.isatty(),
    ) as progress:
        yield from progress.track(examine(photos, runner, writer), len(photos), description="")


def _print_json(record: Record) -> None:
    typer.echo(json.dumps(record, allow_nan=False))


def _print_table(records: list[Record], out: Path) -> None:
    """What was found, then at which threshold, then what it does not mean."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from overpaint.inference.report import CAVEAT

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("photo", overflow="fold")
    table.add_column("found", overflow="fold")
    table.add_column("score", justify="right")
    for record in records:
        words = record.get("words") or f"could not be examined: {record['error']}"
        score = f"{record['score']:.2f}" if "score" in record else "-"
        # `Text`, because square brackets in a name are not markup.
        table.add_row(Text(_printable(record["file"])), Text(_printable(words)), score)
    console = Console(highlight=False, markup=False)
    console.print(table)
    for line in dict.fromkeys(r["threshold_words"] for r in records if "error" not in r):
        console.print(line)
    if any("error" not in record for record in records):
        console.print(f"Heatmaps, masks, overlays and records: {_printable(str(out))}")
    console.print(CAVEAT)


def _printable(text: str) -> str:
    """File names need not be valid Unicode; stdout must be."""
    return text.encode("utf-8", "replace").decode("utf-8")
