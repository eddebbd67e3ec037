"""TruFor: "Leveraging all-round clues for trustworthy image forgery detection and localization".

Guillaro, Cozzolino, Sud, Dufour and Verdoliva, CVPR 2023, arXiv:2212.10957. Original code and
weights: grip-unina/TruFor @ae54475, licence of GRIP-UNINA, non-profit and informational use only.
Written from the paper and a fact sheet of that code; no code taken. Licence of this file:
Apache-2.0, as the project; that of the published weights stays theirs.

The inputs of one dual encoder (trufor_backbone.py) are a learned camera fingerprint, Noiseprint++,
and the photo. One head gives the forged pixels, another their confidence, and the photo's score is
computed from statistics of both maps.

With `faithful`, as published:
- 8-bit values are divided by 256, not by 255;
- sides that are no multiples of 32 are not padded: coarse maps are resized by fractional factors,
  and attention ignores the last rows and columns that fill no whole key. Photos with a side below
  29 pixels are padded nevertheless (the original fails). Without `faithful`, the base class pads,
  and the score includes the padding of at most 31 rows and columns.

Differences from the authors' code without influence on the result:
- the two classes become one logit, their difference;
- the heads multiply their two linear layers and apply them before the upsampling, so that no map
  of 2048 channels is made. Upsampling weights sum to 1, so the order does not matter;
- Noiseprint++ is float32 also under autocast. With bfloat16 the output of the published one has a
  correlation of only 0.66 to 0.82 with that in float32 (five crops of four photos). Its weights are
  stored in float32 for the same reason: with weights in float16 it is 0.93 and 0.94 (two crops).

The training of the authors has three phases: Noiseprint++ (contrastive, on untouched photos), then
the encoder and the head with Noiseprint++ frozen, then the confidence and the score with all else
frozen. The network here freezes nothing, and Noiseprint++ starts with plain batch norms, unless a
recipe uses the published one, which can be imported alone (`noiseprint` in `registry.parts`).

Size in parameters: 68.7 M as published, of which 0.56 M are Noiseprint++'s.

Memory, measured: 790 bytes a pixel in addition to the 0.3 GB of the weights, nearly all for the
maps of Noiseprint++ at full resolution. A whole 12-megapixel photo needs 9.5 GB, a tile of 1024
pixels 0.8 GB, of 2048 pixels 3.3 GB. (With attention matrices, as published, that of stage 1 would
have 750,000 by 11,700 values at 12 megapixels: 35 GB.) A photo larger than one tile of 1024 pixels
is processed in tiles, and its score is the highest of a tile. The authors process whole photos, so
use larger tiles if there is enough memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.detectors.base import Detector, Findings
from overpaint.detectors.trufor_backbone import DualEncoder
from overpaint.errors import ConfigError
from overpaint.images.image_checks import check_image, check_shape
from overpaint.registry import Official, detectors, parts
from overpaint.weights.rename_keys import rename_keys

NUM_STAGES = 4
NOISE_DEPTH = 17  # convolutions of Noiseprint++
SMALLEST = 29  # pixels, so that stage 1 has one whole key
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


@dataclass(frozen=True, slots=True)
class TruForConfig:
    """Configuration of TruFor."""

    widths: tuple[int, ...] = (64, 128, 320, 512)
    """Channels of the encoder's four stages, multiples of `heads`."""
    heads: tuple[int, ...] = (1, 2, 5, 8)
    """Attention heads of each stage."""
    depths: tuple[int, ...] = (3, 4, 6, 3)
    """Transformer blocks of each stage and stream."""
    head_width: int = 512
    """Channels of the two heads."""
    noise_width: int = 64
    """Channels of Noiseprint++."""
    drop_path: float = 0.1
    """Stochastic depth in the last block, in training."""
    faithful: bool = False
    """Prepare the photo as in the authors' code; see the module's header."""

    def __post_init__(self) -> None:
        for name in ("widths", "heads", "depths"):  # JSON and YAML give lists
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            if len(values) != NUM_STAGES or min(values) < 1:
                raise ConfigError(f"trufor: {name} must be four positive numbers, not {values}")
        if any(c % n for c, n in zip(self.widths, self.heads, strict=True)):
            raise ConfigError(f"trufor: widths {self.widths}: need multiples of heads {self.heads}")
        if min(self.head_width, self.noise_width) < 1 or not 0 <= self.drop_path < 1:
            raise ConfigError("trufor: the widths must be positive, and drop_path in [0, 1)")


