"""ManTra-Net: "Manipulation Tracing Network for Detection and Localization of Image Forgeries
with Anomalous Features".

Wu, AbdAlmageed and Natarajan, CVPR 2019. Original code and weights: ISICV/ManTraNet @59436db
(Keras; academic, non-commercial use only); their conversion: RonyAbecidan/ManTraNet-pytorch
@1af95cd (no licence file). Written from the paper and a fact sheet of both: facts only, no code
taken. Licence of this file: Apache-2.0, as the project.

A network without pooling computes features of each pixel's processing. A second one computes their
distance, in standard deviations, from the mean of windows of three sizes and of the whole photo,
and a recurrent network reads the four distances in turn. Inside, photos are in [-1, 1].

The network is that of the released weights. The authors state that it differs from the paper: the
first block has 16 filters (4 plain, 9 of SRM, 3 of Bayar), not 32.

Peculiarities of the published codes, of which `faithful=True` keeps the first two:
- the norm before the windows uses the statistics of the whole batch in every call, so that a
  photo's result depends on the other photos (the port). Here it uses those of each photo, which for
  a single photo is the same. The running statistics of Keras are left out: the distances are
  ratios, in which the norm only changes the relative size of the smallest standard deviation. Only
  nearly flat photos get other logits by that;
- the smallest standard deviation in the division is learned, and starts near 0, where hardly any
  photo gives it a gradient (released: 0 to 0.012). Here it starts at 1, the largest deviation after
  the norm;
- Bayar's constraint overwrites the weights (the port: in every call). Here it is a function of
  them, which gives the same kernels, and gradients pass through it;
- the reduction's columns have length 1 in the Keras training; the norm after it makes this
  unnecessary.

Two initial values are ours, because features and windows are trained together here and not one
after the other. Training needs both: without them the gradient vanished within a thousand steps.
- The reduction's weights are of size 1. Features have length 1 over all channels, so they differ
  little between positions, and smaller values vanish in the epsilon of the norm.
- The last bias is the log odds of one inpainted pixel in six (Lin et al. 2017, focal loss, section
  3.3). From 0, the first steps saturate the gates of the recurrent network.

Padding is "symmetric": it repeats the edge pixel, too. The SRM kernels are constants and not saved;
a published file must hold the same kernels. The first block, and all layers after the features, are
float32 also under autocast, because they subtract nearly equal numbers.

Size: 3.80 M parameters as published; 0.25 M at width 8. All maps have the photo's size: one photo
of 256x256 costs 543 GFLOP, and 39 at width 8. Train on small crops. A photo larger than one tile of
768 pixels is processed in tiles; "the whole photo" is then the tile.
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
from overpaint.errors import ConfigError, WeightsError
from overpaint.layers.highpass import SRM_DIVISORS, SRM_KERNELS
from overpaint.layers.windows import average_windows
from overpaint.registry import Official, detectors
from overpaint.weights.rename_keys import rename_keys

MULTIPLES = (1, 2, 2, 4, 4, 4, 8, 8, 8, 8, 8, 8)  # of `width`: the outputs of each 3x3 convolution
NUM_PLAIN, NUM_SRM, NUM_BAYAR = 4, 9, 3  # filters of the first block


@dataclass(frozen=True, slots=True)
class ManTraNetConfig:
    """Configuration of ManTraNet."""

    width: int = 32
    """Channels after the first block; all others are multiples of it."""
    num_hidden: int = 8
    """Channels of the recurrent network."""
    windows: tuple[int, ...] = (7, 15, 31)
    """Sides in pixels, odd, in the order in which they are read; the whole photo comes last."""
    faithful: bool = False
    """Batch statistics and start as published; see the module's header."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "windows", tuple(self.windows))  # JSON and YAML give lists
        if min(self.width, self.num_hidden) < 1:
            raise ConfigError("mantranet: width and num_hidden must be at least 1")
        if any(side < 1 or side % 2 == 0 for side in self.windows):
            raise ConfigError(f"mantranet: windows must be odd, not {self.windows}")


