"""70x70 PatchGAN discriminator with spectral norm.

Idea: Isola et al. 2017 (arXiv:1611.07004) for the patch discriminator, Miyato et al. 2018
(arXiv:1802.05957) for the normalisation. Layer widths and strides follow the fact sheet of the
networks that share it (EdgeConnect, CTSDG, SafePaint); written from those facts, no code taken.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class PatchDiscriminator(nn.Module):
    """Image (b, in_channels, h, w) -> logits (b, 1, about h/8, about w/8), one per 70x70 patch.

    No sigmoid inside: it belongs to the loss. 2.76 M parameters at width 64 with 3 channels.
    """

    def __init__(self, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        widths = [in_channels, width, 2 * width, 4 * width, 8 * width]
        strides = [2, 2, 2, 1]
        layers: list[nn.Module] = []
        for (c_in, c_out), stride in zip(pairwise(widths), strides, strict=True):
            conv = nn.Conv2d(c_in, c_out, 4, stride, padding=1, bias=False)
            layers += [spectral_norm(conv), nn.LeakyReLU(0.2, inplace=True)]
        layers.append(spectral_norm(nn.Conv2d(8 * width, 1, 4, 1, padding=1, bias=False)))
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)
