"""Detectors exported to ONNX, for other runtimes than torch (`overpaint.detection.graphs`).

- The graph holds the network alone. Padding to the stride and cropping depend on the photo's size,
  which a trace would fix, so they are done outside the graph (`Detector.examine`).
- Height and width are dynamic; they have to be multiples of the stride. One photo at a time.
- A trace may fix other values, too. An export is therefore compared with torch at other sizes than
  the traced one, and refused where a logit differs by more than `PARITY`.
- fp32 throughout. The file states the weights from which it was made.
- torch's exporter by TorchScript is used, because it exports all our networks with dynamic sizes.
  It does not know every function of torch: `Tensor.mT` and `median` are not among them.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from overpaint import __version__, atomic
from overpaint.atomic import is_same_file, make_folder
from overpaint.detection.graphs import (
    OUTPUTS,
    PARITY,
    compute_findings,
    find_installed_graph,
    measure_difference,
)
from overpaint.detectors.base import Detector
from overpaint.errors import WeightsError
from overpaint.terminal import discard_stdout
from overpaint.weights import WeightsRecord, build, load_weights
from overpaint.weights.resolve import find

OPSET = 17

_TRACED = (192, 256)  # height and width, about; neither is special to any network of ours


class NotExportableError(WeightsError):
    """A network with a function that torch cannot export."""


@dataclass(frozen=True, slots=True)
class Export:
    """An exported detector."""

    path: Path
    record: WeightsRecord
    difference: float
    """Largest absolute difference of a logit from torch's, over the sizes that were compared."""


def export_onnx(model: str | Path, out: str | Path | None = None) -> Export:
    """Export a detector by its name or weights file; out: None writes NAME.onnx here.

    Raises `WeightsError` for missing packages, for a network whose graph would differ from it, and
    where the file cannot be written or would replace the weights or their record;
    `UnknownNameError`.
    """
    record, state = load_weights(find(model, "detector").path, kind="detector")
    path = Path(f"{record.name}.onnx") if out is None else Path(out)
    if any(is_same_file(path, kept) for kept in (record.path, record.record_path)):
        raise WeightsError(f"{path}: this is an input and is never written over; name another file")
    module = _build_detector(record, state)
    with _exporting(module, record, path) as file:
        largest = measure_difference(module, find_installed_graph()(file))
        if not largest <= PARITY:
            raise WeightsError(
                f"{record.name}: a logit of the exported graph differs by {largest:.2g} from "
                f"torch's, more than {PARITY:g}; this network cannot be exported"
            )
    return Export(path, record, largest)


def export_cached(model: str | Path) -> Path:
    """The exported file of a model in the user's cache; it is exported if there is none yet.

    Not compared with torch here: `runtimes.load_runtime` does so, for each processor and runtime.
    That torch cannot export a network is stored there, too: trying takes many seconds. Errors as
    of `export_onnx`.
    """
    record = find(model, "detector")
    name = f"{record.name}-{record.sha256[:16]}-{__version__}-{OPSET}"
    path = make_cache_folder() / f"{name}.onnx"
    if path.exists():
        return path
    failed = path.with_name(f"{name}-torch-{torch.__version__}.failed")
    with contextlib.suppress(OSError, UnicodeDecodeError):
        raise NotExportableError(failed.read_text(encoding="utf-8"))
    record, state = load_weights(record.path, kind="detector")
    try:
        with _exporting(_build_detector(record, state), record, path):
            pass
    except NotExportableError as error:
        atomic.write(failed, str(error).encode(), WeightsError)
        raise
    return path


def make_cache_folder() -> Path:
    """Folder of exported graphs and of measured times: OVERPAINT_CACHE, or in the user's cache.

    Raises `WeightsError` where it cannot be made.
    """
    if named := os.environ.get("OVERPAINT_CACHE"):
        folder = Path(named)
    elif cache := os.environ.get("XDG_CACHE_HOME"):
        folder = Path(cache) / "overpaint"
    else:
        try:
            folder = Path.home() / ".cache" / "overpaint"
        except RuntimeError as error:
            raise WeightsError(
                "this user has no home directory for exported graphs; set OVERPAINT_CACHE to a "
                "folder, or use --runtime torch"
            ) from error
    remedy = "set OVERPAINT_CACHE to another folder, or use --runtime torch"
    make_folder(folder, WeightsError, remedy)
    return folder


class _Graph(nn.Module):
    """The part of a detector that is exported."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        found = compute_findings(self.detector, image)
        return tuple(x for name in OUTPUTS if (x := getattr(found, name)) is not None)


def _build_detector(record: WeightsRecord, state: dict[str, Tensor]) -> Detector:
    module = build(record, state)
    if not isinstance(module, Detector):
        raise WeightsError(f"{record.name}: {type(module).__name__} is not an overpaint detector")
    return module


@contextlib.contextmanager
def _exporting(module: Detector, record: WeightsRecord, path: Path) -> Iterator[Path]:
    """A temporary file with a detector's graph, which becomes `path` at the end of the block."""
    graph, stride = _Graph(module).eval(), module.stride
    image = torch.rand(
        (1, 3, *(-(-side // stride) * stride for side in _TRACED)),
        generator=torch.Generator().manual_seed(0),
    )
    with torch.inference_mode():
        found = compute_findings(module, image)
    names = [name for name in OUTPUTS if getattr(found, name) is not None]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _write_onnx(graph, image, names, temporary)
        _describe(temporary, record, module)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_onnx(graph: nn.Module, image: Tensor, names: list[str], path: Path) -> None:
    sizes = {2: "height", 3: "width"}
    axes = {name: sizes for name in ("image", *names) if name != "score"}
    try:
        # Warnings about branches that a trace fixes: `export_onnx` compares graph and network.
        # For a failed export, torch prints the whole graph.
        with warnings.catch_warnings(), discard_stdout():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph,
                (image,),
                str(path),
                input_names=["image"],
                output_names=names,
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise NotExportableError(
            f"this network cannot be exported to ONNX ({str(error).splitlines()[0]}); use "
            "--runtime torch"
        ) from error


def _describe(path: Path, record: WeightsRecord, module: Detector) -> None:
    """Add metadata to the file: the weights and what `GraphDetector` reads."""
    try:
        import onnx
    except ImportError as error:
        raise WeightsError("export needs onnx: pip install 'overpaint[onnx]'") from error
    model = onnx.load(path)
    onnx.checker.check_model(model)
    about = {
        "overpaint.version": __version__,
        "overpaint.model": record.name,
        "overpaint.weights_sha256": record.sha256,
        "overpaint.licence": record.licence,
        "overpaint.stride": str(module.stride),
        "overpaint.tile": str(module.tile),
    }
    onnx.helper.set_model_props(model, about)
    path.write_bytes(model.SerializeToString())
