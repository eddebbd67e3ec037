"""What a model's name means, for detectors and inpainters alike, and how to get what is missing.

- A name is that of weights: shipped, imported, or in a folder that the caller names; a path is one
  of a file of weights. Otherwise it is a registered method that needs no weights.
- A network with random weights is never used: its name without weights is an error.
- "all" means every detector with weights in these places.
- The same weights count once, whatever names lead to them.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from torch import nn

from overpaint.errors import InputError, WeightsError
from overpaint.weights.store import (
    REGISTRIES,
    Kind,
    WeightsRecord,
    build,
    has_weights,
    list_records,
    load_weights,
    read_record,
)

ALL = "all"


def load(model: str | Path, kind: Kind) -> tuple[nn.Module, WeightsRecord | None]:
    """The model in eval mode, and the record of its weights; None for a method without weights.

    Raises WeightsError, which says what can be used instead, and UnknownNameError for weights of
    an architecture that nobody registered.
    """
    if is_method(model, kind):
        return REGISTRIES[kind].create(str(model)).eval(), None
    record, state = load_weights(find(model, kind).path, kind=kind)
    return build(record, state), record


def is_method(model: str | Path, kind: Kind) -> bool:
    """Whether this names a registered method that needs no weights, and no weights."""
    name, registry = str(model), REGISTRIES[kind]
    return not has_weights(name) and name in registry and not registry.get(name).trainable


def find(model: str | Path, kind: Kind, folders: Sequence[str | Path] = ()) -> WeightsRecord:
    """The record of one model's weights.

    model: name, or path of weights. folders: where names are looked up after the shipped and the
    imported ones. Raises WeightsError, which says how to get what is missing.
    """
    name, path = str(model), Path(model)
    if path.name != name or path.suffix in (".json", ".safetensors") or has_weights(name):
        return read_record(model, kind=kind)
    for folder in map(Path, folders):
        if (folder / f"{name}.safetensors").is_file():
            return read_record(folder / f"{name}.safetensors", kind=kind)
    raise WeightsError(_describe_remedy(name, kind, folders))


def select(
    models: Iterable[str | Path],
    folders: Sequence[str | Path] = (),
    problem: Callable[[str], None] | None = None,
) -> list[WeightsRecord]:
    """The records of detectors, in the order of `models`, "all" among them.

    problem: as for `list_records`, where "all" is named. Other arguments and errors as of `find`;
    also InputError where nothing is named.
    """
    found: dict[tuple[str, str], WeightsRecord] = {}
    for model in models:
        if model == ALL:
            records = list_available("detector", folders, problem)
            if not records:
                raise WeightsError(
                    "no detector has weights here; `overpaint models` says how to get some"
                )
        else:
            records = [find(model, "detector", folders)]
        for record in records:
            found.setdefault((record.architecture, record.sha256), record)
    if not found:
        raise InputError('no model: name one, or "all"')
    return list(found.values())


def list_available(
    kind: Kind,
    folders: Sequence[str | Path] = (),
    problem: Callable[[str], None] | None = None,
) -> list[WeightsRecord]:
    """The records of all weights of a kind that are here. problem: as for `list_records`. Raises
    WeightsError for a folder that is not there."""
    records = list_records(imported=True, problem=problem)
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise WeightsError(f"{folder}: no such folder of weights; check the spelling")
        records += list_records(folder, problem=problem)
    return [record for record in records if record.kind == kind]


def _describe_remedy(name: str, kind: Kind, folders: Sequence[str | Path]) -> str:
    """What a name without weights is, and what can be used instead."""
    registry, here = REGISTRIES[kind], list_available(kind, folders, lambda _: None)
    use = _describe_choices(kind, here)
    if name not in registry:
        return f"{name}: there are no such weights here; {use}"
    own = [record.name for record in here if record.architecture == name]
    if own:
        return f"{name} is a network, and {' and '.join(own)} its weights here; {use}"
    how, official = f"train it (overpaint train {kind})", registry.get(name).official
    if official is not None:
        files = " ".join(official.files) or "FILE"
        how = f"import its authors' (overpaint weights import {name} {files}), {how}"
    return f"{name} is a network without weights here; {how}, or {use}"


def _describe_choices(kind: Kind, here: Sequence[WeightsRecord]) -> str:
    registry = REGISTRIES[kind]
    methods = [name for name in registry.list_names() if not registry.get(name).trainable]
    choices = [f"weights that are here ({', '.join(r.name for r in here) or 'none yet'})"]
    if methods:
        choices.append(f"a method that needs none ({', '.join(methods)})")
    file = "the path of a .safetensors file with its .json record beside it"
    return f"use {', '.join(choices)}, or {file}"
