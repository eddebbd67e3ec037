"""Backbones, losses on their features, and LPIPS: names, files, and reactions to blur and shift."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.data.degrade import blur
from overpaint.data.sources import PhotoSource
from overpaint.errors import InputError, WeightsError
from overpaint.images import to_tensor
from overpaint.layers import perceptual
from overpaint.layers.perceptual import (
    LPIPS,
    SHA256,
    VGG19,
    VGG19_FILE,
    DistilledVGG19,
    LPIPSNet,
    feature_losses,
    gram,
    load_backbone,
    load_distilled_vgg19,
    load_lpips,
    load_vgg19,
    perceptual_loss,
    style_loss,
)
from overpaint.registry import build_on_meta

VGG19_CONVS = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
DISTILLED = "weights/vgg19_distilled_16x.pth"


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def distilled(shared_data: Path) -> DistilledVGG19:
    return load_distilled_vgg19(shared_data / DISTILLED)


@pytest.fixture(scope="module")
def photos(shared_data: Path) -> list[np.ndarray]:
    source = PhotoSource.from_paths([shared_data / "photos" / "bsds500"], part="validation")
    return [source.read(i)[40:232, 40:232] for i in (0, 9, 18)]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Networks


def test_vgg19_has_torchvisions_names_and_layers() -> None:
    with build_on_meta():
        vgg = VGG19()
    expected = {f"features.{i}.{kind}" for i in VGG19_CONVS for kind in ("weight", "bias")}
    assert vgg.state_dict().keys() == expected
    assert sum(p.numel() for p in vgg.parameters()) == 20_024_384
    assert [i for i, name in vgg.names.items() if name in VGG19.perceptual_layers] == [
        *(1, 6, 11, 20, 29)
    ]
    assert [i for i, name in vgg.names.items() if name in VGG19.style_layers] == [8, 17, 26, 31]


def test_alexnet_and_vgg16_have_torchvisions_names() -> None:
    with build_on_meta():
        alex, vgg = LPIPS("alex").backbone, LPIPS("vgg").backbone
    assert {key.split(".")[1] for key in alex.state_dict()} == {"0", "3", "6", "8", "10"}
    assert sum(p.numel() for p in alex.parameters()) == 2_469_696
    assert sum(p.numel() for p in vgg.parameters()) == 14_714_688
    assert [n for n in vgg.names.values() if n in LPIPS.layers["vgg"]] == list(LPIPS.layers["vgg"])


def test_official_vgg19_is_read_by_path_and_its_hash_is_checked(tmp_path: Path) -> None:
    original = VGG19()
    file = tmp_path / VGG19_FILE
    torch.save({**original.state_dict(), "classifier.0.bias": torch.zeros(3)}, file)
    with pytest.raises(WeightsError, match=r"sha256.*dcbb9e9d.*download.pytorch.org"):
        load_vgg19(file)
    copy = load_vgg19(file, sha256=sha256(file))
    image = torch.rand(1, 3, 32, 32)
    for layer in ("relu1_1", "relu3_4"):
        assert torch.equal(copy(image, [layer])[layer], original(image, [layer])[layer])
    assert not copy.train().training
    assert not any(p.requires_grad for p in copy.parameters())

    torch.save({"features.0.weight": torch.zeros(1)}, file)
    with pytest.raises(WeightsError, match="does not fit"):
        load_vgg19(file, sha256=sha256(file))
    with pytest.raises(WeightsError, match="fetch it from https"):
        load_vgg19(tmp_path / "missing.pth")


def test_official_hashes_are_those_of_the_official_names() -> None:
    """torchvision's files carry the first eight digits of their sha256."""
    named = [name for name in SHA256 if "-" in name]
    assert len(named) == 3
    assert all(SHA256[name].startswith(name[-12:-4]) for name in named)
    assert all(len(value) == 64 for value in SHA256.values())


def test_vgg_normalises_its_input_unless_told_not_to() -> None:
    vgg = VGG19()
    raw = VGG19(normalise=False)
    raw.load_state_dict(vgg.state_dict())
    image = torch.rand(1, 3, 16, 16)
    mean, deviation = (
        torch.tensor(v).reshape(1, 3, 1, 1)
        for v in (perceptual.IMAGENET_MEAN, perceptual.IMAGENET_DEVIATION)
    )
    one, other = vgg(image, ["relu2_1"]), raw((image - mean) / deviation, ["relu2_1"])
    torch.testing.assert_close(one["relu2_1"], other["relu2_1"])


