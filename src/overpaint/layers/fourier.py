"""Fast Fourier convolution: the receptive field of some channels is local, of the others global.

Source: Chi, Jiang and Mu, "Fast Fourier Convolution", NeurIPS 2020, as LaMa (Suvorov et al. 2022,
arXiv:2109.07161, section 2.1 and figure 3) and FcF (Jain et al. 2023, arXiv:2208.03382) use it;
written from fact sheets of their code, no code taken.

- Features are a pair: local features, and global features or None. Four paths join them; the path
  from global to global is the spectral transform, whose 1x1 convolution works on frequencies and
  hence on the whole picture at once.
- LaMa has a batch norm after every sum; FcF has none (`normalised=False`).
- FcF adds a second Fourier unit that works on each quarter of the picture (`quarters=True`).
- Transforms are orthonormal. They are computed in at least float32, also under autocast, because
  there is no FFT in bfloat16.
- The convolution's output is in general not the spectrum of a real picture; as in torch, the
  imaginary part of a row's constant (and Nyquist) term is ignored.
- Borders are reflected, so sides must be at least 2 (and even with quarters).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pair = tuple[Tensor, Tensor | None]
"""Local features (b, c, h, w), and global ones or None."""

_FIELDS = r"(?P<field>weight|bias|running_mean|running_var|num_batches_tracked)"

OFFICIAL_KEYS = (
    (r"ffc\.convl2l\.weight", "conv.local_to_local.weight"),
    (r"ffc\.convl2g\.weight", "conv.local_to_global.weight"),
    (r"ffc\.convg2l\.weight", "conv.global_to_local.weight"),
    (r"ffc\.convg2g\.conv1\.0\.weight", "conv.global_to_global.reduce.0.weight"),
    (rf"ffc\.convg2g\.conv1\.1\.{_FIELDS}", r"conv.global_to_global.reduce.1.\g<field>"),
    (r"ffc\.convg2g\.fu\.conv_layer\.weight", "conv.global_to_global.whole.mix.weight"),
    (rf"ffc\.convg2g\.fu\.bn\.{_FIELDS}", r"conv.global_to_global.whole.norm.\g<field>"),
    (r"ffc\.convg2g\.lfu\.conv_layer\.weight", "conv.global_to_global.quarter.mix.weight"),
    (r"ffc\.convg2g\.conv2\.weight", "conv.global_to_global.expand.weight"),
    (rf"bn_l\.{_FIELDS}", r"norm_local.\g<field>"),
    (rf"bn_g\.{_FIELDS}", r"norm_global.\g<field>"),
)
"""Names in the checkpoints of LaMa and FcF (patterns), and here, inside a FastFourierLayer."""


class FourierUnit(nn.Module):
    """1x1 convolution, batch norm and ReLU on the spectrum: (b, c, h, w) -> the same shape."""

    def __init__(self, channels: int, normalised: bool = True) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2 * channels, 2 * channels, kernel_size=1, bias=False)
        self.norm = _make_norm(2 * channels, normalised)

    def forward(self, x: Tensor) -> Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)
        z = torch.fft.rfft2(x.to(exact), norm="ortho")  # (b, c, h, w/2+1), complex
        parts = torch.stack([z.real, z.imag], dim=2).flatten(1, 2)  # (b, 2c, ...): re, im, re, ...
        parts = torch.relu(self.norm(self.mix(parts.to(x.dtype)))).to(exact)
        z = torch.complex(parts[:, 0::2].contiguous(), parts[:, 1::2].contiguous())
        return torch.fft.irfft2(z, s=x.shape[-2:], norm="ortho").to(x.dtype)


class SpectralTransform(nn.Module):
    """Global to global: Fourier units at half the width. (b, in, h, w) -> (b, out, h, w)."""

    def __init__(
        self, in_channels: int, out_channels: int, normalised: bool = True, quarters: bool = False
    ) -> None:
        super().__init__()
        half = out_channels // 2
        self.reduce = nn.Sequential(
            nn.Conv2d(in_channels, half, kernel_size=1, bias=False),
            _make_norm(half, normalised),
            nn.ReLU(inplace=True),
        )
        self.whole = FourierUnit(half, normalised)
        self.quarter = FourierUnit(half, normalised) if quarters else None
        self.expand = nn.Conv2d(half, out_channels, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)  # (b, out/2, h, w)
        total = x + self.whole(x)
        if self.quarter is not None:
            top, bottom = x[:, : x.shape[1] // 4].chunk(2, dim=2)
            left, right = torch.cat([top, bottom], dim=1).chunk(2, dim=3)
            each = self.quarter(torch.cat([left, right], dim=1))  # (b, out/2, h/2, w/2)
            total = total + each.repeat(1, 1, 2, 2)
        return self.expand(total)


class FastFourierConv(nn.Module):
    """Pair of (b, c, h, w) -> pair of the same size; kernel_size: of the local paths.

    in_channels, out_channels: (local, global); if global is 0, it is None in the pair.
    """

    def __init__(
        self,
        in_channels: tuple[int, int],
        out_channels: tuple[int, int],
        kernel_size: int = 3,
        stride: int = 1,
        normalised: bool = True,
        quarters: bool = False,
    ) -> None:
        super().__init__()
        if not (in_channels[0] and out_channels[0]):
            raise ValueError("local features are needed on both sides")
        if stride != 1 and in_channels[1] and out_channels[1]:
            raise ValueError("the spectral transform keeps the size: stride 1 with global input")

        def make_conv(c_in: int, c_out: int) -> nn.Conv2d:
            pad = kernel_size // 2
            return nn.Conv2d(
                c_in, c_out, kernel_size, stride, pad, bias=False, padding_mode="reflect"
            )

        (in_local, in_global), (out_local, out_global) = in_channels, out_channels
        self.local_to_local = make_conv(in_local, out_local)
        self.local_to_global = make_conv(in_local, out_global) if out_global else None
        self.global_to_local = make_conv(in_global, out_local) if in_global else None
        self.global_to_global = (
            SpectralTransform(in_global, out_global, normalised, quarters)
            if in_global and out_global
            else None
        )

    def forward(self, x: Pair) -> Pair:
        x_local, x_global = x
        out_local = self.local_to_local(x_local)
        if self.global_to_local is not None:
            out_local = out_local + self.global_to_local(x_global)
        if self.local_to_global is None:
            return out_local, None
        out_global = self.local_to_global(x_local)
        if self.global_to_global is not None:
            out_global = out_global + self.global_to_global(x_global)
        return out_local, out_global


class FastFourierLayer(nn.Module):
    """FastFourierConv, batch norm (or none) and ReLU; same arguments and pairs."""

    def __init__(
        self,
        in_channels: tuple[int, int],
        out_channels: tuple[int, int],
        kernel_size: int = 3,
        stride: int = 1,
        normalised: bool = True,
        quarters: bool = False,
    ) -> None:
        super().__init__()
        self.conv = FastFourierConv(
            in_channels, out_channels, kernel_size, stride, normalised, quarters
        )
        self.norm_local = _make_norm(out_channels[0], normalised)
        self.norm_global = _make_norm(out_channels[1], normalised and out_channels[1] > 0)

    def forward(self, x: Pair) -> Pair:
        x_local, x_global = self.conv(x)
        x_local = F.relu(self.norm_local(x_local), inplace=True)
        if x_global is not None:
            x_global = F.relu(self.norm_global(x_global), inplace=True)
        return x_local, x_global


class FastFourierBlock(nn.Module):
    """Two FastFourierLayers and the sum with their input: pair -> pair, both parts present."""

    def __init__(
        self, channels: tuple[int, int], normalised: bool = True, quarters: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = FastFourierLayer(channels, channels, 3, 1, normalised, quarters)
        self.conv2 = FastFourierLayer(channels, channels, 3, 1, normalised, quarters)

    def forward(self, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        y_local, y_global = self.conv2(self.conv1(x))
        assert y_global is not None
        return x[0] + y_local, x[1] + y_global


def split_channels(channels: int, ratio: float) -> tuple[int, int]:
    """(local, global) channels, where `ratio` of them are global, rounded down."""
    num_global = int(channels * ratio)
    return channels - num_global, num_global


def _make_norm(channels: int, normalised: bool) -> nn.Module:
    return nn.BatchNorm2d(channels) if normalised else nn.Identity()
