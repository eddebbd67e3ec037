"""Fast Fourier convolution against sums over all pixels and frequencies, and what it sees."""

import cmath
import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from helpers.inpainter_contract import has_gradient
from overpaint.layers.fourier import (
    FastFourierBlock,
    FastFourierConv,
    FastFourierLayer,
    FourierUnit,
    SpectralTransform,
    split_channels,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def shaken(module: nn.Module) -> nn.Module:
    """The module in eval mode, with batch-norm values as after a training."""
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            for value, low in ((m.weight, 0.5), (m.running_var, 0.5), (m.bias, -1)):
                nn.init.uniform_(value, low, low + 1.5)  # type: ignore[arg-type]
            nn.init.normal_(m.running_mean)  # type: ignore[arg-type]
    return module.eval()


def frequencies(width: int) -> range:
    """Of the half spectrum; the others are their conjugates."""
    return range(width // 2 + 1)


def spectrum(x: Tensor) -> list[list[complex]]:
    """The orthonormal discrete Fourier transform of one channel (h, w), term by term."""
    h, w = x.shape
    places = list(itertools.product(range(h), range(w)))
    return [
        [
            sum(
                x[i, j].item() * cmath.exp(-2j * math.pi * (u * i / h + v * j / w))
                for i, j in places
            )
            / math.sqrt(h * w)
            for v in frequencies(w)
        ]
        for u in range(h)
    ]


def picture(z: list[list[complex]], width: int) -> Tensor:
    """What the half spectrum z stands for: a cosine and a sine for each of its values."""
    h = len(z)
    out = torch.zeros(h, width, dtype=torch.float64)
    for i, j in itertools.product(range(h), range(width)):
        for u, v in itertools.product(range(h), frequencies(width)):
            twice = 1 if v == 0 or 2 * v == width else 2  # the conjugate's share
            angle = 2 * math.pi * (u * i / h + v * j / width)
            out[i, j] += twice * (z[u][v] * cmath.exp(1j * angle)).real
    return out / math.sqrt(h * width)


def norm(m: nn.Module, x: float, channel: int) -> float:
    if not isinstance(m, nn.BatchNorm2d):
        return x
    values = (m.running_mean, m.running_var, m.weight, m.bias)
    mean, var, gain, bias = (t[channel].item() for t in values)  # type: ignore[index]
    return (x - mean) / math.sqrt(var + m.eps) * gain + bias


def fourier_unit(unit: FourierUnit, x: Tensor) -> Tensor:
    """FourierUnit of (c, h, w), one frequency at a time."""
    c, h, w = x.shape
    spectra = [spectrum(channel) for channel in x]
    out = [[[0j for _ in frequencies(w)] for _ in range(h)] for _ in range(c)]
    matrix = unit.mix.weight[:, :, 0, 0].tolist()
    for u, v in itertools.product(range(h), frequencies(w)):
        values = [part for s in spectra for part in (s[u][v].real, s[u][v].imag)]
        mixed = [sum(a * b for a, b in zip(row, values, strict=True)) for row in matrix]
        mixed = [max(0.0, norm(unit.norm, value, k)) for k, value in enumerate(mixed)]
        for k in range(c):
            out[k][u][v] = complex(mixed[2 * k], mixed[2 * k + 1])
    return torch.stack([picture(z, w) for z in out]).float()


def spectral_transform(block: SpectralTransform, x: Tensor) -> Tensor:
    """SpectralTransform of (c, h, w), by the reference of its units."""
    x = block.reduce(x[None])[0]
    total = x + fourier_unit(block.whole, x)
    if block.quarter is not None:
        n, h, w = x.shape[0] // 4, x.shape[1] // 2, x.shape[2] // 2
        corners = ((0, 0), (h, 0), (0, w), (h, w))
        parts = [x[:n, top : top + h, left : left + w] for top, left in corners]
        each = fourier_unit(block.quarter, torch.cat(parts))
        for top, left in corners:
            total[:, top : top + h, left : left + w] += each
    return block.expand(total[None])[0]


class TestFourierUnit:
    @pytest.mark.parametrize("size", [(4, 4), (3, 5), (2, 6), (5, 2), (1, 1)])
    @pytest.mark.parametrize("normalised", [True, False])
    def test_it_agrees_with_the_sum_over_all_frequencies(
        self, size: tuple[int, int], normalised: bool
    ) -> None:
        unit, x = FourierUnit(2, normalised), torch.randn(2, 2, *size)
        shaken(unit)
        with torch.no_grad():
            expected = torch.stack([fourier_unit(unit, one) for one in x])
            torch.testing.assert_close(unit(x), expected, rtol=0, atol=1e-5)
        assert expected.std() > 0.05 or size == (1, 1)

    def test_the_constant_picture_has_one_frequency(self) -> None:
        """Of ones on 4 x 4 it is 4 (orthonormal); a factor 1/2 gives halves everywhere."""
        unit = FourierUnit(1, normalised=False)
        with torch.no_grad():
            unit.mix.weight[:] = 0.5 * torch.eye(2)[:, :, None, None]
            out = unit(torch.ones(1, 1, 4, 4))
        torch.testing.assert_close(out, torch.full((1, 1, 4, 4), 0.5))

    def test_gradients_are_those_of_finite_differences(self) -> None:
        unit = FourierUnit(1, normalised=False).double()
        x = torch.randn(1, 1, 3, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(unit, (x,))

    def test_every_pixel_reaches_every_other(self) -> None:
        unit, x = FourierUnit(2), torch.randn(1, 2, 16, 12, requires_grad=True)
        unit(x)[0, :, 0, 0].sum().backward()
        assert x.grad is not None
        assert (x.grad != 0).all()

    @pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
    def test_it_keeps_the_type(self, kind: torch.dtype) -> None:
        unit, x = FourierUnit(2), torch.randn(1, 2, 6, 6)
        shaken(unit)
        with torch.no_grad():
            exact, out = unit(x), unit.to(kind)(x.to(kind))
        assert out.dtype == kind
        torch.testing.assert_close(out.float(), exact, rtol=0.05, atol=0.1)


class TestSpectralTransform:
    @pytest.mark.parametrize("quarters", [False, True])
    @pytest.mark.parametrize("normalised", [True, False])
    def test_it_agrees_with_the_reference(self, quarters: bool, normalised: bool) -> None:
        block, x = SpectralTransform(3, 8, normalised, quarters), torch.randn(1, 3, 4, 6)
        shaken(block)
        with torch.no_grad():
            expected = spectral_transform(block, x[0])
            torch.testing.assert_close(block(x)[0], expected, rtol=0, atol=1e-5)


def local_path(weight: Tensor, x: Tensor, stride: int) -> Tensor:
    """A k x k convolution of (c, h, w) with reflected borders, window by window."""
    k, (h, w) = weight.shape[-1], x.shape[1:]
    rows, columns = range(0, h, stride), range(0, w, stride)
    out = torch.zeros(len(weight), len(rows), len(columns))

    def mirrored(i: int, n: int) -> int:
        i = abs(i)
        return i if i < n else 2 * (n - 1) - i

    reach = range(-(k // 2), k // 2 + 1)
    for (a, i), (b, j) in itertools.product(enumerate(rows), enumerate(columns)):
        for (p, di), (q, dj) in itertools.product(enumerate(reach), enumerate(reach)):
            pixel = x[:, mirrored(i + di, h), mirrored(j + dj, w)]
            out[:, a, b] += weight[:, :, p, q] @ pixel
    return out


class TestFastFourierConv:
    def test_four_paths_are_summed(self) -> None:
        layer = FastFourierConv((2, 3), (1, 4))
        x_local, x_global = torch.randn(1, 2, 4, 5), torch.randn(1, 3, 4, 5)
        shaken(layer)
        with torch.no_grad():
            out_local, out_global = layer((x_local, x_global))
            assert layer.global_to_local is not None
            assert layer.local_to_global is not None
            assert layer.global_to_global is not None
            expected = local_path(layer.local_to_local.weight, x_local[0], 1)
            expected += local_path(layer.global_to_local.weight, x_global[0], 1)
            torch.testing.assert_close(out_local[0], expected, rtol=0, atol=1e-5)
            expected = local_path(layer.local_to_global.weight, x_local[0], 1)
            expected += spectral_transform(layer.global_to_global, x_global[0])
        assert out_global is not None
        torch.testing.assert_close(out_global[0], expected, rtol=0, atol=1e-5)

    def test_a_first_layer_makes_global_features_of_local_ones(self) -> None:
        layer, x = FastFourierConv((2, 0), (1, 3), stride=2), torch.randn(1, 2, 6, 7)
        with torch.no_grad():
            out_local, out_global = layer((x, None))
            assert layer.local_to_global is not None
            expected = local_path(layer.local_to_global.weight, x[0], 2)
        assert out_local.shape == (1, 1, 3, 4)
        assert out_global is not None
        torch.testing.assert_close(out_global[0], expected, rtol=0, atol=1e-5)
        names = {name.split(".")[0] for name in layer.state_dict()}
        assert names == {"local_to_local", "local_to_global"}

    def test_without_global_features_it_is_a_convolution(self) -> None:
        layer, x = FastFourierConv((2, 0), (3, 0)), torch.randn(1, 2, 5, 5)
        out, nothing = layer((x, None))
        assert nothing is None
        assert torch.equal(out, layer.local_to_local(x))

    def test_what_it_cannot_do(self) -> None:
        with pytest.raises(ValueError, match="stride 1"):
            FastFourierConv((2, 2), (2, 2), stride=2)
        with pytest.raises(ValueError, match="local features"):
            FastFourierConv((0, 2), (2, 2))


class TestLayersAndBlocks:
    @pytest.mark.parametrize("normalised", [True, False])
    def test_a_layer_normalises_and_rectifies_each_part(self, normalised: bool) -> None:
        layer = FastFourierLayer((2, 2), (3, 4), normalised=normalised)
        pair = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4)
        shaken(layer)
        with torch.no_grad():
            before, after = layer.conv(pair), layer(pair)
            for raw, out, module in zip(
                before, after, (layer.norm_local, layer.norm_global), strict=True
            ):
                assert raw is not None
                assert out is not None
                for k, i, j in itertools.product(range(raw.shape[1]), range(4), range(4)):
                    expected = max(0.0, norm(module, raw[0, k, i, j].item(), k))
                    assert out[0, k, i, j].item() == pytest.approx(expected, abs=1e-5)

    def test_a_block_adds_its_input_last(self) -> None:
        block = FastFourierBlock((2, 4)).eval()
        pair = torch.randn(1, 2, 5, 6), torch.randn(1, 4, 5, 6)
        with torch.no_grad():
            out, inner = block(pair), block.conv2(block.conv1(pair))
        for x, y, added in zip(pair, out, inner, strict=True):
            assert added is not None
            assert torch.equal(y, x + added)
            assert added.min() == 0  # rectified before the sum

    def test_every_parameter_learns(self) -> None:
        block = FastFourierBlock((2, 8), quarters=True)
        local, whole = block((torch.randn(2, 2, 8, 6), torch.randn(2, 8, 8, 6)))
        (local.square().mean() + whole.square().mean()).backward()
        assert all(has_gradient(p.grad) for p in block.parameters())

    def test_shares_of_channels(self) -> None:
        assert split_channels(512, 0.75) == (128, 384)
        assert split_channels(10, 0.75) == (3, 7)
        assert split_channels(8, 0.0) == (8, 0)