def test_backbones_are_named_by_kind_and_file(tmp_path: Path) -> None:
    assert load_backbone("none") is None
    for kind in ("vgg19", "vgg19-raw", "distilled"):
        with pytest.raises(WeightsError, match=r"a\.pth"):
            load_backbone(f"{kind}:a.pth", tmp_path)
    for name in ("vgg16:a.pth", "distilled"):
        with pytest.raises(WeightsError, match="give vgg19:FILE"):
            load_backbone(name)


def test_an_unknown_layer_and_a_tiny_picture_are_refused() -> None:
    with pytest.raises(InputError, match=r"relu5_2.*there are.*relu5_1"):
        DistilledVGG19()(torch.rand(1, 3, 64, 64), ["relu5_2"])
    with pytest.raises(InputError, match="32 pixels"):
        DistilledVGG19()(torch.rand(1, 3, 31, 64), ["relu1_1"])


def test_distilled_vgg_pads_by_reflection_and_pools_by_maximum(distilled: DistilledVGG19) -> None:
    image = torch.rand(1, 3, 32, 40)
    x = distilled.conv0(image)
    for name in ("conv11", "conv12"):
        x = F.relu(distilled.get_submodule(name)(nn.ReflectionPad2d(1)(x)))
    x = F.relu(distilled.get_submodule("conv21")(nn.ReflectionPad2d(1)(F.max_pool2d(x, 2))))
    found = distilled(image, ["relu2_1"])["relu2_1"]
    torch.testing.assert_close(found, x / distilled.scales["relu2_1"])


def test_distilled_features_of_photos_are_on_the_scale_of_one(
    distilled: DistilledVGG19, photos: list[np.ndarray]
) -> None:
    image = torch.cat([to_tensor(p) for p in photos])
    for name, feature in distilled(image, list(distilled.scales)).items():
        assert 0.4 < feature.mean() < 2.5, name


def test_what_was_distilled_has_channels_with_a_mean_of_one(
    distilled: DistilledVGG19, photos: list[np.ndarray], shared_data: Path
) -> None:
    """Gatys et al.'s VGG-19: the `_aux` layers predict its features from the small network's."""
    state = torch.load(shared_data / DISTILLED, map_location="cpu", weights_only=True)["model"]
    image = torch.cat([to_tensor(p) for p in photos])
    for name, feature in distilled(image, DistilledVGG19.perceptual_layers).items():
        aux = f"conv{name[4]}1_aux"
        weight, bias = (state[f"{aux}.{part}"] for part in ("weight", "bias"))
        theirs = torch.conv2d(feature * distilled.scales[name], weight, bias).relu()
        assert 0.75 < theirs.mean() < 1.25, name


def test_distilled_losses_of_a_grey_picture_are_as_large_as_published_ones(
    distilled: DistilledVGG19, photos: list[np.ndarray]
) -> None:
    """With torchvision's VGG-19, AOT-GAN starts at 3.3 and, times 250, at 1.1 to 1.6."""
    image = torch.cat([to_tensor(p) for p in photos])
    perceptual_, style = feature_losses(distilled, [torch.full_like(image, 0.5)], image)
    assert 2.5 < perceptual_ * distilled.perceptual_factor < 4.5
    assert 0.7 < 250 * style * distilled.style_factor < 2.4


def relative(distilled: DistilledVGG19, one: Tensor, other: Tensor) -> dict[str, float]:
    """Size of the change of each layer's features, relative to the features."""
    layers = DistilledVGG19.perceptual_layers
    a, b = distilled(one, layers), distilled(other, layers)
    return {k: float((a[k] - b[k]).abs().mean() / a[k].abs().mean()) for k in layers}


def test_relu_features_react_to_blur_the_more_the_stronger_it_is(
    distilled: DistilledVGG19, photos: list[np.ndarray]
) -> None:
    for photo in photos:
        sharp = to_tensor(photo)
        changes = [
            relative(distilled, sharp, to_tensor(blur(photo, sigma))) for sigma in (0.5, 1, 2, 4)
        ]
        for layer in DistilledVGG19.perceptual_layers:
            values = [c[layer] for c in changes]
            assert values == sorted(values), layer
            assert values[0] > 0.01, layer
            assert values[-1] > 0.2, layer


