"""Traces: what each one leaves in a photo, and what it must keep."""

import numpy as np
import pytest
from numpy.random import default_rng

from overpaint.data import classical_redraws as traces
from overpaint.data.classical_redraws import TRACES
from overpaint.data.degrade import jpeg

FLAT = np.full((64, 64, 3), 120, np.uint8)
each_trace = pytest.mark.parametrize("name", sorted(TRACES))


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.square(one.astype(float) - other.astype(float)).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def fine_detail(pixels: np.ndarray) -> float:
    """Energy of the discrete Laplacian: mostly noise."""
    p = pixels.astype(float)
    inner = p[1:-1, 1:-1]
    around = p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:]
    return float(np.square(4 * inner - around).mean())


@each_trace
def test_size_and_type_stay_and_the_input_is_left_alone(name: str, photo: np.ndarray) -> None:
    for pixels in (photo, photo[:17, :23], photo[:1, :1], photo[:, ::-1]):
        before = pixels.copy()
        out = TRACES[name](pixels, default_rng(0))
        assert out.dtype == np.uint8
        assert out.shape == pixels.shape
        assert np.array_equal(pixels, before)


@each_trace
def test_a_trace_is_a_function_of_the_generator(name: str, photo: np.ndarray) -> None:
    outs = [TRACES[name](photo, default_rng(seed)) for seed in (3, 3, 4)]
    assert np.array_equal(outs[0], outs[1])
    assert not np.array_equal(outs[0], outs[2])


@each_trace
def test_pixels_change_and_content_stays(name: str, photo: np.ndarray) -> None:
    for seed in range(12):
        out = TRACES[name](photo, default_rng(seed))
        assert (out != photo).any(axis=2).mean() > 0.2
        assert psnr(out, photo) > 18
        assert np.abs(out.astype(float).mean((0, 1)) - photo.mean((0, 1))).max() < 4


def test_periodic_leaves_peaks_at_its_period_and_nothing_else() -> None:
    for seed in range(8):
        out = traces.periodic(FLAT, default_rng(seed)).astype(float)
        spectrum = np.abs(np.fft.fft2(out - out.mean(axis=(0, 1)), axes=(0, 1))).sum(axis=2)
        peaks = spectrum[::8, ::8].copy()
        spectrum[::8, ::8] = 0
        assert peaks.max() > 64
        assert spectrum.max() < 1e-6 * peaks.max()


def test_periodic_shows_in_the_spectrum_of_a_photo(photo: np.ndarray) -> None:
    square = photo[:96, :96]
    difference = traces.periodic(square, default_rng(5)).astype(float) - square
    spectrum = np.abs(np.fft.fft2(difference, axes=(0, 1))).sum(axis=2)
    spectrum[0, 0] = 0
    row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
    assert row % 12 == column % 12 == 0  # 96 / 8
    assert spectrum.max() > 5 * np.median(spectrum)


def test_recompressed_lies_on_another_grid(
    photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def noted(pixels: np.ndarray, quality: int, phase: tuple[int, int]) -> np.ndarray:
        drawn.append((quality, *phase))
        return jpeg(pixels, quality=quality, phase=phase)

    monkeypatch.setattr(traces, "jpeg", noted)
    compressed = jpeg(photo, quality=80)
    moved = 0
    for seed in range(12):
        out = traces.recompressed(compressed, default_rng(seed))
        quality, *phase = drawn[-1]
        if tuple(phase) == (0, 0):
            continue
        moved += 1
        # A JPEG's own grid and quality change it least, when it is compressed again.
        again = psnr(jpeg(out, quality=quality, phase=phase), out)
        assert again > psnr(jpeg(out, quality=quality), out) + 3
    assert moved >= 10
    assert {q for q, *_ in drawn} <= set(range(50, 96))


def test_denoised_has_less_fine_detail(photo: np.ndarray) -> None:
    for seed in range(12):
        assert fine_detail(traces.denoised(photo, default_rng(seed))) < 0.8 * fine_detail(photo)


def test_renoised_has_noise_of_its_own_strength_and_colour() -> None:
    outs = [traces.renoised(FLAT, default_rng(seed)).astype(float) for seed in range(40)]
    strengths = [out.std() for out in outs]
    assert min(strengths) > 0.5
    assert 4 < max(strengths) < 8
    grey = [np.array_equal(out[..., 0], out[..., 2]) for out in outs]
    assert 8 < sum(grey) < 32
    neighbours = [np.corrcoef(out[:, 1:, 0].ravel(), out[:, :-1, 0].ravel())[0, 1] for out in outs]
    # Three equal weights at (0, 0), (1, 0), (0, 1): one of three is shared with the next column.
    assert sum(abs(c - 1 / 3) < 0.12 for c in neighbours) > 8
    assert sum(abs(c) < 0.12 for c in neighbours) > 8
