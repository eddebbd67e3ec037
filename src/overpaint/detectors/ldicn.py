"""HP-FCN: "Localization of Deep Inpainting Using High-Pass Fully Convolutional Network".

Li and Huang, ICCV 2019. Original code: lihaod/Deep_inpainting_localization @d33468d (TensorFlow 1,
MIT). Written from the paper and a fact sheet of that code; no code taken. Licence of this file:
Apache-2.0, as the project. The name LDICN is that in the paper of NIX-Net.

Three learnable difference filters on each colour, a small ResNet-v2 on their output, and two
learnable enlargements by 4; no skip connections. The filters start as differences of neighbours.

Peculiarities of the published code:
- every pair of channels of the two enlargements starts with the same bilinear kernel. The 64 hidden
  channels between them then get equal gradients and stay equal in training, so that they are no
  better than one. Here each pair's kernel starts with a random factor; `faithful=True` starts as
  published. This changes neither loaded weights nor the architecture;
- the stride is on the last unit of each block, and the decoder reads the last sum, not the norm
  after it (`postnorm`), whose unused values are left out at the import;
- the two biases of each sum are kept although the norms after them cancel most of them;
- batch norm changes its running statistics by 0.003 a step, so it needs thousands of steps.

Differences from the authors' code: two logits become one, their difference, whose sigmoid is equal
to their softmax; photos are padded to multiples of 16 (the original is inaccurate at other
sizes); the filters are float32 also under autocast, because they subtract nearly equal numbers.

Size: 7.70 M parameters (the published code counts 2,048 more, of the unused norm), more than half
of them in the first enlargement; 1.09 M at width 12. One photo of 256x256 costs 17.4 GFLOP, and
2.6 at width 12.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.detectors.base import Detector
from overpaint.errors import ConfigError
from overpaint.registry import Official, detectors
from overpaint.weights.rename_keys import rename_keys

DIRECTIONS = ((1, 0), (0, 1), (1, 1))  # rows, columns: down, right, and both
ENLARGEMENT = 4  # of each step of the decoder


@dataclass(frozen=True, slots=True)
class LDICNConfig:
    """Configuration of LDICN; `order` is the ablation of the paper's filters."""

    width: int = 32
    """Channels inside the units of the first block; all others are multiples of it."""
    order: int = 1
    """Of the differences with which the filters start: 1 (published) to 4."""
    faithful: bool = False
    """Start the decoder as published, with equal channels; see the module's header."""

    def __post_init__(self) -> None:
        if self.width < 1 or not 1 <= self.order <= 4:
            raise ConfigError("ldicn: width must be at least 1 and order 1, 2, 3 or 4")


def make_difference_kernels(order: int) -> Tensor:
    """Differences down, right and diagonal, (3, k, k): k is 3 up to order 2, else 5."""
    centre = 1 if order <= 2 else 2
    kernels = torch.zeros(3, 2 * centre + 1, 2 * centre + 1)
    for kernel, (down, right) in zip(kernels, DIRECTIONS, strict=True):
        for j in range(order + 1):  # binomial coefficients with alternating signs
            step = j - order // 2
            value = (-1) ** (order - j) * math.comb(order, j)
            kernel[centre + step * down, centre + step * right] = value
    return kernels


class HighPass(nn.Module):
    """Three filters on each colour: (b, 3, h, w) -> (b, 9, h, w), filter by filter.

    Each colour has its own copy, so that they are trained separately.
    """

    def __init__(self, order: int) -> None:
        super().__init__()
        size = 3 if order <= 2 else 5
        for i, kernel in enumerate(make_difference_kernels(order)):
            conv = nn.Conv2d(3, 3, size, padding=size // 2, groups=3, bias=False)
            with torch.no_grad():
                conv.weight.copy_(kernel.expand_as(conv.weight))
            self.add_module(f"filter{i}", conv)

    def forward(self, image: Tensor) -> Tensor:
        with torch.autocast(image.device.type, enabled=False):
            return torch.cat([conv(image) for conv in self.children()], dim=1)


def _make_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.003)


class Bottleneck(nn.Module):
    """Unit of ResNet-v2 (He et al. 2016b): the first one of a block widens, the last one halves."""

    def __init__(self, c_in: int, width: int, c_out: int) -> None:
        super().__init__()
        first = c_in != c_out
        self.preact = _make_norm(c_in)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if first else None
        self.conv1 = nn.Conv2d(c_in, width, 1, bias=False)
        self.norm1 = _make_norm(width)
        stride = 1 if first else 2
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.norm2 = _make_norm(width)
        self.conv3 = nn.Conv2d(width, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.preact(x))
        shortcut = x[..., ::2, ::2] if self.shortcut is None else self.shortcut(active)
        inner = F.relu(self.norm1(self.conv1(active)))
        inner = F.relu(self.norm2(self.conv2(inner)))
        return shortcut + self.conv3(inner)


