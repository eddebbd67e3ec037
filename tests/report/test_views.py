"""The views of a report, against values worked out by hand and pictures whose history is known."""

import io

import numpy as np
import pytest
from PIL import Image

from conftest import textured
from overpaint.report import views
from overpaint.report.contents import Box


def as_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
    return np.array(Image.open(buffer))


def decoded(picture: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(picture)))


def test_the_filter_is_that_of_ker_and_boehme() -> None:
    plane = np.zeros((5, 5), np.float32)
    plane[2, 2] = 4
    expected = np.zeros((5, 5))
    expected[1:4, 1:4] = [[1, -2, 1], [-2, 4, -2], [1, -2, 1]]
    np.testing.assert_array_equal(views.apply_high_pass(plane), expected)
    rows, columns = np.mgrid[:6, :7].astype(np.float32)
    assert np.abs(views.apply_high_pass(3 * rows - 2 * columns)[1:-1, 1:-1]).max() == 0  # a slope


def test_noise_of_all_colours_alike_is_none_of_the_colour_residual() -> None:
    grey = np.random.default_rng(0).integers(90, 160, (32, 40, 1), dtype=np.uint8)
    assert views.compute_colour_residual(np.repeat(grey, 3, axis=2)).max() == 0
    assert views.compute_noise_residual(np.repeat(grey, 3, axis=2)).std() > 10
    red = np.repeat(grey, 3, axis=2)
    red[8, 8, 0] += 40
    assert views.compute_colour_residual(red)[8, 8] == pytest.approx(40)  # a quarter of 4 times it


def test_error_level_is_the_largest_change_by_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = textured(48, 80, seed=1)
    expected = np.abs(as_jpeg(pixels, 90).astype(int) - pixels).max(axis=2)
    np.testing.assert_array_equal(views.compute_error_level(pixels), expected)
    monkeypatch.setattr(views, "_JPEG_PART", 32)  # as a picture that is too large for one JPEG
    np.testing.assert_array_equal(views.compute_error_level(pixels), expected)


@pytest.mark.parametrize(("left", "top"), [(0, 0), (5, 3), (1, 7)])
def test_the_grid_is_found_where_it_lies(left: int, top: int) -> None:
    pixels = as_jpeg(textured(264, 328, seed=2), 75)[top:, left:]
    found = views.find_jpeg_grid(pixels)
    assert found is not None
    grid, cells = found
    assert (grid.x, grid.y) == (-left % 8, -top % 8)
    assert grid.found
    assert cells.shape == (-(-pixels.shape[0] // 32), -(-pixels.shape[1] // 32))


def test_no_grid_in_a_photo_that_was_never_compressed() -> None:
    for seed in range(4):
        found = views.find_jpeg_grid(textured(256, 320, seed=seed))
        assert found is not None
        assert not found[0].found
    assert views.find_jpeg_grid(textured(63, 320, seed=0)) is None


def test_what_was_put_in_after_the_last_jpeg_is_dark_in_the_grid() -> None:
    pixels = textured(256, 320, seed=3)
    mixed = as_jpeg(pixels, 70)
    mixed[64:192, 96:224] = pixels[64:192, 96:224]
    found = views.find_jpeg_grid(mixed)
    assert found is not None
    cells = found[1]
    inside = np.zeros(cells.shape, bool)
    inside[2:6, 3:7] = True
    assert cells[inside].mean() < 0.3 * cells[~inside].mean()


def test_views_are_of_the_photos_size_or_a_whole_part_of_it() -> None:
    heatmap = np.zeros((60, 90), np.float32)
    made = views.make_views(textured(60, 90, seed=0), heatmap, heatmap > 0.5, None)
    assert [v.words.title for v in made] == [
        *("Photo", "Heatmap", "Noise residual", "Colour residual", "Error level")
    ]
    assert {decoded(v.picture).shape[:2] for v in made} == {(60, 90)}
    assert all(v.words.shows and v.words.look_for and v.words.ignore for v in made)
    assert made[0].address.startswith("data:image/jpeg;base64,")
    assert views.choose_factor(3000, 4200) == 3
    assert views.choose_factor(1400, 1400) == 1


def test_a_large_photo_is_shown_smaller_and_its_noise_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(views, "MAX_SIDE", 64)
    pixels = np.full((100, 160, 3), 120, np.uint8)
    noise = np.random.default_rng(0).integers(-20, 21, (100, 80, 1))
    pixels[:, 80:] = (120 + noise).astype(np.uint8)
    heatmap = np.zeros((100, 160), np.float32)
    mask = heatmap > 0.5
    mask[50, 3] = True  # a single pixel that stays marked
    made = {
        v.words.title: v
        for v in views.make_views(pixels, heatmap, mask, views.find_jpeg_grid(pixels))
    }
    for view in made.values():
        assert decoded(view.picture).shape[:2] == (34, 54)
    residual = decoded(made["Noise residual"].picture)
    assert residual[:, 30:].mean() > 100
    assert residual[:, :24].mean() < 5
    marked = decoded(made["Heatmap"].picture)
    assert marked[16, 1].min() > 150  # the outline, in white
    assert made["JPEG grid"].picture


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 3), (2, 66_000), (64, 64), (65, 71)])
def test_photos_of_any_shape(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    heatmap = np.ones(size, np.float32)
    made = views.make_views(pixels, heatmap, heatmap > 0.5, views.find_jpeg_grid(pixels))
    assert len(made) == (6 if min(size) >= 64 else 5)
    assert all(0 < max(decoded(v.picture).shape) <= views.MAX_SIDE for v in made)
    box = views.choose_crop(heatmap > 0.5, Box(0, 0, size[1], size[0]))
    crops = views.make_crops(pixels, heatmap, heatmap > 0.5, box)
    assert decoded(crops["photo"]).shape == (min(size[0], 320), min(size[1], 320), 3)


def test_a_crop_is_exact_and_holds_a_marked_pixel() -> None:
    pixels = textured(700, 900, seed=4)
    heatmap = np.full((700, 900), 0.1, np.float32)
    mask = np.zeros((700, 900), bool)
    mask[100:700, 200:230] = mask[670:700, 200:900] = True  # an L, with nothing in its middle
    box = views.choose_crop(mask, Box(200, 100, 700, 600))
    place = slice(box.y, box.y + box.height), slice(box.x, box.x + box.width)
    assert (box.width, box.height) == (views.CROP, views.CROP)
    assert mask[place].any()
    crops = views.make_crops(pixels, heatmap, mask, box)
    np.testing.assert_array_equal(decoded(crops["photo"]), pixels[place])
    assert [caption.split(",")[0] for caption in crops] == ["photo", "heatmap", "noise residual"]
    assert {decoded(picture).shape[:2] for picture in crops.values()} == {(320, 320)}


@pytest.mark.parametrize("corner", [(0, 0), (90, 140)])
def test_a_crop_lies_within_the_photo(corner: tuple[int, int]) -> None:
    mask = np.zeros((100, 150), bool)
    mask[corner[0] : corner[0] + 10, corner[1] : corner[1] + 10] = True
    assert views.choose_crop(mask, Box(corner[1], corner[0], 10, 10)) == Box(0, 0, 150, 100)
