"""IID-Net: "IID-Net: Image Inpainting Detection Network via Neural Architecture Search and
Attention".

Wu and Zhou, IEEE TCSVT 2022 (arXiv 2101.07419, there "GIID-Net"). Original code and weights:
HighwayWu/InpaintingForensics @144d26c, which states no licence for either. Written from the paper
and a fact sheet of that code; no code taken. Licence of this file: Apache-2.0, as the project.

Three convolutions amplify the traces of inpainting (enhancement), ten cells found by an
architecture search extract features at 1/8 of the photo's size (extraction), and attention over
similar and over nearby features precedes the decoder (decision).

Inside, photos are in [-1, 1]. The authors' weights need `faithful`. Only with it, as in their code:
- the input is BGR; by default it is RGB;
- the Bayar constraint applies only to the first of three output channels; the taps of the other
  two are multiplied by 10,000, with a centre of zero. By default all nine slices are constrained;
- the number of similar positions that are averaged depends on a mean over the batch, so that a
  photo's result depends on the other photos. By default it depends on the photo only;
- the 3x3 median of the logits has no padding, and its smaller map is resized by nearest neighbour.
  By default the border is repeated.

Differences from their code in both cases:
- their forward pass writes the constrained taps into the weights, which on one device multiplies
  them by 10,000 in every call; for this reason their README requires two or more devices. Here the
  constraint is a function of unchanged weights, and gradients pass through it;
- taps of the Bayar filters start positive, so that the division by their sum is safe;
- the logits are returned without their sigmoid; their loss applied a second one;
- sides that are no multiples of 8 are padded and the logits cropped (theirs are resized);
- the enhancement and the search for similar positions are float32 also under autocast.

Size: 5.78 M parameters at the published width of 32, 0.39 M at 8. A photo larger than one tile of
1024 pixels is processed in tiles, and similar positions are searched within each tile.

Not exported to ONNX: which positions are the most similar depends on rounding, so that logits of
two runtimes differ by several thousandths.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.detectors.base import Detector
from overpaint.errors import ConfigError
from overpaint.registry import Official, detectors
from overpaint.weights.rename_keys import rename_keys

# Operations of a cell, in the authors' numbers: 0 separable with a norm in between, 1 and 2
# separable 3x3 and 5x5, 3 none. The last operation has the cell's stride.
GENOTYPES = (
    (1, 3, 0),
    (2, 0, 0),
    (3, 2, 0),
    (1, 0, 1),
    (0, 2, 0),
    (0, 1, 0),
    (2, 3, 2),
    (3, 3, 0),
    (2, 2, 0),
    (0, 1, 3),
)
NUM_NARROW = 3  # cells without dilation

FIRST_DIFFERENCES = ((2, 1), (1, 2), (2, 2))  # row, column of the +1; the centre (1, 1) is -1

NEAR_KERNEL = (  # of the local attention, fixed by the authors
    (0.03598, 0.03735, 0.03997, 0.03713, 0.03579),
    (0.03682, 0.03954, 0.04446, 0.03933, 0.03673),
    (0.03864, 0.04242, 0.07146, 0.04239, 0.03859),
    (0.03679, 0.03936, 0.04443, 0.03950, 0.03679),
    (0.03590, 0.03720, 0.04003, 0.03738, 0.03601),
)
MAX_ALIKE = 15  # most similar positions in the global attention, including the position itself
MIN_COSINE = 0.5  # mean cosine of similar positions
ROWS = 1024  # rows of the similarity matrix in memory at a time


@dataclass(frozen=True, slots=True)
class IIDNetConfig:
    """Configuration of IID-Net."""

    width: int = 32
    """Channels of the first map; all later ones are 2, 4 and 8 times as wide."""
    faithful: bool = False
    """Follow the authors' code where their weights need it; see the module's header."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError("iidnet: width must be at least 1")


