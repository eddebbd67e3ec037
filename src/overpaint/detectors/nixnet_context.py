"""Options of NIX-Net that compare a region with the rest of its photo. Ours, not in the paper.

NIX-Net compares a region with its neighbourhood alone. These modules add:

- `Statistics`, to the joint maps after fusion module 3: z-scores of a reduced map, over the whole
  photo and over large windows. Idea: ManTra-Net (Wu et al., CVPR 2019), section 4, which takes the
  means of windows and the deviation of the whole photo; here each window has its own deviation.
- `Energies`, to the first map of the noise stream: the strength of the noise of luma and colours in
  windows, at two sizes of the photo. As logarithms, because a convolution can compute a difference
  of two strengths and not their ratio.
- `Content`, to the coarsest joint map: features of a network trained on ImageNet. JPEG compression
  removes the difference in noise between a fill and its photo, but not that its content is unusual.
  The features are not trained, because there are too few photos. If the holes lie on salient
  objects, the module learns the position of holes instead (docs/experiments.md).

Written from the papers, no code taken. Licence of this file: Apache-2.0, as the project.

- The last convolution starts at zero: a network with context starts as the one without.
- Statistics are in float32 under autocast, because deviations are differences of nearly equal
  numbers. A window's are those of the photo's z-scores, so that `EPS` is a share of the photo's own
  variance.
- At the borders, a window has fewer places; nothing is padded. The padding of the photo, of at most
  7 reflected rows and columns, is counted. In tiles, the whole photo is one tile.
"""

from collections.abc import Sequence
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.layers.efficientnet import CHANNELS, LiteFeatures
from overpaint.layers.windows import average_windows

Context = Literal["none", "statistics"]
CONTEXTS: tuple[str, ...] = get_args(Context)

WINDOWS = (15, 31)  # sides in places of the map, odd: 30 and 62 pixels at 1/2, 120 and 248 at 1/8
ENERGY_WINDOWS = (3, 9, 17)  # sides in places of the map at 1/2: 6, 18 and 34 pixels
FLOOR = 0.01  # added to mean magnitudes, whose median is near 0.3 for luma and for colours
SHARE = 4  # channels of a map divided by those of the reduced map
EPS = 1e-3  # added to variances
DROPPED = 0.2  # of the features of the content, in training


