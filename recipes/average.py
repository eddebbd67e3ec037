"""The mean of several trainings that started from the same weights.

    python recipes/average.py runs/mean/mean.safetensors 0.5=a.safetensors 0.5=b.safetensors

The shares make 1 together. Beside the file comes its record, which names all that went in.
"""

from pathlib import Path
from typing import Annotated

import typer

from overpaint.errors import OverpaintError


def main(
    out: Annotated[Path, typer.Argument(help="NAME.safetensors to write.")],
    parts: Annotated[list[str], typer.Argument(help="SHARE=FILE, two or more.")],
) -> None:
    """Average weights."""
    from overpaint.weights.averaging import average_weights

    shares = {}
    for text in parts:
        share, equals, path = text.partition("=")
        try:
            shares[path] = float(share)
        except ValueError:
            equals = ""
        if not equals:
            raise typer.BadParameter(f"{text}: give SHARE=FILE")
    record = average_weights(shares, out.stem, out.parent)
    typer.echo(f"{record.path}: sha256 {record.sha256}")


if __name__ == "__main__":
    try:
        typer.run(main)
    except OverpaintError as error:
        raise SystemExit(str(error)) from error
