"""CTSDG: "Image Inpainting via Conditional Texture and Structure Dual Generation", ICCV 2021.

Guo, Yang and Huang, arXiv:2108.09760. Original code and weights: Xiefan-Guo/CTSDG @def0274, MIT.
Written from the paper, a fact sheet and a reading of that code; no code copied; compared with its
outputs. Licence of this file: Apache-2.0, as the project.

Two U-Nets of partial convolutions work in parallel: one generates the texture from the code of the
structure, the other the structure (edges and grey) from the code of the texture. Bi-directional
gated feature fusion joins them; contextual feature aggregation copies from distant patches.

Inside, photos are in [-1, 1], the mask is 1 where pixels are known, and holes are 0, mid-grey.
Edges are 0 or 1, grey is in [0, 1]. The output is a tanh.

Choices of this implementation, and differences from the paper or the authors' code:
- edges (Canny's, scikit-image, extra `classical`; sigma 2) are those of the known region. The
  authors find them in the whole photo and mask the hole afterwards, so that edges at its border
  contain information about its content;
- the authors' loader converts photos in [-1, 1] to 8 bits before it computes grey and edges, where
  negative values overflow: `folded=True`, which their weights need. Without it, photos are in
  [0, 1];
- validity is one channel for each of two joined feature maps, expanded only where they join;
- a weight of the softmax over patches below 1e-8 is not raised to it: these weights sum to at most
  4e-5 at 256 x 256, and attention then needs no matrix of all scores;
- generator and discriminator return edges and patch scores as logits: the sigmoid belongs to the
  loss.

Size at the published width, in parameters: 52.15 M; discriminator 5.53 M. At width 10: 1.28 M.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.errors import ConfigError
from overpaint.inpainters.base import Inpainter
from overpaint.inpainters.classical import import_optional
from overpaint.inpainters.edgeconnect import find_canny_edges, to_grey
from overpaint.layers.partial import PartialConv2d
from overpaint.layers.patchgan import PatchDiscriminator
from overpaint.registry import Official, inpainters
from overpaint.weights.rename_keys import rename_keys

SIGMA = 2.0  # of the Gaussian before Canny's gradient, pixels
KERNEL_SIZES = (7, 5, 5, 3, 3, 3, 3)  # of the encoders' levels; each halves the sides
DILATIONS = (1, 2, 4, 8)
SHARPNESS = 10.0  # of the softmax over patches
SMALLEST_NORM = 1e-4
PASTED = {"kernel_size": 4, "stride": 2, "padding": 1}  # patches that are pasted


@dataclass(frozen=True, slots=True)
class CTSDGConfig:
    """Configuration of CTSDG."""

    width: int = 64
    """Channels at full resolution; all others are multiples of it or a fourth."""
    folded: bool = False
    """Grey and edges of the photo with the authors' overflow; see the module's header."""

    def __post_init__(self) -> None:
        if self.width < 4:
            raise ConfigError("ctsdg: width must be at least 4")

    @property
    def channels(self) -> list[int]:
        """Of the encoders' levels."""
        return [self.width * n for n in (1, 2, 4, 8, 8, 8, 8)]


class PartialBlock(nn.Module):
    """Partial convolution, batch norm (or none) and activation: (x, validity) -> the same."""

    def __init__(
        self, conv: PartialConv2d, activation: nn.Module, *, normalised: bool = True
    ) -> None:
        super().__init__()
        self.conv = conv
        norm = nn.BatchNorm2d(conv.conv.out_channels) if normalised else nn.Identity()
        self.norm, self.activation = norm, activation

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        x, valid = self.conv(x, valid)
        return self.activation(self.norm(x)), valid


