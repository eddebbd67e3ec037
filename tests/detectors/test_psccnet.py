"""PSCC-Net: the contract, the published names, a golden output, its correlations, both variants."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from helpers import reproducible
from helpers.detector_contract import DetectorContract, has_gradient
from overpaint.detectors.psccnet import PSCCNet, PSCCNetConfig, SpatioChannelCorrelation, remap
from overpaint.detectors.psccnet_hrnet import Exchange
from overpaint.errors import ConfigError, WeightsError
from overpaint.registry import build_on_meta, detectors
from overpaint.weights.rename_keys import check_fits

TINY: dict[str, Any] = {"stem": 4, "widths": (2, 4, 6, 8)}
WIDTHS = (18, 36, 72, 144)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


Shapes = dict[str, tuple[int, ...]]


def conv(key: str, c_in: int, c_out: int, size: int = 3, bias: bool = False) -> Shapes:
    return {f"{key}.weight": (c_out, c_in, size, size)} | (
        {f"{key}.bias": (c_out,)} if bias else {}
    )


def norm(key: str, channels: int) -> Shapes:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{key}.{leaf}": (channels,) for leaf in leaves} | {f"{key}.num_batches_tracked": ()}


def pair(key: str, c_in: int, c_out: int, size: int = 3, bias: bool = False) -> Shapes:
    return conv(f"{key}.0", c_in, c_out, size, bias) | norm(f"{key}.1", c_out)


def bottleneck(key: str, c_in: int, inner: int, c_out: int) -> Shapes:
    shapes = pair(f"{key}.downsample", c_in, c_out, 1) if c_in != c_out else {}
    for i, (a, b, size) in enumerate(((c_in, inner, 1), (inner, inner, 3), (inner, c_out, 1))):
        shapes |= conv(f"{key}.conv{i + 1}", a, b, size) | norm(f"{key}.bn{i + 1}", b)
    return shapes


def stage(key: str, widths: tuple[int, ...]) -> Shapes:
    shapes: Shapes = {}
    for i, c in enumerate(widths):
        for k in (f"{key}.branches.{i}.{block}" for block in (0, 1)):
            shapes |= conv(f"{k}.conv1", c, c) | norm(f"{k}.bn1", c)
            shapes |= conv(f"{k}.conv2", c, c) | norm(f"{k}.bn2", c)
        for j, source in enumerate(widths):
            fuse = f"{key}.fuse_layers.{i}.{j}"
            if j > i:
                shapes |= pair(fuse, source, c, 1)
            for step in range(i - j):
                shapes |= pair(f"{fuse}.{step}", source, c if step == i - j - 1 else source)
    return shapes


def official_shapes() -> Shapes:
    """Names and shapes of the three published files, each under its file's name."""
    backbone = conv("conv1", 3, 64) | norm("bn1", 64) | conv("conv2", 64, 64) | norm("bn2", 64)
    backbone |= bottleneck("layer1.0", 64, 64, 256) | bottleneck("layer1.1", 256, 64, 256)
    backbone |= pair("transition1.0", 256, 18) | pair("transition1.1.0", 256, 36)
    backbone |= pair("transition2.2.0", 36, 72) | pair("transition3.3.0", 72, 144)
    for n in (2, 3, 4):
        backbone |= stage(f"stage{n}.0", WIDTHS[:n])
    masks: Shapes = {}
    head: Shapes = pair("final_layer", 288, 128, 1, bias=True)
    for i, (c, inner) in enumerate(zip(WIDTHS, (288, 144, 288, 144), strict=True)):
        key = f"getmask{i + 1}"
        masks |= {f"{key}.gamma_s": (1,), f"{key}.gamma_c": (1,)}
        for part in ("g", "theta", "phi"):
            masks |= conv(f"{key}.{part}", inner, inner, 1, bias=True)
        for part in ("W_s", "W_c"):
            masks |= conv(f"{key}.{part}", c, c, 1, bias=True)
        masks |= conv(f"{key}.getmask.0", c, 16, bias=True)
        masks |= conv(f"{key}.getmask.2", 16, 1, bias=True)
        head |= bottleneck(f"incre_modules.{i}.0", c, c, 2 * c)
        if i < 3:
            head |= pair(f"downsamp_modules.{i}", 2 * c, 4 * c, bias=True)
    head |= {"classifier.0.weight": (16, 128), "classifier.0.bias": (16,)}
    head |= {"classifier.2.weight": (2, 16), "classifier.2.bias": (2,)}
    files = {"HRNet": backbone, "NLCDetection": masks, "DetectionHead": head}
    return {f"{f}.module.{key}": shape for f, keys in files.items() for key, shape in keys.items()}


