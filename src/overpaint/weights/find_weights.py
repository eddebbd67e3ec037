"""Which detectors a name means, and how to get those that have no weights here.

- A name is that of weights: shipped, imported, or in a folder that the caller names.
- "all" means every detector with weights in these places.
- The same weights count once, whatever names lead to them.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from overpaint.errors import InputError, WeightsError
from overpaint.registry import detectors
from overpaint.weights import WeightsRecord, has_weights, list_records, read_record

ALL = "all"


def select(models: Iterable[str | Path], folders: Sequence[str | Path] = ()) -> list[WeightsRecord]:
    """The records of detectors, in the order of `models`, "all" among them.

    models: names, or paths of weights. folders: where names are looked up after the shipped and
    the imported ones. Raises WeightsError, which says how to get what is missing, and InputError.
    """
    found: dict[tuple[str, str], WeightsRecord] = {}
    for model in models:
        for record in available(folders) if model == ALL else [find(model, folders)]:
            found.setdefault((record.architecture, record.sha256), record)
    if not found:
        raise InputError('no model: name one, or "all"')
    return list(found.values())


def available(folders: Sequence[str | Path] = ()) -> list[WeightsRecord]:
    """The records of all detectors with weights here; raises WeightsError when there is none."""
    records = list_records(imported=True)
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise WeightsError(f"{folder}: no such folder of weights; check the spelling")
        records += list_records(folder)
    found = [record for record in records if record.kind == "detector"]
    if not found:
        raise WeightsError("no detector has weights here; `overpaint models` says how to get some")
    return found


def find(model: str | Path, folders: Sequence[str | Path] = ()) -> WeightsRecord:
    """The record of one detector; arguments and errors as of `select`."""
    name, path = str(model), Path(model)
    if path.name != name or path.suffix in (".json", ".safetensors") or has_weights(name):
        return read_record(model, kind="detector")
    for folder in map(Path, folders):
        if (folder / f"{name}.safetensors").is_file():
            return read_record(folder / f"{name}.safetensors", kind="detector")
    raise WeightsError(_remedy(name, folders))


def _remedy(name: str, folders: Sequence[str | Path]) -> str:
    here = available(folders)
    use = (
        f"use {' or '.join(record.name for record in here)}, or the path of a .safetensors file "
        "with its .json record beside it"
    )
    if name not in detectors:
        return f"{name}: there are no such weights here; {use}"
    own = [record.name for record in here if record.architecture == name]
    if own:
        return f"{name} is a network, and {' and '.join(own)} its weights here; {use}"
    official = detectors.get(name).official
    how = "train it (overpaint train detector)"
    if official is not None:
        files = " ".join(official.files) or "FILE"
        how = f"import its authors' (overpaint weights import {name} {files}), {how}"
    return f"{name} is a network without weights here; {how}, or {use}"
