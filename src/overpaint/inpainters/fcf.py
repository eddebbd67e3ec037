"""FcF: "Keys to Better Image Inpainting: Structure and Texture Go Hand in Hand", WACV 2023
(arXiv:2208.03382).

Written from the paper and from a fact sheet of the authors' code, SHI-Labs/FcF-Inpainting @55ac6a0
(Apache-2.0, but its StyleGAN2 parts are under NVIDIA's source code licence: research and evaluation
only); no code taken. The weights have no separate licence; consider them non-commercial as well.
Licence of this file: Apache-2.0, as the project.

An encoder computes a code and features of the photo. A co-modulated StyleGAN2 generator (Zhao et
al. 2021, arXiv:2103.10428) generates the picture from coarse to fine; its styles are computed from
that code and a random latent. From 32 x 32 on, its features are joined with the encoder's in fast
Fourier convolutions.

Photos are in [-1, 1] inside and 0 in the hole. The first input channel is 0.5 - mask, so that the
hole is -0.5. The output is not bounded: `run_stages` returns it unchanged, and the fill of a photo
in eval mode is clamped to [0, 1].

Randomness. In training, latents, noise, dropout and style mixing use torch's global generator. In
eval mode they do not: one latent for all photos and one noise map for each layer are drawn once
from `seed`. The maps are part of the weights; the latent is not.

Choices of this implementation, and differences from the authors' code:
- any size from `resolution` up: their network accepts a single square size. At larger sizes, the
  input of the fully connected layer is averaged to 4 x 4, its output is resized, and noise maps are
  repeated. At that square size these three have no effect;
- their generator's convolutions have a bias that is never added: left out here;
- their first noise (4 x 4) is drawn in each call, also in eval mode; here it is as in all other
  layers;
- their evaluation draws one latent for each photo from a generator seeded once, so that a fill
  depends on the photos before it; at a truncation of 0.1 the effect is small;
- the deviation over a batch is computed in training only. In eval mode it is that of a single
  photo, a constant, as in their evaluation, so that a fill does not depend on the batch;
- everything is float32 (theirs: float16 in the four finest resolutions).

The published .pkl files hold pickled code. Export `G_ema.state_dict()` with their code installed;
IOPaint offers one as places_512_G.pth. With `resolution=256` those for 256 pixels fit.

Size at the published width, in parameters, at 512 pixels: 85.1 M, discriminator 29.0 M; at 256:
70.3 M and 24.0 M. At the size of recipes/inpainters/fcf-s.yaml: 1.3 M.
"""

import math
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.errors import ConfigError
from overpaint.inpainters.base import Inpainter, compose
from overpaint.layers.fourier import OFFICIAL_KEYS, FastFourierBlock, split_channels
from overpaint.layers.modulated import (
    Mapping,
    ScaledConv2d,
    ScaledLinear,
    StyledConv,
    ToRGB,
    append_minibatch_deviation,
    apply_leaky_relu,
    upsample,
)
from overpaint.registry import Official, inpainters
from overpaint.weights.rename_keys import rename_keys

Noise = Literal["fixed", "none"]

