"""HRNet as in PSCC-Net: four maps of a photo at 1, 1/2, 1/4 and 1/8 of its size.

Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", TPAMI 2021
(arXiv 1908.07919), in the size W18 small v2; PSCC-Net, TCSVT 2022 (arXiv 2103.10596), whose stem
has no strides, so that the finest map has the photo's size. Original code:
proteus1991/PSCC-Net @53e5ff7 and HRNet/HRNet-Semantic-Segmentation, both MIT. Written from the
papers and a fact sheet; no code taken. Licence of this file: Apache-2.0, as the project.

Its initial values are random, after He et al. 2015 (PSCC-Net starts from ImageNet weights).
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NUM_BLOCKS = 2  # residual blocks of a branch
MOMENTUM = 0.01  # of the batch norms


class ConvNorm(nn.Sequential):
    """A convolution that keeps (or halves) the size, batch norm and, if wanted, ReLU."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        size: int = 3,
        stride: int = 1,
        bias: bool = False,
        relu: bool = True,
    ) -> None:
        conv = nn.Conv2d(c_in, c_out, size, stride, padding=size // 2, bias=bias)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        norm = nn.BatchNorm2d(c_out, momentum=MOMENTUM)
        super().__init__(conv, norm, *([nn.ReLU()] if relu else []))


class Basic(nn.Module):
    """Residual block of two 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_1 = ConvNorm(channels, channels)
        self.conv_2 = ConvNorm(channels, channels, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv_2(self.conv_1(x)) + x)


class Bottleneck(nn.Module):
    """Residual block of a 1x1, a 3x3 and a 1x1 convolution: c_in -> expansion * inner channels."""

    def __init__(self, c_in: int, inner: int, expansion: int) -> None:
        super().__init__()
        c_out = expansion * inner
        self.conv_1 = ConvNorm(c_in, inner, size=1)
        self.conv_2 = ConvNorm(inner, inner)
        self.conv_3 = ConvNorm(inner, c_out, size=1, relu=False)
        self.shortcut = ConvNorm(c_in, c_out, size=1, relu=False) if c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv_3(self.conv_2(self.conv_1(x)))
        return F.relu(inner + (x if self.shortcut is None else self.shortcut(x)))


class Exchange(nn.Module):
    """Parallel branches; then each map becomes the sum of all, resized to its size (HRNet)."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(Basic(c) for _ in range(NUM_BLOCKS))) for c in widths
        )
        ranks = range(len(widths))
        self.fusions = nn.ModuleList(
            nn.ModuleList(_make_fusion(widths, source, target) for source in ranks)
            for target in ranks
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for x, fusions in zip(maps, self.fusions, strict=True):
            pairs = zip(fusions, maps, strict=True)  # type: ignore[arg-type]
            parts = (resize(fuse(part), x.shape[-2:]) for fuse, part in pairs)
            fused.append(F.relu(reduce(torch.add, parts)))
        return fused


def _make_fusion(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """Convert the channels of one map, and to a coarser one also its size, to those of another."""
    if source == target:
        return nn.Identity()
    c_in, c_out = widths[source], widths[target]
    if source > target:
        return ConvNorm(c_in, c_out, size=1, relu=False)
    steps = [ConvNorm(c_in, c_in, stride=2) for _ in range(target - source - 1)]
    return nn.Sequential(*steps, ConvNorm(c_in, c_out, stride=2, relu=False))


class Backbone(nn.Module):
    """HRNet: (b, 3, h, w) to four maps at 1, 1/2, 1/4 and 1/8."""

    def __init__(self, stem: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, stem), ConvNorm(stem, stem))
        self.blocks = nn.Sequential(Bottleneck(stem, stem, 4), Bottleneck(4 * stem, stem, 4))
        self.finest = ConvNorm(4 * stem, widths[0])
        steps = pairwise((4 * stem, *widths[1:]))
        self.downward = nn.ModuleList(ConvNorm(*channels, stride=2) for channels in steps)
        self.stages = nn.ModuleList(Exchange(widths[:n]) for n in (2, 3, 4))

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.blocks(self.stem(image))  # (b, 4 * stem, h, w)
        maps, coarsest = [self.finest(x)], x
        for downward, stage in zip(self.downward, self.stages, strict=True):
            maps = stage([*maps, downward(coarsest)])
            coarsest = maps[-1]
        return maps


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resizing with aligned corners."""
    if list(x.shape[-2:]) == list(size):
        return x
    return F.interpolate(x, list(size), mode="bilinear", align_corners=True)


# Published keys and ours, as expressions, for a batch norm, a convolution with one, and a block.
NORM = r"(?P<value>weight|bias|running_mean|running_var|num_batches_tracked)"
CONV_NORM = (rf"(?P<part>[01])\.{NORM}", r"\g<part>.\g<value>")
BLOCK = (
    (r"conv(?P<part>\d)\.weight", r"conv_\g<part>.0.weight"),
    (rf"bn(?P<part>\d)\.{NORM}", r"conv_\g<part>.1.\g<value>"),
    (rf"downsample\.{CONV_NORM[0]}", rf"shortcut.{CONV_NORM[1]}"),
)


def list_backbone_rules() -> Iterator[tuple[str, str]]:
    """(published key, our key) patterns of the backbone, for `weights.rename_keys.rename_keys`."""
    for i in (1, 2):
        yield rf"conv{i}\.weight", f"stem.{i - 1}.0.weight"
        yield rf"bn{i}\.{NORM}", rf"stem.{i - 1}.1.\g<value>"
    for pattern, to in BLOCK:
        yield rf"layer1\.(\d)\.{pattern}", rf"blocks.\1.{to}"
        for i in range(3):
            branch = rf"stage{i + 2}\.0\.branches\.(\d)\.(\d)\.{pattern}"
            yield branch, rf"stages.{i}.branches.\1.\2.{to}"
    yield rf"transition1\.0\.{CONV_NORM[0]}", rf"finest.{CONV_NORM[1]}"
    for i in range(3):
        pattern = rf"transition{i + 1}\.{i + 1}\.0\.{CONV_NORM[0]}"
        yield pattern, rf"downward.{i}.{CONV_NORM[1]}"
        pattern = rf"stage{i + 2}\.0\.fuse_layers\.([\d.]+)\.{CONV_NORM[0]}"
        yield pattern, rf"stages.{i}.fusions.\1.{CONV_NORM[1]}"
