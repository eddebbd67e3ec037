"""The encoder of TruFor: CMX, two SegFormer encoders that exchange and fuse their features.

- CMX: Zhang, Liu, Yang, Hu, Liu and Stiefelhagen, "CMX: Cross-Modal Fusion for RGB-X Semantic
  Segmentation with Transformers", IEEE T-ITS 2023, arXiv:2203.04838. Original code:
  huaaaliu/RGBX_Semantic_Segmentation, MIT.
- SegFormer: Xie, Wang, Yu, Anandkumar, Alvarez and Luo, "SegFormer: Simple and Efficient Design for
  Semantic Segmentation with Transformers", NeurIPS 2021, arXiv:2105.15203.

Written from a fact sheet of the copy of CMX in grip-unina/TruFor @ae54475; no code taken. Licence
of this file: Apache-2.0, as the project.

Differences from that copy:
- attention is torch's fused one, which stores no matrix of all pairs; the sums over all positions
  in the cross attention are float32 also under autocast, because they grow with the photo;
- the rate of stochastic depth rises from block to block; theirs is constant in the second stage.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

REDUCTIONS = (8, 4, 2, 1)  # side of the cell of positions that gives one key, by stage
MLP_RATIO = 4
NORM_EPS = 1e-6  # of the blocks and stages; all other layer norms have torch's 1e-5
SHARE = 0.5  # lambda_C and lambda_S of CMX


class PatchEmbed(nn.Module):
    """Patches to tokens: (b, c_in, h, w) -> (b, h / stride, w / stride, c_out).

    Patches overlap when size > stride; the padding then rounds the quotients up, else down.
    """

    def __init__(self, c_in: int, c_out: int, size: int, stride: int) -> None:
        super().__init__()
        padding = size // 2 if size > stride else 0
        self.conv = nn.Conv2d(c_in, c_out, size, stride, padding)
        self.norm = nn.LayerNorm(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(to_channels_last(self.conv(x)))


class Attention(nn.Module):
    """Self-attention of (b, h, w, c), with one key per cell of reduction x reduction positions."""

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.reduce = None
        if reduction > 1:
            self.reduce = PatchEmbed(channels, channels, reduction, reduction)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        if self.reduce is not None:
            seen = self.reduce(to_channels_first(x))
        query = split_heads(self.query(x), self.heads)
        key, value = split_heads(self.key_value(seen), 2 * self.heads).chunk(2, dim=1)
        found = F.scaled_dot_product_attention(query, key, value)  # (b, heads, h w, c / heads)
        return self.out(found.transpose(1, 2).reshape(x.shape))


class MixFFN(nn.Module):
    """Two linear layers; the depthwise convolution between them gives positional information."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = MLP_RATIO * channels
        self.widen = nn.Linear(channels, inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.narrow = nn.Linear(inner, channels)

    def forward(self, x: Tensor) -> Tensor:  # (b, h, w, c), as all that follows
        mixed = self.depthwise(to_channels_first(self.widen(x)))
        return self.narrow(F.gelu(to_channels_last(mixed)))


class DropPath(nn.Module):
    """Stochastic depth: in training, a branch is left out for randomly chosen samples."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * F.dropout(x.new_ones(len(x), 1, 1, 1), self.rate)


class Block(nn.Module):
    """One layer of the transformer, (b, h, w, c) to the same."""

    def __init__(self, channels: int, heads: int, reduction: int, drop_path: float) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(channels, NORM_EPS)
        self.attention = Attention(channels, heads, reduction)
        self.norm_2 = nn.LayerNorm(channels, NORM_EPS)
        self.ffn = MixFFN(channels)
        self.drop = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.attention(self.norm_1(x)))
        return x + self.drop(self.ffn(self.norm_2(x)))


class Stage(nn.Module):
    """One stage of one stream: (b, c_in, h, w) -> (b, c, h / s, w / s), s = 4, then 2."""

    def __init__(self, embed: PatchEmbed, blocks: Sequence[Block], channels: int) -> None:
        super().__init__()
        self.embed = embed
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(channels, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return to_channels_first(self.norm(self.blocks(self.embed(x))))


class Rectify(nn.Module):
    """CMX's feature rectification: to each stream, weighted features of the other are added.

    Two maps (b, c, h, w) to two; a weight is the sum of one per channel and one per position.
    """

    def __init__(self, c: int) -> None:
        super().__init__()
        self.channels = nn.Sequential(
            nn.Linear(4 * c, 4 * c), nn.ReLU(inplace=True), nn.Linear(4 * c, 2 * c), nn.Sigmoid()
        )
        self.places = nn.Sequential(
            nn.Conv2d(2 * c, c, 1), nn.ReLU(inplace=True), nn.Conv2d(c, 2, 1), nn.Sigmoid()
        )

    def forward(self, image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([image, noise], dim=1)
        pooled = torch.cat([both.mean(dim=(2, 3)), both.amax(dim=(2, 3))], dim=1)  # (b, 4c)
        of_image, of_noise = self.channels(pooled)[..., None, None].chunk(2, dim=1)
        at_image, at_noise = self.places(both).chunk(2, dim=1)  # (b, 1, h, w) each
        return (
            image + SHARE * (of_noise + at_noise) * noise,
            noise + SHARE * (of_image + at_image) * image,
        )


class CrossPath(nn.Module):
    """One stream's half of the exchange in `Fuse`; all maps (b, h, w, c)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.split = nn.Linear(channels, 2 * channels)
        self.key_value = nn.Linear(channels, 2 * channels, bias=False)
        self.merge = nn.Linear(2 * channels, channels)
        self.norm = nn.LayerNorm(channels)

    def divide(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The features that the stream keeps, and those for the other stream."""
        kept, shared = F.relu(self.split(x)).chunk(2, dim=-1)
        return kept, shared

    def compute_context(self, shared: Tensor) -> Tensor:
        """The stream's context over all positions, (b, heads, c / heads, c / heads)."""
        key, value = split_heads(self.key_value(shared), 2 * self.heads).chunk(2, dim=1)
        dtype = torch.promote_types(key.dtype, torch.float32)
        with torch.autocast(key.device.type, enabled=False):
            table = key.transpose(2, 3).to(dtype) @ value.to(dtype) / math.sqrt(key.shape[-1])
            return table.softmax(dim=-2)

    def forward(self, x: Tensor, kept: Tensor, shared: Tensor, context: Tensor) -> Tensor:
        """x plus the result of its attention to the other stream's context."""
        query = split_heads(shared, self.heads)
        found = (query @ context.to(query.dtype)).transpose(1, 2).reshape(x.shape)
        return self.norm(x + self.merge(torch.cat([kept, found], dim=-1)))


class Fuse(nn.Module):
    """CMX's feature fusion: two maps (b, c, h, w) exchange their contexts and become one."""

    def __init__(self, c: int, heads: int) -> None:
        super().__init__()
        self.image, self.noise = CrossPath(c, heads), CrossPath(c, heads)
        self.shortcut = nn.Conv2d(2 * c, c, 1, bias=False)
        self.embed = nn.Sequential(
            nn.Conv2d(2 * c, c, 1),
            nn.Conv2d(c, c, 3, padding=1, groups=c),
            nn.ReLU(inplace=True),
            nn.Conv2d(c, c, 1),
            nn.BatchNorm2d(c),
        )
        self.norm = nn.BatchNorm2d(c)

    def forward(self, image: Tensor, noise: Tensor) -> Tensor:
        image, noise = to_channels_last(image), to_channels_last(noise)
        kept_image, from_image = self.image.divide(image)
        kept_noise, from_noise = self.noise.divide(noise)
        of_image, of_noise = (
            self.image.compute_context(from_image),
            self.noise.compute_context(from_noise),
        )
        image = self.image(image, kept_image, from_image, of_noise)
        noise = self.noise(noise, kept_noise, from_noise, of_image)
        both = to_channels_first(torch.cat([image, noise], dim=-1))  # (b, 2c, h, w)
        return self.norm(self.shortcut(both) + self.embed(both))


class DualEncoder(nn.Module):
    """Photo and noise (b, 3, h, w) to the joint maps at 1/4, 1/8, 1/16 and 1/32, finest first."""

    def __init__(
        self, widths: Sequence[int], heads: Sequence[int], depths: Sequence[int], drop_path: float
    ) -> None:
        """widths, heads, depths: channels, heads and blocks of each stage.

        drop_path: the rate of stochastic depth in the last block; 0 in the first.
        """
        super().__init__()
        self.image = _make_stream(widths, heads, depths, drop_path)
        self.noise = _make_stream(widths, heads, depths, drop_path)
        self.rectify = nn.ModuleList(Rectify(c) for c in widths)
        self.fuse = nn.ModuleList(Fuse(c, n) for c, n in zip(widths, heads, strict=True))
        self.apply(_initialise)

    def forward(self, image: Tensor, noise: Tensor) -> list[Tensor]:
        maps = []
        for image_stage, noise_stage, rectify, fuse in zip(
            self.image, self.noise, self.rectify, self.fuse, strict=True
        ):
            image, noise = rectify(image_stage(image), noise_stage(noise))
            maps.append(fuse(image, noise))
        return maps


def to_channels_last(x: Tensor) -> Tensor:
    """(b, c, h, w) -> (b, h, w, c)."""
    return x.permute(0, 2, 3, 1)


def to_channels_first(x: Tensor) -> Tensor:
    """(b, h, w, c) -> (b, c, h, w)."""
    return x.permute(0, 3, 1, 2)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(b, h, w, c) -> (b, heads, h w, c / heads)."""
    return x.flatten(1, 2).unflatten(2, (heads, -1)).transpose(1, 2)


def _make_stream(
    widths: Sequence[int], heads: Sequence[int], depths: Sequence[int], drop_path: float
) -> nn.ModuleList:
    last = max(1, sum(depths) - 1)
    rates = (drop_path * i / last for i in range(sum(depths)))
    stages = nn.ModuleList()
    for i, (c_in, c) in enumerate(pairwise((3, *widths))):
        embed = PatchEmbed(c_in, c, 3, 2) if i else PatchEmbed(c_in, c, 7, 4)
        blocks = [Block(c, heads[i], REDUCTIONS[i], next(rates)) for _ in range(depths[i])]
        stages.append(Stage(embed, blocks, c))
    return stages


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
        nn.init.zeros_(module.bias)