FOURIER_FROM = 32  # pixels: the coarsest resolution with a Fourier convolution
GLOBAL_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class FcFConfig:
    """Configuration of FcF."""

    resolution: int = 512
    """Side of the training photos, pixels; a power of two from 32 on."""
    width: int = 64
    """Channels at full resolution, doubled where the sides are halved; a multiple of 32."""
    max_width: int = 512
    """Largest number of channels; a multiple of 32."""
    latent_size: int = 512
    """Length of a latent; the code is twice as long, and a layer's style all three together."""
    noise: Noise = "fixed"
    """Noise in the generator's layers: fresh in training, from maps in eval; or none at all."""
    truncation: float = 0.1
    """Weight of the latent's style against the average style, in eval mode; 0 to 1."""
    style_mixing: float = 0.9
    """Probability, in training, that finer layers get another latent's style; 0 to 1."""
    seed: int = 0
    """Of the latent and of the noise maps."""

    def __post_init__(self) -> None:
        r, w, m = self.resolution, self.width, self.max_width
        if r < FOURIER_FROM or r & (r - 1):
            raise ConfigError(f"fcf: resolution {r}; give a power of two from {FOURIER_FROM} on")
        if min(w, m) < 1 or w % 32 or m % 32 or not w <= m <= w * r // 4:
            raise ConfigError(
                f"fcf: width {w}, max_width {m}; give multiples of 32, max_width at least width "
                "and at most width * resolution / 4"
            )
        if self.latent_size < 1:
            raise ConfigError("fcf: latent_size must be at least 1")
        if self.noise not in get_args(Noise):
            raise ConfigError(f"fcf: noise {self.noise!r}; choose {' or '.join(get_args(Noise))}")
        if not (0 <= self.truncation <= 1 and 0 <= self.style_mixing <= 1):
            raise ConfigError("fcf: truncation and style_mixing must be within [0, 1]")

    @property
    def sides(self) -> list[int]:
        """Sides of the feature maps, pixels, from 8 to `resolution`."""
        return [2**i for i in range(3, self.resolution.bit_length())]

    @property
    def num_styles(self) -> int:
        """Number of different styles; some layers share one with a `to_rgb`."""
        return 2 * len(self.sides) + 2

    def count_channels(self, side: int) -> int:
        """Of feature maps with that side."""
        return min(self.width * self.resolution // side, self.max_width)

    def make_styled(
        self, c_in: int, side: int, up: bool = False, clamped: bool = True
    ) -> StyledConv:
        """The generator's convolution; side: of its output, pixels."""
        noise_side = side if self.noise == "fixed" else None
        c_out, style_size = self.count_channels(side), 3 * self.latent_size
        return StyledConv(c_in, c_out, style_size, noise_side, up=up, clamped=clamped)


class EncoderBlock(nn.Module):
    """(b, c, h, w) -> features (b, c, h, w), and the next input (b, c_out, h/2, w/2)."""

    def __init__(self, config: FcFConfig, side: int) -> None:
        super().__init__()
        c, c_out = config.count_channels(side), config.count_channels(side // 2)
        self.conv = ScaledConv2d(c, c, 3)
        self.down = ScaledConv2d(c, c_out, 3, down=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.conv(x)
        return features, self.down(features)


class Encoder(nn.Module):
    """(b, 4, h, w) -> code (b, 2 * latent_size) and features by the side, in pixels, that they have
    for a photo of the training size."""

    def __init__(self, config: FcFConfig) -> None:
        super().__init__()
        m = config.max_width
        self.first = ScaledConv2d(4, config.width, 1)
        self.blocks = nn.ModuleDict({str(s): EncoderBlock(config, s) for s in config.sides[::-1]})
        self.last = ScaledConv2d(m + 1, m, 3)
        self.to_code = ScaledLinear(16 * m, 2 * config.latent_size)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        features: dict[int, Tensor] = {}
        x = self.first(x)
        for side, block in self.blocks.items():
            features[int(side)], x = block(x)
        x = append_minibatch_deviation(x, 4 if self.training else 1)  # (b, m + 1, 4, 4)
        features[4] = self.last(x)
        seen = F.adaptive_avg_pool2d(features[4], 4).flatten(1)
        return self.dropout(apply_leaky_relu(self.to_code(seen))), features


class SynthesisBlock(nn.Module):
    """One resolution: upsample, join the encoder's features, convolve, add to the picture."""

    def __init__(self, config: FcFConfig, side: int) -> None:
        super().__init__()
        c = config.count_channels(side)
        self.up = config.make_styled(config.count_channels(side // 2), side, up=True)
        self.fourier = None
        if side >= FOURIER_FROM:
            parts = split_channels(c, GLOBAL_SHARE)
            self.fourier = FastFourierBlock(parts, normalised=False, quarters=True)
        self.conv = config.make_styled(c, side)
        self.to_rgb = ToRGB(c, 3 * config.latent_size)

    def forward(
        self, x: Tensor, features: Tensor, picture: Tensor, styles: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """x: (b, c_in, h/2, w/2); features: (b, c, h, w); picture: (b, 3, h/2, w/2)."""
        x = self.up(x, styles[0])  # (b, c, h, w)
        x = x + (
            features if self.fourier is None else self._add_textures(x + features, self.fourier)
        )
        x = self.conv(x, styles[1])
        return x, upsample(picture) + self.to_rgb(x, styles[2])

    @staticmethod
    def _add_textures(x: Tensor, fourier: FastFourierBlock) -> Tensor:
        """The block, which adds its input, plus twice that input, as in their code."""
        local = fourier.conv1.conv.local_to_local
        assert local is not None
        y = fourier((x[:, : local.in_channels], x[:, local.in_channels :]))
        return torch.cat(y, dim=1) + 2 * x


class Synthesis(nn.Module):
    """Code, features and styles (b, num_styles, latent_size) -> picture (b, 3, h, w)."""

    def __init__(self, config: FcFConfig) -> None:
        super().__init__()
        m = config.max_width
        self.start = ScaledLinear(2 * config.latent_size, 16 * m)
        self.conv = config.make_styled(m, 4, clamped=False)
        self.to_rgb = ToRGB(m, 3 * config.latent_size, clamped=False)
        self.blocks = nn.ModuleDict({str(s): SynthesisBlock(config, s) for s in config.sides})

    def forward(self, code: Tensor, features: dict[int, Tensor], styles: Tensor) -> Tensor:
        each = [torch.cat([style, code.to(style.dtype)], dim=1) for style in styles.unbind(dim=1)]
        x = apply_leaky_relu(self.start(code)).unflatten(1, (-1, 4, 4))
        x = F.interpolate(x, features[4].shape[2:], mode="bilinear") + features[4]
        x = self.conv(x, each[0])  # (b, m, h/128, w/128), where the resolution is 512
        picture = self.to_rgb(x, each[1])
        for i, (side, block) in enumerate(self.blocks.items()):
            x, picture = block(x, features[int(side)], picture, each[2 * i + 1 : 2 * i + 4])
        return picture


@dataclass(frozen=True, slots=True)
class Stages:
    """Outputs of the network for a batch."""

    fill: Tensor
    """(b, 3, h, w): the whole generated picture, not clamped."""
    output: Tensor
    """(b, 3, h, w): the fill in the hole and the photo elsewhere."""


class FcF(Inpainter):
    """Encoder, mapping and synthesis; see the module's header."""

    latent: Tensor

    def __init__(self, config: FcFConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FcFConfig()
        # Here they depend on the configuration; in other inpainters the class sets them.
        self.stride = config.resolution // 4  # type: ignore[misc]
        self.min_size = self.working_size = config.resolution  # type: ignore[misc]
        self.encoder = Encoder(config)
        self.mapping = Mapping(config.latent_size)
        self.synthesis = Synthesis(config)
        generator = torch.Generator().manual_seed(config.seed)
        latent = torch.randn(1, config.latent_size, generator=generator, device="cpu")
        self.register_buffer("latent", latent, persistent=False)
        for name, buffer in self.synthesis.named_buffers():
            if name.endswith("noise_map"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator, device="cpu"))

    def run_stages(self, image: Tensor, mask: Tensor) -> Stages:
        """Outputs for training. Sides: multiples of resolution / 4, at least the resolution.

        image: (b, 3, h, w), finite; its hole is ignored. mask: float (b, 1, h, w), 1 = hole.
        """
        seen = torch.cat([0.5 - mask, (2 * image - 1) * (1 - mask)], dim=1)
        code, features = self.encoder(seen)
        picture = self.synthesis(code, features, self._draw_styles(len(image)))
        fill = (picture + 1) / 2
        return Stages(fill, compose(image, fill, mask))

    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        fill = self.run_stages(image, mask).fill
        return fill if self.training else fill.clamp(0, 1)

    def _draw_styles(self, b: int) -> Tensor:
        """(b, num_styles, latent_size)"""
        if not self.training:
            average = self.mapping.average
            style = average + self.config.truncation * (self.mapping(self.latent) - average)
            return style[:, None].expand(b, self.config.num_styles, -1)
        style = self.mapping(torch.randn_like(self.latent.expand(b, -1)))
        self.mapping.follow(style)
        styles = style[:, None].expand(b, self.config.num_styles, -1)
        if torch.rand(()) >= self.config.style_mixing:
            return styles
        first = int(torch.randint(1, self.config.num_styles, ()))
        other = self.mapping(torch.randn_like(self.latent.expand(b, -1)))
        rest = other[:, None].expand(b, self.config.num_styles - first, -1)
        return torch.cat([styles[:, :first], rest], dim=1)


class ResidualBlock(nn.Module):
    """(b, c, h, w) -> (b, c_out, h/2, w/2)."""

    def __init__(self, config: FcFConfig, side: int) -> None:
        super().__init__()
        c, c_out = config.count_channels(side), config.count_channels(side // 2)
        self.convs = nn.Sequential(ScaledConv2d(c, c, 3), ScaledConv2d(c, c_out, 3, down=True))
        self.skip = ScaledConv2d(c, c_out, 1, down=True, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        return (self.convs(x) + self.skip(x)) * math.sqrt(0.5)


class Discriminator(nn.Module):
    """StyleGAN2's: picture (b, 3, h, w) in [0, 1] and mask (b, 1, h, w) -> logit (b, 1).

    Positive = real. Sides: multiples of resolution / 4. Its batch deviation is over groups of 4.
    """

    def __init__(self, config: FcFConfig | None = None) -> None:
        super().__init__()
        config = config or FcFConfig()
        m = config.max_width
        self.first = ScaledConv2d(4, config.width, 1)
        self.blocks = nn.Sequential(*(ResidualBlock(config, side) for side in config.sides[::-1]))
        self.last = ScaledConv2d(m + 1, m, 3)
        self.to_features, self.to_logit = ScaledLinear(16 * m, m), ScaledLinear(m, 1)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        x = self.blocks(self.first(torch.cat([0.5 - mask, 2 * image - 1], dim=1)))
        x = self.last(append_minibatch_deviation(x))  # (b, m, 4, 4)
        x = self.to_features(F.adaptive_avg_pool2d(x, 4).flatten(1))
        return self.to_logit(apply_leaky_relu(x))


_LAYER = r"(weight|bias)"
_STYLED = r"(weight|affine\.weight|affine\.bias|noise_strength)"
_BLOCK = r"synthesis\.b(\d+)"
_RULES = (
    (rf"encoder\.b4\.conv\.{_LAYER}", r"encoder.last.\1"),
    (rf"encoder\.b4\.fc\.{_LAYER}", r"encoder.to_code.\1"),
    (rf"encoder\.b\d+\.fromrgb\.{_LAYER}", r"encoder.first.\1"),
    (rf"encoder\.b(\d+)\.conv0\.{_LAYER}", r"encoder.blocks.\1.conv.\2"),
    (rf"encoder\.b(\d+)\.conv1\.{_LAYER}", r"encoder.blocks.\1.down.\2"),
    (rf"mapping\.fc([01])\.{_LAYER}", r"mapping.layers.\1.\2"),
    (r"mapping\.w_avg", "mapping.average"),
    (rf"synthesis\.foreword\.fc\.{_LAYER}", r"synthesis.start.\1"),
    *(
        rule
        for theirs, ours in (
            (r"synthesis\.foreword\.()conv", r"synthesis.conv"),
            (rf"{_BLOCK}\.conv0", r"synthesis.blocks.\1.up"),
            (rf"{_BLOCK}\.conv1", r"synthesis.blocks.\1.conv"),
        )
        for rule in (
            (rf"{theirs}\.{_STYLED}", rf"{ours}.\2"),
            (rf"{theirs}\.noise_const", rf"{ours}.noise_map"),
        )
    ),
    (r"synthesis\.foreword\.torgb\.bias", "synthesis.to_rgb.bias"),
    (rf"synthesis\.foreword\.torgb\.{_STYLED}", r"synthesis.to_rgb.conv.\1"),
    (rf"{_BLOCK}\.torgb\.bias", r"synthesis.blocks.\1.to_rgb.bias"),
    (rf"{_BLOCK}\.torgb\.{_STYLED}", r"synthesis.blocks.\1.to_rgb.conv.\2"),
    *(
        (
            rf"{_BLOCK}\.ffc_skip\.0\.ffc_act\.ffc_block\.conv([12])\.{theirs}",
            rf"synthesis.blocks.\1.fourier.conv\2.{ours}",
        )
        for theirs, ours in OFFICIAL_KEYS
    ),
)
_UNUSED = (r".*\.resample_filter", r"synthesis\.(foreword\.conv|b\d+\.conv[01])\.bias")


def remap(state_dict: AnyMapping[str, Any]) -> dict[str, Any]:
    """Keys of the authors' `G_ema` to ours; strict. Leaves out filters and biases never added."""
    return rename_keys(state_dict, _RULES, drop=_UNUSED)


def fcf(**config: Any) -> FcF:
    """FcF at the published width; fields of FcFConfig as keyword arguments."""
    return FcF(FcFConfig(**config))


OFFICIAL = Official(
    repository="SHI-Labs/FcF-Inpainting@55ac6a0",
    licence="none stated; code Apache-2.0, StyleGAN2 parts NVIDIA's, non-commercial",
    remap=remap,
    files=("places_512_G.pth",),
    note="The authors publish pickles (places_512.pkl, ...), which hold code. Convert one with "
    'their repository: see "Published weights" in docs/guides/researcher.md',
)

inpainters.register(
    "fcf",
    fcf,
    paper="Keys to Better Image Inpainting (FcF), WACV 2023, arXiv:2208.03382",
    licence="Apache-2.0 (official code: Apache-2.0 and NVIDIA non-commercial; none taken)",
    summary="85.1 M parameters, the published width, 512 pixels",
    official=OFFICIAL,
)
