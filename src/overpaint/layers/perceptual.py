"""Distances between the features of fixed networks: perceptual loss, style loss, LPIPS.

- The networks are our own modules with torchvision's state-dict names (`features.N.weight`), so
  that the official files load unchanged, without torchvision. The user fetches them from the
  addresses below; the full sha256 is checked.
- A `Backbone` gives features by name ("relu3_4"); the losses take any backbone. The distilled VGG
  ends at relu5_1, which replaces relu5_2 in its style loss.
- LPIPS needs the official backbone and the official linear weights. Without them `load_lpips`
  returns None and a table says "n/a"; no other distance has that name.

Sources: VGG, Simonyan and Zisserman 2014; AlexNet, Krizhevsky 2014 (arXiv 1404.5997); the losses,
SafePaint eq. 9 and 10 after Johnson et al. 2016; the distilled VGG-19, MingSun-Tse/
Collaborative-Distillation at 4a269dc (MIT); LPIPS, Zhang et al. 2018 (arXiv 1801.03924),
richzhang/PerceptualSimilarity (BSD-2-Clause). Written from papers and lists of layers.
"""

import io
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint import hashes
from overpaint.errors import InputError, WeightsError

OFFICIAL = "https://download.pytorch.org/models/"
VGG19_FILE = "vgg19-dcbb9e9d.pth"
LPIPS_ADDRESS = "https://github.com/richzhang/PerceptualSimilarity/tree/master/lpips/weights/v0.1"
SHA256 = {
    VGG19_FILE: "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
    "vgg16-397923af.pth": "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    "alexnet-owt-7be5be79.pth": "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    "alex.pth": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "vgg.pth": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    "vgg19_distilled_16x.pth": "9417c34d0d8d621bc6af78be745f1b8d30f5f210efa01e50655c60eb3770816b",
}
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """A fixed network whose features are compared: eval mode, no gradient to its parameters."""

    perceptual_layers: ClassVar[tuple[str, ...]]
    style_layers: ClassVar[tuple[str, ...]]
    perceptual_factor: ClassVar[float] = 1.0
    """Factor that scales its perceptual loss to that of torchvision's VGG-19."""
    style_factor: ClassVar[float] = 1.0
    """Factor that scales its style loss to that of torchvision's VGG-19."""

    def forward(self, image: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """Features by layer name of image (b, 3, h, w), RGB in [0, 1]."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in eval mode, because a backbone is not trained."""
        return super().train(False)


class FeatureStack(Backbone):
    """`features` of a torchvision classifier: convolutions, ReLUs and pooling in one sequence."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, layers: Sequence[nn.Module], names: dict[int, str], normalise: bool = True
    ) -> None:
        """names: of the layers whose features are available, by position.

        normalise: subtract ImageNet's mean and divide by its deviation first, as in the training
        of these networks; EdgeConnect's losses use the picture without it.
        """
        super().__init__()
        self.features = nn.Sequential(*layers)
        self.names, self.normalise = names, normalise
        for name, value in (("mean", IMAGENET_MEAN), ("deviation", IMAGENET_DEVIATION)):
            self.register_buffer(name, torch.tensor(value).reshape(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        _check_layers(layers, self.names.values())
        found: dict[str, Tensor] = {}
        x = (image - self.mean) / self.deviation if self.normalise else image
        for i, layer in enumerate(self.features):
            x = layer(x)
            if self.names.get(i) in layers:
                found[self.names[i]] = x
            if len(found) == len(layers):
                break
        return found


class VGG19(FeatureStack):
    """VGG-19's features: relu1_1 to relu5_4. 20.0 M parameters."""

    perceptual_layers = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    style_layers = ("relu2_2", "relu3_4", "relu4_4", "relu5_2")

    def __init__(self, normalise: bool = True) -> None:
        super().__init__(*_make_vgg((2, 2, 4, 4, 4)), normalise=normalise)


def _make_vgg(depths: Sequence[int]) -> tuple[list[nn.Module], dict[int, str]]:
    """Layers of a VGG, and the names of its ReLUs; depths: number of convolutions per scale."""
    layers: list[nn.Module] = []
    names: dict[int, str] = {}
    c_in = 3
    for scale, (depth, c_out) in enumerate(zip(depths, (64, 128, 256, 512, 512), strict=True), 1):
        for i in range(1, depth + 1):
            layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU()]
            names[len(layers) - 1] = f"relu{scale}_{i}"
            c_in = c_out
        layers.append(nn.MaxPool2d(2))
    return layers, names


