"""TruFor: the contract, the published names, a golden output, attention, heads and statistics."""

import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers import reproducible
from helpers.detector_contract import DetectorContract, has_gradient
from overpaint.detectors.trufor import Head, TruFor, TruForConfig, compute_statistics, remap
from overpaint.detectors.trufor_backbone import Attention, CrossPath, DropPath, Rectify
from overpaint.errors import ConfigError, WeightsError
from overpaint.registry import build_on_meta, detectors
from overpaint.training.config import load_config
from overpaint.training.detection.base import DetectorRun
from overpaint.weights.rename_keys import check_fits

RECIPE = Path(__file__).parents[2] / "recipes" / "detectors" / "trufor-s.yaml"
TINY: dict[str, Any] = {
    "widths": (8, 8, 16, 16),
    "heads": (1, 2, 2, 4),
    "depths": (1, 1, 1, 1),
    "head_width": 16,
    "noise_width": 8,
    "drop_path": 0.0,
}
GOLDEN: dict[str, Any] = {
    "widths": (8, 16, 40, 64),
    "heads": (1, 2, 5, 8),
    "depths": (2, 1, 2, 1),
    "head_width": 16,
    "noise_width": 16,
}
Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def tiny(**config: Any) -> TruFor:
    return TruFor(TruForConfig(**{**TINY, **config})).eval()


def layer(key: str, *shape: int, bias: bool = True) -> Shapes:
    """A linear layer or a convolution; a norm over channels, where one number is given."""
    return {f"{key}.weight": shape} | ({f"{key}.bias": shape[:1]} if bias else {})


def batch_norm(key: str, c: int) -> Shapes:
    running: Shapes = {f"{key}.running_mean": (c,), f"{key}.running_var": (c,)}
    return layer(key, c) | running | {f"{key}.num_batches_tracked": ()}


def block(key: str, c: int, reduction: int) -> Shapes:
    shapes = layer(f"{key}.norm1", c) | layer(f"{key}.norm2", c)
    shapes |= layer(f"{key}.attn.q", c, c) | layer(f"{key}.attn.kv", 2 * c, c)
    shapes |= layer(f"{key}.attn.proj", c, c)
    if reduction > 1:
        shapes |= layer(f"{key}.attn.sr", c, c, reduction, reduction)
        shapes |= layer(f"{key}.attn.norm", c)
    shapes |= layer(f"{key}.mlp.fc1", 4 * c, c) | layer(f"{key}.mlp.fc2", c, 4 * c)
    return shapes | layer(f"{key}.mlp.dwconv.dwconv", 4 * c, 1, 3, 3)


def exchange(s: int, c: int) -> Shapes:
    """FRMs and FFMs of a stage."""
    shapes = layer(f"FRMs.{s}.channel_weights.mlp.0", 4 * c, 4 * c)
    shapes |= layer(f"FRMs.{s}.channel_weights.mlp.2", 2 * c, 4 * c)
    shapes |= layer(f"FRMs.{s}.spatial_weights.mlp.0", c, 2 * c, 1, 1)
    shapes |= layer(f"FRMs.{s}.spatial_weights.mlp.2", 2, c, 1, 1)
    for i in (1, 2):
        shapes |= layer(f"FFMs.{s}.cross.channel_proj{i}", 2 * c, c)
        shapes |= layer(f"FFMs.{s}.cross.cross_attn.kv{i}", 2 * c, c, bias=False)
        shapes |= layer(f"FFMs.{s}.cross.end_proj{i}", c, 2 * c)
        shapes |= layer(f"FFMs.{s}.cross.norm{i}", c)
    embed = f"FFMs.{s}.channel_emb"
    shapes |= layer(f"{embed}.residual", c, 2 * c, 1, 1, bias=False)
    shapes |= layer(f"{embed}.channel_embed.0", c, 2 * c, 1, 1)
    shapes |= layer(f"{embed}.channel_embed.1", c, 1, 3, 3)
    shapes |= layer(f"{embed}.channel_embed.3", c, c, 1, 1)
    return shapes | batch_norm(f"{embed}.channel_embed.4", c) | batch_norm(f"{embed}.norm", c)


def backbone(widths: tuple[int, ...], depths: tuple[int, ...]) -> Shapes:
    shapes: Shapes = {}
    for s, (c_in, c) in enumerate(zip((3, *widths), widths, strict=False)):
        size = 3 if s else 7
        for stream in ("", "extra_"):
            shapes |= layer(f"{stream}patch_embed{s + 1}.proj", c, c_in, size, size)
            shapes |= layer(f"{stream}patch_embed{s + 1}.norm", c)
            shapes |= layer(f"{stream}norm{s + 1}", c)
            for i in range(depths[s]):
                shapes |= block(f"{stream}block{s + 1}.{i}", c, reduction=8 >> s)
        shapes |= exchange(s, c)
    return shapes


