"""The exported network says what the one in torch says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import textured
from helpers.bright_detectors import Bright, registered, save
from overpaint.detection import runtimes
from overpaint.detection.runner import DetectorRunner
from overpaint.errors import InputError, WeightsError
from overpaint.registry import Entry, detectors

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> runtimes.Export:
    return runtimes.export_onnx("nixnet-s", tmp_path_factory.mktemp("onnx") / "net.onnx")


def test_logits_of_ten_photos_of_any_size_are_those_of_torch(exported: runtimes.Export) -> None:
    runner, other = DetectorRunner("nixnet-s"), DetectorRunner("nixnet-s", tile=128)
    graph = runtimes.OnnxDetector(exported.path, threads=1)
    sizes = [(64, 96), (97, 131), (128, 65), (33, 47), (1, 1), (9, 120), (80, 80), (111, 113)]
    for i, (height, width) in enumerate([*sizes, (130, 200), (201, 140)]):
        photo = np.ascontiguousarray(textured(201, 200, seed=i)[:height, :width])
        used = other if i >= len(sizes) else runner
        expected, torch_module = used.logits(photo), used.module
        used.module = graph
        found = used.logits(photo)
        used.module = torch_module
        assert found.shape == expected.shape == (height, width)
        assert np.abs(found - expected).max() <= runtimes.PARITY
    assert exported.difference <= 1e-3
    assert graph.weights_sha256 == runner.weights_sha256
    assert (graph.stride, graph.tile) == (runner.stride, runner.tile)


def test_the_contract_holds(exported: runtimes.Export) -> None:
    graph = runtimes.OnnxDetector(exported.path).eval()
    with pytest.raises(InputError):
        graph(torch.full((1, 3, 16, 16), float("nan")))
    assert graph.runtime.startswith("onnxruntime ")


class Frozen(Bright):
    """Its graph holds the mean of the photo's size that it was traced with."""

    def _logits(self, image: Tensor) -> Tensor:
        return super()._logits(image) + float(image.shape[-1])


def test_a_graph_that_froze_a_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registered(tmp_path) as folder:
        entry = Entry("frozen", Frozen, "A paper", "Apache-2.0", "tiny", None)
        monkeypatch.setitem(detectors._entries, "frozen", entry)
        save(folder, "cold", "frozen")
        with pytest.raises(WeightsError, match=r"differs by .* from torch's"):
            runtimes.export_onnx("cold", tmp_path / "cold.onnx")
        assert not [path for path in tmp_path.iterdir() if "cold" in path.name]
        save(folder, "fine", "bright")
        assert runtimes.export_onnx("fine", tmp_path / "fine.onnx").path.exists()


def test_the_cache_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERPAINT_CACHE", str(tmp_path / "cache"))
    with registered(tmp_path) as folder:
        save(folder, "fine", "bright")
        path = runtimes.cached_onnx("fine")
        stamp = path.stat().st_mtime_ns
        assert runtimes.cached_onnx("fine") == path
        assert path.stat().st_mtime_ns == stamp
    (tmp_path / "other.onnx").write_bytes(b"no graph")
    with pytest.raises(WeightsError, match="no detector exported"):
        runtimes.OnnxDetector(tmp_path / "other.onnx")
