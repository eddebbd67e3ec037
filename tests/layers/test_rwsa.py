"""RWSA: equations 5 and 6, the mask it makes for itself, and its use in another generator."""

import math

import pytest
import torch
from torch import Tensor, nn

from helpers.inpainter_contract import has_gradient
from overpaint.layers.rwsa import RWSA, ChannelAttention, make_softening_kernel
from overpaint.registry import build_on_meta


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def box(height: int, width: int) -> Tensor:
    mask = torch.zeros(2, 1, height, width)
    mask[..., height // 4 : height // 2, width // 4 : 3 * width // 4] = 1
    return mask


def test_output_is_that_of_the_equations() -> None:
    block, x, mask = RWSA(16).eval(), torch.randn(2, 16, 12, 10), box(48, 40)
    with torch.no_grad():
        m = block.soften(mask, (12, 10))
        f = m * (block.adapt(block.changing(x)) + block.lasting(x))
        b = (1 - m) * block.background(x)
        expected = nn.functional.conv2d(
            torch.cat([f + b, x], dim=1), block.fuse.weight, block.fuse.bias
        )
        torch.testing.assert_close(block(x, mask), expected, rtol=0, atol=1e-5)


def test_number_of_parameters_is_that_worked_out_by_hand() -> None:
    attention = 3 * (512 * 16 + 16 + 16 * 256 + 256)
    learnable = 2 * 9 * 256 * 512 + 2 * 512 + 2 * 256
    fuse = 512 * 256 + 256
    with build_on_meta():
        block = RWSA(256)
    assert sum(p.numel() for p in block.parameters()) == attention + learnable + fuse
    assert not [name for name in block.state_dict() if "kernel" in name]  # a constant


def test_each_region_has_its_own_treatment() -> None:
    """A change of what treats the hole shows in the hole alone, and the other way round."""
    block, x, mask = RWSA(8).eval(), torch.randn(2, 8, 32, 32), box(32, 32)
    reach = nn.functional.max_pool2d(mask, 5, 1, 2)  # as far as the softened mask is not 0
    core = -nn.functional.max_pool2d(-mask, 5, 1, 2)  # where it is 1
    with torch.no_grad():
        before = block(x, mask)
        block.lasting.weigh[2].bias += 1  # type: ignore[operator]
        hole = (block(x, mask) - before).abs().amax(1, keepdim=True)
        before = block(x, mask)
        block.background.weigh[2].bias += 1  # type: ignore[operator]
        rest = (block(x, mask) - before).abs().amax(1, keepdim=True)
    assert hole[core == 1].min() > 1e-5
    assert hole[reach == 0].max() == 0
    assert rest[reach == 0].min() > 1e-5
    assert rest[core == 1].max() < 1e-6


def test_the_mask_is_averaged_rounded_and_softened() -> None:
    block, mask = RWSA(8), torch.zeros(1, 1, 32, 32)
    mask[..., :16] = 1
    mask[..., 16:19] = 1  # three quarters of a column of the small mask: rounded up
    soft = block.soften(mask, (8, 8))
    line = [math.exp(-((d / 2) ** 2)) for d in (-2, -1, 0, 1, 2)]
    for column in range(8):
        inside = [w for d, w in zip(range(-2, 3), line, strict=True) if column + d < 5]
        expected = sum(inside) / sum(line)
        assert soft[0, 0, :, column].tolist() == pytest.approx([expected] * 8, abs=1e-6)


def test_the_kernel_is_normalised_and_symmetric() -> None:
    kernel = make_softening_kernel()[0, 0]
    assert float(kernel.sum()) == pytest.approx(1)
    assert torch.equal(kernel, kernel.T)
    assert float(kernel[2, 2] / kernel[2, 3]) == pytest.approx(math.exp(0.25))


def test_channel_attention_only_weighs_channels() -> None:
    attention, x = ChannelAttention(8), torch.rand(2, 8, 5, 6) + 0.1
    ratio = attention(x) / x
    torch.testing.assert_close(ratio, ratio[..., :1, :1].expand_as(x), rtol=1e-4, atol=1e-5)
    assert 0 < ratio.min() <= ratio.max() < 1
    assert ratio[0, :, 0, 0].std() > 0


class Other(nn.Module):
    """A generator that knows nothing of SafePaint, with RWSA in its downsampling path."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(4, 12, 4, stride=4)
        self.attention = RWSA(12, reduction=1)
        self.up = nn.ConvTranspose2d(12, 3, 4, stride=4)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        x = self.down(torch.cat([image, mask], dim=1))
        return self.up(self.attention(x, mask))


@pytest.mark.parametrize("kind", [torch.float32, torch.bool, torch.uint8])
def test_it_fits_another_generator(kind: torch.dtype) -> None:
    model, image = Other(), torch.rand(2, 3, 36, 44)
    mask = torch.zeros(2, 1, 36, 44)
    mask[..., 8:24, 8:32] = 1
    out = model(image, mask) if kind == torch.float32 else None
    if out is None:  # a mask of another type is taken by the block itself
        assert model.attention(torch.rand(2, 12, 9, 11), mask.to(kind)).shape == (2, 12, 9, 11)
        return
    assert out.shape == image.shape
    out.square().mean().backward()
    assert all(has_gradient(p.grad) for p in model.parameters())
