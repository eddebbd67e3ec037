"""Trained weights on disk: one `.safetensors` file and one JSON record beside it.

- The record holds all that rebuilds the model (registry name and configuration) and where the
  weights come from (`lineage`: parents, recipe, photos, commit; licence, validation numbers).
- The full sha256 is checked at every load, on the very bytes that are then parsed.
- Loading is strict: a missing, surplus or misshapen tensor is an error.
- Floating tensors are stored as float16 by default, which halves the file. Batch-norm variances
  stay float32 (small ones underflow in float16), as does any tensor float16 cannot hold, and the
  parts that a network names as exact (`exact_parts`). In memory everything is float32 again.
- Files are written to a temporary name and renamed, the record last.
- A name is that of shipped weights, or, if there are none of this name, of imported ones.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from overpaint import atomic, hashes, registry
from overpaint.errors import WeightsError
from overpaint.weights.lineage import Lineage, merge_ancestors

PRETRAINED = Path(__file__).parents[1] / "pretrained"

Kind = Literal["detector", "inpainter", "autoencoder", "part"]

REGISTRIES = {
    "detector": registry.detectors,
    "inpainter": registry.inpainters,
    "autoencoder": registry.autoencoders,
    "part": registry.parts,
}

FOLDER_VARIABLE = "OVERPAINT_WEIGHTS"
"""Environment variable that names the folder of imported weights."""

# A bare file name: a record must not point out of its folder.
_FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Published(BaseModel):
    """Where imported weights were published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: str
    """owner/name at a commit."""
    files: dict[str, str]
    """sha256 by name of each file that was imported."""