def pad_symmetric(x: Tensor, n: int) -> Tensor:
    """x (b, c, h, w) with n more pixels on each side, mirrored including the edge pixel."""
    for axis in (2, 3):
        side = x.shape[axis]
        i = torch.arange(-n, side + n, device=x.device) % (2 * side)  # forwards, then backwards
        x = x.index_select(axis, torch.minimum(i, 2 * side - 1 - i))
    return x


def make_srm_kernels() -> Tensor:
    """(9, 3, 5, 5): filter 3 * kernel + colour is nonzero for this colour only."""
    kernels = torch.tensor(SRM_KERNELS) / torch.tensor(SRM_DIVISORS).reshape(3, 1, 1)
    weight = torch.zeros(3, 3, 3, 5, 5)  # kernel, colour of the filter, colour of the photo
    for colour in range(3):
        weight[:, colour, colour] = kernels
    return weight.flatten(0, 1)


class BayarConv2d(nn.Conv2d):
    """Convolution with 5x5 kernels: the centre's prediction from its neighbours, minus the centre.

    Bayar and Stamm 2016: in each kernel the centre is -1 and the other taps sum to 1. The weights
    are free; the constraint is applied to a copy.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 5, bias=False)
        nn.init.uniform_(self.weight, 0.5, 1.5)  # sums far from 0, by which they are divided

    def constrain(self) -> Tensor:
        """The kernels that are applied."""
        centre = torch.zeros_like(self.weight)
        centre[..., 2, 2] = 1
        around = self.weight * (1 - centre)
        return around / around.sum(dim=(2, 3), keepdim=True) - centre

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.constrain())


class TraceFeatures(nn.Module):
    """Processing traces of each pixel: (b, 3, h, w) in [-1, 1] -> unit (b, 8 * width, h, w)."""

    srm: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.plain = nn.Conv2d(3, NUM_PLAIN, 5, bias=False)
        self.bayar = BayarConv2d(3, NUM_BAYAR)
        self.register_buffer("srm", make_srm_kernels(), persistent=False)
        layers: list[nn.Module] = []
        widths = [NUM_PLAIN + NUM_SRM + NUM_BAYAR, *(m * width for m in MULTIPLES)]
        for c_in, c_out in pairwise(widths):
            # One repeated pixel is symmetric padding, too.
            conv = nn.Conv2d(c_in, c_out, 3, padding=1, padding_mode="replicate")
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            layers += [conv, nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = pad_symmetric(x, 2)
            x = torch.cat([self.plain(x), F.conv2d(x, self.srm), self.bayar(x)], dim=1)
        return F.normalize(self.layers(F.relu(x)), dim=1)


class ConvLSTM(nn.Module):
    """Convolutional LSTM with the hard sigmoid of Keras: a sequence to the last hidden state."""

    def __init__(self, c_in: int, num_hidden: int, kernel_size: int = 7) -> None:
        super().__init__()
        self.num_hidden = num_hidden
        # Gates: input, forget, cell, output.
        self.conv = nn.Conv2d(
            c_in + num_hidden, 4 * num_hidden, kernel_size, padding=kernel_size // 2
        )
        with torch.no_grad():
            self.conv.bias[num_hidden : 2 * num_hidden] = 1  # type: ignore[index]

    def forward(self, steps: list[Tensor]) -> Tensor:  # (b, c_in, h, w) -> (b, num_hidden, h, w)
        b, _, h, w = steps[0].shape
        hidden = cell = steps[0].new_zeros(b, self.num_hidden, h, w)
        for x in steps:
            i, f, c, o = self.conv(torch.cat([x, hidden], dim=1)).chunk(4, dim=1)
            cell = hard_sigmoid(f) * cell + hard_sigmoid(i) * torch.tanh(c)
            hidden = hard_sigmoid(o) * torch.tanh(cell)
        return hidden


def hard_sigmoid(x: Tensor) -> Tensor:
    """The hard sigmoid of Keras, with slope 1/5; PyTorch's has 1/6."""
    return (0.2 * x + 0.5).clamp(0, 1)


