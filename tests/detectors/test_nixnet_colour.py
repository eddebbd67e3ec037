"""NIX-Net with the noise of the colours and with energies: what they see, their start and size."""

from itertools import product
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.detector_contract import DetectorContract, warmed
from overpaint.detectors import Detector
from overpaint.detectors.nixnet import ColourNoise, NIXNet, NIXNetConfig
from overpaint.detectors.nixnet_context import (
    ENERGY_WINDOWS,
    FLOOR,
    Energies,
    compute_log_energy,
    compute_z_scores,
    mix_with_scores,
)
from overpaint.errors import ConfigError
from overpaint.layers.highpass import SRM_DIVISORS, SRM_KERNELS, SRMFilter

SMALL = (8, 12, 16)


class OptionContract(DetectorContract):
    name, num_parameters = "nixnet", 29_493_377
    option: ClassVar[str]
    added: ClassVar[int]

    def make(self) -> Detector:
        model = super().make()
        nn.init.normal_(getattr(model, self.option).back.weight, std=0.3)  # as if after training
        return model

    def test_number_of_parameters_is_that_of_the_fact_sheet(self) -> None:
        plain, model = (NIXNet(NIXNetConfig(SMALL, **{self.option: on})) for on in (False, True))  # type: ignore[arg-type]
        assert model.num_parameters - plain.num_parameters == self.added


class TestColour(OptionContract):
    option = "colour"
    # Two 3x3 convolutions, two norms, the shortcut of 6 channels, and the way back.
    added = 9 * 6 * 8 + 9 * 8 * 8 + 2 * 2 * 8 + 6 * 8 + 8 * 8
    config: ClassVar[dict[str, Any]] = {"widths": SMALL, "colour": True}


class TestEnergies(OptionContract):
    option = "energies"
    # Nine residuals at two sizes in three windows, raw and as scores; a norm, and the way back.
    added = 9 * 2 * 3 * 2 * 8 + 2 * 8 + 8 * 8
    config: ClassVar[dict[str, Any]] = {"widths": SMALL, "energies": True}


def test_residuals_of_planes_are_those_of_each_plane() -> None:
    planes = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    found = SRMFilter(unit=2).filter_planes(planes).numpy()
    assert found.shape == (2, 9, 9, 11)
    padded = np.pad(planes.numpy() * 255, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
    for b, n, k in np.ndindex(2, 3, 3):
        kernel = np.array(SRM_KERNELS[k]) / SRM_DIVISORS[k] / 2
        for i, j in np.ndindex(9, 11):
            expected = (padded[b, n, i : i + 5, j : j + 5] * kernel).sum()
            assert found[b, 3 * n + k, i, j] == pytest.approx(expected, abs=1e-5)


def test_it_sees_noise_that_the_sum_over_the_colours_hides() -> None:
    noise = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 0.02
    hidden = 0.5 + torch.cat([noise, -noise, torch.zeros_like(noise)], dim=1)
    grey = 0.5 + noise.expand(-1, 3, -1, -1)
    block, residual = ColourNoise(8).eval(), SRMFilter(unit=2)
    nn.init.normal_(block.back.weight)

    def seen(image: Tensor) -> Tensor:
        return block(residual.filter_planes(image[:, ::2] - image[:, 1:2]))

    with torch.inference_mode():
        assert SRMFilter()(hidden).abs().max() < 1e-3 < 0.5 < SRMFilter()(grey).abs().max()
        flat = seen(torch.full_like(grey, 0.5))
        torch.testing.assert_close(seen(grey), flat, atol=1e-4, rtol=0)
        assert (seen(hidden) - flat).abs().mean() > 0.01


@pytest.mark.parametrize("option", ["colour", "energies"])
def test_it_starts_as_the_network_without_it(option: str) -> None:
    configs = NIXNetConfig(SMALL), NIXNetConfig(SMALL, **{option: True})  # type: ignore[arg-type]
    plain, model = (warmed(NIXNet(config)).eval() for config in configs)
    missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
    assert {key.partition(".")[0] for key in missing} == {option}
    assert not unexpected
    image = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        assert torch.equal(plain(image), model(image))


@pytest.mark.parametrize("option", ["colour", "energies"])
def test_it_belongs_to_the_noise_stream(option: str) -> None:
    with pytest.raises(ConfigError, match="belong to the noise stream"):
        NIXNetConfig(SMALL, noise_stream=False, **{option: True})  # type: ignore[arg-type]


# Energies


@pytest.mark.parametrize("side", ENERGY_WINDOWS)
def test_log_energy_equals_a_slow_reference(side: int) -> None:
    sizes = np.random.default_rng(3).random((2, 20, 24), np.float32)
    found = compute_log_energy(torch.from_numpy(sizes)[None], side).numpy()[0]
    expected = np.zeros((2, 20, 24))
    for i, j in product(range(20), range(24)):
        rows = slice(max(0, i - side // 2), i + side // 2 + 1)
        columns = slice(max(0, j - side // 2), j + side // 2 + 1)
        expected[:, i, j] = np.log(sizes[:, rows, columns].mean((1, 2)) + FLOOR)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_twice_the_noise_adds_the_same_everywhere() -> None:
    sizes = 5 + torch.rand(1, 3, 16, 16)  # far above the floor
    added = compute_log_energy(2 * sizes, 3) - compute_log_energy(sizes, 3)
    torch.testing.assert_close(added, torch.full_like(added, np.log(2)), rtol=0, atol=2e-3)


def test_scores_as_a_part_of_the_weights_are_the_scores() -> None:
    random = torch.Generator().manual_seed(4)
    x = 3 + 5 * torch.rand(2, 3, 9, 7, generator=random)
    raw, scored = torch.randn(2, 4, 3, generator=random)
    found = mix_with_scores(x, raw, scored)
    side_by_side = torch.cat([x, compute_z_scores(x, windows=())], dim=1)
    expected = F.conv2d(side_by_side, torch.cat([raw, scored], dim=1)[..., None, None])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_energies_are_exact_under_autocast() -> None:
    block, noise = Energies(3, 8).eval(), torch.randn(1, 3, 16, 16)
    seen: list[Tensor] = []
    block.mix[1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        block(noise, noise[..., ::2, ::2])
        with torch.autocast("cpu", torch.bfloat16):
            block(noise, noise[..., ::2, ::2])
    assert seen[1].dtype == torch.float32
    assert torch.equal(*seen)
