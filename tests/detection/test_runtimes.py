"""Every runtime says what torch says, is named in the records, and is chosen by measurement."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import overpaint
from conftest import textured
from helpers.bright_detectors import Bright, registered, save, two_tone
from overpaint.cli import build
from overpaint.detection import graphs, runner, runtimes
from overpaint.detection.bf16 import Bf16Detector
from overpaint.detection.memory import PHOTO_BYTES, Budget
from overpaint.detection.runner import DetectorRunner
from overpaint.detectors.base import Detector, Findings
from overpaint.errors import InputError, WeightsError
from overpaint.images import write_png
from overpaint.images.from_arrays import as_photo

KINDS = {kind.runtime: kind for kind in graphs.GRAPHS}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVERPAINT_CACHE", str(folder))
        yield folder


def need(runtime: str) -> None:
    """Skip where it is not installed."""
    pytest.importorskip("onnx", reason="the export needs onnx")
    pytest.importorskip(KINDS[runtime].package, reason=f"{runtime} is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("runtime", list(KINDS))
def test_logits_of_ten_photos_of_any_size_are_those_of_torch(
    runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(runtime)
    monkeypatch.setattr(runner, "MANY_PIXELS", 128 * 128)
    options = {"runtime": runtime}
    whole = DetectorRunner("nixnet-s"), DetectorRunner("nixnet-s", **options)
    tiles = DetectorRunner("nixnet-s", tile=128), DetectorRunner("nixnet-s", tile=128, **options)
    sizes = [(64, 96), (97, 131), (128, 65), (33, 47), (1, 1), (9, 120), (80, 80), (111, 113)]
    for i, (height, width) in enumerate([*sizes, (130, 200), (201, 140)]):
        photo = np.ascontiguousarray(textured(201, 200, seed=i)[:height, :width])
        ours, other = tiles if i >= len(sizes) else whole
        expected, found = ours.logits(photo), other.logits(photo)
        assert found.shape == expected.shape == (height, width)
        assert np.abs(found - expected).max() <= graphs.PARITY
    if runtime == "openvino":
        assert tiles[1].module._fixed is not None, "compiled for many pixels"
        assert whole[1].module._fixed is None, "not for few"
    graph = whole[1].module
    assert isinstance(graph, KINDS[runtime])
    assert graph.weights_sha256 == whole[0].weights_sha256
    assert (graph.stride, graph.tile) == (whole[0].stride, whole[0].tile)


@pytest.mark.slow
def test_openvino_takes_two_tiles_at_once_with_half_of_the_threads_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need("openvino")
    monkeypatch.setattr(runner, "MANY_PIXELS", 128 * 128)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        whole = DetectorRunner("nixnet-s", tile=128)
        other = DetectorRunner("nixnet-s", tile=128, runtime="openvino")
        graph = other.module
        assert isinstance(graph, graphs.OpenVinoDetector)
        # Many tiles; one of 128 px, which has all threads; many again; and a small one.
        for height, width, at_once in [(200, 300, 2), (128, 128, 1), (200, 300, 2), (50, 60, 2)]:
            photo = textured(height, width, seed=1)
            difference = np.abs(other.logits(photo) - whole.logits(photo))
            assert difference.max() <= graphs.PARITY
            assert graph.tiles_at_once == at_once
            assert len(graph._fixed_idle) <= at_once
        assert graph._fixed is not None
        assert graph._fixed.get_property("NUM_STREAMS") == 2
        assert graph._fixed.get_property("INFERENCE_NUM_THREADS") == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("runtime", list(KINDS))
def test_records_state_runtime_and_precision(runtime: str, tmp_path: Path) -> None:
    need(runtime)
    photo = tmp_path / "p.png"
    write_png(photo, textured(130, 140, seed=3))
    with registered(tmp_path) as folder:
        model = str(save(folder, "fine", "bright").path)
        arguments = ["detect", str(photo), "--out", str(tmp_path), "--model", model]
        assert CliRunner().invoke(build(), [*arguments, "--runtime", runtime]).exit_code == 0
        said = json.loads((tmp_path / "p.json").read_text())["runtime"]
        assert said.startswith(f"{KINDS[runtime].package} ")
        assert said.endswith(", fp32, cpu")
        found = overpaint.detect(photo, model=model, runtime=runtime)  # type: ignore[arg-type]
        assert found.examiner.runtime == said
        plain = overpaint.detect(photo, model=model)
    assert plain.examiner.runtime == f"torch {torch.__version__}, fp32, cpu"
    assert plain.score == pytest.approx(found.score, abs=1e-4)


def test_bfloat16_gives_nearly_the_same_logits_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERPAINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtimes, "_time_choices", lambda choices: [2.0, 1.0])
    monkeypatch.setattr(runtimes, "measure_difference", lambda one, other: 0.0)
    plain = DetectorRunner("nixnet-s", tile=64)
    reduced = DetectorRunner("nixnet-s", tile=64, runtime="torch-bf16")
    photo = textured(96, 120, seed=2)  # several tiles, in threads of their own
    difference = np.abs(reduced.logits(photo) - plain.logits(photo))
    assert 0.001 < difference.mean() < 0.05
    assert difference.max() < 0.5
    assert reduced.runtime == f"torch {torch.__version__}, bf16, cpu"
    assert runtimes.name_runtime(reduced.module) == "torch-bf16"
    assert (reduced.stride, reduced.tile) == (plain.stride, plain.tile)
    assert reduced._find_tiles_at_once() == plain._find_tiles_at_once()


class Whole(Bright):
    """Looks at the photo without padding, as TruFor does in its faithful form."""

    stride = 32

    def examine(self, image: Tensor) -> Findings:
        return Findings(self.of_brightness(image) + image.shape[-1])


def test_bfloat16_pads_only_what_the_detector_pads() -> None:
    image = torch.rand((1, 3, 40, 50), generator=torch.Generator().manual_seed(0))
    expected = Whole().eval().examine(image).logits
    found = Bf16Detector(Whole().eval()).examine(image).logits
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected)


class OnePhoto(graphs.GraphDetector):
    """Fails when a second photo comes before the first is released."""

    stride, tile, busy = 1, 64, False

    def __init__(self) -> None:
        Detector.__init__(self)
        self.in_use = threading.Lock()
        self.eval()

    @property
    def words(self) -> str:
        return "one photo"

    def _load(self, path: str, threads: int) -> dict[str, str]:
        raise NotImplementedError

    def prepare(self, height: int, width: int, at_once: int) -> None:
        assert not self.busy
        self.busy = True

    def _run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        assert self.busy
        time.sleep(0.01)
        return {"logits": image.mean(axis=1, keepdims=True)}

    def release(self) -> None:
        self.busy = False


def test_one_graph_serves_threads_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MANY_PIXELS", 1)
    shared = DetectorRunner(OnePhoto())
    photo = textured(64, 160, seed=1)
    expected = photo.astype(np.float32).mean(axis=2) / 255
    with ThreadPoolExecutor(4) as pool:
        for logits in pool.map(shared.logits, [photo] * 8):
            np.testing.assert_allclose(logits, expected, atol=1e-6)


def test_bfloat16_is_refused_where_it_is_slower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERPAINT_CACHE", str(tmp_path / "cache"))
    timed = []
    monkeypatch.setattr(
        runtimes, "_time_choices", lambda choices: timed.append(choices) or [1.0, 2.5]
    )
    photo = tmp_path / "p.png"
    write_png(photo, textured(64, 64, seed=3))
    with registered(tmp_path) as folder:
        path = save(folder, "fine", "bright").path
        arguments = ["detect", str(photo), "--model", str(path), "--runtime", "torch-bf16"]
        for _ in range(2):
            done = CliRunner().invoke(build(), [*arguments, "--out", str(tmp_path)])
            assert done.exit_code == 2
            assert "slower than fp32 on this processor (2.5 s against 1 s" in done.output
    assert len(timed) == 1, "measured once, then kept"


def test_a_cache_that_cannot_be_made_is_named_and_auto_takes_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = tmp_path / "taken"
    taken.write_bytes(b"")
    monkeypatch.setenv("OVERPAINT_CACHE", str(taken))
    with registered(tmp_path) as folder:
        path = save(folder, "fine", "bright").path
        for runtime in KINDS:
            need(runtime)
            with pytest.raises(WeightsError, match=r"taken: cannot be written .* OVERPAINT_CACHE"):
                DetectorRunner(path, runtime=runtime)
        assert DetectorRunner(path, runtime="auto").runtime.startswith("torch ")


@pytest.mark.slow
def test_auto_takes_the_fastest_that_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("onnx")
    need("openvino")
    monkeypatch.setenv("OVERPAINT_CACHE", str(tmp_path / "cache"))
    seconds = {"torch": 3.0, "onnx": 2.0, "openvino": 1.0}
    asked = []

    def measured(choices: list[object]) -> list[float]:
        names = [getattr(choice, "runtime", "torch") for choice in choices]
        asked.extend(names)
        return [seconds[name] for name in names]

    monkeypatch.setattr(runtimes, "_time_choices", measured)
    with registered(tmp_path) as folder:
        path = save(folder, "fine", "bright").path
        assert DetectorRunner(path, runtime="auto").runtime.startswith("openvino ")
        assert sorted(asked) == ["onnx", "openvino", "torch"]
        assert DetectorRunner(path, runtime="auto").runtime.startswith("openvino ")
        assert len(asked) == 3, "measured once, then kept"
        other = save(folder, "other", "bright", gain=10).path
        seconds["torch"] = 0.5
        assert DetectorRunner(other, runtime="auto").runtime.startswith("torch ")
        # One that differs is never taken, however fast it is.
        third = save(folder, "third", "bright", gain=5).path
        seconds["torch"] = 3.0
        monkeypatch.setattr(
            runtimes, "measure_difference", lambda one, other: 0.1 * (other.runtime == "openvino")
        )
        assert DetectorRunner(third, runtime="auto").runtime.startswith("onnxruntime ")
        with pytest.raises(WeightsError, match=r"differs by 0\.1 from torch's on this machine"):
            DetectorRunner(third, runtime="openvino")


def test_a_runtime_that_is_named_is_compared_once_and_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("onnx")
    monkeypatch.setenv("OVERPAINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(graphs, "GRAPHS", graphs.GRAPHS[:1])
    monkeypatch.setattr(runtimes, "GRAPHS", graphs.GRAPHS)
    compared, timed = [], []
    differ, time_choices = runtimes.measure_difference, runtimes._time_choices
    monkeypatch.setattr(
        runtimes, "measure_difference", lambda *two: compared.append(two) or differ(*two)
    )
    monkeypatch.setattr(
        runtimes, "_time_choices", lambda each: timed.append(each) or time_choices(each)
    )
    with registered(tmp_path) as folder:
        path = save(folder, "fine", "bright").path
        for _ in range(2):
            assert DetectorRunner(path, runtime="onnx").runtime.startswith("onnxruntime ")
        assert (len(compared), len(timed)) == (1, 0)
        for _ in range(2):
            DetectorRunner(path, runtime="auto")
        assert (len(compared), len(timed)) == (2, 1)
        DetectorRunner(path, runtime="onnx")
        assert (len(compared), len(timed)) == (2, 1)


def test_what_cannot_be_had_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="there is none such"):
        DetectorRunner(Bright(), runtime="jax")
    with pytest.raises(InputError, match="without a file of weights"):
        DetectorRunner(Bright(), runtime="onnx")
    assert DetectorRunner(Bright(), runtime="auto").runtime.startswith("torch ")
    for kind in graphs.GRAPHS:
        monkeypatch.setattr(kind, "package", "not_there")
    with registered(tmp_path) as folder:
        path = save(folder, "fine", "bright").path
        for runtime in KINDS:
            with pytest.raises(WeightsError, match=rf"pip install 'overpaint\[{runtime}\]'"):
                DetectorRunner(path, runtime=runtime)
        assert DetectorRunner(path, runtime="auto").runtime.startswith("torch ")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_tiles_become_smaller_where_memory_is_short() -> None:
    runner = DetectorRunner("nixnet-s", memory=64e9)
    assert runner.budget is not None
    assert runner.find_tile(3000, 4000) == runner.tile
    assert 100 < runner.budget.bytes_per_pixel < 10_000
    # What is measured differs from run to run: below, it is given.
    base, each = 400_000_000, 800.0
    limit = base + PHOTO_BYTES * 12_000_000 + each * 517**2
    runner.budget = Budget(limit, base, each, runner.stride)
    assert runner.find_tile(3000, 4000) == 512
    runner.budget = Budget(base, base, each, runner.stride)
    with pytest.raises(InputError, match=r"limit of .* of 4000 x 3000 pixels needs 0.84 GB"):
        runner.find_tile(3000, 4000)


def test_a_smaller_tile_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = DetectorRunner(Bright())
    monkeypatch.setattr(DetectorRunner, "find_tile", lambda self, height, width: 64)
    found = runner.run(as_photo(two_tone()))
    assert "processed in tiles of 64 pixels because of the memory limit" in found.notes
