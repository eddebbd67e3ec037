"""EdgeConnect: the contract, the published weights' names, a golden output, edges, and RWSA."""

import sys
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from skimage.color import rgb2gray
from skimage.feature import canny
from torch import Tensor, nn

from helpers import reproducible
from helpers.inpainter_contract import TrainableContract, has_gradient, sample
from overpaint.errors import ConfigError, OverpaintError, WeightsError
from overpaint.inpainters.edgeconnect import EdgeConnect, EdgeConnectConfig, remap, to_grey
from overpaint.layers.rwsa import RWSA
from overpaint.registry import build_on_meta, inpainters
from overpaint.weights.rename_keys import check_fits

TINY: dict[str, Any] = {"width": 4, "num_blocks": 1}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def tiny(**config: Any) -> EdgeConnect:
    return EdgeConnect(EdgeConnectConfig(**{**TINY, **config}))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def convolution(key: str, shape: tuple[int, ...], bias: int, sn: bool) -> dict[str, Any]:
    """Names and shapes of one convolution; bias: its length, 0 for none."""
    shapes: dict[str, Any] = {f"{key}.bias": (bias,)} if bias else {}
    if not sn:
        return {**shapes, f"{key}.weight": shape}
    height = shape[1] if "decoder" in key else shape[0]  # a transposed one has its outputs second
    rest = int(np.prod(shape)) // height
    vectors = {f"{key}.weight_u": (height,), f"{key}.weight_v": (rest,)}
    return {**shapes, f"{key}.weight_orig": shape, **vectors}


def official_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of both published files, joined by dots."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file, c_in, c_out, sn in (("EdgeModel", 3, 1, True), ("InpaintingModel", 4, 3, False)):
        layers: dict[str, tuple[tuple[int, ...], int, bool]] = {
            "encoder.1": ((64, c_in, 7, 7), 64, sn),
            "encoder.4": ((128, 64, 4, 4), 128, sn),
            "encoder.7": ((256, 128, 4, 4), 256, sn),
            "decoder.0": ((256, 128, 4, 4), 128, sn),
            "decoder.3": ((128, 64, 4, 4), 64, sn),
            "decoder.7": ((c_out, 64, 7, 7), c_out, False),
        }
        for i, k in product(range(8), (1, 5)):
            layers[f"middle.{i}.conv_block.{k}"] = (256, 256, 3, 3), 0 if sn else 256, sn
        for key, (shape, bias, normalised) in layers.items():
            shapes |= convolution(f"{file}_gen.generator.{key}", shape, bias, normalised)
    return shapes


class TestEdgeConnect(TrainableContract):
    name, num_parameters = "edgeconnect", 21_535_684
    config = TINY


@cache
def published() -> EdgeConnect:
    """The registered network without values; to be looked at only."""
    with build_on_meta():
        return inpainters.create("edgeconnect")


def test_sizes_at_the_papers_width_are_those_of_the_fact_sheet() -> None:
    assert count(published().edge_generator) == 10_761_089
    assert count(published().inpaint_generator) == 10_774_595


def test_the_small_one_fits_into_3_megabytes_as_float16() -> None:
    with build_on_meta():
        model = inpainters.create("edgeconnect", width=16)
    assert sum(v.numel() for v in model.state_dict().values()) * 2 < 3e6
    assert model.config == EdgeConnectConfig(width=16)


