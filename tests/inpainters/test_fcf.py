"""FcF: the contract, published names and outputs, other sizes, and where randomness comes from."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import reproducible
from helpers.inpainter_contract import TrainableContract, has_gradient, sample
from overpaint.errors import ConfigError, WeightsError
from overpaint.inpainters.fcf import Discriminator, FcF, FcFConfig, remap
from overpaint.registry import build_on_meta, inpainters
from overpaint.training.config import load_config
from overpaint.training.inpainting.base import InpainterRun
from overpaint.weights.rename_keys import check_fits

RECIPE = Path(__file__).parents[2] / "recipes" / "inpainters" / "fcf-s.yaml"
TINY: dict[str, Any] = {"resolution": 64, "width": 32, "max_width": 32, "latent_size": 32}

GOLDEN: dict[str, Any] = {"resolution": 64, "width": 32, "max_width": 64, "latent_size": 64}
"""The configuration of the golden file, with truncation 0.5."""


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def tiny(**config: Any) -> FcF:
    return FcF(FcFConfig(**{**TINY, **config}))


class TestFcF(TrainableContract):
    # The fact sheet's 85,086,823 less the biases that are never added.
    name, num_parameters = "fcf", 85_086_823 - 5_504
    config = TINY

    @pytest.mark.slow
    def test_without_its_randomness_it_learns_more_than_the_mean_colour(self) -> None:
        model, (image, mask) = tiny().eval(), sample()
        optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
        inside = image[(mask == 1).expand_as(image)].reshape(3, -1)
        limit = 0.75 * inside.var(dim=1, correction=0).sum().item()
        errors: list[float] = []
        while len(errors) < self.overfit_steps and (not errors or errors[-1] >= limit):
            optimiser.zero_grad()
            loss = (model.run_stages(image, mask).output - image).square().sum() / mask.sum()
            loss.backward()
            optimiser.step()
            errors.append(loss.item())
        assert errors[0] > limit
        assert min(errors) < limit


def official_shapes(resolution: int, width: int, max_width: int) -> dict[str, tuple[int, ...]]:
    """All names in a published `G_ema` with one size of latents and of the coarsest maps."""
    m, found = max_width, dict[str, tuple[int, ...]]()
    sides = [2**i for i in range(3, int(math.log2(resolution)) + 1)]
    channels = {side: min(width * resolution // side, m) for side in [4, *sides]}

    def layer(name: str, *shape: int, resampled: bool = True) -> None:
        found.update({f"{name}.weight": shape, f"{name}.bias": shape[:1]})
        if resampled:
            found[f"{name}.resample_filter"] = (4, 4)

    def styled(name: str, c_in: int, c_out: int, side: int) -> None:
        layer(name, c_out, c_in, 3, 3)
        layer(f"{name}.affine", c_in, 3 * m, resampled=False)
        found.update({f"{name}.noise_strength": (), f"{name}.noise_const": (side, side)})

    def to_rgb(name: str, c: int) -> None:
        layer(name, 3, c, 1, 1, resampled=False)
        layer(f"{name}.affine", c, 3 * m, resampled=False)

    for side in sides:
        c, name = channels[side], f"encoder.b{side}"
        found[f"{name}.resample_filter"] = (4, 4)
        layer(f"{name}.conv0", c, c, 3, 3)
        layer(f"{name}.conv1", channels[side // 2], c, 3, 3)
    layer(f"encoder.b{resolution}.fromrgb", width, 4, 1, 1)
    layer("encoder.b4.conv", m, m + 1, 3, 3)
    layer("encoder.b4.fc", 2 * m, 16 * m, resampled=False)
    for i in range(2):
        layer(f"mapping.fc{i}", m, m, resampled=False)
    found["mapping.w_avg"] = (m,)
    layer("synthesis.foreword.fc", 16 * m, 2 * m, resampled=False)
    styled("synthesis.foreword.conv", m, m, 4)
    to_rgb("synthesis.foreword.torgb", m)
    for side in sides:
        c, name = channels[side], f"synthesis.b{side}"
        found[f"{name}.resample_filter"] = (4, 4)
        styled(f"{name}.conv0", channels[side // 2], c, side)
        styled(f"{name}.conv1", c, c, side)
        to_rgb(f"{name}.torgb", c)
        for i in (1, 2) if side >= 32 else ():
            conv, local, rest = (
                f"{name}.ffc_skip.0.ffc_act.ffc_block.conv{i}.ffc",
                c // 4,
                3 * c // 4,
            )
            found[f"{conv}.convl2l.weight"] = (local, local, 3, 3)
            found[f"{conv}.convl2g.weight"] = (rest, local, 3, 3)
            found[f"{conv}.convg2l.weight"] = (local, rest, 3, 3)
            found[f"{conv}.convg2g.conv1.0.weight"] = (rest // 2, rest, 1, 1)
            found[f"{conv}.convg2g.fu.conv_layer.weight"] = (rest, rest, 1, 1)
            found[f"{conv}.convg2g.lfu.conv_layer.weight"] = (rest, rest, 1, 1)
            found[f"{conv}.convg2g.conv2.weight"] = (rest, rest // 2, 1, 1)
    return found


def official_state(resolution: int, width: int, max_width: int) -> dict[str, Tensor]:
    """Weights from a formula, at scales at which every part of the network matters.

    StyleGAN2 scales weights as it uses them: all have about unit variance here but those of the
    Fourier convolutions. The first noise's strength is 0, as the authors' code draws it anew.
    """
    shapes = official_shapes(resolution, width, max_width)
    values = reproducible.weights({key: shape or (1,) for key, shape in shapes.items()})
    state = {key: value.reshape(shapes[key]) for key, value in values.items()}
    for key, value in state.items():
        if key.endswith("weight") and "ffc_skip" not in key:
            value *= math.sqrt(value[0].numel() / 2) * (100 if key.startswith("mapping") else 1)
        elif "noise" in key:
            value *= 10
        elif key.endswith("affine.bias"):
            value += 1
        elif key.endswith("resample_filter"):
            line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
            value.copy_(line[:, None] * line)
    state["synthesis.foreword.conv.noise_strength"].zero_()
    return state


class TestPublishedWeights:
    def test_names_and_shapes_of_both_published_sizes_fit(self) -> None:
        for resolution, count in ((512, 85_787_079), (256, 70_511_970)):
            shapes = official_shapes(resolution, 64, 512)
            # 6 resampled layers' filters more or less would show in the number of all values.
            assert sum(math.prod(shape) for shape in shapes.values()) == count
            with build_on_meta():
                state = {key: torch.empty(shape) for key, shape in shapes.items()}
                model = inpainters.create("fcf", resolution=resolution)
            check_fits(model, remap(state))

    def test_the_output_is_that_of_the_authors_code(self) -> None:
        expected = reproducible.golden("fcf")
        state = official_state(64, 32, 64)
        assert reproducible.digest(state) == expected["sha256"]
        model = FcF(FcFConfig(**GOLDEN, truncation=0.5)).eval()
        model.load_state_dict(remap(state), strict=True)
        image, mask, _ = reproducible.batch(64)
        with torch.no_grad():
            fill = model.run_stages(image, mask).fill * 2 - 1
        values = torch.tensor(expected["values"])
        assert values.std() > 1
        got = torch.tensor(reproducible.sampled(fill))
        torch.testing.assert_close(got, values, rtol=1e-4, atol=1e-4 * float(values.abs().max()))

    def test_unknown_doubled_and_missing_keys_are_errors(self) -> None:
        shapes = official_shapes(64, 32, 32)
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
        check_fits(tiny(), remap(state))
        for key in (
            "encoder.b64.conv2.weight",
            "synthesis.b64.conv0.running_mean",
            "mapping.embed",
        ):
            with pytest.raises(WeightsError, match="unknown keys"):
                remap({**state, key: torch.empty(1)})
        with pytest.raises(WeightsError, match="become the same"):
            remap({**state, "encoder.b32.fromrgb.bias": torch.empty(1)})
        del state["synthesis.b32.ffc_skip.0.ffc_act.ffc_block.conv1.ffc.convl2l.weight"]
        with pytest.raises(WeightsError, match="it lacks"):
            check_fits(tiny(), remap(state))
        with pytest.raises(WeightsError, match="has no"):
            check_fits(tiny(noise="none"), remap(state))


def test_the_small_one_fits_into_3_megabytes_as_float16() -> None:
    with build_on_meta():
        model = inpainters.create("fcf", **load_config(InpainterRun, RECIPE).model)
    assert model.num_parameters == 1_271_093
    assert sum(v.numel() for v in model.state_dict().values()) * 2 < 3e6


class TestRandomness:
    def test_in_eval_the_configuration_says_it_all(self) -> None:
        (image, mask), model = sample(), tiny().eval()
        other = tiny(seed=1)
        other.load_state_dict(
            {**model.state_dict(), **{k: v for k, v in other.state_dict().items() if "map" in k}}
        )
        for module in (model, other):
            module.get_parameter("synthesis.blocks.64.conv.noise_strength").data.fill_(0.5)
        with torch.no_grad():
            state = torch.random.get_rng_state()
            out = model(image, mask)
            assert torch.equal(torch.random.get_rng_state(), state)
            torch.rand(7)
            assert torch.equal(model(image, mask), out)
            assert not torch.equal(other.eval()(image, mask), out)

    def test_seeds_give_normal_latents_and_maps_that_differ(self) -> None:
        maps = {k: v for k, v in tiny().state_dict().items() if k.endswith("noise_map")}
        again = {k: v for k, v in tiny().state_dict().items() if k.endswith("noise_map")}
        assert len(maps) == 9
        assert all(torch.equal(maps[key], again[key]) for key in maps)
        first, second = (maps[f"synthesis.blocks.64.{name}.noise_map"] for name in ("up", "conv"))
        for values in (first, second):
            assert abs(float(values.mean())) < 0.05
            assert abs(float(values.std()) - 1) < 0.05
        assert abs(float((first * second).mean())) < 0.05
        assert not torch.equal(tiny(seed=1).latent, tiny().latent)
        assert not [key for key in tiny(noise="none").state_dict() if "noise" in key]

    def test_the_latent_moves_the_style_by_the_truncation(self) -> None:
        model = tiny(truncation=0.25).eval()
        model.mapping.average.normal_()
        with torch.no_grad():
            styles, style = model._draw_styles(2), model.mapping(model.latent)
        assert styles.shape == (2, 10, 32)  # 2 log2(64) - 2
        expected = 0.75 * model.mapping.average + 0.25 * style
        torch.testing.assert_close(styles, expected[:, None].expand(2, 10, 32))

    def test_in_training_photos_have_their_own_styles_and_layers_may_mix_two(self) -> None:
        plain, mixing = tiny(style_mixing=0.0), tiny(style_mixing=1.0)
        styles = plain._draw_styles(2).detach()
        assert not torch.allclose(styles[0], styles[1])
        assert torch.equal(styles, styles[:, :1].expand(-1, 10, -1))
        changes = set()
        for _ in range(40):
            mixed = mixing._draw_styles(1).detach()[0]
            steps = [i for i in range(1, 10) if not torch.equal(mixed[i], mixed[i - 1])]
            assert len(steps) == 1
            changes.update(steps)
        assert min(changes) == 1
        assert max(changes) == 9

    def test_training_moves_the_average_style_and_eval_does_not(self) -> None:
        model, (image, mask) = tiny(style_mixing=0.0), sample()
        seen = []
        model.mapping.register_forward_hook(lambda _, __, out: seen.append(out.detach()))
        model(image, mask)
        expected = 0.005 * seen[0].mean(dim=0)
        torch.testing.assert_close(model.mapping.average, expected)
        model.eval()(image, mask)
        torch.testing.assert_close(model.mapping.average, expected)


def test_a_larger_photo_is_taken_unscaled_and_seen_as_a_whole() -> None:
    model = tiny().eval()
    assert (model.stride, model.min_size, model.working_size) == (16, 64, 64)
    image, mask = torch.rand(1, 3, 80, 144), torch.zeros(1, 1, 80, 144)
    mask[..., 20:40, 4:20] = 1
    other = image.clone()
    other[..., 60:, 130:] = 0
    with torch.no_grad():
        fills = [model.run_stages(x, mask).fill for x in (image, other)]
    assert fills[0].shape == image.shape
    assert (fills[0] != fills[1])[..., 20:40, 4:20].float().mean() > 0.9


def test_what_training_needs_is_the_fill_unclamped_and_the_composition() -> None:
    model, (image, mask) = tiny().eval(), sample()
    with torch.no_grad():
        stages, out = model.run_stages(image, mask), model(image, mask)
    assert stages.fill.min() < 0
    assert stages.fill.max() > 1
    assert torch.equal(stages.output, torch.where(mask == 1, stages.fill, image))
    assert torch.equal(out, torch.where(mask == 1, stages.fill.clamp(0, 1), image))


class TestDiscriminator:
    def test_size_at_the_published_width(self) -> None:
        with build_on_meta():
            sizes = [
                sum(p.numel() for p in Discriminator(FcFConfig(resolution=side)).parameters())
                for side in (512, 256)
            ]
        assert sizes == [28_982_913, 24_001_153]

    def test_one_logit_a_photo_from_all_of_picture_and_mask(self) -> None:
        judge, (image, mask) = Discriminator(FcFConfig(**TINY)), sample()
        image = torch.cat([image, image.flip(3)]).requires_grad_(True)
        mask = torch.cat([mask, mask.flip(3)]).requires_grad_(True)
        logits = judge(image, mask)
        assert logits.shape == (2, 1)
        logits.square().sum().backward()
        for gradient in (image.grad, mask.grad, *(p.grad for p in judge.parameters())):
            assert has_gradient(gradient)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"resolution": 96}, "power of two"),
        ({"resolution": 16}, "power of two"),
        ({"width": 48}, "multiples of 32"),
        ({"max_width": 1024 * 32}, "at most width"),
        ({"width": 64, "max_width": 32}, "at least width"),
        ({"latent_size": 0}, "at least 1"),
        ({"noise": "random"}, "choose fixed or none"),
        ({"truncation": 1.5}, "within"),
        ({"style_mixing": -0.1}, "within"),
    ],
)
def test_an_impossible_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FcFConfig(**config)
