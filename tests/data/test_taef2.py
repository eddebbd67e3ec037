"""TAEF2: the layers of the fact sheet, and the official files where they are at hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from overpaint.data.autoencoder import reconstruct
from overpaint.data.bank import hash_bank, load_bank
from overpaint.data.finding import find_photos
from overpaint.data.taef2 import TAEF2, find_taef2_files, load_taef2
from overpaint.errors import WeightsError
from overpaint.images import read_image

BLOCK = 3 * (64 * 64 * 9 + 64)
SIDE_PATH = 2 * 64 * 256 + 2 * 256
STRIDED = 64 * 64 * 9  # the 3x3 convolutions that change the size have no bias
NUM_ENCODER = (3 * 64 * 9 + 64) + 10 * BLOCK + 3 * SIDE_PATH + 3 * STRIDED + 64 * 32 * 9 + 32
NUM_DECODER = (32 * 64 * 9 + 64) + 10 * BLOCK + 3 * SIDE_PATH + 3 * STRIDED + 64 * 3 * 9 + 3


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with two files as the official ones are: half precision, plain state dicts."""
    torch.manual_seed(0)
    module = TAEF2().half()
    torch.save(module.encoder.state_dict(), tmp_path / "taef2_encoder.pth")
    torch.save(module.decoder.state_dict(), tmp_path / "taef2_decoder.pth")
    return tmp_path


def test_number_of_parameters_is_that_of_the_fact_sheet() -> None:
    module = TAEF2()
    counts = [
        sum(p.numel() for p in part.parameters()) for part in (module.encoder, module.decoder)
    ]
    assert counts == [NUM_ENCODER, NUM_DECODER]
    assert counts == pytest.approx([1.35e6, 1.35e6], rel=0.01)


def test_keys_are_the_official_ones() -> None:
    module = TAEF2()
    encoder, decoder = (part.state_dict() for part in (module.encoder, module.decoder))
    side_path = {f"pool.{key}" for key in ("0.weight", "1.weight", "1.bias", "3.weight")}
    convs = {f"conv.{i}.{key}" for i in (0, 2, 4) for key in ("weight", "bias")}

    def blocks(*, plain: list[int], side: list[int]) -> set[str]:
        keys = {f"{i}.{key}" for i in plain + side for key in convs}
        return keys | {f"{i}.{key}" for i in side for key in side_path}

    ends = {f"{i}.{key}" for i in (0, 14) for key in ("weight", "bias")}
    strided = {f"{i}.weight" for i in (2, 6, 10)}
    plain = [1, 3, 4, 5, 7, 8, 9]
    assert set(encoder) == ends | strided | blocks(plain=plain, side=[11, 12, 13])
    ends = {f"{i}.{key}" for i in (1, 19) for key in ("weight", "bias")}
    strided = {f"{i}.weight" for i in (7, 12, 17)}
    plain = [8, 9, 10, 13, 14, 15, 18]
    assert set(decoder) == ends | strided | blocks(plain=plain, side=[3, 4, 5])


def test_latent_has_32_channels_at_an_eighth_and_is_soft_clamped() -> None:
    module = TAEF2().eval()
    with torch.no_grad():
        assert module.encoder(torch.rand(1, 3, 16, 24)).shape == (1, 32, 2, 3)
        clamped = module.decoder[0](torch.tensor([-100.0, 0.0, 3.0, 100.0]))
    torch.testing.assert_close(clamped, torch.tensor([-3.0, 0.0, 3 * math.tanh(1.0), 3.0]))


def test_any_size_is_taken() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 21, 3), dtype=np.uint8)
    assert reconstruct(TAEF2().eval(), pixels).shape == pixels.shape


def test_half_precision_files_are_loaded_as_float32(saved: Path) -> None:
    module = load_taef2(saved)
    assert not module.training
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    name = "11.pool.3.weight"
    stored = torch.load(saved / "taef2_encoder.pth", weights_only=True)[name]
    assert torch.equal(module.encoder.state_dict()[name], stored.float())


def test_bank_finds_the_files_below_the_assets(saved: Path) -> None:
    name = f"taef2:{saved.name}"
    bank = load_bank([name], saved.parent)
    assert isinstance(bank[name], TAEF2)
    before = hash_bank([name], saved.parent)
    (saved / "taef2_decoder.pth").write_bytes(b"other")
    assert hash_bank([name], saved.parent) != before


@pytest.mark.parametrize("name", ["taef2_encoder.pth", "taef2_decoder.pth"])
def test_a_missing_file_is_named_with_the_remedy(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(WeightsError, match=rf"{name}: not found; download"):
        load_taef2(saved)


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "other keys", "no state dict"])
def test_a_damaged_file_is_named_with_the_remedy(saved: Path, damage: str) -> None:
    path = saved / "taef2_decoder.pth"
    if damage in ("other keys", "no state dict"):
        torch.save({"0.weight": torch.ones(1)} if damage == "other keys" else [1], path)
    else:
        content = {"empty": b"", "text": b"<html>not found</html>", "cut": path.read_bytes()[:999]}
        path.write_bytes(content[damage])
    with pytest.raises(WeightsError, match=r"taef2_decoder.pth: damaged.*download it again"):
        load_taef2(saved)


def test_official_files_reconstruct_photos(shared_data: Path) -> None:
    folder = shared_data / "weights"
    try:
        find_taef2_files(folder)
    except WeightsError as error:
        pytest.skip(str(error))
    module = load_taef2(folder)
    paths = find_photos([shared_data / "photos"]).photos
    for path in paths[:: len(paths) // 3][:3]:
        crop = read_image(path).pixels[:96, :96]
        error = np.square(reconstruct(module, crop).astype(float) - crop).mean()
        assert 20 < 10 * np.log10(255**2 / error) < 42, path.name
