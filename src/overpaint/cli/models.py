"""`overpaint models`: the weights that are here, and the models that are known."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint.cli.problems import Problems
from overpaint.terminal import say, say_json

if TYPE_CHECKING:
    from overpaint.registry import Entry
    from overpaint.weights import WeightsRecord

Line = dict[str, Any]


def models(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Folder of weights. Default: shipped and imported ones, and models."),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="JSON output, one object a line, with entry: weights or model."
        ),
    ] = False,
) -> None:
    """List trained weights, and the models that weights can be of.

    Weights: name, kind, parameters, licence, SHA-256 and place. Models: paper, parameters, the
    licences of the code and of the weights that the authors published, and where weights are or
    how to get them.

    Exit code 0: all are listed. 1: some files of weights have no proper record; the rest is listed.
    """
    from overpaint.weights import list_records

    if folder is not None and not folder.is_dir():
        raise typer.BadParameter(f"{folder}: there is no such folder", param_hint="FOLDER")
    problems = Problems()
    records = list_records(folder, imported=folder is None, problem=problems)
    lines = _list_models(records) if folder is None else ()  # each takes a moment
    if as_json:
        weights = (
            {"entry": "weights", **record.model_dump(mode="json"), "path": str(record.path)}
            for record in records
        )
        for line in chain(weights, lines):
            say_json(line)
        problems.exit()
        return
    if not records and not problems.num:
        say("no weights here", err=True)
    for record in records:
        _print(record.name, _describe_weights(record))
    for line in lines:
        _print(f"{line['name']}: {line['summary'] or line['kind']}", _describe_model(line))
    problems.exit()


def _list_models(records: list["WeightsRecord"]) -> Iterator[Line]:
    """One registered model a line, as --json prints it."""
    from overpaint.weights.store import REGISTRIES

    for kind, registry in REGISTRIES.items():
        for name in registry.list_names():
            entry, official = registry.get(name), registry.get(name).official
            count, problem = _count_parameters(entry)
            here = [r for r in records if (r.kind, r.architecture) == (kind, name)]
            yield {
                "entry": "model",
                "name": name,
                "kind": kind,
                "summary": entry.summary,
                "paper": entry.paper,
                "parameters": count,
                "problem": problem,
                "licence": entry.licence,
                "official": official
                and {
                    "repository": official.repository,
                    "licence": official.licence,
                    "files": list(official.files),
                },
                "weights": {record.name: str(record.path) for record in here},
            }


def _count_parameters(entry: "Entry[Any]") -> tuple[int | None, str | None]:
    from overpaint.errors import OverpaintError
    from overpaint.registry import count_parameters

    try:
        return count_parameters(entry), None
    except OverpaintError as error:  # an optional package is missing
        return None, str(error)


def _describe_weights(record: "WeightsRecord") -> dict[str, str]:
    published = record.published
    return {
        "kind": f"{record.kind}, {record.architecture}",
        "parameters": f"{record.parameters:,}",
        "licence": record.licence,
        **({"published": published.repository} if published else {"data": record.data}),
        "calibrated": "yes" if record.calibration else "no",
        "sha256": record.sha256,
        "where": str(record.path),
    }


def _describe_model(line: Line) -> dict[str, str]:
    official, count = line["official"], line["parameters"]
    licence = line["licence"]
    if official:
        licence += f"; published weights: {official['licence']}"
    return {
        "kind": line["kind"],
        "paper": line["paper"],
        "parameters": line["problem"] or (f"{count:,}" if count else "none"),
        "licence": licence,
        "weights": _describe_source(line),
    }


def _describe_source(line: Line) -> str:
    official = line["official"]
    if line["weights"]:
        return ", ".join(line["weights"])
    if official:
        files = " ".join(official["files"]) or "FILE"
        return f"overpaint weights import {line['name']} {files} (of {official['repository']})"
    if not line["parameters"]:
        return "needs none"
    if line["kind"] == "autoencoder":  # some are not ours to train
        return "none here"
    return f"none here; overpaint train {line['kind']}"


def _print(title: str, lines: dict[str, str]) -> None:
    say(title)
    for key, value in lines.items():
        say(f"  {key:<11} {value}")
