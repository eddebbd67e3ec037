"""`overpaint weights`: published weights to import, lineage to show, means to make.

Exit codes: 0 done; 1 refused, with the reason; 2 the command was used wrongly.
"""

import math
import os
from pathlib import Path
from typing import Annotated

import typer

from overpaint.terminal import say, say_json

app = typer.Typer(help="Files of weights: import, lineage, mean.", no_args_is_help=True)


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


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Weights by name, or the path of their file.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="The whole record, as JSON.")] = False,
) -> None:
    """Show how weights were made: the weights, recipes, photos and commits that led to them.

    Below the weights stand their parents, which the training started from or which the mean was
    taken of, with share, first digits of the SHA-256, recipe, configuration hash and steps; below
    these, theirs. A parent without a known history is shown with its SHA-256 alone.
    """
    from overpaint.weights import read_record, render_tree

    record = read_record(name)
    if as_json:
        say_json(record.model_dump(mode="json"))
        return
    facts = {
        "kind": f"{record.kind}, {record.architecture}, {record.parameters:,} parameters",
        "sha256": record.sha256,
        "photos": record.data,
        "list": record.data_sha256 and f"sha256 {record.data_sha256}",
        "commit": record.commit,
        "from": record.published and record.published.repository,
        "licence": record.licence,
        "where": str(record.path),
    }
    say(record.name)
    for key, value in facts.items():
        if value:
            say(f"  {key:<9} {value}")
    say("lineage")
    for line in render_tree(record.lineage, record.ancestors):
        say(f"  {line}")


@app.command()
def average(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="NAME.safetensors to write.")],
    parts: Annotated[
        list[str],
        typer.Argument(metavar="SHARE=FILE...", help="Weights and their shares, which make 1."),
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="An earlier file is replaced.")] = (
        False
    ),
) -> None:
    """Write the mean of several files of weights of one network, and its record.

    Means of trainings that started from the same weights keep part of what each has learned.
    """
    from overpaint.weights.averaging import average_weights

    shares: dict[str, float] = {}
    for text in parts:
        share, _, path = text.partition("=")
        try:
            number = float(share)
        except ValueError:
            number = 0.0
        if not path or not 0 < number < math.inf:
            raise typer.BadParameter(f"{text}: give SHARE=FILE, with a finite share above 0")
        if path in shares:
            raise typer.BadParameter(f"{path}: named twice; add up its shares")
        shares[path] = number
    if out.suffix != ".safetensors":
        raise typer.BadParameter(f"{out}: the name must end in .safetensors")
    for path in (out, out.with_suffix(".json")):
        if not overwrite and os.path.lexists(path):
            raise typer.BadParameter(f"{path}: exists; name another file, or use --overwrite")
    record = average_weights(shares, out.stem, out.parent)
    say(f"{record.path}: sha256 {record.sha256}")
