"""Ordinary edits: what every kind promises, and what each one does to a photo."""

import numpy as np
import pytest
from numpy.random import default_rng

from conftest import textured
from overpaint.data import ordinary_edits as module
from overpaint.data.negatives import mix_edit
from overpaint.data.ordinary_edits import KEEP_SIZE, ORDINARY_EDITS, WORDS, apply_edit, to_negative

each_kind = pytest.mark.parametrize("name", sorted(ORDINARY_EDITS))
OTHER = textured(70, 90, seed=12)
REGIONAL = ("blurred_region", "pixelation", "redaction", "caption", "montage")


def detail(pixels: np.ndarray) -> float:
    """Mean square of the differences of neighbours in a row."""
    return float(np.square(np.diff(pixels.astype(float), axis=1)).mean())


def step(low: int = 80, high: int = 160) -> np.ndarray:
    out = np.full((64, 96, 3), low, np.uint8)
    out[:, 48:] = high
    return out


# What all promise


@each_kind
def test_type_and_size_whatever_the_photo(name: str, photo: np.ndarray) -> None:
    photo = photo[:60, :70]
    shapes = (photo, photo[:17, :23], photo[:1, :1], photo[:, ::-1], photo[:3], photo[:, :2])
    for pixels in shapes:
        before, other_before = pixels.copy(), OTHER.copy()
        for seed in range(6):
            for other in (OTHER, OTHER[:1, :1], None):
                out = apply_edit(name, pixels, default_rng(seed), other)
                assert out.dtype == np.uint8
                assert out.ndim == 3
                if name in KEEP_SIZE:
                    assert out.shape == pixels.shape
        assert np.array_equal(pixels, before)
        assert np.array_equal(OTHER, other_before)


@each_kind
def test_an_edit_is_a_function_of_the_generator_and_changes_the_photo(
    name: str, photo: np.ndarray
) -> None:
    outs = [apply_edit(name, photo, default_rng(seed), OTHER) for seed in (3, 3, 4, 5, 6)]
    assert np.array_equal(outs[0], outs[1])
    assert any(not np.array_equal(outs[0], out) for out in outs[2:])
    assert all(not np.array_equal(out, photo) for out in outs)


def test_every_kind_has_words_and_all_but_one_keep_the_size() -> None:
    assert list(WORDS) == list(ORDINARY_EDITS)
    assert set(ORDINARY_EDITS) - set(KEEP_SIZE) == {"resize"}


@pytest.mark.parametrize("name", REGIONAL)
def test_outside_of_its_region_the_photo_stays(name: str, photo: np.ndarray) -> None:
    kept = [(apply_edit(name, photo, default_rng(i), OTHER) == photo).mean() for i in range(12)]
    assert np.median(kept) > 0.6


def test_as_a_negative_it_needs_no_other_photo(photo: np.ndarray) -> None:
    mask = np.zeros(photo.shape[:2], np.uint8)
    for name in ("collage", "median"):
        out = to_negative(name)(photo, mask, default_rng(2))
        assert np.array_equal(out, apply_edit(name, photo, default_rng(2)))


def test_mixing_two_photos_does_not_wrap_around() -> None:
    dark, light = np.full((2, 2, 3), 10, np.uint8), np.full((2, 2, 3), 250, np.uint8)
    for weight, expected in ((0.0, 250), (0.5, 130), (1.0, 10)):
        out = mix_edit(light, dark, np.full((2, 2), weight))
        assert np.array_equal(out, np.full((2, 2, 3), expected))


# What each one does


def test_the_median_takes_single_pixels_away_and_keeps_edges() -> None:
    pixels = step()
    pixels[20, 20] = pixels[40, 70] = 255
    for seed in range(6):
        assert np.array_equal(apply_edit("median", pixels, default_rng(seed)), step())


