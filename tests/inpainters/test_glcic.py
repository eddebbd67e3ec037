"""GLCIC: the contract, the published weights' names, a golden output, and both discriminators."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers import reproducible
from helpers.inpainter_contract import TrainableContract, has_gradient, sample
from overpaint.errors import ConfigError, InputError, WeightsError
from overpaint.inpainters.glcic import (
    GLCIC,
    ContextDiscriminator,
    GLCICConfig,
    cut_local_window,
    remap,
)
from overpaint.registry import build_on_meta, inpainters
from overpaint.weights.rename_keys import check_fits

# Layers of the published network: in order, their channels and the side of their kernels.
CHANNELS = [4, 64, 128, 128, 256, *[256] * 8, 128, 128, 64, 32, 3]
KERNELS = {1: 5, 13: 4, 15: 4}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def tiny(**config: Any) -> GLCIC:
    return GLCIC(GLCICConfig(**{"width": 4, **config}))


def official_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of otenim's `model_cn`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(1, 18):
        c_in, c_out, k = CHANNELS[i - 1], CHANNELS[i], KERNELS.get(i, 3)
        transposed = i in (13, 15)
        conv = f"deconv{i}" if transposed else f"conv{i}"
        shapes[f"{conv}.weight"] = (c_in, c_out, k, k) if transposed else (c_out, c_in, k, k)
        shapes[f"{conv}.bias"] = (c_out,)
        if i < 17:
            for name in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"bn{i}.{name}"] = (c_out,)
            shapes[f"bn{i}.num_batches_tracked"] = ()
    return shapes


class TestGLCIC(TrainableContract):
    name, num_parameters = "glcic", 6_072_131
    config = {"width": 8}  # noqa: RUF012


def test_the_small_one_fits_into_3_megabytes_as_float16() -> None:
    with build_on_meta():
        model = inpainters.create("glcic", width=28)
    assert sum(v.numel() for v in model.state_dict().values()) * 2 < 3e6
    assert model.config == GLCICConfig(width=28)


class TestOfficialWeights:
    def test_every_value_finds_its_place(self) -> None:
        shapes = {k: torch.empty(shape, device="meta") for k, shape in official_shapes().items()}
        official = inpainters.get("glcic").official
        assert official is not None
        with build_on_meta():
            model = inpainters.create("glcic", **official.config)
        check_fits(model, official.remap(shapes))
        check_fits(model, remap({"model_cn": shapes}))
        learned = [t for key, t in shapes.items() if "running" not in key and t.ndim]
        assert sum(t.numel() for t in learned) == model.num_parameters

    @pytest.mark.parametrize("key", ["conv13.weight", "bn17.weight", "module.conv1.weight"])
    def test_an_unknown_key_is_an_error(self, key: str) -> None:
        state = dict.fromkeys([*official_shapes(), key], torch.empty(0))
        with pytest.raises(WeightsError, match=rf"unknown keys: {key}"):
            remap(state)

    def test_a_missing_key_is_an_error(self) -> None:
        state = dict.fromkeys(official_shapes(), torch.empty(0))
        del state["bn4.running_var"]
        with (
            build_on_meta(),
            pytest.raises(WeightsError, match=r"lacks completion\.down\.3\.norm\.running_var;"),
        ):
            check_fits(inpainters.create("glcic"), remap(state))

    def test_the_output_is_that_of_the_published_code(self) -> None:
        golden = reproducible.golden("glcic")
        state = reproducible.weights(official_shapes())
        assert reproducible.digest(state) == golden["sha256"]
        image, mask, _ = reproducible.batch()
        fills = {}
        for first in (True, False):
            with build_on_meta():
                model = inpainters.create("glcic", activation_first=first)
            model.load_state_dict(remap(state), assign=True)
            model.mean = torch.tensor([0.5, 0.4, 0.3]).reshape(1, 3, 1, 1)
            with torch.no_grad():
                fills[first] = torch.tensor(
                    reproducible.sampled(model.eval().run_stages(image, mask).fill)
                )
        expected = torch.tensor(golden["values"])
        torch.testing.assert_close(fills[True], expected, rtol=1e-5, atol=1e-5)
        assert (fills[False] - expected).abs().max() > 1e-2  # the order of norm and ReLU matters


@pytest.mark.parametrize("first", [False, True])
def test_batch_norm_is_before_or_behind_the_relu(first: bool) -> None:
    block = tiny(activation_first=first).completion.dilated[1]
    values, x = block.state_dict(), torch.randn(2, 16, 9, 9)
    y = nn.functional.conv2d(x, values["conv.weight"], values["conv.bias"], padding=4, dilation=4)
    y = y.relu() if first else y
    var, mean = torch.var_mean(y, dim=(0, 2, 3), correction=0, keepdim=True)
    y = (y - mean) / (var + 1e-5).sqrt()
    torch.testing.assert_close(block.train()(x), y if first else y.relu(), rtol=1e-4, atol=1e-5)


def test_a_pixel_sees_303_pixels_in_each_direction() -> None:
    """From the output on: 5 pixels at full size, 4 and 6 at a half, 5, 9, 69 and 73 at a quarter,
    147 and 149 at a half, 299 and 303. Half of the pixels have 4 in place of the 5, hence 299.
    """
    completion = tiny(width=2).completion.eval()
    for p in completion.parameters():
        nn.init.ones_(p)
    lines: list[Tensor] = []
    completion.last.register_forward_hook(lambda *args: lines.append(args[2][0, 0, 4]))
    x = torch.zeros(1, 4, 8, 336, requires_grad=True)
    completion(x)
    reach = []
    for column in range(164, 168):
        seen = torch.autograd.grad(lines[0][column], x, retain_graph=True)[0][0, 0].any(dim=0)
        places = seen.nonzero()
        reach.append(int(places.max() - places.min()) + 1)
    assert sorted(reach) == [299, 299, 303, 303]


def test_the_hole_shows_the_mean_colour_and_the_mask_follows() -> None:
    model, (image, mask) = tiny(mean=(0.1, 0.2, 0.3)).eval(), sample()
    seen: list[Tensor] = []
    model.completion.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        stages = model.run_stages(image, mask)
    hole = mask[0, 0] == 1
    assert torch.equal(seen[0][:, :3, ~hole], image[..., ~hole])
    assert (seen[0][0, :3, hole] == torch.tensor([[0.1], [0.2], [0.3]])).all()
    assert torch.equal(seen[0][:, 3:], mask)
    assert torch.equal(stages.output, torch.where(mask == 1, stages.fill, image))
    assert not torch.equal(stages.output, stages.fill)


class TestDiscriminator:
    @pytest.mark.parametrize(
        ("config", "size"),
        [
            ({}, 45_063_681),
            ({"local_size": 96, "global_size": 160, "num_global_convs": 5}, 39_557_121),
        ],
        ids=["paper", "otenim's default"],
    )
    def test_sizes_are_the_published_ones(self, config: dict[str, Any], size: int) -> None:
        with build_on_meta():
            discriminator = ContextDiscriminator(**config)
        assert sum(p.numel() for p in discriminator.parameters()) == size

    def test_both_inputs_and_all_parameters_count(self) -> None:
        discriminator = ContextDiscriminator(width=2, local_size=32, global_size=64)
        window = torch.rand(3, 3, 32, 32, requires_grad=True)
        picture = torch.rand(3, 3, 64, 64, requires_grad=True)
        logit = discriminator(window, picture)
        assert logit.shape == (3, 1)
        logit.square().sum().backward()
        gradients = [window.grad, picture.grad, *(p.grad for p in discriminator.parameters())]
        assert all(map(has_gradient, gradients))

    def test_another_size_is_refused_with_the_remedy(self) -> None:
        discriminator = ContextDiscriminator(width=2, local_size=32, global_size=64).eval()
        with pytest.raises(InputError, match="takes 64x64 pixels and not 64x96: train on crops"):
            discriminator(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 64, 96))
        with pytest.raises(ConfigError, match="multiple of 64"):
            ContextDiscriminator(width=2, local_size=32, global_size=160)


class TestLocalWindow:
    @pytest.mark.parametrize(
        ("rows", "columns", "corner"),
        [
            ((10, 14), (20, 30), (8, 21)),  # middle (12, 25), less half of 8
            ((0, 2), (0, 40), (0, 16)),  # moved down from -3
            ((29, 30), (38, 40), (22, 32)),  # the last corner that fits
            ((0, 0), (0, 0), (11, 16)),  # no hole
        ],
    )
    def test_it_is_centred_at_the_hole_and_inside(
        self, rows: tuple[int, int], columns: tuple[int, int], corner: tuple[int, int]
    ) -> None:
        y, x = torch.meshgrid(torch.arange(30.0), torch.arange(40.0), indexing="ij")
        mask = torch.zeros(1, 1, 30, 40)
        mask[..., slice(*rows), slice(*columns)] = 1
        window = cut_local_window(torch.stack([y, x])[None], mask, 8)
        assert window.shape == (1, 2, 8, 8)
        assert tuple(window[0, :, 0, 0].tolist()) == corner
        assert tuple(window[0, :, -1, -1].tolist()) == (corner[0] + 7, corner[1] + 7)

    def test_each_picture_has_its_own(self) -> None:
        image, mask = torch.rand(2, 3, 16, 16, requires_grad=True), torch.zeros(2, 1, 16, 16)
        mask[0, :, :4, :4] = 1
        mask[1, :, 12:, 12:] = 1
        window = cut_local_window(image, mask, 4)
        assert torch.equal(window[0], image[0, :, :4, :4])
        assert torch.equal(window[1], image[1, :, 12:, 12:])
        window.sum().backward()
        assert image.grad is not None
        assert torch.equal(image.grad, mask.expand_as(image))

    def test_a_picture_smaller_than_it_is_refused(self) -> None:
        with pytest.raises(InputError, match="does not fit into 16x40"):
            cut_local_window(torch.rand(1, 3, 16, 40), torch.ones(1, 1, 16, 40), 20)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"width": 0}, "at least 2"),
        ({"width": 7}, "even"),
        ({"mean": (0.5, 0.5)}, "three numbers"),
        ({"mean": (124, 116, 104)}, r"within \[0, 1\]"),
    ],
)
def test_an_impossible_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GLCICConfig(**config)