class Enhancement(nn.Module):
    """A free, a Bayar and a first-difference filter side by side: 3 -> 15 channels."""

    def __init__(self, faithful: bool) -> None:
        super().__init__()
        self.faithful = faithful
        self.free = nn.Conv2d(3, 3, 5, padding=2, bias=False)
        self.bayar = nn.Conv2d(3, 3, 5, padding=2, bias=False)
        nn.init.uniform_(self.bayar.weight, 0.5 / 24, 1.5 / 24)
        self.difference = nn.Conv2d(3, 9, 3, padding=1, bias=False)
        with torch.no_grad():
            self.difference.weight.copy_(make_difference_kernels())

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.free.weight.dtype)
            residual = F.conv2d(x, constrain_kernels(self.bayar.weight, self.faithful), padding=2)
            return torch.cat([self.free(x), residual, self.difference(x)], dim=1)


def make_difference_kernels() -> Tensor:
    """Kernels (9, 3, 3, 3): down, right, and both, three times, the same on every colour."""
    kernels = torch.zeros(3, 1, 3, 3)
    kernels[:, :, 1, 1] = -1
    for kernel, (row, column) in zip(kernels, FIRST_DIFFERENCES, strict=True):
        kernel[0, row, column] = 1
    return kernels.repeat(3, 3, 1, 1)


def constrain_kernels(weight: Tensor, faithful: bool = False) -> Tensor:
    """Taps (3, 3, 5, 5) under the constraint of Bayar and Stamm 2016, eq. 4.

    In each slice the centre is -1 and the other taps sum to 1. faithful: only in the slices of the
    first output channel; the others have 10,000 times their taps and a centre of 0.
    """
    centre = torch.zeros_like(weight[:1, :1])
    centre[..., 2, 2] = 1
    around = weight * (1 - centre)
    constrained = around / around.sum(dim=(2, 3), keepdim=True) - centre
    return torch.cat([constrained[:1], 1e4 * around[1:]]) if faithful else constrained


