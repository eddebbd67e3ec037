"""DeepFill v2: the contract, the published weights' names, and golden outputs of both ports."""

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import reproducible
from helpers.inpainter_contract import TrainableContract, sample
from overpaint.errors import ConfigError, WeightsError
from overpaint.inpainters.deepfill_v2 import DeepFillV2, DeepFillV2Config, remap
from overpaint.registry import build_on_meta, inpainters
from overpaint.weights.rename_keys import check_fits

# Channels in and out (behind the gates) of each published layer at cnum 48; kernels are 3x3 but
# for the first one's. A 3 at the end of a row is the picture, which has no gate.
COARSE = [5, 24, 48, 48, *[96] * 9, 48, 48, 24, 12, 3]
IMAGINE = [3, 24, 24, 48, 48, *[96] * 6]
LOOK = [3, 24, 24, 48, *[96] * 3]
COPY = [96, 96, 96]
MERGE = [192, 96, 96, 48, 48, 24, 12, 3]

DOWN = ["down_block1.conv1_downsample", "down_block1.conv2"]
DOWN += ["down_block2.conv1_downsample", "down_block2.conv2"]
UP = ["up_block1.conv1_upsample.conv", "up_block1.conv2"]
UP += ["up_block2.conv1_upsample.conv", "up_block2.conv2", "conv_to_rgb"]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def tiny(**config: Any) -> DeepFillV2:
    return DeepFillV2(DeepFillV2Config(**{"width": 4, **config}))


def flat_names(prefix: str, first: int, last: int) -> list[str]:
    """Names as in `networks_tf.py`, which are the authors'."""
    suffixes = {2: "_downsample", 4: "_downsample", 13: "_upsample.conv", 15: "_upsample.conv"}
    suffixes |= dict.fromkeys((7, 8, 9, 10), "_atrous")
    of_copy = prefix == "pmconv" and first == 9
    return [f"{prefix}{n}{'' if of_copy else suffixes.get(n, '')}" for n in range(first, last + 1)]


TENSORFLOW = [
    (flat_names("conv", 1, 17), COARSE),
    (flat_names("xconv", 1, 10), IMAGINE),
    (flat_names("pmconv", 1, 6), LOOK),
    (flat_names("pmconv", 9, 10), COPY),
    (flat_names("allconv", 11, 17), MERGE),
]
"""Names and channels of `networks_tf.py`."""

PYTORCH = [
    ([f"stage1.{n}" for n in ("conv1", *DOWN, *(f"conv_bn{i}" for i in range(1, 8)), *UP)], COARSE),
    (
        [f"stage2.conv_{n}" for n in ("conv1", *DOWN, *(f"conv_bn{i}" for i in range(1, 6)))],
        IMAGINE,
    ),
    ([f"stage2.ca_{n}" for n in ("conv1", *DOWN, "conv_bn1")], LOOK),
    (["stage2.ca_conv_bn4", "stage2.ca_conv_bn5"], COPY),
    ([f"stage2.{n}" for n in ("conv_bn6", "conv_bn7", *UP)], MERGE),
]
"""Names and channels of `networks.py`."""


