"""CTSDG: the contract, the published weights' names, a golden output, and each of its parts."""

import sys
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from skimage.feature import canny
from torch import Tensor, nn
from torch.nn import functional as F

from helpers import reproducible
from helpers.inpainter_contract import TrainableContract, has_gradient, sample
from overpaint.errors import ConfigError, OverpaintError, WeightsError
from overpaint.inpainters.ctsdg import (
    CTSDG,
    CTSDGConfig,
    DualDiscriminator,
    GatedFusion,
    MultiScaleAggregation,
    learn_region_affinity,
    remap,
    wrap_8_bit,
)
from overpaint.inpainters.edgeconnect import to_grey
from overpaint.registry import build_on_meta, inpainters
from overpaint.weights.rename_keys import check_fits

TINY: dict[str, Any] = {"width": 4}
CHANNELS = (64, 128, 256, 512, 512, 512, 512)
KERNELS = (7, 5, 5, 3, 3, 3, 3)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def tiny(**config: Any) -> CTSDG:
    return CTSDG(CTSDGConfig(**{**TINY, **config}))


def layer(key: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{key}.weight": shape, f"{key}.bias": shape[:1]}


def norm(key: str, channels: int) -> dict[str, tuple[int, ...]]:
    running = {f"{key}.{name}": (channels,) for name in ("running_mean", "running_var")}
    return {**layer(key, channels), **running, f"{key}.num_batches_tracked": ()}


def official_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published generator."""
    shapes: dict[str, tuple[int, ...]] = {}
    for kind, n, shown in (("texture", 3, 3), ("structure", 2, 1)):
        below = (n, *CHANNELS)
        for i, (c, k) in enumerate(zip(CHANNELS, KERNELS, strict=True), start=1):
            shapes[f"ec_{kind}_{i}.conv.weight"] = (c, below[i - 1], k, k)
            shapes |= norm(f"ec_{kind}_{i}.bn", c) if i > 1 else {}
            out = max(64, below[i - 1])
            up = 512 if i == 7 else max(64, below[i])
            shapes[f"dc_{kind}_{i}.conv.weight"] = (out, up + below[i - 1], 3, 3)
            shapes |= norm(f"dc_{kind}_{i}.bn", out)
        key = f"{kind}_feature_projection"
        for j, (c_in, c) in enumerate(((64, 16), (16, 64)), start=1):
            shapes[f"{key}.{kind}_resolver.conv{j}.weight"] = (c, c_in, 3, 3)
            shapes |= norm(f"{key}.{kind}_resolver.bn{j}", c)
        shapes |= layer(f"{key}.out_layer.0", shown, 64, 1, 1)
        shapes[f"bigff.{kind}_gamma"] = (1,)
        shapes |= layer(f"bigff.{kind}_gate.0", 64, 128, 3, 3)
    for i in range(4):
        shapes |= layer(f"cfa.msfa.dilated_conv_{i}.0", 64, 64, 3, 3)
    shapes |= layer("cfa.msfa.weight_calc.0", 64, 64, 3, 3)
    shapes |= layer("cfa.msfa.weight_calc.2", 4, 64, 1, 1)
    shapes |= layer("fusion_layer1.0", 64, 128, 3, 3) | layer("fusion_layer2.0", 64, 128, 3, 3)
    return shapes | layer("out_layer.0", 3, 192, 1, 1)


def large_sample() -> tuple[Tensor, Tensor]:
    """The contract's sample, at the smallest size that the network takes."""
    image, mask = sample()
    return F.interpolate(image, (256, 256), mode="bilinear"), F.interpolate(mask, (256, 256))


class TestCTSDG(TrainableContract):
    name, num_parameters = "ctsdg", 52_147_789
    config = TINY

    def test_every_parameter_gets_a_finite_nonzero_gradient(self) -> None:
        """From the losses together: projections are for their own. At first, shares are zero."""
        model, (image, mask) = tiny().train(), large_sample()
        for gamma in (model.fuse.structure_gamma, model.fuse.texture_gamma):
            nn.init.constant_(gamma, 0.1)
        stages = model.run_stages(image, mask)
        losses = [x.square().mean() for x in (stages.fill, stages.texture, stages.edge_logits)]
        torch.stack(losses).sum().backward()
        assert not [name for name, p in model.named_parameters() if not has_gradient(p.grad)]


@cache
def published() -> CTSDG:
    """The registered network without values; to be looked at only."""
    with build_on_meta():
        return inpainters.create("ctsdg")


def test_the_small_one_fits_into_3_megabytes_as_float16() -> None:
    with build_on_meta():
        model = inpainters.create("ctsdg", width=10)
    assert sum(v.numel() for v in model.state_dict().values()) * 2 < 3e6
    assert model.config == CTSDGConfig(width=10)


class TestOfficialWeights:
    @pytest.mark.parametrize("prefix", ["", "generator."])
    def test_every_value_finds_its_place(self, prefix: str) -> None:
        state = {
            prefix + key: torch.empty(shape, device="meta")
            for key, shape in official_shapes().items()
        }
        official = inpainters.get("ctsdg").official
        assert official is not None
        other = {"discriminator.texture_branch.conv1.0.weight_u": torch.empty(0)}
        new = official.remap({**state, **(other if prefix else {})})
        check_fits(published(), new)
        assert len(new) == len(official_shapes())
        whole = {"n_iter": 7, "generator": state, "discriminator": other}
        assert new.keys() == official.remap(whole).keys()
        assert inpainters.create("ctsdg", **official.config, **TINY).config.folded

    @pytest.mark.parametrize(
        "key",
        [
            "ec_texture_8.conv.weight",
            "texture_feature_projection.structure_resolver.conv1.weight",
            "cfa.msfa.dilated_conv_4.0.bias",
            "edge_detector.projection.0.weight",
        ],
    )
    def test_an_unknown_key_is_an_error(self, key: str) -> None:
        with pytest.raises(WeightsError, match=rf"unknown keys: {key}"):
            remap(dict.fromkeys([*official_shapes(), key], torch.empty(0)))

    def test_a_missing_key_and_one_too_many_are_errors(self) -> None:
        state = dict.fromkeys(official_shapes(), torch.empty(0))
        del state["dc_texture_7.bn.weight"]
        state["ec_texture_1.bn.weight"] = torch.empty(0)
        with pytest.raises(WeightsError) as error:
            check_fits(published(), remap(state))
        assert "lacks texture_decoder.levels.0.norm.weight;" in str(error.value)
        assert "no texture_encoder.levels.0.norm.weight;" in str(error.value)

    @pytest.mark.slow
    def test_the_outputs_are_those_of_the_published_code(self) -> None:
        golden = reproducible.golden("ctsdg")
        state = reproducible.weights(official_shapes())
        assert reproducible.digest(state) == golden["sha256"]
        with build_on_meta():
            model = inpainters.create("ctsdg").eval()
        model.load_state_dict(remap(state), assign=True)
        image, mask, edges = reproducible.batch(128)
        with torch.no_grad():
            stages = model.run_stages(image, mask, torch.cat([edges, image[:, :1]], dim=1))
        outputs = (stages.fill, stages.texture, stages.edge_logits.sigmoid())
        for name, output in zip(("fill", "texture", "edges"), outputs, strict=True):
            expected = torch.tensor(golden[name])
            assert expected.std() > 0.05
            torch.testing.assert_close(
                torch.tensor(reproducible.sampled(output)), expected, rtol=1e-4, atol=1e-5
            )


class TestStructure:
    def test_edges_are_cannys_of_the_known_region(self) -> None:
        image, mask = large_sample()
        edges, grey = tiny().find_structure(image, mask).split(1, dim=1)
        pixels, known = to_grey(image)[0, 0].double().numpy(), mask[0, 0].numpy() == 0
        assert np.array_equal(edges[0, 0].bool().numpy(), canny(pixels, sigma=2.0, mask=known))
        assert 0 < edges.mean() < 0.5
        assert torch.equal(grey, to_grey(image))

        other = torch.where(mask == 1, torch.rand_like(image), image)
        assert torch.equal(tiny().find_structure(other, mask)[:, :1], edges)
        assert not torch.equal(tiny().find_structure(other)[:, :1], edges)

    def test_folded_photos_are_what_8_bits_make_of_negative_values(self) -> None:
        image = torch.arange(256).float().div(255).expand(1, 3, 4, 256)
        expected = image.sub(0.5).div(0.5).mul(255).byte().float().div(255)
        assert torch.equal(wrap_8_bit(image), expected)
        by_hand = wrap_8_bit(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])) * 255
        assert by_hand.round().tolist() == [1, 129, 0, 127, 255]

        plain, other = tiny(), tiny(folded=True)
        torch.testing.assert_close(other.find_structure(image)[:, 1:], to_grey(expected))
        assert (other.find_structure(image) != plain.find_structure(image)).any()

    def test_without_scikit_image_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "skimage.feature", None)
        with pytest.raises(OverpaintError, match=r"overpaint\[classical\]"):
            tiny()


