"""The autoencoders G of the universal training data, and the bank of them.

Source: Li et al., "Noise Doesn't Lie: Towards Universal Detection of Deep Inpainting", IJCAI
2021, section 3.2. There is no official code, and the paper gives no architecture; everything
below but eq. 1 (see `training.autoencoder`) is a reading, not in the paper:

- A convolutional encoder-decoder without normalisation layers, which would shift colours.
- The artefacts of an inpainting network come mostly from its upsampler, its depth and its loss, so
  the members of the bank differ in those. Each has a record.
- Small error and realism matter more than compression: the latent is wide enough for 28 dB.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overpaint.errors import ConfigError
from overpaint.images import to_pixels, to_tensor
from overpaint.registry import autoencoders

Upsampler = Literal["nearest", "bilinear", "transposed", "shuffle"]


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of one autoencoder."""

    width: int = 32
    """Channels at half resolution; doubled at each further halving, up to 128."""
    depth: int = 2
    """Number of halvings: 1, 2 or 3 for a latent at 1/2, 1/4 or 1/8 of the side."""
    latent_channels: int = 24
    upsampler: Upsampler = "nearest"
    num_blocks: int = 2
    """Residual blocks at the lowest resolution, in encoder and decoder alike."""

    def __post_init__(self) -> None:
        if self.upsampler not in get_args(Upsampler):
            known = ", ".join(get_args(Upsampler))
            raise ConfigError(f"upsampler {self.upsampler!r}: choose one of {known}")
        if not 1 <= self.depth <= 3:
            raise ConfigError(f"depth {self.depth}: choose 1, 2 or 3 halvings")


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


def upsample(kind: Upsampler, c_in: int, c_out: int) -> nn.Module:
    """Double the side: the step that leaves most of a network's periodic trace."""
    if kind == "transposed":
        return nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1)
    if kind == "shuffle":
        return nn.Sequential(nn.Conv2d(c_in, 4 * c_out, 3, padding=1), nn.PixelShuffle(2))
    conv = nn.Conv2d(c_in, c_out, 3, padding=1)
    smooth = {"align_corners": False} if kind == "bilinear" else {}
    return nn.Sequential(nn.Upsample(scale_factor=2, mode=kind, **smooth), conv)


class Autoencoder(nn.Module):
    """Image (b, 3, h, w) in [0, 1] -> its reconstruction, same shape, not clamped.

    Sides must be multiples of `stride`; `reconstruct` pads any photo.
    """

    def __init__(self, config: AutoencoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AutoencoderConfig()
        self.stride = 2**config.depth
        widths = [min(config.width * 2**i, 128) for i in range(config.depth)]

        encoder: list[nn.Module] = []
        for c_in, c_out in zip([3, *widths], widths, strict=False):
            encoder += [nn.Conv2d(c_in, c_out, 4, stride=2, padding=1), ResidualBlock(c_out)]
        encoder += [ResidualBlock(widths[-1]) for _ in range(config.num_blocks - 1)]
        encoder += [nn.ReLU(), nn.Conv2d(widths[-1], config.latent_channels, 1)]
        self.encoder = nn.Sequential(*encoder)

        decoder: list[nn.Module] = [nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)]
        decoder += [ResidualBlock(widths[-1]) for _ in range(config.num_blocks)]
        for c_in, c_out in zip(widths[::-1], widths[-2::-1], strict=False):
            decoder += [upsample(config.upsampler, c_in, c_out), ResidualBlock(c_out)]
        last = widths[0] // 2
        decoder += [nn.ReLU(), upsample(config.upsampler, widths[0], last)]
        decoder += [nn.ReLU(), nn.Conv2d(last, 3, 3, padding=1)]
        self.decoder = nn.Sequential(*decoder)

    def forward(self, image: Tensor) -> Tensor:
        return self.decoder(self.encoder(image - 0.5)) + 0.5


@torch.inference_mode()
def reconstruct(module: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """G(I) of one photo: uint8 (h, w, 3) -> uint8 (h, w, 3), of any size.

    `module` is an autoencoder in eval mode with an attribute `stride`; the photo is padded to a
    multiple of it by repeating the border, and cropped back. Runs where the module lies.
    """
    return reconstruct_batch(module, pixels[None])[0]


@torch.inference_mode()
def reconstruct_batch(module: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """`reconstruct` for uint8 (b, h, w, 3): photos of one size together."""
    image = torch.cat([to_tensor(p) for p in pixels])
    height, width = image.shape[-2:]
    stride = int(module.stride)  # type: ignore[arg-type]
    image = F.pad(image, (0, -width % stride, 0, -height % stride), mode="replicate")
    device = next(module.parameters(), image).device
    image = image.to(device).contiguous(memory_format=torch.channels_last)
    out = module(image)[..., :height, :width].float().clamp(0, 1)
    return np.stack([to_pixels(o) for o in out])


def conv_autoencoder(**config: Any) -> Autoencoder:
    """The registry's factory: keyword arguments are the fields of `AutoencoderConfig`."""
    return Autoencoder(AutoencoderConfig(**config))


autoencoders.register(
    "conv-autoencoder",
    conv_autoencoder,
    paper="Noise Doesn't Lie (IJCAI 2021), section 3.2; architecture is a reading",
    licence="Apache-2.0",
)