class AnomalyDetector(nn.Module):
    """Difference of features from their surroundings: (b, 8 * width, h, w) -> (b, 1, h, w)."""

    def __init__(self, config: ManTraNetConfig) -> None:
        super().__init__()
        self.config = config
        c = 2 * config.width
        self.reduce = nn.Conv2d(8 * config.width, c, 1, bias=False)
        nn.init.normal_(self.reduce.weight)
        self.min_std = nn.Parameter(torch.full((1, c, 1, 1), 0.0 if config.faithful else 1.0))
        self.lstm = ConvLSTM(c, config.num_hidden)
        self.predict = nn.Conv2d(config.num_hidden, 1, 7, padding=3)
        nn.init.constant_(self.predict.bias, math.log(1 / 5))  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            x = self.reduce(features.to(self.reduce.weight.dtype))  # (b, 2 * width, h, w)
            over = (0, 2, 3) if self.config.faithful else (2, 3)
            variance, mean = torch.var_mean(x, dim=over, correction=0, keepdim=True)
            x = (x - mean) * (variance + 1e-3).rsqrt()
            return self.predict(self.lstm(self.compute_z_scores(x)))

    def compute_z_scores(self, x: Tensor) -> list[Tensor]:
        """Distances to the windows' means and to the photo's, in the photo's standard deviations.

        x and each: (b, c, h, w).
        """
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
        # A square root has no gradient at 0, the variance of a flat photo.
        std = torch.maximum(variance.clamp(min=1e-12).sqrt(), F.relu(self.min_std) + 1e-6)
        means = [*(average_windows(x, side) for side in self.config.windows), mean]
        return [((m - x) / std).abs() for m in means]


