"""`overpaint data`: whether a folder holds the data sets that recipes and tables use.

Exit codes: 0 all are complete; 1 something is missing or different; 2 the command was used wrongly.
"""

from pathlib import Path
from typing import Annotated

import typer

from overpaint.terminal import say, say_json

app = typer.Typer(
    help="Data sets of the recipes and tables: what is there, what is missing.",
    no_args_is_help=True,
)


@app.callback()
def _data() -> None:
    pass


@app.command()
def check(
    folder: Annotated[
        Path, typer.Argument(help="Data folder: the one that holds photos/, faces/, triplets/.")
    ],
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Data set, or folder of several (photos); repeatable."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line for each data set.")
    ] = False,
) -> None:
    """State of each data set in a folder: complete, missing, incomplete or different.

    Each file is read and compared by SHA-256 with the list that the published numbers were made
    with. What is not complete is named with the address where it can be had and its licence.
    """
    from overpaint.data import datasets

    findings = datasets.check_datasets(folder, tuple(only or ()))
    width = max(len(f.dataset.folder) for f in findings)
    for found in findings:
        if as_json:
            about = found.dataset.model_dump(mode="json", exclude={"index"})
            line = {**about, "state": found.state, "details": found.details}
            say_json({**line, "where": found.dataset.where})
            continue
        dataset = found.dataset
        say(f"{dataset.folder:<{width}}  {found.state}")
        if found.state != "complete":
            lines = {
                "found": found.details,
                "what": dataset.what,
                "where": dataset.where,
                "licence": dataset.licence,
            }
            for key, value in lines.items():
                say(f"  {key:<8} {value}")
    wrong = sum(f.state != "complete" for f in findings)
    say(f"{len(findings) - wrong} of {len(findings)} data sets are complete", err=True)
    if wrong:
        raise typer.Exit(1)
