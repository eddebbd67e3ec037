"""LDICN: the contract, its filters, strides and start by hand, and TensorFlow's names."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from helpers import reproducible
from helpers.detector_contract import DetectorContract, has_gradient
from overpaint.detectors.ldicn import (
    LDICN,
    Bottleneck,
    HighPass,
    LDICNConfig,
    make_bilinear_kernel,
    make_difference_kernels,
    remap,
)
from overpaint.errors import ConfigError, WeightsError
from overpaint.registry import build_on_meta, detectors
from overpaint.weights.rename_keys import check_fits

TINY: dict[str, Any] = {"width": 2}
UNUSED_NORM = 2 * 1024  # `postnorm`, which the published code has and never reads


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class TestLDICN(DetectorContract):
    name, num_parameters = "ldicn", 7_701_077 - UNUSED_NORM
    config: ClassVar[dict[str, Any]] = TINY


def test_the_parameters_counted_by_hand() -> None:
    total = 3 * 3 * 9 + 2 * 4 + (5 * 5 * 4 + 1) * 2  # filters, last norm, logits
    total += 8 * 8 * (1024 * 64 + 64 * 4)  # enlargements
    for c_in, base, out in ((9, 32, 128), (128, 64, 256), (256, 128, 512), (512, 256, 1024)):
        total += (c_in + 1) * out  # shortcut
        for c in (c_in, out):
            total += 2 * c + c * base + 2 * base + 9 * base**2 + 2 * base + (base + 1) * out
    assert total == TestLDICN.num_parameters


def test_the_small_one_fits_into_3_megabytes_as_float16() -> None:
    with build_on_meta():
        model = detectors.create("ldicn", width=12)
    assert model.num_parameters == 1_090_689
    assert sum(v.numel() for v in model.state_dict().values()) * 2 < 3e6


def unit_layers(c_in: int, base: int, out: int, first: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one unit of the published body, in TensorFlow's order of axes."""
    shapes: dict[str, tuple[int, ...]] = {
        "conv1.weights": (1, 1, c_in, base),
        "conv2.weights": (3, 3, base, base),
        "conv3.weights": (1, 1, base, out),
        "conv3.biases": (out,),
    }
    if first:
        shapes |= {"shortcut.weights": (1, 1, c_in, out), "shortcut.biases": (out,)}
    norms = {"preact": c_in, "conv1.BatchNorm": base, "conv2.BatchNorm": base}
    return shapes | norm_shapes(norms)


def norm_shapes(norms: dict[str, int]) -> dict[str, tuple[int, ...]]:
    leaves = ("gamma", "beta", "moving_mean", "moving_variance")
    return {f"{name}.{leaf}": (c,) for name, c in norms.items() for leaf in leaves}


def official_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"root_filter{i}": (3, 3, 3, 1) for i in range(3)}
    shapes |= {"bilinear_kernel0": (8, 8, 64, 1024), "bilinear_kernel1": (8, 8, 4, 64)}
    shapes |= {"logits.weights": (5, 5, 4, 2), "logits.biases": (2,)}
    shapes |= norm_shapes({"post_norm": 4, "resnet_small.postnorm": 1024})
    channels = 9
    for b in range(4):
        base, out = 32 << b, 128 << b
        for u, c_in in enumerate((channels, out)):
            prefix = f"resnet_small.block{b + 1}.unit_{u + 1}.bottleneck_v2."
            layers = unit_layers(c_in, base, out, first=u == 0)
            shapes |= {prefix + name: shape for name, shape in layers.items()}
        channels = out
    return shapes


