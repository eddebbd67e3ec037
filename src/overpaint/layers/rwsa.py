"""Region-wise separated attention (RWSA): separate layers for the hole and for the known region.

Source: SafePaint (ACM MM 2024), section 3.4, figure 4, eq. 5 and 6, and the fact sheet of the
authors' code (non-commercial; facts only, no code taken). It can follow any layer of any generator,
keeps the shape, and resizes the mask to the feature map.

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.ConvTranspose2d(256, 128, 4, stride=2, padding=1)
            self.attention = RWSA(128)

        def forward(self, x, mask):              # mask (b, 1, H, W), 1 = hole, any size
            return self.attention(self.up(x).relu(), mask)

Choices that the paper leaves open: the mask is pooled, rounded and blurred as in the authors' code;
the blur repeats the border, so that a hole at the border keeps its weight; the squeeze has at least
four channels, as in the paper's narrowest layer (with fewer, the ReLU may set all to 0 from the
start); convolutions before a batch norm have no bias. SafePaint has spectral norm "in the
generators" and does not mention RWSA: with `spectral_norm` its three convolutions have it. The
linear layers of the channel attentions never have it, because their sigmoid bounds them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

SOFTENING_SIZE, SOFTENING_SIGMA = 5, 1.0  # pixels of the feature map


class ChannelAttention(nn.Module):
    """Weights the channels by their global average and maximum (squeeze and excitation)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        squeezed = max(4, channels // reduction)
        self.weigh = nn.Sequential(
            nn.Linear(2 * channels, squeezed),
            nn.ReLU(inplace=True),
            nn.Linear(squeezed, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)  # (b, 2c)
        return x * self.weigh(pooled)[:, :, None, None]


class LearnableBlock(nn.Sequential):
    """LB: two CONV-BN-ELU blocks, c -> 2c -> c."""

    def __init__(self, channels: int, *, spectral_norm: bool = False) -> None:
        layers: list[nn.Module] = []
        for c_in, c_out in ((channels, 2 * channels), (2 * channels, channels)):
            conv = _normalise(nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), spectral_norm)
            layers += [conv, nn.BatchNorm2d(c_out), nn.ELU(inplace=True)]
        super().__init__(*layers)


class RWSA(nn.Module):
    """(b, channels, h, w) and mask (b, 1, H, W), 1 = hole -> (b, channels, h, w)."""

    kernel: Tensor

    def __init__(self, channels: int, reduction: int = 16, *, spectral_norm: bool = False) -> None:
        """spectral_norm: on the convolutions, for a generator that has it on its convolutions."""
        super().__init__()
        self.background = ChannelAttention(channels, reduction)  # G_b
        self.changing = ChannelAttention(channels, reduction)  # G_f1
        self.lasting = ChannelAttention(channels, reduction)  # G_f2
        self.adapt = LearnableBlock(channels, spectral_norm=spectral_norm)  # LB
        fuse = nn.Conv2d(2 * channels, channels, kernel_size=1)
        self.fuse = _normalise(fuse, spectral_norm)  # FFB
        self.register_buffer("kernel", make_softening_kernel(), persistent=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        m = self.soften(mask.float(), (x.shape[2], x.shape[3])).to(x.dtype)
        foreground = m * (self.adapt(self.changing(x)) + self.lasting(x))  # eq. 5
        background = (1 - m) * self.background(x)
        return self.fuse(torch.cat([foreground + background, x], dim=1))  # eq. 6

    def soften(self, mask: Tensor, size: tuple[int, int]) -> Tensor:
        """The mask at `size`: averaged, rounded to 0 or 1 (a half to 0), blurred; in [0, 1]."""
        small = F.adaptive_avg_pool2d(mask, size).round()
        reach = SOFTENING_SIZE // 2
        padded = F.pad(small, (reach,) * 4, mode="replicate")
        with torch.autocast(mask.device.type, enabled=False):
            return F.conv2d(padded, self.kernel.to(padded.dtype))


def _normalise(conv: nn.Conv2d, spectral_norm: bool) -> nn.Module:
    return parametrizations.spectral_norm(conv) if spectral_norm else conv


def make_softening_kernel() -> Tensor:
    """exp(-(d / (2 sigma))^2), normalised: (1, 1, 5, 5).

    As in the authors' code; the Gaussian's usual exponent is -(d / sigma)^2 / 2.
    """
    d = torch.arange(SOFTENING_SIZE) - SOFTENING_SIZE // 2
    line = torch.exp(-((d / (2 * SOFTENING_SIGMA)) ** 2))
    kernel = line[:, None] * line[None, :]
    return (kernel / kernel.sum())[None, None]