def official_shapes(config: TruForConfig) -> Shapes:
    """Names and shapes of the published network."""
    encoder = backbone(config.widths, config.depths)
    shapes = {f"backbone.{key}": shape for key, shape in encoder.items()}
    width, noise = config.head_width, config.noise_width
    for head, num_outputs in (("decode_head", 2), ("decode_head_conf", 1)):
        for s, c in enumerate(config.widths):
            shapes |= layer(f"{head}.linear_c{s + 1}.proj", width, c)
        shapes |= layer(f"{head}.linear_fuse.0", width, 4 * width, 1, 1)
        shapes |= batch_norm(f"{head}.linear_fuse.1", width)
        shapes |= layer(f"{head}.linear_pred", num_outputs, width, 1, 1)
    shapes |= layer("detection.0", 128, 8) | layer("detection.3", 1, 128)
    shapes |= layer("dncnn.0", noise, 3, 3, 3) | layer("dncnn.47", 1, noise, 3, 3)
    for i in range(2, 47, 3):
        shapes |= layer(f"dncnn.{i}", noise, noise, 3, 3, bias=False)
        shapes |= batch_norm(f"dncnn.{i + 1}", noise)
    return shapes


class TestTruFor(DetectorContract):
    name, num_parameters, config = "trufor", 68_697_421, TINY

    def test_every_parameter_gets_a_finite_nonzero_gradient(self) -> None:
        model = self.make().train()  # confidence and score have heads of their own
        found = model.examine(torch.rand(2, 3, 64, 64))
        assert found.score is not None
        assert found.confidence is not None
        (found.logits.square().mean() + found.score.square().mean()).backward()
        wrong = [name for name, p in model.named_parameters() if not has_gradient(p.grad)]
        assert not wrong


class TestTruForFaithful(TestTruFor):
    config: ClassVar[dict[str, Any]] = {**TINY, "faithful": True}

    @pytest.mark.skip(reason="trained in the sound variant")
    def test_one_sample_can_be_overfitted(self) -> None: ...


def test_sizes_are_those_of_the_fact_sheet() -> None:
    with build_on_meta():
        full = detectors.create("trufor")
        small = detectors.create("trufor", **load_config(DetectorRun, RECIPE).model)
    assert sum(v.numel() for v in full.noiseprint.state_dict().values()) == 559_184
    assert small.num_parameters == 1_395_133
    assert sum(v.numel() for v in small.state_dict().values()) * 2 < 3e6


class TestOfficialWeights:
    def published(self) -> dict[str, Tensor]:
        shapes = official_shapes(TruForConfig())
        return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}

    @pytest.mark.parametrize("prefix", ["", "module.", "state_dict.", "state_dict.module."])
    def test_every_published_key_finds_its_place(self, prefix: str) -> None:
        official, state = detectors.get("trufor").official, self.published()
        assert official is not None
        assert official.config["faithful"]
        assert len(state) == 952
        found = official.remap({f"{prefix}{key}": value for key, value in state.items()})
        with build_on_meta():
            check_fits(detectors.create("trufor", **official.config), found)
        assert {id(value) for value in found.values()} == {id(v) for v in state.values()}
        key = "encoder.noise.2.blocks.5.attention.reduce.norm.weight"
        assert found[key] is state["backbone.extra_block3.5.attn.norm.weight"]
        key = "confidence.project.0.bias"
        assert found[key] is state["decode_head_conf.linear_c1.proj.bias"]

    def test_a_checkpoint_of_a_training_loses_its_optimiser(self) -> None:
        state = self.published()
        found = remap({"state_dict": state, "optimizer": {"state": {}}})
        assert len(found) == len(state)
        flat = {f"state_dict.{key}": value for key, value in state.items()}
        assert remap({**flat, "optimizer.state.0.momentum_buffer": torch.empty(1)}) == found

    def test_unknown_and_missing_keys_are_errors(self) -> None:
        state = self.published()
        with pytest.raises(WeightsError, match=r"unknown keys: backbone\.block1\.0\.norm3\.bias"):
            remap({**state, "backbone.block1.0.norm3.bias": torch.zeros(1)})
        del state["backbone.FFMs.2.cross.cross_attn.kv2.weight"]
        lacking = r"lacks encoder\.fuse\.2\.noise\.key_value\.weight"
        with build_on_meta(), pytest.raises(WeightsError, match=lacking):
            check_fits(detectors.create("trufor"), remap(state))

    def test_output_is_that_of_the_published_code(self) -> None:
        golden = reproducible.golden("trufor")
        config = TruForConfig(**GOLDEN, faithful=True)
        state = reproducible.weights(official_shapes(config))
        assert reproducible.digest(state) == golden["sha256"]
        model = TruFor(config).eval()
        model.load_state_dict(remap(state))
        image = reproducible.batch(72)[0]  # no multiple of 32: rows without a key, uneven maps
        with torch.no_grad():
            found = model.examine(image)
            noise = model.noiseprint(image * (255 / 256))
        assert found.confidence is not None
        assert found.score is not None
        close(reproducible.sampled(found.logits), golden["logits"])
        close(reproducible.sampled(found.confidence), golden["confidence"])
        close(found.score.tolist(), golden["score"])
        close(reproducible.sampled(noise), golden["noiseprint"])


