"""LaMa: "Resolution-robust Large Mask Inpainting with Fourier Convolutions".

Suvorov et al., WACV 2022, arXiv:2109.07161. Original code and weights: advimman/lama @786f593, both
Apache-2.0. Written from the paper and a fact sheet of that code; no code taken. Licence of this
file: Apache-2.0, as the project.

One stage: three halvings of the size, residual blocks of fast Fourier convolutions, whose receptive
field is the whole picture from the first block on, and three doublings.

Inside, as outside, photos are in [0, 1] and the mask is 1 in the hole. In the network's input the
hole is 0, and the mask is the fourth channel. The last activation is a sigmoid.

Choices of this implementation, and differences from the paper or the authors' code:
- sides that are no multiples of 8 are padded by repeating the border (theirs mirrors it);
- the features of the discriminator are returned with its logits, for the loss that matches them;
- no refinement at several sizes after the fill.

`lama` is the paper's LaMa-Fourier, `big-lama` the larger one of the same paper. Size in parameters:
lama 27.05 M, big-lama 50.98 M, at width 16 with 6 blocks 1.20 M; the discriminator 6.96 M.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from overpaint.errors import ConfigError
from overpaint.inpainters.base import Inpainter, compose
from overpaint.layers.fourier import (
    OFFICIAL_KEYS,
    FastFourierBlock,
    FastFourierLayer,
    split_channels,
)
from overpaint.registry import Official, inpainters
from overpaint.weights.rename_keys import rename_keys


@dataclass(frozen=True, slots=True)
class LaMaConfig:
    """Configuration of LaMa."""

    width: int = 64
    """Channels at full resolution; all others are multiples of it."""
    num_blocks: int = 9
    """Residual blocks at an eighth of the size; 18 in big-lama."""
    global_ratio: float = 0.75
    """Share of the blocks' channels that pass the Fourier transform."""

    def __post_init__(self) -> None:
        if min(self.width, self.num_blocks) < 1:
            raise ConfigError("lama: width and num_blocks must be at least 1")
        local, whole = split_channels(8 * self.width, self.global_ratio)
        if local < 1 or whole < 2:
            raise ConfigError(
                f"lama: global_ratio {self.global_ratio} of {8 * self.width} channels leaves "
                f"{local} local and {whole} global ones; 1 and 2 are needed"
            )


@dataclass(frozen=True, slots=True)
class Stages:
    """Outputs of the generator for a batch; (b, 3, h, w) both."""

    fill: Tensor
    """The whole generated picture, including known pixels; the discriminator's input."""
    output: Tensor
    """The fill in the hole and the photo elsewhere."""


