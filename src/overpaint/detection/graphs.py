"""Exported detectors as detectors: run by onnxruntime or OpenVINO, on the processor.

- Each has the contract of any `Detector`: what looks at a photo's size in Python, the padding to
  the stride and the crop, stays outside of the graph (`Detector.examine`).
- fp32 is asked for in so many words: by default OpenVINO computes in bfloat16 where the processor
  can, which moves logits in the first digit.
- OpenVINO pins threads to processors by default, and several processes would share one.
- Neither is believed: `measure_difference` compares what two detectors say.
"""

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from overpaint.detectors.base import Detector, Findings
from overpaint.errors import WeightsError

PARITY = 1e-3
"""Largest difference of a logit from torch's."""

_COMPARED = ((131, 200), (256, 173), (840, 904))
"""Height and width. The last is that of a tile: what is summed over a whole tile, as the statistics
of NIX-Net are, differs more the larger it is."""

_OUTPUTS = ("logits", "score", "confidence")


class GraphDetector(Detector):
    """An exported detector; a subclass says what runs its graph."""

    runtime: ClassVar[str]
    """What `--runtime` calls it, and the extra that installs it."""
    package: ClassVar[str]

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        """threads: of the network; None takes torch's number. Raises `WeightsError`."""
        super().__init__()
        self.path = Path(path)
        self.version = str(self.imported().__version__).partition("-")[0]
        try:
            about = self._load(str(path), threads or torch.get_num_threads())
            self.stride = int(about["overpaint.stride"])  # type: ignore[misc]  # of this file
            self.tile = int(about["overpaint.tile"])
            self.weights_sha256 = about["overpaint.weights_sha256"]
        except Exception as error:  # neither runtime's errors have another base
            raise WeightsError(
                f"{path}: no detector exported by this overpaint ({error}); export it anew with "
                "`overpaint export`"
            ) from error
        self.eval()

    @classmethod
    def imported(cls) -> Any:
        """The package; `WeightsError`, naming the extra to install, without it."""
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
        """Take a file, and return what it says of itself."""

    @abstractmethod
    def _run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs by name, for float32 (1, 3, h, w)."""

    def prepare(self, height: int, width: int) -> None:
        """Make ready for many photos of one size, pixels, where that saves time or memory."""

    def release(self) -> None:
        """Give back the memory of the maps, where it is kept from one photo to the next."""

    def _compute_logits(self, image: Tensor) -> Findings:
        found = self._run(np.ascontiguousarray(image.numpy()))
        return Findings(**{name: torch.from_numpy(value) for name, value in found.items()})


class OnnxDetector(GraphDetector):
    """Run by onnxruntime."""

    runtime = "onnx"
    package = "onnxruntime"

    def _load(self, path: str, threads: int) -> dict[str, str]:
        package = self.imported()
        options = package.SessionOptions()
        options.intra_op_num_threads = threads
        # Both keep memory by shape, and photos come in many.
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
        self._core = self.imported().Core()
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
        self._fixed, self._size = None, (0, 0)
        if (precision := self._compiled.get_property("INFERENCE_PRECISION_HINT")) != (
            self.imported().Type.f32
        ):
            raise RuntimeError(f"OpenVINO computes in {precision.get_type_name()}, not in fp32")
        self._names = [output.get_any_name() for output in self._compiled.outputs]
        names = ("overpaint.stride", "overpaint.tile", "overpaint.weights_sha256")
        return {name: model.get_rt_info(["framework", name]).value for name in names}

    def prepare(self, height: int, width: int) -> None:
        """Compile a graph for this size alone, which takes half the memory for its maps."""
        size = (-(-height // self.stride) * self.stride, -(-width // self.stride) * self.stride)
        if self._size != size:
            self._fixed = None  # the memory of the one before, first
            model = self._core.read_model(self.path)
            model.reshape([1, 3, *size])
            self._fixed, self._size = self._core.compile_model(model, "CPU", self._settings), size

    def _run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        graph = self._compiled
        if self._fixed is not None and self._size == image.shape[-2:]:
            graph = self._fixed
        found = graph([image], share_inputs=True)
        return dict(zip(self._names, found.values(), strict=True))

    def release(self) -> None:
        self._compiled.release_memory()
        if self._fixed is not None:
            self._fixed.release_memory()


GRAPHS: tuple[type[GraphDetector], ...] = (OnnxDetector, OpenVinoDetector)


def graph_detector() -> type[GraphDetector]:
    """One that is installed; `WeightsError` where none is."""
    for kind in GRAPHS:
        try:
            kind.imported()
        except WeightsError:
            continue
        return kind
    raise WeightsError(
        "this needs onnxruntime or openvino: pip install 'overpaint[onnx]' or 'overpaint[openvino]'"
    )


def found_in(detector: Detector, image: Tensor) -> Findings:
    """What it says of sides that are multiples of its stride, without the checks and the crop."""
    found = detector._compute_logits(image)
    return found if isinstance(found, Findings) else Findings(found)


def measure_difference(one: Detector, other: Detector) -> float:
    """Largest difference of what two detectors say, over photos of several sizes."""
    generator, largest = torch.Generator().manual_seed(1), 0.0
    for height, width in _COMPARED:
        size = min(height, one.tile), min(width, one.tile)
        image = make_photo(size, generator).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            found, expected = other.examine(image), one.examine(image)
        for name in _OUTPUTS:
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
