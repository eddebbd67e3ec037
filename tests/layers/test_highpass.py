"""The SRM filters: hand-derived values, borders, and precision under autocast."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from overpaint.layers.highpass import SRM_DIVISORS, SRM_KERNELS, SRMFilter

KERNELS = torch.tensor(SRM_KERNELS, dtype=torch.float64)
DIVISORS = torch.tensor(SRM_DIVISORS, dtype=torch.float64)


def ramp(height: int, width: int, dy: float, dx: float) -> Tensor:
    """A photo whose brightness rises by dy and dx grey levels a pixel."""
    y = torch.arange(height).reshape(-1, 1) * dy
    x = torch.arange(width) * dx
    return ((y + x) / 255).expand(1, 3, -1, -1).float()


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_flat_photo_leaves_nothing_also_at_the_border(level: float) -> None:
    assert SRMFilter()(torch.full((1, 3, 9, 7), level)).abs().max() < 1e-4


def test_a_ramp_leaves_nothing_inside() -> None:
    residual = SRMFilter(unit=1)(ramp(12, 14, dy=3, dx=-2) + 0.2)
    assert residual[..., 2:-2, 2:-2].abs().max() < 1e-3


def test_one_bright_pixel_draws_the_kernels() -> None:
    image = torch.zeros(1, 3, 9, 9)
    image[0, 1, 4, 4] = 1 / 255  # one grey level in green
    expected = KERNELS / DIVISORS.reshape(3, 1, 1)
    found = SRMFilter(unit=1)(image)[0, :, 2:7, 2:7]
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=1e-6)
    assert found[:, 2, 2].tolist() == pytest.approx([-1, -1, -1])


def test_it_is_the_published_convolution_over_all_three_colours() -> None:
    image = torch.rand(2, 3, 11, 13, dtype=torch.float64)
    weight = (KERNELS / DIVISORS.reshape(3, 1, 1)).unsqueeze(1).expand(-1, 3, -1, -1)
    expected = F.conv2d(F.pad(image * 255, (2, 2, 2, 2), mode="replicate"), weight) / 16
    torch.testing.assert_close(SRMFilter()(image), expected)


def test_autocast_does_not_touch_the_noise() -> None:
    noise = torch.randint(-1, 2, (1, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    image = (250 + noise) / 255
    exact = SRMFilter()(image)
    with torch.autocast("cpu", torch.bfloat16):
        cast = SRMFilter()(image)
    assert cast.dtype == torch.float32
    assert torch.equal(cast, exact)


def test_a_model_in_half_precision_keeps_exact_kernels() -> None:
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(SRMFilter().bfloat16()(image), SRMFilter()(image))


def test_filters_are_neither_trained_nor_saved() -> None:
    srm = SRMFilter()
    assert not list(srm.parameters())
    assert not srm.state_dict()


def test_gradient_reaches_the_image() -> None:
    image = torch.rand(1, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(SRMFilter(), image)
