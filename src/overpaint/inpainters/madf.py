"""MADF: "Image Inpainting by End-to-End Cascaded Refinement with Mask Awareness".

Zhu et al., IEEE Transactions on Image Processing 30, 2021 (arXiv:2104.13743). Original code and
weights: MADF-inpainting/Pytorch-MADF @6fdbf44, GPL-3.0. Written from the paper and a fact sheet of
that code, and compared with its outputs; no code taken. Licence of this file: Apache-2.0, as the
project.

The encoder's filters are computed for each position from the mask (mask-aware dynamic filtering).
Three decoders in sequence generate the picture: recovery, from the encoder's features, and
refinements, each conditioned at every level on the decoder before it (point-wise normalisation).

Inside, photos are normalised by ImageNet's mean and deviation, the mask is 1 where pixels are
known, in three channels, and holes are 0, the mean colour. `run_stages` returns
unclamped photos.

Choices of this implementation, and differences from the paper or the authors' code:
- filters are linear in the mask's features. So the outputs of 17 convolutions with fixed filters
  are mixed by these features, and the filters of single positions are never computed. The result is
  the same sum in another order, with a 17th of the memory at the first level;
- the authors' encoder has batch norms that it never applies. They are left out, and dropped from
  the published weights;
- filters are initialised so that features keep their magnitude through the encoder.

Size at the published width, in parameters: 85.14 M. At width 8: 1.35 M.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.errors import ConfigError
from overpaint.inpainters.base import Inpainter
from overpaint.registry import Official, inpainters
from overpaint.weights.rename_keys import rename_keys

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

KERNEL_SIZES = (7, 5, 3, 3, 3, 3, 3)
"""Of the encoder's levels; each halves the sides."""