class LaMa(Inpainter):
    """One-stage inpainter; see the module's header."""

    stride: ClassVar[int] = 8
    min_size: ClassVar[int] = 16  # borders are reflected at an eighth of the size

    def __init__(self, config: LaMaConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LaMaConfig()
        c, channels = config.width, split_channels(8 * config.width, config.global_ratio)
        self.encoder = nn.Sequential(
            *_make_reflected(4, c, kernel_size=7),
            *_make_reflected(c, 2 * c, kernel_size=3, stride=2),
            *_make_reflected(2 * c, 4 * c, kernel_size=3, stride=2),
        )
        self.split = FastFourierLayer((4 * c, 0), channels, stride=2)
        self.blocks = nn.Sequential(*(FastFourierBlock(channels) for _ in range(config.num_blocks)))
        self.decoder = nn.Sequential(
            *_make_enlarging(8 * c, 4 * c),
            *_make_enlarging(4 * c, 2 * c),
            *_make_enlarging(2 * c, c),
        )
        self.last = nn.Conv2d(c, 3, kernel_size=7, padding=3, padding_mode="reflect")

    def run_stages(self, image: Tensor, mask: Tensor) -> Stages:
        """Outputs for training. Sides: multiples of 8, at least 16 pixels.

        image: (b, 3, h, w), finite; its hole is ignored. mask: float (b, 1, h, w), 1 = hole.
        """
        seen = compose(image, torch.zeros_like(image), mask)
        x = self.encoder(torch.cat([seen, mask], dim=1))  # (b, 4c, h/4, w/4)
        pair = self.blocks(self.split((x, None)))  # (b, 2c, h/8, w/8) and (b, 6c, h/8, w/8)
        x = self.decoder(torch.cat(pair, dim=1))  # (b, c, h, w)
        fill = torch.sigmoid(self.last(x))  # (b, 3, h, w)
        return Stages(fill, compose(image, fill, mask))

    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.run_stages(image, mask).fill


class Discriminator(nn.Module):
    """Patch discriminator of pix2pixHD, for a photo (b, 3, h, w) in [0, 1].

    -> logits (b, 1, about h/16, about w/16), and the features of the five layers before them.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        c = width
        self.layers = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(3, c, 4, stride=2, padding=2), _make_leaky()),
                *(_make_discriminating(i * c, 2 * i * c, stride=2) for i in (1, 2, 4)),
                _make_discriminating(8 * c, 8 * c, stride=1),
                nn.Conv2d(8 * c, 1, 4, padding=2),
            ]
        )

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = [image]
        for layer in self.layers:
            features.append(layer(features[-1]))
        return features[-1], features[1:-1]


def _make_reflected(c_in: int, c_out: int, kernel_size: int, stride: int = 1) -> list[nn.Module]:
    pad = kernel_size // 2
    conv = nn.Conv2d(c_in, c_out, kernel_size, stride, pad, bias=False, padding_mode="reflect")
    return [conv, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]


def _make_enlarging(c_in: int, c_out: int) -> list[nn.Module]:
    conv = nn.ConvTranspose2d(c_in, c_out, 3, stride=2, padding=1, output_padding=1)
    return [conv, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]


def _make_discriminating(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, 4, stride, padding=2)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), _make_leaky())


def _make_leaky() -> nn.LeakyReLU:
    return nn.LeakyReLU(0.2, inplace=True)


# Prefix of a key: `model.generator.` in the TorchScript file, `generator.` in a checkpoint.
_START = r"(?:model\.)?(?:generator\.)?model\."
_NOT_THE_GENERATORS = [
    r"(?:discriminator|adversarial_loss|val_evaluator|test_evaluator|loss_\w+)\..*"
]
# First the names inside of the layers ...
_INNER = [
    (rf"{_START}(\d+\.(?:conv[12]\.)?){pattern}", rf"\1{replacement}")
    for pattern, replacement in ((r"(\w+)", r"\2"), *OFFICIAL_KEYS)
]
# ... then the layers' numbers. Block n of N is layer 5 + n; the decoder begins at 6 + N.
_LOCAL = {1: 0, 2: 3, 3: 6}


def _list_rules(num_blocks: int) -> list[tuple[str, str]]:
    rules = [(r"4\.((?:conv|norm_\w+)\..*)", r"split.\1")]
    for theirs, ours in _LOCAL.items():
        rules.append((rf"{theirs}\.conv\.local_to_local\.(\w+)", rf"encoder.{ours}.\1"))
        rules.append((rf"{theirs}\.norm_local\.(\w+)", rf"encoder.{ours + 1}.\1"))
    rules += [(rf"{5 + n}\.(conv[12]\..*)", rf"blocks.{n}.\1") for n in range(num_blocks)]
    start = 6 + num_blocks
    rules += [(rf"{start + i}\.(\w+)", rf"decoder.{i}.\1") for i in (0, 1, 3, 4, 6, 7)]
    return [*rules, (rf"{start + 10}\.(\w+)", r"last.\1")]


def remap(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of a published generator, of any number of blocks, to ours; strict.

    state_dict: of the TorchScript file, of the generator, or the content of a checkpoint, whose
    discriminator and losses are left out.
    """
    state = rename_keys(state_dict.get("state_dict", state_dict), _INNER, drop=_NOT_THE_GENERATORS)
    blocks = {key.split(".")[0] for key in state if re.match(r"\d+\.conv1\.", key)}
    return rename_keys(state, _list_rules(len(blocks)))


def lama(**config: Any) -> LaMa:
    """LaMa-Fourier, as in the paper; fields of LaMaConfig as keyword arguments."""
    return LaMa(LaMaConfig(**config))


def big_lama(**config: Any) -> LaMa:
    """Big LaMa: 18 blocks."""
    return lama(**{"num_blocks": 18, **config})


def _describe_official(*files: str) -> Official:
    return Official("advimman/lama@786f593", "Apache-2.0 (the repository's)", remap, files=files)


for _name, _factory, _summary, _weights in (
    ("lama", lama, "27.0 M parameters, LaMa-Fourier of the paper", _describe_official("best.ckpt")),
    ("big-lama", big_lama, "51.0 M parameters", _describe_official("best.ckpt")),
):
    inpainters.register(
        _name,
        _factory,
        paper="Resolution-robust Large Mask Inpainting with Fourier Convolutions, WACV 2022, "
        "arXiv:2109.07161",
        licence="Apache-2.0 (as the official code and weights; no code taken)",
        summary=_summary,
        official=_weights,
    )
