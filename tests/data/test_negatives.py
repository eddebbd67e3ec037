"""Hard negatives: what each edit changes and leaves alone, and how often a sample is one."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import default_rng

from overpaint.data import masks, negatives
from overpaint.data.degrade import Degrade, History
from overpaint.data.negatives import NEGATIVES, REGIONAL
from overpaint.data.universal import KINDS, Negatives, Pair, UniversalConfig, UniversalDataset
from overpaint.training.config import load_config
from overpaint.training.detection.base import DetectorRun

SIZE = 48
RECIPE = Path(__file__).parents[2] / "recipes" / "nixnet-s-1-base.yaml"
each_kind = pytest.mark.parametrize("name", sorted(NEGATIVES))


def region(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 4 * 3, width // 4 : width // 4 * 3] = 1
    return mask


def grey(value: int, side: int = 96) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def fine_detail(pixels: np.ndarray) -> float:
    """Mean square of the differences of neighbours in a row."""
    return float(np.square(np.diff(pixels.astype(float), axis=1)).mean())


# The edits


def test_vivid_sharpens_the_colours_and_leaves_the_luma(photo: np.ndarray) -> None:
    pixels = photo // 4 + 96  # far from clipping
    out = NEGATIVES["vivid"](pixels, np.ones(pixels.shape[:2], np.uint8), default_rng(0))
    luma, luma_before = (x @ negatives.LUMA for x in (out, pixels))
    assert np.abs(luma - luma_before).max() < 1  # rounding
    assert fine_detail(out - luma[..., None]) > 1.5 * fine_detail(pixels - luma_before[..., None])


def test_spot_colour_keeps_the_colours_of_the_region_alone(photo: np.ndarray) -> None:
    mask = region(*photo.shape[:2])
    out = NEGATIVES["spot_colour"](photo, mask, default_rng(0))
    colours, before = (np.ptp(x.astype(int), axis=2) for x in (out, photo))
    assert colours[mask == 0].mean() < 0.2 * before[mask == 0].mean()
    middle = np.s_[mask.shape[0] // 2, mask.shape[1] // 2]
    assert np.array_equal(out[middle], photo[middle])


def test_a_cut_out_stands_before_one_smooth_colour(photo: np.ndarray) -> None:
    mask = region(*photo.shape[:2])
    out = NEGATIVES["cut_out"](photo, mask, default_rng(0))
    assert np.array_equal(out[mask == 1], photo[mask == 1])
    top = out[: len(mask) // 4].astype(int)
    assert np.abs(np.diff(top, axis=0)).max() <= 5
    assert np.abs(np.diff(top, axis=1)).max() <= 5


@each_kind
def test_size_and_type_stay_and_the_inputs_are_left_alone(name: str, photo: np.ndarray) -> None:
    for pixels in (photo, photo[:17, :23], photo[:1, :1], photo[:, ::-1]):
        mask = region(*pixels.shape[:2])
        before, mask_before = pixels.copy(), mask.copy()
        for seed in range(6):
            out = NEGATIVES[name](pixels, mask, default_rng(seed))
            assert (out.dtype, out.shape) == (np.uint8, pixels.shape)
        assert np.array_equal(pixels, before)
        assert np.array_equal(mask, mask_before)


@each_kind
def test_an_edit_is_a_function_of_the_generator(name: str, photo: np.ndarray) -> None:
    mask = region(*photo.shape[:2])
    outs = [NEGATIVES[name](photo, mask, default_rng(seed)) for seed in (3, 3, 4)]
    assert np.array_equal(outs[0], outs[1])
    assert not np.array_equal(outs[0], outs[2])


@each_kind
def test_the_photo_changes_and_a_region_s_surroundings_do_not(name: str, photo: np.ndarray) -> None:
    mask = region(*photo.shape[:2])
    changed = []
    for seed in range(20):
        out = NEGATIVES[name](photo, mask, default_rng(seed))
        changed.append((out != photo).any(axis=2))
        assert changed[-1].any()
    outside = np.mean([c[mask == 0].any() for c in changed])
    assert outside == 0 if name in REGIONAL else outside > 0.8
    if name in REGIONAL:
        assert np.mean([c[mask == 1].mean() for c in changed]) > 0.5


@pytest.mark.parametrize("name", sorted(KINDS))
def test_no_photo_stays_as_it_is_and_counts_as_edited(name: str, photo: np.ndarray) -> None:
    mask = region(*photo.shape[:2])
    edit = Negatives(share=1, kinds={name: 1}, whole=1)
    for seed in range(3):
        words, out = edit(photo, mask, default_rng(seed))
        assert words == f"not inpainted: {name}"
        assert (out != photo).any()


@pytest.mark.parametrize("name", sorted(REGIONAL))
def test_a_mask_of_ones_is_the_whole_photo(name: str, photo: np.ndarray) -> None:
    # A soft edge has nowhere to be: the border of the photo is none.
    mask = np.ones(photo.shape[:2], np.uint8)
    for seed in range(6):
        out = NEGATIVES[name](photo, mask, default_rng(seed))
        border = (out != photo).any(axis=2)
        assert min(border[0].mean(), border[-1].mean(), border[:, 0].mean()) > 0.3


def test_edges_are_soft_and_hard() -> None:
    """The change at the region's first pixel, as a part of that at its centre."""
    pixels, mask = grey(120), region(96, 96)
    parts = []
    for seed in range(30):
        change = np.abs(negatives.brightened(pixels, mask, default_rng(seed)) - 120.0).sum(axis=2)
        parts.append(change[48, 24] / change[48, 48])
    assert 8 < sum(part == 1 for part in parts) < 22
    assert all(part == 1 or part < 0.5 for part in parts)