def _make_alexnet() -> tuple[list[nn.Module], dict[int, str]]:
    layers: list[nn.Module] = [
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
    ]
    return layers, {1: "relu1", 4: "relu2", 7: "relu3", 9: "relu4", 11: "relu5"}


class DistilledVGG19(Backbone):
    """VGG-19 to relu5_1 with a quarter of the channels and reflection padding; 0.8 M parameters.

    Layers have their official names (conv11 .. conv51); the `_aux` layers, which are for the
    distillation, are left out. The layers differ in scale, so each is divided by its mean over
    photos.

    Comparison with VGG-19. The network that was distilled is Gatys et al.'s VGG-19, rescaled so
    that every channel's mean over photos is 1: after the `_aux` layers, which predict its features,
    the means of relu1_1 to relu5_1 over 60 photos are 1.01, 1.01, 0.96, 0.95 and 0.89. The features
    of each layer here are therefore on the scale of that network. torchvision's weights, for which
    inpainting's usual loss weights (0.1 and 250) were chosen, have another scale. Their file was
    not available, so the two factors below match the whole losses and not each layer. They are
    derived from published curves of AOT-GAN's training, with and without style loss
    (praeclarumjj3/AOT-GAN-Experiments, MIT): at the first step, where the generator's output is
    about mid-grey, L1 + 0.1 perceptual is 0.80, and 1.9 to 2.4 with 250 style. Mid-grey compared
    with 60 training photos gives here an L1 of 0.47, a perceptual loss of 4.27 and a style loss of
    0.0731. So the losses of VGG-19 are 3.3 and about 0.0055, the latter with an uncertainty of a
    quarter.
    """

    perceptual_layers = VGG19.perceptual_layers
    style_layers = ("relu2_2", "relu3_4", "relu4_4", "relu5_1")
    perceptual_factor, style_factor = 0.77, 0.075
    # Mean features of 60 training photos (BSDS500 and ImageNet).
    scales: ClassVar[dict[str, float]] = {
        "relu1_1": 3.65,
        "relu1_2": 7.39,
        "relu2_1": 8.97,
        "relu2_2": 3.82,
        "relu3_1": 4.84,
        "relu3_2": 2.27,
        "relu3_3": 1.65,
        "relu3_4": 1.63,
        "relu4_1": 1.84,
        "relu4_2": 1.05,
        "relu4_3": 1.0,
        "relu4_4": 0.646,
        "relu5_1": 3.76,
    }

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 3, 1)  # normalises the colours
        self.order: list[tuple[int, int]] = []
        c_in = 3
        widths = (16, 32, 64, 128, 128)
        for scale, (depth, c_out) in enumerate(zip((2, 2, 4, 4, 1), widths, strict=True), 1):
            for i in range(1, depth + 1):
                self.add_module(f"conv{scale}{i}", nn.Conv2d(c_in, c_out, 3))
                self.order.append((scale, i))
                c_in = c_out
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        _check_layers(layers, [f"relu{scale}_{i}" for scale, i in self.order])
        if min(image.shape[-2:]) < 32:
            raise InputError(
                f"the distilled VGG takes sides of 32 pixels or more, not {image.shape}"
            )
        found: dict[str, Tensor] = {}
        x = self.conv0(image)
        for scale, i in self.order:
            if i == 1 and scale > 1:
                x = F.max_pool2d(x, 2)
            x = F.relu(self.get_submodule(f"conv{scale}{i}")(F.pad(x, (1,) * 4, mode="reflect")))
            name = f"relu{scale}_{i}"
            if name in layers:
                found[name] = x / self.scales[name]
            if len(found) == len(layers):
                break
        return found


