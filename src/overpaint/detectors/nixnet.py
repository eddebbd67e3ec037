"""NIX-Net: "Noise Doesn't Lie: Towards Universal Detection of Deep Inpainting".

Li, Ke, Ma, Weng, Zong, Xue and Zhang, IJCAI 2021 (arXiv 2106.01532). There is no official code
and there are no official weights; everything here is written from section 4 and figure 5 of the
paper. Licence of this file: Apache-2.0, as the project.

The paper leaves these choices open; they are ours:
- the noise residual of eq. 3 is the response of the three SRM kernels (layers/highpass.py), as
  in Zhou et al. 2018, in float32 also under autocast. There, as in the common port of those
  kernels, a residual is summed over the colours; `residual="colours"` keeps x - d(x) of each
  colour, exactly as in eq. 3, as nine planes;
- the image enters its stream as (x - 0.5) / 0.25;
- the residual blocks are the pre-activated two-convolution blocks of He et al. 2016b. The first
  block has no pre-activation: a ReLU on the input would set half of the residual to 0;
- the shortcut is a 2x2 average and a 1x1 convolution. A strided 1x1 convolution would skip three
  pixels of four, and its backward with 3 input channels crashes torch 2.13 on the CPU;
- a chain of two stride-2 convolutions in a fusion module goes 128 -> 256 -> 512, with batch norm
  and ReLU between the two as in HRNet, which the paper cites. The sums have no activation;
- the head's conv block is as wide as the finest map, and a 1x1 convolution makes the logits;
- no convolution has a bias that a batch norm after it would cancel; only the last one has a bias.

Order of operations: "upsample, then 1x1 convolution" is computed as "1x1 convolution, then
upsample". Both are linear, one over channels and the other over positions, and the interpolation
weights sum to 1, so the result is the same with 4 or 16 times fewer operations.

Beyond the paper, and off by default: `context` compares a region with the rest of its photo
(`nixnet_context`); `colour` adds the noise of the colour differences to the noise stream, because
in the paper's residual, a sum over the colours, it cancels or is far below the noise of the luma;
`energies` adds the strength of both in windows (why: experiments/fine_detail.py); `content` adds a
third stream to the coarsest joint map.

Size: 29.5 M parameters at the paper's widths, 1.85 M at 32/64/128, 0.46 M at 16/32/64. One photo
of 256x256 costs 182.8 GFLOP, 11.6 and 3.0; with the upsampling first and the SRM kernels applied to
each colour separately it would be 193.7, 12.3 and 3.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.detectors.base import Detector
from overpaint.detectors.nixnet_context import (
    CONTEXTS,
    Content,
    Context,
    Energies,
    make_context_blocks,
    make_zero_conv,
)
from overpaint.errors import ConfigError
from overpaint.layers.folding import apply_conv_norm
from overpaint.layers.highpass import SRMFilter
from overpaint.registry import detectors

Residual = Literal["sum", "colours"]


@dataclass(frozen=True, slots=True)
class NIXNetConfig:
    """Configuration of NIX-Net; the flags are the ablations of the paper's table 2."""

    widths: tuple[int, int, int] = (128, 256, 512)
    """Channels of the maps at 1/2, 1/4 and 1/8 of the photo's size."""
    noise_stream: bool = True
    """Use the stream of noise residuals."""
    image_stream: bool = True
    """Use the stream of colours."""
    fusion_12: bool = True
    """Fusion modules 1 and 2, within the streams."""
    fusion_3: bool = True
    """Fusion module 3, on the joint maps."""
    residual: Residual = "sum"
    """Of eq. 3: each kernel's response summed over the colours, or that of each colour."""
    colour: bool = False
    """Add the noise of the colour differences; not in the paper."""
    energies: bool = False
    """Add the strength of the noise of luma and colours in windows; not in the paper."""
    context: Context = "none"
    """What a region is compared with beyond its neighbourhood; see `nixnet_context`."""
    content: bool = False
    """Add features of a network trained on ImageNet; see `nixnet_context`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))  # JSON and YAML give lists
        if len(self.widths) != 3 or min(self.widths) < 1:
            raise ConfigError(f"nixnet: widths must be three positive numbers, not {self.widths}")
        if not (self.noise_stream or self.image_stream):
            raise ConfigError("nixnet: keep the noise stream, the image stream, or both")
        if (self.colour or self.energies) and not self.noise_stream:
            raise ConfigError("nixnet: colour and energies belong to the noise stream; keep it")
        if self.residual not in get_args(Residual):
            known = " or ".join(get_args(Residual))
            raise ConfigError(f"nixnet: residual {self.residual!r}; choose {known}")
        if self.residual != "sum" and self.energies:
            raise ConfigError('nixnet: energies are of the residual "sum"; leave one of them out')
        if self.context not in CONTEXTS:
            known = ", ".join(CONTEXTS)
            raise ConfigError(f"nixnet: no context {self.context!r}; there are {known}")


def make_conv(in_channels: int, out_channels: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A same-size (or halving) convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False)


def upsample(x: Tensor, factor: int) -> Tensor:
    """Bilinear upsampling by 2, 4, ..."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class ConvBlock(nn.Sequential):
    """Two 3x3 convolutions, each with batch norm and ReLU (section 4)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        layers: list[nn.Module] = []
        for c in (in_channels, out_channels):
            layers += [
                make_conv(c, out_channels),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)

    def forward(self, *maps: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Concatenated maps (b, c_i, h, w), whose channels sum to in_channels."""
        conv_1, norm_1, relu, conv_2, norm_2, _ = self
        return relu(apply_conv_norm(conv_2, norm_2, relu(apply_conv_norm(conv_1, norm_1, *maps))))


