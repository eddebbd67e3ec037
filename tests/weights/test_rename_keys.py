"""Keys of published checkpoints: renamed by rules, and nothing lost in silence."""

import pytest
import torch
from torch import nn

from overpaint.errors import WeightsError
from overpaint.weights.rename_keys import check_fits, rename_keys

RULES = [(r"module\.conv(\d+)\.(weight|bias)", r"layers.\1.\2"), (r"head\.(\w+)", r"out.\1")]


class TestRenamed:
    def test_the_first_rule_that_takes_the_whole_key(self) -> None:
        state = {"module.conv3.weight": 1, "head.bias": 2}
        assert rename_keys(state, RULES) == {"layers.3.weight": 1, "out.bias": 2}

    def test_keys_that_no_rule_takes_are_listed(self) -> None:
        with pytest.raises(WeightsError, match=r"unknown keys: xhead\.bias, module\.conv\.weight"):
            rename_keys({"head.bias": 0, "xhead.bias": 1, "module.conv.weight": 2}, RULES)

    def test_what_is_dropped_on_purpose(self) -> None:
        state = {"head.bias": 0, "head.num_batches_tracked": 1}
        assert rename_keys(state, RULES, drop=[r".*\.num_batches_tracked"]) == {"out.bias": 0}

    def test_two_keys_that_become_one(self) -> None:
        with pytest.raises(WeightsError, match=r"the same: b\.x -> x"):
            rename_keys({"a.x": 0, "b.x": 1}, [(r"[ab]\.(x)", r"\1")])

    def test_a_long_list_is_cut(self) -> None:
        with pytest.raises(WeightsError, match=r"k7 and 4 more"):
            rename_keys({f"k{i}": i for i in range(12)}, [])


class TestCheckFits:
    def test_a_network_takes_its_own_state(self) -> None:
        check_fits(nn.Linear(2, 3), nn.Linear(2, 3).state_dict())

    def test_everything_wrong_is_told_at_once(self) -> None:
        state = {"weight": torch.zeros(2, 3), "extra": torch.zeros(1)}
        with pytest.raises(WeightsError) as error:
            check_fits(nn.Linear(2, 3), state)
        for part in ("it lacks bias", "has no extra", r"weight (2, 3), not (3, 2)"):
            assert part in str(error.value)
