"""Masks: polarity, seeds, the papers' rules, hole-ratio steps, shapes from files."""

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from overpaint.data import masks
from overpaint.errors import ImageError, InputError, UnknownNameError


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def save(path: Path, mask: np.ndarray) -> None:
    Image.fromarray((mask * 255).astype(np.uint8)).save(path)


@pytest.fixture
def arrow(tmp_path: Path) -> Path:
    """A folder with one white shape, 40 high and 20 wide, that no flip maps onto itself."""
    mask = np.zeros((100, 120), np.uint8)
    mask[30:70, 50:60] = 1
    mask[30:40, 50:70] = 1
    save(tmp_path / "arrow.png", mask)
    return tmp_path


def thickness(mask: np.ndarray) -> float:
    """Mean width of the hole in pixels: its area over half of its outline."""
    hole = np.pad(mask, 1).astype(np.int8)
    outline = np.abs(np.diff(hole, axis=0)).sum() + np.abs(np.diff(hole, axis=1)).sum()
    return 2 * mask.sum() / outline


# Every generator


@pytest.mark.parametrize("name", masks.MASKS)
@pytest.mark.parametrize("size", [(128, 128), (97, 211), (1, 1), (3, 40)])
def test_a_mask_is_binary_of_the_size_asked_and_has_a_hole(
    name: str, size: tuple[int, int]
) -> None:
    for seed in range(10):
        mask = masks.get(name)(*size, rng(seed))
        assert mask.shape == size
        assert mask.dtype == np.uint8
        assert mask.flags.c_contiguous
        assert set(np.unique(mask)) <= {0, 1}
        assert mask.any()


@pytest.mark.parametrize("name", masks.MASKS)
def test_the_seed_alone_decides_the_mask(name: str) -> None:
    fn = pickle.loads(pickle.dumps(masks.get(name)))
    first = masks.get(name)(64, 80, rng(1, 5))
    np.testing.assert_array_equal(first, fn(64, 80, rng(1, 5)))
    assert any((first != fn(64, 80, rng(1, seed))).any() for seed in range(3))


def test_the_number_of_workers_changes_nothing(arrow: Path) -> None:
    extra = {"objects": masks.ObjectMasks(arrow)}
    fn = masks.make_mixture({"brush": 2, "lama-thick": 1, "boxes": 1, "objects": 1}, extra)

    def sample(i: int) -> np.ndarray:
        return fn(48, 48, rng(7, i))

    alone = [sample(i) for i in range(40)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(sample, range(40)))
    np.testing.assert_array_equal(alone, together)
    # In reverse order too: no mask depends on those before it.
    np.testing.assert_array_equal(alone, [sample(i) for i in reversed(range(40))][::-1])


# "free-form" draws strokes until its share is covered, however wide they are.
@pytest.mark.parametrize("name", sorted(masks.MASKS.keys() - {"free-form"}))
def test_lengths_scale_with_the_shorter_side(name: str) -> None:
    def median(height: int, width: int) -> float:
        drawn = [masks.hole_ratio(masks.get(name)(height, width, rng(i))) for i in range(80)]
        return float(np.median(drawn))

    small, large = median(64, 64), median(512, 512)
    assert small == pytest.approx(large, rel=0.3)
    # The strokes of a panorama are as wide as those of a square: they cover less of it.
    assert median(128, 1024) < 0.8 * small


# DeepFill v2


class Middle:
    """A stand-in generator that returns the middle of every uniform range."""

    def uniform(self, low: float, high: float, size: int | None = None) -> float | np.ndarray:
        middle = (low + high) / 2
        return middle if size is None else np.full(size, middle)


def test_brush_angles_by_hand() -> None:
    # Reach 2 pi / 15 = 24 degrees, so the range is 72 - 12 .. 72 + 12, its middle 72 degrees;
    # the first and every second one after it are mirrored to 360 - 72 = 288.
    angles = np.degrees(masks.draw_stroke_angles(4, Middle()))  # type: ignore[arg-type]
    np.testing.assert_allclose(angles, [288, 72, 288, 72])