class Encoder(nn.Module):
    """(b, in_channels, h, w) and validity (b, 1, h, w) -> both at h, h/2, ..., h/128."""

    def __init__(self, in_channels: int, config: CTSDGConfig) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        pairs = pairwise([in_channels, *config.channels])
        for i, ((c_in, c), k) in enumerate(zip(pairs, KERNEL_SIZES, strict=True)):
            conv = PartialConv2d(c_in, c, k, stride=2, padding=k // 2, bias=False)
            self.levels.append(PartialBlock(conv, nn.ReLU(), normalised=i > 0))

    def forward(self, x: Tensor, valid: Tensor) -> list[tuple[Tensor, Tensor]]:
        features = [(x, valid)]
        for level in self.levels:
            features.append(level(*features[-1]))
        return features


class Decoder(nn.Module):
    """The other encoder's code and this one's features -> (b, width, h, w)."""

    def __init__(self, in_channels: int, config: CTSDGConfig) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        skips = [*config.channels[-2::-1], in_channels]
        outputs = [*config.channels[-2::-1], config.width]
        for c_in, skip, c in zip([config.channels[-1], *outputs], skips, outputs, strict=False):
            conv = PartialConv2d(c_in + skip, c, 3, padding=1, bias=False)
            self.levels.append(PartialBlock(conv, nn.LeakyReLU(0.2)))

    def forward(self, code: tuple[Tensor, Tensor], features: list[tuple[Tensor, Tensor]]) -> Tensor:
        x, valid = code
        for level, (skip, skip_valid) in zip(self.levels, reversed(features[:-1]), strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
            valid = F.interpolate(valid, scale_factor=2, mode="nearest")
            spread_out = [v.expand_as(t) for v, t in ((valid, x), (skip_valid, skip))]
            x, valid = level(torch.cat([x, skip], dim=1), torch.cat(spread_out, dim=1))
        return x


class Projection(nn.Module):
    """A residual block, and a projection of the features: (b, c, h, w) -> (b, n, h, w)."""

    def __init__(self, channels: int, inner: int, out_channels: int, bias: bool = False) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels, inner, 3, padding=1, bias=bias),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, channels, 3, padding=1, bias=bias),
            nn.BatchNorm2d(channels),
        )
        self.last = nn.Conv2d(channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last((x + self.residual(x)).relu())


class GatedFusion(nn.Module):
    """Bi-GFF: texture and structure (b, c, h, w), each with a gated share of the other, joined.

    The structure takes its share of the texture that has taken its own. Shares start at zero.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.structure_gate = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.texture_gate = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.structure_gamma = nn.Parameter(torch.zeros(1))
        self.texture_gamma = nn.Parameter(torch.zeros(1))

    def forward(self, texture: Tensor, structure: Tensor) -> Tensor:
        both = torch.cat([texture, structure], dim=1)
        to_texture = torch.sigmoid(self.structure_gate(both))
        to_structure = torch.sigmoid(self.texture_gate(both))
        texture = texture + self.texture_gamma * (to_texture * structure)
        structure = structure + self.structure_gamma * (to_structure * texture)
        return torch.cat([texture, structure], dim=1)  # (b, 2c, h, w)


def learn_region_affinity(x: Tensor) -> Tensor:
    """RAL: each position of the features (b, c, h, w) as a weighted sum of patches of the map.

    Patches are compared at half the size, 3x3, and pasted at full size, 4x4. No parameters; h and w
    even. In float32 under autocast, because the scores are exponents.
    """
    with torch.autocast(x.device.type, enabled=False):
        wide = x.float()
        values = F.unfold(wide, **PASTED).mT.contiguous()  # (b, l, 16 c)
        small = F.interpolate(wide, scale_factor=0.5, mode="bilinear", align_corners=True)
        queries = F.unfold(small, 3, padding=1).mT.contiguous()  # (b, l, 9 c)
        # The floor is under the root, where an all-zero patch would have no finite gradient.
        norm = queries.square().sum(dim=2, keepdim=True).clamp(min=SMALLEST_NORM**2).sqrt()
        # Keys have equal length, so fused attention, without a matrix of all scores, is possible.
        padding = (0, values.shape[2] - queries.shape[2])
        queries, keys = F.pad(queries, padding), F.pad(queries / norm, padding)
        attended = F.scaled_dot_product_attention(
            queries[:, None], keys[:, None], values[:, None], scale=SHARPNESS
        )
        summed = F.fold(attended[:, 0].mT, x.shape[2:], **PASTED)  # a pixel is in four patches
        return summed.to(x.dtype) / 4


class MultiScaleAggregation(nn.Module):
    """MSFA: convolutions of four dilations, weighted at each position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dilated = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, dilation=d, padding=d) for d in DILATIONS
        )
        self.weigh = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, len(DILATIONS), kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Softmax(dim=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        scales = torch.stack([conv(x).relu() for conv in self.dilated], dim=1)  # (b, 4, c, h, w)
        return (self.weigh(x)[:, :, None] * scales).sum(dim=1)


class Aggregation(nn.Module):
    """CFA and the layers around it: fused features (b, 2c, h, w) -> (b, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(2 * channels, channels, 3, stride=2, padding=1)
        self.scales = MultiScaleAggregation(channels)
        self.after = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.before(x), 0.2)  # (b, c, h/2, w/2)
        from_afar = self.scales(learn_region_affinity(x))
        x = F.leaky_relu(self.after(torch.cat([x, from_afar], dim=1)), 0.2)
        return F.interpolate(x, scale_factor=2, mode="bilinear")


@dataclass(frozen=True, slots=True)
class Stages:
    """Intermediate and final outputs for a batch."""

    fill: Tensor
    """(b, 3, h, w) in [0, 1]: the generated picture, including known pixels."""
    texture: Tensor
    """(b, 3, h, w) in [0, 1]: the picture projected from the texture's features."""
    edge_logits: Tensor
    """(b, 1, h, w): the edges projected from the structure's features."""


class CTSDG(Inpainter):
    """Inpainter of texture and structure; see the module's header.

    Sides are at least 256 pixels: at 128 the deepest batch norms would get a single position.
    """

    stride: ClassVar[int] = 128
    min_size: ClassVar[int] = 256

    def __init__(self, config: CTSDGConfig | None = None) -> None:
        super().__init__()
        import_optional("skimage.feature")  # fails here and not at the first photo
        self.config = config = config or CTSDGConfig()
        self.texture_encoder, self.structure_encoder = Encoder(3, config), Encoder(2, config)
        self.texture_decoder, self.structure_decoder = Decoder(3, config), Decoder(2, config)
        self.texture_projection = Projection(config.width, config.width // 4, 3)
        self.structure_projection = Projection(config.width, config.width // 4, 1)
        self.fuse = GatedFusion(config.width)
        self.aggregate = Aggregation(config.width)
        self.last = nn.Conv2d(3 * config.width, 3, kernel_size=1)
        self.apply(_initialise)

    def find_structure(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Edges and grey of a photo (b, 3, h, w), edges of its known region: (b, 2, h, w)."""
        grey = to_grey(wrap_8_bit(image) if self.config.folded else image)
        known = None if mask is None else 1 - mask
        return torch.cat([find_canny_edges(grey, SIGMA, known), grey], dim=1)

    def run_stages(self, image: Tensor, mask: Tensor, structure: Tensor | None = None) -> Stages:
        """Outputs for training. Sides: multiples of 128, at least 256 pixels.

        image: (b, 3, h, w), finite; its hole is ignored. mask: float (b, 1, h, w), 1 = hole.
        structure: (b, 2, h, w), where it is known already; its hole is ignored, too.
        """
        valid = 1 - mask
        structure = self.find_structure(image, mask) if structure is None else structure
        textures = self.texture_encoder((2 * image - 1) * valid, valid)
        structures = self.structure_encoder(structure * valid, valid)
        texture = self.texture_decoder(structures[-1], textures)  # (b, width, h, w)
        structure = self.structure_decoder(textures[-1], structures)
        fused = self.fuse(texture, structure)  # (b, 2 * width, h, w)
        fill = torch.tanh(self.last(torch.cat([self.aggregate(fused), fused], dim=1)))
        shown = torch.tanh(self.texture_projection(texture))
        return Stages((fill + 1) / 2, (shown + 1) / 2, self.structure_projection(structure))

    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.run_stages(image, mask).fill


def wrap_8_bit(image: Tensor) -> Tensor:
    """A photo in [0, 1] after the authors' conversion of 2 x - 1 to 8 bits, with its overflow."""
    return (255 * (2 * image - 1)).trunc().remainder(256) / 255


class EdgeDetector(nn.Sequential):
    """Edges of a picture in [-1, 1], learned: (b, 3, h, w) -> logits (b, 1, h, w)."""

    def __init__(self, channels: int = 16) -> None:
        conv = nn.Conv2d(3, channels, 3, padding=1)
        showing = Projection(channels, channels, 1, bias=True)
        super().__init__(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True), showing)


class DualDiscriminator(nn.Module):
    """Scores a picture's texture, and its structure: grey with real or detected edges."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.texture = PatchDiscriminator(3, width)
        self.structure = PatchDiscriminator(2, width)
        self.detect = EdgeDetector()

    def forward(
        self, image: Tensor, grey: Tensor, edges: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Patches' logits (b, 2, about h/8, about w/8), and logits of the image's edges.

        image: (b, 3, h, w) in [0, 1], real or filled in. grey: (b, 1, h, w), of the real photo.
        edges: (b, 1, h, w) in [0, 1] of a real photo; None, for the detected ones of a fill.
        """
        image = 2 * image - 1
        detected = self.detect(image)
        edges = torch.sigmoid(detected) if edges is None else edges
        structure = self.structure(torch.cat([edges, grey], dim=1))
        return torch.cat([self.texture(image), structure], dim=1), detected


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, mean=1.0, std=0.02)


def _list_rules() -> list[tuple[str, str]]:
    rules: list[tuple[str, str]] = []
    for i in range(1, 8):
        for old, new, place in (("ec", "encoder", i - 1), ("dc", "decoder", 7 - i)):
            level = rf"\1_{new}.levels.{place}"
            start = rf"{old}_(texture|structure)_{i}\."
            rules.append((start + r"conv\.weight", f"{level}.conv.conv.weight"))
            rules.append((start + r"bn\.(\w+)", rf"{level}.norm.\2"))
    start = r"(texture|structure)_feature_projection\."
    for old, place in (("conv1", 0), ("bn1", 1), ("conv2", 3), ("bn2", 4)):
        pattern = rf"{start}\1_resolver\.{old}\.(\w+)"
        rules.append((pattern, rf"\1_projection.residual.{place}.\2"))
    return [
        *rules,
        (start + r"out_layer\.0\.(\w+)", r"\1_projection.last.\2"),
        (r"bigff\.(\w+_gamma)", r"fuse.\1"),
        (r"bigff\.(\w+_gate)\.0\.(\w+)", r"fuse.\1.\2"),
        (r"fusion_layer1\.0\.(\w+)", r"aggregate.before.\1"),
        (r"fusion_layer2\.0\.(\w+)", r"aggregate.after.\1"),
        (r"cfa\.msfa\.dilated_conv_([0-3])\.0\.(\w+)", r"aggregate.scales.dilated.\1.\2"),
        (r"cfa\.msfa\.weight_calc\.([02])\.(\w+)", r"aggregate.scales.weigh.\1.\2"),
        (r"out_layer\.0\.(\w+)", r"last.\1"),
    ]


_RULES = [(rf"(?:generator\.)?{pattern}", new) for pattern, new in _list_rules()]


def remap(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of a published checkpoint's generator to ours; strict.

    state_dict: the file's content, {"generator": ..., "discriminator": ..., ...}, nested or with
    keys joined by dots, or its generator alone.
    """
    return rename_keys(
        state_dict.get("generator", state_dict), _RULES, drop=[r"discriminator\..*", "n_iter"]
    )


def ctsdg(**config: Any) -> CTSDG:
    """CTSDG at the published width; fields of CTSDGConfig as keyword arguments."""
    return CTSDG(CTSDGConfig(**config))


OFFICIAL = Official("Xiefan-Guo/CTSDG@def0274", "MIT", remap, config={"folded": True})
inpainters.register(
    "ctsdg",
    ctsdg,
    paper="Image Inpainting via Conditional Texture and Structure Dual Generation, ICCV 2021",
    licence="Apache-2.0 (the official code and weights are MIT; none taken)",
    summary="52.1 M parameters, the published width",
    official=OFFICIAL,
)