class TestOfficialWeights:
    def test_every_value_finds_its_place(self) -> None:
        files: dict[str, Any] = {"EdgeModel_gen": {}, "InpaintingModel_gen": {}}
        for file in files:
            start = f"{file}.generator."
            state = {
                key.removeprefix(start): torch.empty(shape, device="meta")
                for key, shape in official_shapes().items()
                if key.startswith(start)
            }
            files[file] = {"iteration": 7, "generator": state}
        official = inpainters.get("edgeconnect").official
        assert official is not None
        assert not official.config
        new = official.remap(files)
        check_fits(published(), new)
        assert len(new) == len(official_shapes())

    @pytest.mark.parametrize(
        "key",
        [
            "EdgeModel_gen.generator.encoder.2.weight",
            "InpaintingModel_gen.generator.decoder.7.weight_g",
            "EdgeModel_dis.discriminator.conv1.0.weight_orig",
            "encoder.1.weight",
        ],
    )
    def test_an_unknown_key_is_an_error(self, key: str) -> None:
        with pytest.raises(WeightsError, match=rf"unknown keys: {key}"):
            remap(dict.fromkeys([*official_shapes(), key], torch.empty(0)))

    def test_a_missing_key_and_one_too_many_are_errors(self) -> None:
        state = dict.fromkeys(official_shapes(), torch.empty(0))
        del state["EdgeModel_gen.generator.middle.7.conv_block.5.weight_v"]
        state["InpaintingModel_gen.generator.encoder.4.weight_u"] = torch.empty(0)
        with pytest.raises(WeightsError) as error:
            check_fits(published(), remap(state))
        lacking = "lacks edge_generator.blocks.7.layers.5.parametrizations.weight.0._v;"
        surplus = "no inpaint_generator.encoder.1.0.parametrizations.weight.0._u;"
        assert lacking in str(error.value)
        assert surplus in str(error.value)

    def test_the_outputs_are_those_of_the_published_code(self) -> None:
        golden = reproducible.golden("edgeconnect")
        state = reproducible.weights(official_shapes())
        assert reproducible.digest(state) == golden["sha256"]
        with build_on_meta():
            model = inpainters.create("edgeconnect")
        model.load_state_dict(remap(state), assign=True)
        image, mask, edges = reproducible.batch()
        with torch.no_grad():
            stages = model.eval().run_stages(image, mask, edges)
        for name, out in (("edges", stages.predicted), ("values", stages.fill)):
            values = torch.tensor(reproducible.sampled(out))
            torch.testing.assert_close(values, torch.tensor(golden[name]), rtol=1e-4, atol=1e-4)


class TestEdges:
    def test_they_are_cannys_of_the_luminance_of_known_pixels(self) -> None:
        model, (image, mask) = tiny(), sample()
        picture = rgb2gray(image[0].permute(1, 2, 0).double().numpy())
        grey = to_grey(image)[0, 0].double()
        torch.testing.assert_close(grey, torch.tensor(picture), atol=1e-6, rtol=0)
        for hole in (None, mask):
            seen = None if hole is None else hole[0, 0].numpy() == 0
            expected = canny(picture, sigma=2, low_threshold=0.1, high_threshold=0.2, mask=seen)
            assert 10 < expected.sum() < 1000
            assert torch.equal(model.find_edges(image, hole)[0, 0], torch.tensor(expected).float())

    def test_the_outline_of_the_hole_and_its_content_make_none(self) -> None:
        model, mask = tiny(), sample()[1]
        image = 0.6 * torch.ones(1, 3, 64, 64)
        image[..., 50:] = 0.1  # a step between columns 49 and 50, right of the hole
        plain = model.find_edges(image, mask)
        for content in (0.0, 1.0):
            other = torch.where(mask == 1, content, image)
            assert torch.equal(model.find_edges(other, mask), plain)
        columns = plain.any(dim=2).flatten().nonzero().flatten().tolist()
        assert {49, 50}.issuperset(columns)
        assert plain.sum() > 50

    def test_each_photo_of_a_batch_has_its_own(self) -> None:
        model, (image, mask) = tiny(), sample()
        images, masks = torch.cat([image, image.flip(2)]), torch.cat([mask, 1 - mask])
        together = model.find_edges(images, masks)
        alone = [model.find_edges(images[i : i + 1], masks[i : i + 1]) for i in range(2)]
        assert torch.equal(together, torch.cat(alone))
        assert not (together * masks).any()

    def test_a_wider_gaussian_finds_fewer(self) -> None:
        image = sample()[0]
        found = [tiny(sigma=sigma).find_edges(image).sum() for sigma in (1.0, 2.0, 4.0)]
        assert found == sorted(found, reverse=True)
        assert found[0] > found[-1]

    def test_without_scikit_image_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "skimage.feature", None)
        with pytest.raises(OverpaintError, match=r'pip install "overpaint\[classical\]"'):
            tiny()


