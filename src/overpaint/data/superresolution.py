"""Redrawing by super-resolution GANs: a photo shrunk, and enlarged again by a network.

The content stays and the texture is the network's, as that of a fully trained GAN inpainter is.

- Weights: ESRGANs of UpscalerJS (npm `@upscalerjs/esrgan-slim`, `-medium`, `-thick`; MIT, Copyright
  2022 Kevin Scott), which `recipes/esrgan.sh` fetches. They are not shipped with the project.
- A folder holds a Keras layers model in the format of TensorFlow.js: `model.json`, the layers and
  an index of the weights, and shards of float32. Written from the format and the layers' meaning.
- The filter that shrinks is drawn by the photo's own values, so that a reconstruction is a
  function of the photo, and no filter is every photo's.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overpaint.errors import WeightsError

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "linear": lambda x: x,
}
FILTERS: tuple[Mapping[str, Any], ...] = (
    {"mode": "area"},
    {"mode": "bilinear", "antialias": True},
    {"mode": "bicubic", "antialias": True},
)


class KerasGraph(nn.Module):
    """A layers model: image (b, 3, h, w) in [0, 1] -> (b, 3, s * h, s * w), not clamped.

    Raises WeightsError naming the file that is missing, damaged, or holds an unknown layer.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        path = folder / "model.json"
        try:
            model = json.loads(path.read_text(encoding="utf-8"))
            config = model["modelTopology"]["model_config"]["config"]
            weights = _read_weights(folder, model["weightsManifest"])
            self.layers: list[dict[str, Any]] = config["layers"]
            self.output: str = config["output_layers"][0][0]
            self.convolutions = nn.ModuleDict(
                {
                    layer["config"]["name"]: _make_convolution(layer["config"], weights)
                    for layer in self.layers
                    if layer["class_name"] == "Conv2D"
                }
            )
        except OSError as error:
            raise WeightsError(
                f"{error.filename}: cannot be read ({error.strerror}); fetch it again "
                "(recipes/esrgan.sh)"
            ) from error
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise WeightsError(
                f"{path}: damaged, or not a Keras layers model ({error!r}); fetch it again "
                "(recipes/esrgan.sh)"
            ) from error
        if unknown := {x["class_name"] for x in self.layers if not _is_known(x["class_name"])}:
            raise WeightsError(f"{path}: cannot run the layers {', '.join(sorted(unknown))}")

    def forward(self, image: Tensor) -> Tensor:
        values: dict[str, Tensor] = {}
        for layer in self.layers:
            nodes = layer["inbound_nodes"]
            inputs = [values[node[0]] for node in nodes[0]] if nodes else [image]
            config = layer["config"]
            values[config["name"]] = self._run(layer["class_name"], config, inputs)
        return values[self.output]

    def _run(self, kind: str, config: Mapping[str, Any], inputs: list[Tensor]) -> Tensor:
        x = inputs[0]
        if kind == "Conv2D":
            return ACTIVATIONS[config["activation"]](self.convolutions[config["name"]](x))
        if kind == "Activation":
            return ACTIVATIONS[config["activation"]](x)
        if kind == "Concatenate":
            return torch.cat(inputs, dim=1)
        if kind == "Add":
            return sum(inputs[1:], start=x)
        if kind == "UpSampling2D":
            return F.interpolate(x, scale_factor=config["size"][0], mode=config["interpolation"])
        if kind == "MultiplyBeta":
            return x * config["beta"]
        if kind.startswith("PixelShuffle"):
            return depth_to_space(x, config["scale"])
        return x  # the input


def depth_to_space(x: Tensor, scale: int) -> Tensor:
    """TensorFlow's: (b, scale² * c, h, w), c the fastest of the channels -> (b, c, ...)."""
    batch, channels, height, width = x.shape
    x = x.view(batch, scale**2, channels // scale**2, height, width).transpose(1, 2)
    return F.pixel_shuffle(x.reshape(batch, channels, height, width), scale)


class SuperResolved(nn.Module):
    """Image (b, 3, h, w) in [0, 1], sides multiples of `stride` -> the same size, not clamped."""

    def __init__(self, network: nn.Module, scale: int) -> None:
        super().__init__()
        self.network, self.stride = network, scale

    def forward(self, image: Tensor) -> Tensor:
        return self.network(torch.cat([self._shrink(photo[None]) for photo in image]))

    def _shrink(self, photo: Tensor) -> Tensor:
        drawn = FILTERS[round(float(photo.sum(dtype=torch.float64)) * 255) % len(FILTERS)]
        size = (photo.shape[2] // self.stride, photo.shape[3] // self.stride)
        return F.interpolate(photo, size, **drawn).clamp(0, 1)


def load_esrgan(folder: Path) -> SuperResolved:
    """The network in `folder` (.../x2, .../x3, ...), in eval mode; raises WeightsError."""
    network = KerasGraph(folder).eval()
    with torch.inference_mode():
        scale = network(torch.zeros(1, 3, 8, 8)).shape[-1] // 8
    return SuperResolved(network, scale).eval()


def list_esrgan_files(folder: Path) -> list[Path]:
    """What `load_esrgan` reads; raises WeightsError without it."""
    files = sorted(folder.glob("*.bin"))
    if not files or not (folder / "model.json").is_file():
        raise WeightsError(
            f"{folder}: holds no Keras layers model; fetch it (recipes/esrgan.sh), or leave it out "
            "of the bank"
        )
    return [folder / "model.json", *files]


def _read_weights(folder: Path, manifest: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    weights = {}
    for group in manifest:
        data, at = b"".join((folder / path).read_bytes() for path in group["paths"]), 0
        for entry in group["weights"]:
            if entry["dtype"] != "float32" or "quantization" in entry:
                raise ValueError(f"{entry['name']} is not float32")
            values = np.frombuffer(data, "<f4", math.prod(entry["shape"]), at)
            weights[entry["name"]] = values.reshape(entry["shape"])
            at += values.nbytes
    return weights


def _make_convolution(config: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> nn.Conv2d:
    name = config["name"]
    kernel = weights[f"{name}/kernel"].transpose(3, 2, 0, 1)  # from (h, w, in, out)
    outputs, inputs, side = kernel.shape[:3]
    if (config["padding"] != "same" and side > 1) or set(config["strides"]) != {1}:
        raise ValueError(f"{name} does not keep the size")
    convolution = nn.Conv2d(inputs, outputs, side, padding=side // 2)
    state = {"weight": kernel, "bias": weights[f"{name}/bias"]}
    convolution.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()})
    return convolution


def _is_known(kind: str) -> bool:
    known = ("InputLayer", "Conv2D", "Activation", "Concatenate", "Add", "UpSampling2D")
    return kind in (*known, "MultiplyBeta") or kind.startswith("PixelShuffle")
