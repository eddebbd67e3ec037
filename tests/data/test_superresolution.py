"""Redrawing by a super-resolution GAN: the graph is run as its file says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from overpaint.data.autoencoder import reconstruct
from overpaint.data.bank import hash_bank, load_bank
from overpaint.data.superresolution import KerasGraph, depth_to_space, load_esrgan
from overpaint.errors import WeightsError


def layer(kind: str, name: str, *inputs: str, **config: Any) -> dict[str, Any]:
    nodes = [[[each, 0, 0, {}] for each in inputs]] if inputs else []
    return {"class_name": kind, "config": {"name": name, **config}, "inbound_nodes": nodes}


def convolution(name: str, source: str, side: int, activation: str) -> dict[str, Any]:
    how = {"activation": activation, "padding": "same", "strides": [1, 1]}
    return layer("Conv2D", name, source, kernel_size=[side, side], **how)


LAYERS = [
    layer("InputLayer", "in"),
    convolution("first", "in", 3, "relu"),
    layer("Concatenate", "both", "in", "first"),
    convolution("second", "both", 1, "linear"),
    layer("MultiplyBeta", "less", "second", beta=0.2),
    layer("Add", "sum", "less", "in"),
    convolution("wide", "sum", 3, "linear"),
    layer("PixelShuffle2x", "out", "wide", scale=2),
]
SHAPES = {"first": (3, 3, 3, 4), "second": (1, 1, 7, 3), "wide": (3, 3, 3, 12)}


def write(folder: Path, layers: list[dict[str, Any]] = LAYERS) -> dict[str, np.ndarray]:
    """A layers model in two shards; -> its weights."""
    folder.mkdir(parents=True)
    rng, weights = np.random.default_rng(0), {}
    for name, shape in SHAPES.items():
        weights[f"{name}/kernel"] = rng.normal(0, 0.2, shape).astype(np.float32)
        weights[f"{name}/bias"] = rng.normal(0, 0.2, shape[-1:]).astype(np.float32)
    data = b"".join(value.tobytes() for value in weights.values())
    for number, part in enumerate((data[:101], data[101:])):  # a shard ends anywhere
        (folder / f"shard{number}.bin").write_bytes(part)
    entries = [{"name": k, "shape": v.shape, "dtype": "float32"} for k, v in weights.items()]
    manifest = [{"paths": ["shard0.bin", "shard1.bin"], "weights": entries}]
    config = {"layers": layers, "output_layers": [["out", 0, 0]]}
    topology = {"model_config": {"config": config}}
    model = {"modelTopology": topology, "weightsManifest": manifest}
    (folder / "model.json").write_text(json.dumps(model))
    return weights


def test_the_graph_computes_what_its_layers_say(tmp_path: Path) -> None:
    weights = write(tmp_path / "x2")
    x = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(1))

    def conv(name: str, x: torch.Tensor, padding: int) -> torch.Tensor:
        kernel = torch.from_numpy(weights[f"{name}/kernel"]).permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, torch.from_numpy(weights[f"{name}/bias"]), padding=padding)

    both = torch.cat([x, conv("first", x, 1).relu()], dim=1)
    wide = conv("wide", x + 0.2 * conv("second", both, 0), 1)
    out = KerasGraph(tmp_path / "x2")(x)
    assert out.shape == (2, 3, 12, 10)
    for dy in range(2):
        for dx in range(2):  # in TensorFlow's order a pixel's three colours lie together
            block = wide[:, 3 * (2 * dy + dx) :][:, :3]
            torch.testing.assert_close(out[..., dy::2, dx::2], block)


def test_depth_to_space_keeps_one_channel_as_torch_does() -> None:
    x = torch.rand(1, 9, 4, 4)
    assert torch.equal(depth_to_space(x, 3), F.pixel_shuffle(x, 3))


def test_a_photo_keeps_its_size_and_comes_out_the_same_whatever_is_beside_it(
    tmp_path: Path, photo: np.ndarray
) -> None:
    write(tmp_path / "esrgan" / "x2")
    (module,) = load_bank(["esrgan:esrgan/x2"], tmp_path).values()
    assert module.stride == 2
    odd = photo[:95, :127]
    redrawn = reconstruct(module, odd)
    assert redrawn.shape == odd.shape
    assert not np.array_equal(redrawn, odd)
    image = torch.rand(3, 3, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(module(image)[1:2], module(image[1:2]))


def test_another_file_is_another_hash(tmp_path: Path) -> None:
    write(tmp_path / "x2")
    name = f"esrgan:{tmp_path / 'x2'}"
    first = hash_bank([name])
    shard = tmp_path / "x2" / "shard0.bin"
    shard.write_bytes(b"\x01" + shard.read_bytes()[1:])
    assert hash_bank([name]) != first


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nowhere.*recipes/esrgan\.sh"):
        load_esrgan(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="holds no Keras layers model"):
        hash_bank([f"esrgan:{tmp_path}"])
    write(tmp_path / "cut")
    (tmp_path / "cut" / "shard1.bin").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"model\.json: damaged"):
        load_esrgan(tmp_path / "cut")
    write(tmp_path / "odd", [*LAYERS[:-1], layer("Softmax", "out", "wide")])
    with pytest.raises(WeightsError, match="cannot run the layers Softmax"):
        load_esrgan(tmp_path / "odd")