class TestPSCCNet(DetectorContract):
    name, num_parameters, config = "psccnet", 3_667_942, TINY

    def test_every_parameter_gets_a_finite_nonzero_gradient(self) -> None:
        model = self.make().train()  # the image head only learns from the score
        found = model.examine(torch.rand(2, 3, 64, 64))
        assert found.score is not None
        (found.logits.square().mean() + found.score.square().mean()).backward()
        wrong = [name for name, p in model.named_parameters() if not has_gradient(p.grad)]
        assert not wrong


@cache
def published() -> PSCCNet:
    """The registered network without values; to be looked at only."""
    with build_on_meta():
        return detectors.create("psccnet", faithful=True)


def test_sizes_are_those_of_the_published_heads() -> None:
    model = published()
    parts = (model.backbone, model.correlations, model.image_head)
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert counts == [2_028_572, 719_824, 919_546]
    with build_on_meta():
        small = detectors.create("psccnet", stem=16, widths=(8, 16, 32, 64))
    assert small.num_parameters == 714_446
    assert sum(value.numel() for value in small.state_dict().values()) * 2 < 3e6


class TestOfficialWeights:
    def test_every_value_of_the_three_files_finds_its_place(self) -> None:
        official = detectors.get("psccnet").official
        assert official is not None
        assert official.config == {"faithful": True}
        assert official.files == ("HRNet.pth", "NLCDetection.pth", "DetectionHead.pth")
        state = {k: torch.empty(s, device="meta") for k, s in official_shapes().items()}
        new = official.remap(state)
        check_fits(published(), new)
        assert {id(value) for value in new.values()} == {id(value) for value in state.values()}
        bare = official.remap({key.replace(".module.", "."): v for key, v in state.items()})
        assert bare.keys() == new.keys()

    @pytest.mark.parametrize(
        "key",
        [
            "HRNet.module.last_layer.0.weight",
            "NLCDetection.module.getmask5.gamma_s",
            "DetectionHead.module.getmask1.gamma_s",
            "module.conv1.weight",
        ],
    )
    def test_an_unknown_key_is_an_error(self, key: str) -> None:
        with pytest.raises(WeightsError, match=f"unknown keys: {key}"):
            remap(dict.fromkeys([*official_shapes(), key], torch.empty(0)))

    def test_missing_and_surplus_keys_are_errors(self) -> None:
        state = dict.fromkeys(official_shapes(), torch.empty(0))
        del state["NLCDetection.module.getmask4.W_c.bias"]
        state["HRNet.module.stage2.0.fuse_layers.0.2.0.weight"] = torch.empty(0)
        with pytest.raises(WeightsError) as error:
            check_fits(published(), remap(state))
        assert "lacks correlations.3.from_channels.bias;" in str(error.value)
        assert "no backbone.stages.0.fusions.0.2.0.weight;" in str(error.value)

    @pytest.mark.slow
    def test_masks_and_score_are_those_of_the_published_code(self) -> None:
        golden = reproducible.golden("psccnet")
        state = reproducible.weights(official_shapes())
        state = {key: v * 1e-3 if ".theta." in key else v for key, v in state.items()}
        assert reproducible.digest(state) == golden["sha256"]
        with build_on_meta():
            model = detectors.create("psccnet", faithful=True).eval()
        model.load_state_dict(remap(state), assign=True)
        image = reproducible.batch()[0]
        with torch.no_grad():
            stages, logits = model.run_stages(image), model(image)
        outputs = zip([*stages.masks, logits], [*golden["masks"], golden["values"]], strict=True)
        for x, expected in outputs:
            values = torch.tensor(reproducible.sampled(torch.sigmoid(x)))
            torch.testing.assert_close(values, torch.tensor(expected), rtol=1e-4, atol=1e-6)
        assert stages.score.item() == pytest.approx(golden["score"], rel=1e-4)