@dataclass(frozen=True, slots=True)
class MADFConfig:
    """Configuration of MADF."""

    width: int = 64
    """Channels of the decoders at half resolution, a multiple of 4; all others follow it."""
    mask_channels: int = 16
    """Features of the mask at every level, from which the filters are made."""
    num_refinements: int = 2
    """Decoders after the recovery."""

    def __post_init__(self) -> None:
        if self.width < 4 or self.width % 4:
            raise ConfigError("madf: width must be a multiple of 4, at least 4")
        if self.mask_channels < 1 or self.num_refinements < 0:
            raise ConfigError("madf: mask_channels must be at least 1, num_refinements at least 0")

    @property
    def encoder_channels(self) -> list[int]:
        """Of the levels' features, from half resolution down."""
        return [self.width // 4 * n for n in (1, 2, 4, 8, 8, 8, 8)]

    @property
    def decoder_channels(self) -> list[int]:
        """Of the decoders' levels, from the deepest (the skip of the encoder's end) up."""
        return [self.width * n for n in (8, 8, 8, 8, 4, 2, 1)]


class MaskAwareConv(nn.Module):
    """Convolution of stride 2 whose filters differ by position and are computed from the mask.

    Features (b, c_in, h, w), mask features (b, m_in, h, w) -> ReLU features (b, c_out, h/2, w/2),
    next mask features (b, m, h/2, w/2).
    """

    def __init__(self, c_in: int, c_out: int, m_in: int, m: int, kernel_size: int) -> None:
        super().__init__()
        self.sizes = (c_in, kernel_size, kernel_size, c_out)
        conv = nn.Conv2d(m_in, m, kernel_size, stride=2, padding=kernel_size // 2)
        self.see = nn.Sequential(conv, nn.ReLU(inplace=True))
        num_values, fan_in = c_in * kernel_size**2 * c_out, c_in * kernel_size**2
        self.filter_weight = nn.Parameter(torch.empty(num_values, m, 1, 1))
        self.filter_bias = nn.Parameter(torch.empty(num_values))
        nn.init.normal_(self.filter_weight, std=(2 / fan_in / m) ** 0.5)
        nn.init.normal_(self.filter_bias, std=(2 / fan_in) ** 0.5)

    def forward(self, x: Tensor, mask_features: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.see(mask_features)  # (b, m, h/2, w/2)
        mixed = F.conv2d(x, self._make_banks(), stride=2, padding=self.sizes[1] // 2)
        mixed = mixed.unflatten(1, (-1, self.sizes[3]))  # (b, m + 1, c_out, h/2, w/2)
        out = (mixed[:, :-1] * seen[:, :, None]).sum(dim=1) + mixed[:, -1]
        return out.relu(), seen

    def _make_banks(self) -> Tensor:
        """One bank of filters for each mask feature, then the constant one."""
        banks = torch.cat([self.filter_weight.flatten(1), self.filter_bias[:, None]], dim=1)
        return banks.T.unflatten(1, self.sizes).permute(0, 4, 1, 2, 3).flatten(0, 1)


class Encoder(nn.Module):
    """Known pixels and mask, each (b, 3, h, w) -> features at h, h/2, ..., h/128.

    The first are both inputs, the others have as many channels as the decoders at their size.
    """

    def __init__(self, config: MADFConfig) -> None:
        super().__init__()
        m, channels = config.mask_channels, config.encoder_channels
        self.levels = nn.ModuleList(
            MaskAwareConv(c_in, c_out, m if i else 3, m, kernel_size)
            for i, ((c_in, c_out), kernel_size) in enumerate(
                zip(pairwise([6, *channels]), KERNEL_SIZES, strict=True)
            )
        )
        self.widen = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c_in, c_out, kernel_size=1), nn.ReLU(inplace=True))
            for c_in, c_out in zip(channels, reversed(config.decoder_channels), strict=True)
        )

    def forward(self, seen: Tensor, valid: Tensor) -> list[Tensor]:
        x = torch.cat([seen, valid], dim=1)
        features, mask_features = [x], valid
        for level, widen in zip(self.levels, self.widen, strict=True):
            x, mask_features = level(x, mask_features)
            features.append(widen(x))
        return features


class RecoveryDecoder(nn.Module):
    """The encoder's features -> decoded features at h/64, ..., h/2, and a picture (b, 3, h, w)."""

    def __init__(self, config: MADFConfig) -> None:
        super().__init__()
        self.up, self.merge = nn.ModuleList(), nn.ModuleList()
        for c_in, c in pairwise(config.decoder_channels):
            conv = nn.ConvTranspose2d(c_in, c, 4, stride=2, padding=1)
            self.up.append(nn.Sequential(conv, nn.BatchNorm2d(c), nn.LeakyReLU(0.2, inplace=True)))
            merge = nn.Conv2d(2 * c, c, 3, padding=1)
            self.merge.append(nn.Sequential(merge, nn.ReLU(inplace=True)))
        self.last_up = nn.ConvTranspose2d(config.width, 3, 4, stride=2, padding=1)
        self.last_merge = nn.Conv2d(6 + 3, 3, 3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        inputs, *skips, x = features
        decoded: list[Tensor] = []
        for up, merge, skip in zip(self.up, self.merge, reversed(skips), strict=True):
            x = merge(torch.cat([skip, up(x)], dim=1))  # (b, 8 * width, h/64, w/64) and so on
            decoded.append(x)
        return decoded, self.last_merge(torch.cat([inputs, self.last_up(x)], dim=1))


class PointwiseNorm(nn.Module):
    """PN: batch norm whose scale and bias at each position come from another feature map.

    x and condition (b, channels, h, w) -> (b, channels, h, w).
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.shared = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(inplace=True)
        )
        self.scale = nn.Conv2d(hidden, channels, 3, padding=1)
        self.bias = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shared = self.shared(condition)
        return self.norm(x) * (1 + self.scale(shared)) + self.bias(shared)


class RefinementDecoder(nn.Module):
    """Generates the picture again, conditioned on the features of the decoder before.

    index: number of refinements before it. Returns the same as RecoveryDecoder.
    """

    def __init__(self, config: MADFConfig, index: int) -> None:
        super().__init__()
        pairs = list(pairwise(config.decoder_channels))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(c_in, c, 4, stride=2, padding=1) for c_in, c in pairs
        )
        self.norms = nn.ModuleList(PointwiseNorm(c, 2 * config.width) for _, c in pairs)
        self.last = nn.Conv2d(config.width + 3 * (index + 1) + 6, 3, kernel_size=1)

    def forward(
        self, features: Sequence[Tensor], conditions: list[Tensor], pictures: list[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        inputs, x = features[0], features[-1]
        decoded: list[Tensor] = []
        for up, norm, condition in zip(self.up, self.norms, conditions, strict=True):
            x = F.leaky_relu(norm(up(x), condition), 0.2)  # (b, 8 * width, h/64, w/64) and so on
            decoded.append(x)
        x = F.interpolate(x, scale_factor=2, mode="bilinear")  # (b, width, h, w)
        return decoded, self.last(torch.cat([x, *pictures, inputs], dim=1))


class MADF(Inpainter):
    """Cascaded inpainter; see the module's header."""

    stride: ClassVar[int] = 128
    min_size: ClassVar[int] = 128

    mean: Tensor
    std: Tensor

    def __init__(self, config: MADFConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MADFConfig()
        self.encoder = Encoder(config)
        self.recovery = RecoveryDecoder(config)
        self.refinements = nn.ModuleList(
            RefinementDecoder(config, i) for i in range(config.num_refinements)
        )
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1), persistent=False)

    def run_stages(self, image: Tensor, mask: Tensor) -> list[Tensor]:
        """The output of each decoder, the last one the best: (b, 3, h, w), about in [0, 1].

        image: (b, 3, h, w), finite; its hole is ignored. mask: float (b, 1, h, w), 1 = hole.
        Sides: multiples of 128. In training, the loss weights increase from decoder to decoder.
        """
        valid = (1 - mask).expand_as(image)
        features = self.encoder((image - self.mean) / self.std * valid, valid)
        decoded, picture = self.recovery(features)
        pictures = [picture]
        for refinement in self.refinements:
            decoded, picture = refinement(features, decoded, pictures)
            pictures.append(picture)
        return [picture * self.std + self.mean for picture in pictures]

    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.run_stages(image, mask)[-1].clamp(0, 1)


def _list_rules() -> list[tuple[str, str]]:
    rules: list[tuple[str, str]] = []
    for i in range(1, 8):
        level, place = i - 1, 7 - i  # the encoder goes down, the decoders come up
        rules += [
            (rf"filter_gen_{i}\.conv\.0\.(\w+)", rf"encoder.levels.{level}.see.0.\1"),
            (rf"filter_gen_{i}\.conv1\.0\.(\w+)", rf"encoder.levels.{level}.filter_\1"),
            (rf"enc_up_{i}\.0\.(\w+)", rf"encoder.widen.{level}.0.\1"),
        ]
        if i > 1:
            rules += [
                (rf"deconv_{i}\.([01])\.(\w+)", rf"recovery.up.{place}.\1.\2"),
                (rf"att_conv_{i}\.conv\.0\.(\w+)", rf"recovery.merge.{place}.0.\1"),
                (rf"dec_ref(\d)_{i}\.deconv\.(\w+)", rf"refinements.\1.up.{place}.\2"),
            ]
            for old, new in (
                (r"batch_norm", "norm"),
                (r"mlp_shared\.0", "shared.0"),
                (r"mlp_scale", "scale"),
                (r"mlp_bias", "bias"),
            ):
                pattern = rf"dec_ref(\d)_{i}\.bn\.{old}\.(\w+)"
                rules.append((pattern, rf"refinements.\1.norms.{place}.{new}.\2"))
    return [
        *rules,
        (r"deconv_1\.0\.(\w+)", r"recovery.last_up.\1"),
        (r"att_conv_1\.conv\.0\.(\w+)", r"recovery.last_merge.\1"),
        (r"dec_ref(\d)_1\.(weight|bias)", r"refinements.\1.last.\2"),
    ]


_PREFIX = r"(?:model\.)?(?:module\.model\.)?"
_RULES = [(_PREFIX + pattern, new) for pattern, new in _list_rules()]
_DROP = [
    _PREFIX + r"enc_conv_\d\.bn\.\w+",  # never applied
    r"(?:model\.)?module\.extractor\..*",  # the VGG of their losses
]


def remap(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of a published checkpoint to ours; strict.

    state_dict: the file's content, {"model": ..., ...}, nested or with keys joined by dots, or its
    model alone, with or without the prefix module.model.
    """
    return rename_keys(state_dict.get("model", state_dict), _RULES, drop=_DROP)


def madf(**config: Any) -> MADF:
    """MADF at the published width; fields of MADFConfig as keyword arguments."""
    return MADF(MADFConfig(**config))


inpainters.register(
    "madf",
    madf,
    paper="Image Inpainting by End-to-End Cascaded Refinement with Mask Awareness, TIP 2021",
    licence="Apache-2.0 (the official code is GPL-3.0; none taken)",
    summary="85.1 M parameters, the published width",
    official=Official("MADF-inpainting/Pytorch-MADF@6fdbf44", "GPL-3.0", remap),
)