class WeightsRecord(Lineage):
    """What is known about one file of weights; the JSON beside it."""

    name: str = Field(pattern=_FILE_NAME)
    kind: Kind
    architecture: str
    """Name in the registry of `kind`."""
    config: dict[str, Any]
    """Keyword arguments of the registered factory."""
    file: str = Field(pattern=_FILE_NAME)
    """The weights, in the folder of the record."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)
    parameters: int = Field(ge=0)
    """Number of parameters of the model, buffers not counted."""
    data: str
    """Photos and masks it was trained on."""
    licence: str
    """Licence of the weights."""
    families: tuple[str, ...] = ()
    """Generator families whose real fills it was trained on."""
    validation: dict[str, float] = Field(default={})
    """Measured numbers by metric name, on validation data."""
    calibration: str | None = Field(default=None, pattern=_FILE_NAME)
    """Calibration JSON, in the folder of the record."""
    published: Published | None = None
    """None for weights that were trained here."""
    ancestors: tuple[Lineage, ...] = ()
    """Parents, their parents and so on, as their records describe them; the oldest first."""

    _folder: Path = PrivateAttr(default=PRETRAINED)

    @property
    def folder(self) -> Path:
        """Where the record was read from or written to."""
        return self._folder

    @property
    def path(self) -> Path:
        """The file of weights."""
        return self._folder / self.file

    @property
    def record_path(self) -> Path:
        """The record itself."""
        return self.path.with_suffix(".json")

    @property
    def is_shipped(self) -> bool:
        """Whether it lies among the weights that come with overpaint."""
        return atomic.is_same_file(self._folder, PRETRAINED)

    @property
    def lineage(self) -> Lineage:
        """The part of the record that says how the weights were made."""
        return Lineage(**{name: getattr(self, name) for name in Lineage.model_fields})


def save_weights(
    folder: str | Path,
    module: nn.Module,
    *,
    name: str,
    kind: Kind,
    architecture: str,
    config: dict[str, Any],
    data: str,
    recipe: str | None,
    commit: str,
    licence: str,
    families: tuple[str, ...] = (),
    overrides: Sequence[str] = (),
    config_hash: str | None = None,
    step: int | None = None,
    data_sha256: str | None = None,
    parents: Sequence[tuple[WeightsRecord, float]] = (),
    new_parts: Sequence[str] = (),
    validation: dict[str, float] | None = None,
    calibration: str | None = None,
    published: Published | None = None,
    dtype: torch.dtype = torch.float16,
) -> WeightsRecord:
    """Write NAME.safetensors and NAME.json to `folder`, replacing older ones.

    parents: records of the weights that these were made from, with their shares; other arguments
    as the fields of `WeightsRecord`. dtype: storage type of floating tensors; float32 makes save
    and load bit-equal.
    Raises WeightsError when a weight is not finite, the record is invalid, or a file cannot be
    written.
    """
    folder = Path(folder)
    exact = tuple(f"{part}." for part in getattr(module, "exact_parts", ()))
    state = {
        key: _prepare(key, value, torch.float32 if key.startswith(exact) else dtype)
        for key, value in module.state_dict().items()
    }
    content = safetensors.torch.save(state)
    try:
        record = WeightsRecord(
            name=name,
            kind=kind,
            architecture=architecture,
            config=config,
            file=f"{name}.safetensors",
            sha256=hashes.sha256(content),
            bytes=len(content),
            parameters=sum(p.numel() for p in module.parameters()),
            data=data,
            recipe=recipe,
            overrides=tuple(overrides),
            config_hash=config_hash,
            step=step,
            data_sha256=data_sha256,
            parents=tuple(record.as_parent(share) for record, share in parents),
            new_parts=tuple(new_parts),
            ancestors=merge_ancestors((*r.ancestors, r.lineage) for r, _ in parents),
            commit=commit,
            licence=licence,
            families=families,
            validation=validation or {},
            calibration=calibration,
            published=published,
        )
    except ValidationError as error:
        raise WeightsError(f"{folder / name}: the record is invalid: {error}") from error
    record._folder = folder
    atomic.make_folder(folder, WeightsError, "name another folder for the weights")
    atomic.write(record.path, content, WeightsError)
    text = record.model_dump_json(indent=2) + "\n"
    atomic.write(record.record_path, text.encode(), WeightsError)
    return record


def read_record(name_or_path: str | Path, *, kind: Kind | None = None) -> WeightsRecord:
    """Return the record of weights, by shipped or imported name or by a file's path.

    Raises WeightsError when there is none, it is malformed, of another file than the one beside it,
    or of another kind.
    """
    path = _find_record(name_or_path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise WeightsError(_describe_missing(name_or_path, path)) from error
    try:
        record = WeightsRecord.model_validate_json(text)
    except ValidationError as error:
        raise WeightsError(f"{path}: not a record of weights: {error}") from error
    file = path.with_suffix(".safetensors").name
    if record.file != file:
        raise WeightsError(
            f"{path}: is the record of {record.file}, not of {file}; give the path of "
            f"{record.file}, or, if {file} is a copy of it, write this name into `file` of the "
            "record"
        )
    if kind is not None and record.kind != kind:
        raise WeightsError(f"{path}: these are weights of kind {record.kind!r}, not {kind!r}")
    record._folder = path.parent
    return record


def load_weights(
    name_or_path: str | Path, *, kind: Kind | None = None
) -> tuple[WeightsRecord, dict[str, Tensor]]:
    """Return the record and the state dict, floating tensors as float32 on the CPU.

    name_or_path: a name in overpaint/pretrained or, where there is none, in
    `find_imported_folder()`; or a path to a `.json` or `.safetensors` file.
    Raises WeightsError when a file is missing or damaged, or of another kind.
    """
    record = read_record(name_or_path, kind=kind)
    return record, _read_state(record)


def build(record: WeightsRecord, state: dict[str, Tensor] | None = None) -> nn.Module:
    """Return the recorded model with its weights, in eval mode.

    state: what `load_weights` returned; read (and checked) from the record's folder when None.
    Raises UnknownNameError for an architecture nobody registered, WeightsError when the weights
    do not fit it.
    """
    if state is None:
        state = _read_state(record)
    entry = REGISTRIES[record.kind].get(record.architecture)
    try:
        module: nn.Module = entry.factory(**record.config)
    except TypeError as error:
        raise WeightsError(
            f"{record.path}: {record.architecture} does not take the recorded configuration "
            f"{record.config}: {error}"
        ) from error
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise WeightsError(
            f"{record.path}: the weights do not fit {record.architecture} with "
            f"{record.config}; use weights of this version, or train again. {error}"
        ) from error
    return module.eval()


def list_records(
    folder: str | Path | None = None,
    *,
    imported: bool = False,
    problem: Callable[[str], None] | None = None,
) -> list[WeightsRecord]:
    """Return the records in `folder` (the shipped ones when None), sorted by name.

    imported: after the shipped ones, also the imported ones that a name finds. problem: called with
    a line on each file of weights whose record is missing or wrong, and the others are returned;
    None raises WeightsError for the first.
    """
    folders = [PRETRAINED if folder is None else Path(folder)]
    folders += _list_folders()[1:] if imported else []
    found: dict[str, WeightsRecord] = {}
    for place in folders:
        for path in sorted(place.glob("*.safetensors")):
            if path.stem in found:
                continue
            try:
                found[path.stem] = read_record(path)
            except WeightsError as error:
                if problem is None:
                    raise
                problem(str(error))
    return list(found.values())


def find_imported_folder() -> Path:
    """Where imported weights lie: what OVERPAINT_WEIGHTS names, otherwise in the user's data.

    Raises WeightsError where none is named and the user has no home directory.
    """
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named)
    if data := os.environ.get("XDG_DATA_HOME"):
        return Path(data) / "overpaint" / "weights"
    try:
        home = Path.home()
    except RuntimeError as error:
        raise WeightsError(
            f"this user has no home directory for imported weights; set {FOLDER_VARIABLE} to a "
            "folder"
        ) from error
    return home / ".local" / "share" / "overpaint" / "weights"


def has_weights(name: str) -> bool:
    """Whether a name stands for shipped or imported weights."""
    return any((folder / f"{name}.safetensors").is_file() for folder in _list_folders())


def is_imported_folder(folder: Path) -> bool:
    """Whether names of imported weights are looked up in a folder."""
    return any(atomic.is_same_file(folder, place) for place in _list_folders()[1:])


def is_shipped(name: str) -> bool:
    """Whether weights of this name come with overpaint; they then win over imported ones."""
    return (PRETRAINED / f"{name}.safetensors").is_file()


def _prepare(key: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    """One tensor as it goes to disk."""
    value = value.detach().cpu().contiguous()
    if not value.is_floating_point():
        return value
    if not value.isfinite().all():
        raise WeightsError(f"{key} holds NaN or infinity: save an earlier state of the training")
    small = value.to(dtype)
    if key.endswith("running_var") or not small.isfinite().all():
        return value.float()
    return small


def _read_state(record: WeightsRecord) -> dict[str, Tensor]:
    try:
        content = record.path.read_bytes()
    except OSError as error:
        raise WeightsError(_describe_missing(record.name, record.path)) from error
    found = hashes.sha256(content)
    if found != record.sha256:
        raise WeightsError(
            f"{record.path} is damaged or was replaced: its sha256 is {found} "
            f"({len(content)} bytes), the record says {record.sha256} ({record.bytes} bytes); "
            "fetch the file again, or install overpaint again"
        )
    try:
        state = safetensors.torch.load(content)
    except SafetensorError as error:
        raise WeightsError(f"{record.path} is not a safetensors file: {error}") from error
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def _find_record(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.suffix in (".json", ".safetensors"):
        return path.with_suffix(".json")
    if path.name != str(name_or_path):
        raise WeightsError(f"{path}: give the path of the .json record or the .safetensors file")
    found = (folder / f"{path}.json" for folder in _list_folders())
    return next((record for record in found if record.is_file()), PRETRAINED / f"{path}.json")


def _list_folders() -> list[Path]:
    """Where names are looked up, in this order: the shipped ones, and the imported ones if there
    can be any."""
    try:
        return [PRETRAINED, find_imported_folder()]
    except WeightsError:
        return [PRETRAINED]


def _describe_missing(name_or_path: str | Path, path: Path) -> str:
    shipped, *others = (
        ", ".join(p.stem for p in sorted(folder.glob("*.safetensors")))
        for folder in _list_folders()
    )
    imported = ", ".join(filter(None, others))
    return (
        f"{name_or_path}: cannot read {path}; give the path of a .safetensors file with its "
        f".json record beside it, or one of the shipped names: {shipped or 'none'}"
        f"{f', or of the imported ones: {imported}' if imported else ''}"
    )
