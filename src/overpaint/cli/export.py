"""`overpaint export`: a detector's network as a file for another runtime.

Exit codes: 0 exported, and compared with torch; 2 it could not be.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from overpaint.errors import OverpaintError
from overpaint.terminal import say


def export(
    model: Annotated[
        str, typer.Argument(metavar="NAME", help="Name (see `overpaint models`) or weights file.")
    ],
    to: Annotated[Literal["onnx"], typer.Option("--to", help="Format of the file.")] = "onnx",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File. Default: NAME.onnx, here.")
    ] = None,
) -> None:
    """Export of a detector's network, with dynamic height and width, in fp32.

    The graph takes `image`, float (1, 3, height, width) in 0..1, RGB, and gives `logits` (1, 1,
    height, width). Both sides have to be multiples of the stride that the file's metadata state:
    pad at the right and at the bottom by reflection, and crop the logits. The file is compared with
    torch before it is kept.
    """
    from overpaint.detection.export import OPSET, export_onnx

    try:
        done = export_onnx(model, out)
    except OverpaintError as error:
        say(f"overpaint export: {error}", err=True)
        raise typer.Exit(2) from error
    say(
        f"exported {done.record.name}: {done.path}, {to}, opset {OPSET}, fp32",
        f"largest difference of a logit from torch's: {done.difference:.2g}",
        f"licence of the weights: {done.record.licence}",
    )
