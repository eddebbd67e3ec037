"""Degradations: what each does to the pixels, seeds and replay, margins, photo on mask."""

import json
import pickle
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from overpaint.data import degrade
from overpaint.data.degrade import Degrade, History, Step, halve_colours, replay
from overpaint.errors import InputError

ALL = Degrade(
    probability=1, resize=1, crop=1, blur=0.5, noise=0.5, jpeg=0.6, webp=0.4, scale=(0.4, 2)
)


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def photo(height: int = 96, width: int = 120, seed: int = 0) -> np.ndarray:
    """A smooth picture with a little grain, uint8 (h, w, 3)."""
    y, x = np.mgrid[:height, :width]
    waves = [120 + 60 * np.sin(y / (5 + c) + c) * np.cos(x / (7 - c)) for c in range(3)]
    grain = rng(seed).normal(0, 4, (height, width, 3))
    return (np.stack(waves, axis=-1) + grain).clip(0, 255).astype(np.uint8)


def shapes(height: int, width: int) -> np.ndarray:
    """A mask with a disc and a box in opposite corners, which no shift maps onto itself."""
    y, x = np.mgrid[:height, :width]
    disc = (y - 0.3 * height) ** 2 + (x - 0.35 * width) ** 2 < (0.2 * height) ** 2
    box = (y > 0.6 * height) & (y < 0.9 * height) & (x > 0.55 * width) & (x < 0.9 * width)
    return (disc | box).astype(np.uint8)


def block_edges(pixels: np.ndarray, axis: int) -> int:
    """Position modulo 8 at which neighbouring pixels differ most: where JPEG blocks begin."""
    grey = pixels.astype(float).mean(axis=2)
    jumps = np.abs(np.diff(grey, n=2, axis=axis)).mean(axis=1 - axis)
    # jumps[i] bends about i + 1; a block that begins at k bends about k - 1 and k.
    score = np.zeros(8)
    for i, jump in enumerate(jumps):
        for begin in (i + 1, i + 2):
            score[begin % 8] += jump
    return int(score.argmax())


def grown(mask: np.ndarray) -> np.ndarray:
    """Largest value among each pixel's 3 x 3 neighbours."""
    height, width = mask.shape
    padded = np.pad(mask, 1, mode="edge")
    return np.max([padded[i : i + height, j : j + width] for i in range(3) for j in range(3)], 0)


def assert_within_one_pixel(pixels: np.ndarray, mask: np.ndarray) -> None:
    """The picture is white on the mask and black elsewhere, give or take a pixel at the rim."""
    white = (pixels.mean(axis=2) >= 128).astype(np.uint8)
    assert (white <= grown(mask)).all()
    assert (grown(1 - mask) >= 1 - white).all()


# One at a time


def test_jpeg_loses_more_at_lower_quality() -> None:
    picture = photo()
    lost = [
        np.abs(degrade.jpeg(picture, quality).astype(int) - picture).mean()
        for quality in (100, 90, 75, 40)
    ]
    assert 0 < lost[0] < lost[1] < lost[2] < lost[3] < 20


def test_jpeg_of_full_chroma_keeps_more_colour() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, ::2, 0] = 255  # one-pixel red stripes, half of what 4:2:0 can hold
    lost = [
        np.abs(degrade.jpeg(picture, 95, subsampling).astype(int) - picture).mean()
        for subsampling in (0, 2)
    ]
    assert lost[1] > 3 * lost[0]


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("phase", [(0, 0), (3, 5), (7, 1), (12, 15)])
def test_jpeg_blocks_begin_where_the_phase_says(
    phase: tuple[int, int], subsampling: degrade.Subsampling
) -> None:
    picture = photo(160, 176)
    coded = degrade.jpeg(picture, 30, subsampling, phase)
    assert coded.shape == picture.shape
    # Row + dy is a multiple of 8, hence row = -dy modulo 8.
    assert block_edges(coded, axis=0) == -phase[0] % 8
    assert block_edges(coded, axis=1) == -phase[1] % 8


def test_the_phase_is_that_of_a_cropped_file() -> None:
    picture = photo(96, 96)
    whole = degrade.jpeg(np.pad(picture, ((5, 0), (9, 0), (0, 0)), mode="edge"), 70)
    np.testing.assert_array_equal(degrade.jpeg(picture, 70, phase=(5, 9)), whole[5:, 9:])