class Cell(nn.Module):
    """A residual cell of the search: a first convolution, then up to three separable ones."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        stride: int,
        dilation: int,
        genotype: tuple[int, ...],
        first: bool,
    ) -> None:
        super().__init__()
        operations = [
            _make_separable(c_in, c_out, 1, dilation),
            _make_operation(genotype[0], c_out, 1, dilation),
            _make_operation(genotype[1], c_out, 1, dilation),
            _make_operation(genotype[2], c_out, stride, 1),
        ]
        layers: list[nn.Module] = []
        for operation in operations:
            layers += [nn.ReLU(), operation, nn.BatchNorm2d(c_out)]
        self.layers = nn.Sequential(*layers[first:])  # the first cell's input is activated
        self.shortcut = None
        if stride != 1 or c_in != c_out:
            conv = nn.Conv2d(c_in, c_out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + (x if self.shortcut is None else self.shortcut(x))


def _make_operation(number: int, channels: int, stride: int, dilation: int) -> nn.Module:
    """An operation behind a ReLU; only the first kind is dilated."""
    if number == 0:
        return _make_separable(channels, channels, stride, dilation)
    if number == 3:
        return nn.Identity()
    return nn.Sequential(
        OrderedDict(
            depthwise=_make_depthwise(channels, {1: 3, 2: 5}[number], stride, 1),
            pointwise=nn.Conv2d(channels, channels, 1, bias=False),
            norm=nn.BatchNorm2d(channels, affine=False),
        )
    )


def _make_separable(c_in: int, c_out: int, stride: int, dilation: int) -> nn.Sequential:
    """A separable 3x3 convolution with a batch norm between its two parts."""
    return nn.Sequential(
        OrderedDict(
            depthwise=_make_depthwise(c_in, 3, stride, dilation),
            norm=nn.BatchNorm2d(c_in),
            pointwise=nn.Conv2d(c_in, c_out, 1, bias=False),
        )
    )


def _make_depthwise(channels: int, size: int, stride: int, dilation: int) -> nn.Conv2d:
    padding = dilation * (size // 2)
    return nn.Conv2d(
        channels, channels, size, stride, padding, dilation, groups=channels, bias=False
    )


class GlobalLocalAttention(nn.Module):
    """Attention over similar and over nearby features: (b, c, h, w) -> (b, 3c, h, w)."""

    near: Tensor

    def __init__(self, channels: int, faithful: bool) -> None:
        super().__init__()
        self.faithful = faithful
        kernel = torch.tensor(NEAR_KERNEL).expand(channels, 1, 5, 5)
        self.register_buffer("near", kernel.clone())

    def forward(self, x: Tensor) -> Tensor:
        near = F.conv2d(x, self.near.to(x.dtype), padding=2, groups=x.shape[1])
        return torch.cat([x, self._average_similar(x), near], dim=1)

    def _average_similar(self, x: Tensor) -> Tensor:
        """The mean of each position and those most similar to it: (b, c, h, w), as x."""
        places = x.flatten(2).mT  # (b, h*w, c)
        cosine, index = find_most_similar(places, MAX_ALIKE)
        num = self._count_similar(cosine)
        total = places
        for t in range(1, index.shape[2]):  # 0 is the place itself
            others = index[..., t, None].expand_as(places)
            total = total + places.gather(1, others) * (t < num)
        return (total / num).mT.reshape(x.shape)

    def _count_similar(self, cosine: Tensor) -> Tensor:
        """T, the number of averaged positions, from the best cosines (b, n, k): (b or 1, 1, 1).

        The last rank whose mean cosine is at least `MIN_COSINE`, where the position itself has
        rank 0; at least 2, if there are as many.
        """
        mean = cosine.mean(dim=(0, 1) if self.faithful else 1)  # (k) or (b, k)
        last = (mean >= MIN_COSINE).sum(dim=-1) - 1
        return last.clamp(min=2).clamp(max=cosine.shape[2]).reshape(-1, 1, 1)


@torch.no_grad()
def find_most_similar(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosine and index, (b, n, k) each, of the k rows of x (b, n, c) most similar to each row.

    Best first; fewer than k if x has fewer rows.
    """
    with torch.autocast(x.device.type, enabled=False):
        unit = F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=2)
        k = min(k, unit.shape[1])
        parts = [(rows @ unit.mT).topk(k) for rows in unit.split(ROWS, dim=1)]
    cosines, indices = zip(*parts, strict=True)
    return torch.cat(cosines, dim=1), torch.cat(indices, dim=1)


def median_3x3(x: Tensor) -> Tensor:
    """Median of each 3x3 window: (b, 1, h, w) -> (b, 1, h - 2, w - 2)."""
    b, _, h, w = x.shape
    return F.unfold(x, 3).median(dim=1).values.reshape(b, 1, h - 2, w - 2)


