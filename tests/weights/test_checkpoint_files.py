"""Published checkpoints: every tensor under its name, and nothing in a file is ever run."""

import collections
import hashlib
import pickle
import sys
import tarfile
import types
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.torch_version import TorchVersion

from helpers.made_checkpoints import Evil, same, save, tensors, with_pickle
from overpaint.errors import WeightsError
from overpaint.weights.checkpoint_files import flatten, read_checkpoint, strip_part


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


@pytest.mark.parametrize("legacy", [False, True])
class TestPyTorch:
    def test_tensors_come_bit_for_bit(self, tmp_path: Path, legacy: bool) -> None:
        path = save(tmp_path / "x.pth", tensors(), legacy=legacy)
        read = read_checkpoint(path)
        assert same(read.tensors, tensors())
        assert read.files == {"x.pth": hashlib.sha256(path.read_bytes()).hexdigest()}
        assert read.notes == ()

    def test_nested_names_are_joined_and_the_rest_is_left_out(
        self, tmp_path: Path, legacy: bool
    ) -> None:
        content = {
            "generator": collections.OrderedDict(w=torch.ones(2), deep={"b": torch.zeros(1)}),
            "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.ones(1)}}, "lr": [0.1]},
            "best": np.float64(0.5),
            "none": {},
        }
        read = read_checkpoint(save(tmp_path / "x.tar", content, legacy=legacy))
        assert set(read.tensors) == {"generator.w", "generator.deep.b", "optimizer.state.0.exp_avg"}
        assert set(read.content) == {"generator", "optimizer"}
        assert set(read.content["generator"]["deep"]) == {"b"}
        (note,) = read.notes
        assert note.startswith("x.tar: left out what is no tensor: optimizer.state.0.step")
        assert note.endswith("optimizer.lr.0, best")

    def test_a_pickle_that_holds_code_is_refused_and_not_run(
        self, tmp_path: Path, trace: Path, legacy: bool
    ) -> None:
        content = {"w": torch.ones(2), "deep": [{"x": Evil(trace)}]}
        path = save(tmp_path / "x.pth", content, legacy=legacy)
        torch.load(path, weights_only=False)
        assert trace.exists(), "the attack works on who loads it without care"
        trace.unlink()
        with pytest.raises(WeightsError, match=r"x\.pth: refused: .* load (posix|nt)\.system"):
            read_checkpoint(path)
        assert not trace.exists()

    def test_classes_of_a_trainer_are_left_out_and_not_imported(
        self, tmp_path: Path, legacy: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The layout of PyTorch Lightning, of which LaMa's best.ckpt is."""
        name = "pytorch_lightning.callbacks.model_checkpoint"
        callback = type("ModelCheckpoint", (), {"__module__": name})
        module = types.ModuleType(name)
        module.ModelCheckpoint = callback  # type: ignore[attr-defined]
        parents = {part: types.ModuleType(part) for part in (name[:17], name[:27])}
        for part, value in {**parents, name: module}.items():
            monkeypatch.setitem(sys.modules, part, value)
        state = nn.BatchNorm2d(3).state_dict()
        content = {
            "epoch": 3,
            "state_dict": collections.OrderedDict((f"generator.{k}", v) for k, v in state.items()),
            "callbacks": {callback: {"best": torch.tensor(0.5), "path": "x.ckpt"}},
            "hparams": callback(),
            "optimizer_states": [{"state": {0: {"exp_avg": nn.Parameter(torch.ones(2))}}}],
        }
        content["state_dict"]._metadata = {"": {"version": 1}}
        path = save(tmp_path / "best.ckpt", content, legacy=legacy)
        for part in (*parents, name):
            monkeypatch.delitem(sys.modules, part)
        if legacy:  # no archive: nothing can be taken out of it without unpickling
            with pytest.raises(WeightsError, match=r"load pytorch_lightning"):
                read_checkpoint(path)
            return
        found = {k: v for k, v in read_checkpoint(path).tensors.items() if k.startswith("state_")}
        assert same(found, {f"state_dict.generator.{k}": v for k, v in state.items()})
        assert name not in sys.modules

    def test_a_configuration_by_omegaconf_is_left_out(self, tmp_path: Path, legacy: bool) -> None:
        """LaMa's best.ckpt has one: a tree with links to its parents, and types as keys."""
        omegaconf = pytest.importorskip("omegaconf")
        settings = {"generator": {"kind": "ffc", "ngf": 64, "layers": [1, {"ratio": 0.75}]}}
        state = nn.BatchNorm2d(3).state_dict()
        content = {"hyper_parameters": omegaconf.OmegaConf.create(settings), "state_dict": state}
        path = save(tmp_path / "best.ckpt", content, legacy=legacy)
        if legacy:
            with pytest.raises(WeightsError, match=r"load omegaconf"):
                read_checkpoint(path)
            return
        assert same(read_checkpoint(path).tensors, {f"state_dict.{k}": v for k, v in state.items()})

    def test_a_mapping_with_attributes_is_left_out(
        self, tmp_path: Path, legacy: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The layout of PyTorch Lightning's hyperparameters."""
        if legacy:
            return
        name = "pytorch_lightning.utilities.parsing"
        kind = type("AttributeDict", (dict,), {"__module__": name})
        for part in ("pytorch_lightning", "pytorch_lightning.utilities", name):
            monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
        monkeypatch.setattr(sys.modules[name], "AttributeDict", kind, raising=False)
        state = nn.BatchNorm2d(3).state_dict()
        content = {"hyper_parameters": kind(lr=1, decay=2), "one": kind(a=1), "state_dict": state}
        path = save(tmp_path / "best.ckpt", content)
        assert same(read_checkpoint(path).tensors, {f"state_dict.{k}": v for k, v in state.items()})

    def test_a_whole_module_is_refused_by_its_class(self, tmp_path: Path, legacy: bool) -> None:
        path = save(tmp_path / "x.pth", nn.Linear(2, 2), legacy=legacy)
        with pytest.raises(WeightsError, match=r"load torch\.nn\.modules\.linear\.Linear"):
            read_checkpoint(path)

    def test_no_named_tensor_is_an_error(self, tmp_path: Path, legacy: bool) -> None:
        for content in ({"epoch": 3}, torch.ones(2), []):
            path = save(tmp_path / "x.pth", content, legacy=legacy)
            with pytest.raises(WeightsError, match="holds no tensor under a name"):
                read_checkpoint(path)

    def test_a_file_cut_short_is_damaged(self, tmp_path: Path, legacy: bool) -> None:
        path = save(tmp_path / "x.pth", tensors(), legacy=legacy)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(WeightsError, match=r"x\.pth: .*damaged"):
            read_checkpoint(path)


class TestPickles:
    def test_a_bare_pickle_with_code_is_refused(self, tmp_path: Path, trace: Path) -> None:
        path = tmp_path / "x.p"
        path.write_bytes(pickle.dumps({"x": Evil(trace)}, protocol=2))
        with pytest.raises(WeightsError, match=r"x\.p: (refused|not a checkpoint)"):
            read_checkpoint(path)
        assert not trace.exists()

    def test_numbers_of_an_older_numpy_are_admitted(self, tmp_path: Path) -> None:
        content = pickle.dumps({"best": np.float64(0.5), "n": np.int64(3)}, protocol=2)
        old = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        assert b"numpy.core.multiarray" in old
        path = with_pickle(save(tmp_path / "x.pth", tensors()), old, tmp_path / "old.pth")
        with pytest.raises(WeightsError, match="holds no tensor"):
            read_checkpoint(path)

    @pytest.mark.parametrize(
        "error",
        [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")],
    )
    def test_a_lack_of_memory_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise error

        torch.save({"x": torch.zeros(2)}, tmp_path / "net.pth")
        monkeypatch.setattr(torch, "load", fail)
        with pytest.raises(WeightsError, match=r"net\.pth: there is too little memory"):
            read_checkpoint(tmp_path / "net.pth")

    def test_a_list_that_holds_itself_is_an_error(self, tmp_path: Path) -> None:
        endless: list[Any] = [torch.ones(1)]
        endless.append(endless)
        with pytest.raises(WeightsError, match="nested without end"):
            read_checkpoint(save(tmp_path / "x.pth", endless))

    def test_a_torch_that_can_be_made_to_run_code_is_not_used(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = save(tmp_path / "x.pth", tensors())
        monkeypatch.setattr(torch, "__version__", TorchVersion("2.5.1+cpu"))
        with pytest.raises(WeightsError, match=r"install torch 2\.6"):
            read_checkpoint(path)
        monkeypatch.setattr(torch, "__version__", TorchVersion("2.10.0"))
        assert same(read_checkpoint(path).tensors, tensors())

    @pytest.mark.parametrize("content", [b"", b"no tensors here", b"PK\x03\x04 cut"])
    def test_what_is_no_checkpoint_is_named(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "x.pth"
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"x\.pth: (not a checkpoint|damaged)"):
            read_checkpoint(path)

    def test_archives_are_to_be_unpacked(self, tmp_path: Path) -> None:
        inner = save(tmp_path / "x.pth", tensors())
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.write(inner)
        with tarfile.open(tmp_path / "x.tgz", "w:gz") as tar:
            tar.add(inner)
        for name in ("x.zip", "x.tgz"):
            with pytest.raises(WeightsError, match=rf"{name}: a (zip|tar) archive; unpack"):
                read_checkpoint(tmp_path / name)

    def test_a_missing_file_and_a_folder_are_named(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none.pth", tmp_path):
            with pytest.raises(WeightsError, match=f"{path}: cannot be read"):
                read_checkpoint(path)

    def test_two_tensors_of_one_name_are_an_error(self) -> None:
        with pytest.raises(WeightsError, match=r"two tensors of the name a\.b"):
            flatten({"a": {"b": torch.ones(1)}, "a.b": torch.ones(1)})


class TestSafetensors:
    def test_tensors_come_bit_for_bit(self, tmp_path: Path) -> None:
        safetensors.torch.save_file(tensors(), tmp_path / "any.bin")
        assert same(read_checkpoint(tmp_path / "any.bin").tensors, tensors())

    def test_a_file_cut_short_is_damaged(self, tmp_path: Path) -> None:
        path = tmp_path / "x.safetensors"
        path.write_bytes(safetensors.torch.save(tensors())[:-1])
        with pytest.raises(WeightsError, match=r"x\.safetensors: a damaged safetensors file"):
            read_checkpoint(path)


class TestKeras:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "x.h5"
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(8))
        return path

    def test_without_h5py_the_error_says_so(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "h5py", None)
        with pytest.raises(
            WeightsError, match=r'x\.h5: a Keras file, .*install "overpaint\[keras\]"'
        ):
            read_checkpoint(path)

    def test_data_sets_of_numbers_by_dotted_names(self, path: Path) -> None:
        h5py = pytest.importorskip("h5py", reason="needs the extra keras")
        kernel = np.arange(4, dtype=np.float32).reshape(2, 2)
        with h5py.File(path, "w") as file:
            file["conv/kernel:0"] = kernel
            file["names"] = np.array([b"conv"])
            file.create_group("empty").attrs["weight_names"] = [b"kernel:0"]
        read = read_checkpoint(path)
        assert same(read.tensors, {"conv.kernel:0": torch.from_numpy(kernel)})
        assert read.notes == ("x.h5: left out what is no tensor: names",)

    def test_numbers_from_other_files_are_not_read(self, path: Path) -> None:
        h5py = pytest.importorskip("h5py", reason="needs the extra keras")
        secret = path.with_name("secret")
        secret.write_bytes(bytes(range(16)))
        with h5py.File(path.with_name("other.h5"), "w") as file:
            file["w"] = np.ones(4)
        with h5py.File(path, "w") as file:
            file["own"] = np.zeros(1)
            file["link"] = h5py.ExternalLink("other.h5", "/w")
        assert set(read_checkpoint(path).tensors) == {"own"}
        layout = h5py.VirtualLayout((4,), "f8")
        layout[:] = h5py.VirtualSource("other.h5", "w", (4,))
        with h5py.File(path, "w") as file:
            file.create_virtual_dataset("w", layout)
        with pytest.raises(WeightsError, match=r"x\.h5: refused: w would be read from another"):
            read_checkpoint(path)
        with h5py.File(path, "w") as file:
            file.create_dataset("w", (16,), "u1", external=[(secret, 0, 16)])
            assert file["w"][3] == 3, "the attack works on who reads it without care"
        with pytest.raises(WeightsError, match=r"x\.h5: refused: w would be read from another"):
            read_checkpoint(path)

    def test_a_damaged_file_is_named(self, path: Path) -> None:
        pytest.importorskip("h5py", reason="needs the extra keras")
        with pytest.raises(WeightsError, match=r"x\.h5: a damaged Keras file"):
            read_checkpoint(path)


class TestTensorFlow:
    @pytest.fixture
    def parts(self, tmp_path: Path) -> list[Path]:
        names = ("snap-0.data-00000-of-00001", "snap-0.index", "snap-0.meta")
        paths = [tmp_path / name for name in names]
        for path in paths:
            path.write_bytes(path.name.encode())
        (tmp_path / "snap-00.index").write_bytes(b"another one")
        return paths

    def test_the_parts_of_one_checkpoint_have_one_prefix(self, parts: list[Path]) -> None:
        assert {strip_part(path) for path in parts} == {parts[0].with_name("snap-0")}
        assert strip_part(Path("a/x.pth")) == Path("a/x.pth")

    def test_without_tensorflow_the_error_says_so(
        self, parts: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "tensorflow", None)
        for path in (*parts, parts[0].with_name("snap-0")):
            with pytest.raises(WeightsError, match=r"snap-0: .*pip install tensorflow"):
                read_checkpoint(path)

    def test_variables_by_dotted_names_and_the_hash_of_each_part(
        self, parts: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kernel = np.ones((3, 3, 1, 2), np.float32)
        asked: list[str] = []

        def load_checkpoint(prefix: str) -> SimpleNamespace:
            asked.append(prefix)
            return SimpleNamespace(
                get_variable_to_shape_map=lambda: {"net/conv1/kernel": kernel.shape},
                get_tensor={"net/conv1/kernel": kernel}.__getitem__,
            )

        reader = SimpleNamespace(train=SimpleNamespace(load_checkpoint=load_checkpoint))
        monkeypatch.setitem(sys.modules, "tensorflow", reader)
        read = read_checkpoint(parts[1])
        assert asked == [str(parts[0].with_name("snap-0"))]
        assert same(read.tensors, {"net.conv1.kernel": torch.from_numpy(kernel)})
        assert read.files == {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in parts}
