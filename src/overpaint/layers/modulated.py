"""Layers of StyleGAN2: scaled weights, modulated convolution, smooth resampling.

Sources: Karras et al. 2018, "Progressive Growing of GANs" (arXiv:1710.10196) for weights that are
scaled at each use (section 4.1) and for the deviation over a batch (section 3); Karras et al.
2020, "Analyzing and Improving the Image Quality of StyleGAN" (arXiv:1912.04958) for modulation and
demodulation (eq. 1 to 3). Written from the equations; none of NVIDIA's code, whose licence is
non-commercial, was taken.

- A weight is drawn from N(0, 1) and multiplied by 1 / sqrt(fan-in) at each use, so that Adam's
  steps have the same relative size in all layers. `rate` reduces the steps of a layer further.
- Modulation scales a convolution's inputs by the style, and demodulation its outputs. This is equal
  to scaling the weights for each sample, and needs no grouped convolution.
- Resampling is by 2, with the binomial filter (1, 3, 3, 1) / 8 in both directions, which is exact
  in bfloat16, too. For upsampling, a transposed convolution precedes the filter, so that nothing is
  multiplied by the zeros between pixels; both are linear, and nothing is cropped between them.
- Noise has one value for all channels of a position, times a learned strength. In training it is
  drawn in each call; in eval mode it is the layer's noise map, repeated for larger features.
- The leaky ReLU keeps the variance by a gain of sqrt(2). Outputs of clamped layers are limited to
  +-`CLAMP` (in StyleGAN2 only with float16, here with all types).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLAMP = 256.0

TAPS = (0.125, 0.375, 0.375, 0.125)


def apply_leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2, times sqrt(2)."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def smooth(x: Tensor, padding: int, stride: int = 1, gain: float = 1.0) -> Tensor:
    """The filter over x (b, c, h, w), zero padded -> (b, c, h', w').

    h' = (h + 2 padding - 4) / stride + 1, w' likewise.
    """
    return F.conv2d(x, _make_kernel(x, gain), stride=stride, padding=padding, groups=x.shape[1])


def upsample(x: Tensor) -> Tensor:
    """(b, c, h, w) -> (b, c, 2h, 2w): zeros between the pixels, then the filter."""
    return F.conv_transpose2d(x, _make_kernel(x, 4.0), stride=2, padding=1, groups=x.shape[1])


def _make_kernel(x: Tensor, gain: float) -> Tensor:
    line = torch.tensor(TAPS, dtype=x.dtype, device=x.device)
    return (gain * line[:, None] * line).expand(x.shape[1], 1, -1, -1)


def append_minibatch_deviation(x: Tensor, group: int = 4) -> Tensor:
    """Append to x (b, c, h, w) one channel: the mean standard deviation over a group of pictures.

    group: largest size of a group; a batch that it does not divide has smaller groups. In a group
    of 1 the channel is a constant. -> (b, c + 1, h, w)
    """
    b, _, h, w = x.shape
    size = b if b <= group else math.gcd(b, group)
    groups = x.float().reshape(size, b // size, -1)
    variance = groups.var(dim=0, correction=0)
    deviation = (variance + 1e-8).sqrt().mean(dim=1)  # one number for each group
    channel = deviation.repeat(size).reshape(b, 1, 1, 1).expand(b, 1, h, w)
    return torch.cat([x, channel.to(x.dtype)], dim=1)


class ScaledLinear(nn.Module):
    """(b, in_features) -> (b, out_features); rate: factor on the learning rate."""

    def __init__(
        self, in_features: int, out_features: int, *, rate: float = 1.0, bias: float = 0.0
    ) -> None:
        super().__init__()
        self.rate, self.gain = rate, rate / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / rate)
        self.bias = nn.Parameter(torch.full((out_features,), bias))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.gain, self.bias * self.rate)


class ScaledConv2d(nn.Module):
    """k x k convolution with zero padding, activation and clamp; `down` halves the sides before."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        down: bool = False,
        linear: bool = False,
    ) -> None:
        """linear: neither bias nor activation."""
        super().__init__()
        self.padding, self.down, self.linear = kernel_size // 2, down, linear
        self.gain = 1 / math.sqrt(in_channels * kernel_size**2)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = None if linear else nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.gain
        if not self.down:
            x = F.conv2d(x, weight, self.bias, padding=self.padding)
        elif self.padding:
            x = F.conv2d(smooth(x, self.padding + 1), weight, self.bias, stride=2)
        else:  # 1x1: positions that the stride leaves out need no filtering either
            x = F.conv2d(smooth(x, 1, stride=2), weight, self.bias)
        return x if self.linear else apply_leaky_relu(x).clamp(-CLAMP, CLAMP)


