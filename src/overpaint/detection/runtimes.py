"""The runtime of a detector's network: torch, onnxruntime or OpenVINO.

- torch by default: it needs no other package, and its figures are those of the benchmarks.
- An exported network is compared with torch on this processor before it is used, and refused where
  a logit differs by more than `PARITY`. "auto" selects the fastest of the installed runtimes that
  pass.
- Difference, and time for "auto", are measured once, and stored in the user's cache for these
  weights, versions, number of threads and kind of processor.
- "torch-bf16" is torch with convolutions in bfloat16 (`overpaint.detection.bf16`). Its logits are
  others, so "auto" never selects it, and it is refused on a processor on which it is not faster.
- On a graphics card only "torch" is used.
"""

import contextlib
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import nn

from overpaint import __version__, atomic, hashes
from overpaint.detection.bf16 import Bf16Detector
from overpaint.detection.export import export_cached, make_cache_folder
from overpaint.detection.graphs import GRAPHS, PARITY, GraphDetector, make_photo, measure_difference
from overpaint.detection.tiles import examine_in_tiles
from overpaint.detectors.base import Detector
from overpaint.devices import RuntimeName
from overpaint.errors import InputError, WeightsError
from overpaint.weights import WeightsRecord

RUNTIMES: tuple[str, ...] = get_args(RuntimeName)

_TIMED, _OVERLAP = 512, 64
"""Side and overlap of the tiles that are timed, pixels."""
_TIMES = 5


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurement of a runtime on this machine."""

    difference: float
    """Largest absolute difference of a logit from torch's."""
    seconds: float | None
    """Time for one photo of 512 x 512 pixels; None where "auto" has not asked yet."""


def load_runtime(
    module: nn.Module, record: WeightsRecord | None, runtime: str, device: torch.device
) -> nn.Module:
    """The module unchanged for torch, otherwise a `GraphDetector` or a `Bf16Detector`.

    record: of the module's weights file; None for a module without one, which only torch can run.
    Raises `InputError` for an unknown runtime or one that cannot be used with this module or
    device, and `WeightsError` for a missing package or a network whose logits differ from torch's.
    """
    if runtime not in RUNTIMES:
        raise InputError(f"--runtime {runtime}: there is none such; give {', '.join(RUNTIMES)}")
    if runtime == "torch":
        return module
    can = isinstance(module, Detector) and record is not None and device.type == "cpu"
    if runtime == "auto":
        return _choose_fastest(module, record) if can and isinstance(module, Detector) else module
    if not can or record is None or not isinstance(module, Detector):
        why = "a module without a file of weights" if device.type == "cpu" else f"--device {device}"
        raise InputError(f"--runtime {runtime}: not for {why}; give --runtime torch")
    if runtime == Bf16Detector.runtime:
        return _reduce_precision(module, record)
    (kind,) = (kind for kind in GRAPHS if kind.runtime == runtime)
    kind.import_package()
    graph = kind(export_cached(record.path))
    (measured,) = _measure(module, [graph], record, timed=False)
    if not (found := measured.difference) <= PARITY:
        raise WeightsError(
            f"{record.name}: a logit of {graph.words} differs by {found:.2g} from torch's on this "
            f"machine, more than {PARITY:g}; use --runtime torch"
        )
    return graph


def name_runtime(module: nn.Module) -> str:
    """The name for `--runtime` of the runtime of a module."""
    return module.runtime if isinstance(module, GraphDetector | Bf16Detector) else "torch"


def describe_runtime(module: nn.Module, device: torch.device) -> str:
    """Runtime with its version, precision and device, for a record."""
    if isinstance(module, GraphDetector):
        return module.words
    if isinstance(module, Bf16Detector):
        return f"torch {torch.__version__}, bf16, {device}"
    kinds = {str(p.dtype).removeprefix("torch.") for p in module.parameters()} or {"float32"}
    names = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
    precision = "+".join(sorted(names.get(kind, kind) for kind in kinds))
    return f"torch {torch.__version__}, {precision}, {device}"