class TestPublishedNames:
    def test_every_variable_finds_its_place(self) -> None:
        official = detectors.get("ldicn").official
        assert official is not None
        shapes = official_shapes()
        trainable = [shape for name, shape in shapes.items() if ".moving_" not in name]
        assert sum(torch.Size(shape).numel() for shape in trainable) == 7_701_077
        with build_on_meta():
            state = {name: torch.empty(shape) for name, shape in shapes.items()}
            model = detectors.create("ldicn", **official.config)
        for name in ("root_filter0", "logits.weights"):
            state |= {f"{name}.Adam": state[name], f"{name}.Adam_1": state[name]}
        state |= {name: torch.zeros(()) for name in ("beta1_power", "beta2_power", "global_step")}
        check_fits(model, official.remap(state))

    def test_values_are_turned_to_our_axes(self) -> None:
        state = reproducible.weights(official_shapes())
        out = remap(state)
        kernel = state["bilinear_kernel1"]
        assert out["up1.weight"][5, 3, 1, 7] == kernel[1, 7, 3, 5]
        assert out["residual.filter2.weight"][1, 0, 0, 2] == state["root_filter2"][0, 2, 1, 0]
        unit = "resnet_small.block3.unit_1.bottleneck_v2."
        conv = state[unit + "conv2.weights"]
        assert out["body.block3.unit1.conv2.weight"][9, 7, 2, 0] == conv[2, 0, 7, 9]
        assert out["body.block3.unit1.preact.weight"] is state[unit + "preact.gamma"]
        variance = state[unit + "conv1.BatchNorm.moving_variance"]
        assert out["body.block3.unit1.norm1.running_var"] is variance
        assert out["norm.bias"] is state["post_norm.beta"]

    def test_unknown_and_missing_names_are_errors(self) -> None:
        with build_on_meta():
            state = {name: torch.empty(shape) for name, shape in official_shapes().items()}
            model = LDICN()
        with pytest.raises(WeightsError, match=r"unknown keys: root_filter0\.weights"):
            remap({**state, "root_filter0.weights": torch.zeros(1)})
        del state["bilinear_kernel0"]
        with pytest.raises(WeightsError, match=r"lacks up0\.weight"):
            check_fits(model, remap(state))


DOWN_OF_ORDER = {
    1: [0, -1, 1],
    2: [1, -2, 1],
    3: [0, -1, 3, -3, 1],
    4: [1, -4, 6, -4, 1],
}