def load_vgg19(path: Path, *, normalise: bool = True, sha256: str = SHA256[VGG19_FILE]) -> VGG19:
    """VGG-19 with the official ImageNet weights, `OFFICIAL + VGG19_FILE` (548 MB).

    Raises WeightsError when the file is missing, damaged or another one.
    """
    state = _read(path, sha256, OFFICIAL + VGG19_FILE)
    backbone = VGG19(normalise)
    _load(backbone.features, _select_below(state, "features."), path)
    return backbone


def load_distilled_vgg19(path: Path) -> DistilledVGG19:
    """The distilled VGG-19, `vgg19_distilled_16x.pth` of Collaborative-Distillation.

    Raises WeightsError when the file is missing, damaged or another one.
    """
    address = "github.com/MingSun-Tse/Collaborative-Distillation"
    state = _read(path, SHA256["vgg19_distilled_16x.pth"], address)["model"]
    backbone = DistilledVGG19()
    _load(backbone, {k: v for k, v in state.items() if "_aux" not in k}, path)
    return backbone


def load_backbone(name: str, assets: Path = Path()) -> Backbone | None:
    """A backbone by "KIND:FILE", the file below `assets`; None for "none".

    KIND: "vgg19", "vgg19-raw" (without normalisation, as in EdgeConnect) or "distilled".
    """
    kind, _, file = name.partition(":")
    if name == "none":
        return None
    if kind not in ("vgg19", "vgg19-raw", "distilled") or not file:
        raise WeightsError(f"backbone {name!r}: give vgg19:FILE, vgg19-raw:FILE, distilled:FILE")
    if kind == "distilled":
        return load_distilled_vgg19(assets / file)
    return load_vgg19(assets / file, normalise=kind == "vgg19")


# Losses


def gram(feature: Tensor) -> Tensor:
    """Gram matrix of (b, c, h, w), divided by c h w: (b, c, c); psi of eq. 10, float32."""
    flat = feature.float().flatten(2)
    with torch.autocast(feature.device.type, enabled=False):
        return flat @ flat.transpose(1, 2) / flat[0].numel()


def perceptual_loss(features: dict[str, Tensor], target: dict[str, Tensor]) -> Tensor:
    """Sum over the target's layers of the mean absolute difference (eq. 9, one stage)."""
    return torch.stack([(features[k] - t).abs().float().mean() for k, t in target.items()]).sum()


def style_loss(features: dict[str, Tensor], target: dict[str, Tensor]) -> Tensor:
    """Sum over the target's layers of the mean absolute difference of Grams (eq. 10)."""
    return torch.stack(
        [(gram(features[k]) - gram(t)).abs().mean() for k, t in target.items()]
    ).sum()


