"""The exported network says what the one in torch says."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from helpers.bright_detectors import Bright, registered, save
from overpaint.detection import export, graphs
from overpaint.detection.graphs import OnnxDetector
from overpaint.detectors.base import Detector
from overpaint.errors import InputError, WeightsError
from overpaint.registry import Entry, detectors
from overpaint.weights.resolve import load

WEIGHTS = Path(__file__).parents[2] / "benchmarks" / "weights"

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> export.Export:
    return export.export_onnx("nixnet-s", tmp_path_factory.mktemp("onnx") / "net.onnx")


@pytest.mark.slow
def test_the_contract_holds(exported: export.Export) -> None:
    graph = OnnxDetector(exported.path).eval()
    with pytest.raises(InputError):
        graph(torch.full((1, 3, 16, 16), float("nan")))
    assert graph.words.startswith("onnxruntime ")
    assert exported.difference <= 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", detectors.list_names())
def test_every_network_is_exported_for_every_runtime_or_refused_with_a_reason(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("OVERPAINT_CACHE", str(tmp_path))
    monkeypatch.setattr(graphs, "_COMPARED", graphs._COMPARED[:2])
    model = "nixnet-s" if name == "nixnet" else WEIGHTS / f"{name}-s.safetensors"
    if isinstance(model, Path) and not model.exists():
        pytest.skip(f"{model.name}: this network has no weights here")
    if name == "iidnet":
        for _ in range(2):  # the second time from the cache
            with pytest.raises(WeightsError, match=r"cannot be exported .* use --runtime torch"):
                export.export_cached(model)
            monkeypatch.setattr(export, "_exporting", None)
    else:
        path = export.export_cached(model)
        module = load(model, "detector")[0]
        assert isinstance(module, Detector)
        for kind in graphs.GRAPHS:
            assert graphs.measure_difference(module, kind(path)) <= graphs.PARITY
    assert not capfd.readouterr().out


def test_a_user_without_home_directory_is_told_to_name_a_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    for name in ("OVERPAINT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(WeightsError, match=r"no home directory .* set OVERPAINT_CACHE"):
        export.make_cache_folder()


class Frozen(Bright):
    """Its graph holds the mean of the photo's size that it was traced with."""

    def _compute_logits(self, image: Tensor) -> Tensor:
        return super()._compute_logits(image) + float(image.shape[-1])


def test_a_graph_that_froze_a_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registered(tmp_path) as folder:
        entry = Entry("frozen", Frozen, "A paper", "Apache-2.0", "tiny", None)
        monkeypatch.setitem(detectors._entries, "frozen", entry)
        save(folder, "cold", "frozen")
        with pytest.raises(WeightsError, match=r"differs by .* from torch's"):
            export.export_onnx("cold", tmp_path / "cold.onnx")
        assert not [path for path in tmp_path.iterdir() if "cold" in path.name]
        save(folder, "fine", "bright")
        assert export.export_onnx("fine", tmp_path / "fine.onnx").path.exists()


def test_the_weights_are_not_written_over(tmp_path: Path) -> None:
    with registered(tmp_path) as folder:
        save(folder, "fine", "bright")
        for name in ("fine.safetensors", "fine.json"):
            before = (folder / name).read_bytes()
            with pytest.raises(WeightsError, match="input and is never written over"):
                export.export_onnx("fine", f"{folder}/../{folder.name}/{name}")
            assert (folder / name).read_bytes() == before


def test_the_cache_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERPAINT_CACHE", str(tmp_path / "cache"))
    with registered(tmp_path) as folder:
        save(folder, "fine", "bright")
        path = export.export_cached("fine")
        stamp = path.stat().st_mtime_ns
        assert export.export_cached("fine") == path
        assert path.stat().st_mtime_ns == stamp
    (tmp_path / "other.onnx").write_bytes(b"no graph")
    with pytest.raises(WeightsError, match="no detector exported"):
        OnnxDetector(tmp_path / "other.onnx")
