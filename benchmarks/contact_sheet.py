"""A contact sheet: one PNG with photos in rows and inpainters in columns.

    python benchmarks/contact_sheet.py --data DATA --out contact-sheet.png

- Columns: the photo, the photo with its hole, each inpainter's fill, and the detector's heatmap of
  the last inpainter's fill. `--inpainter` (repeatable) names other columns, in their order.
- Photos, crops and holes are those of the inpainting benchmark. Successive rows are of its
  successive bins.
- If the default weights do not exist, their column is left out, with a note.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from overpaint.errors import OverpaintError, WeightsError
from overpaint.evaluation.sheets import SheetRow, draw_heat, draw_sheet

if TYPE_CHECKING:
    from overpaint.detection.runner import DetectorRunner
    from overpaint.evaluation.inpainting import Case, Method

ROOT = Path(__file__).parents[1]
CLASSICAL = ("telea", "patchmatch")
WEIGHTS = "safepaint-s"
HOLE = (255, 0, 255)


def main(
    data: Annotated[Path, typer.Option("--data", help="Folder with photos/.")],
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("contact-sheet.png"),
    inpainter: Annotated[
        list[str] | None, typer.Option(help="Column: name or weights file; repeatable.")
    ] = None,
    weights: Annotated[str, typer.Option(help="Last column: name or weights file.")] = WEIGHTS,
    detector: Annotated[str, typer.Option(help="Name or weights file.")] = "nixnet-s",
    num: Annotated[int, typer.Option(min=1, help="Photos, one a row.")] = 12,
) -> None:
    """Fill, detect, and write the sheet."""
    from overpaint.detection.runner import DetectorRunner
    from overpaint.evaluation.inpainting import InpaintingSettings, draw_cases, load_method
    from overpaint.evaluation.measurement import find_test_photos
    from overpaint.images import write_png

    methods = [load_method(Path(name).stem, name) for name in inpainter or CLASSICAL]
    try:
        methods.append(load_method(Path(weights).stem, weights))
    except WeightsError as error:
        if weights != WEIGHTS:
            raise
        typer.echo(f"without a column for {weights}: {error}", err=True)
    settings = InpaintingSettings(num=num)
    cases = draw_cases(find_test_photos(data, settings.split_seed), settings)
    bins = settings.bins
    cases = [case for i, case in enumerate(cases) if i % len(bins) == i // len(bins) % len(bins)]
    names = [method.name for method in methods]
    titles = ["photo", "hole", *names, f"{Path(detector).stem} on {names[-1]}"]
    rows = list(make_rows(cases, methods, DetectorRunner(detector)))
    labels = [f"{case.name}, hole {case.bin} %" for case in cases]
    write_png(out, draw_sheet(rows, titles, labels))
    typer.echo(f"{out}: {len(rows)} photos, {', '.join(titles)}")


def make_rows(
    cases: Sequence["Case"], methods: Sequence["Method"], runner: "DetectorRunner"
) -> Iterator[SheetRow]:
    """The pictures of each row: photo, hole, fills, and the last fill's heatmap with the hole."""
    from overpaint.detection.report import draw_overlay

    for case in cases:
        hole = case.photo.copy()
        hole[case.mask == 1] = HOLE
        fills = [method(case.photo, case.mask) for method in methods]
        heatmap = draw_heat(runner.logits(fills[-1]))
        yield [case.photo, hole, *fills, draw_overlay(fills[-1], heatmap, case.mask == 1)]


if __name__ == "__main__":
    try:
        typer.run(main)
    except OverpaintError as error:
        raise SystemExit(str(error)) from error
