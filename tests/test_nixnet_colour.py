"""NIX-Net with the noise of the colour differences: what it sees, its start, its size."""

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from detector_contract import DetectorContract, warmed
from overpaint.detectors import Detector
from overpaint.detectors.nixnet import ColourNoise, NIXNet, NIXNetConfig
from overpaint.errors import ConfigError
from overpaint.layers.highpass import SRM_DIVISORS, SRM_KERNELS, SRMFilter

SMALL = (8, 12, 16)


class TestColour(DetectorContract):
    name, num_parameters = "nixnet", 29_493_377
    config: ClassVar[dict[str, Any]] = {"widths": SMALL, "colour": True}

    def make(self) -> Detector:
        model = super().make()
        assert isinstance(model, NIXNet)
        assert model.colour is not None
        nn.init.normal_(model.colour.back.weight, std=0.3)  # as if after training
        return model

    def test_number_of_parameters_is_that_of_the_fact_sheet(self) -> None:
        plain, model = (NIXNet(NIXNetConfig(SMALL, colour=c)) for c in (False, True))
        # Two 3x3 convolutions, two norms, the shortcut of 6 channels, and the way back.
        added = 9 * 6 * 8 + 9 * 8 * 8 + 2 * 2 * 8 + 6 * 8 + 8 * 8
        assert model.num_parameters - plain.num_parameters == added


def test_residuals_of_planes_are_those_of_each_plane() -> None:
    planes = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    found = SRMFilter(unit=2).of_planes(planes).numpy()
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
    block = ColourNoise(8).eval()
    nn.init.normal_(block.back.weight)
    with torch.inference_mode():
        assert SRMFilter()(hidden).abs().max() < 1e-3 < 0.5 < SRMFilter()(grey).abs().max()
        flat = block(torch.full_like(grey, 0.5))
        torch.testing.assert_close(block(grey), flat, atol=1e-4, rtol=0)
        assert (block(hidden) - flat).abs().mean() > 0.01


def test_it_starts_as_the_network_without_it() -> None:
    plain, model = (warmed(NIXNet(NIXNetConfig(SMALL, colour=c))).eval() for c in (False, True))
    missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
    assert {key.partition(".")[0] for key in missing} == {"colour"}
    assert not unexpected
    image = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        assert torch.equal(plain(image), model(image))


def test_it_belongs_to_the_noise_stream() -> None:
    with pytest.raises(ConfigError, match="colour belongs to the noise stream"):
        NIXNetConfig(SMALL, noise_stream=False, colour=True)