def test_a_stroke_too_thin_for_a_soft_edge_is_still_edited() -> None:
    mask = np.zeros((96, 96), np.uint8)
    mask[48] = 1
    stripes = grey(0)
    stripes[:, ::2] = 255
    for seed in range(6):
        out = negatives.smoothed(stripes, mask, default_rng(seed))
        assert abs(out[48, 40:50].mean() - 127) < 15
        assert out[48].std() < 60


def test_sharpening_makes_halos_on_both_sides_of_an_edge() -> None:
    step = grey(80)
    step[:, 48:] = 160
    out = negatives.sharpened(step, np.ones((96, 96), np.uint8), default_rng(0))
    assert out[:, 47].max() < 80
    assert out[:, 48].min() > 160
    assert np.array_equal(out[:, :20], step[:, :20])


def test_smoothing_takes_detail_away_with_and_without_grain(photo: np.ndarray) -> None:
    mask = np.ones(photo.shape[:2], np.uint8)
    left = [fine_detail(negatives.smoothed(photo, mask, default_rng(i))) for i in range(20)]
    assert 5 < sum(detail < 1 for detail in left) < 15
    assert fine_detail(photo) > max(np.median(left), 15)


def test_night_noise_is_poisson_gaussian() -> None:
    """In light, mean a s and variance a^2 (s + r^2) of s electrons: both linear in the signal."""
    compared = 0
    for seed in range(8):
        first = default_rng(seed)
        white, read, left = (
            np.exp(first.uniform(np.log(a), np.log(b))) for a, b in ((60, 1500), (1, 6), (0.3, 1))
        )
        for value in (60, 120, 180, 240):
            out = negatives.noisy(grey(value), grey(0)[..., 0], default_rng(seed))
            light = (out / 255) ** 2.2
            if abs(np.corrcoef(light[:, 1:].ravel(), light[:, :-1].ravel())[0, 1]) > 0.05:
                continue  # as demosaicking leaves it
            electrons = (value / 255) ** 2.2 * white
            # Light cannot be negative, nor brighter than white: far from both the model is exact.
            if electrons < 9 + 3 * read or left * electrons / white > 0.6:
                continue
            gain = left / white
            assert light.mean() == pytest.approx(gain * electrons, rel=0.03)
            assert light.std() == pytest.approx(gain * np.sqrt(electrons + read**2), rel=0.05)
            compared += 1
    assert compared > 4


def test_text_has_one_colour_and_more_or_less_opacity() -> None:
    opaque = 0
    for seed in range(30):
        out = negatives.text(grey(120, 256), grey(0, 256)[..., 0], default_rng(seed))
        packed, counts = np.unique(out.astype(int) @ (65536, 256, 1), return_counts=True)
        values = packed[:, None] // (65536, 256, 1) % 256
        assert len(values) > 2  # antialiased
        strongest = values[np.abs(values - 120.0).sum(axis=1).argmax()]
        opaque += set(strongest.tolist()) <= {0, 255}
        assert counts.max() > 0.3 * 256**2
    assert 5 < opaque < 20