def test_blur_smooths_and_keeps_the_mean() -> None:
    picture = photo()
    rough = [
        np.abs(np.diff(degrade.blur(picture, sigma).astype(int), axis=1)).mean()
        for sigma in (0, 0.5, 1, 2)
    ]
    assert rough[0] > rough[1] > rough[2] > rough[3]
    assert degrade.blur(picture, 1).mean() == pytest.approx(picture.mean(), abs=1)


def test_noise_has_the_sigma_asked_for_and_its_seed() -> None:
    grey = np.full((200, 200, 3), 128, np.uint8)
    noisy = degrade.noise(grey, 5, rng(1))
    difference = noisy.astype(float) - grey
    assert difference.std() == pytest.approx(5, rel=0.02)
    assert difference.mean() == pytest.approx(0, abs=0.05)
    np.testing.assert_array_equal(noisy, degrade.noise(grey, 5, rng(1)))
    assert (noisy != degrade.noise(grey, 5, rng(2))).any()
    white = np.full((50, 50, 3), 255, np.uint8)
    assert degrade.noise(white, 20, rng(0)).min() > 100  # cut at 255, not wrapped to 0


@pytest.mark.parametrize("kernel", degrade.KERNELS)
@pytest.mark.parametrize("scale", [0.37, 0.75, 1.0, 1.5, 2.3])
def test_resize_keeps_photo_and_mask_aligned(kernel: degrade.Kernel, scale: float) -> None:
    mask = shapes(90, 131)
    picture = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
    pixels, resized = degrade.resize(picture, mask, scale, kernel)
    assert pixels.shape[:2] == resized.shape == (int(90 * scale + 0.5), int(131 * scale + 0.5))
    assert set(np.unique(resized)) == {0, 1}
    assert_within_one_pixel(pixels, resized)


def test_crop_takes_the_same_window_of_both() -> None:
    picture, mask = photo(40, 50), shapes(40, 50)
    pixels, cropped = degrade.crop(picture, mask, top=3, left=7, height=20, width=30)
    np.testing.assert_array_equal(pixels, picture[3:23, 7:37])
    np.testing.assert_array_equal(cropped, mask[3:23, 7:37])
    for window in ((25, 0, 20, 30), (0, 30, 20, 30), (-1, 0, 5, 5), (0, 0, 0, 5)):
        with pytest.raises(InputError, match="40 x 50; give a smaller one"):
            degrade.crop(picture, mask, *window)


def test_a_single_pixel_survives_every_step() -> None:
    pixels, mask = np.full((1, 1, 3), 90, np.uint8), np.ones((1, 1), np.uint8)
    for name, params in (
        ("jpeg", {"quality": 75}),
        ("webp", {"quality": 80}),
        ("resize", {"scale": 0.75}),
        ("resize", {"scale": 1.5}),
    ):
        out, out_mask = replay(pixels, mask, [Step(name, params)])
        assert out.shape[:2] == out_mask.shape, name
        assert np.abs(out.astype(int) - 90).max() < 8, name


@pytest.mark.parametrize("bad", [np.zeros((9, 9)), np.zeros((9, 9, 4)), np.zeros((0, 9, 3))])
def test_another_kind_of_array_is_an_error(bad: np.ndarray) -> None:
    with pytest.raises(InputError, match="convert it to RGB"):
        degrade.jpeg(bad.astype(np.uint8), 90)
    with pytest.raises(InputError, match="convert it to RGB"):
        degrade.blur(np.zeros((9, 9, 3)), 1)  # type: ignore[arg-type]


# Steps and replay


def test_a_plan_survives_json_and_gives_the_same_pixels() -> None:
    seen = set()
    for seed in range(40):
        picture, mask = photo(100, 110, seed), shapes(100, 110)
        pixels, new_mask, steps = ALL(picture, mask, rng(seed))
        text = json.dumps([[step.name, step.params] for step in steps])
        again = [Step(name, params) for name, params in json.loads(text)]
        assert again == steps
        replayed, replayed_mask = replay(picture, mask, again)
        np.testing.assert_array_equal(replayed, pixels)
        np.testing.assert_array_equal(replayed_mask, new_mask)
        seen |= {step.name for step in steps}
    assert seen == {"resize", "crop", "blur", "noise", "jpeg", "webp"}


def test_replay_leaves_its_input_alone_and_takes_no_mask() -> None:
    picture, mask = photo(), shapes(96, 120)
    before, before_mask = picture.copy(), mask.copy()
    steps = [Step("resize", {"scale": 0.5}), Step("noise", {"sigma": 2.0, "seed": 4})]
    pixels, _ = replay(picture, mask, steps)
    np.testing.assert_array_equal(picture, before)
    np.testing.assert_array_equal(mask, before_mask)
    alone, nothing = replay(picture, None, steps)
    assert nothing is None
    np.testing.assert_array_equal(alone, pixels)


