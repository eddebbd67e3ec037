"""`overpaint forge`: photos filled in by an inpainter, as a test set for detectors.

Exit codes: 0 all samples are there; 1 some photos could not be used, the rest is done; 2 the
command was used wrongly. Stopped by an error: 1 as well, with the remedy.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from overpaint.devices import DEVICE_HELP
from overpaint.terminal import make_progress_bar, say

Photos = Annotated[
    list[str],
    typer.Argument(
        metavar="PHOTOS", help="Folders, globs, lists, archives, or sets by name: places2:ROOT."
    ),
]
Inpainter = Annotated[
    str,
    typer.Option("--inpainter", help="Inpainter: name (see `overpaint models`) or weights file."),
]
Masks = Annotated[
    list[str],
    typer.Option(
        "--masks",
        help="Kind of masks: brush, free-form, lama-thin, lama-medium, lama-thick, boxes, "
        "objects:FOLDER (white = filled in) or keep:FOLDER (white = untouched); repeatable, drawn "
        "alike.",
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Folder for pictures, masks and manifest.")]
Num = Annotated[
    int | None, typer.Option("--num", min=1, help="Number of samples. Default: one for each photo.")
]
Size = Annotated[
    int, typer.Option("--size", min=0, help="Side of the pieces, pixels; 0 = whole photos.")
]
Part = Annotated[
    Literal["train", "validation", "test"] | None,
    typer.Option("--part", help="Part of the photos, as training splits them. Default: all."),
]
Assets = Annotated[
    Path, typer.Option("--assets", help="Folder below which objects: and keep: lie.")
]
Workers = Annotated[
    int, typer.Option("--workers", min=0, help="Number of worker processes; 0: none.")
]


def forge(
    photos: Photos,
    inpainter: Inpainter,
    masks: Masks,
    out: Out,
    num: Num = None,
    part: Part = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of every random draw.")] = 0,
    size: Size = 256,
    assets: Assets = Path(),
    workers: Workers = 0,
    device: Annotated[str, typer.Option("--device", help=DEVICE_HELP)] = "cpu",
) -> None:
    """Make a test set: photos, masks, and the photos filled in where the masks are white.

    Fills DIR/originals, DIR/masks, DIR/inpainted (marked as edited), DIR/manifest.jsonl, which is
    the receipt of every picture, and DIR/about.json. Nothing is scaled. The same command goes on
    where it was stopped, and a larger --num adds samples; another recipe is refused. The same
    seed gives the same bytes whatever the number of workers.
    """
    from overpaint.data.photo_sets import collect_photos, find_parts
    from overpaint.evaluation import forge as library

    for path in map(Path, photos):
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise typer.BadParameter(f"{out} lies among the photos", param_hint="--out")
    source = collect_photos(photos, part)
    if source.passed_over:
        say(source.passed_over, err=True)
    with make_progress_bar() as bar:
        task = bar.add_task("", total=None)
        done = library.forge(
            out,
            source,
            inpainter,
            masks,
            num=num,
            seed=seed,
            size=size,
            assets=assets,
            workers=workers,
            device=device,
            part_of=find_parts(photos).get,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    say(f"{len(done.rows)} samples in {out}, filled in by {inpainter}, marked as edited")
    _report([*source.problems, *done.problems])


def _report(problems: Sequence[str]) -> None:
    """Tell of what could not be found or used; ends with exit code 1 when there are any."""
    for problem in problems:
        say(problem, err=True)
    if problems:
        say(f"{len(problems)} could not be used", err=True)
        raise typer.Exit(1)
