"""Two conventions of TensorFlow 1, with which its checkpoints were trained.

- `SAME` padding: the output has ceil(n / stride) positions; an odd pixel of padding is added at the
  bottom and at the right. A 3x3 kernel of stride 2 on an even side thus pads one pixel at the
  bottom and none at the top.
- Nearest sampling with aligned corners: the first and the last pixel are always sampled.

Source: the documentation of `tf.nn.convolution` and `tf.compat.v1.image.resize_nearest_neighbor`;
no code taken.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's padding: (b, c, h, w) -> (b, c', ceil(h/s), ceil(w/s))."""

    def forward(self, input: Tensor) -> Tensor:
        padding: list[int] = []
        for axis in (1, 0):  # F.pad takes the last side first
            side, stride = input.shape[2 + axis], self.stride[axis]
            reach = (self.kernel_size[axis] - 1) * self.dilation[axis] + 1
            total = max((-(-side // stride) - 1) * stride + reach - side, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(F.pad(input, padding))


def conv2d(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    stride: int = 1,
    dilation: int = 1,
    *,
    same: bool = False,
) -> nn.Conv2d:
    """A convolution that keeps the size, or divides it by `stride`; odd kernels.

    same: TensorFlow's padding instead of an equal one on all sides; at stride 1 they are equal.
    """
    if same:
        return SameConv2d(in_channels, out_channels, kernel_size, stride, dilation=dilation)
    padding = dilation * (kernel_size // 2)
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation)


def sample_nearest(x: Tensor, size: tuple[int, int], aligned: bool = False) -> Tensor:
    """x (b, c, h, w), sampled without interpolation to (b, c, *size); size <= (h, w).

    aligned: from the first pixel to the last, as TensorFlow with `align_corners`; otherwise from
    the first in equal steps, as PyTorch's `nearest`.
    """
    rows, columns = (_choose_indices(n, m, aligned) for n, m in zip(x.shape[2:], size, strict=True))
    return x[:, :, rows.to(x.device)[:, None], columns.to(x.device)]


def _choose_indices(n: int, m: int, aligned: bool) -> Tensor:
    """Positions of m samples among n pixels. In integers, so that halves always round up."""
    i = torch.arange(m)
    if not aligned or m == 1:
        return i * n // m
    return (2 * i * (n - 1) + (m - 1)) // (2 * (m - 1))
