"""`overpaint detect`: find inpainted regions in photos, write what was found, say it in words.

Exit codes: 0 every photo was examined, by every detector; 1 some could not be, or weights without a
proper record were left out of `all`; 2 the command was used wrongly, or a model could not be
loaded. What was found in a photo does not change the exit code.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint.cli.problems import Problems
from overpaint.defaults import DEFAULT_DETECTOR
from overpaint.devices import DEVICE_HELP, MEMORY_HELP, RUNTIME_HELP, RuntimeName
from overpaint.terminal import make_printable, make_progress_bar, say, say_json, show

if TYPE_CHECKING:
    from overpaint.detection.report import Runner, Writer

Record = dict[str, Any]


Paths = Annotated[
    list[str],
    typer.Argument(metavar="PATH", help="Photos, folders (searched to the bottom), globs."),
]
Out = Annotated[
    Path, typer.Option("--out", help="Folder for heatmaps, masks, overlays and records.")
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="Name (see `overpaint models`) or weights file; repeatable, and `all` for every "
        f"detector with weights here: several are fused. Default: {DEFAULT_DETECTOR}.",
    ),
]
Folders = Annotated[
    list[Path] | None,
    typer.Option(
        "--weights-dir",
        help="Folder of more weights, for names and `all`; repeatable.",
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        help="Probability 0..1 from which a pixel counts as inpainted. Default: the calibrated "
        "one, at which 1 % of untouched photos raise a false alarm; of several detectors 0.5 "
        "on the fused heatmap, and without calibration 0.5.",
    ),
]
Device = Annotated[str, typer.Option("--device", help=DEVICE_HELP)]
Runtime = Annotated[RuntimeName, typer.Option("--runtime", help=RUNTIME_HELP)]
Memory = Annotated[float | None, typer.Option("--memory", min=0, help=MEMORY_HELP)]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")]


def detect(
    paths: Paths,
    out: Out = Path("overpaint-results"),
    models: Models = None,
    folders: Folders = None,
    threshold: Threshold = None,
    device: Device = "cpu",
    runtime: Runtime = "torch",
    memory: Memory = None,
    as_json: AsJson = False,
) -> None:
    """Find regions that an inpainting network filled in.

    Writes NAME.heatmap.png (16 bit), NAME.mask.png, NAME.overlay.png and NAME.json for each photo
    to --out; photos of one name get 8 digits from their path's hash. Inputs are never written over;
    results of an earlier run are. Photos are never scaled.

    With several detectors these are of their mean: each is calibrated so that 0.5 is its own
    default threshold, and those without calibration are left out. NAME.disagreement.png (16 bit)
    is the standard deviation of the same, and NAME.json has each detector's own record.

    Exit code 0: all examined. 1: some photos, or some weights of `all`, failed, the rest is done.
    2: wrong use. A photo without a trace is not shown to be authentic.
    """
    from overpaint.data.finding import find_photos
    from overpaint.detection.api import make_runner
    from overpaint.detection.report import Writer, make_failure
    from overpaint.errors import OverpaintError

    if threshold is not None and not 0 <= threshold <= 1:
        raise typer.BadParameter("give a probability from 0 to 1", param_hint="--threshold")
    left_out = Problems()
    try:
        runner = make_runner(
            models or [DEFAULT_DETECTOR],
            threshold=threshold,
            folders=folders or (),
            device=device,
            runtime=runtime,
            memory=memory if memory is None else memory * 1e9,
            problem=left_out,
        )
        search = find_photos(paths)
        writer = Writer(out, search.photos)
    except OverpaintError as error:
        say(f"overpaint detect: {error}", err=True)
        raise typer.Exit(2) from error
    if search.words:
        say(search.words, err=True)
    records = [
        writer.replace_earlier(Path(path), make_failure(path, runner, str(error)))
        for path, error in search.problems
    ]
    if as_json:
        for record in records:
            say_json(record)
    for record in _examine(search.photos, runner, writer):
        records.append(record)
        if as_json:
            say_json(record)
    if not as_json:
        _print_table(records, out)
    _exit(records, left_out.num)


def _exit(records: list[Record], num_left_out: int) -> None:
    """Say what could not be examined, and how many detectors were left out of "all"; exit code 1
    if there is any."""
    failed = sum("error" in record for record in records)
    if failed:
        say(f"{failed} of {len(records)} could not be examined", err=True)
    in_part = sum(any("error" in d for d in record.get("detectors", ())) for record in records)
    if in_part:
        say(f"{in_part} of {len(records)} not by every detector", err=True)
    if num_left_out:
        say(f"{num_left_out} of the weights here could not be used", err=True)
    if failed or in_part or num_left_out:
        raise typer.Exit(1)


def _examine(photos: list[Path], runner: "Runner", writer: "Writer") -> Iterator[Record]:
    """The records, with a progress bar on stderr where that is a terminal."""
    from overpaint.detection.report import detect_files

    with make_progress_bar() as bar:
        yield from bar.track(detect_files(photos, runner, writer), len(photos), description="")


def _print_table(records: list[Record], out: Path) -> None:
    """What was found, with its notes, then at which threshold, then what it does not mean.

    A note of several photos is printed once, below the table, under a number.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from overpaint.detection.report import CAVEAT

    fused = any("detectors" in record for record in records)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("photo", overflow="fold")
    if fused:
        table.add_column("detector", overflow="fold")
    table.add_column("found", overflow="fold")
    table.add_column("score", justify="right")
    shared = _find_shared_notes(records)
    numbers = {note: number for number, note in enumerate(shared, start=1)}
    for record in records:
        photo = record["file"]
        for row in (*record.get("detectors", ()), record):
            names = (photo, row["model"]) if fused else (photo,)
            words = row.get("words") or f"could not be examined: {row['error']}"
            notes = _list_notes(row, record)
            words = [words, *(f"note: {note}" for note in notes if note not in shared)]
            if below := [str(numbers[note]) for note in notes if note in shared]:
                words.append(f"note{'s' * (len(below) > 1)} below: {', '.join(below)}")
            # `Text`, because square brackets in a name are not markup.
            cells = (*map(make_printable, names), "\n".join(map(make_printable, words)))
            table.add_row(*map(Text, cells), _format_score(row))
            photo = ""  # once for all its detectors
    show(table)
    say(*(f"note {numbers[note]} ({num} photos): {note}" for note, num in shared.items()))
    examined = [record for record in records if "error" not in record]
    say(*dict.fromkeys(line for record in examined for line in _make_footer(record)))
    if examined:
        say(f"Heatmaps, masks, overlays and records: {out}")
    say(CAVEAT)


