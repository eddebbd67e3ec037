"""`overpaint benchmark`: the table of a recipe, of which only what changed is measured again.

Exit codes: 0 all cells are measured; 1 some failed, each of which is a row with its error; 2 the
command was used wrongly. Stopped by an error: 1 as well, with the remedy.
"""

from pathlib import Path
from typing import Annotated

import typer

from overpaint.cli.cells import say_outcome, say_outlook, show_progress
from overpaint.devices import DEVICE_HELP
from overpaint.terminal import say

RecipeFile = Annotated[
    Path, typer.Argument(metavar="RECIPE.yaml", help="Recipe of a table, see recipes/tables.")
]
Data = Annotated[
    Path, typer.Option("--data", help="Folder below which photos, masks and weights lie.")
]
Scale = Annotated[
    str | None,
    typer.Option("--scale", help="Scale of the recipe: smoke, lite or paper. Default: lite."),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        help='Cells to measure, AXIS=PATTERN, for instance "detector=NIX*"; repeatable. Axes: '
        "detector, training, inpainter, photos, mask, bin, processing, seed.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="End of an earlier run: results of other code count, and what failed is not tried "
        "again.",
    ),
]
Plan = Annotated[
    bool,
    typer.Option("--plan", help="List of what is missing, and its time; nothing is measured."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Folder of rows, tables and plots. Default: NAME-SCALE."),
]
Cache = Annotated[Path, typer.Option("--cache", help="Folder of results, shared by all recipes.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Number of processes.")]


def benchmark(
    recipe: RecipeFile,
    data: Data = Path(),
    scale: Scale = None,
    only: Only = None,
    resume: Resume = False,
    plan: Plan = False,
    out: Out = None,
    cache: Cache = Path("cache/benchmark"),
    jobs: Jobs = 1,
    device: Annotated[str, typer.Option("--device", help=DEVICE_HELP)] = "cpu",
) -> None:
    """Measure detectors x training data x inpainters x photos x masks x holes x processing.

    Writes OUT/rows.csv (a row for each cell and metric: value, 95 % interval over pictures, or over
    inpainters and pictures, hashes of weights, calibration and data, seeds, commit), OUT/table.md,
    .tex and .csv, with the paper's figures beside, and plots (extra "plots") where the recipe asks
    for them.

    Every training, fill, heatmap and score is kept in CACHE by a hash of all that it depends on, so
    that the same command goes on where it was stopped, and only what changed is measured again.
    """
    from overpaint.benchmark import api
    from overpaint.benchmark.recipe import load_recipe

    name = load_recipe(recipe, scale)
    if plan:
        ahead = api.estimate_run(
            recipe,
            data,
            cache=cache,
            scale=scale,
            only=only or (),
            resume=resume,
            device=device,
        )
        say_outlook(ahead)
        return
    folder = out or Path("-".join(part for part in (name.name, name.scale) if part))
    with show_progress(name.name) as show:
        done = api.benchmark(
            recipe,
            data,
            folder,
            cache=cache,
            scale=scale,
            only=only or (),
            resume=resume,
            jobs=jobs,
            device=device,
            report=lambda text: say(text, err=True),
            on_progress=show,
        )
    say_outcome(done.files, done.num_failed, len(done.rows), folder / api.ROWS)
