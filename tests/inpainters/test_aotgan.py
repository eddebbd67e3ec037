"""AOT-GAN: the contract, the published weights' names, a golden output, its parts, and RWSA."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers import reproducible
from helpers.inpainter_contract import TrainableContract, has_gradient, sample
from overpaint.errors import ConfigError, WeightsError
from overpaint.inpainters.aotgan import (
    AOTGAN,
    AOTBlock,
    AOTGANConfig,
    SoftMaskDiscriminator,
    UpConv,
    remap,
    soften_mask,
)
from overpaint.inpainters.base import compose
from overpaint.layers.rwsa import RWSA
from overpaint.registry import build_on_meta, inpainters
from overpaint.weights.rename_keys import check_fits

TINY: dict[str, Any] = {"width": 4, "num_blocks": 1}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def tiny(**config: Any) -> AOTGAN:
    return AOTGAN(AOTGANConfig(**{**TINY, **config}))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def official_shapes(num_blocks: int = 8) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published generator."""
    convolutions = {
        "encoder.1": (64, 4, 7, 7),
        "encoder.3": (128, 64, 4, 4),
        "encoder.5": (256, 128, 4, 4),
        "decoder.0.conv": (128, 256, 3, 3),
        "decoder.2.conv": (64, 128, 3, 3),
        "decoder.4": (3, 64, 3, 3),
    }
    for i in range(num_blocks):
        for k in range(4):
            convolutions[f"middle.{i}.block0{k}.1"] = (64, 256, 3, 3)
        convolutions[f"middle.{i}.fuse.1"] = convolutions[f"middle.{i}.gate.1"] = (256, 256, 3, 3)
    weights = {f"{name}.weight": shape for name, shape in convolutions.items()}
    return weights | {f"{name}.bias": shape[:1] for name, shape in convolutions.items()}


class TestAOTGAN(TrainableContract):
    name, num_parameters, config = "aotgan", 15_200_835, TINY
    overfit_rate, overfit_steps = 1e-2, 240  # no norm, and small initial values: a slow start


class TestAOTGANWithRWSA(TrainableContract):
    name, num_parameters = "aotgan", 15_200_835
    config = {**TINY, "rwsa": True}  # noqa: RUF012


def test_sizes_are_those_of_the_fact_sheet() -> None:
    with build_on_meta():
        assert count(SoftMaskDiscriminator()) == 2_763_777
        full, with_rwsa = (inpainters.create("aotgan", rwsa=rwsa) for rwsa in (False, True))
        attention = sum(count(RWSA(n)) for n in (64, 128, 256))
        small = [inpainters.create("aotgan", width=16, rwsa=rwsa) for rwsa in (False, True)]
    assert with_rwsa.num_parameters - full.num_parameters == attention
    assert [model.num_parameters for model in small] == [954_003, 1_163_479]
    assert all(sum(v.numel() for v in m.state_dict().values()) * 2 < 3e6 for m in small)


class TestOfficialWeights:
    def test_every_published_key_finds_its_place(self) -> None:
        official = inpainters.get("aotgan").official
        assert official is not None
        with build_on_meta():
            model = inpainters.create("aotgan", **official.config)
            state = {key: torch.empty(shape) for key, shape in official_shapes().items()}
        renamed = official.remap(state)
        check_fits(model, renamed)
        assert {id(value) for value in renamed.values()} == {id(v) for v in state.values()}
        assert renamed["blocks.3.transformations.2.1.weight"] is state["middle.3.block02.1.weight"]
        assert renamed["blocks.7.gate.1.bias"] is state["middle.7.gate.1.bias"]

    def test_unknown_and_missing_keys_are_errors(self) -> None:
        state = {key: torch.empty(shape, device="meta") for key, shape in official_shapes().items()}
        with pytest.raises(WeightsError, match=r"unknown keys: middle\.0\.norm\.weight"):
            remap({**state, "middle.0.norm.weight": torch.zeros(1)})
        del state["decoder.2.conv.bias"]
        with build_on_meta(), pytest.raises(WeightsError, match=r"lacks decoder\.2\.conv\.b"):
            check_fits(inpainters.create("aotgan"), remap(state))

    def test_output_is_that_of_the_published_code(self) -> None:
        golden = reproducible.golden("aotgan")
        state = reproducible.weights(official_shapes(num_blocks=2))
        assert reproducible.digest(state) == golden["sha256"]
        with build_on_meta():
            model = inpainters.create("aotgan", num_blocks=2)
        model.load_state_dict(remap(state), assign=True)
        image, mask, _ = reproducible.batch()
        with torch.no_grad():
            fill = model.eval().run_stages(image, mask).fill
        values = torch.tensor(reproducible.sampled(fill))
        torch.testing.assert_close(values, torch.tensor(golden["values"]), rtol=1e-4, atol=1e-5)