def noiseprint(width: int = 64) -> nn.Sequential:
    """Noiseprint++ without its weights: a photo (b, 3, h, w) in [0, 1] to (b, 1, h, w)."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(inplace=True)]
    for _ in range(NOISE_DEPTH - 2):
        conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    layers.append(nn.Conv2d(width, 1, 3, padding=1))
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return nn.Sequential(*layers)


class Head(nn.Module):
    """SegFormer's decoder: four maps, finest first, to (b, num_outputs, h / 4, w / 4)."""

    def __init__(self, widths: tuple[int, ...], width: int, num_outputs: int, eps: float) -> None:
        """eps: of the batch norm."""
        super().__init__()
        self.project = nn.ModuleList(nn.Linear(c, width) for c in widths)
        self.fuse = nn.Conv2d(NUM_STAGES * width, width, 1)
        self.norm = nn.BatchNorm2d(width, eps)
        self.drop = nn.Dropout2d(0.1)
        self.predict = nn.Conv2d(width, num_outputs, 1)
        for conv in (self.fuse, self.predict):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")

    def forward(self, maps: list[Tensor]) -> Tensor:
        parts = self.fuse.weight.chunk(NUM_STAGES, dim=1)[::-1]  # published coarsest first
        total = self.fuse.bias[:, None, None]  # type: ignore[index]
        for x, project, part in zip(maps, self.project, parts, strict=True):
            part = part.flatten(1)
            weight, bias = part @ project.weight, part @ project.bias  # type: ignore[operator]
            y = F.conv2d(x, weight[..., None, None], bias)
            total = total + enlarge(y, maps[0].shape[-2:])
        return self.predict(self.drop(F.relu(self.norm(total), inplace=True)))


