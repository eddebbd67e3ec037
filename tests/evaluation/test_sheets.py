"""Contact sheets: where the pictures stand, and which of them."""

import math

import numpy as np

from overpaint.detection.calibration import judge
from overpaint.evaluation.sheets import GAP, LABEL, SIDE, Album, draw_heat, draw_row, draw_sheet


def test_pictures_lie_below_their_titles() -> None:
    rows = [[np.full((30, 40, 3), 10 * i + j, np.uint8) for j in range(2)] for i in range(3)]
    page = draw_sheet(rows, ["a", "b"], ["x", "y", "z"])
    assert page.shape == (LABEL + 3 * (30 + LABEL + GAP), 2 * 40 + GAP, 3)
    top = LABEL + 2 * (30 + LABEL + GAP) + LABEL
    assert (page[top : top + 30, 40 + GAP : 80 + GAP] == 21).all()
    assert (page[top + 30 :] == 255).all()


def test_a_smaller_picture_stands_in_the_corner_of_its_place() -> None:
    page = draw_sheet(
        [[np.zeros((30, 40, 3), np.uint8)], [np.full((8, 50, 3), 7, np.uint8)]], "a", "xy"
    )
    top = LABEL + (30 + LABEL + GAP) + LABEL
    assert (page[top : top + 8, :50] == 7).all()
    assert (page[top + 8 : top + 30] == 255).all()


def test_heat_is_the_sigmoid() -> None:
    found = draw_heat(np.array([0.0, math.log(3), -1000.0]))
    np.testing.assert_allclose(found, [0.5, 0.75, 0.0], atol=1e-12)


def test_a_row_shows_picture_truth_heat_and_what_was_found() -> None:
    pixels = np.full((20, 30, 3), 90, np.uint8)
    mask = np.zeros((20, 30), np.uint8)
    mask[:10] = 1
    logits = np.full((20, 30), -2.0, np.float32)
    logits[:, :15] = math.log(3)
    picture, true, heatmap, found = draw_row(pixels, mask, judge(logits, 1.0))
    assert (picture == 90).all()
    assert (true == 255 * mask[..., None]).all()
    assert (heatmap[:, :15] == round(0.75 * 255)).all()
    assert (found[5, 14] == 255).all()  # the outline lies inside of what was found
    assert (found[5, 15] == 0).all()
    *_, nothing = draw_row(pixels, mask, judge(logits, 5.0))
    assert (nothing[5, 14] == nothing[5, 13]).all()


def test_a_large_picture_is_shown_smaller_and_an_untouched_one_without_truth() -> None:
    pixels = np.zeros((600, 2 * SIDE, 3), np.uint8)
    row = draw_row(pixels, None, judge(np.zeros(pixels.shape[:2], np.float32)))
    assert {view.shape for view in row} == {(300, SIDE, 3)}
    assert not row[1].any()


def page_of(album: Album) -> list[int]:
    """The pictures on the only page, by their brightness, from top to bottom."""
    (page,) = album.draw_pages().values()
    return page[LABEL + LABEL :: 4 + LABEL + GAP, 0, 0].tolist()


def picture(value: int) -> list[np.ndarray]:
    return [np.full((4, 900, 3), value, np.uint8)] * 4


def test_an_album_keeps_the_highest_and_the_lowest() -> None:
    album = Album(num=3)
    for value in np.random.default_rng(0).permutation(50):
        album.add("set", float(value), "", picture(int(value)))
    album.add("set", math.nan, "", picture(99))
    assert page_of(album) == [49, 48, 47, 2, 1, 0]


def test_an_album_of_few_shows_each_once() -> None:
    album = Album(num=3)
    for value in (2, 4, 1, 3):
        album.add("set", value, "", picture(value))
    assert page_of(album) == [4, 3, 2, 1]
    assert Album().draw_pages() == {}
