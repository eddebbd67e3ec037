"""PSCC-Net: "PSCC-Net: Progressive Spatio-Channel Correlation Network for Image Manipulation
Detection and Localization".

Liu, Liu, Chen and Liu, IEEE TCSVT 2022 (arXiv 2103.10596). Original code and weights:
proteus1991/PSCC-Net @53e5ff7, both MIT. Written from the paper and a fact sheet of that code; no
code taken. Licence of this file: Apache-2.0, as the project.

A small HRNet (W18 small v2, with a stem that keeps the photo's size) gives maps at 1, 1/2, 1/4
and 1/8. From the coarsest map to the finest, each map is correlated with itself over positions and
over channels and gives a mask, which weights the next finer map. Another head scores the whole
photo.

The authors' weights need `faithful`. Only with it, as in their code:
- the maps are resized to those of a photo of 256x256 before both heads, for photos of any size, and
  the mask's probabilities are resized back. By default the heads get the maps at their own size;
- a map is reduced by r for the correlation with a plain reshape, which turns r*r horizontal bands
  into channels. By default the r*r pixels of a square become channels (pixel unshuffle);
- the result of the channel correlation, (positions, channels), is read as if it were (channels,
  positions). By default it is transposed.

Differences from their code in both cases:
- sides that are no multiples of 8 are padded and the logits cropped;
- the masks are logits, and the two classes of the whole photo become one logit;
- the backbone starts from random values of He et al. 2015 (theirs: of ImageNet);
- the correlation over positions is computed without keeping the matrix of n x n in memory; that
  over channels is float32 also under autocast, because its sums run over all positions.

As in the paper, no correlation is divided by the number of its terms: use photos, or tiles, of
about the size that the network was trained with. The cost of the correlations grows with the
square of the photo's area. A photo larger than one tile of 512 pixels is processed in tiles, which
are not correlated with each other; the photo's score is the highest of a tile.

Size: 3.67 M parameters as published, 0.71 M with a stem of 16 and widths 8/16/32/64.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.detectors.base import Detector, Findings
from overpaint.detectors.psccnet_hrnet import (
    BLOCK,
    CONV_NORM,
    Backbone,
    Bottleneck,
    ConvNorm,
    list_backbone_rules,
    resize,
)
from overpaint.errors import ConfigError
from overpaint.registry import Official, detectors, parts
from overpaint.weights.rename_keys import rename_keys

HEAD_SIZE = 256  # side of the photo to whose maps the authors' code resizes, pixels
REDUCTIONS = (4, 2, 2, 1)  # of the maps, finest first, before they are correlated


@dataclass(frozen=True, slots=True)
class PSCCNetConfig:
    """Configuration of PSCC-Net."""

    stem: int = 64
    """Channels of the first convolutions."""
    widths: tuple[int, int, int, int] = (18, 36, 72, 144)
    """Channels of the maps at 1, 1/2, 1/4 and 1/8 of the photo's size."""
    faithful: bool = False
    """Follow the authors' code where their weights need it; see the module's header."""
    image_head: bool = True
    """Whether there is a head that scores the whole photo."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))  # JSON and YAML give lists
        if len(self.widths) != 4 or min(self.stem, *self.widths) < 1:
            raise ConfigError(
                f"psccnet: stem must be positive and widths four positive numbers, not "
                f"{self.stem} and {self.widths}"
            )


class SpatioChannelCorrelation(nn.Module):
    """Attention over positions and channels, and a mask (section III-B): logits (b, 1, h, w)."""

    def __init__(self, channels: int, reduction: int, faithful: bool) -> None:
        super().__init__()
        self.reduction, self.faithful = reduction, faithful
        inner = channels * reduction**2
        self.value, self.query, self.key = (nn.Conv2d(inner, inner, 1) for _ in range(3))
        self.from_places = nn.Conv2d(channels, channels, 1)
        self.from_channels = nn.Conv2d(channels, channels, 1)
        self.weight_places = nn.Parameter(torch.ones(1))
        self.weight_channels = nn.Parameter(torch.ones(1))
        self.mask = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        small = self._fold(x)  # (b, inner, h/r, w/r)
        convs = (self.value, self.query, self.key)
        value, query, key = (conv(small).flatten(2) for conv in convs)  # (b, inner, n)
        places = _attend_places(query, key, value).reshape(small.shape)
        channels = _attend_channels(query, key, value)
        if self.faithful:
            channels = channels.transpose(1, 2)
        channels = channels.reshape(small.shape)
        z = x + self.weight_places * self.from_places(self._unfold(places, x))
        z = z + self.weight_channels * self.from_channels(self._unfold(channels, x))
        return self.mask(z)

    def _fold(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c * r * r, h / r, w / r)."""
        if not self.faithful:
            return F.pixel_unshuffle(x, self.reduction)
        b, c, h, w = x.shape
        r = self.reduction
        return x.reshape(b, c * r * r, h // r, w // r)

    def _unfold(self, small: Tensor, x: Tensor) -> Tensor:
        """The inverse, to the shape of x."""
        return small.reshape(x.shape) if self.faithful else F.pixel_shuffle(small, self.reduction)


def _attend_places(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """For each position the mean of all, weighted by similarity; all (b, c, n)."""
    # (b, 1, n, c), contiguous rows: otherwise the matrix of n x n would be kept in memory
    q, k, v = (x.transpose(1, 2).unsqueeze(1).contiguous() for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, scale=1.0).squeeze(1).transpose(1, 2)


def _attend_channels(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """For each channel the sum of all, weighted by the softmax of their products; all (b, c, n)."""
    with torch.autocast(query.device.type, enabled=False):
        dtype = torch.promote_types(query.dtype, torch.float32)
        products = query.to(dtype) @ key.to(dtype).transpose(1, 2)
        weights = torch.softmax(products, dim=-1)  # (b, c, c)
        return (weights.transpose(1, 2) @ value.to(dtype)).to(value.dtype)


class ImageHead(nn.Module):
    """From four maps to the logit of the whole photo, (b,)."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.widening = nn.ModuleList(Bottleneck(c, c, 2) for c in widths)
        self.downward = nn.ModuleList(
            ConvNorm(2 * fine, 2 * coarse, stride=2, bias=True) for fine, coarse in pairwise(widths)
        )
        self.last = ConvNorm(2 * widths[-1], 128, size=1, bias=True)
        self.classifier = nn.Sequential(nn.Linear(128, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x = self.widening[0](maps[0])
        for widening, downward, finer in zip(
            self.widening[1:], self.downward, maps[1:], strict=True
        ):
            x = widening(finer) + downward(x)
        authentic, forged = self.classifier(self.last(x).mean(dim=(2, 3))).unbind(dim=1)
        return forged - authentic


@dataclass(frozen=True, slots=True)
class Stages:
    """The logits of all heads, for training."""

    masks: tuple[Tensor, Tensor, Tensor, Tensor]
    """(b, 1, ., .) at 1, 1/2, 1/4 and 1/8 of the heads' size, which is the photo's or 256."""
    score: Tensor | None
    """(b,), of the whole photo; None without its head."""


class PSCCNet(Detector):
    """Manipulation detector; see the module's header."""

    stride: ClassVar[int] = 8
    tile = 512

    def __init__(self, config: PSCCNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PSCCNetConfig()
        self.backbone = Backbone(config.stem, config.widths)
        self.correlations = nn.ModuleList(
            SpatioChannelCorrelation(c, reduction, config.faithful)
            for c, reduction in zip(config.widths, REDUCTIONS, strict=True)
        )
        self.image_head = ImageHead(config.widths) if config.image_head else None

    def run_stages(self, image: Tensor) -> Stages:
        """All heads' logits for a photo (b, 3, h, w) in [0, 1]; sides: multiples of 8."""
        maps = self.backbone(image)
        if self.config.faithful:
            maps = [resize(x, [HEAD_SIZE >> i] * 2) for i, x in enumerate(maps)]
        masks: list[Tensor] = []
        for x, correlation in zip(maps[::-1], self.correlations[::-1], strict=True):
            if masks:  # the coarser one
                x = x * resize(torch.sigmoid(masks[-1]), x.shape[-2:])
            masks.append(correlation(x))
        coarsest, coarse, fine, finest = masks
        score = None if self.image_head is None else self.image_head(maps)
        return Stages((finest, fine, coarse, coarsest), score)

    def _compute_logits(self, image: Tensor) -> Findings:
        stages = self.run_stages(image)
        return Findings(_resize_logits(image.shape[-2:], stages.masks[0]), stages.score)


def _resize_logits(size: Sequence[int], mask: Tensor) -> Tensor:
    """Logits whose probabilities are those of `mask` brought to `size`."""
    if list(mask.shape[-2:]) == list(size):
        return mask
    return torch.logit(resize(torch.sigmoid(mask.float()), size), eps=1e-6)


_CORRELATION = (
    ("g", "value"),
    ("theta", "query"),
    ("phi", "key"),
    ("W_s", "from_places"),
    ("W_c", "from_channels"),
    (r"getmask\.(?P<part>[02])", r"mask.\g<part>"),
)


def _list_correlation_rules() -> Iterator[tuple[str, str]]:
    for i in range(4):
        yield rf"getmask{i + 1}\.gamma_s", f"{i}.weight_places"
        yield rf"getmask{i + 1}\.gamma_c", f"{i}.weight_channels"
        for pattern, to in _CORRELATION:
            pattern = rf"getmask{i + 1}\.{pattern}\.(?P<value>weight|bias)"
            yield pattern, rf"{i}.{to}.\g<value>"


def _list_image_head_rules() -> Iterator[tuple[str, str]]:
    for pattern, to in BLOCK:
        yield rf"incre_modules\.(\d)\.0\.{pattern}", rf"widening.\1.{to}"
    yield rf"downsamp_modules\.(\d)\.{CONV_NORM[0]}", rf"downward.\1.{CONV_NORM[1]}"
    yield rf"final_layer\.{CONV_NORM[0]}", rf"last.{CONV_NORM[1]}"
    yield r"classifier\.([02])\.(weight|bias)", r"classifier.\1.\2"


_RULES = [
    (rf"{file}\.(?:module\.)?{pattern}", f"{to_part}.{to}")
    for file, to_part, rules in (
        ("HRNet", "backbone", list_backbone_rules()),
        ("NLCDetection", "correlations", _list_correlation_rules()),
        ("DetectionHead", "image_head", _list_image_head_rules()),
    )
    for pattern, to in rules
]


def remap(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the three published files to ours; strict.

    state_dict: their tensors, each under the file's name (HRNet, NLCDetection, DetectionHead), a
    dot and the published key.
    """
    return rename_keys(state_dict, _RULES)


def psccnet(**config: Any) -> PSCCNet:
    """PSCC-Net at the published widths; fields of PSCCNetConfig as keyword arguments."""
    return PSCCNet(PSCCNetConfig(**config))


def psccnet_heads(**config: Any) -> nn.ModuleDict:
    """The heads of PSCC-Net, without its backbone; fields of PSCCNetConfig."""
    whole = PSCCNet(PSCCNetConfig(**config))
    assert whole.image_head is not None, "as of every configuration of the heads"
    return nn.ModuleDict({"correlations": whole.correlations, "image_head": whole.image_head})


OFFICIAL = Official(
    repository="proteus1991/PSCC-Net@53e5ff7",
    licence="MIT (the repository's)",
    remap=remap,
    config={"faithful": True},
    files=("HRNet.pth", "NLCDetection.pth", "DetectionHead.pth"),
    without={"DetectionHead.pth": {"image_head": False}},
)

detectors.register(
    "psccnet",
    psccnet,
    paper="PSCC-Net: Progressive Spatio-Channel Correlation Network for Image Manipulation "
    "Detection and Localization, TCSVT 2022, arXiv:2103.10596",
    licence="Apache-2.0 (the official code and weights are MIT; none taken)",
    summary="3.7 M parameters, the published widths",
    official=OFFICIAL,
)

parts.register(
    "psccnet-heads",
    psccnet_heads,
    paper="PSCC-Net, TCSVT 2022, arXiv:2103.10596",
    licence="Apache-2.0 (the official code and weights are MIT; none taken)",
    summary="the heads of PSCC-Net, for trainings with another backbone",
    official=Official(
        repository=OFFICIAL.repository,
        licence=OFFICIAL.licence,
        remap=remap,
        config=OFFICIAL.config,
        files=("NLCDetection.pth", "DetectionHead.pth"),
    ),
)
