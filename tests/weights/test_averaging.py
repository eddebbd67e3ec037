"""The mean of weights: of the values, of their record, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch

from overpaint.detectors.nixnet import nixnet
from overpaint.errors import ConfigError
from overpaint.weights import WeightsRecord, build, load_weights, save_weights
from overpaint.weights.averaging import average_weights

WIDTHS = [4, 6, 8]


def saved(folder: Path, name: str, seed: int, **config: Any) -> WeightsRecord:
    torch.manual_seed(seed)
    config = {"widths": WIDTHS, **config}
    module = nixnet(**config).train()
    module(torch.rand(2, 3, 16, 16))  # statistics of its own
    return save_weights(
        folder,
        module,
        name=name,
        kind="detector",
        architecture="nixnet",
        config=config,
        data=f"photos of {name}",
        data_sha256=name * 64,
        recipe=f"{name}.yaml",
        commit="none",
        licence="Apache-2.0",
    )


def test_values_are_averaged_by_their_shares(tmp_path: Path) -> None:
    first, second = (saved(tmp_path, name, seed) for seed, name in enumerate("ab"))
    record = average_weights({str(first.path): 0.25, str(second.path): 0.75}, "mean", tmp_path)
    states = [load_weights(r.path)[1] for r in (record, first, second)]
    for key, value in states[0].items():
        if value.is_floating_point():
            expected = 0.25 * states[1][key].float() + 0.75 * states[2][key].float()
            torch.testing.assert_close(value.float(), expected, rtol=2e-3, atol=1e-4)  # float16
    assert record.parents == (first.as_parent(0.25), second.as_parent(0.75))
    assert record.ancestors == (first.lineage, second.lineage)
    assert (record.recipe, record.config_hash, record.step) == (None, None, None)
    assert (record.data, record.data_sha256) == ("photos of a + photos of b", None)
    assert build(record).training is False


def test_the_mean_of_one_is_that_one(tmp_path: Path) -> None:
    first = saved(tmp_path, "a", 0)
    record = average_weights({str(first.path): 1}, "mean", tmp_path)
    assert record.sha256 == first.sha256


@pytest.mark.parametrize("shares", [(0.5, 0.6), (1.5, -0.5), (1, 0)])
def test_shares_make_one(tmp_path: Path, shares: tuple[float, float]) -> None:
    files = [str(saved(tmp_path, name, 0).path) for name in "ab"]
    with pytest.raises(ConfigError, match="shares must be positive and make 1"):
        average_weights(dict(zip(files, shares, strict=True)), "mean", tmp_path)


def test_networks_of_two_kinds_are_refused(tmp_path: Path) -> None:
    first, second = saved(tmp_path, "a", 0), saved(tmp_path, "b", 0, colour=True)
    with pytest.raises(ConfigError, match="is of another network"):
        average_weights({str(first.path): 0.5, str(second.path): 0.5}, "mean", tmp_path)
    assert not (tmp_path / "mean.safetensors").exists()


def test_a_setting_that_states_its_default_is_no_other_network(tmp_path: Path) -> None:
    first, second = saved(tmp_path, "a", 0), saved(tmp_path, "b", 0, colour=False)
    assert first.config != second.config
    average_weights({str(first.path): 0.5, str(second.path): 0.5}, "mean", tmp_path)