def _make_body(width: int) -> nn.Sequential:
    """Four blocks of two units: (b, 9, h, w) -> (b, 32 * width, h/16, w/16)."""
    body = nn.Sequential()
    for i, (c_in, c_out) in enumerate(pairwise([9, *(4 * width << i for i in range(4))])):
        block = nn.Sequential()
        block.add_module("unit1", Bottleneck(c_in, width << i, c_out))
        block.add_module("unit2", Bottleneck(c_out, width << i, c_out))
        body.add_module(f"block{i + 1}", block)
    return body


def _make_enlarging(c_in: int, c_out: int) -> nn.ConvTranspose2d:
    """Learnable: (b, c_in, h, w) -> (b, c_out, 4h, 4w)."""
    n = ENLARGEMENT
    return nn.ConvTranspose2d(c_in, c_out, 2 * n, stride=n, padding=n // 2, bias=False)


class LDICN(Detector):
    """High-pass fully convolutional network; see the module's header."""

    stride: ClassVar[int] = 16

    def __init__(self, config: LDICNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LDICNConfig()
        self.residual = HighPass(config.order)
        self.body = _make_body(config.width)
        self.up0 = _make_enlarging(32 * config.width, 2 * config.width)
        self.up1 = _make_enlarging(2 * config.width, 4)
        self.norm = _make_norm(4)
        self.logits = nn.Conv2d(4, 2, 5, padding=2)
        self._initialise()

    def _compute_logits(self, image: Tensor) -> Tensor:
        x = self.body(self.residual(image))  # (b, 32 * width, h/16, w/16)
        x = self.up1(self.up0(x))  # (b, 2 * width, h/4, w/4), (b, 4, h, w)
        untouched, inpainted = self.logits(F.relu(self.norm(x))).split(1, dim=1)
        return inpainted - untouched

    @torch.no_grad()
    def _initialise(self) -> None:
        for module in (*self.body.modules(), self.logits):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for up in (self.up0, self.up1):
            up.weight.copy_(make_bilinear_kernel(ENLARGEMENT).expand_as(up.weight))
            if not self.config.faithful:
                c_in, c_out = up.weight.shape[:2]
                up.weight.mul_(torch.randn(c_in, c_out, 1, 1) / math.sqrt(c_in))


def make_bilinear_kernel(factor: int) -> Tensor:
    """(2 * factor, 2 * factor), with which a transposed convolution interpolates bilinearly."""
    line = 1 - (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
    return line[:, None] * line


_LEAVES = {
    "weights": "weight",
    "biases": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_UNIT = r"resnet_small\.block(\d)\.unit_(\d)\.bottleneck_v2\."
_LAYERS = (
    (_UNIT + r"(preact|shortcut|conv\d)", r"body.block\1.unit\2.\3"),
    (_UNIT + r"conv(\d)\.BatchNorm", r"body.block\1.unit\2.norm\3"),
    ("post_norm", "norm"),
    ("logits", "logits"),
)
_RULES = [
    (r"root_filter(\d)", r"residual.filter\1.weight"),
    (r"bilinear_kernel(\d)", r"up\1.weight"),
    *(
        (rf"{theirs}\.{leaf}", rf"{ours}.{new}")
        for theirs, ours in _LAYERS
        for leaf, new in _LEAVES.items()
    ),
]
_UNUSED = (
    r"resnet_small\.postnorm\..*",
    r"(?:.*\.)?(?:beta[12]_power|Adam|global_step)(?:_\d+)?",  # of the training
)


def remap(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of the authors' TensorFlow checkpoint, their names joined by dots, to ours; strict.

    Kernels (height, width, in, out) become (out, in, height, width), and the transposed ones'
    (height, width, out, in) likewise (in, out, height, width).
    """
    out: dict[str, Any] = {}
    for key, value in rename_keys(state_dict, _RULES, _UNUSED).items():
        if key.startswith("residual."):  # (height, width, 3, 1), one filter for each colour
            value = value.permute(2, 3, 0, 1)
        elif value.ndim == 4:
            value = value.permute(3, 2, 0, 1)
        out[key] = value
        if key.endswith(".running_mean"):  # TensorFlow does not count the batches
            counter = key.replace("running_mean", "num_batches_tracked")
            out[counter] = torch.zeros((), dtype=torch.int64)
    return out


def ldicn(**config: Any) -> LDICN:
    """LDICN at the published width; fields of LDICNConfig as keyword arguments."""
    return LDICN(LDICNConfig(**config))


OFFICIAL = Official(
    repository="lihaod/Deep_inpainting_localization@d33468d",
    licence="not stated; the repository's code is MIT",
    remap=remap,
    config={"faithful": True},
    files=("model.ckpt",),
)

detectors.register(
    "ldicn",
    ldicn,
    paper="Localization of Deep Inpainting Using High-Pass Fully Convolutional Network, ICCV 2019",
    licence="Apache-2.0 (the official code is MIT; none taken)",
    summary="7.7 M parameters, the published width",
    official=OFFICIAL,
)
