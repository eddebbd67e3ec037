"""ManTra-Net: the contract, its fixed and constrained filters, its windows, published weights."""

import math
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from helpers import reproducible
from helpers.detector_contract import DetectorContract, has_gradient
from overpaint.detectors.mantranet import (
    AnomalyDetector,
    BayarConv2d,
    ConvLSTM,
    ManTraNet,
    ManTraNetConfig,
    TraceFeatures,
    hard_sigmoid,
    make_srm_kernels,
    pad_symmetric,
    remap,
)
from overpaint.errors import ConfigError, WeightsError
from overpaint.layers.windows import average_windows
from overpaint.registry import build_on_meta, detectors
from overpaint.weights.rename_keys import check_fits

TINY: dict[str, Any] = {"width": 2, "num_hidden": 4}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class TestManTraNet(DetectorContract):
    name, num_parameters = "mantranet", 3_804_950
    config: ClassVar[dict[str, Any]] = TINY


def official_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of `MantraNetv4.pt`."""
    channels = [16, 32, 64, 64, 128, 128, 128, *[256] * 6]
    shapes: dict[str, tuple[int, ...]] = {
        "IMTFE.init_conv.weight": (4, 3, 5, 5),
        "IMTFE.BayarConv2D.weight": (3, 3, 5, 5),
        "IMTFE.SRMConv2D.weight": (9, 3, 5, 5),
        "AnomalyDetector.sigma_F": (1, 64, 1, 1),
        "AnomalyDetector.adaptation.weight": (64, 256, 1, 1),
        "AnomalyDetector.conv_lstm.cell_list.0.conv.weight": (32, 72, 7, 7),
        "AnomalyDetector.conv_lstm.cell_list.0.conv.bias": (32,),
        "AnomalyDetector.end.0.weight": (1, 8, 7, 7),
        "AnomalyDetector.end.0.bias": (1,),
    }
    for i in range(12):
        name = f"IMTFE.middle_and_last_block.{2 * i}"
        shapes[f"{name}.weight"] = (channels[i + 1], channels[i], 3, 3)
        shapes[f"{name}.bias"] = (channels[i + 1],)
    return shapes


def published_srm() -> Tensor:
    """The nine kernels, written out."""
    kernels = torch.zeros(3, 5, 5)
    kernels[0, 1:4, 1:4] = torch.tensor([[-1.0, 2, -1], [2, -4, 2], [-1, 2, -1]]) / 4
    rows = [[-1.0, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2]]
    kernels[1] = torch.tensor([*rows, rows[1], rows[0]]) / 12
    kernels[2, 2] = torch.tensor([0.0, 1, -2, 1, 0]) / 2
    weight = torch.zeros(9, 3, 5, 5)
    for i in range(9):
        weight[i, i % 3] = kernels[i // 3]
    return weight


def official_state() -> dict[str, Tensor]:
    """Noise under the published names. A minimum near 1 acts on some channels, not on all."""
    state = reproducible.weights(official_shapes())
    state["IMTFE.SRMConv2D.weight"] = published_srm()
    state["AnomalyDetector.sigma_F"] = state["AnomalyDetector.sigma_F"] + 1
    return state


def golden_batch() -> Tensor:
    """Two photos, the second one with less contrast, so that batch statistics show."""
    image = reproducible.batch()[0]
    return torch.cat([image, 0.4 + 0.2 * image.mT])


class TestPublishedWeights:
    def test_every_published_key_finds_its_place(self) -> None:
        official, state = detectors.get("mantranet").official, official_state()
        assert official is not None
        with build_on_meta():
            model = detectors.create("mantranet", **official.config)
        for given in (
            state,
            {"model": state},
            {f"model.module.{key}": value for key, value in state.items()},
        ):
            out = official.remap(given)
            check_fits(model, out)
            assert {id(v) for v in out.values()} == {
                id(v) for key, v in state.items() if "SRM" not in key
            }
            name = "IMTFE.middle_and_last_block.14.bias"
            assert out["features.layers.14.bias"] is state[name]
            assert out["anomaly.min_std"] is state["AnomalyDetector.sigma_F"]

    def test_the_head_alone_has_the_same_names(self) -> None:
        head = {
            key.removeprefix("AnomalyDetector."): value
            for key, value in official_state().items()
            if key.startswith("AnomalyDetector.")
        }
        out = {key.removeprefix("anomaly."): value for key, value in remap(head).items()}
        with build_on_meta():
            check_fits(AnomalyDetector(ManTraNetConfig()), out)
            with pytest.raises(WeightsError, match=r"lacks features\.bayar\.weight"):
                check_fits(ManTraNet(), remap(head))

    def test_unknown_and_missing_keys_and_other_constants_are_errors(self) -> None:
        state = official_state()
        with pytest.raises(WeightsError, match=r"unknown keys: IMTFE\.conv\.weight"):
            remap({**state, "IMTFE.conv.weight": torch.zeros(1)})
        with pytest.raises(WeightsError, match="SRM kernels of the paper"):
            remap({**state, "IMTFE.SRMConv2D.weight": published_srm().flip(0)})
        del state["AnomalyDetector.end.0.bias"]
        renamed = remap(state)
        with build_on_meta(), pytest.raises(WeightsError, match=r"lacks anomaly\.predict\.b"):
            check_fits(ManTraNet(), renamed)

    def test_logits_are_those_of_the_published_code(self) -> None:
        golden, state = reproducible.golden("mantranet"), official_state()
        assert reproducible.digest(state) == golden["sha256"]
        values = {key: torch.tensor(value) for key, value in golden["values"].items()}
        num_alone = len(values["alone"])
        assert (values["batch"][:num_alone] - values["alone"]).abs().max() > 1e-2
        for faithful, expected in ((True, values["batch"]), (False, values["alone"])):
            with build_on_meta():
                model = detectors.create("mantranet", faithful=faithful)
            model.load_state_dict(remap(state), assign=True)
            model.features.srm = make_srm_kernels()
            image = golden_batch() if faithful else golden_batch()[:1]
            with torch.no_grad():
                logits = model.eval()(image)
            found = torch.tensor(reproducible.sampled(logits))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_small_one_fits_into_3_megabytes_as_float16() -> None:
    with build_on_meta():
        model = detectors.create("mantranet", width=8, num_hidden=4)
    assert model.num_parameters == 248_378
    assert sum(v.numel() for v in model.state_dict().values()) * 2 < 3e6


class TestFilters:
    def test_srm_kernels_see_one_colour_each(self) -> None:
        torch.testing.assert_close(make_srm_kernels(), published_srm())

    def test_each_kernel_of_bayar_predicts_the_centre_from_the_others(self) -> None:
        conv = BayarConv2d(3, 2)
        with torch.no_grad():
            conv.weight.normal_()
        kernels = conv.constrain()
        assert kernels[:, :, 2, 2].flatten().tolist() == [-1] * 6
        torch.testing.assert_close(kernels.sum(dim=(2, 3)), torch.zeros(2, 3), rtol=0, atol=1e-4)
        ratio = conv.weight[1, 2, 0, 0] / conv.weight[1, 2, 4, 3]  # kept by the division
        torch.testing.assert_close(kernels[1, 2, 0, 0] / kernels[1, 2, 4, 3], ratio)

    def test_the_constraint_changes_no_weight_and_stays_out_of_the_centre(self) -> None:
        conv = BayarConv2d(3, 2)
        before = conv.weight.detach().clone()
        conv(torch.rand(1, 3, 9, 9)).square().sum().backward()
        assert torch.equal(conv.weight, before)
        assert has_gradient(conv.weight.grad)
        assert not conv.weight.grad[:, :, 2, 2].any()  # type: ignore[index]

    @pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
    def test_srm_and_bayar_leave_nothing_of_a_flat_photo(self, level: float) -> None:
        features = TraceFeatures(1)
        seen: list[Tensor] = []
        features.layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        features(torch.full((1, 3, 6, 7), 2 * level - 1))
        assert seen[0].shape == (1, 16, 6, 7)
        assert seen[0][:, 4:].abs().max() < 1e-5

    def test_features_have_length_1(self) -> None:
        length = TraceFeatures(2)(torch.rand(1, 3, 8, 9)).norm(dim=1)
        torch.testing.assert_close(length, torch.ones(1, 8, 9))

    def test_without_padding_and_pooling_a_pixel_reaches_14_pixels(self) -> None:
        features, image = TraceFeatures(2), torch.rand(1, 3, 31, 31, requires_grad=True)
        features(image)[0, :, 15, 15].sum().backward()
        seen = image.grad[0].abs().sum(dim=0) > 0  # type: ignore[index]
        rows = seen.any(dim=1).nonzero().flatten()
        assert [rows[0], rows[-1]] == [1, 29]  # one 5x5 and twelve 3x3 convolutions


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ([1, 2, 3], [2, 1, 1, 2, 3, 3, 2]),
        ([1, 2], [2, 1, 1, 2, 2, 1]),
        ([7], [7] * 5),
    ],
)
def test_symmetric_padding_repeats_the_edge(line: list[int], expected: list[int]) -> None:
    x = torch.tensor(line).expand(1, 1, 2, -1)
    assert pad_symmetric(x, 2)[0, 0].tolist() == [expected] * 6
    assert pad_symmetric(x.mT, 2)[0, 0].mT.tolist() == [expected] * 6


def slow_window_mean(x: Tensor, side: int) -> Tensor:
    out, half = torch.empty_like(x), side // 2
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            rows = slice(max(i - half, 0), i + half + 1)
            window = x[:, :, rows, max(j - half, 0) : j + half + 1]
            out[:, :, i, j] = window.mean(dim=(2, 3))
    return out


class TestAnomalies:
    @pytest.mark.parametrize("side", [1, 3, 7, 31])
    def test_window_means_are_of_the_pixels_within(self, side: int) -> None:
        x = torch.randn(2, 3, 9, 12)
        expected = slow_window_mean(x, side)
        torch.testing.assert_close(average_windows(x, side), expected, rtol=0, atol=1e-5)

    def test_z_scores_against_a_slow_reference(self) -> None:
        head = AnomalyDetector(ManTraNetConfig(width=1, windows=(3, 5)))
        head.min_std.data = torch.tensor([0.01, 4.0]).reshape(1, 2, 1, 1)
        x = torch.randn(2, 2, 6, 8) + 3
        found = head.compute_z_scores(x)
        assert len(found) == 3
        for b, c in ((0, 0), (0, 1), (1, 0), (1, 1)):
            pixels = x[b, c].flatten().tolist()
            mean = sum(pixels) / len(pixels)
            std = math.sqrt(sum((v - mean) ** 2 for v in pixels) / len(pixels))
            std = max(std, (0.01, 4.0)[c] + 1e-6)
            means = [slow_window_mean(x, 3)[b, c], slow_window_mean(x, 5)[b, c], mean]
            for got, wanted in zip(found, means, strict=True):
                expected = (wanted - x[b, c]).abs() / std
                torch.testing.assert_close(got[b, c], expected, rtol=0, atol=1e-5)

    def test_a_flat_photo_has_finite_gradients(self) -> None:
        for faithful in (False, True):
            model = ManTraNet(ManTraNetConfig(**TINY, faithful=faithful))
            model(torch.full((1, 3, 9, 9), 0.5)).sum().backward()
            assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)

    def test_only_the_faithful_one_lets_a_photo_change_its_neighbours(self) -> None:
        image = torch.cat([torch.rand(1, 3, 24, 24), 0.5 + 0.01 * torch.rand(1, 3, 24, 24)])
        for faithful in (False, True):
            model = ManTraNet(ManTraNetConfig(**TINY, faithful=faithful)).eval()
            with torch.no_grad():
                model.anomaly.min_std.fill_(1)  # below the deviations, the scale cancels
                change = (model(image)[:1] - model(image[:1])).abs().max()
            assert bool(change > 1e-4) is faithful

    def test_the_minimal_deviation_learns_from_the_start_unless_faithful(self) -> None:
        for faithful in (False, True):
            model = ManTraNet(ManTraNetConfig(**TINY, faithful=faithful))
            model(torch.rand(1, 3, 24, 24)).sum().backward()
            assert has_gradient(model.anomaly.min_std.grad) is not faithful


class TestRecurrence:
    def test_the_hard_sigmoid_is_that_of_keras(self) -> None:
        x = torch.tensor([-9.0, -2.5, -1, 0, 1, 2.5, 9])
        torch.testing.assert_close(hard_sigmoid(x), torch.tensor([0, 0, 0.3, 0.5, 0.7, 1, 1]))

    def test_two_steps_of_one_pixel_worked_out(self) -> None:
        """Kernels that see the centre only turn the gates into plain numbers."""
        lstm = ConvLSTM(1, 1)
        w = torch.tensor([[0.5, 0.1], [-0.4, 0.2], [1.5, -0.3], [0.8, 0.6]])  # of x and hidden
        bias = [0.1, 0.2, -0.1, 0.3]
        with torch.no_grad():
            lstm.conv.weight.zero_()[:, :, 3, 3] = w
            lstm.conv.bias.copy_(torch.tensor(bias))  # type: ignore[union-attr]
            found = lstm([torch.full((1, 1, 1, 1), x) for x in (1.0, -2.0)]).item()
        hidden = cell = 0.0
        for x in (1.0, -2.0):
            i, f, c, o = (
                float(a) * x + float(b) * hidden + d for (a, b), d in zip(w, bias, strict=True)
            )
            i, f, o = (min(max(0.2 * v + 0.5, 0), 1) for v in (i, f, o))
            cell = f * cell + i * math.tanh(c)
            hidden = o * math.tanh(cell)
        assert found == pytest.approx(hidden, abs=1e-6)

    def test_the_windows_are_read_in_order_and_the_whole_photo_last(self) -> None:
        head, seen = AnomalyDetector(ManTraNetConfig(width=1)), []
        head.lstm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        features = F.normalize(torch.randn(1, 8, 40, 40), dim=1)
        head(features)
        x = head.reduce(features)
        x = (x - x.mean(dim=(2, 3), keepdim=True)) / (
            x.var(dim=(2, 3), correction=0, keepdim=True) + 1e-3
        ).sqrt()
        for found, side in zip(seen[0], (7, 15, 31, 81), strict=True):  # 81 holds all
            expected = (slow_window_mean(x, side) - x).abs() / (1 + 1e-6)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"width": 0}, "at least 1"),
        ({"num_hidden": 0}, "at least 1"),
        ({"windows": (7, 8)}, "must be odd"),
    ],
)
def test_an_impossible_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ManTraNetConfig(**config)


def test_windows_from_json_make_the_same_configuration() -> None:
    assert ManTraNetConfig(windows=[3, 5]) == ManTraNetConfig(windows=(3, 5))  # type: ignore[arg-type]
