"""GL (GLCIC): "Globally and Locally Consistent Image Completion", SIGGRAPH 2017 (ACM TOG 36(4)).

The authors' code (satoshiiizuka/siggraph2017_inpainting) is for Torch7. Facts and weights are
those of a re-implementation in PyTorch, otenim/GLCIC-PyTorch @3f9de13 (MIT; its author trained the
weights, on CelebA); no code taken. Licence of this file: Apache-2.0, as the project.

One completion network fills the hole with dilated convolutions at a quarter of the size. Two
discriminators score the result: one the whole picture, the other a window around the hole.

Inside, as outside, photos are in [0, 1] and the mask is 1 in the hole. In the network's input the
hole has the mean colour of the training photos. The last activation is a sigmoid.

Choices of this implementation, and differences from the paper or that code:
- batch norm is before the ReLU (paper); in otenim's code it is after it: `activation_first=True`,
  which its weights need;
- the mean colour is part of the configuration, ImageNet's by default. otenim's is in a file beside
  the weights, `config.json` under `mpv`; CelebA's usual value is used in its place;
- no Poisson blending: the fill is the network's output;
- the discriminator returns logits; the sigmoid belongs to the loss.

Size at the paper's width, in parameters: 6.07 M; discriminator 45.1 M, 37 % of it in the
two fully connected layers. At width 28: 1.2 M.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from overpaint.errors import ConfigError, InputError
from overpaint.inpainters.base import Inpainter, compose
from overpaint.registry import Official, inpainters
from overpaint.weights.rename_keys import rename_keys

DILATIONS = (2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class GLCICConfig:
    """Configuration of GLCIC."""

    width: int = 64
    """Channels at full resolution, even; all others are multiples of it or its half."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Colour of the hole in the network's input: the training photos' mean, RGB in [0, 1]."""
    activation_first: bool = False
    """ReLU before batch norm, as in otenim's code, and not after it."""

    def __post_init__(self) -> None:
        if self.width < 2 or self.width % 2:
            raise ConfigError("glcic: width must be even and at least 2")
        if len(self.mean) != 3 or not all(0 <= value <= 1 for value in self.mean):
            raise ConfigError("glcic: mean must be three numbers within [0, 1], one per channel")


def _make_block(conv: nn.Conv2d | nn.ConvTranspose2d, activation_first: bool) -> nn.Sequential:
    """Convolution, batch norm and ReLU; the last two in either order, under the same names."""
    norm, relu = ("norm", nn.BatchNorm2d(conv.out_channels)), ("relu", nn.ReLU(inplace=True))
    behind = (relu, norm) if activation_first else (norm, relu)
    return nn.Sequential(OrderedDict([("conv", conv), *behind]))


