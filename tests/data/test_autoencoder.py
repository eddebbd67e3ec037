"""The autoencoders of the bank: every kind builds, takes any photo, and can learn; their records.

G(I) is rounded before the blend, so rounding is tested here, too.
"""

import json
import pickle
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.random_weights import save_random
from overpaint import weights
from overpaint.data.autoencoder import (
    Autoencoder,
    AutoencoderConfig,
    Upsampler,
    conv_autoencoder,
    reconstruct,
    reconstruct_batch,
)
from overpaint.data.bank import HELD_OUT, hash_bank, list_shipped_bank, load_bank
from overpaint.data.crops import PhotoCrops, random_crop, random_flip
from overpaint.data.sources import PhotoSource
from overpaint.errors import ConfigError, UnknownNameError, WeightsError
from overpaint.registry import autoencoders

SMALL = {"width": 8, "latent_channels": 6, "num_blocks": 1}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Shift(nn.Module):
    """Adds a constant, so that what rounding must give is known."""

    stride = 4

    def __init__(self, levels: float) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, image: Tensor) -> Tensor:
        assert image.shape[-1] % self.stride == image.shape[-2] % self.stride == 0
        return image + self.levels / 255


# The network


@pytest.mark.parametrize("upsampler", get_args(Upsampler))
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_every_kind_takes_every_size(upsampler: Upsampler, depth: int) -> None:
    module = conv_autoencoder(depth=depth, upsampler=upsampler, **SMALL).eval()
    assert module.stride == 2**depth
    for height, width in [(1, 1), (5, 7), (33, 18)]:
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        out = reconstruct(module, pixels)
        assert out.dtype == np.uint8
        assert out.shape == pixels.shape


@pytest.mark.parametrize("upsampler", get_args(Upsampler))
def test_every_parameter_gets_a_gradient(upsampler: Upsampler) -> None:
    module = conv_autoencoder(depth=2, upsampler=upsampler, **SMALL)
    image = torch.rand(1, 3, 16, 16)
    (module(image) - image).square().mean().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_latent_is_at_the_stated_scale_and_number_of_channels() -> None:
    module = Autoencoder(AutoencoderConfig(depth=3, latent_channels=5, width=8))
    assert module.encoder(torch.rand(1, 3, 32, 48)).shape == (1, 5, 4, 6)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        ({}, 405_787),
        ({"upsampler": "bilinear"}, 405_787),
        ({"upsampler": "transposed"}, 405_787 + 7 * (64 * 32 + 32 * 16)),  # 4x4 instead of 3x3
        ({"upsampler": "shuffle"}, 405_787 + 3 * (9 * 64 * 32 + 32 + 9 * 32 * 16 + 16)),
        ({"depth": 3}, 1_659_163),
    ],
)
def test_number_of_parameters_is_that_worked_out_by_hand(config: dict, parameters: int) -> None:
    module = conv_autoencoder(**config)
    assert sum(p.numel() for p in module.parameters()) == parameters


def test_only_the_upsampler_differs_between_nearest_and_bilinear() -> None:
    nearest, bilinear = (conv_autoencoder(upsampler=u, **SMALL) for u in ("nearest", "bilinear"))
    bilinear.load_state_dict(nearest.state_dict())
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert (nearest(image) - bilinear(image)).abs().max() > 1e-4


@pytest.mark.parametrize("config", [{"upsampler": "nearset"}, {"depth": 0}, {"depth": 4}])
def test_impossible_configurations_are_refused(config: dict) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(config))}.*choose"):
        conv_autoencoder(**config)


def test_one_crop_can_be_learnt(photo: np.ndarray) -> None:
    module = conv_autoencoder(depth=2, width=16, latent_channels=24, num_blocks=1)
    crop = photo[:32, :32]
    image = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 255
    optimiser = torch.optim.Adam(module.parameters(), lr=3e-3)
    found = [psnr(reconstruct(module, crop), crop)]
    while len(found) < 30 and found[-1] <= 30:
        for _ in range(25):
            optimiser.zero_grad()
            (module(image) - image).square().mean().backward()
            optimiser.step()
        found.append(psnr(reconstruct(module, crop), crop))
    assert found[0] < 20
    assert max(found) > 30


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.square(one.astype(float) - other.astype(float)).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


# reconstruct


@pytest.mark.parametrize(
    ("levels", "expected"), [(0.0, 0), (0.49, 0), (0.51, 1), (-0.51, -1), (3.2, 3)]
)
def test_reconstruction_is_rounded_to_the_nearest_level(levels: float, expected: int) -> None:
    pixels = np.arange(10, 200, dtype=np.uint8)[:189].reshape(7, 9, 3)
    assert np.array_equal(reconstruct(Shift(levels), pixels), pixels.astype(int) + expected)


def test_reconstruction_is_clamped() -> None:
    pixels = np.array([[[0, 128, 255]]], dtype=np.uint8)
    assert reconstruct(Shift(60), pixels).tolist() == [[[60, 188, 255]]]
    assert reconstruct(Shift(-60), pixels).tolist() == [[[0, 68, 195]]]


def test_batch_equals_singles(photo: np.ndarray) -> None:
    module = conv_autoencoder(**SMALL).eval()
    batch = np.stack([photo, photo[::-1], 255 - photo])
    alone = np.stack([reconstruct(module, p) for p in batch])
    # Sums in another order may round a value to the neighbouring level.
    difference = np.abs(reconstruct_batch(module, batch).astype(int) - alone)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_padding_changes_nothing_away_from_the_border(photo: np.ndarray) -> None:
    module = conv_autoencoder(depth=2, **SMALL).eval()
    whole, cut = reconstruct(module, photo), reconstruct(module, photo[:, :-3])
    reach = 40  # pixels; more than half of the receptive field
    # Sums in another order may round a value to the neighbouring level.
    difference = np.abs(whole[:, :-reach].astype(int) - cut[:, : whole.shape[1] - reach])
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


