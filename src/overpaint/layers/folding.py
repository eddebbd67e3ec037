"""A convolution and the batch norm after it in one step, in eval mode.

With running statistics a batch norm multiplies each channel by a factor and adds a constant; both
are folded into the convolution. This avoids two of a network's largest tensors, the map between the
two and the concatenation of several input maps. The result is the same up to rounding. Textbook, no
code taken.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def apply_conv_norm(conv: nn.Module, norm: nn.Module, first: Tensor, *others: Tensor) -> Tensor:
    """norm(conv(x)), where x is the concatenation of maps (b, c_i, h, w) along the channels.

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
        out += F.conv2d(x, w, None, conv.stride, conv.padding, conv.dilation)
    return out


def fold_norm(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight (o, i, h, w) and bias (o,) of a convolution that equals the given one and the norm."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
