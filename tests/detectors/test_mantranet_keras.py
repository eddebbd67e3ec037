"""ManTra-Net's Keras file: every array finds its place, the axes turned; nothing else is taken."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_mantranet import official_state
from torch import Tensor

from overpaint.detectors.mantranet import ManTraNet, remap
from overpaint.errors import WeightsError
from overpaint.registry import build_on_meta
from overpaint.weights.checkpoint_files import read_checkpoint
from overpaint.weights.official_weights import import_weights
from overpaint.weights.rename_keys import check_fits

LAYERS = {  # of 3x3: channels in and out
    "b1c2": (16, 32),
    "b2c1": (32, 64),
    "b2c2": (64, 64),
    "b3c1": (64, 128),
    "b3c2": (128, 128),
    "b3c3": (128, 128),
    "b4c1": (128, 256),
    "b4c2": (256, 256),
    "b4c3": (256, 256),
    "b5c1": (256, 256),
    "b5c2": (256, 256),
    "transform": (256, 256),
}


def keras_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of `ManTraNet_Ptrain4.h5`."""
    shapes: dict[str, tuple[int, ...]] = {
        "Featex/b1c1_6/regular_kernel:0": (5, 5, 3, 4),
        "Featex/b1c1_6/bayar_kernel:0": (5, 5, 3, 3),
        "outlierTrans/outlierTrans_6/kernel:0": (1, 1, 256, 64),
        "bnorm/bnorm_6/moving_mean:0": (64,),
        "bnorm/bnorm_6/moving_variance:0": (64,),
        "glbStd/glbStd_6/min_std:0": (1, 1, 1, 64),
        "cLSTM/cLSTM_6/kernel:0": (7, 7, 64, 32),
        "cLSTM/cLSTM_6/recurrent_kernel:0": (7, 7, 8, 32),
        "cLSTM/cLSTM_6/bias:0": (32,),
        "pred/pred_6/kernel:0": (7, 7, 8, 1),
        "pred/pred_6/bias:0": (1,),
    }
    for layer, (c_in, c_out) in LAYERS.items():
        shapes[f"Featex/{layer}_6/kernel:0"] = (3, 3, c_in, c_out)
        shapes[f"Featex/{layer}_6/bias:0"] = (c_out,)
    return shapes


def keras_state() -> dict[str, Tensor]:
    """Zeros under the names as they are read."""
    return {key.replace("/", "."): torch.zeros(shape) for key, shape in keras_shapes().items()}


def as_keras(state: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """The port's tensors as the Keras code would have stored them."""
    arrays = {key: np.zeros(shape, np.float32) for key, shape in keras_shapes().items()}
    head = "AnomalyDetector."
    kernels = {
        "Featex/b1c1_6/regular_kernel:0": state["IMTFE.init_conv.weight"],
        "Featex/b1c1_6/bayar_kernel:0": state["IMTFE.BayarConv2D.weight"],
        "outlierTrans/outlierTrans_6/kernel:0": state[f"{head}adaptation.weight"],
        "cLSTM/cLSTM_6/kernel:0": state[f"{head}conv_lstm.cell_list.0.conv.weight"][:, :64],
        "cLSTM/cLSTM_6/recurrent_kernel:0": state[f"{head}conv_lstm.cell_list.0.conv.weight"][
            :, 64:
        ],
        "pred/pred_6/kernel:0": state[f"{head}end.0.weight"],
    }
    arrays["cLSTM/cLSTM_6/bias:0"][:] = state[f"{head}conv_lstm.cell_list.0.conv.bias"]
    arrays["pred/pred_6/bias:0"][:] = state[f"{head}end.0.bias"]
    arrays["glbStd/glbStd_6/min_std:0"][0, 0, 0] = state[f"{head}sigma_F"].flatten()
    for i, layer in enumerate(LAYERS):
        name = f"IMTFE.middle_and_last_block.{2 * i}"
        kernels[f"Featex/{layer}_6/kernel:0"] = state[f"{name}.weight"]
        arrays[f"Featex/{layer}_6/bias:0"][:] = state[f"{name}.bias"]
    for key, value in kernels.items():
        arrays[key][:] = np.einsum("oihw->hwio", value.numpy())
    return arrays


def write(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """An HDF5 file with the groups that Keras makes, those of layers without weights too."""
    h5py = pytest.importorskip("h5py", reason="needs the extra keras")
    with h5py.File(path, "w") as file:
        for layer in ("img_in", "nestedAvgFeatex", "expTime", "divStd"):
            file.create_group(layer)
        for key, value in arrays.items():
            file[key] = value
    return path


def test_an_import_gives_the_weights_of_the_port(tmp_path: Path) -> None:
    state = official_state()
    path = write(tmp_path / "ManTraNet_Ptrain4.h5", as_keras(state))
    done = import_weights("mantranet", [path], tmp_path / "out")
    found, wanted = load_file(tmp_path / "out" / "mantranet.safetensors"), remap(state)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())
    assert done.notes == ()
    assert list(done.record.published.files) == [path.name]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("theirs", "at", "ours", "there"),
    [
        ("Featex.b1c1_6.regular_kernel:0", (0, 4, 2, 3), "features.plain.weight", (3, 2, 0, 4)),
        ("Featex.b1c1_6.bayar_kernel:0", (1, 3, 0, 2), "features.bayar.weight", (2, 0, 1, 3)),
        ("Featex.b1c2_6.kernel:0", (0, 2, 5, 31), "features.layers.0.weight", (31, 5, 0, 2)),
        ("Featex.b3c1_6.bias:0", (127,), "features.layers.6.bias", (127,)),
        ("Featex.transform_6.kernel:0", (2, 1, 9, 8), "features.layers.22.weight", (8, 9, 2, 1)),
        ("outlierTrans.outlierTrans_6.kernel:0", (0, 0, 255, 1), "anomaly.reduce.weight", (1, 255)),
        ("glbStd.glbStd_6.min_std:0", (0, 0, 0, 63), "anomaly.min_std", (0, 63)),
        ("cLSTM.cLSTM_6.kernel:0", (1, 6, 63, 9), "anomaly.lstm.conv.weight", (9, 63, 1, 6)),
        (
            "cLSTM.cLSTM_6.recurrent_kernel:0",
            (1, 6, 7, 9),
            "anomaly.lstm.conv.weight",
            (9, 71, 1, 6),
        ),
        ("cLSTM.cLSTM_6.bias:0", (8,), "anomaly.lstm.conv.bias", (8,)),
        ("pred.pred_6.kernel:0", (6, 0, 7, 0), "anomaly.predict.weight", (0, 7, 6, 0)),
    ],
)
def test_one_number_lands_where_it_must(
    theirs: str, at: tuple[int, ...], ours: str, there: tuple[int, ...]
) -> None:
    state = keras_state()
    state[theirs][at] = 1
    out = remap(state)
    with build_on_meta():
        check_fits(ManTraNet(), out)
    assert out[ours][there].item() == 1
    assert sum(int(value.count_nonzero()) for value in out.values()) == 1


