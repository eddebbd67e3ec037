"""Means over square windows of a map. Textbook, no code taken."""

import torch
from torch import Tensor
from torch.nn import functional as F


def average_windows(x: Tensor, side: int) -> Tensor:
    """Mean of x (b, c, h, w) or (c, h, w) in a window around each place.

    side: of the window, odd. At the borders only the part of the window inside the map is averaged.
    Separable, first along the columns, then the rows: 2 * side operations, not side squared.
    """
    if x.ndim == 3:
        return average_windows(x.unsqueeze(0), side).squeeze(0)
    half, channels = side // 2, x.shape[1]
    # On the processor, and with channels last, a convolution of each channel takes a fourth of the
    # time of pooling; not that of a single one. An export needs kernels of a fixed shape, and CUDA
    # may round the input of a convolution to ten bits.
    if channels == 1 or x.device.type != "cpu" or torch.onnx.is_in_onnx_export():
        x = F.avg_pool2d(x, (side, 1), 1, (half, 0), count_include_pad=False)
        return F.avg_pool2d(x, (1, side), 1, (0, half), count_include_pad=False)
    column = torch.ones((channels, 1, side, 1), dtype=x.dtype, device=x.device)
    sums = F.conv2d(x, column, padding=(half, 0), groups=channels)
    sums = F.conv2d(sums, column.transpose(2, 3), padding=(0, half), groups=channels)
    rows, columns = (_count_inside(n, half, x) for n in x.shape[2:])
    return sums / (rows[:, None] * columns)


def _count_inside(length: int, half: int, like: Tensor) -> Tensor:
    """Number of places of a window inside the map, for each place along one axis."""
    place = torch.arange(length, device=like.device)
    return ((place + half).clamp(max=length - 1) - (place - half).clamp(min=0) + 1).to(like.dtype)
