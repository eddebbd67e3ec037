"""DeepFill v1: "Generative Image Inpainting with Contextual Attention", Yu et al., CVPR 2018.

Origin: JiahuiYu/generative_inpainting, branch v1.0.0 @06cd62c (TensorFlow; code and weights CC
BY-NC 4.0), and its port daa233/generative-inpainting-pytorch @c6cdaea (MIT). Written from the
paper and from a fact sheet of both: facts only, no code taken. Licence of this file: Apache-2.0.

A coarse network fills the hole roughly. A refinement network encodes that picture in two branches,
one of dilated convolutions and one of contextual attention, which copies from the known region, and
generates it again.

Inside, pictures are in [-1, 1]; in the hole the picture is 0 and the mask 1. A channel of ones
shows where zero padding begins. Both networks clamp to [-1, 1], outside of which there is no
gradient.

Choices of this implementation, and differences from the paper or the authors' code:
- strided convolutions and the attention's sampling are symmetric as in the port. The authors' own
  weights need TensorFlow's conventions: `tensorflow=True` (`overpaint.layers.tensorflow`);
- the port adds 1e-4 to every square in the attention's norm; its own weights need
  `norm_offset=1e-4`, the authors' and the paper none;
- the input of the authors' networks is BGR, as OpenCV reads it. Their checkpoint is converted to
  RGB when it is remapped; one converted by the port is used unchanged, because the port's input is
  RGB;
- each picture of a batch has its own mask (the authors' attention uses the first one's for all);
- the critic's local branch ends at 8 times the width, as in the authors' code (4 in the port);
- convolutions are initialised as in the authors' code (Glorot and Bengio 2010), not as in the port:
  with the initialisation of He et al. 2015, values leave [-1, 1].

Size at the published width: 3.6 M parameters; at width 20: 1.4 M.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from overpaint.errors import ConfigError
from overpaint.inpainters.base import Inpainter, compose
from overpaint.layers.attention import ContextualAttention
from overpaint.layers.tensorflow import conv2d
from overpaint.registry import Official, inpainters
from overpaint.weights.rename_keys import rename_keys

Conv = Callable[..., nn.Module]
"""(in_channels, out_channels, kernel_size=3, stride=1, dilation=1, *, activation=nn.ELU)."""


@dataclass(frozen=True, slots=True)
class DeepFillV1Config:
    """Configuration of DeepFillV1."""

    width: int = 32
    """Channels at full resolution (the authors' cnum); all others are multiples of it. Even."""
    tensorflow: bool = False
    """Padding and sampling of TensorFlow, with which the authors' weights were trained."""
    norm_offset: float = 0.0
    """Added to each squared value under the root of the attention's norm; see the header."""

    def __post_init__(self) -> None:
        if self.width < 2 or self.width % 2:
            raise ConfigError("deepfill_v1: width must be even and at least 2")
        if self.norm_offset < 0:
            raise ConfigError("deepfill_v1: norm_offset must not be negative")


class ConvELU(nn.Module):
    """Convolution and activation: (b, in_channels, h, w) -> (b, out_channels, h/s, w/s)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        *,
        activation: type[nn.Module] = nn.ELU,
        same: bool = False,
    ) -> None:
        super().__init__()
        self.conv = conv2d(in_channels, out_channels, kernel_size, stride, dilation, same=same)
        self.activation = activation()
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.conv(x))


def make_encoder(conv: Conv, widths: Sequence[int]) -> list[nn.Module]:
    """conv1 to conv5: (b, widths[0], h, w) -> (b, widths[5], h/4, w/4)."""
    shapes = zip(pairwise(widths), (5, 3, 3, 3, 3), (1, 2, 1, 2, 1), strict=True)
    return [conv(c_in, c_out, size, stride) for (c_in, c_out), size, stride in shapes]


def make_dilated(conv: Conv, channels: int) -> list[nn.Module]:
    """conv6 to conv10: a receptive field of 63 positions."""
    return [conv(channels, channels, 3, 1, dilation) for dilation in (1, 2, 4, 8, 16)]


def make_decoder(conv: Conv, in_channels: int, c: int) -> list[nn.Module]:
    """conv11 to conv17: (b, in_channels, h/4, w/4) -> (b, 3, h, w)."""
    return [
        conv(in_channels, 4 * c),
        conv(4 * c, 4 * c),
        nn.Upsample(scale_factor=2),
        conv(4 * c, 2 * c),
        conv(2 * c, 2 * c),
        nn.Upsample(scale_factor=2),
        conv(2 * c, c),
        conv(c, c // 2),
        nn.Conv2d(c // 2, 3, 3, padding=1),
    ]


def number_layers(first: int, layers: Iterable[nn.Module]) -> nn.Sequential:
    """The layers in a row, with the published numbers: `conv11`, `conv12`, `upsample13`, ..."""
    row, number = nn.Sequential(), first
    for layer in layers:
        is_conv = not isinstance(layer, nn.Upsample)
        row.add_module(f"{'conv' if is_conv else 'upsample'}{number}", layer)
        number += is_conv
    return row


def make_coarse_network(conv: Conv, in_channels: int, c: int) -> nn.Sequential:
    """The first network: (b, in_channels, h, w) -> (b, 3, h, w), unbounded."""
    widths = [in_channels, c, 2 * c, 2 * c, 4 * c, 4 * c]
    return number_layers(
        1, [*make_encoder(conv, widths), *make_dilated(conv, 4 * c), *make_decoder(conv, 4 * c, c)]
    )


class Refinement(nn.Module):
    """The second network: (b, in_channels, h, w) and mask (b, 1, h, w) -> (b, 3, h, w)."""

    def __init__(
        self, conv: Conv, in_channels: int, c: int, attention: ContextualAttention
    ) -> None:
        super().__init__()
        widths = [in_channels, c, c, 2 * c, 2 * c, 4 * c]
        self.imagine = number_layers(1, [*make_encoder(conv, widths), *make_dilated(conv, 4 * c)])
        widths = [in_channels, c, c, 2 * c, 4 * c, 4 * c]
        to_match = conv(4 * c, 4 * c, activation=nn.ReLU)
        self.look = number_layers(1, [*make_encoder(conv, widths), to_match])
        self.attention = attention
        self.copy = number_layers(9, [conv(4 * c, 4 * c), conv(4 * c, 4 * c)])
        self.merge = number_layers(11, make_decoder(conv, 8 * c, c))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        imagined = self.imagine(x)  # (b, 4c, h/4, w/4)
        copied = self.copy(self.attention(self.look(x), mask))  # (b, 4c, h/4, w/4)
        return self.merge(torch.cat([imagined, copied], dim=1))


@dataclass(frozen=True, slots=True)
class Stages:
    """Outputs of both networks, whole pictures (b, 3, h, w) in [0, 1], not composed."""

    coarse: Tensor
    output: Tensor


class DeepFillV1(Inpainter):
    """Coarse network, refinement with contextual attention; see the module's header."""

    stride: ClassVar[int] = 8

    def __init__(self, config: DeepFillV1Config | None = None) -> None:
        super().__init__()
        self.config = config = config or DeepFillV1Config()
        conv = partial(ConvELU, same=config.tensorflow)
        attention = ContextualAttention(aligned=config.tensorflow, norm_offset=config.norm_offset)
        self.coarse = make_coarse_network(conv, 5, config.width)
        self.refinement = Refinement(conv, 5, config.width, attention)

    def run_stages(self, image: Tensor, mask: Tensor) -> Stages:
        """Outputs of both networks, for training. Sides: multiples of 8.

        image: (b, 3, h, w) in [0, 1]; its hole is ignored. mask: float (b, 1, h, w), 1 = hole.
        """
        seen = compose(2 * image - 1, torch.zeros_like(image), mask)
        where = torch.cat([torch.ones_like(mask), mask], dim=1)
        coarse = self.coarse(torch.cat([seen, where], dim=1)).clamp(-1, 1)
        filled = torch.cat([compose(seen, coarse, mask), where], dim=1)
        fine = self.refinement(filled, mask).clamp(-1, 1)
        return Stages((coarse + 1) / 2, (fine + 1) / 2)

    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.run_stages(image, mask).output


class LocalGlobalCritic(nn.Module):
    """The WGAN-GP critic: a score for the whole picture and one for the patch around the hole.

    image (b, 3, size, size) and patch (b, 3, size/2, size/2) -> two (b, 1), higher is more real.
    size: a multiple of 32, 256 as published. No norm, which the gradient penalty excludes.
    """

    def __init__(self, size: int = 256, width: int = 64) -> None:
        super().__init__()
        if size < 32 or size % 32:
            raise ConfigError(f"deepfill_v1: the critic's size {size} is not a multiple of 32")
        self.whole = _make_critic([width, 2 * width, 4 * width, 4 * width], size)
        self.local = _make_critic([width, 2 * width, 4 * width, 8 * width], size // 2)

    def forward(self, image: Tensor, patch: Tensor) -> tuple[Tensor, Tensor]:
        return self.whole(image), self.local(patch)


def _make_critic(widths: Sequence[int], size: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for c_in, c_out in pairwise([3, *widths]):
        layers += [nn.Conv2d(c_in, c_out, 5, stride=2, padding=2), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * (size // 16) ** 2, 1))


def list_layer_rules(coarse: str, imagine: str, look: str, merge: str) -> list[tuple[str, str]]:
    """Rules for the authors' layer names, given the expressions before the layers' numbers."""
    names = [
        (rf"{coarse}17", "coarse.conv17"),
        (rf"{coarse}(?P<n>\d+)", r"coarse.conv\g<n>.conv"),
        (rf"{imagine}(?P<n>\d+)", r"refinement.imagine.conv\g<n>.conv"),
        (rf"{look}(?P<n>[1-6])", r"refinement.look.conv\g<n>.conv"),
        (rf"{look}(?P<n>9|10)", r"refinement.copy.conv\g<n>.conv"),
        (rf"{merge}17", "refinement.merge.conv17"),
        (rf"{merge}(?P<n>\d+)", r"refinement.merge.conv\g<n>.conv"),
    ]
    tail = r"(?:_downsample|_atrous|_upsample\.conv)?\.conv\.(?P<kind>weight|bias)"
    return [(theirs + tail, rf"{ours}.\g<kind>") for theirs, ours in names]


def rename_from_tensorflow(state: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors of the authors' own checkpoints, v1 or v2, by layer names alone and for RGB.

    `inpaint_net.NAME.kernel` (height, width, in, out) becomes `NAME.conv.weight` (out, in, height,
    width). The authors' input is BGR, as OpenCV reads it, so the channels of the first and of the
    last layers' kernels are reversed. Other tensors are not changed.
    """
    name = r"inpaint_net\.(\w*?conv(\d+)\w*)(?:\.\w+_conv)?\.(kernel|bias)"
    out: dict[str, Any] = {}
    for key, value in state.items():
        found = re.fullmatch(name, key)
        if found is None:
            out[key] = value
            continue
        layer, number, kind = found.groups()
        if kind == "kernel":
            value = value.permute(3, 2, 0, 1)
            if number == "1":
                value = torch.cat([value[:, :3].flip(1), value[:, 3:]], dim=1)
        if number == "17":
            value = value.flip(0)
        inner = "conv." if "_upsample" in layer else ""  # nested there, as in v2's port
        out[f"{layer}.{inner}conv.{'weight' if kind == 'kernel' else kind}"] = value
    return out


FLAT_RULES = list_layer_rules("conv", "xconv", "pmconv", "allconv")
"""For names without any prefix, as in `rename_from_tensorflow` and v2's port."""

TRAINING_ONLY = [r"discriminator\..*", r"(?:.*\.)?(?:beta[12]_power|Adam|global_step)(?:_\d+)?"]
"""Tensors of the authors' checkpoints that are no part of the inpainter."""

# The port's trainer, for which the authors' weights were converted, holds the generator as netG.
_COARSE, _FINE = (rf"(?:netG\.)?{name}_generator\." for name in ("coarse", "fine"))
_PORT_RULES = list_layer_rules(
    _COARSE + "conv", _FINE + "conv", _FINE + "pmconv", _FINE + "allconv"
)


def remap(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the port's generator, or of its whole trainer, to ours; strict. Critics are left out.

    A checkpoint of the authors' TensorFlow code, its names joined by dots, is accepted as well.
    """
    drop = [r"(?:localD|globalD)\..*", *TRAINING_ONLY]
    return rename_keys(rename_from_tensorflow(state_dict), FLAT_RULES + _PORT_RULES, drop)


def deepfill_v1(**config: Any) -> DeepFillV1:
    """DeepFill v1 at the published width; fields of DeepFillV1Config as keyword arguments."""
    return DeepFillV1(DeepFillV1Config(**config))


OFFICIAL = Official(
    repository=(
        "JiahuiYu/generative_inpainting@06cd62c (v1.0.0), converted by "
        "daa233/generative-inpainting-pytorch@c6cdaea"
    ),
    licence="CC BY-NC 4.0",
    remap=remap,
    config={"tensorflow": True},
    files=("torch_model.p",),
)

inpainters.register(
    "deepfill_v1",
    deepfill_v1,
    paper="Generative Image Inpainting with Contextual Attention, CVPR 2018, arXiv 1801.07892",
    licence="Apache-2.0 (the official code is CC BY-NC 4.0; none taken)",
    summary="3.6 M parameters, the published width",
    official=OFFICIAL,
)