def test_relu_features_react_to_a_shift_and_grams_less(
    distilled: DistilledVGG19, photos: list[np.ndarray]
) -> None:
    for photo in photos:
        image = to_tensor(photo)
        near, shifted = image[..., 8:-8, 8:-8], image[..., 8:-8, 10:-6]
        change = relative(distilled, near, shifted)
        assert all(0.02 < value < 1.5 for value in change.values())
        layers = DistilledVGG19.style_layers
        a, b = distilled(near, layers), distilled(shifted, layers)
        for layer in layers:  # what a picture is made of stays, where it lies does not
            moved = (a[layer] - b[layer]).abs().mean() / a[layer].abs().mean()
            made_of = (gram(a[layer]) - gram(b[layer])).abs().mean() / gram(a[layer]).abs().mean()
            assert made_of < 0.5 * moved, layer


# Losses


def test_gram_is_that_worked_out_by_hand() -> None:
    feature = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # c = 2, h = 1, w = 2
    assert gram(feature).tolist() == [[[5 / 4, 11 / 4], [11 / 4, 25 / 4]]]


def test_losses_are_those_worked_out_by_hand() -> None:
    found = {"a": torch.tensor([[[[1.0, 2.0]]]]), "b": torch.zeros(1, 1, 1, 1)}
    target = {"a": torch.tensor([[[[0.0, 4.0]]]]), "b": torch.ones(1, 1, 1, 1)}
    assert perceptual_loss(found, target).item() == 1.5 + 1
    assert style_loss(found, target).item() == abs(5 - 16) / 2 + 1


def test_feature_losses_sum_both_stages_and_can_look_at_a_region() -> None:
    backbone, target = DistilledVGG19(), torch.rand(2, 3, 32, 32)
    one, other = torch.rand_like(target), target.clone().requires_grad_(True)
    nothing = feature_losses(backbone, [target, other], target)
    assert [v.item() for v in nothing] == [0, 0]
    perceptual_, style = feature_losses(backbone, [one, other + 0.1], target)
    single = feature_losses(backbone, [one], target)
    assert perceptual_ > single[0] > 0
    assert style > single[1] > 0
    (perceptual_ + style).backward()
    assert other.grad is not None
    assert other.grad.isfinite().all()

    region = torch.zeros(2, 1, 32, 32)
    region[..., :16] = 1
    outside = torch.where(region == 1, target, one)
    assert feature_losses(backbone, [outside], target, region)[1].item() == 0
    assert feature_losses(backbone, [outside], target)[1].item() > 0


# LPIPS


def official(folder: Path, net: LPIPSNet) -> dict[str, str]:
    """Files laid out as the official ones, with random numbers; -> their hashes."""
    metric, name = LPIPS(net), perceptual._LPIPS_BACKBONES[net]
    torch.save(metric.backbone.state_dict(), folder / name)
    linear = {f"lin{i}.model.1.weight": torch.rand_like(w) for i, w in enumerate(metric.linear)}
    torch.save(linear, folder / f"{net}.pth")
    return {path.name: sha256(path) for path in folder.iterdir()}


def test_lpips_is_not_available_without_its_files(tmp_path: Path) -> None:
    assert load_lpips(tmp_path, "alex") is None
    (tmp_path / "alex.pth").touch()
    assert load_lpips(tmp_path, "alex") is None
    (tmp_path / "alexnet-owt-7be5be79.pth").touch()
    with pytest.raises(WeightsError, match=r"alexnet-owt.*sha256"):
        load_lpips(tmp_path, "alex")


def test_lpips_is_that_of_its_definition(tmp_path: Path) -> None:
    hashes = official(tmp_path, "alex")
    metric = load_lpips(tmp_path, "alex", sha256=hashes)
    assert metric is not None
    one, other = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    expected = torch.zeros(2)
    linear = torch.load(tmp_path / "alex.pth", weights_only=True)
    with torch.no_grad():
        features = [
            metric.backbone(((2 * x - 1) - metric.shift) / metric.scale, LPIPS.layers["alex"])
            for x in (one, other)
        ]
        for i, (a, b) in enumerate(zip(*(f.values() for f in features), strict=True)):
            difference = (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square()
            expected += F.conv2d(difference, linear[f"lin{i}.model.1.weight"]).mean(dim=(1, 2, 3))
        found, equal = metric(one, other), metric(one, one)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    assert equal.tolist() == [0, 0]