def test_brush_angles_stay_in_their_range_and_zigzag() -> None:
    for seed in range(50):
        angles = np.degrees(masks.draw_stroke_angles(11, rng(seed)))
        assert (np.abs((360 - angles[::2]) - 72) <= 24).all()
        assert (np.abs(angles[1::2] - 72) <= 24).all()


def test_brush_vertices_follow_the_rule() -> None:
    counts = set()
    mean = np.hypot(200, 300) / 8
    for seed in range(200):
        points = np.array(masks.draw_brush_vertices(200, 300, rng(seed)))
        counts.add(len(points))
        assert (points >= 0).all()
        assert (points <= [300, 200]).all()
        assert (np.hypot(*np.diff(points, axis=0).T) <= 2 * mean + 1e-9).all()
        # Angles lie within 96 degrees of the axis: x falls by cos(96) = -0.10 of a length at most.
        assert np.diff(points[:, 0]).min() > -0.11 * 2 * mean
    assert counts == set(range(5, 13))


def test_brush_has_no_preferred_side() -> None:
    mean = np.mean([masks.brush(64, 64, rng(i)) for i in range(600)], axis=0)
    assert mean[:, :32].mean() == pytest.approx(mean[:, 32:].mean(), rel=0.1)
    assert mean[:32].mean() == pytest.approx(mean[32:].mean(), rel=0.1)


# LaMa


def test_lama_kinds_differ_in_thickness() -> None:
    median = {
        kind: np.median([thickness(masks.lama(256, 256, rng(i), kind)) for i in range(80)])
        for kind in masks.LAMA_RULES
    }
    assert median["thick"] > 1.5 * median["medium"] > 1.5 * 1.5 * median["thin"]
    assert 5 < median["thin"] < 15  # its strokes are drawn 5 to 14 px wide


@pytest.mark.parametrize(("kind", "published"), [("thin", 0.308), ("thick", 0.241)])
def test_lama_covers_as_much_as_the_published_masks(kind: masks.LamaKind, published: float) -> None:
    # Medians of the 100 thin and 100 thick masks of 256 px that RePaint publishes for LaMa's
    # settings: many thin strokes cover more than a few thick ones.
    ratios = [masks.hole_ratio(masks.lama(256, 256, rng(i), kind)) for i in range(200)]
    assert np.median(ratios) == pytest.approx(published, abs=0.06)
    assert max(ratios) <= masks.LAMA_MAX_RATIO


def test_boxes_keep_their_margin_and_sides() -> None:
    rule = masks.BoxRule(count=(1, 1), side=(40, 80), margin=16)
    for seed in range(100):
        rows, columns = np.nonzero(masks.boxes(128, 256, rng(seed), rule))  # scale 1/2
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert rows.size == height * width, "one box is a full rectangle"
        assert 20 <= height <= 40
        assert 20 <= width <= 40
        assert 8 <= rows.min() <= rows.max() < 120
        assert 8 <= columns.min() <= columns.max() < 248


# Shapes from files


