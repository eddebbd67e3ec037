"""DeepFill v2: "Free-Form Image Inpainting with Gated Convolution", Yu et al., ICCV 2019.

Origin: JiahuiYu/generative_inpainting, branch master @3a53243 (TensorFlow; code and weights CC
BY-NC 4.0), and its port nipponjo/deepfillv2-pytorch @4899fd3 (no licence file). Written from the
paper and from a fact sheet of both: facts only, no code taken. Licence of this file: Apache-2.0.

The two networks of DeepFill v1 (`overpaint.inpainters.deepfill_v1`), with fewer channels and four
changes: all convolutions but the last are gated; the last activation is tanh, not a clamp; the
refinement's input is the filled picture without the mask; one SN-PatchGAN scores holes of any shape
(`overpaint.layers.sn_patchgan`) instead of two critics.

Inside, pictures are in [-1, 1]; in the hole the picture is 0 and the mask 1. A channel of ones
shows where zero padding begins (the authors use it for the user's sketch).

Choices of this implementation, and differences from the paper or the authors' code:
- `width` counts channels after the gates. The authors' cnum, 48, counts features and gates;
- strided convolutions and the attention's sampling are symmetric as in `networks.py` of the port.
  The authors' own weights need TensorFlow's conventions: `tensorflow=True`;
- their own checkpoint is converted from BGR to RGB, as in v1; a converted one is used unchanged;
- with these weights the port (`networks_tf.py`) samples the mask once, the authors and this file
  twice, which differs by a pixel; and it does not fuse the attention's scores (`fuse=False`),
  which the authors do;
- each picture of a batch has its own mask (the authors' attention uses the first one's for all);
- initialisation of gated convolutions: see `overpaint.layers.gated`.

Size at the published width: 4.05 M parameters, as in the fact sheet; at width 14: 1.4 M.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from overpaint.errors import ConfigError
from overpaint.inpainters.base import Inpainter, compose
from overpaint.inpainters.deepfill_v1 import (
    FLAT_RULES,
    TRAINING_ONLY,
    Refinement,
    Stages,
    make_coarse_network,
    rename_from_tensorflow,
)
from overpaint.layers.attention import ContextualAttention
from overpaint.layers.gated import GatedConv2d
from overpaint.registry import Official, inpainters
from overpaint.weights.rename_keys import rename_keys


@dataclass(frozen=True, slots=True)
class DeepFillV2Config:
    """Configuration of DeepFillV2."""

    width: int = 24
    """Channels at full resolution, after the gates; all others are multiples of it. Even."""
    tensorflow: bool = False
    """Padding and sampling of TensorFlow, with which the authors' weights were trained."""
    fuse: bool = True
    """Whether the attention adds the scores of neighbouring matches."""

    def __post_init__(self) -> None:
        if self.width < 2 or self.width % 2:
            raise ConfigError("deepfill_v2: width must be even and at least 2")


class DeepFillV2(Inpainter):
    """Coarse network, refinement with contextual attention, gated; see the module's header."""

    stride: ClassVar[int] = 8

    def __init__(self, config: DeepFillV2Config | None = None) -> None:
        super().__init__()
        self.config = config = config or DeepFillV2Config()
        conv = partial(GatedConv2d, same=config.tensorflow)
        attention = ContextualAttention(fuse=config.fuse, aligned=config.tensorflow)
        self.coarse = make_coarse_network(conv, 5, config.width)
        self.refinement = Refinement(conv, 3, config.width, attention)

    def run_stages(self, image: Tensor, mask: Tensor) -> Stages:
        """Outputs of both networks, for training. Sides: multiples of 8.

        image: (b, 3, h, w) in [0, 1]; its hole is ignored. mask: float (b, 1, h, w), 1 = hole.
        """
        seen = compose(2 * image - 1, torch.zeros_like(image), mask)
        coarse = torch.tanh(self.coarse(torch.cat([seen, torch.ones_like(mask), mask], dim=1)))
        fine = torch.tanh(self.refinement(compose(seen, coarse, mask), mask))
        return Stages((coarse + 1) / 2, (fine + 1) / 2)

    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.run_stages(image, mask).output


def _list_port_rules() -> list[tuple[str, str]]:
    """Rules for the port's own names, which number the layers by block."""
    blocks = ("conv1_downsample", "conv2"), ("conv1_upsample.conv", "conv2")
    down, up = (
        [f"{way}_block{i}.{conv}" for i in (1, 2) for conv in convs]
        for way, convs in zip(("down", "up"), blocks, strict=True)
    )
    between = [f"conv_bn{i}" for i in range(1, 8)]
    rows: list[tuple[str, str, int, list[str]]] = [
        ("stage1.", "coarse", 1, ["conv1", *down, *between, *up]),
        ("stage2.conv_", "refinement.imagine", 1, ["conv1", *down, *between[:5]]),
        ("stage2.ca_", "refinement.look", 1, ["conv1", *down, between[0]]),
        ("stage2.ca_", "refinement.copy", 9, between[3:5]),
        ("stage2.", "refinement.merge", 11, [*between[5:], *up]),
    ]
    rules = [
        (re.escape(f"{prefix}{name}.conv.") + r"(\w+)", rf"{part}.conv{number}.conv.\1")
        for prefix, part, first, names in rows
        for number, name in enumerate(names, start=first)
    ]
    last = [("stage1", "coarse"), ("stage2", "refinement.merge")]
    return rules + [(rf"{a}\.conv_to_rgb\.conv\.(\w+)", rf"{b}.conv17.\1") for a, b in last]


_RULES = FLAT_RULES + _list_port_rules()


def remap(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the port's generator to ours; strict. Both of its networks' keys are taken.

    state_dict: the content of a published file, {"G": generator, "D": ...}, the same with nested
    keys joined by dots, or the generator alone; or a checkpoint of the authors' TensorFlow code,
    its names joined by dots.
    """
    state = state_dict.get("G", state_dict)
    state = {key.removeprefix("G."): value for key, value in state.items()}
    drop = [r".*contextual_attention\.fuse_weight", r"(?:D|[GD]_optim)\..*", "n_iter"]
    return rename_keys(rename_from_tensorflow(state), _RULES, [*drop, *TRAINING_ONLY])


def deepfill_v2(**config: Any) -> DeepFillV2:
    """DeepFill v2 at the published width; fields of DeepFillV2Config as keyword arguments."""
    return DeepFillV2(DeepFillV2Config(**config))


OFFICIAL = Official(
    repository=(
        "JiahuiYu/generative_inpainting@3a53243, converted by nipponjo/deepfillv2-pytorch@4899fd3"
    ),
    licence="CC BY-NC 4.0",
    remap=remap,
    config={"tensorflow": True},
    files=("states_tf_places2.pth",),
)

inpainters.register(
    "deepfill_v2",
    deepfill_v2,
    paper="Free-Form Image Inpainting with Gated Convolution, ICCV 2019, arXiv 1806.03589",
    licence="Apache-2.0 (the official code is CC BY-NC 4.0; none taken)",
    summary="4.1 M parameters, the published width",
    official=OFFICIAL,
)
