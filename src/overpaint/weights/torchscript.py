"""The tensors of a TorchScript archive, read without running anything that it holds.

A zip that `torch.save` wrote is of the same build, and is read the same way where its pickle names
classes that are not here (`checkpoints`).

- An archive is a zip of code, raw storages and `data.pkl`, a pickle of the module's attributes.
  `torch.jit.load` would compile the code. Here only the pickle and the storages are read.
- The pickle is not unpickled. Its opcodes are taken one by one (`pickletools`), and what they would
  import, call or build becomes a description of that: nothing is looked up, and nothing is called.
- Of the descriptions, those of a tensor are followed; all others are values of no use here.
- Parameters, buffers and other tensors are not told apart: each gets the path of its attribute.
- A module that was frozen keeps its weights as constants of its code, and is of no use here.

Sources: the documentation of `pickletools`, and PyTorch's notes on serialisation (no code taken).
"""

import io
import math
import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from overpaint.errors import WeightsError

_DTYPES = {
    "torch DoubleStorage": torch.float64,
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
}
_REBUILD = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_ORDERED = "collections OrderedDict"
_TAGGED = "torch.jit._pickle restore_type_tag"
_MAX_VALUES = 1_000_000
"""Values in one archive; a pickle of a few bytes can stand for any number of them."""


@dataclass(frozen=True, slots=True)
class _Name:
    """What a pickle would import: "module name"."""

    text: str


@dataclass(frozen=True, slots=True)
class _Call:
    """What a pickle would call."""

    function: Any
    arguments: Any


@dataclass(frozen=True, slots=True)
class _Storage:
    """What a pickle refers to outside of itself."""

    key: Any


@dataclass(slots=True, eq=False)
class _Object:
    """What a pickle would build: a module, with its attributes."""

    state: Any = None


def is_torchscript(names: list[str]) -> bool:
    """Whether a zip archive with these members is one of TorchScript."""
    return any(name.endswith("/constants.pkl") for name in names)


def read_torchscript(data: bytes, *, modules: bool = True) -> Any:
    """The attributes as nested dicts and lists; a tensor wherever the archive has one.

    data: the archive. modules: whether objects are modules, whose attributes count; otherwise they
    stay descriptions, as does all that is no tensor and no plain value. Raises WeightsError,
    without the file's name, for what is damaged or not understood.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _Reader(archive, modules).read()
    except WeightsError:
        raise
    # All that a damaged or forged file can lead to: zip, opcodes, stack, shapes, endless nesting.
    except (
        *(zipfile.BadZipFile, EOFError, OSError, ValueError, TypeError),
        *(LookupError, AttributeError, RuntimeError, OverflowError),
    ) as error:
        raise WeightsError(f"the TorchScript archive is damaged ({error})") from error


class _Reader:
    def __init__(self, archive: zipfile.ZipFile, modules: bool) -> None:
        self.archive, self.modules = archive, modules
        names = archive.namelist()
        (self.root,) = {n.removesuffix("data.pkl") for n in names if n.endswith("/data.pkl")}
        self.storages: dict[str, Tensor] = {}
        self.num_values = 0
        order = f"{self.root}byteorder"
        if order in names and archive.read(order) != b"little":
            raise WeightsError("the TorchScript archive was written on a big-endian machine")

    def read(self) -> Any:
        return self._read_value(describe_pickle(self.archive.read(f"{self.root}data.pkl")))

    def _read_value(self, found: Any) -> Any:
        self.num_values += 1
        if self.num_values > _MAX_VALUES:
            raise WeightsError(f"the TorchScript archive holds more than {_MAX_VALUES:,} values")
        match found:
            case _Object() if self.modules:
                return self._read_value(found.state)
            case _Call(function=_Name(text=name)) if name == _REBUILD:
                return self._read_tensor(*found.arguments[:4])
            case _Call(function=_Name(text=name)) if name in (_TAGGED, _PARAMETER):
                return self._read_value(found.arguments[0])
            case dict():
                return {key: self._read_value(value) for key, value in found.items()}
            case list() | tuple():
                return [self._read_value(value) for value in found]
        return found

    def _read_tensor(self, storage: _Storage, offset: int, size: Any, stride: Any) -> Tensor:
        flat = self._read_storage(storage)
        if math.prod(size) > flat.numel():  # a copy of it would take more memory than the file
            raise WeightsError(f"a tensor of shape {size} in a storage of {flat.numel()} values")
        return flat.as_strided(size, stride, offset)

    def _read_storage(self, storage: _Storage) -> Tensor:
        _, kind, key, _, length = storage.key
        dtype = _DTYPES[kind.text]
        path = f"{self.root}data/{key}"
        if path not in self.storages:
            info = self.archive.getinfo(path)
            stored = info.compress_type == zipfile.ZIP_STORED
            if not stored or info.file_size != length * dtype.itemsize:
                raise WeightsError(f"storage {key} of the TorchScript archive is damaged")
            content = bytearray(self.archive.read(info))
            empty = torch.empty(0, dtype=dtype)
            self.storages[path] = torch.frombuffer(content, dtype=dtype) if content else empty
        return self.storages[path]


def list_imports(data: bytes) -> set[str]:
    """What the pickle of a zip checkpoint would import, each "module name".

    Raises what damaged files lead to: any kind of exception.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        opcodes = list(pickletools.genops(archive.read(member)))
    if any(opcode.name in ("STACK_GLOBAL", "INST", "EXT1") for opcode, _, _ in opcodes):
        return {"an unusual opcode"}  # torch.save writes none of these
    return {str(argument) for opcode, argument, _ in opcodes if opcode.name == "GLOBAL"}