def slow_correlation(layer: SpatioChannelCorrelation, x: Tensor, index: Tensor) -> Tensor:
    """The mask's logits of one map (1, c, h, w); index: its shape, where each pixel goes to.

    index: (inner, n) positions in x, flat, which one column of the correlation gathers.
    """
    c = x.shape[1]
    small = x.flatten()[index]  # (inner, n)
    value, query, key = (
        part.weight[:, :, 0, 0] @ small + part.bias[:, None]  # type: ignore[index]
        for part in (layer.value, layer.query, layer.key)
    )
    inner, n = small.shape
    from_places = torch.zeros(inner, n)
    for i in range(n):
        weights = torch.softmax(torch.stack([query[:, i] @ key[:, j] for j in range(n)]), 0)
        for j in range(n):
            from_places[:, i] += weights[j] * value[:, j]
    from_channels = torch.zeros(inner, n)
    for a in range(inner):
        weights = torch.softmax(torch.stack([query[a] @ key[b] for b in range(inner)]), 0)
        for b in range(inner):
            from_channels[b] += weights[b] * value[a]
    if layer.faithful:  # read in the order of (n, inner)
        from_channels = from_channels.T.reshape(inner, n)
    z = x.clone()
    for summand, out, weight in (
        (from_places, layer.from_places, layer.weight_places),
        (from_channels, layer.from_channels, layer.weight_channels),
    ):
        spread = torch.zeros(x.numel())
        spread[index.flatten()] = summand.flatten()
        mixed = out.weight[:, :, 0, 0] @ spread.reshape(c, -1) + out.bias[:, None]  # type: ignore[index]
        z = z + weight * mixed.reshape(x.shape)
    return layer.mask(z)


@pytest.mark.parametrize("faithful", [False, True])
@pytest.mark.parametrize("reduction", [1, 2])
def test_correlation_is_that_of_a_slow_reference(reduction: int, faithful: bool) -> None:
    layer = SpatioChannelCorrelation(3, reduction, faithful)
    torch.nn.init.normal_(layer.weight_places)
    torch.nn.init.normal_(layer.weight_channels)
    x = torch.randn(1, 3, 4, 6)
    at = torch.arange(x.numel()).reshape(3, 4, 6)
    r = reduction
    index = at.reshape(3 * r * r, -1)
    if not faithful:  # each square of r x r pixels becomes channels
        squares = [
            at[k, i::r, j::r].flatten() for k in range(3) for i in range(r) for j in range(r)
        ]
        index = torch.stack(squares)
    with torch.no_grad():
        expected = slow_correlation(layer, x, index)
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_exchange_sums_all_maps_at_each_size() -> None:
    block = Exchange((2, 3, 4)).eval()
    maps = [torch.randn(1, c, 16 >> i, 24 >> i) for i, c in enumerate((2, 3, 4))]
    with torch.no_grad():
        own = [branch(x) for branch, x in zip(block.branches, maps, strict=True)]
        out = block(maps)
        from_fine, _, from_coarse = block.fusions[1]  # type: ignore[misc]
        up = F.interpolate(from_coarse(own[2]), (8, 12), mode="bilinear", align_corners=True)
        middle = F.relu(from_fine(own[0]) + own[1] + up)
    torch.testing.assert_close(out[1], middle, rtol=0, atol=1e-6)
    assert [x.shape for x in out] == [x.shape for x in maps]


def test_a_coarser_mask_weighs_the_next_finer_map() -> None:
    model = PSCCNet(PSCCNetConfig(**TINY)).eval()
    image, seen = torch.rand(1, 3, 32, 32), []
    for layer in model.correlations:
        layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        torch.nn.init.constant_(model.correlations[3].mask[2].bias, -200)  # type: ignore[index]
        model.run_stages(image)
    assert [x.shape[-1] for x in seen] == [4, 8, 16, 32]
    assert seen[0].any()
    assert not seen[1].any()  # nothing is left where the coarsest mask is 0
    assert seen[2].any()


@pytest.mark.parametrize("faithful", [False, True])
def test_masks_are_at_four_sizes_and_the_heads_see_256_pixels_if_faithful(faithful: bool) -> None:
    model = PSCCNet(PSCCNetConfig(**TINY, faithful=faithful)).eval()
    with torch.no_grad():
        stages = model.run_stages(torch.rand(2, 3, 16, 24))
        found = model.examine(torch.rand(2, 3, 13, 21))
    sizes = [tuple(mask.shape[-2:]) for mask in stages.masks]
    if faithful:
        assert sizes == [(256, 256), (128, 128), (64, 64), (32, 32)]
    else:
        assert sizes == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert found.logits.shape == (2, 1, 13, 21)
    assert found.score is not None
    assert found.score.shape == stages.score.shape == (2,)


def test_an_impossible_configuration_is_refused() -> None:
    bad: tuple[dict[str, Any], ...]
    bad = {"widths": (1, 2, 3)}, {"widths": (1, 2, 0, 3)}, {"stem": 0}
    for config in bad:
        with pytest.raises(ConfigError, match="four positive numbers"):
            PSCCNetConfig(**config)
    assert detectors.create("psccnet", stem=4, widths=[2, 4, 6, 8]).config == PSCCNetConfig(**TINY)