def _reduce_precision(module: Detector, record: WeightsRecord) -> Bf16Detector:
    reduced = Bf16Detector(module)
    plain, found = _measure(module, [module, reduced], record, timed=True)
    if (found.seconds or 0.0) >= (plain.seconds or 0.0):
        raise InputError(
            f"--runtime {reduced.runtime}: slower than fp32 on this processor "
            f"({found.seconds:.2g} s against {plain.seconds:.2g} s for a small photo); "
            "give --runtime torch or auto"
        )
    return reduced


def _choose_fastest(module: Detector, record: WeightsRecord | None) -> nn.Module:
    assert record is not None
    choices: list[Detector] = [module]
    for kind in GRAPHS:
        with contextlib.suppress(WeightsError):  # not installed, or cannot be exported
            kind.import_package()
            choices.append(kind(export_cached(record.path)))
    if len(choices) == 1:
        return module
    found = _measure(module, choices, record, timed=True)
    equal = [number for number, one in enumerate(found) if one.difference <= PARITY]
    return choices[min(equal, key=lambda number: found[number].seconds or 0.0)]


def _measure(
    module: Detector, choices: Sequence[Detector], record: WeightsRecord, *, timed: bool
) -> list[Measured]:
    """The measurements in the user's cache; missing ones are made and stored."""
    keys = [_make_key(choice, record) for choice in choices]
    path = make_cache_folder() / f"runtimes-{_name_processor()}.json"
    kept = _read_measurements(path)
    if not all(key in kept and (kept[key].seconds or not timed) for key in keys):
        differences = [0.0 if one is module else measure_difference(module, one) for one in choices]
        times = _time_choices(choices) if timed else [None] * len(choices)
        for key, difference, seconds in zip(keys, differences, times, strict=True):
            kept[key] = Measured(difference, seconds)
        # Another process may have stored other measurements since.
        merged = {name: asdict(one) for name, one in {**_read_measurements(path), **kept}.items()}
        atomic.write(path, (json.dumps(merged, indent=1) + "\n").encode(), WeightsError)
    return [kept[key] for key in keys]


def _make_key(choice: Detector, record: WeightsRecord) -> str:
    """Cache key: everything that a measurement depends on."""
    file = choice.path if isinstance(choice, GraphDetector) else record.path
    parts = hashes.file_sha256(file), __version__, torch.__version__
    said = describe_runtime(choice, torch.device("cpu"))
    return " / ".join((*parts, said, f"{torch.get_num_threads()} threads"))


def _read_measurements(path: Path) -> dict[str, Measured]:
    try:
        return {name: Measured(**one) for name, one in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError):  # none yet, or damaged: measured anew
        return {}


def _time_choices(choices: Sequence[Detector]) -> list[float]:
    """The shortest time of several runs of each on two tiles, after one that is not counted.

    The choices run in turns, so that other work on the machine slows all of them equally.
    """
    size = (_TIMED, 2 * _TIMED - _OVERLAP)
    image = make_photo(size, torch.Generator().manual_seed(0))
    for choice in choices:
        if isinstance(choice, GraphDetector):
            choice.prepare(_TIMED, _TIMED, 2)
    found: list[list[float]] = [[] for _ in choices]
    for _ in range(1 + _TIMES):
        for choice, times in zip(choices, found, strict=True):
            started = time.perf_counter()
            examine_in_tiles(
                choice.examine,
                image,
                tile=_TIMED,
                overlap=_OVERLAP,
                stride=choice.stride,
                at_once=choice.tiles_at_once,
            )
            times.append(time.perf_counter() - started)
    for choice in choices:
        if isinstance(choice, GraphDetector):
            choice.release()
    return [min(times[1:]) for times in found]


def _name_processor() -> str:
    """Kind of processor, as a part of a file's name."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        about = dict(line.split(":", 1) for line in lines if ":" in line)
        named = {key.strip(): value.strip() for key, value in about.items()}
        parts = ("model name", "cpu family", "model", "stepping")
        name = " ".join(named.get(part, "") for part in parts)
    return "-".join("".join(c if c.isalnum() else " " for c in name).split()) or "unknown"