def _list_notes(row: Record, record: Record) -> list[str]:
    """The notes of a row of the table; those on the photo are in the row of its record alone."""
    of_photo = record.get("notes", ())
    return [note for note in row.get("notes", ()) if row is record or note not in of_photo]


def _find_shared_notes(records: list[Record]) -> dict[str, int]:
    """Notes of several photos, which are printed once, and the number of photos."""
    count: Counter[str] = Counter()
    for record in records:
        rows = (*record.get("detectors", ()), record)
        count.update(dict.fromkeys(note for row in rows for note in row.get("notes", ())).keys())
    return {note: num for note, num in count.items() if num > 1}


def _format_score(record: Record) -> str:
    if "error" in record:
        return "-"
    return f"{record['score']:.2f}{'' if record['calibrated'] else '*'}"


def _make_footer(record: Record) -> Iterator[str]:
    """What the figures of a photo's rows mean."""
    rows = [row for row in record.get("detectors", ()) if "error" not in row]
    for row in rows:
        yield f"{row['model']}: {row['threshold_words']}"
    if rows:
        yield record["fusion"]
    yield record["threshold_words"]
    if not all(row["calibrated"] for row in (*rows, record)):
        yield "* uncalibrated: the value that 1 % of the heatmap exceeds, no probability"
