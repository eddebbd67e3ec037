"""SN-PatchGAN: a discriminator of free-form holes with a score in every output value.

Source: Yu et al. 2019, "Free-Form Image Inpainting with Gated Convolution" (arXiv 1806.03589),
section 3.3, and a fact sheet of the authors' code (CC BY-NC 4.0; facts only, no code taken).
Spectral norm: Miyato et al. 2018 (arXiv 1802.05957).

Differences from the 70x70 PatchGAN of `overpaint.layers.patchgan`: six layers of stride 2, so that
a score depends on the whole picture; 256 scores at each position; the last layer has the same
activation as the others, as in the authors' code.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class SNPatchDiscriminator(nn.Module):
    """Picture and mask (b, in_channels, h, w) -> scores (b, 4 width, about h/64, about w/64).

    Made for the hinge loss; positive is real. 5.95 M parameters at width 64.
    """

    def __init__(self, in_channels: int = 4, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise([in_channels, *(width * n for n in (1, 2, 4, 4, 4, 4))]):
            conv = nn.Conv2d(c_in, c_out, 5, stride=2, padding=2)
            layers += [spectral_norm(conv), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
