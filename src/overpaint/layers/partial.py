"""Partial convolution: a convolution over valid pixels only.

Source: Liu et al. 2018, "Image Inpainting for Irregular Holes Using Partial Convolutions" (arXiv
1804.07723), eq. 1 and 2. With W the kernel, X the window's pixels and M its validity,

    x' = W^T (X * M) * k^2 / sum(M) + b   and  m' = 1   where sum(M) > 0,
    x' = 0                                and  m' = 0   elsewhere.

The validity has one channel for all, or one for each input channel, because concatenated features
may be valid at different positions. The new validity always has one channel. Zero padding counts as
invalid, so borders are renormalised as holes are. k^2 / sum(M) is computed as one over the window's
mean of M. Written from the equations, no code taken.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PartialConv2d(nn.Module):
    """k x k partial convolution: ((b, c, h, w), (b, 1 or c, h, w)) -> the pair, convolved.

    The new validity is (b, 1, h', w').
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve x where `valid` is 1 (float, 1 = valid pixel, 0 = hole)."""
        share = valid.mean(dim=1, keepdim=True)
        share = F.avg_pool2d(share, self.kernel_size, self.stride, self.padding)
        seen = share > 0
        out = self.conv(x * valid) / torch.where(seen, share, 1.0)
        if self.bias is not None:
            out = out + self.bias.reshape(1, -1, 1, 1)
        return torch.where(seen, out, 0.0), seen.to(valid.dtype)


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean of x (b, c, h, w) over positions where `valid` (b, 1, h, w) is 1; 0 if there is none.

    -> (b, c)
    """
    return (x * valid).sum(dim=(2, 3)) / valid.sum(dim=(2, 3)).clamp(min=1)
