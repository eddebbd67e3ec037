"""`overpaint report`: what a detector says of photos, with all it rests on, to print and to keep.

Exit codes: 0 every photo was examined; 1 some could not be, and the report says why; 2 the command
was used wrongly, or a model could not be loaded. What was found does not change the exit code.
"""

from pathlib import Path
from typing import Annotated

import typer

from overpaint import hashes
from overpaint.defaults import DEFAULT_DETECTOR
from overpaint.devices import RUNTIME_HELP, RuntimeName
from overpaint.terminal import make_progress_bar, say

Paths = Annotated[
    list[str],
    typer.Argument(metavar="PHOTO", help="Photos, folders (searched to the bottom), globs."),
]
Out = Annotated[
    Path, typer.Option("--out", "-o", help="Page to write, NAME.html; NAME.json comes beside it.")
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="Name (see `overpaint models`) or weights file; repeatable, and `all`. "
        f"Default: {DEFAULT_DETECTOR}.",
    ),
]
Folders = Annotated[
    list[Path] | None,
    typer.Option("--weights-dir", help="Folder of more weights, for names and `all`; repeatable."),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        help="Probability 0..1 from which a pixel counts as inpainted. "
        "Default: the calibrated one.",
    ),
]
Trust = Annotated[
    Path | None,
    typer.Option("--trust", help="Certificates (PEM) whose C2PA signers are trusted."),
]
Runtime = Annotated[RuntimeName, typer.Option("--runtime", help=RUNTIME_HELP)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replacement of an earlier report.")]


def report(
    paths: Paths,
    out: Out,
    models: Models = None,
    folders: Folders = None,
    threshold: Threshold = None,
    trust: Trust = None,
    runtime: Runtime = "torch",
    overwrite: Overwrite = False,
) -> None:
    """Write a report on photos: one HTML page without external parts, and a JSON file beside it.

    For each photo: the file and its metadata, six views, the regions at full resolution, the
    false-alarm rate of its quality band, whether the regions stay after JPEG, scaling and a shift,
    what the detector is known to miss, and how far all this supports that a part was filled in. It
    takes about five times as long as `overpaint detect`.

    Exit code 0: all examined. 1: some failed, the rest is done. 2: wrong use. A photo without a
    trace is not shown to be unedited.
    """
    from overpaint.data.finding import find_photos
    from overpaint.detection.api import make_runner
    from overpaint.errors import OverpaintError
    from overpaint.report.api import (
        check_out,
        find_json_path,
        make_chapters,
        make_command,
        make_failed_chapter,
        make_report,
        read_clock,
        write_report,
    )
    from overpaint.report.contents import Failure, Parameters

    if threshold is not None and not 0 <= threshold <= 1:
        raise typer.BadParameter("give a probability from 0 to 1", param_hint="--threshold")
    started, wanted = read_clock(), models or [DEFAULT_DETECTOR]
    anchors, trust_sha256 = _read_anchors(trust)
    try:
        search = find_photos(paths)
        check_out(out, search.photos, overwrite=overwrite)
        runner = make_runner(wanted, threshold=threshold, folders=folders or (), runtime=runtime)
    except OverpaintError as error:
        say(f"overpaint report: {error}", err=True)
        raise typer.Exit(2) from error
    if search.words:
        say(search.words, err=True)
    with make_progress_bar() as bar:
        chapters = list(
            bar.track(
                make_chapters(search.photos, runner, anchors=anchors),
                len(search.photos),
                description="",
            )
        )
    for path, error in search.problems:
        chapters.append(make_failed_chapter(len(chapters) + 1, path, str(error)))
    made = make_report(
        chapters,
        runner,
        Parameters(wanted, threshold, trust_sha256),
        command=make_command(paths, out, wanted, folders or (), threshold, trust, runtime),
        started=started,
        passed_over=[Path(path) for path in search.findings],
    )
    write_report(made, chapters, out)
    num_failed = 0
    for photo in made.photos:
        if isinstance(photo, Failure):
            num_failed += 1
            say(f"could not be examined: {photo.error}", err=True)
        else:
            say(f"{photo.file.name}: {photo.opinion.grade}; {photo.finding.verdict}")
    say(f"Report: {out}; its JSON file: {find_json_path(out)}")
    if num_failed:
        say(f"{num_failed} of {len(chapters)} could not be examined", err=True)
        raise typer.Exit(1)


def _read_anchors(trust: Path | None) -> tuple[str | None, str | None]:
    """The certificates, and the SHA-256 of their file."""
    if trust is None:
        return None, None
    try:
        data = trust.read_bytes()
        return data.decode("ascii"), hashes.sha256(data)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{trust}: {error}", param_hint="--trust") from error