def close(found: list[float], wanted: list[float]) -> None:
    torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), rtol=1e-4, atol=1e-5)


class TestFaithful:
    def test_is_the_sound_variant_on_a_darker_photo_where_nothing_is_padded(self) -> None:
        sound, faithful = tiny(), tiny(faithful=True)
        faithful.load_state_dict(sound.state_dict())
        image = torch.rand(2, 3, 64, 96)
        with torch.no_grad():
            torch.testing.assert_close(faithful(image), sound(image * 255 / 256))
            assert not torch.allclose(faithful(image), sound(image), rtol=0, atol=1e-6)

    def test_only_a_photo_without_a_whole_key_is_padded(self) -> None:
        model = tiny(faithful=True)
        with torch.no_grad():
            for size, padded in ((28, True), (29, False), (40, False)):
                image = torch.rand(1, 3, size, size)
                wide = F.pad(image, (0, -size % 32, 0, -size % 32), mode="reflect")
                same = torch.allclose(model(image), model(wide)[..., :size, :size], atol=1e-7)
                assert same == padded


def test_noiseprint_is_exact_under_autocast() -> None:
    model, image, noises = tiny(), torch.rand(1, 3, 64, 64), []
    model.noiseprint.register_forward_hook(lambda _, __, noise: noises.append(noise))
    with torch.no_grad():
        model(image)
        with torch.autocast("cpu", torch.bfloat16):
            model(image)
    torch.testing.assert_close(noises[1], noises[0], rtol=0, atol=0)


def attended(layer: Attention, x: Tensor) -> Tensor:
    """`layer` on one map (h, w, c), place by place."""
    h, w, c = x.shape
    d = c // layer.heads
    cells = x.reshape(-1, c)
    if layer.reduce is not None:
        r = layer.reduce.conv.stride[0]
        kernel, bias = layer.reduce.conv.weight, layer.reduce.conv.bias
        assert bias is not None
        corners = [(i, j) for i in range(0, h - r + 1, r) for j in range(0, w - r + 1, r)]
        cells = [torch.einsum("hwc,ochw->o", x[i : i + r, j : j + r], kernel) for i, j in corners]
        cells = layer.reduce.norm(torch.stack(cells) + bias)
    keys, values = layer.key_value(cells).split(c, dim=-1)
    out = torch.empty(h, w, c)
    for i in range(h):
        for j in range(w):
            query = layer.query(x[i, j])
            for part in (slice(n * d, n * d + d) for n in range(layer.heads)):
                weights = [math.exp(float(query[part] @ key[part]) / d**0.5) for key in keys]
                found = sum(a * value[part] for a, value in zip(weights, values, strict=True))
                out[i, j, part] = found / sum(weights)
    return layer.out(out)


class TestAttention:
    @pytest.mark.parametrize("reduction", [1, 2])
    def test_is_the_slow_sum_over_cells(self, reduction: int) -> None:
        layer, x = Attention(6, heads=2, reduction=reduction), torch.randn(1, 5, 4, 6)
        with torch.no_grad():
            expected = attended(layer, x[0])
            torch.testing.assert_close(layer(x)[0], expected, rtol=0, atol=1e-5)

    def test_the_context_of_a_stream_is_a_softmax_over_the_keys_channels(self) -> None:
        path, shared = CrossPath(6, heads=2), torch.randn(1, 2, 3, 6)
        with torch.no_grad():
            found = path.compute_context(shared)[0]
            keys, values = path.key_value(shared[0].reshape(6, 6)).split(6, dim=-1)
            for head, part in enumerate((slice(0, 3), slice(3, 6))):
                for v in range(3):
                    value = values[:, part][:, v]
                    powers = [math.exp(float(k @ value) / 3**0.5) for k in keys[:, part].T]
                    column = torch.tensor(powers) / sum(powers)
                    torch.testing.assert_close(found[head, :, v], column, rtol=0, atol=1e-5)


