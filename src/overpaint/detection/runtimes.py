"""What runs a detector's network: torch, onnxruntime or OpenVINO, by one switch.

- torch by default: it needs no other package, and its figures are those of the benchmarks.
- An exported network is compared with torch on this processor before it is used (`PARITY`), and
  refused where a logit differs. "auto" takes the fastest of those that are installed and passed.
- Both are measured once, and kept in the user's cache for these weights, versions, threads and kind
  of processor.
- On a graphics card torch alone is used.
"""

import contextlib
import json
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from overpaint import __version__, atomic, hashes
from overpaint.detection.export import cache_folder, cached_onnx
from overpaint.detection.graphs import GRAPHS, PARITY, GraphDetector, difference, made_photo
from overpaint.detectors.base import Detector
from overpaint.errors import InputError, WeightsError
from overpaint.weights import WeightsRecord

Runtime = Literal["torch", "onnx", "openvino", "auto"]
RUNTIMES: tuple[str, ...] = get_args(Runtime)

_TIMED = (512, 512)
_TIMES = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """A runtime on this machine."""

    difference: float
    """Largest of a logit from torch's."""
    seconds: float
    """Of one photo of 512 x 512 pixels."""


def in_runtime(
    module: nn.Module, record: WeightsRecord | None, runtime: str, device: torch.device
) -> nn.Module:
    """The module as it is, or a `GraphDetector` in its place.

    record: of the module's weights, in a folder; None for a module without, which torch alone runs.
    Raises `InputError` for a runtime that there is not or that cannot be had here, and
    `WeightsError` for a missing package or a network that differs from torch's.
    """
    if runtime not in RUNTIMES:
        raise InputError(f"--runtime {runtime}: there is none such; give {', '.join(RUNTIMES)}")
    if runtime == "torch":
        return module
    can = isinstance(module, Detector) and record is not None and device.type == "cpu"
    if runtime == "auto":
        return _fastest(module, record) if can and isinstance(module, Detector) else module
    if not can or record is None or not isinstance(module, Detector):
        why = "a module without a file of weights" if device.type == "cpu" else f"--device {device}"
        raise InputError(f"--runtime {runtime}: not for {why}; give --runtime torch")
    (kind,) = (kind for kind in GRAPHS if kind.runtime == runtime)
    kind.imported()
    graph = kind(cached_onnx(record.path))
    if not (found := _measured(module, graph, record).difference) <= PARITY:
        raise WeightsError(
            f"{record.name}: a logit of {graph.words} differs by {found:.2g} from torch's on this "
            f"machine, more than {PARITY:g}; use --runtime torch"
        )
    return graph


def words(module: nn.Module, device: torch.device) -> str:
    """Runtime with its version, precision and device, for a record."""
    if isinstance(module, GraphDetector):
        return module.words
    kinds = {str(p.dtype).removeprefix("torch.") for p in module.parameters()} or {"float32"}
    names = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
    precision = "+".join(sorted(names.get(kind, kind) for kind in kinds))
    return f"torch {torch.__version__}, {precision}, {device}"


def _fastest(module: Detector, record: WeightsRecord | None) -> nn.Module:
    assert record is not None
    choices: dict[nn.Module, float] = {module: _measured(module, module, record).seconds}
    for kind in GRAPHS:
        with contextlib.suppress(WeightsError):  # not installed, or cannot be exported
            kind.imported()
            graph = kind(cached_onnx(record.path))
            found = _measured(module, graph, record)
            if found.difference <= PARITY:
                choices[graph] = found.seconds
    return min(choices, key=lambda choice: choices[choice])


def _measured(module: Detector, graph: Detector, record: WeightsRecord) -> Measured:
    """From the user's cache, or measured and kept there."""
    said = words(graph, torch.device("cpu"))
    file = graph.path if isinstance(graph, GraphDetector) else record.path
    key = " / ".join(
        (
            hashes.file_sha256(file),
            __version__,
            torch.__version__,
            said,
            f"{torch.get_num_threads()} threads",
        )
    )
    path = cache_folder() / f"runtimes-{_processor()}.json"
    kept = _kept(path)
    if key not in kept:
        largest = 0.0 if graph is module else difference(module, graph)
        kept[key] = Measured(largest, _seconds(graph))
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another process may have kept others meanwhile.
        merged = {name: asdict(one) for name, one in {**_kept(path), **kept}.items()}
        atomic.write(path, (json.dumps(merged, indent=1) + "\n").encode(), WeightsError)
    return kept[key]


def _kept(path: Path) -> dict[str, Measured]:
    try:
        return {name: Measured(**one) for name, one in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError):  # none yet, or damaged: measured anew
        return {}


def _seconds(detector: Detector) -> float:
    """The least of several runs, after one that is not counted."""
    image = made_photo(_TIMED, torch.Generator().manual_seed(0))
    image = image.contiguous(memory_format=torch.channels_last)
    found = []
    for _ in range(1 + _TIMES):
        started = time.perf_counter()
        with torch.inference_mode():
            detector.examine(image)
        found.append(time.perf_counter() - started)
    return min(found[1:])


def _processor() -> str:
    """Kind of processor, as a part of a file's name."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        about = dict(line.split(":", 1) for line in lines if ":" in line)
        named = {key.strip(): value.strip() for key, value in about.items()}
        parts = ("model name", "cpu family", "model", "stepping")
        name = " ".join(named.get(part, "") for part in parts)
    return "-".join("".join(c if c.isalnum() else " " for c in name).split()) or "unknown"
