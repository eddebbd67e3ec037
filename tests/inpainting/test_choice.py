"""`--model auto`: which inpainter it takes, when, and that the measured table says so."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import textured
from helpers.random_weights import save_random
from overpaint import weights
from overpaint.data.crops import crop_middle
from overpaint.errors import WeightsError
from overpaint.evaluation.fillers import BINS, SET, SIDES, draw_cases, name_method
from overpaint.evaluation.rows import read_rows
from overpaint.inpainting.api import inpaint
from overpaint.inpainting.choice import AUTO, BEST, BIG_LAMA, LIMITS, choose

TABLE = Path(__file__).parents[2] / "results" / f"{SET}.csv"
SHARES = (0.01, 0.05, 0.15, 0.30)
"""One within each bin."""


@pytest.fixture
def big_lama(imported_weights: Path) -> Iterator[str]:
    """Weights as an import leaves them, but small and random."""
    torch.manual_seed(0)
    config = {"width": 4, "num_blocks": 1}
    published = weights.Published(repository="none", files={})
    record = save_random(
        imported_weights, "inpainter", "big-lama", config, BIG_LAMA, published=published
    )
    yield record.sha256
    for path in imported_weights.glob(f"{BIG_LAMA}.*"):
        path.unlink()


@pytest.mark.parametrize(("share", "names"), list(zip(SHARES, BEST, strict=True)))
def test_the_best_for_the_holes_size_is_taken_and_named(
    share: float, names: tuple[str, ...]
) -> None:
    choice = choose(AUTO, None, share)
    assert choice.runner.name == names[0]
    assert choice.notes == (f"auto took {names[0]} for a hole of {100 * share:.1f} % of the photo",)


@pytest.mark.parametrize("index", range(len(BEST)))
def test_the_measured_table_has_the_same_order(index: int) -> None:
    rows = [r for r in read_rows(TABLE) if r.metric == "vgg-distilled"]
    name = list(BINS)[index]
    for side in SIDES:
        found = [r for r in rows if r.method == name_method(name, side)]
        distances = {r.weights: r.value for r in found}
        assert {*BEST[index], "telea"} <= distances.keys()
        assert {r.n for r in found} == {SIDES[side][2]}
        assert distances[BEST[index][0]] == min(distances.values())
    low, high = ([0, *LIMITS][index], [*LIMITS, 1][index])
    assert low <= BINS[name][0] < BINS[name][1] <= high


def test_the_last_resort_is_shipped_and_needs_no_package() -> None:
    assert all(weights.is_shipped(names[-1]) for names in BEST)


def test_big_lama_comes_first_once_it_is_imported(big_lama: str) -> None:
    for share in SHARES:
        choice = choose(AUTO, None, share)
        assert (choice.runner.name, choice.runner.weights_sha256) == (BIG_LAMA, big_lama)
        assert choice.notes == ("auto took big-lama, whose weights are imported",)


def test_what_cannot_be_built_is_passed_over_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from overpaint.inpainting import inpainter_runner as fill

    fill._load_runner.cache_clear()
    monkeypatch.setitem(sys.modules, "scipy", None)
    choice = choose(AUTO, None, 0.05)
    assert choice.runner.name == "safepaint-s"
    passed, taken = choice.notes
    assert passed.startswith("auto passed over patchmatch: scipy cannot be imported")
    assert taken.startswith("auto took safepaint-s")


def test_any_other_name_is_taken_as_it_is() -> None:
    choice = choose("mean", 128, 0.5)
    assert (choice.runner.name, choice.runner.working_size, choice.notes) == ("mean", 128, ())
    with pytest.raises(WeightsError, match="nothing: there are no such weights"):
        choose("nothing", None, 0.5)


def test_it_is_the_default_and_its_choice_is_in_the_notes(photo: np.ndarray) -> None:
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[40:60, 50:80] = 1
    done = inpaint(photo, mask, dilate=0)
    assert done.model == BEST[1][0]
    assert done.notes[0] == f"auto took {BEST[1][0]} for a hole of 4.9 % of the photo"
    again = inpaint(photo, mask, model=done.model, dilate=0)
    assert np.array_equal(again.pixels, done.pixels)


class Photos:
    names = ("a", "b")

    def __len__(self) -> int:
        return 2

    def read(self, index: int) -> np.ndarray:
        return textured(120, 600, seed=index)


def test_every_photo_has_a_hole_of_each_size(shared_data: Path) -> None:
    cases = list(draw_cases(Photos(), shared_data, 2, 0, 512))  # type: ignore[arg-type]
    assert len(cases) == 2
    for pixels, holes in cases:
        assert pixels.shape == (120, 512, 3)
        assert holes.keys() == BINS.keys()
        for name, (low, high) in BINS.items():
            assert low <= holes[name].mean() < high
            assert set(np.unique(holes[name])) == {0, 1}


def test_photos_below_a_length_are_passed_over(shared_data: Path) -> None:
    assert list(draw_cases(Photos(), shared_data, 2, 0, 1024)) == []  # type: ignore[arg-type]


def test_the_middle_of_a_photo_keeps_a_smaller_one_whole() -> None:
    pixels = textured(20, 31, seed=0)
    assert np.array_equal(crop_middle(pixels, 40), pixels)
    assert np.array_equal(crop_middle(pixels, 10), pixels[5:15, 10:20])
