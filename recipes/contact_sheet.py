"""Photos in rows, inpainters in columns, in one PNG to look at.

    python recipes/contact_sheet.py --data ../shared/data --out contact-sheet.png

- Columns: the photo, the photo with its hole, each inpainter's fill, and the detector's heatmap of
  the last inpainter's fill. `--inpainter` (repeatable) names other columns, in their order.
- Photos, crops and holes are those of the inpainting benchmark. The rows go through its bins.
- The default weights are left out with a note as long as they do not exist.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from PIL import Image, ImageDraw, ImageFont

from overpaint.errors import OverpaintError, WeightsError

if TYPE_CHECKING:
    from overpaint.evaluation.inpainting import Case, Method
    from overpaint.inference.detect import DetectorRunner

ROOT = Path(__file__).parents[1]
CLASSICAL = ("telea", "patchmatch")
WEIGHTS = "safepaint-s"
LABEL, GAP = 24, 4  # height of a line of text and space between pictures, pixels
HOLE = (255, 0, 255)

Row = list[np.ndarray]


def main(
    data: Annotated[
        Path, typer.Option(envvar="OVERPAINT_DATA", help="Folder with photos/.")
    ] = ROOT.parent / "shared" / "data",
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("contact-sheet.png"),
    inpainter: Annotated[
        list[str] | None, typer.Option(help="Column: name or weights file; repeatable.")
    ] = None,
    weights: Annotated[str, typer.Option(help="Last column: name or weights file.")] = WEIGHTS,
    detector: Annotated[str, typer.Option(help="Name or weights file.")] = "nixnet-s",
    num: Annotated[int, typer.Option(min=1, help="Photos, one a row.")] = 12,
) -> None:
    """Fill, detect, and write the sheet."""
    from overpaint.evaluation.benchmark import photos_of_test_split
    from overpaint.evaluation.inpainting import InpaintingSettings, draw_cases, load_method
    from overpaint.images import write_png
    from overpaint.inference.detect import DetectorRunner

    methods = [load_method(Path(name).stem, name) for name in inpainter or CLASSICAL]
    try:
        methods.append(load_method(Path(weights).stem, weights))
    except WeightsError as error:
        if weights != WEIGHTS:
            raise
        typer.echo(f"without a column for {weights}: {error}", err=True)
    settings = InpaintingSettings(num=num)
    cases = draw_cases(photos_of_test_split(data, settings.split_seed), settings)
    bins = settings.bins
    cases = [case for i, case in enumerate(cases) if i % len(bins) == i // len(bins) % len(bins)]
    names = [method.name for method in methods]
    titles = ["photo", "hole", *names, f"{Path(detector).stem} on {names[-1]}"]
    rows = list(filled_rows(cases, methods, DetectorRunner(detector)))
    labels = [f"{case.name}, hole {case.bin} %" for case in cases]
    write_png(out, sheet(rows, titles, labels))
    typer.echo(f"{out}: {len(rows)} photos, {', '.join(titles)}")


def filled_rows(
    cases: Sequence["Case"], methods: Sequence["Method"], runner: "DetectorRunner"
) -> Iterator[Row]:
    """The pictures of each row: photo, hole, fills, and the heat in the last with the true hole."""
    from overpaint.inference.report import overlay

    for case in cases:
        hole = case.photo.copy()
        hole[case.mask == 1] = HOLE
        fills = [method(case.photo, case.mask) for method in methods]
        heat = 1 / (1 + np.exp(-runner.logits(fills[-1])))
        yield [case.photo, hole, *fills, overlay(fills[-1], heat, case.mask == 1)]


def sheet(rows: Sequence[Row], titles: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """The pictures, all uint8 (h, w, 3) of one size, with titles above and a label over each row.

    uint8 (rows * (h + LABEL + GAP) + LABEL, columns * (w + GAP) - GAP, 3).
    """
    height, width = rows[0][0].shape[:2]
    columns, step = len(titles), height + LABEL + GAP
    page = Image.new("RGB", (columns * (width + GAP) - GAP, len(rows) * step + LABEL), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=LABEL // 2)
    for j, title in enumerate(titles):
        draw.text((j * (width + GAP), LABEL // 4), title, fill="black", font=font)
    for i, (row, label) in enumerate(zip(rows, labels, strict=True)):
        top = LABEL + i * step
        draw.text((0, top + LABEL // 4), label, fill="black", font=font)
        for j, picture in enumerate(row):
            page.paste(Image.fromarray(picture), (j * (width + GAP), top + LABEL))
    return np.asarray(page)


if __name__ == "__main__":
    try:
        typer.run(main)
    except OverpaintError as error:
        raise SystemExit(str(error)) from error