class TestStages:
    def test_the_hole_is_not_seen(self) -> None:
        model, (image, mask) = tiny().eval(), large_sample()
        other = torch.where(mask == 1, torch.rand_like(image), image)
        with torch.no_grad():
            one, two = model.run_stages(image, mask), model.run_stages(other, mask)
            filled = model(image, mask)
        for name in ("fill", "texture", "edge_logits"):
            assert torch.equal(getattr(one, name), getattr(two, name))
        assert torch.equal(filled, torch.where(mask == 1, one.fill, image))

    def test_each_decoder_starts_from_the_code_of_the_other(self) -> None:
        model, (image, mask) = tiny().eval(), large_sample()
        with torch.no_grad():
            before = model.run_stages(image, mask)
            last = model.structure_encoder.levels[-1]  # its features are no skip
            last.get_parameter("norm.bias").add_(3)
            after = model.run_stages(image, mask)
        assert torch.equal(before.edge_logits, after.edge_logits)
        assert not torch.equal(before.texture, after.texture)


class TestGatedFusion:
    def test_at_first_both_pass_unchanged(self) -> None:
        t, s = torch.randn(2, 1, 3, 5, 5)
        assert torch.equal(GatedFusion(3)(t, s), torch.cat([t, s], dim=1))

    def test_the_structure_takes_of_the_texture_that_has_taken(self) -> None:
        fuse, (t, s) = GatedFusion(3), torch.randn(2, 1, 3, 5, 5)
        nn.init.constant_(fuse.texture_gamma, 2.0)
        nn.init.constant_(fuse.structure_gamma, -3.0)
        for gate, bias in ((fuse.structure_gate, 0.0), (fuse.texture_gate, 1.0)):
            nn.init.zeros_(gate.weight)
            nn.init.constant_(gate.bias, bias)  # type: ignore[arg-type]
        texture = t + 2.0 * 0.5 * s
        structure = s - 3.0 * torch.tensor(1.0).sigmoid() * texture
        torch.testing.assert_close(fuse(t, s), torch.cat([texture, structure], dim=1))


