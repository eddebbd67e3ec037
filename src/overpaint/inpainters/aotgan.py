"""AOT-GAN: "Aggregated Contextual Transformations for High-Resolution Image Inpainting".

Zeng, Fu, Chao and Guo, IEEE TVCG 2022, arXiv:2104.01431. Original code and weights:
researchmm/AOT-GAN-for-Inpainting @2cd1afd, both Apache-2.0. Written from the paper and a fact sheet
of that code; no code taken. Licence of this file: Apache-2.0, as the project.

One stage: an encoder, blocks that combine four dilations and gate their changes, and a
decoder. The discriminator does not score the whole picture: it outputs a blurred mask of the hole.

Inside, photos are in [-1, 1] and the hole is white (+1); the mask, 1 in the hole, is the fourth
channel. Both networks convert from and to [0, 1] themselves.

Choices of this implementation, and differences from the paper or the authors' code:
- `rwsa` puts SafePaint's attention into the encoder (table 6 of SafePaint, ACM MM 2024: "the
  downsampling layer"), after each of its three convolutions, which mirrors its position in
  SafePaint itself;
- biases of the gates' convolutions are kept, as published, although the norm after them cancels
  them;
- sides that are no multiples of 4 are padded (the original refuses them);
- the labels of the discriminator are the paper's: 1 for real pixels, 1 - soft mask for the
  composed picture. The authors' code swaps them for the discriminator, not for the
  generator, so that both learn the same;
- the soft mask repeats the border, so that a hole there keeps its weight (theirs pads with 0).

Size at the paper's width, in parameters: generator 15.20 M (with RWSA 18.52 M), discriminator
2.76 M. At width 16: 0.95 M (with RWSA 1.16 M).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from overpaint.errors import ConfigError
from overpaint.inpainters.base import Inpainter, compose
from overpaint.layers.rwsa import RWSA
from overpaint.registry import Official, inpainters
from overpaint.weights.rename_keys import rename_keys

RATES = (1, 2, 4, 8)  # dilations of the transformations in a block


@dataclass(frozen=True, slots=True)
class AOTGANConfig:
    """Configuration of AOTGAN."""

    width: int = 64
    """Channels at full resolution; all others are multiples of it."""
    num_blocks: int = 8
    """AOT blocks."""
    rwsa: bool = False
    """Region-wise separated attention in the downsampling path."""

    def __post_init__(self) -> None:
        if min(self.width, self.num_blocks) < 1:
            raise ConfigError("aotgan: width and num_blocks must be at least 1")


class AOTBlock(nn.Module):
    """Aggregated contextual transformations: split, transform, merge; and a gated sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.transformations = nn.ModuleList(
            nn.Sequential(
                *_make_reflected(channels, channels // len(RATES), rate), nn.ReLU(inplace=True)
            )
            for rate in RATES
        )
        self.fuse = nn.Sequential(*_make_reflected(channels, channels))
        self.gate = nn.Sequential(*_make_reflected(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        contexts = torch.cat([transform(x) for transform in self.transformations], dim=1)
        g = torch.sigmoid(_standardise(self.gate(x)))
        return x * (1 - g) + self.fuse(contexts) * g


class UpConv(nn.Module):
    """Bilinear enlargement by 2 and a 3x3 convolution: (b, in, h, w) -> (b, out, 2h, 2w)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = _initialise(nn.Conv2d(in_channels, out_channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))


@dataclass(frozen=True, slots=True)
class Stages:
    """Outputs of the generator for a batch; (b, 3, h, w) both."""

    fill: Tensor
    """Its whole picture, known pixels too."""
    output: Tensor
    """The fill in the hole and the photo elsewhere."""


class AOTGAN(Inpainter):
    """One-stage inpainter; see the module's header."""

    stride: ClassVar[int] = 4
    min_size: ClassVar[int] = 4 * (max(RATES) + 1)  # of reflection at a quarter of the size

    def __init__(self, config: AOTGANConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AOTGANConfig()
        c = config.width
        convs = (
            nn.Conv2d(4, c, 7, padding=3, padding_mode="reflect"),
            nn.Conv2d(c, 2 * c, 4, stride=2, padding=1),
            nn.Conv2d(2 * c, 4 * c, 4, stride=2, padding=1),
        )
        self.encoder = nn.ModuleList(
            nn.Sequential(_initialise(conv), nn.ReLU(inplace=True)) for conv in convs
        )
        self.attention = (
            nn.ModuleList(RWSA(conv.out_channels) for conv in convs) if config.rwsa else None
        )
        self.blocks = nn.Sequential(*(AOTBlock(4 * c) for _ in range(config.num_blocks)))
        self.decoder = nn.Sequential(
            UpConv(4 * c, 2 * c),
            nn.ReLU(inplace=True),
            UpConv(2 * c, c),
            nn.ReLU(inplace=True),
            _initialise(nn.Conv2d(c, 3, 3, padding=1)),
        )

    def run_stages(self, image: Tensor, mask: Tensor) -> Stages:
        """Outputs for training. Sides: multiples of 4, at least 36 pixels.

        image: (b, 3, h, w), finite; its hole is ignored. mask: float (b, 1, h, w), 1 = hole.
        """
        seen = compose(2 * image - 1, torch.ones_like(image), mask)
        x = torch.cat([seen, mask], dim=1)  # (b, 4, h, w)
        for i, conv in enumerate(self.encoder):
            x = conv(x)  # (b, c, h, w), (b, 2c, h/2, w/2), (b, 4c, h/4, w/4)
            if self.attention is not None:
                x = self.attention[i](x, mask)
        fill = (torch.tanh(self.decoder(self.blocks(x))) + 1) / 2  # (b, 3, h, w)
        return Stages(fill, compose(image, fill, mask))

    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.run_stages(image, mask).fill


class SoftMaskDiscriminator(nn.Module):
    """SM-PatchGAN: how real each pixel of a photo (b, 3, h, w) in [0, 1] is, (b, 1, h, w).

    It learns, with the squared error and no sigmoid, 1 for a real photo and 1 - soften_mask(mask)
    for a composed one. Computed for patches of 70x70 pixels and enlarged bilinearly.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (c_in, c_out) in enumerate(pairwise((3, width, 2 * width, 4 * width, 8 * width))):
            stride = 2 if i < 3 else 1
            conv = _initialise(nn.Conv2d(c_in, c_out, 4, stride, padding=1, bias=False))
            layers += [spectral_norm(conv), nn.LeakyReLU(0.2, inplace=True)]
        layers.append(_initialise(nn.Conv2d(8 * width, 1, 4, padding=1)))
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        patches = self.layers(2 * image - 1)  # (b, 1, about h/8, about w/8)
        size = image.shape[-2:]
        return F.interpolate(patches, size=size, mode="bilinear", align_corners=True)


def soften_mask(mask: Tensor, size: int = 71, sigma: float = 10.0) -> Tensor:
    """The mask (b, 1, h, w) blurred by a Gaussian, in [0, 1]; size and sigma in pixels, at 512.

    size: of the window, odd. The result is the discriminator's target.
    """
    d = torch.arange(size, device=mask.device) - size // 2
    line = torch.exp(-(d**2) / (2 * sigma**2))
    line = line / line.sum()
    with torch.autocast(mask.device.type, enabled=False):
        x = F.pad(mask.float(), (size // 2,) * 4, mode="replicate")
        return F.conv2d(F.conv2d(x, line.reshape(1, 1, 1, -1)), line.reshape(1, 1, -1, 1))


def _standardise(x: Tensor) -> Tensor:
    """Each channel of each sample: mean -5, standard deviation 10 (unbiased)."""
    std, mean = torch.std_mean(x.float(), dim=(2, 3), keepdim=True)
    return (5 * (2 * (x.float() - mean) / (std + 1e-9) - 1)).to(x.dtype)


def _make_reflected(c_in: int, c_out: int, rate: int = 1) -> list[nn.Module]:
    """A 3x3 convolution of dilation `rate` that keeps the size, with reflected borders."""
    return [nn.ReflectionPad2d(rate), _initialise(nn.Conv2d(c_in, c_out, 3, dilation=rate))]


def _initialise(conv: nn.Conv2d) -> nn.Conv2d:
    """The convolution with the authors' initial values."""
    nn.init.normal_(conv.weight, std=0.02)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


_RULES = (
    (r"encoder\.1\.(weight|bias)", r"encoder.0.0.\1"),
    (r"encoder\.3\.(weight|bias)", r"encoder.1.0.\1"),
    (r"encoder\.5\.(weight|bias)", r"encoder.2.0.\1"),
    (r"middle\.(\d+)\.block0(\d)\.1\.(weight|bias)", r"blocks.\1.transformations.\2.1.\3"),
    (r"middle\.(\d+)\.(fuse|gate)\.1\.(weight|bias)", r"blocks.\1.\2.1.\3"),
    (r"decoder\.([02])\.conv\.(weight|bias)", r"decoder.\1.conv.\2"),
    (r"decoder\.4\.(weight|bias)", r"decoder.4.\1"),
)


def remap(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the published generator (`G0000000.pt`) to ours; strict."""
    return rename_keys(state_dict, _RULES)


def aotgan(**config: Any) -> AOTGAN:
    """AOT-GAN at the paper's width; fields of AOTGANConfig as keyword arguments."""
    return AOTGAN(AOTGANConfig(**config))


OFFICIAL = Official(
    repository="researchmm/AOT-GAN-for-Inpainting@2cd1afd",
    licence="Apache-2.0 (the repository's)",
    remap=remap,
    files=("G0000000.pt",),
)

inpainters.register(
    "aotgan",
    aotgan,
    paper="Aggregated Contextual Transformations for High-Resolution Image Inpainting, "
    "TVCG 2022, arXiv:2104.01431",
    licence="Apache-2.0 (as the official code and weights; no code taken)",
    summary="15.2 M parameters, the paper's width",
    official=OFFICIAL,
)