def official_shapes(parts: list[tuple[list[str], list[int]]]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for names, widths in parts:
        for name, c_in, c_out in zip(names, widths[:-1], widths[1:], strict=True):
            side = 5 if c_in in (3, 5) else 3
            c_out = 3 if c_out == 3 else 2 * c_out
            shapes[f"{name}.conv.weight"] = (c_out, c_in, side, side)
            shapes[f"{name}.conv.bias"] = (c_out,)
    return shapes


def weights(parts: list[tuple[list[str], list[int]]]) -> dict[str, Tensor]:
    """Large enough that the attention and its options show in the output."""
    state = reproducible.weights(official_shapes(parts))
    return {key: 1.5 * value if value.ndim == 4 else value for key, value in state.items()}


class TestDeepFillV2(TrainableContract):
    name, num_parameters = "deepfill_v2", 4_052_478
    config = {"width": 6}  # noqa: RUF012


def test_size_is_that_of_the_fact_sheet() -> None:
    assert TestDeepFillV2.num_parameters == pytest.approx(4.05e6, rel=1e-3)


def test_the_small_one_fits_into_3_megabytes_as_float16() -> None:
    with build_on_meta():
        model = inpainters.create("deepfill_v2", width=14)
    assert sum(v.numel() for v in model.state_dict().values()) * 2 < 3e6


class TestPublishedWeights:
    @pytest.mark.parametrize("parts", [TENSORFLOW, PYTORCH], ids=["tensorflow", "pytorch"])
    def test_all_names_and_shapes_of_both_files_are_taken(self, parts: Any) -> None:
        with build_on_meta():
            state = {key: torch.empty(shape) for key, shape in official_shapes(parts).items()}
            model = inpainters.create("deepfill_v2")
        assert len(state) == 2 * (17 + 10 + 6 + 2 + 7)
        state["stage2.contextual_attention.fuse_weight"] = torch.eye(3)[None, None]
        check_fits(model, remap(state))
        others = {"D.conv1.conv_sn.weight": torch.zeros(1), "n_iter": torch.zeros(())}
        check_fits(model, remap({**{f"G.{key}": value for key, value in state.items()}, **others}))
        check_fits(model, remap({"G": state, "D": {"conv1.conv_sn.weight": torch.zeros(1)}}))

    def test_a_checkpoint_of_the_authors_is_turned_to_our_axes_and_to_rgb(self) -> None:
        state, theirs = weights(TENSORFLOW), {}
        for key, value in state.items():
            layer, kind = key.replace("_upsample.conv.", "_upsample.").split(".conv.")
            if layer in ("conv1", "xconv1", "pmconv1") and kind == "weight":
                value = value[:, [2, 1, 0, 3, 4][: value.shape[1]]]
            if layer in ("conv17", "allconv17"):
                value = value[[2, 1, 0]]
            if kind == "weight":
                value = torch.einsum("oihw->hwio", value)
            layer = f"{layer}.{layer}_conv" if "upsample" in layer else layer
            theirs[f"inpaint_net.{layer}.{'kernel' if kind == 'weight' else kind}"] = value
        assert "inpaint_net.conv13_upsample.conv13_upsample_conv.kernel" in theirs
        theirs["discriminator.sn_patch_gan.conv1.kernel"] = torch.zeros(5, 5, 4, 64)
        theirs["inpaint_net.conv1.kernel.Adam"] = theirs["inpaint_net.conv1.kernel"]
        remapped, expected = remap(theirs), remap(state)
        assert remapped.keys() == expected.keys()
        assert all(torch.equal(remapped[key], value) for key, value in expected.items())

    def test_an_unknown_key_a_double_one_and_a_missing_one_are_errors(self) -> None:
        with build_on_meta():
            model = inpainters.create("deepfill_v2")
            states = [
                {key: torch.empty(shape) for key, shape in official_shapes(parts).items()}
                for parts in (TENSORFLOW, PYTORCH)
            ]
        for state in states:
            with pytest.raises(WeightsError, match=r"unknown keys: stage2\.conv_bn8"):
                remap({**state, "stage2.conv_bn8.conv.bias": torch.zeros(1)})
            missing = dict(state)
            missing.popitem()
            with pytest.raises(WeightsError, match=r"lacks refinement\.merge\.conv17\.bias"):
                check_fits(model, remap(missing))
        with pytest.raises(WeightsError, match=r"become the same: stage1\.conv1\.conv\.weight"):
            remap({**states[0], **states[1]})

    @pytest.mark.parametrize(
        ("case", "parts", "config"),
        [
            ("pytorch", PYTORCH, {}),
            ("tensorflow", TENSORFLOW, {"tensorflow": True, "fuse": False}),
            ("tensorflow-fused", TENSORFLOW, {"tensorflow": True}),
        ],
    )
    def test_outputs_are_those_of_the_published_code(
        self, case: str, parts: Any, config: dict[str, Any]
    ) -> None:
        golden, state = reproducible.golden("deepfill_v2"), weights(parts)
        network = case.removesuffix("-fused")
        assert reproducible.digest(state) == golden["sha256"][network]
        with build_on_meta():
            model = inpainters.create("deepfill_v2", **config)
        model.load_state_dict(remap(state), assign=True)
        image, mask, _ = reproducible.batch()
        with torch.no_grad():
            stages = model.eval().run_stages(image, mask)
        for name, got in ((f"{network} coarse", stages.coarse), (f"{case} output", stages.output)):
            expected = torch.tensor(golden["values"][name])
            got = torch.tensor(reproducible.sampled(got))
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)

    def test_the_golden_outputs_tell_the_options_apart(self) -> None:
        values = reproducible.golden("deepfill_v2")["values"]
        a, b = (torch.tensor(values[f"tensorflow{x} output"]) for x in ("", "-fused"))
        assert (a - b).abs().max() > 1e-3


def test_the_refinement_sees_the_filled_picture_alone() -> None:
    model, (image, mask) = tiny().eval(), sample()
    seen: list[Tensor] = []
    model.coarse.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.refinement.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        stages = model.run_stages(image, mask)
    hole = (mask[0, 0] == 1).expand(3, -1, -1)
    first, second = seen
    assert first.shape[1] == 5
    assert second.shape[1] == 3
    assert torch.equal(first[:, 3:], torch.cat([torch.ones_like(mask), mask], dim=1))
    assert not first[0, :3][hole].any()
    for x in seen:
        torch.testing.assert_close(x[0, :3][~hole], 2 * image[0][~hole] - 1)
    torch.testing.assert_close(second[0][hole], 2 * stages.coarse[0][hole] - 1)


@pytest.mark.parametrize("width", [0, 5])
def test_an_impossible_width_is_refused(width: int) -> None:
    with pytest.raises(ConfigError, match="even and at least 2"):
        DeepFillV2Config(width=width)
