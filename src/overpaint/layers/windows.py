"""Means over square windows of a map. Textbook, no code taken."""

from torch import Tensor
from torch.nn import functional as F


def average_windows(x: Tensor, side: int) -> Tensor:
    """Mean of x (b, c, h, w) or (c, h, w) in a window around each place.

    side: of the window, odd. At the borders only the part of the window inside the map is averaged.
    Separable, first along the columns, then the rows: 2 * side operations, not side squared.
    """
    half = side // 2
    x = F.avg_pool2d(x, (side, 1), 1, (half, 0), count_include_pad=False)
    return F.avg_pool2d(x, (1, side), 1, (0, half), count_include_pad=False)
