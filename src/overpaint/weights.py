"""Trained weights on disk: one `.safetensors` file and one JSON record beside it.

- The record holds all that rebuilds the model (registry name and configuration) and where the
  weights come from (data, recipe, commit, licence, validation numbers).
- The full sha256 is checked at every load, on the very bytes that are then parsed.
- Loading is strict: a missing, surplus or misshapen tensor is an error.
- Floating tensors are stored as float16 by default, which halves the file. Batch-norm variances
  stay float32 (small ones underflow in float16), as does any tensor float16 cannot hold. In
  memory everything is float32 again.
- Files are written to a temporary name and renamed, the record last.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from overpaint import registry
from overpaint.errors import WeightsError

PRETRAINED = Path(__file__).parent / "pretrained"

Kind = Literal["detector", "inpainter", "autoencoder"]

_REGISTRIES = {
    "detector": registry.detectors,
    "inpainter": registry.inpainters,
    "autoencoder": registry.autoencoders,
}

# A bare file name: a record must not point out of its folder.
_FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class WeightsRecord(BaseModel):
    """What is known about one file of weights; the JSON beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    recipe: str
    """File that trains it."""
    commit: str
    """Commit of this project that trained it."""
    licence: str
    """Licence of the weights."""
    validation: dict[str, float] = {}
    """Measured numbers by metric name, on validation data."""
    calibration: str | None = Field(default=None, pattern=_FILE_NAME)
    """Calibration JSON, in the folder of the record."""

    _folder: Path = PrivateAttr(default=PRETRAINED)

    @property
    def folder(self) -> Path:
        """Where the record was read from or written to."""
        return self._folder

    @property
    def path(self) -> Path:
        """The file of weights."""
        return self._folder / self.file


def save_weights(
    folder: str | Path,
    module: nn.Module,
    *,
    name: str,
    kind: Kind,
    architecture: str,
    config: dict[str, Any],
    data: str,
    recipe: str,
    commit: str,
    licence: str,
    validation: dict[str, float] | None = None,
    calibration: str | None = None,
    dtype: torch.dtype = torch.float16,
) -> WeightsRecord:
    """Write NAME.safetensors and NAME.json to `folder`, replacing older ones.

    dtype: storage type of floating tensors; float32 makes save and load bit-equal.
    Raises WeightsError when a weight is not finite or the record is invalid.
    """
    folder = Path(folder)
    state = {key: _stored(key, value, dtype) for key, value in module.state_dict().items()}
    content = safetensors.torch.save(state)
    try:
        record = WeightsRecord(
            name=name,
            kind=kind,
            architecture=architecture,
            config=config,
            file=f"{name}.safetensors",
            sha256=hashlib.sha256(content).hexdigest(),
            bytes=len(content),
            parameters=sum(p.numel() for p in module.parameters()),
            data=data,
            recipe=recipe,
            commit=commit,
            licence=licence,
            validation=validation or {},
            calibration=calibration,
        )
    except ValidationError as error:
        raise WeightsError(f"{folder / name}: the record is invalid: {error}") from error
    record._folder = folder
    folder.mkdir(parents=True, exist_ok=True)
    _write(record.path, content)
    _write(folder / f"{name}.json", (record.model_dump_json(indent=2) + "\n").encode())
    return record


def read_record(name_or_path: str | Path, *, kind: Kind | None = None) -> WeightsRecord:
    """Return the record of shipped weights by name, or of a `.json` or `.safetensors` path.

    Raises WeightsError when there is none, it is malformed, or it is of another kind.
    """
    path = _record_path(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise WeightsError(_missing(name_or_path, path)) from error
    try:
        record = WeightsRecord.model_validate_json(text)
    except ValidationError as error:
        raise WeightsError(f"{path}: not a record of weights: {error}") from error
    if kind is not None and record.kind != kind:
        raise WeightsError(f"{path}: these are weights of kind {record.kind!r}, not {kind!r}")
    record._folder = path.parent
    return record


def load_weights(
    name_or_path: str | Path, *, kind: Kind | None = None
) -> tuple[WeightsRecord, dict[str, Tensor]]:
    """Return the record and the state dict, floating tensors as float32 on the CPU.

    name_or_path: a name in overpaint/pretrained, or a path to a `.json` or `.safetensors` file.
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
    entry = _REGISTRIES[record.kind].get(record.architecture)
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


def list_records(folder: str | Path | None = None) -> list[WeightsRecord]:
    """Return the records in `folder` (the shipped ones when None), sorted by name."""
    folder = PRETRAINED if folder is None else Path(folder)
    return [read_record(path) for path in sorted(folder.glob("*.safetensors"))]


def _stored(key: str, value: Tensor, dtype: torch.dtype) -> Tensor:
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
        raise WeightsError(_missing(record.name, record.path)) from error
    found = hashlib.sha256(content).hexdigest()
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


def _record_path(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.suffix in (".json", ".safetensors"):
        return path.with_suffix(".json")
    if path.name != str(name_or_path):
        raise WeightsError(f"{path}: give the path of the .json record or the .safetensors file")
    return PRETRAINED / f"{path}.json"


def _missing(name_or_path: str | Path, path: Path) -> str:
    shipped = ", ".join(p.stem for p in sorted(PRETRAINED.glob("*.safetensors"))) or "none"
    return (
        f"{name_or_path}: cannot read {path}; give the path of a .safetensors file with its "
        f".json record beside it, or one of the shipped names: {shipped}"
    )


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
