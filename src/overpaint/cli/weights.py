"""`overpaint weights`: weights that others published, made ready for use here.

Exit codes: 0 imported; 1 refused, with the reason; 2 the command was used wrongly.
"""

from pathlib import Path
from typing import Annotated

import typer

from overpaint.terminal import say

app = typer.Typer(
    help="Import weights that the authors of a model published.", no_args_is_help=True
)


@app.callback()
def _weights() -> None:
    pass


@app.command("import")
def import_weights(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Model; see `overpaint models`.")],
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="The published files, all of them.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder to write to. Default: $OVERPAINT_WEIGHTS, or the user's data folder, "
            "where NAME alone finds the weights.",
        ),
    ] = None,
) -> None:
    """Turn a published checkpoint into NAME.safetensors and its record NAME.json.

    Takes files of PyTorch, TorchScript and safetensors, of Keras where h5py is installed, and of
    TensorFlow where that is. Nothing in a file is run: one that holds code is refused. Every
    tensor must find its place in the model, and is stored as published.

    The weights remain their authors', under the licence that is shown and recorded.
    """
    from overpaint.weights.official_weights import import_weights as imported

    done = imported(name, files, out)
    record = done.record
    assert record.published is not None, "as of every import"
    lines = {
        "model": f"{record.kind}, {record.parameters:,} parameters",
        "from": record.published.repository,
        **{file: f"sha256 {digest}" for file, digest in record.published.files.items()},
        "licence": f"{record.licence}; the weights are their authors'",
        "sha256": record.sha256,
        "where": str(record.path),
    }
    say(f"imported {record.name}")
    for key, value in lines.items():
        say(f"  {key:<9} {value}")
    for note in done.notes:
        say(f"  note: {note}")