def dilated(conv: nn.Module, x: Tensor, rate: int) -> Tensor:
    """3x3 convolution of (c, h, w): nine shifted copies of the reflected picture."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    (h, w), places = x.shape[1:], [-rate, 0, rate]

    def mirrored(n: int, shift: int) -> list[int]:
        return [n - 1 - abs(n - 1 - abs(i + shift)) for i in range(n)]

    out = conv.bias[:, None, None].expand(-1, h, w).clone()
    for p, di in enumerate(places):
        for q, dj in enumerate(places):
            shifted = x[:, mirrored(h, di)][:, :, mirrored(w, dj)]
            out += torch.einsum("oc,chw->ohw", conv.weight[:, :, p, q], shifted)
    return out


class TestParts:
    def test_a_block_is_four_contexts_and_a_gated_sum(self) -> None:
        block, x = AOTBlock(8), torch.randn(2, 8, 10, 12)
        for p in block.parameters():
            nn.init.normal_(p, std=0.3)
        with torch.no_grad():
            out = block(x)
            for one, result in zip(x, out, strict=True):
                contexts = [
                    dilated(conv, one, rate).relu()
                    for conv, rate in zip(
                        (t[1] for t in block.transformations),  # type: ignore[index]
                        (1, 2, 4, 8),
                        strict=True,
                    )
                ]
                change = dilated(block.fuse[1], torch.cat(contexts), 1)
                gate = dilated(block.gate[1], one, 1)
                for k in range(8):
                    values = gate[k].flatten().tolist()
                    mean = sum(values) / 120
                    std = math.sqrt(sum((v - mean) ** 2 for v in values) / 119)
                    g = torch.sigmoid(10 * (gate[k] - mean) / std - 5)
                    expected = one[k] * (1 - g) + change[k] * g
                    torch.testing.assert_close(result[k], expected, rtol=1e-5, atol=1e-5)
                    assert 0 < g.min() < 0.5 < g.max()  # it opens somewhere

    def test_enlargement_joins_the_corners(self) -> None:
        """Three pixels become six, at 0, 0.4, 0.8, 1.2, 1.6 and 2.0 of their row."""
        up = UpConv(1, 1)
        with torch.no_grad():
            up.conv.weight[:] = 0
            up.conv.weight[0, 0, 1, 1] = 1
            row = up(torch.tensor([[[[0.0, 1.0, 10.0]]]]))[0, 0, 0]
        assert row.tolist() == pytest.approx([0, 0.4, 0.8, 2.8, 6.4, 10], abs=1e-5)

    def test_the_network_sees_white_in_the_hole_and_photos_from_minus_1(self) -> None:
        model, (image, mask) = tiny().eval(), sample()
        seen: list[Tensor] = []
        hook = model.encoder[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        with torch.no_grad():
            stages = model.run_stages(image, mask)
        hook.remove()
        assert torch.equal(seen[0][:, 3:], mask)
        expected = torch.where(mask == 1, 1.0, 2 * image - 1)
        assert torch.equal(seen[0][:, :3], expected)
        assert torch.equal(stages.output, compose(image, stages.fill, mask))
        assert 0 < stages.fill.min() < stages.fill.max() < 1

    def test_an_impossible_configuration_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="at least 1"):
            AOTGANConfig(num_blocks=0)


def test_attention_stands_behind_each_convolution_of_the_encoder() -> None:
    model, (image, mask) = tiny(rwsa=True).eval(), sample()
    assert model.attention is not None
    for attention in model.attention:
        nn.init.zeros_(attention.fuse.weight)  # type: ignore[union-attr, arg-type]
        nn.init.zeros_(attention.fuse.bias)  # type: ignore[union-attr, arg-type]
        shapes: list[tuple[int, ...]] = []
        hook = attention.register_forward_pre_hook(
            lambda _, args, out=shapes: out.append(args[0].shape)
        )
        with torch.no_grad():
            fill = model.run_stages(image, mask).fill
        hook.remove()
        side = {4: 64, 8: 32, 16: 16}[shapes[0][1]]
        assert shapes == [(1, shapes[0][1], side, side)]
    # What the attention lets through is all that the blocks see.
    with torch.no_grad():
        other = model.run_stages(image.flip(2), mask.flip(2)).fill
    assert torch.equal(fill, other)


class TestSoftMaskDiscriminator:
    def test_it_gives_one_value_a_pixel(self) -> None:
        model = SoftMaskDiscriminator(width=4)
        for size in ((64, 64), (50, 77)):
            out = model(torch.rand(2, 3, *size))
            assert out.shape == (2, 1, *size)
        out.square().mean().backward()
        assert all(has_gradient(p.grad) for p in model.parameters())

    def test_all_convolutions_but_the_last_have_spectral_norm(self) -> None:
        model = SoftMaskDiscriminator(width=4)
        for _ in range(30):  # power iterations
            model.train()(torch.rand(1, 3, 32, 32))
        convs = [layer for layer in model.eval().layers if isinstance(layer, nn.Conv2d)]
        assert [conv.stride[0] for conv in convs] == [2, 2, 2, 1, 1]
        for conv in convs[:-1]:
            norm = torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item()
            assert norm == pytest.approx(1, abs=0.05)
        assert not hasattr(convs[-1], "parametrizations")

    def test_the_soft_mask_is_a_gaussian_mean(self) -> None:
        mask = torch.zeros(1, 1, 20, 30)
        mask[..., 8:13, :9] = 1
        soft = soften_mask(mask, size=7, sigma=2.0)[0, 0]
        weights = {d: math.exp(-d * d / 8) for d in range(-3, 4)}
        total = sum(weights.values()) ** 2
        for i, j in ((10, 10), (7, 4), (5, 11), (0, 0), (9, 0), (19, 29)):
            expected = sum(
                a * b * mask[0, 0, min(max(i + di, 0), 19), min(max(j + dj, 0), 29)].item()
                for di, a in weights.items()
                for dj, b in weights.items()
            )
            assert soft[i, j].item() == pytest.approx(expected / total, abs=1e-6)

    def test_the_soft_mask_of_the_paper_keeps_plain_regions(self) -> None:
        assert torch.allclose(soften_mask(torch.ones(1, 1, 9, 80)), torch.ones(1, 1, 9, 80))
        half = torch.zeros(1, 1, 4, 200)
        half[..., 100:] = 1
        line = soften_mask(half)[0, 0, 0]
        assert line[:64].max() == 0
        assert line[136:].min().item() == pytest.approx(1)
        assert (line[99] + line[100]).item() == pytest.approx(1)
        assert (line.diff() >= -1e-6).all()
