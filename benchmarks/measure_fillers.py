"""Rows of results/fillers.csv, by which `overpaint inpaint --model auto` chooses.

    python benchmarks/measure_fillers.py --data DATA

`--inpainter` (repeatable) measures other inpainters than the default ones, for instance your
weights.
"""

from pathlib import Path
from typing import Annotated

import typer

from overpaint.errors import OverpaintError

ROOT = Path(__file__).parents[1]
USUAL = ("telea", "navier-stokes", "biharmonic", "patchmatch", "mean", "safepaint-s")


def main(
    data: Annotated[Path, typer.Option(help="Folder with photos/, masks/, weights/.")],
    inpainter: Annotated[
        list[str] | None, typer.Option(help="Name or weights; repeatable.")
    ] = None,
    num: Annotated[
        int | None, typer.Option(min=2, help="Photos of each size, for a quick run.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the CSV file.")] = ROOT / "results",
) -> None:
    """Fill, compare, and write the rows."""
    from overpaint.evaluation.fillers import measure_fillers

    measure_fillers(inpainter or USUAL, data, out, num=num, report=typer.echo)


if __name__ == "__main__":
    try:
        typer.run(main)
    except OverpaintError as error:
        raise SystemExit(str(error)) from error
