"""TorchScript archives: their tensors are read, and nothing in them is run."""

import collections
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers.made_checkpoints import Evil, same, with_pickle
from overpaint.errors import WeightsError
from overpaint.weights import torchscript
from overpaint.weights.checkpoint_files import read_checkpoint
from overpaint.weights.torchscript import read_torchscript


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.sizes = [1, 2]
        self.label = "inner"
        self.register_buffer("turned", torch.arange(6).reshape(2, 3).t())
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("empty", torch.empty(0, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) * self.sizes[0] + self.turned.sum()


class Outer(nn.Module):
    options: dict[str, int]

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()
        self.layers = nn.ModuleList([nn.Linear(2, 2)])
        self.halved = nn.Parameter(torch.rand(2).half())
        self.tied = self.inner.conv.weight
        self.options = {"a": 1}

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Stored:
    """Pickled as what TorchScript writes for a tensor of floats."""

    def __init__(self, size: Any, stride: Any, offset: Any = 0) -> None:
        self.arguments = (self, offset, size, stride, False, collections.OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.arguments


class StoredPickler(pickle.Pickler):
    """Writes the first argument of a `Stored` as a reference to storage 0, six floats long."""

    inside = False

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Stored):
            if self.inside:
                return ("storage", torch.FloatStorage, "0", "cpu", 6)
            self.inside = True
        return None


def forged(path: Path, content: Any, storage: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    buffer = io.BytesIO()
    StoredPickler(buffer, protocol=2).dump(content)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x/data.pkl", buffer.getvalue())
        archive.writestr("x/constants.pkl", b"")
        archive.writestr("x/data/0", storage)
    return path


SIX = np.arange(6, dtype="<f4").tobytes()


class TestTorchScript:
    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
    @pytest.mark.parametrize("how", ["scripted", "traced"])
    def test_the_tensors_are_those_that_torch_loads(self, tmp_path: Path, how: str) -> None:
        torch.manual_seed(0)
        model, path = Outer().eval(), str(tmp_path / "x.pt")
        with torch.no_grad():
            traced = torch.jit.trace(model, torch.rand(1, 3, 8, 8))
            module = torch.jit.script(model) if how == "scripted" else traced
        module.save(path)  # type: ignore[union-attr]
        read = read_checkpoint(path)
        assert same(read.tensors, torch.jit.load(path).state_dict())
        assert len(read.tensors) == 14
        assert "left out what is no tensor: " in read.notes[0]

    def test_a_pickle_in_it_is_described_and_not_run(self, tmp_path: Path, trace: Path) -> None:
        content = pickle.dumps({"x": Evil(trace)}, protocol=2)
        pickle.loads(content)
        assert trace.exists(), "the attack works on who unpickles it"
        trace.unlink()
        path = with_pickle(forged(tmp_path / "x.pt", {}, SIX), content, tmp_path / "evil.pt")
        with pytest.raises(WeightsError, match=r"evil\.pt: holds no tensor"):
            read_checkpoint(path)
        assert not trace.exists()

    def test_a_tensor_is_a_view_of_its_storage(self, tmp_path: Path) -> None:
        path = forged(tmp_path / "x.pt", {"w": Stored((2, 2), (1, 2), 1)}, SIX)
        (found,) = read_checkpoint(path).tensors.values()
        assert found.tolist() == [[1, 3], [2, 4]]

    @pytest.mark.parametrize(
        ("stored", "storage", "compression"),
        [
            (Stored((3, 3), (3, 1)), SIX, zipfile.ZIP_STORED),
            (Stored((10**9,), (0,)), SIX, zipfile.ZIP_STORED),
            (Stored((2,), (1,), 5), SIX, zipfile.ZIP_STORED),
            (Stored((2,), (1,), -1), SIX, zipfile.ZIP_STORED),
            (Stored((-2,), (1,)), SIX, zipfile.ZIP_STORED),
            (Stored("ab", (1,)), SIX, zipfile.ZIP_STORED),
            (Stored((6,), (1,)), SIX[:-1], zipfile.ZIP_STORED),
            (Stored((6,), (1,)), SIX, zipfile.ZIP_DEFLATED),
        ],
    )
    def test_forged_tensors_are_refused(
        self, tmp_path: Path, stored: Stored, storage: bytes, compression: int
    ) -> None:
        path = forged(tmp_path / "x.pt", {"w": stored}, storage, compression)
        with pytest.raises(WeightsError, match=r"x\.pt: .*; download the file again"):
            read_checkpoint(path)

    @pytest.mark.parametrize(
        "content",
        [
            pickle.dumps([1.5], protocol=4),  # FRAME, an opcode that TorchScript does not write
            b"\x80\x02]q\x00h\x00a.",  # a list that holds itself
            b"\x80\x02h\x05.",  # a memo that was never made
            b"\x80\x02t.",  # a tuple without a mark
            b"\x80\x02}]K\x01s.",  # a list as a key
            b"\x80\x02K\x01}b.",  # attributes of a number
            b"\x80\x02",  # no end
            b"",
        ],
    )
    def test_forged_pickles_are_refused(self, tmp_path: Path, content: bytes) -> None:
        path = with_pickle(forged(tmp_path / "x.pt", {}, SIX), content, tmp_path / "y.pt")
        with pytest.raises(WeightsError):
            read_torchscript(path.read_bytes())

    def test_a_pickle_that_stands_for_billions_of_values_ends(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torchscript, "_MAX_VALUES", 1000)
        content: list[Any] = [0]
        for _ in range(40):
            content = [content, content]
        path = forged(tmp_path / "x.pt", content, SIX)
        with pytest.raises(WeightsError, match="more than 1,000 values"):
            read_checkpoint(path)
