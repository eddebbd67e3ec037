"""`overpaint models`: the weights that are here, and what is recorded about them."""

import json
from pathlib import Path
from typing import Annotated

import typer


def models(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of weights. Default: the shipped ones.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line: the whole record.")
    ] = False,
) -> None:
    """List trained weights: name, kind, parameters, licence, SHA-256 and place."""
    from overpaint.weights import list_records

    records = list_records(folder)
    if as_json:
        for record in records:
            line = record.model_dump(mode="json") | {"path": str(record.path)}
            typer.echo(json.dumps(line, allow_nan=False))
        return
    if not records:
        typer.echo("no weights here", err=True)
    for record in records:
        lines = {
            "kind": f"{record.kind}, {record.architecture}",
            "parameters": f"{record.parameters:,}",
            "licence": record.licence,
            "data": record.data,
            "calibrated": "yes" if record.calibration else "no",
            "sha256": record.sha256,
            "where": str(record.path),
        }
        typer.echo(record.name)
        for key, value in lines.items():
            typer.echo(f"  {key:<11} {value}")
