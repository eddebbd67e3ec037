"""StyleGAN2's layers against slow references and values derived by hand."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from overpaint.layers.modulated import (
    Mapping,
    ModulatedConv2d,
    ScaledConv2d,
    ScaledLinear,
    StyledConv,
    ToRGB,
    append_minibatch_deviation,
    apply_leaky_relu,
    smooth,
    upsample,
)

BINOMIAL = (1, 3, 3, 1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def filtered(x: Tensor, before: int, after: int) -> Tensor:
    """The filter over x (b, c, h, w) with that many zeros around, tap by tap."""
    x = F.pad(x, (before, after, before, after))
    height, width = x.shape[2] - 3, x.shape[3] - 3
    out = torch.zeros(*x.shape[:2], height, width)
    for i, vertical in enumerate(BINOMIAL):
        for j, horizontal in enumerate(BINOMIAL):
            out += vertical * horizontal / 64 * x[..., i : i + height, j : j + width]
    return out


def with_zeros_between(x: Tensor) -> Tensor:
    out = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    out[..., ::2, ::2] = x
    return out


class TestResampling:
    @pytest.mark.parametrize(("padding", "stride"), [(1, 2), (2, 1), (1, 1)])
    def test_smoothing_is_the_filter_tap_by_tap(self, padding: int, stride: int) -> None:
        x = torch.randn(2, 3, 6, 8)
        expected = 4 * filtered(x, padding, padding)[..., ::stride, ::stride]
        torch.testing.assert_close(smooth(x, padding, stride, gain=4), expected)

    def test_upsampling_filters_pixels_with_zeros_between(self) -> None:
        x = torch.randn(2, 3, 5, 7)
        torch.testing.assert_close(upsample(x), 4 * filtered(with_zeros_between(x), 2, 1))

    def test_a_constant_stays_itself_away_from_the_border(self) -> None:
        x = torch.full((1, 1, 6, 6), 3.0)
        torch.testing.assert_close(upsample(x)[..., 1:-1, 1:-1], torch.full((1, 1, 10, 10), 3.0))
        torch.testing.assert_close(smooth(x, 1)[..., 1:-1, 1:-1], torch.full((1, 1, 3, 3), 3.0))


class TestScaledWeights:
    def test_linear_scales_weight_and_bias_as_it_uses_them(self) -> None:
        layer, x = ScaledLinear(9, 4, rate=0.1, bias=2.0), torch.randn(3, 9)
        assert 5 < layer.weight.std() < 15  # 1 / rate
        expected = x @ layer.weight.T * 0.1 / 3 + 0.2
        torch.testing.assert_close(layer(x), expected)

    @pytest.mark.parametrize("kernel", [1, 3])
    def test_down_is_filter_and_convolution_at_every_second_place(self, kernel: int) -> None:
        layer, x = ScaledConv2d(4, 5, kernel, down=True), torch.randn(2, 4, 8, 6)
        assert layer.bias is not None
        torch.nn.init.normal_(layer.bias)
        weight = layer.weight / math.sqrt(4 * kernel**2)
        around = kernel // 2
        dense = F.conv2d(filtered(x, 1 + around, 1 + around), weight, layer.bias)
        expected = apply_leaky_relu(dense[..., ::2, ::2])
        assert expected.shape == (2, 5, 4, 3)
        torch.testing.assert_close(layer(x), expected)

    def test_what_is_too_large_is_clamped_but_for_linear_layers(self) -> None:
        x = torch.full((1, 1, 2, 2), 1e4)
        for linear, expected in ((False, [256.0, -256.0]), (True, [1e4, -1e4])):
            layer = ScaledConv2d(1, 2, 1, linear=linear)
            layer.weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
            assert layer(x)[0, :, 0, 0].tolist() == expected

    def test_leaky_keeps_the_size_of_normal_values(self) -> None:
        assert apply_leaky_relu(torch.tensor([2.0, -5.0])).tolist() == pytest.approx(
            [8**0.5, -(2**0.5)]
        )
        assert float(apply_leaky_relu(torch.randn(100_000)).square().mean()) == pytest.approx(
            1.04, abs=0.02
        )


def modulated_slowly(layer: ModulatedConv2d, x: Tensor, style: Tensor) -> Tensor:
    """Each sample by its own weights (eq. 1 and 3), on pixels with zeros between for `up`."""
    scales = style @ layer.affine.weight.T / math.sqrt(style.shape[1]) + layer.affine.bias
    out = []
    for picture, scale in zip(x, scales, strict=True):
        weight = layer.weight * scale[None, :, None, None]
        if layer.demodulate:
            weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        else:
            weight = weight / math.sqrt(weight[0].numel())
        if layer.up:  # a true convolution, so the kernel is mirrored; the filter's 2 + 1, and 1
            picture = 4 * filtered(with_zeros_between(picture[None]), 3, 2)
            out.append(F.conv2d(picture, weight.flip(2, 3)))
        else:
            out.append(F.conv2d(picture[None], weight, padding=layer.padding))
    return torch.cat(out)


class TestModulatedConv2d:
    @pytest.mark.parametrize(
        ("kernel", "up", "demodulate"),
        [(3, False, True), (3, True, True), (1, False, False), (3, False, False)],
    )
    def test_equals_a_convolution_by_each_samples_weights(
        self, kernel: int, up: bool, demodulate: bool
    ) -> None:
        layer = ModulatedConv2d(4, 5, kernel, 6, up=up, demodulate=demodulate)
        x, style = torch.randn(2, 4, 5, 7), torch.randn(2, 6)
        with torch.no_grad():
            expected = modulated_slowly(layer, x, style)
            torch.testing.assert_close(layer(x, style), expected, rtol=1e-5, atol=1e-5)
        assert expected.shape == ((2, 5, 10, 14) if up else (2, 5, 5, 7))

    def test_demodulated_outputs_have_unit_variance_whatever_the_style(self) -> None:
        layer, x = ModulatedConv2d(32, 64, 3, 6), torch.randn(1, 32, 40, 40)
        with torch.no_grad():
            small, large = (layer(x, style) for style in torch.randn(2, 1, 6) * 3)
        for out in (small, large):
            assert float(out[..., 1:-1, 1:-1].std()) == pytest.approx(1, abs=0.05)

    def test_a_picture_is_modulated_without_demodulation_and_gets_a_bias(self) -> None:
        layer, x, style = ToRGB(4, 6), torch.randn(2, 4, 3, 3), torch.randn(2, 6)
        layer.bias.data = torch.tensor([1.0, 2.0, 3.0])
        with torch.no_grad():
            expected = modulated_slowly(layer.conv, x, style) + layer.bias[:, None, None]
            torch.testing.assert_close(layer(x, style), expected)
            assert layer(1e6 * x, style).abs().max() == 256
            assert ToRGB(4, 6, clamped=False)(1e6 * x, style).abs().max() > 256


class TestNoise:
    def test_its_map_is_repeated_where_the_features_are_larger(self) -> None:
        layer = StyledConv(3, 4, 6, noise_side=4, clamped=False).eval()
        x, style = torch.randn(2, 3, 7, 9), torch.randn(2, 6)
        assert layer.noise_strength is not None
        layer.noise_map.normal_()
        layer.noise_strength.data.fill_(0.5)
        repeated = torch.stack(
            [torch.stack([layer.noise_map[i % 4, j % 4] for j in range(9)]) for i in range(7)]
        )
        with torch.no_grad():
            expected = apply_leaky_relu(modulated_slowly(layer, x, style) + 0.5 * repeated)
            torch.testing.assert_close(layer(x, style), expected, rtol=1e-5, atol=1e-5)

    def test_in_training_it_is_fresh_and_one_for_all_channels(self) -> None:
        layer = StyledConv(3, 4, 6, noise_side=4)
        x, style = torch.zeros(2, 3, 4, 4), torch.randn(2, 6)
        assert layer.noise_strength is not None
        layer.noise_strength.data.fill_(0.5)
        first, second = layer(x, style), layer(x, style)
        assert not torch.equal(first, second)
        assert torch.equal(first, first[:, :1].expand_as(first))
        assert not torch.equal(first[0], first[1])

    def test_without_it_there_is_nothing_to_learn_or_keep(self) -> None:
        assert not [name for name in StyledConv(3, 4, 6).state_dict() if "noise" in name]


class TestMinibatchDeviation:
    def test_is_the_mean_over_places_of_the_deviation_over_pictures(self) -> None:
        x = torch.zeros(4, 1, 1, 2)
        x[:, 0, 0, 0] = torch.tensor([0.0, 2.0, 0.0, 2.0])  # deviation 1
        x[:, 0, 0, 1] = torch.tensor([0.0, 0.0, 6.0, 6.0])  # deviation 3
        out = append_minibatch_deviation(x)
        assert out.shape == (4, 2, 1, 2)
        assert torch.equal(out[:, :1], x)
        torch.testing.assert_close(out[:, 1], torch.full((4, 1, 2), 2.0))

    def test_pictures_that_lie_two_apart_in_eight_share_a_group_of_four(self) -> None:
        x = torch.zeros(8, 1, 1, 1)
        x[2] = 4.0  # so that the groups are 0, 2, 4, 6 and 1, 3, 5, 7
        expected = [math.sqrt(3.0), 1e-4] * 4  # mean 1, squares 9, 1, 1, 1
        assert append_minibatch_deviation(x)[:, 1].flatten().tolist() == pytest.approx(expected)

    @pytest.mark.parametrize(("b", "size"), [(1, 1), (3, 3), (6, 2), (7, 1)])
    def test_any_batch_falls_into_equal_groups(self, b: int, size: int) -> None:
        x = torch.randn(b, 3, 2, 2)
        groups = [x[i :: b // size] for i in range(b // size)]
        for i, group in enumerate(groups):
            expected = (group.var(dim=0, correction=0) + 1e-8).sqrt().mean()
            torch.testing.assert_close(append_minibatch_deviation(x)[i, 3, 0, 0], expected)


class TestMapping:
    def test_the_length_of_a_latent_is_of_no_matter(self) -> None:
        mapping, latent = Mapping(8), torch.randn(3, 8)
        styles = mapping(latent)
        torch.testing.assert_close(mapping(5 * latent), styles)
        x = latent / latent.square().mean(dim=1, keepdim=True).sqrt()
        for layer in mapping.layers:
            x = apply_leaky_relu(x @ layer.weight.T * 0.01 / math.sqrt(8))  # type: ignore[operator]
        torch.testing.assert_close(styles, x)

    def test_the_average_follows_by_half_a_percent(self) -> None:
        mapping = Mapping(2)
        mapping.average.copy_(torch.tensor([1.0, 0.0]))
        mapping.follow(torch.tensor([[0.0, 2.0], [0.0, 4.0]]))
        assert mapping.average.tolist() == pytest.approx([0.995, 0.015])
