"""`overpaint harden`: a detector against inpainters that are trained against it, round by round.

Exit codes: 0 all is measured; 1 something failed, each of which is a row with its error; 2 the
command was used wrongly. Stopped by an error: 1 as well, with the remedy.
"""

from pathlib import Path
from typing import Annotated

import typer

from overpaint.cli.benchmark import Cache, Data, Jobs, Plan, Resume
from overpaint.cli.cells import say_outcome, say_outlook, show_progress
from overpaint.devices import DEVICE_HELP
from overpaint.terminal import say

RecipeFile = Annotated[
    Path, typer.Argument(metavar="RECIPE.yaml", help="Recipe, for instance recipes/harden.yaml.")
]
Scale = Annotated[
    str | None, typer.Option("--scale", help="Scale of the recipe: smoke or lite. Default: lite.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Folder of weights, rows, table and plot. Default: NAME-SCALE."),
]


def harden(
    recipe: RecipeFile,
    data: Data = Path(),
    scale: Scale = None,
    resume: Resume = False,
    plan: Plan = False,
    out: Out = None,
    cache: Cache = Path("cache/benchmark"),
    jobs: Jobs = 1,
    device: Annotated[str, typer.Option("--device", help=DEVICE_HELP)] = "cpu",
) -> None:
    """Train a detector and an inpainter against each other, and measure both after every round.

    A round: inpainters fill holes in training photos; the fills that the detector does worst on are
    mined; the detector is trained further on universal data and all mined fills; its threshold is
    fitted again at the same false-alarm rate; SafePaint's second phase is trained against it.
    Inpainters and real fills that the recipe holds out are measured in every round and never in the
    loop; a recipe in which one of them is, is refused.

    Writes OUT/rows.csv, OUT/table.md, OUT/rounds.png (extra "plots") and OUT/weights, the weights
    of every round with their records and thresholds. Everything is kept in CACHE, so that the same
    command goes on where it was stopped.
    """
    from overpaint.benchmark.api import ROWS
    from overpaint.benchmark.hardening import api
    from overpaint.benchmark.hardening.recipe import load_hardening

    race = load_hardening(recipe, scale)
    if plan:
        ahead = api.estimate_run(
            recipe, data, cache=cache, scale=scale, resume=resume, device=device
        )
        say_outlook(ahead)
        return
    folder = out or Path("-".join(part for part in (race.name, race.scale) if part))
    with show_progress(race.name) as show:
        done = api.harden(
            recipe,
            data,
            folder,
            cache=cache,
            scale=scale,
            resume=resume,
            jobs=jobs,
            device=device,
            report=lambda text: say(text, err=True),
            on_progress=show,
        )
    say_outcome(done.files, done.num_failed, len(done.rows), folder / ROWS)