def test_rectification_gives_each_stream_its_own_half_of_the_weights() -> None:
    rectify, (image, noise) = Rectify(2), torch.randn(2, 1, 2, 4, 4)
    for module in rectify.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    last_channel, last_place = rectify.channels[2], rectify.places[2]
    assert isinstance(last_channel, nn.Linear)
    assert isinstance(last_place, nn.Conv2d)
    off, on = -30.0, 30.0
    with torch.no_grad():  # channel 1 of the photo, and of the noise all places
        last_channel.bias.copy_(torch.tensor([off, on, off, off]))
        last_place.bias.copy_(torch.tensor([off, on]))  # type: ignore[union-attr]
        new_image, new_noise = rectify(image, noise)
    torch.testing.assert_close(new_image, image + noise / 2)
    torch.testing.assert_close(new_noise[:, 0], noise[:, 0])
    torch.testing.assert_close(new_noise[:, 1], noise[:, 1] + image[:, 1] / 2)


def test_a_head_is_the_fusion_of_the_upsampled_projections_coarsest_first() -> None:
    widths = (4, 6, 8, 10)
    head = Head(widths, 12, num_outputs=2, eps=1e-3).eval()
    maps = [torch.randn(2, c, 8 >> s, 16 >> s) for s, c in enumerate(widths)]
    with torch.no_grad():
        head.norm.running_mean.normal_()  # type: ignore[union-attr]
        large = [
            F.interpolate(project(x.movedim(1, 3)).movedim(3, 1), size=(8, 16), mode="bilinear")
            for x, project in zip(maps, head.project, strict=True)
        ]
        expected = head.predict(head.norm(head.fuse(torch.cat(large[::-1], dim=1))).relu())
        torch.testing.assert_close(head(maps), expected, rtol=0, atol=1e-5)


class TestStatistics:
    def test_are_the_weighted_sums(self) -> None:
        x, log_weights = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 3, 4)
        found = compute_statistics(x, log_weights)
        for picture, row in enumerate(found.tolist()):
            raw = [math.exp(v) for v in log_weights[picture].flatten().tolist()]
            pairs = [
                (w / sum(raw), v) for w, v in zip(raw, x[picture].flatten().tolist(), strict=True)
            ]
            assert row == pytest.approx(
                [
                    -math.log(sum(w * math.exp(-v) for w, v in pairs)),
                    math.log(sum(w * math.exp(v) for w, v in pairs)),
                    sum(w * v for w, v in pairs),
                    sum(w * v * v for w, v in pairs),
                ],
                abs=1e-5,
            )

    def test_of_an_even_map_are_its_value_and_its_square(self) -> None:
        found = compute_statistics(torch.full((1, 1, 5, 7), -3.0), torch.randn(1, 1, 5, 7))
        torch.testing.assert_close(found, torch.tensor([[-3.0, -3.0, -3.0, 9.0]]))

    def test_a_place_without_trust_does_not_count(self) -> None:
        x, trust = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
        x[..., 1, 2], trust[..., 1, 2] = 50.0, -200.0
        torch.testing.assert_close(compute_statistics(x, trust), torch.zeros(1, 4))


def test_stochastic_depth_keeps_or_drops_whole_samples_and_the_mean() -> None:
    drop, x = DropPath(0.25), torch.ones(4000, 1, 1, 3)
    found = drop(x)
    kept = found[..., :1] > 0
    torch.testing.assert_close(found, (kept * 4 / 3).expand_as(found))
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert torch.equal(drop.eval()(x), x)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"widths": (8, 8, 8)}, "four positive numbers"),
        ({"depths": (1, 0, 1, 1)}, "four positive numbers"),
        ({"widths": (64, 128, 320, 500)}, "multiples of heads"),
        ({"drop_path": 1.0}, "drop_path in"),
        ({"head_width": 0}, "must be positive"),
    ],
)
def test_an_impossible_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TruForConfig(**config)


def test_widths_from_json_make_the_same_configuration() -> None:
    assert TruForConfig(widths=[64, 128, 320, 512]) == TruForConfig()  # type: ignore[arg-type]
