"""MADF: the contract, the published weights' names, a golden output, filters made from the mask."""

from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers import reproducible
from helpers.inpainter_contract import TrainableContract, has_gradient, sample
from overpaint.errors import ConfigError, WeightsError
from overpaint.inpainters.madf import MADF, MADFConfig, MaskAwareConv, PointwiseNorm, remap
from overpaint.registry import build_on_meta, inpainters
from overpaint.weights.rename_keys import check_fits

TINY: dict[str, Any] = {"width": 8}

SEVEN = range(1, 8)
FILTERS = [(3, 6, 16, 7), (16, 16, 32, 5), (16, 32, 64, 3), (16, 64, 128, 3)] + 3 * [
    (16, 128, 128, 3)
]  # mask channels, input and output channels, kernel of the encoder's levels 1 to 7
UP = {7: (512, 512), 6: (512, 512), 5: (512, 512), 4: (512, 256), 3: (256, 128), 2: (128, 64)}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def tiny(**config: Any) -> MADF:
    return MADF(MADFConfig(**{**TINY, **config}))


def layer(key: str, *shape: int, outputs: int = 0) -> dict[str, tuple[int, ...]]:
    return {f"{key}.weight": shape, f"{key}.bias": (outputs or shape[0],)}


def norm(key: str, channels: int) -> dict[str, tuple[int, ...]]:
    running = {f"{key}.{name}": (channels,) for name in ("running_mean", "running_var")}
    return {**running, f"{key}.num_batches_tracked": ()}


def official_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published network."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (m, c_in, c, k), wide in zip(
        SEVEN, FILTERS, (64, 128, 256, 512, 512, 512, 512), strict=True
    ):
        shapes |= layer(f"filter_gen_{i}.conv.0", 16, m, k, k)
        shapes |= layer(f"filter_gen_{i}.conv1.0", c_in * k * k * c, 16, 1, 1)
        shapes |= layer(f"enc_conv_{i}.bn", c) | norm(f"enc_conv_{i}.bn", c)
        shapes |= layer(f"enc_up_{i}.0", wide, c, 1, 1)
    for i, (c_in, c) in UP.items():
        shapes |= layer(f"deconv_{i}.0", c_in, c, 4, 4, outputs=c)
        shapes |= layer(f"deconv_{i}.1", c) | norm(f"deconv_{i}.1", c)
        shapes |= layer(f"att_conv_{i}.conv.0", c, 2 * c, 3, 3)
        for key in (f"dec_ref{r}_{i}" for r in range(2)):
            shapes |= layer(f"{key}.deconv", c_in, c, 4, 4, outputs=c)
            shapes |= norm(f"{key}.bn.batch_norm", c)
            shapes |= layer(f"{key}.bn.mlp_shared.0", 128, c, 3, 3)
            shapes |= layer(f"{key}.bn.mlp_scale", c, 128, 3, 3)
            shapes |= layer(f"{key}.bn.mlp_bias", c, 128, 3, 3)
    shapes |= layer("deconv_1.0", 64, 3, 4, 4, outputs=3) | layer("att_conv_1.conv.0", 3, 9, 3, 3)
    return shapes | layer("dec_ref0_1", 3, 73, 1, 1) | layer("dec_ref1_1", 3, 76, 1, 1)


class TestMADF(TrainableContract):
    # The published code counts 1,248 more, of batch norms that it never applies.
    name, num_parameters = "madf", 85_141_214 - 1_248
    config = TINY


@cache
def published() -> MADF:
    """The registered network without values; to be looked at only."""
    with build_on_meta():
        return inpainters.create("madf")


def test_the_small_one_fits_into_3_megabytes_as_float16() -> None:
    with build_on_meta():
        model = inpainters.create("madf", width=8)
    assert sum(v.numel() for v in model.state_dict().values()) * 2 < 3e6
    assert model.config == MADFConfig(width=8)