def feature_losses(
    backbone: Backbone, stages: Sequence[Tensor], target: Tensor, region: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Perceptual and style loss (eq. 9 and 10), each summed over the `stages`' pictures.

    stages, target: (b, 3, h, w) in [0, 1]. region: where the style is compared, (b, 1, h, w), as
    in the authors' code; None for the whole picture. The backbone runs once on each picture, or
    twice with a region.
    """
    content, style = backbone.perceptual_layers, backbone.style_layers
    asked = set(content) if region is not None else {*content, *style}

    def split(features: dict[str, Tensor], layers: Sequence[str]) -> dict[str, Tensor]:
        return {k: features[k] for k in layers}

    with torch.no_grad():
        wanted = backbone(target, asked)
        wanted_style = wanted if region is None else backbone(target * region, set(style))
    terms = []
    for image in stages:
        found = backbone(image, asked)
        found_style = found if region is None else backbone(image * region, set(style))
        terms.append(
            (
                perceptual_loss(found, split(wanted, content)),
                style_loss(found_style, split(wanted_style, style)),
            )
        )
    return torch.stack([p for p, _ in terms]).sum(), torch.stack([s for _, s in terms]).sum()


# LPIPS

LPIPSNet = Literal["alex", "vgg"]
_LPIPS_BACKBONES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}


class LPIPS(nn.Module):
    """Learned perceptual image patch similarity, version 0.1; lower is more similar."""

    shift: Tensor
    scale: Tensor

    layers: ClassVar[dict[str, tuple[str, ...]]] = {
        "alex": ("relu1", "relu2", "relu3", "relu4", "relu5"),
        "vgg": ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"),
    }

    def __init__(self, net: LPIPSNet) -> None:
        super().__init__()
        self.net = net
        layers, names = _make_alexnet() if net == "alex" else _make_vgg((2, 2, 3, 3, 3))
        self.backbone = FeatureStack(layers, names, normalise=False)
        widths = (64, 192, 384, 256, 256) if net == "alex" else (64, 128, 256, 512, 512)
        self.linear = nn.ParameterList(torch.zeros(1, c, 1, 1) for c in widths)
        # The authors' constants for pictures in [-1, 1].
        for name, value in (("shift", (-0.030, -0.088, -0.188)), ("scale", (0.458, 0.448, 0.450))):
            self.register_buffer(name, torch.tensor(value).reshape(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Distances (b,) of two batches (b, 3, h, w) in [0, 1]."""
        one, other = (self._find_directions(x) for x in (image, reference))
        pairs = zip(one, other, self.linear, strict=True)
        return torch.stack(
            [((a - b).square() * w).sum(1).mean(dim=(1, 2)) for a, b, w in pairs]
        ).sum(dim=0)

    def _find_directions(self, image: Tensor) -> list[Tensor]:
        """Features of each layer, normalised to length 1 at each position."""
        features = self.backbone((2 * image - 1 - self.shift) / self.scale, self.layers[self.net])
        return [
            f / (torch.linalg.vector_norm(f, dim=1, keepdim=True) + 1e-10)
            for f in features.values()
        ]


def load_lpips(
    folder: Path, net: LPIPSNet, *, sha256: dict[str, str] | None = None
) -> LPIPS | None:
    """LPIPS from the official files in `folder`, or None if one is missing.

    Files: alexnet-owt-7be5be79.pth and alex.pth, or vgg16-397923af.pth and vgg.pth. Raises
    WeightsError for a damaged file.
    """
    known = sha256 or SHA256
    backbone, linear = folder / _LPIPS_BACKBONES[net], folder / f"{net}.pth"
    if not (backbone.is_file() and linear.is_file()):
        return None
    metric = LPIPS(net)
    state = _read(backbone, known[backbone.name], OFFICIAL + backbone.name)
    _load(metric.backbone.features, _select_below(state, "features."), backbone)
    weights = _read(linear, known[linear.name], LPIPS_ADDRESS)
    named = {str(i): weights.get(f"lin{i}.model.1.weight") for i in range(5)}
    _load(metric.linear, {k: v for k, v in named.items() if v is not None}, linear)
    return metric


# Files


def _check_layers(asked: Collection[str], known: Collection[str]) -> None:
    if unknown := sorted(set(asked) - set(known)):
        raise InputError(f"no layer {', '.join(unknown)}; there are {', '.join(known)}")


def _read(path: Path, sha256: str, address: str) -> dict[str, Any]:
    """The state dict in `path` after its hash was checked."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read; fetch it from {address}") from error
    found = hashes.sha256(content)
    if found != sha256:
        raise WeightsError(
            f"{path}: its sha256 is {found}, not {sha256}; fetch it again from {address}"
        )
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _select_below(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _load(module: nn.Module, state: dict[str, Any], path: Path) -> None:
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise WeightsError(f"{path}: does not fit the network: {error}") from error
