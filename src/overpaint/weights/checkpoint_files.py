"""Checkpoints that others published: their tensors under flat names, and nothing of them run.

- The content decides how a file is read, and not its suffix. What is hashed is what is decoded.
- PyTorch's files, zip or older, go through `torch.load(weights_only=True)`, which refuses a pickle
  that would import anything but tensors; NumPy's numbers, which trainings leave beside the weights,
  are admitted. TorchScript is read without being loaded (`weights.torchscript`), and so is a
  checkpoint that also names classes of the programs that trained it, as those of PyTorch Lightning
  do (LaMa's best.ckpt): what such a class would build is left out.
- Keras files (HDF5) need the extra `keras`, and are refused when they name other files for their
  numbers. TensorFlow checkpoints need TensorFlow's own reader, which is no extra.
- Nested names are joined by dots, as are the slashes of Keras and TensorFlow. What is no tensor is
  left out, and a note says so.
"""

import io
import pickle
import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from overpaint import hashes
from overpaint.errors import WeightsError
from overpaint.weights.torchscript import is_torchscript, list_imports, read_torchscript

_TENSORFLOW = re.compile(r"\.(?:index|meta|data-\d{5}-of-\d{5})$")
_ZIP, _HDF5 = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"
_SHOWN = 4  # names in one note
_OF_TRAININGS = ("pytorch_lightning", "lightning", "omegaconf")
_OF_TENSORS = ("torch", "collections", "numpy", "_codecs", "typing")
_PLAIN = {"bool", "dict", "float", "int", "list", "long", "object", "set", "str", "tuple"}
_OF_PYTHON = {f"{module} {name}" for module in ("builtins", "__builtin__") for name in _PLAIN}


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The tensors of one published file, on the CPU."""

    content: dict[str, Any]
    """Nested as in the file, lists as mappings by number; tensors alone."""
    files: dict[str, str]
    """sha256 by file name; more than one for TensorFlow."""
    notes: tuple[str, ...] = ()
    """What was left out."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """By names joined with dots."""
        return flatten(self.content)[0]


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a file of PyTorch, TorchScript, safetensors, Keras or TensorFlow.

    path: the file; of a TensorFlow checkpoint any of its parts, or their common prefix. Raises
    WeightsError for a file that cannot be read, that holds code, or that holds no named tensor.
    """
    path = Path(path)
    prefix = strip_part(path)
    if prefix != path or path.with_name(f"{path.name}.index").is_file():
        beside = sorted(p for p in path.parent.glob("*") if strip_part(p) == prefix != p)
        parts = {part.name: hashes.sha256(_read_bytes(part)) for part in beside}
        nested = _read_tensorflow(prefix)
    else:
        data = _read_bytes(path)
        parts, nested = {path.name: hashes.sha256(data)}, _decode(path, data)
    try:
        tensors, others = flatten(nested)
    except RecursionError as error:
        raise WeightsError(f"{path}: nested without end; it was forged or is damaged") from error
    if not tensors:
        raise WeightsError(f"{path}: holds no tensor under a name; is it the right file?")
    return Checkpoint(_keep_tensors(nested), parts, _describe_left_out(path, others))


def flatten(nested: Any) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors in nested mappings and sequences by dotted names, and the names of the rest.

    Raises WeightsError when two tensors come to one name.
    """
    tensors: dict[str, Tensor] = {}
    others: list[str] = []
    for name, value in _list_leaves(nested, ""):
        if not isinstance(value, Tensor):
            others.append(name)
        elif name in tensors:
            raise WeightsError(f"the checkpoint has two tensors of the name {name}")
        else:
            tensors[name] = value.detach()
    tensors.pop("", None)
    return tensors, others


def _decode(path: Path, data: bytes) -> Any:
    """Nested tensors of one file's bytes."""
    if data.startswith(_HDF5):
        return _read_hdf5(path, data)
    if data[8:9] == b"{":  # after the length of the header
        try:
            return safetensors.torch.load(data)
        except SafetensorError as error:
            raise WeightsError(f"{path}: a damaged safetensors file ({error})") from error
    if not data.startswith(_ZIP):
        if tarfile.is_tarfile(io.BytesIO(data)):
            raise WeightsError(f"{path}: a tar archive; unpack it and give the checkpoint inside")
        return _read_torch(path, data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise WeightsError(f"{path}: damaged ({error}); download the file again") from error
    if not any(name.endswith("/data.pkl") for name in names):
        raise WeightsError(f"{path}: a zip archive; unpack it and give the checkpoint inside")
    if not is_torchscript(names):
        return _read_torch(path, data)
    try:
        return dict(_list_leaves(read_torchscript(data), ""))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}; download the file again") from error


