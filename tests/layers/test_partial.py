"""Partial convolution against its definition, computed window by window."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from overpaint.layers.partial import PartialConv2d, masked_mean


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def reference(layer: PartialConv2d, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 1 and 2 of Liu et al. 2018, one window at a time."""
    k, stride, pad = layer.kernel_size, layer.stride, layer.padding
    x, valid = (nn.functional.pad(t, (pad,) * 4) for t in (x, valid))
    rows, columns = ((n - k) // stride + 1 for n in x.shape[-2:])
    weight = layer.conv.weight
    out = torch.zeros(len(x), len(weight), rows, columns)
    new = torch.zeros(len(x), 1, rows, columns)
    for b, i, j in itertools.product(range(len(x)), range(rows), range(columns)):
        window = (slice(i * stride, i * stride + k), slice(j * stride, j * stride + k))
        pixels, seen = x[b][:, *window], valid[b][:, *window]
        if seen.sum() > 0:
            out[b, :, i, j] = (weight * pixels * seen).sum(dim=(1, 2, 3)) * k * k / seen.sum()
            new[b, 0, i, j] = 1
            if layer.bias is not None:
                out[b, :, i, j] += layer.bias
    return out, new


@pytest.mark.parametrize(
    ("size", "stride", "padding", "bias"),
    [(3, 2, 0, True), (3, 1, 1, False), (5, 2, 2, True), (7, 2, 3, True)],
)
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_it_agrees_with_the_definition(
    size: int, stride: int, padding: int, bias: bool, share: float
) -> None:
    layer = PartialConv2d(3, 4, size, stride, padding, bias)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    x, valid = torch.randn(2, 3, 13, 16), (torch.rand(2, 1, 13, 16) < share).float()
    with torch.no_grad():
        out, new = layer(x, valid)
        expected, expected_new = reference(layer, x, valid)
    assert torch.equal(new, expected_new)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    assert size > 3 or share > 0.1 or 0 < new.mean() < 1  # empty windows were among them


def test_validity_of_each_channel_counts_values_and_not_places() -> None:
    """NVIDIA's published code with a mask of several channels: ones convolved with the mask."""
    layer, x = PartialConv2d(4, 3, 3, stride=2, padding=1, bias=False), torch.randn(2, 4, 9, 8)
    valid = (torch.rand(2, 4, 9, 8) < 0.06).float()
    with torch.no_grad():
        out, new = layer(x, valid)
        seen = nn.functional.conv2d(valid, torch.ones(1, 4, 3, 3), stride=2, padding=1)
        ratio = torch.where(seen > 0, 4 * 9 / (seen + 1e-8), 0.0)
        torch.testing.assert_close(out, layer.conv(x * valid) * ratio, rtol=1e-5, atol=1e-5)
    assert torch.equal(new, seen.clamp(0, 1))
    assert 0 < new.mean() < 1


def test_validity_for_all_channels_is_the_same_validity_for_each() -> None:
    layer, x = PartialConv2d(3, 4, 3, padding=1), torch.randn(1, 3, 8, 8)
    valid = (torch.rand(1, 1, 8, 8) < 0.3).float()
    with torch.no_grad():
        for one, each in zip(layer(x, valid), layer(x, valid.expand_as(x)), strict=True):
            torch.testing.assert_close(one, each, rtol=1e-6, atol=1e-6)


def test_without_a_hole_it_is_a_convolution() -> None:
    layer, x = PartialConv2d(3, 4, 3, 2), torch.randn(1, 3, 9, 9)
    with torch.no_grad():
        out, new = layer(x, torch.ones(1, 1, 9, 9))
        torch.testing.assert_close(out, layer.conv(x), rtol=0, atol=1e-6)
    assert new.all()


def test_pixels_in_the_hole_have_no_influence_and_no_gradient() -> None:
    layer, x = PartialConv2d(2, 3, 3, padding=1), torch.randn(1, 2, 8, 8, requires_grad=True)
    valid = torch.zeros(1, 1, 8, 8)
    valid[..., :4] = 1
    out, new = layer(x, valid)
    out.square().sum().backward()
    assert x.grad is not None
    assert x.grad[..., :4].all()
    assert not x.grad[..., 4:].any()
    assert new[..., :5].all()  # the hole shrinks by one pixel
    assert not new[..., 5:].any()
    assert not out[..., 5:].any()


def test_gradients_are_those_of_finite_differences() -> None:
    layer = PartialConv2d(2, 2, 3, stride=2).double()
    valid = (torch.rand(1, 1, 7, 7) < 0.4).double()
    x = torch.randn(1, 2, 7, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: layer(t, valid)[0], (x,))


def test_masked_mean_is_over_valid_places() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 100.0]]]])
    valid = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    assert masked_mean(x, valid).tolist() == [[2.0]]
    assert masked_mean(x, torch.zeros_like(valid)).tolist() == [[0.0]]