def test_inner_names_may_have_any_number_or_none() -> None:
    state = keras_state()
    for number in ("", "_12"):
        assert remap({k.replace("_6", number): v for k, v in state.items()}).keys() == (
            remap(state).keys()
        )


def test_the_moving_statistics_have_no_place() -> None:
    state = keras_state()
    state["bnorm.bnorm_6.moving_mean:0"] += 1
    assert not any(value.any() for value in remap(state).values())


@pytest.mark.parametrize("key", [k.replace("/", ".") for k in keras_shapes() if "bnorm" not in k])
def test_a_missing_array_is_an_error(key: str) -> None:
    state = keras_state()
    del state[key]
    out = remap(state)
    with build_on_meta(), pytest.raises(WeightsError, match=r"it lacks (features|anomaly)\."):
        check_fits(ManTraNet(), out)


@pytest.mark.parametrize(
    "key",
    [
        "Featex.b5c3_6.kernel:0",
        "Featex.b1c1_6.srm:0",
        "outlierTrans.outlierTrans_6.bias:0",
        "bnorm.bnorm_6.gamma:0",
        "pred.cLSTM_6.bias:0",
        "IMTFE.init_conv.weight",
    ],
)
def test_an_unknown_array_is_an_error(key: str) -> None:
    with pytest.raises(WeightsError, match=f"unknown keys: {key}"):
        remap({**keras_state(), key: torch.zeros(1)})


def test_kernels_that_do_not_match_and_a_second_copy_are_errors() -> None:
    state = keras_state()
    with pytest.raises(WeightsError, match="two kernels of cLSTM do not match"):
        remap({**state, "cLSTM.cLSTM_6.recurrent_kernel:0": torch.zeros(3, 3, 8, 32)})
    with pytest.raises(WeightsError, match="become the same"):
        remap({**state, "pred.pred_7.bias:0": torch.zeros(1)})


def test_a_file_that_lacks_an_array_writes_no_weights(tmp_path: Path) -> None:
    arrays = {key: np.zeros(shape, np.float32) for key, shape in keras_shapes().items()}
    del arrays["cLSTM/cLSTM_6/recurrent_kernel:0"]
    path = write(tmp_path / "x.h5", arrays)
    assert "cLSTM.cLSTM_6.kernel:0" in read_checkpoint(path).tensors
    with pytest.raises(WeightsError, match=r"x\.h5: .* it lacks anomaly\.lstm\.conv\.weight"):
        import_weights("mantranet", [path], tmp_path / "out")
    assert not (tmp_path / "out").exists()