def test_frames_are_bars_borders_or_boxes_of_one_colour() -> None:
    corners = Counter()
    for seed in range(60):
        out = negatives.frame(grey(120), grey(0)[..., 0], default_rng(seed))
        covered = (out != 120).any(axis=2)
        assert len(np.unique(out[covered], axis=0)) == 1
        corners[bool(covered[0].all()), bool(covered[:, 0].all())] += 1
    assert all(corners[kind] > 6 for kind in ((True, False), (False, True), (True, True)))
    assert corners[False, False] > 6


# Samples


class Constant:
    """Always the same pair: texture, redrawn as white."""

    def __init__(self, photo: np.ndarray) -> None:
        pixels = photo[:SIZE, :SIZE]
        self.pair = Pair(pixels, np.full_like(pixels, 255), "photo.png", "one")

    def draw(self, rng: np.random.Generator) -> Pair:
        return self.pair


def dataset(photo: np.ndarray, seed: int = 0, **changes: Any) -> UniversalDataset:
    nothing = {"history": History(probability=0), "degrade": Degrade(probability=0)}
    values = {"size": SIZE, "bank": {"one": 1.0}, "untouched": 0.5} | nothing | changes
    return UniversalDataset(UniversalConfig(**values), Constant(photo), masks.boxes, seed)


def test_the_share_of_negatives_and_their_kinds(photo: np.ndarray) -> None:
    kinds = {"text": 3.0, "frame": 1.0}
    samples = dataset(photo, negatives={"share": 0.4, "kinds": kinds})
    found = Counter(samples.sample(i).redrawn_by for i in range(800))
    assert set(found) == {"", "one", "not inpainted: text", "not inpainted: frame"}
    assert 350 < found["one"] < 450
    assert 200 < found[""] < 280  # 0.6 of 400
    share = found["not inpainted: text"] / (800 - found["one"] - found[""])
    assert 0.65 < share < 0.85


def test_a_negative_is_edited_and_has_an_empty_mask(photo: np.ndarray) -> None:
    samples = dataset(photo, untouched=1, negatives={"share": 1, "whole": 0})
    kinds = set()
    for i in range(60):
        sample = samples.sample(i)
        assert not sample.mask.any()
        assert sample.mask.shape == (SIZE, SIZE)
        kinds.add(sample.redrawn_by)
    assert kinds == {f"not inpainted: {name}" for name in NEGATIVES}


def test_all_else_of_a_sample_is_that_without_negatives(photo: np.ndarray) -> None:
    plain = dataset(photo, degrade=Degrade(probability=1, resize=0))
    mixed = dataset(photo, degrade=Degrade(probability=1, resize=0), negatives={"share": 0.5})
    changed = 0
    for i in range(40):
        one, other = plain.sample(i), mixed.sample(i)
        assert np.array_equal(one.mask, other.mask)
        assert one.degradations == other.degradations
        if other.redrawn_by.startswith("not inpainted"):
            changed += not np.array_equal(one.pixels, other.pixels)
        else:
            assert np.array_equal(one.pixels, other.pixels)
            assert one.redrawn_by == other.redrawn_by
    assert changed > 4


def test_same_seed_same_negatives(photo: np.ndarray) -> None:
    first, again, other = (
        dataset(photo, seed, untouched=1, negatives={"share": 1}) for seed in (5, 5, 6)
    )
    for i in (3, 1, 2):
        assert np.array_equal(first.sample(i).pixels, again.sample(i).pixels)
    assert any(first.sample(i).redrawn_by != other.sample(i).redrawn_by for i in range(10))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_how_often_a_regional_kind_edits_the_whole_photo(share: float, photo: np.ndarray) -> None:
    only = {"share": 1, "kinds": {"smoothed": 1}, "whole": share}
    samples = dataset(photo, untouched=1, negatives=only)
    plain = dataset(photo, untouched=1)
    changed = [
        (samples.sample(i).pixels != plain.sample(i).pixels).any(axis=2).mean() for i in range(10)
    ]
    assert min(changed) > 0.7 if share else max(changed) < 0.7


# Settings


def test_without_kinds_a_recipe_has_all_of_the_base() -> None:
    on = load_config(DetectorRun, RECIPE, ["data.negatives.share=0.5"])
    assert on.data.negatives.kinds == dict.fromkeys(NEGATIVES, 1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"share": 0.5, "kinds": {"texts": 1}}, "no texts; there are median, .*brightened, .*text"),
        ({"share": 0.5, "kinds": {"text": 0}}, "give at least one a weight above 0"),
        ({"share": 1.5}, "less than or equal to 1"),
        ({"part": 0.5}, "part"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UniversalConfig(bank={"one": 1.0}, negatives=values)  # type: ignore[arg-type]