class IIDNet(Detector):
    """Inpainting detector; see the module's header."""

    stride: ClassVar[int] = 8

    def __init__(self, config: IIDNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or IIDNetConfig()
        c = config.width
        self.enhancement = Enhancement(config.faithful)
        self.entry = nn.Sequential(*_make_entry(15, c, stride=2), *_make_entry(c, 2 * c, stride=1))
        widths = (2 * c, 4 * c, *[8 * c] * (len(GENOTYPES) - 1))
        self.cells = nn.Sequential(
            *(
                Cell(
                    *channels,
                    stride=2 if i < 2 else 1,
                    dilation=1 if i < NUM_NARROW else 2,
                    genotype=genotype,
                    first=i == 0,
                )
                for i, (channels, genotype) in enumerate(
                    zip(pairwise(widths), GENOTYPES, strict=True)
                )
            )
        )
        self.attention = GlobalLocalAttention(8 * c, config.faithful)
        self.decoder = nn.Sequential(
            nn.UpsamplingBilinear2d(scale_factor=2),
            *_make_decoder(24 * c, 8 * c),
            *_make_decoder(8 * c, 8 * c),
            nn.UpsamplingBilinear2d(scale_factor=2),
            *_make_decoder(8 * c, 8 * c),
            *_make_decoder(8 * c, 8 * c),
            nn.UpsamplingBilinear2d(scale_factor=2),
            nn.Conv2d(8 * c, 1, 3, padding=1),
        )

    def _compute_logits(self, image: Tensor) -> Tensor:
        x = 2 * image - 1
        x = self.enhancement(x.flip(1) if self.config.faithful else x)  # (b, 15, h, w)
        x = self.cells(self.entry(x))  # (b, 2c, h/2, w/2) -> (b, 8c, h/8, w/8)
        logits = self.decoder(self.attention(x)).float()  # (b, 24c, ...) -> (b, 1, h, w)
        if self.config.faithful:
            return F.interpolate(median_3x3(logits), size=image.shape[-2:])
        return median_3x3(F.pad(logits, (1, 1, 1, 1), mode="replicate"))


def _make_entry(c_in: int, c_out: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]


def _make_decoder(c_in: int, c_out: int) -> list[nn.Module]:
    return [nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]


_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_CELL_RULES = tuple(
    (rf"cell{i + 1}\.{pattern}", rf"cells.{i}.{to}")
    for i in range(len(GENOTYPES))
    for pattern, to in (
        (r"skip\.weight", r"shortcut.0.weight"),
        (rf"skipbn\.{_NORM}", r"shortcut.1.\1"),
        (r"rep\.(\d+)\.conv1\.weight", r"layers.\1.depthwise.weight"),
        (rf"rep\.(\d+)\.bn\.{_NORM}", r"layers.\1.norm.\2"),
        (r"rep\.(\d+)\.pointwise\.weight", r"layers.\1.pointwise.weight"),
        (r"rep\.(\d+)\.op\.1\.weight", r"layers.\1.depthwise.weight"),
        (r"rep\.(\d+)\.op\.2\.weight", r"layers.\1.pointwise.weight"),
        (rf"rep\.(\d+)\.op\.3\.{_NORM}", r"layers.\1.norm.\2"),
        (rf"rep\.(\d+)\.{_NORM}", r"layers.\1.\2"),
    )
)
_RULES = tuple(
    (rf"(?:module\.)?{pattern}", to)
    for pattern, to in (
        (r"normal_conv\.weight", "enhancement.free.weight"),
        (r"bayar_conv\.weight", "enhancement.bayar.weight"),
        (r"pf_conv\.weight", "enhancement.difference.weight"),
        (r"conv1\.weight", "entry.0.weight"),
        (rf"bn1\.{_NORM}", r"entry.1.\1"),
        (r"conv2\.weight", "entry.3.weight"),
        (rf"bn2\.{_NORM}", r"entry.4.\1"),
        *_CELL_RULES,
        (r"att\.local_att\.weight", "attention.near"),
        (rf"decision\.(\d+)\.{_NORM}", r"decoder.\1.\2"),
    )
)


def remap(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the published network (`IID_weights.pth`) to ours; strict.

    The weight of its median, which no computation uses, is left out.
    """
    return rename_keys(state_dict, _RULES, drop=[r"(?:module\.)?median\.weight"])


def iidnet(**config: Any) -> IIDNet:
    """IID-Net at the published width; fields of IIDNetConfig as keyword arguments."""
    return IIDNet(IIDNetConfig(**config))


OFFICIAL = Official(
    repository="HighwayWu/InpaintingForensics@144d26c",
    licence="none stated: all rights reserved by the authors",
    remap=remap,
    config={"faithful": True},
    files=("IID_weights.pth",),
)

detectors.register(
    "iidnet",
    iidnet,
    paper="IID-Net: Image Inpainting Detection Network via Neural Architecture Search and "
    "Attention, TCSVT 2022, arXiv:2101.07419",
    licence="Apache-2.0 (the official code and weights state no licence; none taken)",
    summary="5.8 M parameters, the published width",
    official=OFFICIAL,
)