class ResidualBlock(nn.Module):
    """Pre-activated residual block whose last convolution halves the size."""

    def __init__(self, in_channels: int, out_channels: int, first: bool = False) -> None:
        super().__init__()
        relu = nn.ReLU(inplace=True)
        self.activate = nn.Identity() if first else nn.Sequential(nn.BatchNorm2d(in_channels), relu)
        self.conv_1 = make_conv(in_channels, out_channels)
        self.norm = nn.BatchNorm2d(out_channels)
        self.conv_2 = make_conv(out_channels, out_channels, stride=2)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), make_conv(in_channels, out_channels, size=1))

    def forward(self, x: Tensor) -> Tensor:  # (b, c, h, w) -> (b, out_channels, h/2, w/2)
        active = self.activate(x)
        inner = F.relu(apply_conv_norm(self.conv_1, self.norm, active), inplace=True)
        return self.conv_2(inner).add_(self.shortcut(active))


class Stream(nn.Module):
    """Three residual blocks; returns the maps at 1/2, 1/4 and 1/8.

    `added` is added to the first block's output.
    """

    def __init__(self, widths: Sequence[int], in_channels: int = 3) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.block_1 = ResidualBlock(in_channels, fine, first=True)
        self.block_2 = ResidualBlock(fine, middle)
        self.block_3 = ResidualBlock(middle, coarse)

    def forward(self, x: Tensor, added: Tensor | None = None) -> list[Tensor]:
        fine = self.block_1(x)
        if added is not None:
            fine += added
        middle = self.block_2(fine)
        return [fine, middle, self.block_3(middle)]


class ColourNoise(nn.Module):
    """Beyond the paper: residuals of R - G and B - G (b, 6, h, w) to a map (b, fine, h/2, w/2).

    The last convolution starts at zero, so that a network starts as the one without.
    """

    def __init__(self, fine: int) -> None:
        super().__init__()
        self.block = ResidualBlock(6, fine, first=True)
        self.activate = nn.Sequential(nn.BatchNorm2d(fine), nn.ReLU(inplace=True))
        self.back = make_zero_conv(fine, fine)

    def forward(self, noise: Tensor) -> Tensor:
        return self.back(self.activate(self.block(noise)))