def compute_moments(x: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Variance and mean over two dimensions, which become 1.

    Means are taken along one dimension after the other. `torch.var_mean` takes twice the time, and
    onnxruntime and OpenVINO would add all values in one float32, which changed logits of a large
    tile by more than 0.001. OpenVINO would merge two means that both keep their dimension.
    """
    mean = x.mean(columns, keepdim=True).mean(rows).unsqueeze(rows)
    squares = (x - mean).square().mean(columns, keepdim=True)
    return squares.mean(rows).unsqueeze(rows), mean


def compute_z_scores(x: Tensor, windows: Sequence[int] = WINDOWS) -> Tensor:
    """(b, c, h, w) -> (b, c * (1 + windows), h, w): over the whole map, then over each window.

    With the mean m and the variance v of the whole, z = (x - m) / sqrt(v + EPS); with those of z
    in a window, (z - m') / sqrt(v' + EPS).
    """
    variance, mean = compute_moments(x, 2, 3)
    z = (x - mean) * (variance + EPS).rsqrt()
    out = [z]
    for side in windows:
        mean = average_windows(z, side)
        variance = (average_windows(z.square(), side) - mean.square()).clamp(min=0)
        out.append((z - mean) * (variance + EPS).rsqrt())
    return torch.cat(out, dim=1)


def compute_log_energy(magnitudes: Tensor, side: int) -> Tensor:
    """Logarithm of the mean of magnitudes (b, c, h, w) in a window around each place."""
    return (average_windows(magnitudes, side) + FLOOR).log()


def mix_with_scores(x: Tensor, raw: Tensor, scored: Tensor) -> Tensor:
    """raw @ x + scored @ z(x), with z the z-scores of the whole photo.

    x (b, c, h, w), weights (o, c) each -> (b, o, h, w). The z-scores are linear in x once mean and
    variance are known, so they become a part of the weights and no map of them is stored.
    """
    places = x.permute(0, 2, 3, 1)  # a view where x is channels last; so is what is returned
    variance, mean = (value[:, 0, 0] for value in compute_moments(places, 1, 2))
    scale = (variance + EPS).rsqrt()  # (b, c)
    weight = raw.T + scored.T * scale[..., None]  # (b, c, o)
    bias = (scale * mean) @ scored.T  # (b, o)
    out = torch.baddbmm(-bias[:, None], places.flatten(1, 2), weight)
    return out.unflatten(1, places.shape[1:3]).permute(0, 3, 1, 2)


class Statistics(nn.Module):
    """(b, c, h, w) -> the same shape: the map plus a learned map of its z-scores."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        few = max(1, channels // SHARE)
        self.reduce = nn.Conv2d(channels, few, 1, bias=False)
        self.mix = make_mixing((1 + len(WINDOWS)) * few, few)
        self.back = make_zero_conv(few, channels)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            scores = compute_z_scores(self.reduce(x.to(self.reduce.weight.dtype)))
        return x + self.back(self.mix(scores))


class Energies(nn.Module):
    """Strength of the noise of luma and colours in windows: a map (b, fine, h/2, w/2).

    noise: concatenated residuals of the photo (b, channels, h, w), of a magnitude of about 1; h and
    w are even. halved: those of the photo at half of its size (b, channels, h/2, w/2). The map is
    learned from logarithms of mean magnitudes, raw and as z-scores over the whole photo.
    """

    def __init__(self, channels: int, fine: int) -> None:
        super().__init__()
        self.mix = make_mixing(2 * 2 * len(ENERGY_WINDOWS) * channels, fine)
        self.back = make_zero_conv(fine, fine)

    def forward(self, noise: Tensor, halved: Tensor) -> Tensor:
        with torch.autocast(noise.device.type, enabled=False):
            magnitudes = torch.cat([F.avg_pool2d(noise.abs(), 2), halved.abs()], dim=1)
            # Pooled 4 times faster.
            magnitudes = magnitudes.contiguous(memory_format=torch.channels_last)
            logs = [compute_log_energy(magnitudes, side) for side in ENERGY_WINDOWS]
            conv, norm, relu = self.mix
            raw, scored = cast(nn.Conv2d, conv).weight.flatten(1).chunk(2, dim=1)
            joint = mix_with_scores(torch.cat(logs, dim=1), raw, scored)
        return self.back(relu(norm(joint)))


class Content(nn.Module):
    """Photo (b, 3, h, w) in [0, 1], sides multiples of 8, to a map (b, coarse, h/8, w/8).

    The map is learned from the z-score of each feature over the photo and from its absolute value,
    the distance from the mean in either direction. Whole channels are dropped in training.
    """

    def __init__(self, coarse: int) -> None:
        super().__init__()
        self.features = LiteFeatures()
        self.features.requires_grad_(False)
        self.drop = nn.Dropout2d(DROPPED)
        self.mix = make_mixing(2 * sum(CHANNELS), coarse)
        self.back = make_zero_conv(coarse, coarse)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[2] // 8, image.shape[3] // 8
        # The features' own stride is 16.
        padded = F.pad(image, (0, 8 * (width % 2), 0, 8 * (height % 2)), mode="replicate")
        fine, middle, coarse = self.features(padded)
        maps = [F.avg_pool2d(fine, 2), middle, F.interpolate(coarse, scale_factor=2.0)]
        with torch.autocast(image.device.type, enabled=False):
            joint = average_windows(torch.cat(maps, dim=1).float(), 3)[..., :height, :width]
            scores = compute_z_scores(joint, ())
            scores = self.drop(torch.cat([scores, scores.abs()], dim=1))
        return self.back(self.mix(scores))


def make_mixing(in_channels: int, out_channels: int) -> nn.Sequential:
    """A 1x1 convolution with batch norm and ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def make_zero_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 1x1 convolution that outputs zero until it is trained."""
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    nn.init.zeros_(conv.weight)
    return conv


def make_context_blocks(kind: Context, widths: Sequence[int]) -> nn.ModuleList | None:
    """A block for each joint map, fine to coarse; None for "none"."""
    if kind == "none":
        return None
    return nn.ModuleList(Statistics(c) for c in widths)