class ModulatedConv2d(nn.Module):
    """((b, in_channels, h, w), style (b, style_size)) -> (b, out_channels, h, w); no bias.

    up: doubles the sides. demodulate: outputs have unit variance if inputs have (eq. 3).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        style_size: int,
        *,
        up: bool = False,
        demodulate: bool = True,
    ) -> None:
        super().__init__()
        self.up, self.demodulate, self.padding = up, demodulate, kernel_size // 2
        self.gain = 1 / math.sqrt(in_channels * kernel_size**2)
        self.affine = ScaledLinear(style_size, in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale = self.affine(style).float()  # s_i
        if not self.demodulate:
            return self._convolve(x * (scale * self.gain)[:, :, None, None])
        x = self._convolve(x * scale[:, :, None, None])  # eq. 1
        squares = self.weight.square().sum(dim=(2, 3)) * scale.square()[:, None]  # (b, out, in)
        return x * (squares.sum(dim=2) + 1e-8).rsqrt()[:, :, None, None]  # eq. 3

    def _convolve(self, x: Tensor) -> Tensor:
        if not self.up:
            return F.conv2d(x, self.weight, padding=self.padding)
        x = F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)
        return smooth(x, padding=1, gain=4.0)


class StyledConv(ModulatedConv2d):
    """Modulated 3x3 convolution, noise, leaky ReLU, clamp: shapes as in ModulatedConv2d."""

    noise_map: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        style_size: int,
        noise_side: int | None = None,
        *,
        up: bool = False,
        clamped: bool = True,
    ) -> None:
        """noise_side: that of the noise map, pixels; None: no noise."""
        super().__init__(in_channels, out_channels, 3, style_size, up=up)
        self.limit = CLAMP if clamped else math.inf
        self.noise_strength = None
        if noise_side is not None:
            self.noise_strength = nn.Parameter(torch.zeros(()))
            self.register_buffer("noise_map", torch.zeros(noise_side, noise_side))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        x = super().forward(x, style)
        if self.noise_strength is not None:
            x = x + self._draw_noise(x) * self.noise_strength
        return apply_leaky_relu(x).clamp(-self.limit, self.limit)

    def _draw_noise(self, x: Tensor) -> Tensor:
        """(b or 1, 1, h, w)"""
        if self.training:
            return torch.randn_like(x[:, :1])
        (height, width), side = x.shape[2:], len(self.noise_map)
        tiles = self.noise_map.repeat(-(-height // side), -(-width // side))
        return tiles[None, None, :height, :width]


class ToRGB(nn.Module):
    """((b, in_channels, h, w), style (b, style_size)) -> part of a picture, (b, 3, h, w)."""

    def __init__(self, in_channels: int, style_size: int, *, clamped: bool = True) -> None:
        super().__init__()
        self.limit = CLAMP if clamped else math.inf
        self.conv = ModulatedConv2d(in_channels, 3, 1, style_size, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        x = self.conv(x, style) + self.bias[:, None, None]
        return x.float().clamp(-self.limit, self.limit)


class Mapping(nn.Module):
    """Latent (b, size), normal -> style (b, size); `follow` updates the average style."""

    average: Tensor

    def __init__(
        self, size: int, num_layers: int = 2, rate: float = 0.01, decay: float = 0.995
    ) -> None:
        super().__init__()
        self.decay = decay
        self.layers = nn.ModuleList(ScaledLinear(size, size, rate=rate) for _ in range(num_layers))
        self.register_buffer("average", torch.zeros(size))

    def forward(self, latent: Tensor) -> Tensor:
        x = latent * (latent.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            x = apply_leaky_relu(layer(x))
        return x

    def follow(self, styles: Tensor) -> None:
        """Move the average a little towards the mean of styles (b, size)."""
        self.average.lerp_(styles.detach().float().mean(dim=0), 1 - self.decay)
