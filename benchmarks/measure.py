"""Measurement of a shipped detector for results/*.csv and the published tables.

    python benchmarks/measure.py --data DATA

- The detector is measured on all sets; `--also NAME=FILE` (ablations, other widths) only on the
  triplets.
- The inpainters are those of `benchmarks/measure_inpainting.py`; the detector scores their fills.
- Results are first written to a new folder, and merged into results/*.csv when they are complete.
  Rows of other weights and sets are kept: see the step "measure" of recipes/run.sh.
- Train and calibrate first: `overpaint train`, `overpaint calibrate`.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from overpaint.errors import OverpaintError

ROOT = Path(__file__).parents[1]


def main(
    data: Annotated[Path, typer.Option("--data", help="Folder with photos, faces, triplets.")],
    weights: Annotated[str, typer.Option(help="Name or file. Default: nixnet-real.")] = "",
    also: Annotated[list[str] | None, typer.Option(help="NAME=FILE; repeatable.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the CSV files.")] = ROOT / "results",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Pictures of a kind, for a test.")
    ] = None,
) -> None:
    """Measure, write the CSV files, then render the published tables."""
    from overpaint.defaults import DEFAULT_DETECTOR
    from overpaint.evaluation import tables
    from overpaint.evaluation.benchmark import Settings, evaluate
    from overpaint.evaluation.inpainting import (
        InpaintingSettings,
        list_default_methods,
        measure_inpainters,
    )
    from overpaint.evaluation.known_pixels import list_default_models, measure_known_pixels
    from overpaint.evaluation.rows import (
        PICTURES,
        SOURCES,
        read_pictures,
        read_rows,
        write_results,
    )

    settings = Settings(limit=limit)
    methods = list_default_methods()  # first, because it raises if a package is missing
    main_weights = {Path(weights or DEFAULT_DETECTOR).stem: weights or DEFAULT_DETECTOR}
    others = dict(_parse_named(text) for text in also or [])
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".measured-") as folder:
        new = Path(folder)
        evaluate(main_weights, data, new, settings=settings, report=typer.echo)
        evaluate(others, data, new, ["triplets"], settings=settings, report=typer.echo)
        of_inpainters = InpaintingSettings(num=limit or InpaintingSettings().num)
        measure_inpainters(
            methods, data, new, detectors=main_weights, settings=of_inpainters, report=typer.echo
        )
        measure_known_pixels(list_default_models(), data, new, num=limit or 50, report=typer.echo)
        sets = [path for path in sorted(new.glob("*.csv")) if path.stem != SOURCES]
        rows = [each for path in sets for each in read_rows(path)]
        seen = [each for path in sorted(new.glob(f"{PICTURES}/*")) for each in read_pictures(path)]
        write_results(out, rows, seen)
    if limit is None:
        raise typer.Exit(tables.main([*tables.list_published_pages(ROOT), "--results", str(out)]))


def _parse_named(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text}: give NAME=FILE", param_hint="--also")
    return name, path


if __name__ == "__main__":
    try:
        typer.run(main)
    except OverpaintError as error:
        raise SystemExit(str(error)) from error
