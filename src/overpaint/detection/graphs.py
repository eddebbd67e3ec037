"""Exported detectors, run by onnxruntime or OpenVINO on the processor.

- Each is a `Detector`: padding to the stride and cropping are done outside the graph
  (`Detector.examine`).
- fp32 is set explicitly: by default OpenVINO computes in bfloat16 on processors that support it,
  which changes the first digit of logits.
- OpenVINO's pinning of threads to processors is switched off: several processes would be pinned to
  the same one.
- `measure_difference` compares the outputs of two detectors. A graph whose logits differ from
  torch's is not used (`overpaint.detection.runtimes`).
"""

import threading
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from overpaint.detectors.base import Detector, Findings
from overpaint.errors import WeightsError
from overpaint.process import release_memory

PARITY = 1e-3
"""Largest accepted absolute difference of a logit from torch's."""

_COMPARED = ((131, 200), (256, 173), (840, 904))
"""Heights and widths, pixels. The last is the size of a tile: sums over a whole tile, such as the
statistics of NIX-Net, differ more the larger it is."""

OUTPUTS = ("logits", "score", "confidence")
"""Names of a graph's outputs, those of `Findings`; it has the first and those of its detector."""


class GraphDetector(Detector):
    """An exported detector; a subclass runs its graph."""

    runtime: ClassVar[str]
    """Its name for `--runtime`, which is also the extra that installs it."""
    package: ClassVar[str]

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        """threads: of the network; None takes torch's number. Raises `WeightsError`."""
        super().__init__()
        self.path = Path(path)
        self.in_use = threading.Lock()
        self.version = str(self.import_package().__version__).partition("-")[0]
        try:
            about = self._load(str(path), threads or torch.get_num_threads())
            self.stride = int(about["overpaint.stride"])  # type: ignore[misc]  # of this file
            self.tile = int(about["overpaint.tile"])
            self.weights_sha256 = about["overpaint.weights_sha256"]
        except Exception as error:  # the errors of the runtimes have no other common base
            raise WeightsError(
                f"{path}: no detector exported by this overpaint, or one that {self.package} "
                f"{self.version} cannot run ({error}); export it anew with `overpaint export`, or "
                "use --runtime torch"
            ) from error
        self.eval()

    @classmethod
    def import_package(cls) -> Any:
        """The package; raises `WeightsError`, naming the extra to install, if it is missing."""
        try:
            return __import__(cls.package)
        except ImportError as error:
            raise WeightsError(
                f"--runtime {cls.runtime} needs {cls.package}: "
                f"pip install 'overpaint[{cls.runtime}]'"
            ) from error

    @property
    def words(self) -> str:
        """Name and version, precision, device: for a record."""
        return f"{self.package} {self.version}, fp32, cpu"

    @abstractmethod
    def _load(self, path: str, threads: int) -> dict[str, str]:
        """Load a file; returns its metadata."""

    @abstractmethod
    def _run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs by name, for float32 (1, 3, h, w)."""

    def prepare(self, height: int, width: int, at_once: int) -> None:
        """Prepare for tiles of one size, pixels, where that saves time or memory.

        at_once: how many of them there are that may be processed at the same time. From here to
        `release` a thread needs the graph for itself: it takes the lock `in_use`.
        """

    def release(self) -> None:
        """Free the memory of feature maps that is kept from one photo to the next."""

    def _compute_logits(self, image: Tensor) -> Findings:
        found = self._run(np.ascontiguousarray(image.numpy()))
        return Findings(**{name: torch.from_numpy(value) for name, value in found.items()})


class OnnxDetector(GraphDetector):
    """Run by onnxruntime."""

    runtime = "onnx"
    package = "onnxruntime"

    def _load(self, path: str, threads: int) -> dict[str, str]:
        package = self.import_package()
        options = package.SessionOptions()
        options.intra_op_num_threads = threads
        # Both keep memory for each shape, and photos have many shapes.
        options.enable_mem_pattern = False
        options.enable_cpu_mem_arena = False
        self._session = package.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]
        return self._session.get_modelmeta().custom_metadata_map

    def _run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self._names, self._session.run(None, {"image": image}), strict=True))


class OpenVinoDetector(GraphDetector):
    """Run by OpenVINO."""

    runtime = "openvino"
    package = "openvino"

    def _load(self, path: str, threads: int) -> dict[str, str]:
        self._core = self.import_package().Core()
        self._threads = threads
        self._settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,
            # Convolutions compiled for earlier sizes: they save no measurable time, and their
            # memory grows with the number of sizes.
            "CPU_RUNTIME_CACHE_CAPACITY": 0,
        }
        model = self._core.read_model(path)
        self._compiled = self._core.compile_model(model, "CPU", self._settings)
        self._idle: list[Any] = []  # requests of the graph for all sizes
        self._fixed, self._size, self._fixed_idle = None, (0, 0), list[Any]()
        if (precision := self._compiled.get_property("INFERENCE_PRECISION_HINT")) != (
            self.import_package().Type.f32
        ):
            raise RuntimeError(f"OpenVINO computes in {precision.get_type_name()}, not in fp32")
        # An output may have a second name, that of the layer.
        self._names = [(o.get_names() & set(OUTPUTS)).pop() for o in self._compiled.outputs]
        names = ("overpaint.stride", "overpaint.tile", "overpaint.weights_sha256")
        return {name: model.get_rt_info(["framework", name]).value for name in names}

    def prepare(self, height: int, width: int, at_once: int) -> None:
        """Compile a graph for this size alone, which takes half the memory for its maps.

        Two tiles at once, each with half of the threads, take a fifth less time than two of which
        each has all.
        """
        size = (-(-height // self.stride) * self.stride, -(-width // self.stride) * self.stride)
        streams = min(2, at_once, self._threads)
        if (self._size, self.tiles_at_once) != (size, streams):
            self._fixed = None  # frees the memory of the earlier graph first
            self._fixed_idle.clear()
            model = self._core.read_model(self.path)
            model.reshape([1, 3, *size])
            settings = self._settings | {"NUM_STREAMS": streams}
            self._fixed, self._size = self._core.compile_model(model, "CPU", settings), size
            self.tiles_at_once = streams

    def _run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        graph, idle = self._compiled, self._idle
        if self._fixed is not None and self._size == image.shape[-2:]:
            graph, idle = self._fixed, self._fixed_idle
        try:
            request = idle.pop()
        except IndexError:  # all are in use by other threads
            request = graph.create_infer_request()
        found = request.infer([image], share_inputs=True)
        idle.append(request)
        return dict(zip(self._names, found.values(), strict=True))

    def release(self) -> None:
        self._compiled.release_memory()
        if self._fixed is not None:
            self._fixed.release_memory()
        release_memory()


GRAPHS: tuple[type[GraphDetector], ...] = (OnnxDetector, OpenVinoDetector)


def find_installed_graph() -> type[GraphDetector]:
    """The first kind that is installed; raises `WeightsError` where none is."""
    for kind in GRAPHS:
        try:
            kind.import_package()
        except WeightsError:
            continue
        return kind
    raise WeightsError(
        "this needs onnxruntime or openvino: pip install 'overpaint[onnx]' or 'overpaint[openvino]'"
    )


def compute_findings(detector: Detector, image: Tensor) -> Findings:
    """Outputs for sides that are multiples of the stride; nothing is checked or cropped."""
    found = detector._compute_logits(image)
    return found if isinstance(found, Findings) else Findings(found)


def measure_difference(one: Detector, other: Detector) -> float:
    """Largest absolute difference of two detectors' outputs, over photos of several sizes.

    Infinite where only one of them has an output.
    """
    generator, largest = torch.Generator().manual_seed(1), 0.0
    for height, width in _COMPARED:
        size = min(height, one.tile), min(width, one.tile)
        image = make_photo(size, generator).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            found, expected = other.examine(image), one.examine(image)
        for name in OUTPUTS:
            mine, theirs = getattr(found, name), getattr(expected, name)
            if (mine is None) != (theirs is None):
                return float("inf")
            if mine is not None and theirs is not None:
                largest = max(largest, float((mine - theirs).abs().max()))
    return largest


def make_photo(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Smooth colours with noise: float32 (1, 3, h, w) in [0, 1]."""
    coarse = torch.rand((1, 3, 12, 12), generator=generator)
    image = nn.functional.interpolate(coarse, size, mode="bilinear")
    return (image + 0.02 * torch.randn(image.shape, generator=generator)).clamp(0, 1)