def test_blur_and_denoising_take_detail_and_sharpening_adds_it(photo: np.ndarray) -> None:
    for seed in range(5):
        assert detail(apply_edit("blur", photo, default_rng(seed))) < 0.8 * detail(photo)
        assert detail(apply_edit("denoise", photo, default_rng(seed))) < detail(photo)
        assert detail(apply_edit("unsharp", photo, default_rng(seed))) > detail(photo)


@pytest.mark.parametrize("name", ["denoise", "beauty"])
def test_noise_goes_and_the_edge_stays(name: str) -> None:
    noise = default_rng(0).normal(0, 4, (64, 96, 1))
    noisy = np.clip(np.rint(step() + noise), 0, 255).astype(np.uint8)
    left = []
    for seed in range(8):
        out = apply_edit(name, noisy, default_rng(seed)).astype(float)
        left.append(out[8:56, 8:40].std() / noisy[8:56, 8:40].std())
        assert out[:, 49].mean() - out[:, 46].mean() > 70
    assert min(left) < 0.5


def test_tone_mapping_brings_light_and_dark_nearer() -> None:
    pixels = step(12, 220)
    for seed in range(5):
        out = apply_edit("tone_mapping", pixels, default_rng(seed)).astype(float)
        # Far from the edge, where no local contrast is raised.
        assert 1 < out[:, 90].mean() / out[:, 4].mean() < 0.8 * 220 / 12


def test_grading_gives_one_colour_for_one_colour() -> None:
    pixels = np.repeat(np.arange(0, 256, 8, dtype=np.uint8), 8).reshape(8, 32, 1)
    pixels = np.repeat(pixels, 3, axis=2)
    out = apply_edit("grading", pixels, default_rng(0))
    for value in np.unique(pixels):
        assert len(np.unique(out[pixels[..., 0] == value], axis=0)) == 1
    assert len({*out[..., 0].ravel().tolist()}) > 10