def patch_by_patch(x: Tensor) -> Tensor:
    """RAL in loops: scores of all pairs of small patches, large patches added up where they lie."""
    small = F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=True)[0]
    small, large = F.pad(small, (1, 1, 1, 1)), F.pad(x[0], (1, 1, 1, 1))
    places = list(product(range(x.shape[2] // 2), range(x.shape[3] // 2)))
    out = torch.zeros_like(large)
    for i, j in places:
        query = small[:, i : i + 3, j : j + 3]
        scores = []
        for m, n in places:
            key = small[:, m : m + 3, n : n + 3]
            scores.append((query * key).sum() / key.square().sum().sqrt().clamp(min=1e-4))
        weights = torch.stack(scores).mul(10).softmax(dim=0)
        for weight, (m, n) in zip(weights, places, strict=True):
            pasted = weight * large[:, 2 * m : 2 * m + 4, 2 * n : 2 * n + 4] / 4
            out[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += pasted
    return out[None, :, 1:-1, 1:-1]


class TestRegionAffinity:
    @pytest.mark.parametrize("scale", [0.05, 1.0])
    def test_it_agrees_with_the_definition(self, scale: float) -> None:
        x = scale * torch.randn(1, 2, 8, 12)
        torch.testing.assert_close(
            learn_region_affinity(x), patch_by_patch(x), rtol=1e-5, atol=1e-5 * scale
        )

    def test_features_of_zero_have_a_finite_gradient(self) -> None:
        x = torch.zeros(1, 2, 8, 8, requires_grad=True)
        learn_region_affinity(x).sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()

    def test_distinct_features_come_back_as_they_are(self) -> None:
        x = F.interpolate(torch.randn(1, 8, 4, 4), scale_factor=4) * 30
        inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
        out = learn_region_affinity(x)
        assert (out - x)[inside].abs().mean() < 0.2 * x[inside].abs().mean()


def test_scales_are_weighted_place_by_place() -> None:
    layer, x = MultiScaleAggregation(3), torch.randn(2, 3, 20, 20)
    with torch.no_grad():
        weights = layer.weigh(x)
        parts = [
            F.conv2d(x, conv.weight, conv.bias, dilation=d, padding=d).relu()  # type: ignore[union-attr]
            for conv, d in zip(layer.dilated, (1, 2, 4, 8), strict=True)
        ]
        expected = sum(weights[:, i : i + 1] * part for i, part in enumerate(parts))
        torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, 20, 20))


class TestDiscriminator:
    def test_number_of_parameters_is_that_of_the_fact_sheet(self) -> None:
        with build_on_meta():
            count = sum(p.numel() for p in DualDiscriminator().parameters())
        assert count == pytest.approx(5.53e6, rel=1e-3)

    def test_it_judges_texture_and_structure_apart(self) -> None:
        judge = DualDiscriminator(width=4).eval()
        image, grey = torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64)
        edges = (torch.rand(1, 1, 64, 64) < 0.1).float()
        with torch.no_grad():
            real, detected = judge(image, grey, edges)
            fake, same = judge(image, grey)
            told, _ = judge(image, grey, detected.sigmoid())
        assert real.shape == (1, 2, 6, 6)
        assert detected.shape == edges.shape
        assert torch.equal(detected, same)
        assert torch.equal(real[:, :1], fake[:, :1])
        assert not torch.equal(real[:, 1:], fake[:, 1:])
        assert torch.equal(told, fake)

    def test_a_fill_learns_through_its_detected_edges(self) -> None:
        judge, image = DualDiscriminator(width=4), torch.rand(1, 3, 64, 64, requires_grad=True)
        judge(image, torch.rand(1, 1, 64, 64))[0][:, 1].sum().backward()
        assert has_gradient(image.grad)
        assert all(has_gradient(p.grad) for p in judge.detect.parameters())


def test_an_impossible_configuration_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 4"):
        CTSDGConfig(width=3)