def test_replay_refuses_unknown_steps_and_foreign_masks() -> None:
    with pytest.raises(InputError, match=r"'jpg'; there are .*jpeg"):
        replay(photo(), None, [Step("jpg")])
    with pytest.raises(InputError, match="sizes differ"):
        replay(photo(96, 120), shapes(120, 96), [])


# Degrade


def test_the_seed_alone_decides_a_degradation() -> None:
    picture, mask = photo(), shapes(96, 120)
    one, one_mask, steps = ALL(picture, mask, rng(3, 1))
    two, two_mask, again = pickle.loads(pickle.dumps(ALL))(picture, mask, rng(3, 1))
    assert steps == again
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one_mask, two_mask)
    assert ALL(picture, mask, rng(3, 2))[2] != steps


@pytest.mark.parametrize("seed", range(12))
def test_degraded_photo_lies_on_its_mask(seed: int) -> None:
    mask = shapes(160, 190)
    picture = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
    chain = ALL.model_copy(update={"blur": 0.0})
    pixels, new_mask, _ = chain(picture, mask, rng(seed), size=48 if seed % 2 else None)
    assert pixels.shape[:2] == new_mask.shape
    assert_within_one_pixel(pixels, new_mask)


@pytest.mark.parametrize("scale", [(0.5, 1.5), (1 / 3, 0.7), (0.9, 0.9), (1.2, 2.0)])
@pytest.mark.parametrize("crop", [0.0, 1.0])
def test_margin_is_enough_and_no_more(scale: tuple[float, float], crop: float) -> None:
    chain = Degrade(probability=1, resize=1, scale=scale, crop=crop, keep=(0.7, 0.7), jpeg=0)
    for size in (64, 99):
        side = chain.find_margin(size)
        smallest = min(1, scale[0]) * (0.7 if crop else 1)
        assert size / smallest - 1e-6 <= side <= size / smallest + 1 / min(1, scale[0]) + 1
        lowest = chain.model_copy(update={"scale": (scale[0], scale[0])})  # the worst draw
        for chosen in (chain, lowest):
            pixels, mask, _ = chosen(photo(side, side), shapes(side, side), rng(size))
            assert min(pixels.shape[:2]) >= size
            pixels, mask, _ = chosen(photo(side, side), shapes(side, side), rng(size), size)
            assert pixels.shape == (size, size, 3)
            assert mask.shape == (size, size)


def test_margin_counts_only_what_can_happen() -> None:
    assert Degrade(resize=0.0, crop=0.0).find_margin(128) == 128
    assert Degrade(probability=0.0, crop=0.5).find_margin(128) == 128
    assert Degrade(resize=0.1, scale=(0.5, 1.5)).find_margin(128) == 256
    assert History(scale=(0.25, 1.0)).find_margin(128) == 512


def test_a_photo_below_the_margin_is_an_error_that_names_it() -> None:
    chain = Degrade(probability=1, resize=1, scale=(0.5, 0.5))
    with pytest.raises(InputError, match=r"margin\(size\)"):
        chain(photo(100, 100), shapes(100, 100), rng(0), size=64)


def test_probabilities_are_kept() -> None:
    chain = Degrade(probability=0.8, resize=0.5, blur=0.25, noise=0.0, jpeg=0.5, webp=0.5)
    names = [[step.name for step in chain.plan(64, 64, rng(i))] for i in range(2000)]
    share = {
        name: float(np.mean([name in row for row in names]))
        for name in ("resize", "crop", "blur", "noise", "jpeg", "webp")
    }
    expected = {"resize": 0.4, "crop": 0, "blur": 0.2, "noise": 0, "jpeg": 0.4, "webp": 0.4}
    assert share == pytest.approx(expected, abs=0.04)
    assert all(not ("jpeg" in row and "webp" in row) for row in names)
    assert np.mean([not row for row in names]) == pytest.approx(0.2, abs=0.04)