class Fusion(nn.Module):
    """Each output is the sum of all three scales, converted to its size and channels (figure 5)."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.middle_to_fine = make_conv(middle, fine, size=1)
        self.coarse_to_fine = make_conv(coarse, fine, size=1)
        self.coarse_to_middle = make_conv(coarse, middle, size=1)
        self.fine_to_middle = make_conv(fine, middle, stride=2)
        self.middle_to_coarse = make_conv(middle, coarse, stride=2)
        self.fine_to_coarse = nn.Sequential(
            make_conv(fine, middle, stride=2),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            make_conv(middle, coarse, stride=2),
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        fine, middle, coarse = maps
        to_fine = upsample(self.middle_to_fine(middle), 2)
        to_fine += upsample(self.coarse_to_fine(coarse), 4)
        to_middle = self.fine_to_middle(fine)
        to_middle += upsample(self.coarse_to_middle(coarse), 2)
        to_coarse = self.fine_to_coarse(fine)
        to_coarse += self.middle_to_coarse(middle)
        return [to_fine.add_(fine), to_middle.add_(middle), to_coarse.add_(coarse)]


class Head(nn.Module):
    """Three scales to one map of logits at the photo's size."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.block = ConvBlock(sum(widths), widths[0])
        self.logit = nn.Conv2d(widths[0], 1, kernel_size=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        fine, middle, coarse = maps
        joint = self.block(fine, upsample(middle, 2), upsample(coarse, 4))
        return upsample(self.logit(joint), 2)  # (b, 1, h/2, w/2) -> (b, 1, h, w)


class NIXNet(Detector):
    """Noise-image cross-fusion network: (b, 3, h, w) in [0, 1] to logits (b, 1, h, w)."""

    stride: ClassVar[int] = 8
    residual_parts: ClassVar[tuple[str, ...]] = ("colour", "energies", "context", "content")

    def __init__(self, config: NIXNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NIXNetConfig()
        widths = config.widths
        if widths[0] > 64:  # 1024 pixels would take 3 GB
            self.tile = 768
        if widths[0] <= 32:  # a tile takes less than 1 GB
            self.tiles_at_once = 2
        by_colour = config.residual == "colours"
        # A third of the sum's unit, because one colour has a third of the sum's response.
        self.residual = SRMFilter(unit=16 / 3) if by_colour else SRMFilter()
        self.image_stream = Stream(widths) if config.image_stream else None
        planes = 9 if by_colour else 3
        self.noise_stream = Stream(widths, planes) if config.noise_stream else None
        in_each = config.image_stream + config.noise_stream

        def make_fusion(wanted: bool) -> nn.Module:
            return Fusion(widths) if wanted else nn.Identity()

        self.fusion_1 = make_fusion(config.fusion_12 and config.image_stream)
        self.fusion_2 = make_fusion(config.fusion_12 and config.noise_stream)
        self.cross = nn.ModuleList(ConvBlock(in_each * c, c) for c in widths)
        self.fusion_3 = make_fusion(config.fusion_3)
        self.head = Head(widths)
        self._initialise()
        # Last, because `_initialise` must not change their initial values.
        self.colour_residual = SRMFilter(unit=2)  # colours have less noise than the luma
        self.colour = ColourNoise(widths[0]) if config.colour else None
        self.energies = Energies(9, widths[0]) if config.energies else None
        self.context = make_context_blocks(config.context, widths)
        self.content = Content(widths[2]) if config.content else None

    def _compute_logits(self, image: Tensor) -> Tensor:
        streams = []  # each: (b, c1, h/2, w/2), (b, c2, h/4, w/4), (b, c3, h/8, w/8)
        if self.image_stream is not None:
            streams.append(self.fusion_1(self.image_stream((image - 0.5) / 0.25)))
        if self.noise_stream is not None:
            noise = self._compute_noise(image)  # eq. 3
            streams.append(self.fusion_2(self.noise_stream(noise, self._sum_options(image, noise))))
        joint = [
            block(*maps)  # two of (b, c, ...) -> (b, c, ...)
            for block, maps in zip(self.cross, zip(*streams, strict=True), strict=True)
        ]
        if self.content is not None:
            joint[2] = joint[2] + self.content(image)
        joint = self.fusion_3(joint)
        if self.context is not None:
            joint = [block(x) for block, x in zip(self.context, joint, strict=True)]
        return self.head(joint)  # (b, 1, h, w)

    def _compute_noise(self, image: Tensor) -> Tensor:
        """(b, 3, h, w) -> (b, 3 or 9, h, w): see `NIXNetConfig.residual`."""
        if self.config.residual == "colours":
            return self.residual.filter_planes(image)
        return self.residual(image)

    def _sum_options(self, image: Tensor, noise: Tensor) -> Tensor | None:
        """The sum of the options' maps, which is added to the noise stream's first map."""
        if self.colour is None and self.energies is None:
            return None
        colour_noise = self._compute_colour_noise(image)
        added = None if self.colour is None else self.colour(colour_noise)
        if self.energies is not None:
            halved = F.avg_pool2d(image, 2)
            strengths = self.energies(
                torch.cat([noise, colour_noise], dim=1),
                torch.cat([self.residual(halved), self._compute_colour_noise(halved)], dim=1),
            )
            added = strengths if added is None else added.add_(strengths)
        return added

    def _compute_colour_noise(self, image: Tensor) -> Tensor:
        """(b, 3, h, w) -> (b, 6, h, w): the residuals of R - G, then those of B - G."""
        return self.colour_residual.filter_planes(image[:, ::2] - image[:, 1:2])

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(self.head.logit.bias)  # type: ignore[arg-type]


def nixnet(**config: object) -> NIXNet:
    """NIX-Net at the paper's widths; fields of NIXNetConfig as keyword arguments."""
    return NIXNet(NIXNetConfig(**config))  # type: ignore[arg-type]


detectors.register(
    "nixnet",
    nixnet,
    paper="Noise Doesn't Lie: Towards Universal Detection of Deep Inpainting, IJCAI 2021",
    licence="Apache-2.0 (no official code)",
    summary="29.5 M parameters, the paper's widths",
)
