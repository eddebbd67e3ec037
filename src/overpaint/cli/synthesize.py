"""`overpaint synthesize`: universal samples (NIX-Net, section 3.2) as files on disk.

Exit codes: 0 all photos that were drawn could be read; 1 some could not, and all samples were
made from the others. Stopped by an error: 1 as well, with the remedy.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from overpaint.terminal import make_progress_bar, say

if TYPE_CHECKING:
    from overpaint.data.sources import Part
    from overpaint.data.universal import UniversalConfig


Bank = Annotated[
    list[str] | None,
    typer.Option(
        "--bank",
        help="Autoencoder that redraws: shipped name, weights file or taef2:FOLDER; repeatable, "
        "drawn alike. Default: that of --config, or the shipped ones that detectors train on.",
    ),
]
Masks = Annotated[
    list[str] | None,
    typer.Option(
        "--masks",
        help="Kind of masks: brush, free-form, lama-thin, lama-medium, lama-thick, boxes, "
        "objects:FOLDER (white = redrawn) or keep:FOLDER (white = untouched); repeatable, drawn "
        "alike.",
    ),
]


def synthesize(
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTOS", help="Folders, globs, lists, archives, or sets by name: places2:ROOT."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for pictures, masks and manifest.")],
    num: Annotated[int, typer.Option("--num", min=1, help="Number of samples.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of every random draw.")] = 0,
    bank: Bank = None,
    masks: Masks = None,
    size: Annotated[
        int | None, typer.Option("--size", min=16, help="Side of a sample, pixels.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Recipe, YAML; its section `data` is used."),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option("--part", help="Part of the photos: train, validation or test. Default: all."),
    ] = None,
    assets: Annotated[
        Path, typer.Option("--assets", help="Folder below which taef2:, objects: and keep: lie.")
    ] = Path(),
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Number of worker processes; 0: none.")
    ] = 0,
) -> None:
    """Write photos with redrawn regions and their masks, as a detector is trained on.

    Fills DIR/images, DIR/masks (white = redrawn), DIR/manifest.jsonl and DIR/about.json. The same
    command goes on where it was stopped, and a larger --num adds samples. The same seed gives
    the same bytes whatever the number of workers.
    """
    from overpaint.data import synthesize as library
    from overpaint.data.photo_sets import collect_photos

    source = collect_photos(photos, part=cast("Part | None", part))
    if source.passed_over:
        say(source.passed_over, err=True)
    settings = _read_settings(config, bank, masks, size)
    with make_progress_bar() as bar:
        task = bar.add_task("", total=num)
        rows = library.synthesize(
            out,
            source,
            settings,
            num=num,
            seed=seed,
            assets=assets,
            workers=workers,
            progress=lambda done, _: bar.update(task, completed=done),
        )
    say(f"{len(rows)} samples in {out}")
    if problems := [*source.problems, *library.list_passed_over(rows)]:
        for problem in problems:
            say(problem, err=True)
        say(f"{len(problems)} could not be read; others took their place", err=True)
        raise typer.Exit(1)


def _read_settings(
    path: Path | None, bank: list[str] | None, masks: list[str] | None, size: int | None
) -> "UniversalConfig":
    """The recipe's section `data`, or the defaults, with what the options replace."""
    from overpaint.data.bank import list_shipped_bank
    from overpaint.data.universal import UniversalConfig
    from overpaint.training.config import Section, load_config

    class Recipe(Section, extra="ignore"):
        data: UniversalConfig

    given: dict[str, object] = {}
    if bank or path is None:
        given["bank"] = dict.fromkeys(bank or list_shipped_bank(), 1.0)
    if masks:
        given["masks"] = dict.fromkeys(masks, 1.0)
    if size is not None:
        given["size"] = size
    read = {} if path is None else load_config(Recipe, path).data.model_dump()
    return UniversalConfig.model_validate(read | given)