def test_parameters_stay_in_their_ranges_and_reach_the_ends() -> None:
    chain = Degrade(probability=1, resize=1, scale=(0.6, 0.9), jpeg=1, webp=0, quality=(70, 75))
    plans = [chain.plan(64, 64, rng(i)) for i in range(400)]
    files = [step.params for plan in plans for step in plan if step.name == "jpeg"]
    assert {file["quality"] for file in files} == set(range(70, 76))
    assert {file["subsampling"] for file in files} == {0, 2}
    assert {dy for file in files for dy in file["phase"]} == set(range(16))
    scales = [step.params["scale"] for plan in plans for step in plan if step.name == "resize"]
    assert 0.6 <= min(scales) < 0.61
    assert 0.89 < max(scales) <= 0.9


# History


def test_history_is_a_resize_then_one_or_two_files_or_nothing() -> None:
    chain = History(probability=0.9, resize=0.5, jpeg=0.8, twice=0.25)
    rows = [tuple(step.name for step in chain.plan(64, 64, rng(i))) for i in range(2000)]
    past = [(), ("resize",), ("jpeg",), ("resize", "jpeg"), ("jpeg",) * 2]
    assert set(rows) == {*past, ("resize", "jpeg", "jpeg")}
    assert np.mean([row.count("jpeg") == 2 for row in rows]) == pytest.approx(0.18, abs=0.03)
    assert np.mean([not row for row in rows]) == pytest.approx(0.1 + 0.09, abs=0.03)


def test_history_replays_and_cuts_to_size() -> None:
    chain = History(probability=1, resize=1, twice=1)
    side = chain.find_margin(64)
    for seed in range(10):
        picture = photo(side, side + 9, seed)
        pixels, steps = chain(picture, rng(seed), 64)
        assert pixels.shape == (64, 64, 3)
        np.testing.assert_array_equal(pixels, replay(picture, None, steps)[0])
        np.testing.assert_array_equal(pixels, chain(picture, rng(seed), 64)[0])


def test_no_history_is_the_photo_itself() -> None:
    pixels, steps = History(probability=0)(photo(), rng(0))
    assert steps == []
    np.testing.assert_array_equal(pixels, photo())


# Configuration


def test_a_recipe_sets_the_fields() -> None:
    text = "{probability: 0.5, quality: [70, 90], scale: [0.8, 1.2], kernels: [lanczos]}"
    chain = Degrade.model_validate(yaml.safe_load(text))
    assert chain.quality == (70, 90)
    assert chain.kernels == ("lanczos",)
    assert Degrade.model_validate(json.loads(chain.model_dump_json())) == chain
    with pytest.raises(ValidationError, match="frozen"):
        chain.probability = 1.0


@pytest.mark.parametrize(
    "fields",
    [
        {"qualty": [60, 100]},
        {"quality": [100, 60]},
        {"quality": [0, 60]},
        {"scale": [0, 1]},
        {"probability": 1.1},
        {"jpeg": 0.7, "webp": 0.4},
        {"keep": [0.5, 1.2]},
        {"kernels": ["nearest"]},
        {"kernels": []},
        {"subsampling": [3]},
    ],
)
def test_a_recipe_that_means_nothing_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Degrade.model_validate(fields)


def test_halved_colours_keep_the_luma_and_lose_fine_colour() -> None:
    noisy = np.clip(rng(0).normal(128, 20, (33, 47, 3)), 0, 255).astype(np.uint8)
    for phase in ((0, 0), (1, 0), (0, 1), (1, 1)):
        halved = halve_colours(noisy, phase)
        assert halved.shape == noisy.shape
        luma = [(p @ np.array([0.299, 0.587, 0.114])) for p in (noisy, halved)]
        assert np.abs(luma[0] - luma[1]).mean() < 1
        colour = [(p[..., 0].astype(float) - p[..., 1]).std() for p in (noisy, halved)]
        assert colour[1] < 0.6 * colour[0]
    blocks = np.repeat(np.repeat(noisy[:8, :8], 2, axis=0), 2, axis=1)
    flat = np.full_like(blocks, 77)
    np.testing.assert_array_equal(halve_colours(flat), flat)
    with_grid, beside = (
        np.abs(halve_colours(blocks, phase).astype(int) - blocks).mean()
        for phase in ((0, 0), (1, 1))
    )
    assert with_grid < beside  # a phase says where its squares begin


def test_saved_before_all_else() -> None:
    config = {"probability": 1, "resize": 1, "jpeg": 1, "webp": 0, "blur": 0, "noise": 0}
    saved = Degrade.model_validate(config | {"saved": 1})
    steps = saved.plan(96, 128, rng(0))
    assert [s.name for s in steps] == ["jpeg", "resize", "jpeg"]
    plain = Degrade.model_validate(config)
    assert [s.name for s in plain.plan(96, 128, rng(0))] == ["resize", "jpeg"]