class ManTraNet(Detector):
    """Trace features and anomaly detector; see the module's header."""

    stride: ClassVar[int] = 1
    tile = 768

    def __init__(self, config: ManTraNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ManTraNetConfig()
        self.features = TraceFeatures(config.width)
        self.anomaly = AnomalyDetector(config)

    def _compute_logits(self, image: Tensor) -> Tensor:
        return self.anomaly(self.features(2 * image - 1))


_START = r"(?:(?:model|module)\.)*"
_FEATURES, _ANOMALY = rf"{_START}(?:IMTFE\.)?", rf"{_START}(?:AnomalyDetector\.)?"
_KIND = r"\.(weight|bias)"
_RULES = (
    (_FEATURES + r"init_conv\.weight", "features.plain.weight"),
    (_FEATURES + r"BayarConv2D\.weight", "features.bayar.weight"),
    (_FEATURES + r"SRMConv2D\.weight", "srm"),
    (_FEATURES + r"middle_and_last_block\.(\d+)" + _KIND, r"features.layers.\1.\2"),
    (_ANOMALY + r"adaptation\.weight", "anomaly.reduce.weight"),
    (_ANOMALY + "sigma_F", "anomaly.min_std"),
    (_ANOMALY + r"conv_lstm\.cell_list\.0\.conv" + _KIND, r"anomaly.lstm.conv.\1"),
    (_ANOMALY + r"end\.0" + _KIND, r"anomaly.predict.\1"),
)


def _name_in_keras(layer: str, variable: str, group: str = "") -> str:
    """A variable of the Keras file, which numbers a layer's inner name: cLSTM/cLSTM_6/bias:0."""
    return rf"{group or layer}\.{layer}(?:_\d+)?\.{variable}:0"


_KERAS_LAYERS = (
    *("b1c2", "b2c1", "b2c2", "b3c1", "b3c2", "b3c3"),
    *("b4c1", "b4c2", "b4c3", "b5c1", "b5c2", "transform"),
)
_OF_INPUT, _OF_HIDDEN = "cLSTM.kernel", "cLSTM.recurrent_kernel"
_KERAS_RULES = (
    (_name_in_keras("b1c1", "regular_kernel", "Featex"), "features.plain.weight"),
    (_name_in_keras("b1c1", "bayar_kernel", "Featex"), "features.bayar.weight"),
    *(
        (_name_in_keras(layer, theirs, "Featex"), f"features.layers.{2 * i}.{ours}")
        for i, layer in enumerate(_KERAS_LAYERS)
        for theirs, ours in (("kernel", "weight"), ("bias", "bias"))
    ),
    (_name_in_keras("outlierTrans", "kernel"), "anomaly.reduce.weight"),
    (_name_in_keras("glbStd", "min_std"), "anomaly.min_std"),
    (_name_in_keras("cLSTM", "kernel"), _OF_INPUT),
    (_name_in_keras("cLSTM", "recurrent_kernel"), _OF_HIDDEN),
    (_name_in_keras("cLSTM", "bias"), "anomaly.lstm.conv.bias"),
    (_name_in_keras("pred", "kernel"), "anomaly.predict.weight"),
    (_name_in_keras("pred", "bias"), "anomaly.predict.bias"),
)
_KERAS_UNUSED = (_name_in_keras("bnorm", "moving_(?:mean|variance)"),)


def remap_keras(state: Mapping[str, Any]) -> dict[str, Any]:
    """Names of the Keras file `ManTraNet_Ptrain4.h5`, joined by dots, to ours; strict.

    Kernels (height, width, in, out) become (out, in, height, width); those of the recurrent network
    for its input and for its hidden state, with the same order of gates, become one. Bayar's are
    stored as constrained, which the constraint leaves as they are; those of SRM are not stored.
    """
    out: dict[str, Any] = {}
    for key, value in rename_keys(state, _KERAS_RULES, _KERAS_UNUSED).items():
        if key == "anomaly.min_std":  # (1, 1, 1, channels)
            value = value.reshape(1, -1, 1, 1)
        elif value.ndim == 4:
            value = value.permute(3, 2, 0, 1)
        out[key] = value
    if _OF_INPUT in out and _OF_HIDDEN in out:
        parts = [out.pop(_OF_INPUT), out.pop(_OF_HIDDEN)]
        try:
            out["anomaly.lstm.conv.weight"] = torch.cat(parts, dim=1)
        except RuntimeError as error:
            raise WeightsError(f"the two kernels of cLSTM do not match ({error})") from error
    return out


def remap(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the PyTorch port (`MantraNetv4.pt`), bare or wrapped as "model", to ours; strict.

    A file of the authors' Keras code, its names joined by dots, is taken as well (`remap_keras`).
    Raises WeightsError, too, for SRM kernels other than those of the paper.
    """
    if any(key.endswith(":0") for key in state_dict):
        return remap_keras(state_dict)
    out = rename_keys(state_dict.get("model", state_dict), _RULES)
    srm = out.pop("srm", None)
    if srm is not None and not torch.allclose(srm.float().cpu(), make_srm_kernels(), atol=1e-5):
        raise WeightsError("SRMConv2D.weight does not hold the SRM kernels of the paper")
    return out


def mantranet(**config: Any) -> ManTraNet:
    """ManTra-Net as released; fields of ManTraNetConfig as keyword arguments."""
    return ManTraNet(ManTraNetConfig(**config))


OFFICIAL = Official(
    repository="RonyAbecidan/ManTraNet-pytorch@1af95cd, converted from ManTraNet_Ptrain4.h5 of "
    "ISICV/ManTraNet@59436db, which is taken as well",
    licence="academic, non-commercial use only (University of Southern California)",
    remap=remap,
    config={"faithful": True},
    files=("MantraNetv4.pt",),
)

detectors.register(
    "mantranet",
    mantranet,
    paper="ManTra-Net: Manipulation Tracing Network for Detection and Localization of Image "
    "Forgeries with Anomalous Features, CVPR 2019",
    licence="Apache-2.0 (the official code is for academic, non-commercial use; none taken)",
    summary="3.8 M parameters, as released",
    official=OFFICIAL,
)
