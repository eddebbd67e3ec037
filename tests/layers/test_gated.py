"""Gated convolution: its equation, its start, and that gates learn."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from helpers.inpainter_contract import has_gradient
from overpaint.layers.gated import GatedConv2d


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def slow(block: GatedConv2d, x: Tensor, stride: int, dilation: int, relu: bool) -> Tensor:
    """One value after the other; 3x3 kernels, padding equal at all sides."""
    weight, bias = block.conv.weight, block.conv.bias
    assert bias is not None
    num_out = len(bias) // 2
    height, width = x.shape[2:]
    out = torch.zeros(num_out, -(-height // stride), -(-width // stride))
    for c, i, j in product(*map(range, out.shape)):
        feature, gate = float(bias[c]), float(bias[num_out + c])
        for u, v in product(range(3), range(3)):
            row, column = i * stride + (u - 1) * dilation, j * stride + (v - 1) * dilation
            if 0 <= row < height and 0 <= column < width:
                feature += float(weight[c, :, u, v] @ x[0, :, row, column])
                gate += float(weight[num_out + c, :, u, v] @ x[0, :, row, column])
        negative = 0.0 if relu else math.exp(min(feature, 0)) - 1
        out[c, i, j] = (feature if feature > 0 else negative) / (1 + math.exp(-gate))
    return out[None]


@pytest.mark.parametrize(
    ("stride", "dilation", "relu"), [(1, 1, True), (2, 1, False), (1, 2, False)]
)
def test_output_is_that_of_the_equation(stride: int, dilation: int, relu: bool) -> None:
    activation = nn.ReLU if relu else nn.ELU
    block = GatedConv2d(3, 2, 3, stride, dilation, activation=activation)
    nn.init.normal_(block.conv.weight, std=0.3)
    nn.init.normal_(block.conv.bias)  # type: ignore[arg-type]
    x = torch.randn(1, 3, 4, 5)
    with torch.no_grad():
        expected = slow(block, x, stride, dilation, relu)
        torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-5)


def test_gates_start_half_open_and_learn() -> None:
    block, x = GatedConv2d(4, 3), torch.randn(2, 4, 8, 8)
    features = block.activation(block.conv(x)[:, :3])
    torch.testing.assert_close(block(x), features / 2)
    block(x).square().sum().backward()
    assert has_gradient(block.conv.weight.grad[3:])  # type: ignore[index]
    assert has_gradient(block.conv.bias.grad[3:])  # type: ignore[index, union-attr]


def test_the_signal_survives_seventeen_layers() -> None:
    x = torch.randn(1, 32, 16, 16)
    with torch.no_grad():
        for _ in range(17):
            x = GatedConv2d(32, 32)(x)
    assert 0.1 < x.std() < 10


def test_tensorflows_padding_is_passed_on() -> None:
    block = GatedConv2d(1, 1, stride=2, same=True)
    assert block.conv.padding == (0, 0)
    assert block(torch.zeros(1, 1, 6, 8)).shape == (1, 1, 3, 4)
