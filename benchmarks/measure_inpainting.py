"""Measurement of inpainters for results/*.csv and the published tables.

    python benchmarks/measure_inpainting.py --data DATA

- Without `--inpainter`: the untouched photo as a control, every method without weights, the
  shipped weights and the inpainters of benchmarks/weights. Rows of one inpainter are written as
  soon as it is done, and replace its earlier rows; those of others are kept.
- The 200 fills of a method take one to four minutes on one core. For a test, use `--num 3` and
  another `--out`.
"""

from pathlib import Path
from typing import Annotated

import typer

from overpaint.errors import OverpaintError

ROOT = Path(__file__).parents[1]
BENCHMARKED = ROOT / "benchmarks/weights"


def main(
    data: Annotated[Path, typer.Option("--data", help="Folder with photos/ and weights/.")],
    inpainter: Annotated[
        list[str] | None, typer.Option(help="Name, or NAME=FILE of weights; repeatable.")
    ] = None,
    detector: Annotated[
        list[str] | None, typer.Option(help="Name, or NAME=FILE of weights; repeatable.")
    ] = None,
    num: Annotated[int, typer.Option(min=1, help="Photos, each once in every bin.")] = 40,
    checked: Annotated[
        int, typer.Option(min=0, help="Photos to compare known pixels in; 0: none.")
    ] = 50,
    out: Annotated[Path, typer.Option(help="Folder of the CSV files.")] = ROOT / "results",
) -> None:
    """Measure inpainters, write the CSV files, then render the published tables."""
    from overpaint.evaluation import known_pixels, tables
    from overpaint.evaluation.inpainting import (
        InpaintingSettings,
        list_default_methods,
        measure_inpainters,
    )
    from overpaint.weights import list_records

    small = [
        str(BENCHMARKED / f"{r.name}.safetensors")
        for r in list_records(BENCHMARKED)
        if r.kind == "inpainter"
    ]
    measure_inpainters(
        dict(map(_parse_named, inpainter or (*list_default_methods(), *small))),
        data,
        out,
        detectors=dict(map(_parse_named, detector)) if detector else None,
        settings=InpaintingSettings(num=num),
        report=typer.echo,
    )
    if checked:
        known_pixels.measure_known_pixels(
            known_pixels.list_default_models(), data, out, num=checked, report=typer.echo
        )
    if out.resolve() == ROOT / "results":
        raise typer.Exit(tables.main(tables.list_published_pages(ROOT)))


def _parse_named(text: str) -> tuple[str, str]:
    """(name in the tables, name or path)."""
    name, equals, path = text.partition("=")
    return (name, path) if equals else (Path(text).stem if "/" in text else text, text)


if __name__ == "__main__":
    try:
        typer.run(main)
    except OverpaintError as error:
        raise SystemExit(str(error)) from error