class CompletionNetwork(nn.Module):
    """(b, 4, h, w), photo and mask -> picture (b, 3, h, w) in [0, 1]; sides multiples of 4."""

    def __init__(self, config: GLCICConfig) -> None:
        super().__init__()
        c = config.width

        def make_block(c_in: int, c_out: int, k: int = 3, stride: int = 1, d: int = 1) -> nn.Module:
            conv = nn.Conv2d(c_in, c_out, k, stride, padding=d * (k // 2), dilation=d)
            return _make_block(conv, config.activation_first)

        def make_up(c_in: int, c_out: int) -> nn.Module:
            conv = nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1)
            return _make_block(conv, config.activation_first)

        self.down = nn.Sequential(
            make_block(4, c, k=5),
            make_block(c, 2 * c, stride=2),
            make_block(2 * c, 2 * c),
            make_block(2 * c, 4 * c, stride=2),
            make_block(4 * c, 4 * c),
            make_block(4 * c, 4 * c),
        )
        self.dilated = nn.Sequential(*(make_block(4 * c, 4 * c, d=d) for d in DILATIONS))
        self.up = nn.Sequential(
            make_block(4 * c, 4 * c),
            make_block(4 * c, 4 * c),
            make_up(4 * c, 2 * c),
            make_block(2 * c, 2 * c),
            make_up(2 * c, c),
            make_block(c, c // 2),
        )
        self.last = nn.Conv2d(c // 2, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)  # (b, 4c, h/4, w/4)
        x = self.dilated(x)
        x = self.up(x)  # (b, c/2, h, w)
        return torch.sigmoid(self.last(x))


@dataclass(frozen=True, slots=True)
class Stages:
    """Outputs of the network for a batch."""

    fill: Tensor
    """(b, 3, h, w): the network's output, including known pixels."""
    output: Tensor
    """(b, 3, h, w): the fill in the hole and the photo elsewhere."""


class GLCIC(Inpainter):
    """The completion network; see the module's header."""

    stride: ClassVar[int] = 4
    min_size: ClassVar[int] = 4
    mean: Tensor

    def __init__(self, config: GLCICConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or GLCICConfig()
        self.completion = CompletionNetwork(config)
        mean = torch.tensor(config.mean).reshape(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)

    def run_stages(self, image: Tensor, mask: Tensor) -> Stages:
        """Outputs for training. Sides: multiples of 4.

        image: (b, 3, h, w), finite; its hole is ignored. mask: float (b, 1, h, w), 1 = hole.
        """
        seen = compose(image, self.mean.expand_as(image), mask)
        fill = self.completion(torch.cat([seen, mask], dim=1))
        return Stages(fill, compose(image, fill, mask))

    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.run_stages(image, mask).fill


class Branch(nn.Module):
    """One of the two discriminators: (b, 3, size, size) -> features (b, 16 * width).

    `num_convs` 5x5 convolutions of stride 2, and a fully connected layer.
    """

    def __init__(self, size: int, num_convs: int, width: int, activation_first: bool) -> None:
        super().__init__()
        left = size // 2**num_convs
        if left < 1 or size % 2**num_convs:
            raise ConfigError(f"glcic: a discriminator's size must be a multiple of {2**num_convs}")
        self.size = size
        widths = [3, *(width * min(2**i, 8) for i in range(num_convs))]
        convs = (nn.Conv2d(a, b, 5, stride=2, padding=2) for a, b in pairwise(widths))
        self.convs = nn.Sequential(*(_make_block(conv, activation_first) for conv in convs))
        self.to_features = nn.Linear(widths[-1] * left**2, 16 * width)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (self.size, self.size):
            raise InputError(
                f"glcic: this discriminator takes {self.size}x{self.size} pixels and not "
                f"{x.shape[2]}x{x.shape[3]}: train on crops of that size or build it for them"
            )
        x = self.convs(x)  # (b, 8 * width, size / 2^num_convs, ...)
        return self.to_features(x.flatten(1)).relu()


class ContextDiscriminator(nn.Module):
    """Both discriminators: a window and the picture around it -> logit (b, 1), positive = real.

    window: (b, 3, local_size, local_size), as `cut_local_window` cuts it out. picture: (b, 3,
    global_size, global_size). `num_global_convs` is 6 in the paper; otenim's `celeba` has 5.
    """

    def __init__(
        self,
        width: int = 64,
        local_size: int = 128,
        global_size: int = 256,
        num_global_convs: int = 6,
        activation_first: bool = False,
    ) -> None:
        super().__init__()
        self.local_branch = Branch(local_size, 5, width, activation_first)
        self.global_branch = Branch(global_size, num_global_convs, width, activation_first)
        self.to_logit = nn.Linear(32 * width, 1)

    def forward(self, window: Tensor, picture: Tensor) -> Tensor:
        features = [self.local_branch(window), self.global_branch(picture)]
        return self.to_logit(torch.cat(features, dim=1))


def cut_local_window(image: Tensor, mask: Tensor, size: int) -> Tensor:
    """Cut out of each picture the window centred at its hole, moved to lie inside the picture.

    image: (b, c, h, w); mask: (b, 1, h, w), 1 = hole (without one: the picture's centre).
    -> (b, c, size, size). Raises InputError for a picture smaller than the window.
    """
    sides = image.shape[2:]
    if min(sides) < size:
        raise InputError(
            f"glcic: a window of {size} pixels does not fit into {sides[0]}x{sides[1]}: "
            "give larger crops or a smaller window"
        )
    windows = []
    for picture, hole in zip(image, mask[:, 0] == 1, strict=True):
        for dim, side in enumerate(sides, start=1):
            start = _find_start(hole.any(dim=2 - dim), side, size)
            picture = picture.narrow(dim, start, size)
        windows.append(picture)
    return torch.stack(windows)


def _find_start(hit: Tensor, side: int, size: int) -> int:
    """Start of a window whose middle is that of the positions where `hit` is true, pixels."""
    places = hit.nonzero()
    middle = int(places.min() + places.max() + 1) if len(places) else side  # twice the middle
    return min(max((middle - size) // 2, 0), side - size)


_PLACES = [f"{part}.{i}" for part, n in (("down", 6), ("dilated", 4), ("up", 6)) for i in range(n)]
_RULES = [(r"conv17\.(weight|bias)", r"completion.last.\1")]
for _i, _place in enumerate(_PLACES, start=1):
    _layer = f"deconv{_i}" if _i in (13, 15) else f"conv{_i}"
    _RULES.append((rf"{_layer}\.(weight|bias)", rf"completion.{_place}.conv.\1"))
    _RULES.append((rf"bn{_i}\.(\w+)", rf"completion.{_place}.norm.\1"))


def remap(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of otenim's completion network to ours; strict.

    state_dict: the content of `model_cn`, or {"model_cn": that content}.
    """
    return rename_keys(state_dict.get("model_cn", state_dict), _RULES)


def glcic(**config: Any) -> GLCIC:
    """GLCIC at the paper's width; fields of GLCICConfig as keyword arguments."""
    return GLCIC(GLCICConfig(**config))


OFFICIAL = Official(
    repository="otenim/GLCIC-PyTorch@3f9de13",
    licence="MIT",
    remap=remap,
    config={"activation_first": True, "mean": (0.5063, 0.4258, 0.3832)},
    files=("model_cn",),
)

inpainters.register(
    "glcic",
    glcic,
    paper="Globally and Locally Consistent Image Completion, SIGGRAPH 2017",
    licence="Apache-2.0 (the re-implementation otenim/GLCIC-PyTorch is MIT; none taken)",
    summary="6.1 M parameters, the paper's width",
    official=OFFICIAL,
)