class Blocks(nn.Module):
    """Every 4 x 4 block becomes its mean."""

    stride = 4

    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(F.avg_pool2d(image, 4), scale_factor=4)


def test_the_border_is_repeated_where_the_stride_needs_more_pixels() -> None:
    pixels = np.full((5, 7, 3), 200, np.uint8)
    pixels[4] = 100
    out = reconstruct(Blocks(), pixels)
    assert np.array_equal(out, pixels)  # nothing dark comes in from outside


def test_read_only_pixels_are_taken(photo: np.ndarray) -> None:
    fixed = photo.copy()
    fixed.flags.writeable = False
    assert np.array_equal(reconstruct(Shift(1), fixed), reconstruct(Shift(1), photo))


# Crops


def test_crop_is_a_window_and_small_photos_are_mirrored(photo: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    crop = random_crop(photo, 40, rng)
    windows = np.lib.stride_tricks.sliding_window_view(photo, (40, 40, 3))[:, :, 0]
    assert (windows == crop).all(axis=(2, 3, 4)).any()
    tiny = random_crop(photo[:10, :4], 24, rng)
    assert tiny.shape == (24, 24, 3)
    assert np.array_equal(tiny[:10, :4], photo[:10, :4])
    assert np.array_equal(tiny[:10, 4:8], photo[:10, 3::-1])


def test_flips_are_the_eight_symmetries_and_alike_for_all_arrays() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    seen = set()
    for seed in range(100):
        one, other = random_flip(np.random.default_rng(seed), pixels, pixels[..., 0])
        assert np.array_equal(one[..., 0], other)
        seen.add(one.tobytes())
    assert len(seen) == 8


def test_crops_are_a_function_of_seed_and_number(photo_folder: Path) -> None:
    photos = PhotoSource.from_paths([photo_folder])
    one, same, other = (PhotoCrops(photos, 32, seed) for seed in (0, 0, 1))
    backwards = {i: same[i]["image"] for i in reversed(range(6))}
    for i in range(6):
        assert one[i]["image"].shape == (3, 32, 32)
        assert torch.equal(one[i]["image"], backwards[i])
    assert not all(torch.equal(one[i]["image"], other[i]["image"]) for i in range(6))


def test_crops_can_be_sent_to_workers_that_are_not_forked(photo_folder: Path) -> None:
    crops = PhotoCrops(PhotoSource.from_paths([photo_folder]), 32, 0)
    sent = pickle.loads(ForkingPickler.dumps(crops))  # how a spawned process gets them
    for i in range(3):
        assert torch.equal(sent[i]["image"], crops[i]["image"])


# The bank


@pytest.fixture
def record(tmp_path: Path) -> weights.WeightsRecord:
    return save_random(tmp_path / "bank", "autoencoder", "conv-autoencoder", SMALL, "ae-test")


def test_bank_is_loaded_by_record(record: weights.WeightsRecord, photo: np.ndarray) -> None:
    bank = load_bank([str(record.path), str(record.path.with_suffix(".json"))])
    assert list(bank) == [str(record.path), str(record.path.with_suffix(".json"))]
    one, other = bank.values()
    assert not one.training
    assert np.array_equal(reconstruct(one, photo), reconstruct(other, photo))
    assert hash_bank([str(record.path)]) == {str(record.path): record.sha256}


def test_unknown_members_are_named() -> None:
    for load in (load_bank, hash_bank):
        with pytest.raises(WeightsError, match=r"ae-none.*shipped names"):
            load(["ae-none"])
        with pytest.raises(WeightsError, match=r"taef2_encoder.pth.*download"):
            load(["taef2:nowhere"])


def test_a_detector_is_no_member(record: weights.WeightsRecord) -> None:
    path = record.path.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kind": "detector"}))
    with pytest.raises(WeightsError, match="of kind 'detector'"):
        load_bank([str(path)])


def test_shipped_bank_leaves_the_held_out_member_out(
    record: weights.WeightsRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights.store, "PRETRAINED", record.folder)
    assert list_shipped_bank() == ["ae-test"]
    held_out = record.model_copy(update={"name": HELD_OUT})
    record.path.with_suffix(".json").write_text(held_out.model_dump_json())
    with pytest.raises(WeightsError, match="train autoencoder"):
        list_shipped_bank()


def test_registry_knows_the_kinds() -> None:
    assert {"conv-autoencoder", "taef2"} <= set(autoencoders.list_names())
    with pytest.raises(UnknownNameError, match="did you mean conv-autoencoder"):
        autoencoders.get("conv-autoencodre")


def shipped() -> Iterator[weights.WeightsRecord]:
    return (r for r in weights.list_records() if r.kind == "autoencoder")


def test_shipped_autoencoders_reconstruct_well(photo: np.ndarray) -> None:
    records = list(shipped())
    if not records:
        pytest.skip("no autoencoder in overpaint/pretrained; train them by recipes/autoencoders")
    for record in records:
        assert record.validation["psnr"] >= 28, record.name
        assert np.isfinite(psnr(reconstruct(weights.build(record), photo), photo)), record.name


def test_shipped_files_are_small() -> None:
    files = [p for p in weights.store.PRETRAINED.glob("*") if p.is_file()]
    if not files:
        pytest.skip("overpaint/pretrained is empty; train by the recipes")
    sizes = {p.name: p.stat().st_size for p in files}
    inpainter = sum(size for name, size in sizes.items() if name.startswith("safepaint"))
    assert inpainter <= 10 * 2**20
    assert sum(sizes.values()) - inpainter <= 16 * 2**20  # two detectors and the bank
