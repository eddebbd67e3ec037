"""IID-Net: the contract, the published names, a golden output, its filters and its attention."""

import statistics
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from helpers import reproducible
from helpers.detector_contract import DetectorContract, has_gradient
from overpaint.detectors.iidnet import (
    NEAR_KERNEL,
    GlobalLocalAttention,
    IIDNet,
    IIDNetConfig,
    constrain_kernels,
    find_most_similar,
    median_3x3,
    remap,
)
from overpaint.errors import ConfigError, WeightsError
from overpaint.registry import build_on_meta, detectors
from overpaint.weights.rename_keys import check_fits

TINY: dict[str, Any] = {"width": 4}

# Channels, and what stands at places 4, 7 and 10 of the published cells (the first: one earlier).
CELLS = (
    (64, 128, "01 03 00"),
    (128, 256, "02 00 00"),
    (256, 256, "03 02 00"),
    (256, 256, "01 00 01"),
    (256, 256, "00 02 00"),
    (256, 256, "00 01 00"),
    (256, 256, "02 03 02"),
    (256, 256, "03 03 00"),
    (256, 256, "02 02 00"),
    (256, 256, "00 01 03"),
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


Shapes = dict[str, tuple[int, ...]]


def norm(key: str, channels: int, affine: bool = True) -> Shapes:
    leaves = ("running_mean", "running_var", *(("weight", "bias") if affine else ()))
    return {f"{key}.{leaf}": (channels,) for leaf in leaves} | {f"{key}.num_batches_tracked": ()}


def separable(key: str, c_in: int, c_out: int) -> Shapes:
    weights = {
        f"{key}.conv1.weight": (c_in, 1, 3, 3),
        f"{key}.pointwise.weight": (c_out, c_in, 1, 1),
    }
    return weights | norm(f"{key}.bn", c_in)


def operation(key: str, kind: str, c: int) -> Shapes:
    if kind == "03":
        return {}
    if kind == "00":
        return separable(key, c, c)
    size = {"01": 3, "02": 5}[kind]
    weights = {f"{key}.op.1.weight": (c, 1, size, size), f"{key}.op.2.weight": (c, c, 1, 1)}
    return weights | norm(f"{key}.op.3", c, affine=False)


def official_shapes() -> Shapes:
    """Names and shapes of the published network."""
    shapes: Shapes = {
        "normal_conv.weight": (3, 3, 5, 5),
        "pf_conv.weight": (9, 3, 3, 3),
        "bayar_conv.weight": (3, 3, 5, 5),
        "conv1.weight": (32, 15, 3, 3),
        "conv2.weight": (64, 32, 3, 3),
        "att.local_att.weight": (256, 1, 5, 5),
        "median.weight": (1, 1, 5, 5),
        "decision.15.weight": (1, 256, 3, 3),
        "decision.15.bias": (1,),
    }
    shapes |= norm("bn1", 32) | norm("bn2", 64)
    for i, (c_in, c_out, genotype) in enumerate(CELLS):
        key, first = f"cell{i + 1}", 1 if i else 0
        shapes |= separable(f"{key}.rep.{first}", c_in, c_out)
        for k, kind in enumerate(genotype.split()):
            shapes |= operation(f"{key}.rep.{first + 3 * (k + 1)}", kind, c_out)
        for k in range(4):
            shapes |= norm(f"{key}.rep.{first + 3 * k + 1}", c_out)
        if c_in != c_out:
            shapes |= {f"{key}.skip.weight": (c_out, c_in, 1, 1)} | norm(f"{key}.skipbn", c_out)
    for place, c_in in ((1, 768), (4, 256), (8, 256), (11, 256)):
        shapes |= {f"decision.{place}.weight": (256, c_in, 3, 3), f"decision.{place}.bias": (256,)}
        shapes |= norm(f"decision.{place + 1}", 256)
    return {f"module.{key}": shape for key, shape in shapes.items()}


class TestIIDNet(DetectorContract):
    name, num_parameters, config = "iidnet", 5_781_142, TINY


@cache
def published() -> IIDNet:
    """The registered network without values; to be looked at only."""
    with build_on_meta():
        return detectors.create("iidnet", faithful=True)


def test_the_small_one_fits_into_3_megabytes_as_float16() -> None:
    with build_on_meta():
        small = detectors.create("iidnet", width=8)
    assert small.num_parameters == 388_654
    assert sum(value.numel() for value in small.state_dict().values()) * 2 < 3e6


class TestOfficialWeights:
    def test_every_value_but_the_unused_one_finds_its_place(self) -> None:
        official = detectors.get("iidnet").official
        assert official is not None
        assert official.config == {"faithful": True}
        state = {k: torch.empty(s, device="meta") for k, s in official_shapes().items()}
        new = official.remap(state)
        check_fits(published(), new)
        unused = state.pop("module.median.weight")
        assert unused.shape == (1, 1, 5, 5)
        assert {id(value) for value in new.values()} == {id(value) for value in state.values()}
        bare = official.remap({key.removeprefix("module."): v for key, v in state.items()})
        assert bare.keys() == new.keys()

    @pytest.mark.parametrize("key", ["cell11.skip.weight", "cell1.rep.4.gate", "conv3.weight"])
    def test_an_unknown_key_is_an_error(self, key: str) -> None:
        with pytest.raises(WeightsError, match=f"unknown keys: module.{key}"):
            remap(dict.fromkeys([*official_shapes(), f"module.{key}"], torch.empty(0)))

    def test_missing_and_surplus_keys_are_errors(self) -> None:
        state = dict.fromkeys(official_shapes(), torch.empty(0))
        del state["module.cell7.rep.10.op.3.running_var"]
        state["module.cell4.skip.weight"] = torch.empty(0)
        with pytest.raises(WeightsError) as error:
            check_fits(published(), remap(state))
        assert "lacks cells.6.layers.10.norm.running_var;" in str(error.value)
        assert "no cells.3.shortcut.0.weight;" in str(error.value)

    def test_the_output_is_that_of_the_published_code(self) -> None:
        golden = reproducible.golden("iidnet")
        state = reproducible.weights(official_shapes())
        state["module.bayar_conv.weight"] *= 1e-4  # of which 2 channels of 3 are scaled up
        constant = torch.tensor(NEAR_KERNEL).expand(256, 1, 5, 5)
        state["module.att.local_att.weight"] = constant.contiguous()
        assert reproducible.digest(state) == golden["sha256"]
        with build_on_meta():
            model = detectors.create("iidnet", faithful=True).eval()
        model.load_state_dict(remap(state), assign=True)
        with torch.no_grad():
            logits = model(reproducible.batch()[0])
        values = torch.tensor(reproducible.sampled(logits))
        torch.testing.assert_close(values, torch.tensor(golden["values"]), rtol=1e-4, atol=1e-4)


class TestEnhancement:
    def test_bayar_slices_sum_to_zero_around_a_centre_of_minus_one(self) -> None:
        weight = torch.rand(3, 3, 5, 5)
        kernels = constrain_kernels(weight)
        assert torch.equal(kernels[..., 2, 2], torch.full((3, 3), -1.0))
        torch.testing.assert_close(kernels.sum(dim=(2, 3)), torch.zeros(3, 3), rtol=0, atol=1e-5)
        scaled = kernels[1, 2, 0] / kernels[1, 2, 0, 0]  # each slice is a multiple of its taps
        torch.testing.assert_close(scaled, weight[1, 2, 0] / weight[1, 2, 0, 0])

    def test_faithful_bayar_constrains_the_first_output_alone(self) -> None:
        weight = torch.rand(3, 3, 5, 5)
        kernels = constrain_kernels(weight, faithful=True)
        assert torch.equal(kernels[0], constrain_kernels(weight)[0])
        expected = 10_000 * weight[1:]
        expected[..., 2, 2] = 0
        torch.testing.assert_close(kernels[1:], expected)

    def test_the_weights_stay_as_they_are_and_get_gradients_through_the_constraint(self) -> None:
        model = IIDNet(IIDNetConfig(**TINY)).enhancement
        before = model.bayar.weight.detach().clone()
        image = torch.rand(1, 3, 16, 16)
        first = model(image)
        assert torch.equal(first, model(image))
        assert torch.equal(model.bayar.weight, before)
        first[:, 3:6].square().mean().backward()
        assert has_gradient(model.bayar.weight.grad)
        assert not model.bayar.weight.grad[..., 2, 2].any()  # type: ignore[index]

    def test_channels_are_free_bayar_and_first_differences_of_the_sum_of_colours(self) -> None:
        model = IIDNet(IIDNetConfig(**TINY)).enhancement
        x = torch.randn(1, 3, 12, 12)
        with torch.no_grad():
            model.free.weight.zero_()
            out = model(x)[0]
        grey = x[0].sum(0)
        assert out.shape == (15, 12, 12)
        assert not out[:3].any()
        inner = grey[:-1, :-1]
        for i, difference in enumerate(
            (grey[1:, :-1] - inner, grey[:-1, 1:] - inner, grey[1:, 1:] - inner)
        ):
            for channel in (6 + i, 9 + i, 12 + i):
                torch.testing.assert_close(out[channel, :-1, :-1], difference)
        flat = model(torch.full((1, 3, 12, 12), 0.7))[0]
        assert flat[3:6, 2:-2, 2:-2].abs().max() < 1e-5  # a high-pass filter


def slow_attention(x: Tensor, faithful: bool) -> Tensor:
    """What the attention adds, (b, 2c, h, w): means of similar places, and of near ones."""
    b, c, h, w = x.shape
    n = h * w
    ranked: list[list[list[tuple[float, int]]]] = []  # by photo and place
    for photo in x.double():
        places = [photo[:, k // w, k % w] for k in range(n)]
        cosine = [[F.cosine_similarity(p, q, dim=0).item() for q in places] for p in places]
        ranked.append([sorted(((v, k) for k, v in enumerate(row)), reverse=True) for row in cosine])
    k = min(15, n)
    means = [[sum(row[t][0] for row in photo) / n for t in range(k)] for photo in ranked]
    if faithful:
        means = [[sum(photo[t] for photo in means) / b for t in range(k)]] * b
    out = torch.zeros(b, 2 * c, h, w)
    kernel = torch.tensor(NEAR_KERNEL)
    for i in range(b):
        count = max(2, max(t for t in range(k) if means[i][t] >= 0.5))
        for place, row in enumerate(ranked[i]):
            for _, other in row[:count]:
                out[i, :c, place // w, place % w] += x[i, :, other // w, other % w] / count
        padded = F.pad(x[i], (2, 2, 2, 2))
        for y in range(h):
            for z in range(w):
                out[i, c:, y, z] = (padded[:, y : y + 5, z : z + 5] * kernel).sum(dim=(1, 2))
    return out


class TestAttention:
    @pytest.mark.parametrize("faithful", [False, True])
    def test_it_is_that_of_a_slow_reference(self, faithful: bool) -> None:
        layer = GlobalLocalAttention(3, faithful)
        alike = 0.4 + 0.3 * torch.randn(1, 3, 4, 5)  # all places are
        unlike = torch.randn(1, 3, 4, 5)  # few places are
        x = torch.cat([alike, unlike])
        out = layer(x)
        assert torch.equal(out[:, :3], x)
        torch.testing.assert_close(out[:, 3:], slow_attention(x, faithful), rtol=1e-5, atol=1e-5)

    def test_the_number_of_similar_places_is_that_of_the_paper_for_each_photo(self) -> None:
        cosine = torch.ones(3, 7, 15)
        cosine[1, :, 6:] = 0.4
        cosine[2, :, 1:] = 0.4
        sound, faithful = GlobalLocalAttention(3, False), GlobalLocalAttention(3, True)
        assert sound._count_similar(cosine).flatten().tolist() == [14, 5, 2]
        assert faithful._count_similar(cosine).flatten().tolist() == [14]  # 0.6 at the last rank
        assert sound._count_similar(cosine[..., :1]).flatten().tolist() == [1, 1, 1]

    def test_parts_of_the_matrix_make_the_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x = torch.randn(2, 23, 4)
        whole = find_most_similar(x, 5)
        monkeypatch.setattr("overpaint.detectors.iidnet.ROWS", 6)
        parts = find_most_similar(x, 5)
        assert torch.equal(parts[1], whole[1])
        torch.testing.assert_close(parts[0], whole[0])
        assert find_most_similar(x[:, :3], 5)[1].shape == (2, 3, 3)
        assert whole[1][..., 0].tolist() == [list(range(23))] * 2


def test_median_is_that_of_the_nine_pixels() -> None:
    x = torch.randn(2, 1, 6, 5)
    out = median_3x3(x)
    assert out.shape == (2, 1, 4, 3)
    for i in range(2):
        for y in range(4):
            for z in range(3):
                window = x[i, 0, y : y + 3, z : z + 3].flatten().tolist()
                assert out[i, 0, y, z].item() == pytest.approx(statistics.median(window))


def test_the_variants_see_colours_in_another_order_and_from_minus_one() -> None:
    image = torch.rand(1, 3, 16, 16)
    for faithful, order in ((False, [0, 1, 2]), (True, [2, 1, 0])):
        model = IIDNet(IIDNetConfig(**TINY, faithful=faithful)).eval()
        seen: list[Tensor] = []
        keep = seen.append
        model.enhancement.register_forward_pre_hook(lambda _, args, keep=keep: keep(args[0]))
        with torch.no_grad():
            assert model(image).shape == (1, 1, 16, 16)
        torch.testing.assert_close(seen[0], (image[:, order] - 0.5) / 0.5)


def test_an_impossible_configuration_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        IIDNetConfig(width=0)
