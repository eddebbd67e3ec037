"""EdgeConnect: "EdgeConnect: Generative Image Inpainting with Adversarial Edge Learning".

Nazeri et al., ICCV Workshops 2019, arXiv:1901.00212. Original code and weights:
knazeri/edge-connect @3142579, both CC BY-NC 4.0 (not for commercial use). Written from the paper
and a fact sheet of that code; no code taken. Licence of this file: Apache-2.0, as the project.

Phase 1: the edge generator continues the edges of the known region into the hole. Phase 2: the
inpainting generator fills the hole, conditioned on these edges.

Inside, as outside, photos are in [0, 1] and the mask is 1 in the hole, which is white in the input
of both generators. Edges are 1, other pixels 0. Grey is 0.2125 R + 0.7154 G + 0.0721 B. Known edges
are Canny's (scikit-image, in the extra `classical`): sigma 2 and its default thresholds 0.1 and
0.2, with the hole masked out, so that neither its content nor its outline gives an edge.

Choices of this implementation, and differences from the paper or the authors' code:
- known edges replace generated ones before phase 2, as in the paper and the authors' training.
  Their test script does not do this;
- biases before an instance norm are kept, as published, although that norm cancels them;
- `rwsa` puts SafePaint's attention into the inpainting generator's downsampling path (table 6 of
  SafePaint, ACM MM 2024), here after each of its three convolutions, which mirrors its position in
  SafePaint itself;
- both discriminators are `layers.patchgan.PatchDiscriminator`, of 2 channels (grey, edges) and 3.

Size at the paper's width, in parameters: edges 10.76 M, inpainting 10.77 M (with RWSA 14.10 M). At
width 16: 1.35 M in all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from overpaint.errors import ConfigError
from overpaint.inpainters.base import Inpainter, compose
from overpaint.inpainters.classical import import_optional
from overpaint.layers.rwsa import RWSA
from overpaint.registry import Official, inpainters
from overpaint.weights.rename_keys import rename_keys

LUMINANCE = (0.2125, 0.7154, 0.0721)


@dataclass(frozen=True, slots=True)
class EdgeConnectConfig:
    """Configuration of EdgeConnect."""

    width: int = 64
    """Channels at full resolution; all others are multiples of it."""
    num_blocks: int = 8
    """Residual blocks in each generator."""
    sigma: float = 2.0
    """Of the Gaussian before Canny's gradient, pixels."""
    rwsa: bool = False
    """Region-wise separated attention in the inpainting generator's downsampling path."""

    def __post_init__(self) -> None:
        if min(self.width, self.num_blocks) < 1:
            raise ConfigError("edgeconnect: width and num_blocks must be at least 1")
        if self.sigma <= 0:
            raise ConfigError("edgeconnect: sigma must be above 0")


def to_grey(image: Tensor) -> Tensor:
    """Luminance of RGB: (b, 3, h, w) -> (b, 1, h, w)."""
    weights = image.new_tensor(LUMINANCE).reshape(1, 3, 1, 1)
    return (image * weights).sum(dim=1, keepdim=True)