def enlarge(x: Tensor, size: torch.Size) -> Tensor:
    """x (b, c, h, w), resized bilinearly."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def log_sum_exp(x: Tensor) -> Tensor:
    """As `torch.logsumexp`, (b, n) to (b); OpenVINO does not read what that is exported to."""
    largest = x.amax(dim=1, keepdim=True)
    return largest[:, 0] + (x - largest).exp().sum(dim=1).log()


def compute_statistics(x: Tensor, log_weights: Tensor) -> Tensor:
    """Soft minimum, soft maximum, mean and mean square of x (b, 1, h, w), each weighted: (b, 4).

    log_weights: (b, 1, h, w); their exponentials are normalised to a sum of 1 over each picture.
    """
    x = x.flatten(1)
    log_w = log_weights.flatten(1).log_softmax(dim=1)
    w = log_w.exp()
    low, high = -log_sum_exp(log_w - x), log_sum_exp(log_w + x)
    return torch.stack([low, high, (w * x).sum(dim=1), (w * x * x).sum(dim=1)], dim=1)


class TruFor(Detector):
    """Forged pixels, confidence and score of a photo; see the module's header."""

    stride: ClassVar[int] = 32
    exact_parts = ("noiseprint",)
    mean: Tensor
    std: Tensor

    def __init__(self, config: TruForConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TruForConfig()
        widths = config.widths
        self.noiseprint = noiseprint(config.noise_width)
        self.encoder = DualEncoder(widths, config.heads, config.depths, config.drop_path)
        self.head = Head(widths, config.head_width, num_outputs=2, eps=1e-3)
        self.confidence = Head(widths, config.head_width, num_outputs=1, eps=1e-5)
        self.score = nn.Sequential(
            nn.Linear(8, 128), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(128, 1)
        )
        self.register_buffer("mean", torch.tensor(MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).reshape(3, 1, 1), persistent=False)

    def examine(self, image: Tensor) -> Findings:
        """As in the base class; with `faithful` the photo is not padded."""
        if self.config.faithful and image.ndim == 4 and min(image.shape[-2:]) >= SMALLEST:
            (check_shape if self.training else check_image)(image)
            return self._compute_logits(image)
        return super().examine(image)

    def _compute_logits(self, image: Tensor) -> Findings:
        if self.config.faithful:
            image = image * (255 / 256)
        with torch.autocast(image.device.type, enabled=False):  # bfloat16 would lose the noise
            noise = self.noiseprint(image.to(self.mean.dtype)).expand(-1, 3, -1, -1)  # (b, 3, h, w)
        maps = self.encoder((image - self.mean) / self.std, noise)  # (b, c, h/4, w/4) ... h/32
        untouched, forged = self.head(maps).chunk(2, dim=1)  # (b, 1, h/4, w/4)
        dtype = torch.promote_types(forged.dtype, torch.float32)
        size = image.shape[-2:]
        logits = enlarge((forged - untouched).to(dtype), size)  # (b, 1, h, w)
        confidence = enlarge(self.confidence(maps).to(dtype), size)
        plain = compute_statistics(confidence, torch.zeros_like(confidence))
        trusted = compute_statistics(logits, F.logsigmoid(confidence))
        score = self.score(torch.cat([plain, trusted], dim=1)).flatten()  # (b, 8) -> (b,)
        return Findings(logits, score.to(dtype), confidence)


def _list_rules() -> list[tuple[str, str]]:
    rules = [(r"dncnn\.(\d+\.\w+)", r"noiseprint.\1"), (r"detection\.([03]\.\w+)", r"score.\1")]
    for theirs, ours in (("decode_head", "head"), ("decode_head_conf", "confidence")):
        rules += [
            (rf"{theirs}\.linear_fuse\.0\.(\w+)", rf"{ours}.fuse.\1"),
            (rf"{theirs}\.linear_fuse\.1\.(\w+)", rf"{ours}.norm.\1"),
            (rf"{theirs}\.linear_pred\.(\w+)", rf"{ours}.predict.\1"),
        ]
        rules += [
            (rf"{theirs}\.linear_c{s + 1}\.proj\.(\w+)", rf"{ours}.project.{s}.\1")
            for s in range(NUM_STAGES)
        ]
    for s in range(NUM_STAGES):
        rules += _list_stage_rules("", s, "image") + _list_stage_rules("extra_", s, "noise")
    return rules + _list_exchange_rules("1", "image") + _list_exchange_rules("2", "noise")


def _list_stage_rules(prefix: str, s: int, stream: str) -> list[tuple[str, str]]:
    theirs, ours = rf"backbone\.{prefix}", f"encoder.{stream}.{s}"
    block = rf"{theirs}block{s + 1}\.(\d+)\."
    parts = {
        "norm1": "norm_1",
        "norm2": "norm_2",
        r"attn\.q": "attention.query",
        r"attn\.kv": "attention.key_value",
        r"attn\.sr": "attention.reduce.conv",
        r"attn\.norm": "attention.reduce.norm",
        r"attn\.proj": "attention.out",
        r"mlp\.fc1": "ffn.widen",
        r"mlp\.dwconv\.dwconv": "ffn.depthwise",
        r"mlp\.fc2": "ffn.narrow",
    }
    return [
        (rf"{theirs}patch_embed{s + 1}\.proj\.(\w+)", rf"{ours}.embed.conv.\1"),
        (rf"{theirs}patch_embed{s + 1}\.norm\.(\w+)", rf"{ours}.embed.norm.\1"),
        (rf"{theirs}norm{s + 1}\.(\w+)", rf"{ours}.norm.\1"),
        *((rf"{block}{old}\.(\w+)", rf"{ours}.blocks.\1.{new}.\2") for old, new in parts.items()),
    ]


def _list_exchange_rules(number: str, stream: str) -> list[tuple[str, str]]:
    cross = r"backbone\.FFMs\.(\d)\.cross\."
    fuse = rf"encoder.fuse.\1.{stream}"
    return [
        (rf"{cross}channel_proj{number}\.(\w+)", rf"{fuse}.split.\2"),
        (rf"{cross}cross_attn\.kv{number}\.(\w+)", rf"{fuse}.key_value.\2"),
        (rf"{cross}end_proj{number}\.(\w+)", rf"{fuse}.merge.\2"),
        (rf"{cross}norm{number}\.(\w+)", rf"{fuse}.norm.\2"),
    ]


_SHARED = [
    (r"backbone\.FRMs\.(\d)\.channel_weights\.mlp\.([02]\.\w+)", r"encoder.rectify.\1.channels.\2"),
    (r"backbone\.FRMs\.(\d)\.spatial_weights\.mlp\.([02]\.\w+)", r"encoder.rectify.\1.places.\2"),
    (r"backbone\.FFMs\.(\d)\.channel_emb\.residual\.(\w+)", r"encoder.fuse.\1.shortcut.\2"),
    (r"backbone\.FFMs\.(\d)\.channel_emb\.channel_embed\.(\d\.\w+)", r"encoder.fuse.\1.embed.\2"),
    (r"backbone\.FFMs\.(\d)\.channel_emb\.norm\.(\w+)", r"encoder.fuse.\1.norm.\2"),
]
_PREFIX = r"(?:state_dict\.)?(?:module\.|network\.)*"
_RULES = [(_PREFIX + p, new) for p, new in _list_rules() + _SHARED]


def remap(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of a published checkpoint to ours; strict.

    state_dict: the file's content, {"state_dict": ..., ...}, nested or with keys joined by dots, or
    the network's alone, with or without the prefixes "module." and "network.". The state of the
    optimiser, in checkpoints of a training, is left out.
    """
    return rename_keys(state_dict.get("state_dict", state_dict), _RULES, drop=[r"optimizer\..*"])


def remap_noiseprint(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the published Noiseprint++ (`noiseprint++.th`), {"network": ...}, to ours; strict."""
    return rename_keys(state_dict, [(r"(?:network\.)?(?:module\.)?(\d+\.\w+)", r"noiseprint.\1")])


def noiseprint_part(**config: Any) -> nn.ModuleDict:
    """Noiseprint++ under its names in TruFor; arguments as for `noiseprint`."""
    return nn.ModuleDict({"noiseprint": noiseprint(**config)})


def trufor(**config: Any) -> TruFor:
    """TruFor as published; fields of TruForConfig as keyword arguments."""
    return TruFor(TruForConfig(**config))


OFFICIAL = Official(
    repository="grip-unina/TruFor@ae54475",
    licence="GRIP-UNINA, non-profit and informational use only, with citation",
    remap=remap,
    config={"faithful": True},
    files=("trufor.pth.tar",),
)

detectors.register(
    "trufor",
    trufor,
    paper="TruFor: Leveraging all-round clues for trustworthy image forgery detection and "
    "localization, CVPR 2023, arXiv:2212.10957",
    licence="Apache-2.0 (no code taken; the official code and weights: non-profit use only)",
    summary="68.7 M parameters, as published",
    official=OFFICIAL,
)

parts.register(
    "noiseprint",
    noiseprint_part,
    paper="Noiseprint++, in: TruFor, CVPR 2023, arXiv:2212.10957",
    licence="Apache-2.0 (no code taken; the official code and weights: non-profit use only)",
    summary="Noiseprint++ of TruFor, which its training freezes",
    official=Official(
        repository=OFFICIAL.repository,
        licence=OFFICIAL.licence,
        remap=remap_noiseprint,
        files=("noiseprint++.th",),
    ),
)