def test_phases_see_what_the_paper_gives_them() -> None:
    model, (image, mask) = tiny().eval(), sample()
    inputs: list[Tensor] = []
    for generator in (model.edge_generator, model.inpaint_generator):
        generator.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    edges = (torch.rand_like(mask) < 0.2).float()
    with torch.no_grad():
        stages = model.run_stages(image, mask, edges)
        elsewhere = model.run_stages(image, mask, edges * (1 - mask) + mask * (1 - edges))
    hole = mask == 1
    assert torch.equal(elsewhere.output, stages.output)  # edges in the hole are not seen
    first, second = inputs[:2]
    known = to_grey(image)
    torch.testing.assert_close(first[:, :1], torch.where(hole, 1.0, known))
    assert torch.equal(first[:, 1:], torch.cat([edges * (1 - mask), mask], dim=1))
    assert torch.equal(second[:, :3], torch.where(hole, 1.0, image))
    assert torch.equal(second[:, 3:], torch.where(hole, stages.predicted, edges))
    assert torch.equal(second[:, 3:], stages.edges)
    assert torch.equal(stages.grey, known)
    assert torch.equal(stages.output, torch.where(hole, stages.fill, image))
    assert torch.equal(model(image, mask), model.run_stages(image, mask).output)


def test_a_loss_on_the_predicted_edges_trains_the_edge_generator_alone() -> None:
    model, (image, mask) = tiny(), sample()
    (model.run_stages(image, mask).predicted * mask).sum().backward()
    assert all(has_gradient(p.grad) for p in model.edge_generator.parameters())
    assert all(p.grad is None for p in model.inpaint_generator.parameters())


def test_spectral_norm_is_in_the_edge_generator_but_for_its_last_convolution() -> None:
    model, (image, mask) = tiny(), sample()
    for _ in range(30):  # power iterations
        model.train()(image, mask)
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    *normalised, last = [m for m in model.eval().edge_generator.modules() if isinstance(m, kinds)]
    assert len(normalised) == 7
    for conv in normalised:
        dim = 1 if isinstance(conv, nn.ConvTranspose2d) else 0
        matrix = conv.weight.transpose(0, dim).flatten(1)
        assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(1, abs=0.05)
    assert not hasattr(last, "parametrizations")
    assert not [key for key in model.inpaint_generator.state_dict() if "parametrizations" in key]


def test_attention_is_behind_each_convolution_of_the_downsampling_path() -> None:
    plain, model, (image, mask) = tiny(), tiny(rwsa=True).eval(), sample()
    blocks = [RWSA(4), RWSA(8), RWSA(16)]
    assert count(model) - count(plain) == sum(map(count, blocks))
    assert model.edge_generator.attention is None
    sizes: list[tuple[int, ...]] = []
    assert model.inpaint_generator.attention is not None
    for block in model.inpaint_generator.attention:
        block.register_forward_hook(lambda _, args, out: sizes.append(tuple(out.shape[1:])))
    with torch.no_grad():
        model(image, mask)
    assert sizes == [(4, 64, 64), (8, 32, 32), (16, 16, 16)]

    (model.train()(image, mask) - image).square().mean().backward()
    assert all(has_gradient(p.grad) for p in model.parameters())


@pytest.mark.parametrize(
    ("config", "message"),
    [({"width": 0}, "at least 1"), ({"num_blocks": 0}, "at least 1"), ({"sigma": 0}, "above 0")],
)
def test_an_impossible_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EdgeConnectConfig(**config)
