"""The picture of the README: the photo of `overpaint demo`, a removal, and an overlay.

    python benchmarks/readme_picture.py

It is written to docs/img/demo.jpg, with the default detector. Make it again when the weights or the
demo change.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image, ImageDraw

from overpaint.errors import OverpaintError

ROOT = Path(__file__).parents[1]
SIDE = 320  # pixels
GAP = 8
LABEL = 20
PANELS = {
    "untouched.png": "photo",
    "filled.png": "emblem and name tag removed by overpaint inpaint",
    "redrawn.overlay.png": "both redrawn by a network: overpaint detect",
}


def main(
    out: Annotated[Path, typer.Option(help="JPEG to write.")] = ROOT / "docs/img/demo.jpg",
) -> None:
    """Run the demo, and put its pictures side by side."""
    from overpaint.cli.demo import demo

    width = len(PANELS) * (SIDE + GAP) - GAP
    sheet = Image.new("RGB", (width, SIDE + LABEL), "white")
    draw = ImageDraw.Draw(sheet)
    with tempfile.TemporaryDirectory() as folder:
        demo(Path(folder))
        for number, (name, label) in enumerate(PANELS.items()):
            left = number * (SIDE + GAP)
            with Image.open(Path(folder) / name) as picture:
                small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(small, (left, LABEL))
            draw.text((left + 2, 4), label, fill="black")
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, quality=88, optimize=True)
    typer.echo(f"{out}: {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    try:
        typer.run(main)
    except OverpaintError as error:
        raise SystemExit(str(error)) from error
