"""Means over windows, against a plain average of each window."""

import pytest
import torch

from overpaint.layers.windows import average_windows


def average_plainly(x: torch.Tensor, side: int) -> torch.Tensor:
    half, out = side // 2, torch.empty_like(x)
    for i in range(x.shape[-2]):
        for j in range(x.shape[-1]):
            part = x[..., max(0, i - half) : i + half + 1, max(0, j - half) : j + half + 1]
            out[..., i, j] = part.mean(dim=(-2, -1))
    return out


@pytest.mark.parametrize("side", [1, 3, 9, 31])
@pytest.mark.parametrize("shape", [(2, 3, 12, 17), (1, 1, 9, 20), (4, 5, 8), (1, 2, 1, 1)])
def test_each_place_has_the_mean_of_its_window(shape: tuple[int, ...], side: int) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 3
    torch.testing.assert_close(average_windows(x, side), average_plainly(x, side))
    if x.ndim == 4:
        last = x.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(average_windows(last, side), average_plainly(x, side))


def test_a_gradient_reaches_each_place_by_the_windows_that_contain_it() -> None:
    x = torch.randn((1, 2, 6, 7), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: average_windows(x, 3), x)
