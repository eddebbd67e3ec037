"""Detection in one call: photos of any kind and size, one detector or several.

The last few detectors stay in memory.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from torch import nn

from overpaint import hashes
from overpaint.defaults import DEFAULT_DETECTOR
from overpaint.detection.fusion import FusedRunner
from overpaint.detection.memory import check_memory
from overpaint.detection.result import Detection, check_threshold
from overpaint.detection.runner import DetectorRunner
from overpaint.devices import RuntimeName
from overpaint.images.from_arrays import Picture, as_photo
from overpaint.weights import WeightsRecord
from overpaint.weights.resolve import ALL, load, select

Identity = tuple[str, str, str | None, str | None]
"""Of one detector: path and SHA-256 of its weights, name and SHA-256 of its calibration."""


def detect(
    image: Picture,
    model: str | Path | Sequence[str | Path] = DEFAULT_DETECTOR,
    threshold: float | None = None,
    device: str = "cpu",
    runtime: RuntimeName = "torch",
    memory: float | None = None,
) -> Detection:
    """Find inpainted regions in one photo of any size; nothing is scaled.

    image: a photo's file as a path, bytes or a binary stream (best, because its JPEG quality is
    then known), uint8 array (h, w, 3) in RGB, or PIL image. model: shipped or imported name, or
    path of weights; the last few stay in memory. Several models, or "all" for all installed ones,
    give a `FusedDetection`. threshold: on the heatmap (of several models: on the fused heatmap),
    0..1; None for the calibrated threshold. device: cpu or cuda. runtime: the program that runs the
    network; onnx and openvino are extras. "auto" selects the fastest that is installed and gives
    torch's results; "torch-bf16" computes in bfloat16, with slightly different ones. memory: limit
    of this process in bytes; if needed, tiles are made smaller. Raises `ImageError` (unreadable
    file), `InputError` (wrong kind, array, mode, threshold, device or runtime, too little memory),
    `WeightsError` and `UnknownNameError`.
    """
    check_threshold(threshold)
    check_memory(memory)
    photo = as_photo(image)
    models = [model] if isinstance(model, str | Path) else list(model)
    records = select(models)
    fusion = _is_fusion(models, records)
    return _load_runner(identify(records), fusion, threshold, device, runtime, memory).run(photo)


def make_runner(
    models: Sequence[str | Path],
    *,
    threshold: float | None = None,
    folders: Sequence[str | Path] = (),
    device: str = "cpu",
    runtime: str = "torch",
    memory: float | None = None,
    problem: Callable[[str], None] | None = None,
) -> DetectorRunner | FusedRunner:
    """The runner of one model, or a fusion of several; "all" is always a fusion.

    Arguments and errors as for `select` and `DetectorRunner`.
    """
    records = select(models, folders, problem)
    paths = [str(record.path) for record in records]
    return _make_runner(paths, _is_fusion(models, records), threshold, device, runtime, memory)


def identify(records: Iterable[WeightsRecord]) -> tuple[Identity, ...]:
    """What a runner of these weights depends on; by it, replaced files are noticed."""
    return tuple(
        (str(record.path), record.sha256, record.calibration, _hash_calibration(record))
        for record in records
    )


def _hash_calibration(record: WeightsRecord) -> str | None:
    if record.calibration is not None:
        with suppress(OSError):  # loading the runner says what is wrong
            return hashes.file_sha256(record.folder / record.calibration)
    return None


def load_detector(name: str | Path = DEFAULT_DETECTOR) -> nn.Module:
    """The detector with its weights, in eval mode: float (b, 3, h, w) in [0, 1] to logits
    (b, 1, h, w). Raises `WeightsError`, `UnknownNameError`."""
    return load(name, "detector")[0]


def _is_fusion(models: Sequence[str | Path], records: Sequence[WeightsRecord]) -> bool:
    return len(records) > 1 or ALL in models


def _make_runner(
    paths: Sequence[str],
    fusion: bool,
    threshold: float | None,
    device: str,
    runtime: str,
    memory: float | None,
) -> DetectorRunner | FusedRunner:
    if fusion:
        runners = [DetectorRunner(path, device=device, runtime=runtime) for path in paths]
        return FusedRunner(runners, threshold=threshold, memory=memory)
    return DetectorRunner(
        paths[0], threshold=threshold, device=device, runtime=runtime, memory=memory
    )


@lru_cache(maxsize=4)
def _load_runner(
    weights: tuple[Identity, ...],
    fusion: bool,
    threshold: float | None,
    device: str,
    runtime: str,
    memory: float | None,
) -> DetectorRunner | FusedRunner:
    paths = [path for path, *_ in weights]
    return _make_runner(paths, fusion, threshold, device, runtime, memory)
