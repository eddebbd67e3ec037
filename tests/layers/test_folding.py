"""A convolution with its batch norm in one step is the two, one after the other."""

import pytest
import torch
from torch import nn

from overpaint.layers.folding import apply_conv_norm


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (1, 1)])
def test_in_eval_mode_it_is_the_same(size: int, stride: int) -> None:
    conv = nn.Conv2d(5, 7, size, stride, padding=size // 2, bias=False)
    norm, x = nn.BatchNorm2d(7), torch.randn(2, 5, 12, 10)
    norm(3 + 2 * conv(x))  # statistics of its own
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm.eval()
    expected = norm(conv(x))
    for maps in ([x], [x[:, :2], x[:, 2:]]):
        torch.testing.assert_close(apply_conv_norm(conv, norm, *maps), expected, rtol=0, atol=1e-5)


def test_in_training_it_learns_the_statistics() -> None:
    conv, norm = nn.Conv2d(5, 7, 3, bias=False), nn.BatchNorm2d(7)
    x = torch.randn(2, 5, 12, 10)
    out = apply_conv_norm(conv, norm, x[:, :1], x[:, 1:])
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(7), rtol=0, atol=1e-5)
    assert norm.running_mean is not None
    torch.testing.assert_close(norm.running_mean, 0.1 * conv(x).mean((0, 2, 3)))


def test_gradients_reach_weight_and_norm_in_eval_mode() -> None:
    conv, norm = nn.Conv2d(3, 2, 1, bias=False), nn.BatchNorm2d(2).eval()
    apply_conv_norm(conv, norm, torch.ones(1, 3, 4, 4)).sum().backward()
    assert all(p.grad is not None for p in (conv.weight, norm.weight, norm.bias))
