"""SafePaint: "SafePaint: Anti-forensic Image Inpainting with Domain Adaptation", ACM MM 2024.

Written from the paper and from a fact sheet of the authors' code, which is public for
non-commercial academic use and comes without weights: facts only, no code taken, and there is no
official checkpoint to remap. Licence of this file: Apache-2.0, as the project.

Phase 1, content completion: G1 fills the hole. Phase 2, region-wise optimisation: the inputs of G2
are that picture, the mask and the domain vector of the known region (from P); it fills the hole
again.

From the paper: the two phases, RWSA and its position, P and what its vectors are compared with,
spectral norm in both generators. From the authors' code: EdgeConnect's variant of Johnson's network
without the edges, the layers of P, the softened mask of RWSA. Our choices, where these are silent
or disagree:

- **Norm.** The paper names none, and calls its generators similar to those of Johnson et al. 2016,
  which have batch norm; that is the default. The authors' code has instance norm. Under it **V has
  no effect on the picture**: V is constant over the picture, so it adds a constant to each channel
  of G2's first convolution, and the norm after it removes every constant. At the start of a
  training at width 24, a change of V by its standard deviation over photos changes the hole by 31
  grey levels under batch norm, 21 without any norm, and 0.001 under instance norm; the gradient of
  L1 at P is 0.58, 0.26 and 6e-7 of that at G2. Instance norm also removes the photo's mean colours.
  `norm="none"` keeps only spectral norm;
- `vector_region="hole"` sets the vector in the hole only, where instance norm does not remove it;
- every convolution of the generators but the last, RWSA's included, has spectral norm (in the
  authors' code only the discriminator has it: `spectral_norm=False`);
- P averages over valid positions, so that its vector does not depend on the hole's area (the
  authors' code also averages over the empty ones: `pooling="all"`). A position of the last map is
  valid if any of 63 x 63 pixels is, so the two differ only for small regions;
- convolutions before a norm have no bias, which that norm would cancel;
- **`start="smooth"`, not in the paper, is for short trainings** under instance norm. The hole in
  G1's input is then filled with averages of the known pixels at increasing scales, and each
  generator adds a residual to its input, in units of the known pixels' contrast;
- where table 5 leaves out the domain distance loss, P and V are left out as well, as nothing else
  would train them.

Parameters at the paper's width: G1 10.8 M, P 3.9 M, G2 14.2 M. At width 24: 4.1 M in all.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from overpaint.errors import ConfigError
from overpaint.inpainters.base import Inpainter, compose
from overpaint.layers.partial import PartialConv2d, masked_mean
from overpaint.layers.rwsa import RWSA
from overpaint.registry import inpainters

Norm = Literal["batch", "instance", "none"]
Pooling = Literal["valid", "all"]
VectorRegion = Literal["all", "hole"]
Start = Literal["white", "smooth"]

ABLATIONS: dict[str, dict[str, bool]] = {
    "backbone": {"rwsa": False, "domain_vector": False},
    "backbone+ddl": {"rwsa": False, "domain_vector": True},
    "backbone+rwsa": {"rwsa": True, "domain_vector": False},
    "full": {"rwsa": True, "domain_vector": True},
}
"""The rows of table 5, as fields of SafePaintConfig."""


@dataclass(frozen=True, slots=True)
class SafePaintConfig:
    """Configuration of SafePaint."""

    width: int = 64
    """Channels at full resolution; all others are multiples of it."""
    vector_size: int = 16
    """Length of the domain vector."""
    num_blocks: int = 8
    """Residual blocks in each generator."""
    rwsa: bool = True
    """Region-wise separated attention in G2's upsampling path."""
    domain_vector: bool = True
    """The extractor P, its vector as input of G2, and with it the domain distance loss."""
    norm: Norm = "batch"
    """After each convolution of the generators but the last; see the module's header."""
    spectral_norm: bool = True
    """Spectral norm in both generators."""
    rwsa_spectral_norm: bool = True
    """Spectral norm in RWSA's convolutions as well, where the generators have it."""
    pooling: Pooling = "valid"
    """Positions that P averages over."""
    vector_region: VectorRegion = "all"
    """Where V contains the vector; see the module's header."""
    start: Start = "white"
    """G1's input in the hole; with "smooth" both generators also add a residual to their input."""

    def __post_init__(self) -> None:
        if min(self.width, self.vector_size, self.num_blocks) < 1:
            raise ConfigError("safepaint: width, vector_size and num_blocks must be at least 1")
        for name, kind in (
            ("norm", Norm),
            ("pooling", Pooling),
            ("vector_region", VectorRegion),
            ("start", Start),
        ):
            if getattr(self, name) not in get_args(kind):
                known = " or ".join(get_args(kind))
                raise ConfigError(f"safepaint: {name} {getattr(self, name)!r}; choose {known}")


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, the first one dilated; no activation after the sum."""

    def __init__(self, channels: int, config: SafePaintConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(2),
            *_make_conv(nn.Conv2d(channels, channels, 3, dilation=2), config),
            nn.ReflectionPad2d(1),
            *_make_conv(nn.Conv2d(channels, channels, 3), config, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Generator(nn.Module):
    """Image transform network (Johnson et al. 2016, in EdgeConnect's variant), RWSA optional.

    (b, in_channels, h, w) and mask (b, 1, h, w) -> picture (b, 3, h, w) in [0, 1].
    """

    def __init__(self, in_channels: int, config: SafePaintConfig, rwsa: bool) -> None:
        super().__init__()
        c = config.width
        self.encoder = nn.Sequential(
            nn.ReflectionPad2d(3),
            *_make_conv(nn.Conv2d(in_channels, c, 7), config),
            *_make_conv(nn.Conv2d(c, 2 * c, 4, stride=2, padding=1), config),
            *_make_conv(nn.Conv2d(2 * c, 4 * c, 4, stride=2, padding=1), config),
        )
        self.blocks = nn.Sequential(
            *(ResidualBlock(4 * c, config) for _ in range(config.num_blocks))
        )
        bounded = config.spectral_norm and config.rwsa_spectral_norm
        attention = (RWSA(n, spectral_norm=bounded) for n in (4 * c, 2 * c, c))
        self.attention = nn.ModuleList(attention) if rwsa else None
        self.upsample = nn.ModuleList(
            nn.Sequential(*_make_conv(nn.ConvTranspose2d(n, n // 2, 4, 2, padding=1), config))
            for n in (4 * c, 2 * c)
        )
        self.last = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(c, 3, 7))
        self.adds = config.start == "smooth"
        if self.adds:  # the residual is nearly 0 at the start of the training
            nn.init.normal_(self.last[1].weight, std=1e-3)  # type: ignore[arg-type]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        seen = x
        x = self.blocks(self.encoder(x))  # (b, 4c, h/4, w/4)
        for i in range(3):
            if self.attention is not None:
                x = self.attention[i](x, mask)
            if i < 2:
                x = self.upsample[i](x)  # (b, 2c, h/2, w/2), (b, c, h, w)
        drawn = self.last(x)
        if not self.adds:
            return (torch.tanh(drawn) + 1) / 2
        # The norms remove the photo's contrast, so the residual is in units of it.
        photo, known = seen[:, :3], 1 - mask
        around = photo - masked_mean(photo, known)[:, :, None, None]
        contrast = masked_mean(around.square().mean(dim=1, keepdim=True), known).sqrt()
        return (photo + contrast[:, :, None, None] * drawn).clamp(0, 1)


class DomainPatternExtractor(nn.Module):
    """P: the domain of a region as a vector. (b, 3, h, w), (b, 1, h, w) -> (b, vector_size).

    The region is where the second input is 1; sides of at least 63 pixels.
    """

    def __init__(self, config: SafePaintConfig) -> None:
        super().__init__()
        self.pooling = config.pooling
        widths = [3, *(config.width * n for n in (1, 2, 4, 8, 8))]
        self.convs = nn.ModuleList(
            PartialConv2d(c_in, c_out, 3, stride=2, bias=i in (0, 4))
            for i, (c_in, c_out) in enumerate(pairwise(widths))
        )
        norms = [nn.Identity(), *map(nn.BatchNorm2d, widths[2:5])]
        self.activate = nn.ModuleList(nn.Sequential(norm, nn.ReLU(inplace=True)) for norm in norms)
        self.to_vector = nn.Linear(widths[-1], config.vector_size)  # the 1x1 convolution

    def forward(self, image: Tensor, region: Tensor) -> Tensor:
        x, valid = image, region
        for i, conv in enumerate(self.convs):
            x, valid = conv(x, valid)
            if i < len(self.activate):
                x = self.activate[i](x)
        everywhere = torch.ones_like(valid)
        return self.to_vector(masked_mean(x, valid if self.pooling == "valid" else everywhere))


@dataclass(frozen=True, slots=True)
class Stages:
    """The results of both phases for a batch."""

    coarse: Tensor
    """I_c (b, 3, h, w)."""
    output: Tensor
    """I_out (b, 3, h, w)."""
    vector: Tensor | None
    """Z_b (b, vector_size), the domain vector of the known region."""


class SafePaint(Inpainter):
    """Two-phase inpainter; see the module's header."""

    stride: ClassVar[int] = 4
    min_size: ClassVar[int] = 64

    def __init__(self, config: SafePaintConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SafePaintConfig()
        vector_size = config.vector_size if config.domain_vector else 0
        self.completion = Generator(4, config, rwsa=False)  # G1
        self.extractor = DomainPatternExtractor(config) if config.domain_vector else None  # P
        self.optimisation = Generator(4 + vector_size, config, rwsa=config.rwsa)  # G2

    def run_stages(self, image: Tensor, mask: Tensor) -> Stages:
        """Run both phases, for the training. Sides: multiples of 4, at least 64 pixels.

        image: (b, 3, h, w), finite; its hole is ignored. mask: float (b, 1, h, w), 1 = hole.
        """
        smooth = self.config.start == "smooth"
        seen = fill_smoothly(image, mask) if smooth else torch.ones_like(image)
        seen = compose(image, seen, mask)  # I_in
        coarse = compose(image, self.completion(torch.cat([seen, mask], 1), mask), mask)  # eq. 7
        inputs, vector = [coarse, mask], None
        if self.extractor is not None:
            vector = self.extractor(image, 1 - mask)  # eq. 12
            region = mask if self.config.vector_region == "hole" else torch.ones_like(mask)
            inputs.append(vector[:, :, None, None] * region)  # V (b, vector_size, h, w)
        fill = self.optimisation(torch.cat(inputs, dim=1), mask)
        return Stages(coarse, compose(image, fill, mask), vector)  # eq. 7

    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.run_stages(image, mask).output


def fill_smoothly(image: Tensor, mask: Tensor) -> Tensor:
    """Fill each hole from the finest scale, in powers of two, at which pixels around it are known.

    image: (b, 3, h, w), finite; mask: (b, 1, h, w), 1 = hole; a full mask gives 0. Pull-push,
    Gortler et al. 1996 (The Lumigraph, section 3.4).
    """
    if not mask.any() or max(image.shape[-2:]) == 1:
        return image * (1 - mask)
    known = 1 - mask
    weight = F.avg_pool2d(known, 2, ceil_mode=True)
    pulled = F.avg_pool2d(image * known, 2, ceil_mode=True) / weight.clamp(min=1e-6)
    coarse = fill_smoothly(pulled, (weight == 0).to(mask.dtype))
    pushed = F.interpolate(coarse, image.shape[-2:], mode="bilinear", align_corners=False)
    return compose(image, pushed, mask)


def _make_conv(
    conv: nn.Conv2d | nn.ConvTranspose2d, config: SafePaintConfig, *, relu: bool = True
) -> list[nn.Module]:
    """A convolution (spectrally normalised or not), its norm and ReLU."""
    nn.init.normal_(conv.weight, std=0.02)
    if config.norm != "none":
        conv.bias = None  # the norm would cancel it
    layers: list[nn.Module] = [spectral_norm(conv) if config.spectral_norm else conv]
    if config.norm == "batch":
        layers.append(nn.BatchNorm2d(conv.out_channels))
    elif config.norm == "instance":
        layers.append(nn.InstanceNorm2d(conv.out_channels))
    return [*layers, nn.ReLU(inplace=True)] if relu else layers


def safepaint(**config: Any) -> SafePaint:
    """SafePaint at the paper's width; fields of SafePaintConfig as keyword arguments."""
    return SafePaint(SafePaintConfig(**config))


inpainters.register(
    "safepaint",
    safepaint,
    paper="SafePaint: Anti-forensic Image Inpainting with Domain Adaptation, ACM MM 2024",
    licence="Apache-2.0 (the official code is for non-commercial academic use; none taken)",
    summary="28.8 M parameters, the paper's width",
)
