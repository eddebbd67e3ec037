"""Gated convolution: a convolution with a learned weight for each output value.

Source: Yu et al. 2019, "Free-Form Image Inpainting with Gated Convolution" (arXiv 1806.03589),
section 3.1. With one kernel for the features and one for the gates,

    y = activation(W_f x) * sigmoid(W_g x).

- Both kernels are one convolution of 2 x out_channels, features first, as in the authors' code
  (CC BY-NC 4.0; facts only, no code taken).
- Gates start at sigmoid(0) = 1/2, their kernel at zero. Seventeen halvings would attenuate the
  signal to nearly 0, so the features' kernel starts at twice the deviation of He et al. 2015.
"""

import torch
from torch import Tensor, nn

from overpaint.layers.tensorflow import conv2d


class GatedConv2d(nn.Module):
    """(b, in_channels, h, w) -> (b, out_channels, ceil(h / stride), ceil(w / stride)).

    activation: of the features. same: TensorFlow's padding (`overpaint.layers.tensorflow`).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        *,
        activation: type[nn.Module] = nn.ELU,
        same: bool = False,
    ) -> None:
        super().__init__()
        self.conv = conv2d(in_channels, 2 * out_channels, kernel_size, stride, dilation, same=same)
        self.activation = activation()
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.conv.weight[:out_channels] *= 2
            self.conv.weight[out_channels:] = 0

    def forward(self, x: Tensor) -> Tensor:
        features, gates = self.conv(x).chunk(2, dim=1)
        return self.activation(features) * torch.sigmoid(gates)
