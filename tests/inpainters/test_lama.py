"""LaMa: the contract, the published weights' names, a golden output, and what it sees."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers import reproducible
from helpers.inpainter_contract import TrainableContract, has_gradient, sample
from overpaint.errors import ConfigError, WeightsError
from overpaint.inpainters.base import compose
from overpaint.inpainters.lama import Discriminator, LaMa, LaMaConfig, remap
from overpaint.registry import build_on_meta, inpainters
from overpaint.weights.rename_keys import check_fits

TINY: dict[str, Any] = {"width": 4, "num_blocks": 1}
KEYS = Path(__file__).parents[3] / "shared" / "models" / "lama_keys.txt"

Shapes = Iterator[tuple[str, tuple[int, ...]]]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def tiny(**config: Any) -> LaMa:
    return LaMa(LaMaConfig(**{**TINY, **config}))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def batch_norm(name: str, channels: int) -> Shapes:
    for field in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{field}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def fourier_layer(name: str, local: int, whole: int) -> Shapes:
    """One of the two layers of a block."""
    half = whole // 2
    yield f"{name}.ffc.convl2l.weight", (local, local, 3, 3)
    yield f"{name}.ffc.convl2g.weight", (whole, local, 3, 3)
    yield f"{name}.ffc.convg2l.weight", (local, whole, 3, 3)
    yield f"{name}.ffc.convg2g.conv1.0.weight", (half, whole, 1, 1)
    yield from batch_norm(f"{name}.ffc.convg2g.conv1.1", half)
    yield f"{name}.ffc.convg2g.fu.conv_layer.weight", (whole, whole, 1, 1)
    yield from batch_norm(f"{name}.ffc.convg2g.fu.bn", whole)
    yield f"{name}.ffc.convg2g.conv2.weight", (whole, half, 1, 1)
    yield from batch_norm(f"{name}.bn_l", local)
    yield from batch_norm(f"{name}.bn_g", whole)


def names_and_shapes(width: int, num_blocks: int) -> Shapes:
    c, local, whole = width, 2 * width, 6 * width
    for i, (c_in, c_out, k) in enumerate([(4, c, 7), (c, 2 * c, 3), (2 * c, 4 * c, 3)], 1):
        yield f"model.{i}.ffc.convl2l.weight", (c_out, c_in, k, k)
        yield from batch_norm(f"model.{i}.bn_l", c_out)
    yield "model.4.ffc.convl2l.weight", (local, 4 * c, 3, 3)
    yield "model.4.ffc.convl2g.weight", (whole, 4 * c, 3, 3)
    yield from batch_norm("model.4.bn_l", local)
    yield from batch_norm("model.4.bn_g", whole)
    for i in range(5, 5 + num_blocks):
        for k in (1, 2):
            yield from fourier_layer(f"model.{i}.conv{k}", local, whole)
    for k, c_in in enumerate((8 * c, 4 * c, 2 * c)):
        i = 6 + num_blocks + 3 * k
        yield f"model.{i}.weight", (c_in, c_in // 2, 3, 3)
        yield f"model.{i}.bias", (c_in // 2,)
        yield from batch_norm(f"model.{i + 1}", c_in // 2)
    yield f"model.{16 + num_blocks}.weight", (3, c, 7, 7)
    yield f"model.{16 + num_blocks}.bias", (3,)


def published(width: int = 64, num_blocks: int = 18) -> dict[str, Tensor]:
    with build_on_meta():
        return {key: torch.empty(shape) for key, shape in names_and_shapes(width, num_blocks)}


class TestLaMa(TrainableContract):
    name, num_parameters, config = "lama", 27_048_835, TINY


def test_sizes_are_those_of_the_fact_sheet() -> None:
    with build_on_meta():
        assert inpainters.create("big-lama").num_parameters == 50_975_875
        assert count(Discriminator()) == 6_962_369
        small = inpainters.create("lama", width=16, num_blocks=6)
    assert small.num_parameters == 1_201_699
    assert sum(v.numel() for v in small.state_dict().values()) * 2 < 3e6


class TestOfficialWeights:
    def test_names_and_shapes_are_those_of_big_lama(self) -> None:
        lines = [f"{key} {tuple(value.shape)}" for key, value in published().items()]
        assert len(lines) == 989
        found = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        assert found == "e9314ad0b2b0d8eee1f0bb9c3c20fbe9f956b2c7ace85207e7f08ff900a94c19"
        if not KEYS.exists():
            pytest.skip(f"no {KEYS.name} beside the project: compared by its sha256 alone")
        assert KEYS.read_text().split("\n") == lines

    @pytest.mark.parametrize(("name", "num_blocks"), [("lama", 9), ("big-lama", 18)])
    def test_every_published_key_finds_its_place(self, name: str, num_blocks: int) -> None:
        official = inpainters.get(name).official
        assert official is not None
        with build_on_meta():
            model = inpainters.create(name, **official.config)
        state = published(num_blocks=num_blocks)
        renamed = official.remap(state)
        check_fits(model, renamed)
        assert {id(value) for value in renamed.values()} == {id(v) for v in state.values()}
        last = f"model.{num_blocks + 4}.conv2"
        ours = f"blocks.{num_blocks - 1}.conv2"
        assert renamed[f"{ours}.norm_global.bias"] is state[f"{last}.bn_g.bias"]
        theirs = state[f"{last}.ffc.convg2g.fu.bn.running_var"]
        assert renamed[f"{ours}.conv.global_to_global.whole.norm.running_var"] is theirs

    @pytest.mark.parametrize("start", ["generator.", "model.generator.", "model."])
    def test_checkpoints_and_torchscript_files_are_taken(self, start: str) -> None:
        state = published(width=8, num_blocks=2)
        expected = remap(state)
        renamed = remap({start + key: value for key, value in state.items()})
        assert renamed.keys() == expected.keys()
        assert all(renamed[key] is expected[key] for key in expected)

    def test_of_a_whole_checkpoint_the_generator_is_taken(self) -> None:
        state = {f"generator.{key}": value for key, value in published(8, 2).items()}
        others = ["discriminator.model0.0.weight", "loss_resnet_pl.impl.conv1.weight"]
        content = {"epoch": 3, "state_dict": {**state, **dict.fromkeys(others, torch.zeros(1))}}
        assert remap(content).keys() == remap(state).keys()

    def test_unknown_and_missing_keys_are_errors(self) -> None:
        state = published(8, 2)
        with pytest.raises(WeightsError, match=r"unknown keys: model\.5\.conv1\.ffc\.gate\.weight"):
            remap({**state, "model.5.conv1.ffc.gate.weight": torch.zeros(1)})
        with pytest.raises(WeightsError, match=r"unknown keys: 19\.weight"):
            remap({**state, "model.19.weight": torch.zeros(1)})
        del state["model.6.conv1.ffc.convg2l.weight"]
        with build_on_meta(), pytest.raises(WeightsError, match=r"lacks blocks\.1\.conv1\.co"):
            check_fits(tiny(width=8, num_blocks=2), remap(state))

    def test_output_is_that_of_the_published_code(self) -> None:
        golden = reproducible.golden("lama")
        state = reproducible.weights(dict(names_and_shapes(16, 2)))
        assert reproducible.digest(state) == golden["sha256"]
        model = tiny(width=16, num_blocks=2)
        model.load_state_dict(remap(state))
        image, mask, _ = reproducible.batch()
        with torch.no_grad():
            fill = model.eval().run_stages(image, mask).fill
        values = torch.tensor(reproducible.sampled(fill))
        torch.testing.assert_close(values, torch.tensor(golden["values"]), rtol=1e-4, atol=1e-5)


def test_the_network_sees_black_in_the_hole_and_the_mask_last() -> None:
    model, (image, mask) = tiny().eval(), sample()
    seen: list[Tensor] = []
    hook = model.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        stages = model.run_stages(image, mask)
    hook.remove()
    assert torch.equal(seen[0], torch.cat([image * (1 - mask), mask], dim=1))
    assert torch.equal(stages.output, compose(image, stages.fill, mask))
    assert 0 < stages.fill.min() < stages.fill.max() < 1


def test_a_fill_depends_on_the_whole_picture() -> None:
    """One block's convolutions alone would reach 60 pixels; the Fourier units reach all."""
    model = tiny(width=8).eval()
    image, mask = torch.rand(1, 3, 256, 64), torch.zeros(1, 1, 256, 64)
    mask[..., :8, :8] = 1
    image.requires_grad_(True)
    model(image, mask)[..., :8, :8].sum().backward()
    assert image.grad is not None
    assert image.grad[..., 200:, :].abs().sum() > 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"width": 0}, "at least 1"),
        ({"global_ratio": 1.0}, "leaves 0 local"),
        ({"global_ratio": 0.0}, "and 0 global"),
    ],
)
def test_an_impossible_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LaMaConfig(**{**TINY, **config})


def test_the_discriminator_gives_logits_and_the_features_before_them() -> None:
    model, image = Discriminator(width=2), torch.rand(2, 3, 64, 48)
    logits, features = model(image)
    assert [f.shape[1] for f in features] == [2, 4, 8, 16, 16]
    assert [tuple(f.shape[2:]) for f in features] == [(33, 25), (17, 13), (9, 7), (5, 4), (6, 5)]
    assert logits.shape == (2, 1, 7, 6)
    (logits.square().mean() + sum(f.square().mean() for f in features)).backward()
    assert all(has_gradient(p.grad) for p in model.parameters())