def describe_pickle(data: bytes) -> Any:
    """What a pickle describes, with nothing imported, called or built.

    Knows the opcodes that TorchScript and torch.save write; raises WeightsError for any other.
    """
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in _PLAIN:
            machine.stack.append(argument)
        elif opcode.name in _CONSTANTS:
            machine.stack.append(_CONSTANTS[opcode.name]())
        elif opcode.name in _STEPS:
            _STEPS[opcode.name](machine, argument)
        elif opcode.name not in ("PROTO", "STOP"):
            raise WeightsError(f"the archive's pickle has the unknown opcode {opcode.name}")
    return machine.stack.pop()


class _Machine:
    """The stack, marks and memo that the opcodes of a pickle work on."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def take_since_mark(self) -> list[Any]:
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def put(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def get(self, key: int) -> None:
        self.stack.append(self.memo[key])

    def tuple_(self, _: Any) -> None:
        self.stack.append(tuple(self.take_since_mark()))

    def append(self, _: Any) -> None:
        self.fill([self.stack.pop()])

    def appends(self, _: Any) -> None:
        self.fill(self.take_since_mark())

    def set_item(self, _: Any) -> None:
        key, value = self.stack.pop(-2), self.stack.pop()
        self.fill([key, value])

    def set_items(self, _: Any) -> None:
        self.fill(self.take_since_mark())

    def fill(self, values: list[Any]) -> None:
        """Add values, or keys and values in turns, to the topmost; not to what is a description."""
        match self.stack[-1]:
            case dict() as target:
                target.update(zip(values[::2], values[1::2], strict=True))
            case list() as target:
                target.extend(values)
            case _Call() | _Object():
                pass
            case other:
                raise WeightsError(f"the archive's pickle fills in a {type(other).__name__}")

    def name(self, text: str) -> None:
        self.stack.append(_Name(text))

    def call(self, _: Any) -> None:
        arguments = self.stack.pop()
        function = self.stack.pop()
        ordered = function == _Name(_ORDERED) and not arguments  # a state dict; filled afterwards
        self.stack.append({} if ordered else _Call(function, arguments))

    def new(self, _: Any) -> None:
        del self.stack[-2:]
        self.stack.append(_Object())

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], dict):  # of a state dict it is its modules' versions
            self.stack[-1].state = state

    def storage(self, _: Any) -> None:
        self.stack.append(_Storage(self.stack.pop()))


def _make_tuple_step(length: int) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, _: Any) -> None:
        machine.stack[-length:] = [tuple(machine.stack[-length:])]

    return step


_PLAIN = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "TUPLE": _Machine.tuple_,
    "TUPLE1": _make_tuple_step(1),
    "TUPLE2": _make_tuple_step(2),
    "TUPLE3": _make_tuple_step(3),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.name,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.new,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.storage,
}
