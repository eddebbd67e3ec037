"""DeepFill v1: the contract, the published weights' names, golden outputs, and the critic."""

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import reproducible
from helpers.inpainter_contract import TrainableContract, has_gradient, sample
from overpaint.errors import ConfigError, WeightsError
from overpaint.inpainters.deepfill_v1 import (
    DeepFillV1,
    DeepFillV1Config,
    LocalGlobalCritic,
    remap,
)
from overpaint.registry import build_on_meta, inpainters
from overpaint.weights.rename_keys import check_fits

# (name, channels in, channels out) of each published layer at cnum 32; kernels are 3x3.
TRUNK = [("6", 128, 128), *((f"{n}_atrous", 128, 128) for n in (7, 8, 9, 10))]
DECODER = [(13, 128, 64), (14, 64, 64), (15, 64, 32), (16, 32, 16), (17, 16, 3)]
COARSE = [
    *[("2_downsample", 32, 64), ("3", 64, 64), ("4_downsample", 64, 128), ("5", 128, 128)],
    *TRUNK,
    *[("11", 128, 128), ("12", 128, 128)],
]
IMAGINE = [("2_downsample", 32, 32), ("3", 32, 64), ("4_downsample", 64, 64), ("5", 64, 128)]
LOOK = [("2_downsample", 32, 32), ("3", 32, 64), ("4_downsample", 64, 128)]
LOOK += [(n, 128, 128) for n in ("5", "6", "9", "10")]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def tiny(**config: Any) -> DeepFillV1:
    return DeepFillV1(DeepFillV1Config(**{"width": 4, **config}))


def layers() -> list[tuple[str, str, int, int, int]]:
    """Network, published name, channels in and out, and side of the kernel of every layer."""
    decoder = [(str(n), c_in, c_out) for n, c_in, c_out in DECODER]
    merge = [("11", 256, 128), ("12", 128, 128), *decoder]
    rows = [
        ("coarse", "conv", [*COARSE, *decoder]),
        ("fine", "conv", [*IMAGINE, *TRUNK]),
        ("fine", "pmconv", LOOK),
        ("fine", "allconv", merge),
    ]
    return [
        *((net, f"{kind}1", 5, 32, 5) for net, kind, _ in rows[:3]),
        *((net, f"{kind}{name}", a, b, 3) for net, kind, row in rows for name, a, b in row),
    ]