def _read_torch(path: Path, data: bytes) -> Any:
    if torch.__version__ < "2.6":
        # CVE-2025-32434
        raise WeightsError(
            f"{path}: not read, as torch {torch.__version__} can be made to run code by a "
            "checkpoint; install torch 2.6 or newer"
        )
    try:
        with torch.serialization.safe_globals(_list_number_types()):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if _is_of_a_training(data):
            return read_torchscript(data, modules=False)
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise WeightsError(f"{path}: not a checkpoint that torch can read safely") from error
        raise WeightsError(
            f"{path}: refused: it holds a pickle that would load {found[1]}, and nothing in a "
            "checkpoint is run; ask for a file that holds tensors alone, or, if you trust this "
            "one, save its tensors as .safetensors yourself"
        ) from error
    except Exception as error:  # what damaged files lead to is of every kind
        # Of Python, and of torch's allocator.
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise WeightsError(
                f"{path}: there is too little memory to read it, or it is damaged and claims a "
                "size that it does not have; free memory, or download it again"
            ) from error
        raise WeightsError(
            f"{path}: not a checkpoint, or damaged ({type(error).__name__}: {error})"
        ) from error


def _is_of_a_training(data: bytes) -> bool:
    """Whether all that a zip checkpoint's pickle names is of tensors and of known trainers."""
    try:
        names = list_imports(data) - _OF_PYTHON
        roots = {name.split()[0].split(".")[0] for name in names}
    except Exception:  # what damaged files lead to is of every kind
        return False
    return roots <= {*_OF_TRAININGS, *_OF_TENSORS} and not roots.isdisjoint(_OF_TRAININGS)


def _list_number_types() -> list[Any]:
    """NumPy's numbers for `safe_globals`; `scalar` under its names in NumPy 1 and 2."""
    scalar = np.float64(0).__reduce__()[0]
    names = [f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")]
    kinds = [type(np.dtype(code)) for code in ("?", "u1", "i4", "i8", "f2", "f4", "f8")]
    return [*((scalar, name) for name in names), np.dtype, *kinds]


def _read_hdf5(path: Path, data: bytes) -> dict[str, Any]:
    try:
        import h5py
    except ImportError as error:
        remedy = 'pip install "overpaint[keras]"'
        raise WeightsError(f"{path}: a Keras file, which needs h5py: {remedy}") from error
    found: dict[str, Any] = {}

    def take(name: str, item: Any) -> None:  # not called for links, which may lead to other files
        if not isinstance(item, h5py.Dataset):
            return
        if item.external or item.is_virtual:
            raise WeightsError(f"{path}: refused: {name} would be read from another file")
        found[name.replace("/", ".")] = _to_tensor(item[()])

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            file.visititems(take)
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{path}: a damaged Keras file ({error})") from error
    return found


def _read_tensorflow(prefix: Path) -> dict[str, Any]:
    try:
        import tensorflow  # type: ignore[import-not-found]
    except ImportError as error:
        raise WeightsError(
            f"{prefix}: a TensorFlow checkpoint, which needs its reader: pip install tensorflow"
        ) from error
    try:
        reader = tensorflow.train.load_checkpoint(str(prefix))
        names = sorted(reader.get_variable_to_shape_map())
        return {name.replace("/", "."): _to_tensor(reader.get_tensor(name)) for name in names}
    except Exception as error:  # TensorFlow has its own kinds
        raise WeightsError(f"{prefix}: a damaged TensorFlow checkpoint ({error})") from error


def _to_tensor(value: Any) -> Any:
    """An array of numbers as a tensor; anything else as it is."""
    array = np.asarray(value)
    return torch.from_numpy(np.array(array)) if array.dtype.kind in "biuf" else value


def _list_leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping | list | tuple):
        yield name, value
        return
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, inner in items:
        yield from _list_leaves(inner, f"{name}.{key}" if name else str(key))


def _keep_tensors(value: Any) -> Any:
    """Nested mappings of tensors alone; None where there is none."""
    if isinstance(value, Tensor):
        return value.detach()
    if not isinstance(value, Mapping | list | tuple):
        return None
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    found = ((str(key), _keep_tensors(inner)) for key, inner in items)
    return {key: inner for key, inner in found if inner is not None} or None


def _describe_left_out(path: Path, others: list[str]) -> tuple[str, ...]:
    if not others:
        return ()
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    return (f"{path.name}: left out what is no tensor: {', '.join(others[:_SHOWN])}{more}",)


def strip_part(path: Path) -> Path:
    """The common prefix of a TensorFlow checkpoint's parts; any other path as it is."""
    return path.with_name(_TENSORFLOW.sub("", path.name) or path.name)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); check the name") from error