def find_canny_edges(grey: Tensor, sigma: float, known: Tensor | None = None) -> Tensor:
    """Canny's edges of grey (b, 1, h, w) in [0, 1]: (b, 1, h, w), 1 on an edge, without gradient.

    known: (b, 1, h, w), 1 = known pixel; other pixels, and pixels next to them, have no edge.
    Raises OverpaintError naming the extra when scikit-image is missing.
    """
    canny = import_optional("skimage.feature").canny
    pictures = grey.detach().double().cpu().numpy()[:, 0]
    seen = torch.ones_like(grey) if known is None else known
    regions = seen.bool().cpu().numpy()[:, 0]
    edges = [
        torch.from_numpy(canny(picture, sigma=sigma, mask=region))
        for picture, region in zip(pictures, regions, strict=True)
    ]
    return torch.stack(edges)[:, None].to(grey)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, the first one dilated; no activation after the sum."""

    def __init__(self, channels: int, normalised: bool) -> None:
        super().__init__()
        first = nn.Conv2d(channels, channels, 3, dilation=2, bias=not normalised)
        second = nn.Conv2d(channels, channels, 3, bias=not normalised)
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(2),
            *_make_conv(first, normalised),
            nn.ReflectionPad2d(1),
            *_make_conv(second, normalised)[:-1],
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Generator(nn.Module):
    """Image transform network, of both phases: (b, in_channels, h, w) -> (b, out_channels, h, w).

    The output is not bounded yet. normalised: spectral norm on all convolutions but the last.
    With rwsa, forward needs the mask (b, 1, h, w), 1 = hole.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        config: EdgeConnectConfig,
        normalised: bool = False,
        rwsa: bool = False,
    ) -> None:
        super().__init__()
        c, n = config.width, normalised
        stages = [
            [nn.ReflectionPad2d(3), *_make_conv(nn.Conv2d(in_channels, c, 7), n)],
            _make_conv(nn.Conv2d(c, 2 * c, 4, stride=2, padding=1), n),
            _make_conv(nn.Conv2d(2 * c, 4 * c, 4, stride=2, padding=1), n),
        ]
        self.encoder = nn.ModuleList(nn.Sequential(*stage) for stage in stages)
        self.attention = nn.ModuleList(RWSA(i * c) for i in (1, 2, 4)) if rwsa else None
        self.blocks = nn.Sequential(*(ResidualBlock(4 * c, n) for _ in range(config.num_blocks)))
        last = nn.Conv2d(c, out_channels, 7)
        self.decoder = nn.Sequential(
            *_make_conv(nn.ConvTranspose2d(4 * c, 2 * c, 4, stride=2, padding=1), n),
            *_make_conv(nn.ConvTranspose2d(2 * c, c, 4, stride=2, padding=1), n),
            nn.ReflectionPad2d(3),
            _make_conv(last, False)[0],
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for i, stage in enumerate(self.encoder):
            x = stage(x)  # (b, c, h, w), (b, 2c, h/2, w/2), (b, 4c, h/4, w/4)
            if self.attention is not None:
                x = self.attention[i](x, mask)
        return self.decoder(self.blocks(x))


@dataclass(frozen=True, slots=True)
class Stages:
    """Outputs of both phases for a batch; every field (b, 1, h, w) but the last two."""

    grey: Tensor
    """Grey of the input photo, including its hole; together with edges, input of the edge
    discriminator."""
    predicted: Tensor
    """C_pred in [0, 1]: the edge generator's output, including the known region."""
    edges: Tensor
    """C_comp: known edges outside the hole, predicted edges inside."""
    fill: Tensor
    """(b, 3, h, w): the inpainting generator's output, including known pixels."""
    output: Tensor
    """(b, 3, h, w): the fill in the hole and the photo elsewhere."""


class EdgeConnect(Inpainter):
    """Two-phase inpainter; see the module's header."""

    stride: ClassVar[int] = 4
    min_size: ClassVar[int] = 12

    def __init__(self, config: EdgeConnectConfig | None = None) -> None:
        super().__init__()
        import_optional("skimage.feature")  # fails here and not at the first photo
        self.config = config = config or EdgeConnectConfig()
        self.edge_generator = Generator(3, 1, config, normalised=True)  # G1
        self.inpaint_generator = Generator(4, 3, config, rwsa=config.rwsa)  # G2

    def find_edges(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Canny's edges of a photo (b, 3, h, w), or of its known region: (b, 1, h, w)."""
        return find_canny_edges(
            to_grey(image), self.config.sigma, None if mask is None else 1 - mask
        )

    def paint(self, image: Tensor, edges: Tensor, mask: Tensor) -> Tensor:
        """Only phase 2: the picture (b, 3, h, w) generated from edges (b, 1, h, w)."""
        seen = compose(image, torch.ones_like(image), mask)
        return (torch.tanh(self.inpaint_generator(torch.cat([seen, edges], 1), mask)) + 1) / 2

    def draw(
        self, image: Tensor, mask: Tensor, edges: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Only phase 1: `predicted` and `edges` of `Stages`; see `run_stages`."""
        grey = to_grey(image)
        edges = self.find_edges(image, mask) if edges is None else edges
        known = edges * (1 - mask)
        seen = torch.cat([compose(grey, torch.ones_like(grey), mask), known, mask], dim=1)
        predicted = torch.sigmoid(self.edge_generator(seen, mask))  # C_pred
        return predicted, compose(known, predicted, mask)  # C_comp

    def run_stages(self, image: Tensor, mask: Tensor, edges: Tensor | None = None) -> Stages:
        """Outputs of both phases, for training. Sides: multiples of 4, at least 12 pixels.

        image: (b, 3, h, w), finite; its hole is ignored. mask: float (b, 1, h, w), 1 = hole.
        edges: (b, 1, h, w), if already computed; only those of the known region are used.
        """
        predicted, edges = self.draw(image, mask, edges)
        fill = self.paint(image, edges, mask)
        return Stages(to_grey(image), predicted, edges, fill, compose(image, fill, mask))

    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.run_stages(image, mask).fill


def _make_conv(conv: nn.Conv2d | nn.ConvTranspose2d, normalised: bool) -> list[nn.Module]:
    """A convolution (spectrally normalised or not), instance norm and ReLU."""
    nn.init.normal_(conv.weight, std=0.02)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    norm = nn.InstanceNorm2d(conv.out_channels)
    return [spectral_norm(conv) if normalised else conv, norm, nn.ReLU(inplace=True)]


_NETWORKS = (
    (r"EdgeModel_gen\.generator\.", "edge_generator."),
    (r"InpaintingModel_gen\.generator\.", "inpaint_generator."),
)
_PLACES = (
    (r"encoder\.1\.", "encoder.0.1."),
    (r"encoder\.4\.", "encoder.1.0."),
    (r"encoder\.7\.", "encoder.2.0."),
    (r"middle\.(\d+)\.conv_block\.([15])\.", r"blocks.\1.layers.\2."),
    (r"decoder\.([037])\.", r"decoder.\1."),
)
_VALUES = (
    ("weight", "weight"),
    ("bias", "bias"),
    ("weight_orig", "parametrizations.weight.original"),
    ("weight_u", "parametrizations.weight.0._u"),
    ("weight_v", "parametrizations.weight.0._v"),
)
_RULES = [
    ("".join(pattern for pattern, _ in parts), "".join(to for _, to in parts))
    for parts in product(_NETWORKS, _PLACES, _VALUES)
]


def remap(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the two published generators to ours; strict.

    state_dict: the content of both files, {"EdgeModel_gen": {"iteration": ..., "generator": ...},
    "InpaintingModel_gen": ...}, or the same with nested keys joined by dots.
    """
    return rename_keys(
        _flatten(state_dict), _RULES, drop=[r"(EdgeModel|InpaintingModel)_gen\.iteration"]
    )


def _flatten(state: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in state.items():
        inner = isinstance(value, Mapping)
        flat |= _flatten(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


def edgeconnect(**config: Any) -> EdgeConnect:
    """EdgeConnect at the paper's width; fields of EdgeConnectConfig as keyword arguments."""
    return EdgeConnect(EdgeConnectConfig(**config))


OFFICIAL = Official(
    repository="knazeri/edge-connect@3142579",
    licence="CC BY-NC 4.0",
    remap=remap,
    files=("EdgeModel_gen.pth", "InpaintingModel_gen.pth"),
)

inpainters.register(
    "edgeconnect",
    edgeconnect,
    paper="EdgeConnect: Generative Image Inpainting with Adversarial Edge Learning, ICCVW 2019",
    licence="Apache-2.0 (the official code and weights are CC BY-NC 4.0; none taken)",
    summary="21.5 M parameters, the paper's width",
    official=OFFICIAL,
)
