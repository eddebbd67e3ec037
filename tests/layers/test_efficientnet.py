"""EfficientNet-Lite0's features, and the stream of NIX-Net that looks at them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from helpers.detection_task_contract import Redrawn, recipe
from overpaint.detectors.nixnet import nixnet
from overpaint.detectors.nixnet_context import Content
from overpaint.errors import ConfigError, WeightsError
from overpaint.layers.efficientnet import (
    CHANNELS,
    EPS,
    STAGES,
    STEM,
    TAPS,
    LiteFeatures,
    fold_state,
    read_lite_features,
)
from overpaint.training.detection.base import make_detection_task, start

TINY: dict[str, Any] = {"widths": [4, 4, 4], "content": True}


def published() -> dict[str, Tensor]:
    """Tensors of the published names and shapes, random."""
    rng = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {"_fc.weight": torch.zeros(2, 2)}  # lies behind

    def add(conv: str, norm: str, c_out: int, c_in: int, size: int) -> None:
        weight = torch.randn(c_out, c_in, size, size, generator=rng)
        state[f"{conv}.weight"] = weight * (2 / (c_in * size**2)) ** 0.5
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{part}"] = 0.5 + torch.rand(c_out, generator=rng)

    add("_conv_stem", "_bn0", STEM, 3, 3)
    number, c_in = 0, STEM
    for repeats, size, _, expansion, channels in STAGES:
        for _ in range(repeats):
            block, inner = f"_blocks.{number}", c_in * expansion
            if expansion > 1:
                add(f"{block}._expand_conv", f"{block}._bn0", inner, c_in, 1)
            add(f"{block}._depthwise_conv", f"{block}._bn1", inner, 1, size)
            add(f"{block}._project_conv", f"{block}._bn2", channels, inner, 1)
            number, c_in = number + 1, channels
    return state


def reference(state: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    """The network with its batch norms, and TensorFlow's padding by its definition."""

    def layer(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        weight = state[f"{conv}.weight"]
        size, side = weight.shape[2], x.shape[2]
        total = max((-(-side // stride) - 1) * stride + size - side, 0)
        x = F.pad(x, (total // 2, total - total // 2) * 2)
        x = F.conv2d(x, weight, stride=stride, groups=x.shape[1] // weight.shape[1])
        mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return F.batch_norm(
            x, mean, variance, state[f"{norm}.weight"], state[f"{norm}.bias"], eps=EPS
        )

    x = layer((image * 255 - 127) / 128, "_conv_stem", "_bn0", 2).clamp(0, 6)
    found, number = [], 0
    for repeats, _, stride, expansion, _ in STAGES:
        for i in range(repeats):
            block, before = f"_blocks.{number}", x
            if expansion > 1:
                x = layer(x, f"{block}._expand_conv", f"{block}._bn0").clamp(0, 6)
            step = stride if i == 0 else 1
            x = layer(x, f"{block}._depthwise_conv", f"{block}._bn1", step).clamp(0, 6)
            x = layer(x, f"{block}._project_conv", f"{block}._bn2")
            x = x + before if i else x
            if number in TAPS:
                found.append(x)
            number += 1
    return found


def test_features_are_those_of_the_network_as_published() -> None:
    state, features = published(), LiteFeatures()
    features.load_state_dict(fold_state(state))
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        maps = features(image)
        for found, wanted in zip(maps, reference(state, image), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    shapes = [(2, c, 64 // s, 64 // s) for c, s in zip(CHANNELS, (4, 8, 16), strict=True)]
    assert [tuple(m.shape) for m in maps] == shapes


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nowhere.*recipes/efficientnet\.sh"):
        read_lite_features(tmp_path / "nowhere")
    (tmp_path / "other.pth").write_bytes(b"no weights")
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pth")
    for name in ("other.pth", "x.pth"):
        with pytest.raises(WeightsError, match=f"{name}: not the file of EfficientNet"):
            read_lite_features(tmp_path / name)


class TestStream:
    def test_a_network_with_it_starts_as_the_one_without(self) -> None:
        torch.manual_seed(0)
        plain = nixnet(widths=(4, 4, 4)).eval()
        torch.manual_seed(0)
        other = nixnet(**TINY).eval()
        image = torch.rand(1, 3, 40, 56)  # odd multiples of 8: the features' stride is 16
        with torch.inference_mode():
            torch.testing.assert_close(other(image), plain(image))

    def test_says_something_once_it_is_trained(self) -> None:
        content = Content(4).eval()
        torch.nn.init.ones_(content.back.weight)
        with torch.inference_mode():
            found = content(torch.rand(2, 3, 40, 56))
        assert found.shape == (2, 4, 5, 7)
        assert found.std() > 0

    def test_the_features_are_read_and_stay(self, tmp_path: Path) -> None:
        path = tmp_path / "lite0.pth"
        torch.save(published(), path)
        run = recipe(model=TINY, content_from=str(path))
        task = make_detection_task(run, Redrawn(), Redrawn())
        features = task.model.content.features
        for name, value in read_lite_features(path).items():
            assert torch.equal(features.state_dict()[name], value)
        sample = task.make_dataset()[0]
        task.compute_loss(sample["image"][None], sample["mask"][None]).backward()
        assert all(p.grad is None for p in features.parameters())
        assert task.model.content.back.weight.grad is not None

    def test_a_network_without_it_has_no_place_for_them(self) -> None:
        with pytest.raises(ConfigError, match="content_from: the model has no content"):
            start(recipe(model={"widths": [4, 4, 4]}, content_from="x"))
