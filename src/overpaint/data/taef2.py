"""TAEF2: a tiny autoencoder distilled from the VAE of a large latent-diffusion model.

Origin: madebyollin/taesd at 5cccb12 (code and weights MIT). Written from the fact sheet's list of
layers; the module names below are those of the official state dicts, so that they load as they
are. Its weights are not shipped: `load_taef2` reads the two official files.

In the universal data it stands for what a latent-diffusion inpainter's decoder leaves behind, and
it is the best trained G available (28 to 35 dB, visually sharp).
"""

from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from overpaint.errors import WeightsError
from overpaint.registry import autoencoders

WIDTH = 64
LATENT_CHANNELS = 32


class SidePath(nn.Sequential):
    """1x1 bottleneck with group norm, beside the blocks of the lowest resolution."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(WIDTH, 4 * WIDTH, 1, bias=False),
            nn.GroupNorm(4, 4 * WIDTH),
            nn.ReLU(),
            nn.Conv2d(4 * WIDTH, WIDTH, 1, bias=False),
        )


class Block(nn.Module):
    def __init__(self, *, side_path: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU()]
        self.conv = nn.Sequential(*layers[:-1])
        self.pool = SidePath() if side_path else None

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class SoftClamp(nn.Module):
    def forward(self, latent: Tensor) -> Tensor:
        return torch.tanh(latent / 3) * 3


def _make_encoder() -> nn.Sequential:
    def make_down() -> nn.Module:
        return nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1, bias=False)

    layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 3, padding=1), Block()]
    layers += [make_down(), Block(), Block(), Block()]
    layers += [make_down(), Block(), Block(), Block()]
    layers += [make_down(), *(Block(side_path=True) for _ in range(3))]
    layers.append(nn.Conv2d(WIDTH, LATENT_CHANNELS, 3, padding=1))
    return nn.Sequential(*layers)


def _make_decoder() -> nn.Sequential:
    def make_up() -> list[nn.Module]:
        return [nn.Upsample(scale_factor=2), nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)]

    layers: list[nn.Module] = [SoftClamp(), nn.Conv2d(LATENT_CHANNELS, WIDTH, 3, padding=1)]
    layers += [nn.ReLU(), *(Block(side_path=True) for _ in range(3))]
    layers += [*make_up(), Block(), Block(), Block(), *make_up(), Block(), Block(), Block()]
    layers += [*make_up(), Block(), nn.Conv2d(WIDTH, 3, 3, padding=1)]
    return nn.Sequential(*layers)


class TAEF2(nn.Module):
    """Image (b, 3, h, w) in [0, 1], sides multiples of 8 -> reconstruction, not clamped."""

    stride = 8

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = _make_encoder(), _make_decoder()

    def forward(self, image: Tensor) -> Tensor:
        return self.decoder(self.encoder(image))


def find_taef2_files(folder: Path) -> tuple[Path, Path]:
    """The official files of encoder and decoder in `folder`; raises WeightsError without them."""
    files = folder / "taef2_encoder.pth", folder / "taef2_decoder.pth"
    for path in files:
        if not path.is_file():
            raise WeightsError(
                f"{path}: not found; download the two TAEF2 files of madebyollin/taesd there, "
                "or leave taef2 out of the bank"
            )
    return files


def load_taef2(folder: Path) -> TAEF2:
    """Build TAEF2 from `taef2_encoder.pth` and `taef2_decoder.pth` in `folder`, in float32.

    Raises WeightsError when a file is missing, damaged or does not fit the network.
    """
    module = TAEF2()
    for path, part in zip(find_taef2_files(folder), (module.encoder, module.decoder), strict=True):
        try:
            part.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except (OSError, EOFError, RuntimeError, TypeError, UnpicklingError) as error:
            raise WeightsError(
                f"{path}: damaged, or not a file of TAEF2; download it again ({error})"
            ) from error
    return module.eval()


autoencoders.register(
    "taef2", TAEF2, paper="madebyollin/taesd at 5cccb12", licence="MIT (code and weights)"
)