def test_white_is_the_hole_and_invert_turns_it(tmp_path: Path) -> None:
    ring = np.zeros((50, 50), np.uint8)
    ring[10:40, 10:40] = 1
    ring[20:30, 20:30] = 0  # the share of a shape's box: 1 - 100 / 900
    for name, mask in (("white", ring), ("keep", 1 - ring)):
        (tmp_path / name).mkdir()
        save(tmp_path / name / "ring.png", mask)
    white = masks.ObjectMasks(tmp_path / "white")(90, 90, rng(3))
    keep = masks.ObjectMasks(tmp_path / "keep", invert=True)(90, 90, rng(3))
    np.testing.assert_array_equal(white, keep)
    rows, columns = np.nonzero(white)
    box = white[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert box.mean() == pytest.approx(8 / 9, abs=0.03)
    assert box[len(box) // 2, len(box) // 2] == 0


def test_grey_is_cut_at_128(tmp_path: Path) -> None:
    grey = np.full((20, 20), 127, np.uint8)
    grey[5:10, 5:15] = 128
    Image.fromarray(grey).save(tmp_path / "grey.png")
    mask = masks.ObjectMasks(tmp_path, scale=(0.5, 0.5))(40, 40, rng(0))
    assert np.ptp(np.nonzero(mask)[0]) + 1 == 10  # 10 x 20, the shape's 1 : 2
    assert np.ptp(np.nonzero(mask)[1]) + 1 == 20


@pytest.mark.parametrize("size", [(128, 128), (60, 300), (17, 9)])
def test_a_shape_keeps_its_proportions_inside_any_image(arrow: Path, size: tuple[int, int]) -> None:
    fn = masks.ObjectMasks(arrow, scale=(0.3, 0.9))
    for seed in range(30):
        mask = fn(*size, rng(seed))
        assert mask.shape == size
        height, width = (np.ptp(axis) + 1 for axis in np.nonzero(mask))
        assert height / width == pytest.approx(2, abs=2.2 / width)
        assert max(height / size[0], width / size[1]) <= 0.9


def test_a_shape_is_flipped_both_ways_and_placed_everywhere(arrow: Path) -> None:
    fn = masks.ObjectMasks(arrow, scale=(0.5, 0.5))
    corners, places = set(), set()
    for seed in range(60):
        mask = fn(80, 80, rng(seed))
        rows, columns = np.nonzero(mask)
        box = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        # Only the inner corner of the arrow is empty; it tells the flip.
        corners.add((box[0, 0], box[0, -1], box[-1, 0], box[-1, -1]))
        places.add((rows.min(), columns.min()))
    assert len(corners) == 4
    assert min(top for top, _ in places) < 8
    assert max(top for top, _ in places) > 32
    assert len(places) > 40


def test_a_hairline_does_not_vanish(tmp_path: Path) -> None:
    image = Image.new("L", (400, 400))
    ImageDraw.Draw(image).line((0, 0, 399, 399), fill=255)
    image.save(tmp_path / "line.png")
    mask = masks.ObjectMasks(tmp_path, scale=(0.3, 0.3))(32, 32, rng(0))
    assert 0 < mask.sum() < 30


def test_folders_are_read_in_one_order_whatever_their_place(tmp_path: Path) -> None:
    first, second = tmp_path / "z", tmp_path / "a"
    for folder, names in ((first, "ab"), (second, "ba")):
        (folder / "deep").mkdir(parents=True)
        for name in names:
            sides = {"a": (5, 20), "b": (20, 5)}[name]
            save(folder / "deep" / f"{name}.png", np.ones(sides, np.uint8))
    one, other = masks.ObjectMasks(first), masks.ObjectMasks([second])
    assert len(one) == 2
    for seed in range(8):
        np.testing.assert_array_equal(one(40, 40, rng(seed)), other(40, 40, rng(seed)))
    assert len(masks.ObjectMasks([first, second])) == 4


def _empty(folder: Path) -> None:
    save(folder / "black.png", np.zeros((9, 9)))


def _damaged(folder: Path) -> None:
    (folder / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")


def _none(folder: Path) -> None:
    (folder / "notes.txt").write_text("no masks")


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (_empty, "black.png.*invert"),
        (_damaged, "torn.png.*(again|give JPEG)"),
        (_none, "no mask images"),
    ],
)
def test_a_folder_that_cannot_serve_is_an_error(
    tmp_path: Path, prepare: Callable[[Path], None], words: str
) -> None:
    prepare(tmp_path)
    with pytest.raises(ImageError, match=words):
        masks.ObjectMasks(tmp_path)


def test_shapes_of_the_published_folders(shared_data: Path) -> None:
    folders = [shared_data / "masks" / name for name in ("bsds_segments", "hifill", "person")]
    white = masks.ObjectMasks(folders)
    keep = masks.ObjectMasks(shared_data / "masks" / "repaint_keep", invert=True)
    assert len(white) > 1000
    for fn in (white, keep):
        ratios = [masks.hole_ratio(fn(96, 96, rng(i))) for i in range(100)]
        assert 0.02 < np.median(ratios) < 0.25


# Hole ratios


@pytest.mark.parametrize(
    ("holes", "name"),
    [(0, "0-10"), (9, "0-10"), (10, "10-20"), (29, "20-30"), (30, "30-40"), (100, "90-100")],
)
def test_ratio_bin_by_hand(holes: int, name: str) -> None:
    mask = np.zeros(100, np.uint8)
    mask[:holes] = 1
    assert masks.find_ratio_bin(mask.reshape(10, 10)) == name
    assert masks.hole_ratio(mask) == holes / 100


@pytest.mark.parametrize(("low", "high"), masks.RATIO_BINS[:5])
def test_in_ratio_and_ratio_bin_agree(low: float, high: float) -> None:
    fn = pickle.loads(pickle.dumps(masks.limit_ratio(masks.get("lama-thin"), low, high)))
    for seed in range(10):
        mask = fn(64, 64, rng(seed))
        assert low <= masks.hole_ratio(mask) < high
        assert masks.find_ratio_bin(mask) == f"{low * 100:.0f}-{high * 100:.0f}"


def test_free_form_strokes_cover_every_share_up_to_sixty_percent() -> None:
    ratios = [masks.hole_ratio(masks.free_form(64, 64, rng(seed))) for seed in range(200)]
    assert min(ratios) >= 0.05
    counts, _ = np.histogram(ratios, bins=np.arange(0.05, 0.61, 0.11))
    assert (counts[1:] > 20).all()  # of about 40 in each fifth
    assert counts[0] > 0  # a single draw of the brush mostly covers more


def test_in_ratio_gives_up_with_a_remedy() -> None:
    fn = masks.limit_ratio(masks.get("lama-thick"), 0.9, 1.0, tries=5)
    with pytest.raises(InputError, match="5 tries; widen"):
        fn(64, 64, rng(0))
    with pytest.raises(InputError, match="empty"):
        masks.limit_ratio(masks.brush, 0.3, 0.3)


# Mixtures and names


def _constant(value: int) -> masks.MaskFn:
    return lambda height, width, _: np.full((height, width), value, np.uint8)


def test_mixture_follows_the_weights_and_not_their_order() -> None:
    extra = {"zeros": _constant(0), "ones": _constant(1)}
    one = masks.make_mixture({"zeros": 3, "ones": 1, "brush": 0}, extra)
    other = masks.make_mixture({"ones": 0.25, "zeros": 0.75}, extra)
    drawn = [int(one(1, 1, rng(i))[0, 0]) for i in range(800)]
    assert np.mean(drawn) == pytest.approx(0.25, abs=0.05)
    assert drawn == [int(other(1, 1, rng(i))[0, 0]) for i in range(800)]


@pytest.mark.parametrize("weights", [{}, {"brush": 0}, {"brush": 2, "boxes": -1}])
def test_mixture_refuses_weights_that_mean_nothing(weights: dict[str, float]) -> None:
    with pytest.raises(InputError, match="at least one above 0"):
        masks.make_mixture(weights)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="lama-thick"):
        masks.get("lama-tick")
    with pytest.raises(UnknownNameError, match="brush"):
        masks.make_mixture({"bruhs": 1})


def test_a_damaged_mask_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.effect_noise((64, 64), 90).save(path)
    data = bytearray(path.read_bytes())
    data[200:240] = bytes(40)  # Pillow raises a SyntaxError for some of these, and no OSError
    for damaged in (bytes(data), data[:100], data[:33] + b"\0\0\0\x04ABCDabcdabcd"):
        path.write_bytes(damaged)
        with pytest.raises(ImageError, match=r"a\.png"):
            masks.ObjectMasks(tmp_path)
