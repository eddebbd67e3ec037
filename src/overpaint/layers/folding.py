"""A convolution and its batch norm in one step, where nothing is trained.

With running statistics a batch norm is a factor and a summand for each channel, and both fit into
the convolution before it. The map between the two, and that of several maps side by side, are the
largest tensors of a network; neither is made. The same up to rounding; textbook, no code taken.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def apply_conv_norm(conv: nn.Module, norm: nn.Module, first: Tensor, *others: Tensor) -> Tensor:
    """norm(conv(x)), x being maps (b, c_i, h, w) side by side, of any numbers of channels.

    The convolution has neither groups nor a bias and pads with zeros.
    """
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    if norm.training:
        return norm(conv(torch.cat([first, *others], dim=1) if others else first))
    weight, bias = fold_norm(conv.weight, norm)
    weights = weight.split([x.shape[1] for x in (first, *others)], dim=1)
    out = F.conv2d(first, weights[0], bias, conv.stride, conv.padding, conv.dilation)
    for x, w in zip(others, weights[1:], strict=True):
        out = out + F.conv2d(x, w, None, conv.stride, conv.padding, conv.dilation)
    return out


def fold_norm(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight (o, i, h, w) and bias (o,) of the convolution that is the given one, then the norm."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