def test_a_vignette_changes_the_corners_more_than_the_middle() -> None:
    pixels = np.full((60, 80, 3), 120, np.uint8)
    for seed in range(8):
        change = np.abs(apply_edit("vignette", pixels, default_rng(seed)) - 120.0).mean(axis=2)
        corners = change[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert corners.mean() > 10 > change[30, 40]


def slope(pixels: np.ndarray) -> float:
    """Degrees by which an edge that was upright now leans."""
    columns = [int(np.argmax(row > 120)) for row in pixels[..., 0]]
    rows = np.arange(len(columns))
    return float(np.degrees(np.arctan(np.polyfit(rows, columns, 1)[0])))


def test_a_rotation_is_one_by_the_angle_drawn() -> None:
    pixels = np.full((200, 200, 3), 80, np.uint8)
    pixels[:, 100:] = 160
    found = 0
    for seed in range(30):
        first = default_rng(seed)
        if first.random() >= 0.5:
            continue
        angle = first.choice([-1, 1]) * np.exp(first.uniform(np.log(0.5), np.log(15)))
        out = apply_edit("rotation", pixels, default_rng(seed))
        assert 60 < out.min() < out.max() < 180  # no corner is empty
        assert abs(slope(out)) == pytest.approx(abs(angle), abs=0.4)
        found += 1
    assert found > 8


def test_a_rotation_by_any_angle_leaves_corners_of_one_colour(photo: np.ndarray) -> None:
    square, flat = photo[:96, :96], 0
    for seed in range(30):
        if default_rng(seed).random() < 0.5:
            continue
        out = apply_edit("rotation", square, default_rng(seed))
        corners = out[[0, 0, -1, -1], [0, -1, 0, -1]]
        flat += len(np.unique(corners, axis=0)) == 1
    assert flat > 8


def test_resizing_is_by_half_to_twice(photo: np.ndarray) -> None:
    scales = [apply_edit("resize", photo, default_rng(i)).shape[0] / 96 for i in range(30)]
    assert 0.49 < min(scales) < 0.7
    assert 1.4 < max(scales) < 2.01


def test_a_pixelated_region_is_squares_of_one_colour(photo: np.ndarray) -> None:
    for seed in range(6):
        out = apply_edit("pixelation", photo, default_rng(seed))
        rows, columns = np.nonzero((out != photo).any(axis=2))
        inside = out[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        equal = (inside[:, 1:] == inside[:, :-1]).all(axis=2)
        assert equal.mean() > 0.3 > 0.05 > (photo[:, 1:] == photo[:, :-1]).all(axis=2).mean()


def test_redaction_boxes_have_one_colour() -> None:
    pixels = np.full((90, 120, 3), 120, np.uint8)
    black = 0
    for seed in range(20):
        out = apply_edit("redaction", pixels, default_rng(seed))
        boxes = out[(out != 120).any(axis=2)]
        assert len(np.unique(boxes, axis=0)) == 1
        black += not boxes.any()
    assert black > 8


def test_a_montage_shows_the_other_photo_with_a_soft_edge() -> None:
    pixels, other = np.full((90, 120, 3), 40, np.uint8), textured(64, 64, seed=3)
    for seed in range(8):
        out = apply_edit("montage", pixels, default_rng(seed), other).astype(float)
        changed = np.abs(out - 40).max(axis=2)
        assert changed.max() > 4
        assert (changed == 0).mean() > 0.4
        # Nowhere the full step from the photo to what was put in.
        assert np.abs(np.diff(changed, axis=1)).max() < changed.max() + 20


def test_a_collage_shows_both_photos() -> None:
    pixels, other = np.full((90, 120, 3), 40, np.uint8), np.full((60, 60, 3), 200, np.uint8)
    for seed in range(8):
        out = apply_edit("collage", pixels, default_rng(seed), other)
        shares = [(out == value).all(axis=2).mean() for value in (40, 200)]
        assert min(shares) > 0.2
        assert sum(shares) > 0.75


def test_a_frame_goes_all_around(photo: np.ndarray) -> None:
    for seed in range(8):
        out = apply_edit("frame", photo, default_rng(seed))
        border = np.concatenate([out[0], out[-1], out[:, 0], out[:, -1]])
        assert len(np.unique(border, axis=0)) == 1


def test_a_screenshot_has_two_flat_bars(photo: np.ndarray) -> None:
    axes = set()
    for seed in range(20):
        out = apply_edit("screenshot", photo, default_rng(seed))
        flat = [
            all(len(np.unique(line, axis=0)) == 1 for line in (x[0], x[-1]))
            for x in (out, out.swapaxes(0, 1))
        ]
        assert any(flat)
        axes.add(flat.index(True))
    assert axes == {0, 1}


# The filters against slow references


def test_means_over_squares() -> None:
    values = default_rng(0).normal(size=(9, 13))
    expected = [
        [values[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].mean() for x in range(13)]
        for y in range(9)
    ]
    np.testing.assert_allclose(module._average_boxes(values, 2), expected, atol=1e-12)


def test_the_bilateral_filter_by_its_formula() -> None:
    pixels = textured(16, 12, seed=5)
    out, sigma, levels = module._filter_bilateral(pixels, 1.0, 20.0), 1.0, 20.0
    luma = np.rint(pixels @ np.array([0.299, 0.587, 0.114], np.float32))
    y, x = 5, 6
    total, expected = 0.0, np.zeros(3)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            near = np.exp(-(dy**2 + dx**2) / (2 * sigma**2))
            alike = np.exp(-((luma[y + dy, x + dx] - luma[y, x]) ** 2) / (2 * levels**2))
            total += near * alike
            expected += near * alike * pixels[y + dy, x + dx]
    np.testing.assert_allclose(out[y, x], expected / total, rtol=1e-5)


def test_the_guided_filter_keeps_strong_edges_alone() -> None:
    weak, strong = (np.repeat([[0.0] * 20 + [v] * 20], 20, axis=0) for v in (0.02, 4.0))
    kept = []
    for values in (weak, strong):
        out = module._filter_guided(values, 4, 0.05)
        kept.append((out[10, 20] - out[10, 19]) / values.max())
    assert kept[0] < 0.2
    assert kept[1] > 0.9
