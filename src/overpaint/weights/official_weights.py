"""Import of weights that the authors of a model published.

- The tensors are renamed by the model's own rules (`registry.Official`), must fit it to the last
  one, and are saved in float32, as published, with the hashes of the files in the record.
- The rules see names joined by dots; several files become {stem of the file: its tensors} first.
  Rules that refuse these get the content nested as it was.
- A file without which the model still works may be left away (`Official.without`); the others are
  then told by their names.
- Imported weights lie in a folder of the user (`weights.find_imported_folder`), where their name
  finds them. They never hide shipped weights, and replace only what was imported before.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from overpaint import registry
from overpaint.atomic import is_same_file
from overpaint.errors import UnknownNameError, WeightsError
from overpaint.registry import Entry, Official
from overpaint.run_identity import find_commit
from overpaint.weights import (
    Kind,
    Published,
    WeightsRecord,
    find_imported_folder,
    is_imported_folder,
    is_shipped,
    read_record,
    save_weights,
)
from overpaint.weights.checkpoint_files import Checkpoint, flatten, read_checkpoint, strip_part
from overpaint.weights.rename_keys import check_fits


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import has written."""

    record: WeightsRecord
    notes: tuple[str, ...]


def import_weights(
    name: str, files: Sequence[str | Path], folder: str | Path | None = None
) -> Imported:
    """Turn a published checkpoint of the model `name` into weights of that name.

    files: as published, each one once; with several, those that have the published names are told
    by these, otherwise the order counts. folder: where NAME.safetensors and NAME.json go; None
    takes `weights.find_imported_folder()`, where the name alone finds them.
    Raises UnknownNameError, and WeightsError when nothing was published for the model, a file
    cannot be read, the tensors do not fit, or other weights of that name are in the way.
    """
    kind, entry = _find_entry(name)
    official = _find_official(entry)
    paths = list(dict.fromkeys(strip_part(Path(file)) for file in files))
    prefixes = _list_prefixes(paths, official, name)
    config = {**official.config, **_make_config(official, prefixes)}
    folder = find_imported_folder() if folder is None else Path(folder)
    _check_free(folder, name, paths)
    read = _read(paths, official)
    try:
        module = _build(entry, config, official, dict(zip(prefixes, read, strict=True)))
    except WeightsError as error:
        given = ", ".join(map(str, paths))
        raise WeightsError(
            f"{given}: {error}; {name} takes {_describe_wanted(official)}"
        ) from error
    record = save_weights(
        folder,
        module,
        name=name,
        kind=kind,
        architecture=name,
        config=config,
        data="that of the authors, see their repository",
        recipe=None,
        commit=find_commit(),
        licence=official.licence,
        dtype=torch.float32,
        published=Published(
            repository=official.repository,
            files={file: digest for one in read for file, digest in one.files.items()},
        ),
    )
    return Imported(record, tuple(note for one in read for note in one.notes))


def _find_entry(name: str) -> tuple[Kind, Entry[Any]]:
    registries: dict[Kind, registry.Registry[Any]] = {
        "inpainter": registry.inpainters,
        "detector": registry.detectors,
        "part": registry.parts,
    }
    for kind, models in registries.items():
        if name in models:
            return kind, models.get(name)
    found = [n for models in registries.values() for n in models.list_names()]
    raise UnknownNameError(f"no model is called {name!r}; known: {', '.join(sorted(found))}")


def _find_official(entry: Entry[Any]) -> Official:
    if entry.official is None:
        raise WeightsError(f"{entry.name}: no weights were published for it that could be imported")
    return entry.official


def _list_prefixes(paths: list[Path], official: Official, name: str) -> list[str]:
    """What goes before the names of each file's tensors: "" where only one is published, else
    its stem."""
    wanted = list(dict.fromkeys(strip_part(Path(file)).stem for file in official.files))
    needed = {stem for stem in wanted if stem not in _list_optional_stems(official)}
    stems = [path.stem for path in paths]
    if len({path.name for path in paths}) < len(paths):
        raise WeightsError(f"{name}: two files of one name; is one of them given twice?")
    if len(paths) == len(wanted or [1]):
        if len(paths) == 1:
            return [""]
        return stems if sorted(stems) == sorted(wanted) else wanted
    if len(paths) < len(wanted) and needed < set(wanted) and needed <= set(stems) <= set(wanted):
        return stems
    if needed < set(wanted) and needed - set(stems):
        lacking = ", ".join(stem for stem in wanted if stem in needed - set(stems))
        raise WeightsError(f"{name}: needs {lacking}; it takes {_describe_wanted(official)}")
    raise WeightsError(
        f"{name}: {len(paths)} files given, but it takes {_describe_wanted(official)}"
    )


def _list_optional_stems(official: Official) -> dict[str, Mapping[str, Any]]:
    return {Path(file).stem: config for file, config in official.without.items()}


def _make_config(official: Official, prefixes: Sequence[str]) -> dict[str, Any]:
    """Of the model without the files that were not given."""
    missing = (
        config for stem, config in _list_optional_stems(official).items() if stem not in prefixes
    )
    return {key: value for config in missing for key, value in config.items()}


def _read(paths: Sequence[Path], official: Official) -> list[Checkpoint]:
    """The files; an error ends with what the model's file says of how to get one that can be."""
    try:
        return [read_checkpoint(path) for path in paths]
    except WeightsError as error:
        if official.note:
            raise WeightsError(f"{error}. {official.note}") from error
        raise


def _describe_wanted(official: Official) -> str:
    files = [
        f"{file} (may be left away)" if file in official.without else file
        for file in official.files
    ]
    return f"{', '.join(files) or 'one file'} of {official.repository}"


def _check_free(folder: Path, name: str, inputs: list[Path]) -> None:
    """Raise WeightsError when the import would be hidden, or replace what it must not."""
    target = folder / f"{name}.safetensors"
    if is_imported_folder(folder) and is_shipped(name):
        raise WeightsError(f"{name}: weights of this name are shipped and win; give --out FOLDER")
    if any(is_same_file(path, target) for path in inputs):
        raise WeightsError(f"{target}: this is an input and is never written over; give --out")
    for path in (target, target.with_suffix(".json")):
        if os.path.lexists(path) and not _is_imported(target):
            raise WeightsError(f"{path}: is there, and no import wrote it; give --out FOLDER")


def _is_imported(path: Path) -> bool:
    """Whether an import wrote the record of these weights."""
    try:
        return read_record(path).published is not None
    except WeightsError:
        return False


def _build(
    entry: Entry[Any],
    config: Mapping[str, Any],
    official: Official,
    read: Mapping[str, Checkpoint],
) -> nn.Module:
    """The model with the published weights. read: by prefix, see `_list_prefixes`."""
    module: nn.Module = entry.factory(**config)
    state = _rename(official, read)
    check_fits(module, state)
    module.load_state_dict(state, strict=True)
    return module


def _rename(official: Official, read: Mapping[str, Checkpoint]) -> dict[str, Tensor]:
    """The model's rules applied to dotted names; where they refuse these, to nested content."""
    content: dict[str, Any] = {prefix: one.content for prefix, one in read.items()}
    content = content.get("", content)
    tensors, _ = flatten(content)
    try:
        return official.remap(tensors)
    except WeightsError as refused:
        if content.keys() == tensors.keys():
            raise
        try:
            return official.remap(content)
        except WeightsError:  # as strict; what was said of dotted names tells more
            raise refused from None