class TestFilters:
    @pytest.mark.parametrize("order", DOWN_OF_ORDER)
    def test_kernels_lie_down_right_and_diagonal(self, order: int) -> None:
        line = torch.tensor(DOWN_OF_ORDER[order], dtype=torch.float32)
        expected = torch.zeros(3, len(line), len(line))
        expected[0, :, len(line) // 2] = line
        expected[1, len(line) // 2, :] = line
        expected[2] = torch.diag(line)
        assert torch.equal(make_difference_kernels(order), expected)

    def test_residuals_are_differences_of_neighbours_colour_by_colour(self) -> None:
        image = torch.rand(1, 3, 6, 7)
        found = HighPass(order=1)(image)
        padded = F.pad(image, (0, 1, 0, 1))
        here = padded[..., :-1, :-1]
        below, right, across = padded[..., 1:, :-1], padded[..., :-1, 1:], padded[..., 1:, 1:]
        expected = torch.cat([below - here, right - here, across - here], dim=1)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)

    def test_a_higher_order_needs_no_other_network(self) -> None:
        logits = LDICN(LDICNConfig(width=2, order=3)).eval()(torch.rand(1, 3, 20, 33))
        assert logits.shape == (1, 1, 20, 33)

    def test_autocast_does_not_touch_the_differences(self) -> None:
        high_pass, image = HighPass(order=1), torch.rand(1, 3, 16, 16)
        exact = high_pass(image)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(high_pass(image), exact)


def normalised(x: Tensor) -> Tensor:
    """What a fresh batch norm does in eval mode."""
    return x / (1 + 1e-5) ** 0.5


class TestBody:
    def test_the_last_unit_of_a_block_halves_and_the_first_one_widens(self) -> None:
        body = LDICN(LDICNConfig(width=2)).body
        shapes: list[tuple[int, ...]] = []
        for block in body.children():
            for unit in block.children():
                unit.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
        body(torch.rand(2, 9, 32, 48))
        assert shapes == [
            (8, 32, 48),
            (8, 16, 24),
            (16, 16, 24),
            (16, 8, 12),
            (32, 8, 12),
            (32, 4, 6),
            (64, 4, 6),
            (64, 2, 3),
        ]

    def test_without_its_branch_a_last_unit_takes_every_other_pixel_of_its_input(self) -> None:
        unit, x = Bottleneck(8, 2, 8).eval(), torch.randn(1, 8, 4, 6)
        torch.nn.init.zeros_(unit.conv3.weight)
        torch.nn.init.zeros_(unit.conv3.bias)  # type: ignore[arg-type]
        assert torch.equal(unit(x), x[..., ::2, ::2])

    def test_a_last_units_branch_is_centred_on_the_same_pixels(self) -> None:
        unit, x = Bottleneck(8, 2, 8).eval(), torch.ones(1, 8, 7, 7, requires_grad=True)
        for conv in (unit.conv1, unit.conv2, unit.conv3):
            torch.nn.init.ones_(conv.weight)
        unit(x)[0, :, 1, 1].sum().backward()  # the middle of rows and columns 1 to 3
        seen = x.grad[0].abs().sum(dim=0).nonzero()  # type: ignore[index]
        assert seen.amin(dim=0).tolist() == [1, 1]
        assert seen.amax(dim=0).tolist() == [3, 3]

    def test_a_first_units_shortcut_sees_the_activated_input(self) -> None:
        unit, x = Bottleneck(3, 2, 8).eval(), torch.randn(1, 3, 4, 6)
        assert unit.shortcut is not None
        torch.nn.init.zeros_(unit.conv3.weight)
        torch.nn.init.zeros_(unit.conv3.bias)  # type: ignore[arg-type]
        expected = unit.shortcut(normalised(x).clamp(min=0))
        torch.testing.assert_close(unit(x), expected)


class TestDecoder:
    def test_the_kernel_interpolates_bilinearly(self) -> None:
        x = torch.randn(1, 1, 6, 8)
        kernel = make_bilinear_kernel(4).reshape(1, 1, 8, 8)
        found = F.conv_transpose2d(x, kernel, stride=4, padding=2)
        expected = F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=False)
        inside = (..., slice(2, -2), slice(2, -2))  # beyond the last places it fades to 0
        torch.testing.assert_close(found[inside], expected[inside], rtol=0, atol=1e-5)

    def test_the_published_start_gives_all_pairs_one_kernel(self) -> None:
        model = LDICN(LDICNConfig(width=2, faithful=True))
        for up in (model.up0, model.up1):
            assert torch.equal(up.weight, make_bilinear_kernel(4).expand_as(up.weight))

    def test_the_published_start_keeps_hidden_channels_alike_and_ours_does_not(self) -> None:
        image, target = torch.rand(2, 3, 32, 32), torch.rand(2, 1, 32, 32).round()
        for faithful in (True, False):
            model = LDICN(LDICNConfig(width=2, faithful=faithful)).train()
            optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(3):
                optimiser.zero_grad()
                F.binary_cross_entropy_with_logits(model(image), target).backward()
                optimiser.step()
            assert has_gradient(model.up0.weight.grad)
            channels = model.up0.weight[:, :2] / model.up0.weight.std()
            alike = torch.allclose(channels[:, 0], channels[:, 1], atol=1e-4)
            assert alike is faithful

    def test_the_logit_has_the_sigmoid_of_the_softmax(self) -> None:
        model, image = LDICN(LDICNConfig(width=2)).eval(), torch.rand(1, 3, 32, 32)
        two: list[Tensor] = []
        model.logits.register_forward_hook(lambda *hooked: two.append(hooked[2]))
        logit = model(image)
        torch.testing.assert_close(logit.sigmoid(), two[0].softmax(dim=1)[:, 1:])


@pytest.mark.parametrize("config", [{"width": 0}, {"order": 0}, {"order": 5}])
def test_an_impossible_configuration_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="width must be at least 1 and order 1, 2, 3 or 4"):
        LDICNConfig(**config)