class TestOfficialWeights:
    @pytest.mark.parametrize("prefix", ["", "module.model.", "model.module.model."])
    def test_every_value_finds_its_place(self, prefix: str) -> None:
        state = {
            prefix + key: torch.empty(shape, device="meta")
            for key, shape in official_shapes().items()
        }
        vgg = {prefix.replace("module.model.", "module.extractor.enc_1.0.weight"): torch.empty(0)}
        state |= vgg if prefix else {}
        official = inpainters.get("madf").official
        assert official is not None
        assert not official.config
        new = official.remap(state)
        check_fits(published(), new)
        assert len(new) == len(official_shapes()) - 7 * 5
        assert new.keys() == official.remap({"n_iter": 7, "model": state}).keys()

    @pytest.mark.parametrize(
        "key", ["enc_conv_1.conv.weight", "dec_ref0_1.deconv.weight", "deconv_1.1.weight", "n_iter"]
    )
    def test_an_unknown_key_is_an_error(self, key: str) -> None:
        with pytest.raises(WeightsError, match=rf"unknown keys: {key}"):
            remap(dict.fromkeys([*official_shapes(), key], torch.empty(0)))

    def test_a_missing_key_and_one_too_many_are_errors(self) -> None:
        state = dict.fromkeys(official_shapes(), torch.empty(0))
        del state["filter_gen_7.conv1.0.bias"]
        state["dec_ref2_1.bias"] = torch.empty(0)
        with pytest.raises(WeightsError) as error:
            check_fits(published(), remap(state))
        assert "lacks encoder.levels.6.filter_bias;" in str(error.value)
        assert "no refinements.2.last.bias;" in str(error.value)

    @pytest.mark.slow
    def test_the_outputs_are_those_of_the_published_code(self) -> None:
        golden = reproducible.golden("madf")
        state = {
            key: value * (0.02 if ".conv1." in key else 1)  # else features grow with every level
            for key, value in reproducible.weights(official_shapes()).items()
        }
        assert reproducible.digest(state) == golden["sha256"]
        model = inpainters.create("madf").eval()
        model.load_state_dict(remap(state), assign=True)
        image, mask, _ = reproducible.batch(128)
        with torch.no_grad():
            pictures = model.run_stages(image, mask)
        for picture, values in zip(pictures, golden["values"], strict=True):
            expected = torch.tensor(values)
            got = torch.tensor(reproducible.sampled(picture))
            assert expected.std() > 0.1
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def by_place(conv: MaskAwareConv, x: Tensor, seen: Tensor) -> Tensor:
    """The filter of every place, written out and applied to its window."""
    c_in, k, _, c_out = conv.sizes
    padded = F.pad(x, (k // 2,) * 4)
    out = torch.zeros(len(x), c_out, *seen.shape[2:])
    made = torch.einsum("nm,bmij->bnij", conv.filter_weight[:, :, 0, 0], seen)
    made = made + conv.filter_bias[:, None, None]
    for b, i, j in product(*(range(out.shape[n]) for n in (0, 2, 3))):
        filters = made[b, :, i, j].reshape(c_in, k, k, c_out)
        window = padded[b, :, 2 * i : 2 * i + k, 2 * j : 2 * j + k]
        out[b, :, i, j] = torch.einsum("crso,crs->o", filters, window)
    return out.relu()


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_mixed_banks_are_the_filters_of_every_place(kernel_size: int) -> None:
    conv = MaskAwareConv(c_in=3, c_out=4, m_in=2, m=5, kernel_size=kernel_size)
    x, mask_features = torch.randn(2, 3, 8, 12), torch.randn(2, 2, 8, 12)
    with torch.no_grad():
        out, seen = conv(x, mask_features)
        expected = by_place(conv, x, seen)
    assert seen.shape == (2, 5, 4, 6)
    assert 0.2 < (expected > 0).float().mean() < 0.8
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def test_filters_differ_where_the_mask_does() -> None:
    conv = MaskAwareConv(c_in=1, c_out=8, m_in=1, m=8, kernel_size=3)
    mask = torch.ones(1, 1, 32, 32)
    mask[..., 16:] = 0
    with torch.no_grad():
        out = conv(torch.ones(1, 1, 32, 32), mask)[0][..., 2:-2, 2:-2]
    torch.testing.assert_close(out[..., :5], out[..., :1, :1].expand_as(out[..., :5]))
    torch.testing.assert_close(out[..., -5:], out[..., :1, -1:].expand_as(out[..., -5:]))
    assert (out[..., 0] - out[..., -1]).abs().max() > 0.1


def test_features_keep_their_size_through_the_encoder() -> None:
    image, mask = (F.interpolate(x, (256, 256)) for x in sample())
    model = tiny(width=16)
    with torch.no_grad():
        x, mask_features = (
            torch.cat([image, 1 - mask.expand_as(image)], 1),
            1 - mask.repeat(1, 3, 1, 1),
        )
        for conv in model.encoder.levels:
            x, mask_features = conv(x, mask_features)
    assert 0.05 < x.square().mean().sqrt() < 20


def test_pointwise_norm_is_batch_norm_scaled_and_shifted_by_place() -> None:
    layer = PointwiseNorm(channels=2, hidden=3)
    x, condition = 3 + 2 * torch.randn(4, 2, 5, 5), torch.randn(4, 2, 5, 5)
    with torch.no_grad():
        out = layer(x, condition)
        shared = layer.shared(condition)
        for b, c, i, j in product(range(4), range(2), range(5), range(5)):
            channel = x[:, c]
            plain = (x[b, c, i, j] - channel.mean()) / (channel.var(correction=0) + 1e-5).sqrt()
            scale, bias = layer.scale(shared)[b, c, i, j], layer.bias(shared)[b, c, i, j]
            assert out[b, c, i, j].item() == pytest.approx(
                (plain * (1 + scale) + bias).item(), rel=1e-4, abs=1e-5
            )


class TestStages:
    def test_one_drawing_for_each_decoder_and_the_last_is_the_fill(self) -> None:
        model, (image, mask) = tiny().eval(), sample()
        image, mask = (x.tile(1, 1, 2, 2) for x in (image, mask))
        with torch.no_grad():
            drawings = model.run_stages(image, mask)
            filled = model(image, mask)
        assert len(drawings) == 3
        assert torch.equal(filled, torch.where(mask == 1, drawings[-1].clamp(0, 1), image))

    def test_each_decoder_learns_from_its_own_drawing_and_from_later_ones(self) -> None:
        image, mask = (x.tile(1, 1, 2, 2) for x in sample())
        for last in range(3):
            model = tiny()
            model.run_stages(image, mask)[last].square().mean().backward()
            decoders: list[nn.Module] = [model.recovery, *model.refinements]
            for i, decoder in enumerate(decoders):
                learns = [has_gradient(p.grad) for p in decoder.parameters()]
                assert all(learns) if i <= last else not any(learns)

    def test_without_refinements_the_recovery_is_the_fill(self) -> None:
        model, (image, mask) = tiny(num_refinements=0).eval(), sample()
        with torch.no_grad():
            assert len(model.run_stages(*(x.tile(1, 1, 2, 2) for x in (image, mask)))) == 1
            assert model(image, mask).isfinite().all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"width": 6}, "multiple of 4"),
        ({"width": 0}, "at least 4"),
        ({"mask_channels": 0}, "mask_channels"),
        ({"num_refinements": -1}, "num_refinements"),
    ],
)
def test_an_impossible_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MADFConfig(**config)
