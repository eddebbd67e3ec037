"""NIX-Net with context: statistics against a slow reference, its start, its reach."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers.detection_task_contract import recipe
from helpers.detector_contract import DetectorContract, warmed
from overpaint.detectors import Detector
from overpaint.detectors.nixnet import NIXNet, NIXNetConfig
from overpaint.detectors.nixnet_context import (
    EPS,
    Statistics,
    compute_z_scores,
    make_context_blocks,
)
from overpaint.errors import ConfigError, WeightsError
from overpaint.registry import detectors
from overpaint.training.detection.base import start
from overpaint.weights import WeightsRecord, load_weights, save_weights

SMALL = (8, 12, 16)


def trained(model: nn.Module) -> None:
    """As if after training: the last convolutions of the blocks are no longer zero."""
    for module in model.modules():
        if isinstance(module, Statistics):
            nn.init.normal_(module.back.weight, std=0.3)


class ContextContract(DetectorContract):
    name, num_parameters = "nixnet", 29_493_377
    config: ClassVar[dict[str, Any]] = {}

    def make(self) -> Detector:
        model = super().make()
        trained(model)
        return model

    def test_number_of_parameters_is_that_of_the_fact_sheet(self) -> None:
        plain, model = (NIXNet(NIXNetConfig(SMALL, context=c)) for c in ("none", self.kind))  # type: ignore[arg-type]
        assert model.num_parameters - plain.num_parameters == self.added

    kind: ClassVar[str]
    added: ClassVar[int]


class TestStatistics(ContextContract):
    kind = "statistics"
    # Per map: reduce c * f, mix 3 f * f and a batch norm of 2 f, back f * c; f = c / 4.
    added = sum(2 * c * f + 3 * f * f + 2 * f for c, f in ((8, 2), (12, 3), (16, 4)))
    config: ClassVar[dict[str, Any]] = {"widths": SMALL, "context": "statistics"}


# z-scores


def slow_z_scores(x: np.ndarray, windows: tuple[int, ...]) -> np.ndarray:
    """One place after the other, in double precision: (c, h, w) -> (c * (1 + windows), h, w)."""
    _, h, w = x.shape
    out = []
    z = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + EPS)
    out.append(z)
    for side in windows:
        half, scores = side // 2, np.zeros_like(z)
        for i, j in np.ndindex(h, w):
            rows = slice(max(0, i - half), i + half + 1)
            part = z[:, rows, max(0, j - half) : j + half + 1]
            scores[:, i, j] = (z[:, i, j] - part.mean((1, 2))) / np.sqrt(part.var((1, 2)) + EPS)
        out.append(scores)
    return np.concatenate(out)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (13, 20), (17, 17)])
def test_z_scores_equal_a_slow_reference(size: tuple[int, int]) -> None:
    x = 5 + 0.2 * np.random.default_rng(0).normal(size=(2, 3, *size))
    found = compute_z_scores(torch.from_numpy(x).float(), windows=(3, 7, 31)).numpy()
    expected = np.stack(
        [slow_z_scores(one.astype(np.float32).astype(float), (3, 7, 31)) for one in x]
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_z_scores_by_hand() -> None:
    x = torch.tensor([0.0, 0, 0, 4]).reshape(1, 1, 1, 4)  # mean 1, variance 3
    whole, window = compute_z_scores(x, windows=(3,))[0]
    scale = (3 + EPS) ** -0.5
    torch.testing.assert_close(whole[0], scale * torch.tensor([-1.0, -1, -1, 3]))
    assert window[0, 0] == window[0, 1] == 0  # three equal values, of which one is not there
    # The last two windows: 0, 0, 4 (mean 4/3, variance 32/9) and 0, 4 (mean 2, variance 4).
    of_three = -4 / 3 * scale / (32 / 9 * scale**2 + EPS) ** 0.5
    of_two = 2 * scale / (4 * scale**2 + EPS) ** 0.5
    torch.testing.assert_close(window[0, 2:], torch.tensor([of_three, of_two]))


def test_a_window_larger_than_the_map_is_the_whole() -> None:
    x = torch.randn(1, 2, 9, 11)
    whole, window = compute_z_scores(x, windows=(31,)).chunk(2, dim=1)
    torch.testing.assert_close(window, whole, rtol=0, atol=2e-3)


def test_a_flat_photo_has_finite_scores_and_gradients() -> None:
    x = torch.full((1, 2, 8, 8), 3.0, requires_grad=True)
    scores = compute_z_scores(x)
    assert not scores.any()
    scores.square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_scores_do_not_depend_on_brightness_and_contrast() -> None:
    x = torch.randn(1, 2, 20, 24)
    torch.testing.assert_close(
        compute_z_scores(50 * x + 300), compute_z_scores(x), rtol=0, atol=5e-3
    )


def test_statistics_are_exact_under_autocast() -> None:
    block, x = Statistics(8).eval(), 200 + torch.randn(1, 8, 20, 24)
    seen: list[Tensor] = []
    block.mix.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        block(x)
        with torch.autocast("cpu", torch.bfloat16):
            block(x)
    assert seen[1].dtype == torch.float32
    assert torch.equal(*seen)


# The start


def test_a_network_with_context_starts_as_the_one_without() -> None:
    torch.manual_seed(0)
    plain = warmed(NIXNet(NIXNetConfig(SMALL)))
    model = NIXNet(NIXNetConfig(SMALL, context="statistics")).eval()
    own = {k: v for k, v in model.state_dict().items() if k.startswith("context.")}
    assert own
    model.load_state_dict(plain.state_dict() | own)
    image = torch.rand(2, 3, 45, 61)
    with torch.no_grad():
        assert torch.equal(model(image), plain(image))
        trained(model)
        assert not torch.equal(model(image), plain(image))


def test_the_other_parts_start_as_without_context() -> None:
    states = []
    for kind in ("none", "statistics"):
        torch.manual_seed(3)
        states.append(NIXNet(NIXNetConfig(SMALL, context=kind)).state_dict())  # type: ignore[arg-type]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_by_default_there_is_no_context() -> None:
    assert make_context_blocks("none", SMALL) is None
    assert not [k for k in NIXNet(NIXNetConfig(SMALL)).state_dict() if "context" in k]


def test_an_unknown_context_is_refused() -> None:
    with pytest.raises(ConfigError, match="no context 'local'; there are none, statistics"):
        NIXNetConfig(SMALL, context="local")  # type: ignore[arg-type]


# The reach


def changed_at(model: Detector, column: int, side: int) -> float:
    """How much the first logits of a row change when the photo does from `column` on."""
    torch.manual_seed(1)
    image = torch.rand(1, 3, 16, side)
    other = image.clone()
    other[..., column:] = 1 - other[..., column:] ** 2
    with torch.no_grad():
        return float((model(image) - model(other))[..., :8].abs().max())


@pytest.mark.parametrize(
    ("context", "near", "far"),
    [("none", False, False), ("statistics", True, True)],
)
def test_what_is_far_away_reaches_a_logit_with_context_alone(
    context: Any, near: bool, far: bool
) -> None:
    torch.manual_seed(0)
    model = NIXNet(NIXNetConfig(SMALL, context=context))
    trained(model)
    warmed(model)
    assert changed_at(model, 8, 640) > 0
    assert (changed_at(model, 120, 640) > 0) is near
    assert (changed_at(model, 480, 640) > 0) is far


# Weights to start from


@pytest.fixture
def first(tmp_path: Path) -> WeightsRecord:
    return saved(tmp_path, "first", context="none")


def saved(folder: Path, name: str, **config: Any) -> WeightsRecord:
    config = {"widths": list(SMALL)} | {k: v for k, v in config.items() if v != "none"}
    torch.manual_seed(7)
    model = detectors.create("nixnet", **config)
    trained(model)
    about = dict.fromkeys(("data", "recipe", "commit"), "none")
    return save_weights(
        folder,
        warmed(model),
        name=name,
        kind="detector",
        architecture="nixnet",
        config=config,
        licence="Apache-2.0",
        dtype=torch.float32,
        **about,
    )


def started(first: WeightsRecord, **model: Any) -> Any:
    values = {"widths": list(SMALL)} | model
    return recipe(model=values, start_from=str(first.path))


def test_weights_without_context_are_gone_on_from_with_it(first: WeightsRecord) -> None:
    run = started(first, context="statistics")
    begun = start(run)
    assert begun.fresh == ("context",)
    model, image = begun.model.eval(), torch.rand(1, 3, 40, 56)
    plain = start(started(first)).model.eval()
    with torch.no_grad():
        assert torch.equal(model(image), plain(image))
    _, state = load_weights(first.path)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())


def test_nothing_is_fresh_where_the_networks_are_the_same(
    tmp_path: Path, first: WeightsRecord
) -> None:
    assert start(started(first)).fresh == ()
    other = saved(tmp_path, "other", context="statistics")
    run = started(other, context="statistics")
    begun = start(run)
    assert begun.fresh == ()
    own = begun.model.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in load_weights(other.path)[1].items())


@pytest.mark.parametrize(
    ("had", "wanted", "message"),
    [
        ({}, {"context": "statistics", "fusion_3": False}, "the network has no fusion_3"),
        ({"fusion_12": False}, {"context": "statistics"}, "it lacks fusion_1.coarse"),
        ({"context": "statistics"}, {}, "the network has no context"),
    ],
)
def test_networks_that_differ_in_more_are_refused(
    had: dict[str, Any], wanted: dict[str, Any], message: str, tmp_path: Path
) -> None:
    first = saved(tmp_path, "first", **had)
    run = started(first, **wanted)
    with pytest.raises(WeightsError, match=message):
        start(run)


def test_weights_of_another_detector_are_refused(first: WeightsRecord) -> None:
    run = recipe(detector="ldicn", model={"width": 12}, start_from=str(first.path))
    with pytest.raises(WeightsError, match="does not fit"):
        start(run)