def official_shapes(prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Names and shapes of the port's generator."""
    shapes: dict[str, tuple[int, ...]] = {}
    for net, name, c_in, c_out, side in layers():
        shapes[f"{prefix}{net}_generator.{name}.conv.weight"] = (c_out, c_in, side, side)
        shapes[f"{prefix}{net}_generator.{name}.conv.bias"] = (c_out,)
    return shapes


def tensorflow_name(net: str, name: str) -> str:
    name = f"x{name}" if (net, name[:4]) == ("fine", "conv") else name
    if name.endswith(("13", "15")):
        return f"inpaint_net.{name}_upsample.{name}_upsample_conv"
    return f"inpaint_net.{name}"


def from_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same network in the authors' TensorFlow names, order of axes and order of colours."""
    out = {}
    for net, name, *_ in layers():
        weight, bias = (state[f"{net}_generator.{name}.conv.{kind}"] for kind in ("weight", "bias"))
        if name.endswith("conv1"):
            weight = weight[:, [2, 1, 0, 3, 4]]
        if name.endswith("17"):
            weight, bias = weight[[2, 1, 0]], bias[[2, 1, 0]]
        out[f"{tensorflow_name(net, name)}.kernel"] = torch.einsum("oihw->hwio", weight)
        out[f"{tensorflow_name(net, name)}.bias"] = bias
    return out


class TestDeepFillV1(TrainableContract):
    name, num_parameters = "deepfill_v1", 3_601_542
    config = {"width": 8}  # noqa: RUF012
    # In smaller steps: a picture that is clamped all over is stuck.
    overfit_rate = 2e-3


def test_the_small_one_fits_into_3_megabytes_as_float16() -> None:
    with build_on_meta():
        model = inpainters.create("deepfill_v1", width=20)
    assert sum(v.numel() for v in model.state_dict().values()) * 2 < 3e6


class TestPublishedWeights:
    @pytest.mark.parametrize("prefix", ["", "netG."])
    def test_all_names_and_shapes_are_taken(self, prefix: str) -> None:
        with build_on_meta():
            state = {key: torch.empty(shape) for key, shape in official_shapes(prefix).items()}
            check_fits(inpainters.create("deepfill_v1"), remap(state))
        assert len(state) == 2 * (17 + 10 + 8 + 7)

    def test_a_checkpoint_of_the_authors_is_turned_to_our_axes_and_to_rgb(self) -> None:
        state = reproducible.weights(official_shapes())
        theirs = from_keys(state)
        slots = {"beta1_power": torch.zeros(()), "inpaint_net.conv1.bias.Adam_1": torch.zeros(32)}
        slots["discriminator.discriminator_local.conv1.kernel"] = torch.zeros(5, 5, 3, 64)
        remapped, expected = remap({**theirs, **slots}), remap(state)
        assert remapped.keys() == expected.keys()
        assert all(torch.equal(remapped[key], value) for key, value in expected.items())

    def test_an_unknown_key_and_a_missing_one_are_errors(self) -> None:
        with build_on_meta():
            state = {key: torch.empty(shape) for key, shape in official_shapes().items()}
            model = inpainters.create("deepfill_v1")
        with pytest.raises(WeightsError, match=r"unknown keys: fine_generator\.pmconv7"):
            remap({**state, "fine_generator.pmconv7.conv.bias": state.popitem()[1]})
        with pytest.raises(WeightsError, match=r"unknown keys: inpaint_net\.extra"):
            remap({**state, "inpaint_net.extra.kernel": torch.zeros(1, 1, 1, 1)})
        with pytest.raises(WeightsError, match=r"lacks refinement\.merge\.conv17\.bias"):
            check_fits(model, remap(state))

    def test_outputs_are_those_of_the_published_code(self) -> None:
        golden = reproducible.golden("deepfill_v1")
        state = reproducible.weights(official_shapes())
        assert reproducible.digest(state) == golden["sha256"]
        image, mask, _ = reproducible.batch()
        with build_on_meta():
            model = inpainters.create("deepfill_v1", norm_offset=1e-4)
        model.load_state_dict(remap(state), assign=True)
        with torch.no_grad():
            stages = model.eval().run_stages(image, mask)
        for name, tolerance in (("coarse", 1e-5), ("output", 1e-4)):
            got = torch.tensor(reproducible.sampled(getattr(stages, name)))
            expected = torch.tensor(golden["values"][name])
            torch.testing.assert_close(got, expected, rtol=0, atol=tolerance)


def test_the_refinement_sees_the_known_pixels_and_the_coarse_hole() -> None:
    model, (image, mask) = tiny().eval(), sample()
    seen: list[Tensor] = []
    model.coarse.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.refinement.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        stages = model.run_stages(image, mask)
    hole = (mask[0, 0] == 1).expand(3, -1, -1)
    first, second = seen
    for x in seen:
        torch.testing.assert_close(x[0, :3][~hole], 2 * image[0][~hole] - 1)
        assert torch.equal(x[:, 3:], torch.cat([torch.ones_like(mask), mask], dim=1))
    assert not first[0, :3][hole].any()
    torch.testing.assert_close(second[0, :3][hole], 2 * stages.coarse[0][hole] - 1)


def test_pictures_are_clamped_and_both_networks_train() -> None:
    model, (image, mask) = tiny(), sample()
    stages = model.run_stages(image, mask)
    (stages.coarse.sum() + stages.output.sum()).backward()
    assert all(has_gradient(p.grad) for p in model.parameters())
    with torch.no_grad():
        for last in (model.coarse.conv17, model.refinement.merge.conv17):
            last.bias += 9.0  # type: ignore[union-attr, operator]
        stages = model.run_stages(image, mask)
    assert (stages.coarse == 1).all()
    assert (stages.output == 1).all()


def test_the_critic_is_that_of_the_fact_sheet() -> None:
    with build_on_meta():
        critic = LocalGlobalCritic()
        shapes = [tuple(p.shape) for p in critic.parameters()]
    weights = [shape for shape in shapes if len(shape) > 1]
    convs = [(64, 3), (128, 64), (256, 128)]
    whole = [*((*pair, 5, 5) for pair in (*convs, (256, 256))), (1, 256 * 16 * 16)]
    local = [*((*pair, 5, 5) for pair in (*convs, (512, 256))), (1, 512 * 8 * 8)]
    assert weights == whole + local


def test_the_critic_scores_the_whole_and_the_patch_apart() -> None:
    critic = LocalGlobalCritic(size=64, width=2)
    image, patch = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 32, 32)
    whole, local = critic(image, patch)
    assert whole.shape == local.shape == (2, 1)
    other_whole, other_local = critic(image, patch.flip(3))
    assert torch.equal(whole, other_whole)
    assert not torch.equal(local, other_local)


@pytest.mark.parametrize(
    ("config", "message"),
    [({"width": 5}, "even"), ({"width": 0}, "at least 2"), ({"norm_offset": -1.0}, "negative")],
)
def test_an_impossible_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DeepFillV1Config(**config)


def test_a_critic_of_an_odd_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 32"):
        LocalGlobalCritic(size=100)
