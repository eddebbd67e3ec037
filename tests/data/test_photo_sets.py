"""Photo sets by name: each layout on a tiny folder that the test makes, splits, and sizes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.locked import lock
from overpaint.data.photo_sets import (
    COUNTS,
    LAYOUTS,
    Fit,
    collect_photos,
    draw_part,
    open_photos,
)
from overpaint.data.sources import Part
from overpaint.errors import ConfigError, ImageError

PARTS: tuple[Part, ...] = ("train", "validation", "test")


def save(path: Path, size: tuple[int, int] = (20, 16), seed: int = 0) -> Path:
    """A noisy photo of (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def places2(root: Path) -> dict[str, set[str]]:
    for i in range(3):
        save(root / "data_256" / "a" / "airfield" / f"{i:08}.jpg")
        save(root / "val_256" / f"Places365_val_{i:08}.jpg")
        save(root / "test_256" / f"Places365_test_{i:08}.jpg")
        save(root / "data_large" / "a" / "airfield" / f"{i:08}.jpg", (40, 30))  # 256 counts
    return {
        "train": {f"{i:08}.jpg" for i in range(3)},
        "validation": {f"Places365_val_{i:08}.jpg" for i in range(3)},
        "test": {f"Places365_test_{i:08}.jpg" for i in range(3)},
    }


def celeba(root: Path) -> dict[str, set[str]]:
    for i in range(1, 8):
        save(root / "Img" / "img_align_celeba" / f"{i:06}.jpg", (178, 218))
    lines = [f"{i:06}.jpg {max(0, i - 5)}" for i in range(1, 8)]
    (root / "Eval").mkdir()
    (root / "Eval" / "list_eval_partition.txt").write_text("\n".join(lines))
    return {
        "train": {f"{i:06}.jpg" for i in range(1, 6)},
        "validation": {"000006.jpg"},
        "test": {"000007.jpg"},
    }


def celeba_hq(root: Path) -> dict[str, set[str]]:
    originals = [5, 162_770, 162_771, 182_637, 182_638, 202_599]
    lines = ["idx  orig_idx  orig_file"]
    for i, number in enumerate(originals):
        save(root / "CelebAMask-HQ" / "CelebA-HQ-img" / f"{i}.jpg")
        lines.append(f"{i}    {number - 1}    {number:06}.jpg")
    mapping = root / "CelebAMask-HQ" / "CelebA-HQ-to-CelebA-mapping.txt"
    mapping.write_text("\n".join(lines) + "\n")
    return {
        "train": {"0.jpg", "1.jpg"},
        "validation": {"2.jpg", "3.jpg"},
        "test": {"4.jpg", "5.jpg"},
    }


def paris(root: Path) -> dict[str, set[str]]:
    for i in range(6):
        save(root / "paris_train_original" / f"48.84_{i}.JPG")
    save(root / "paris_eval" / "paris_eval_gt" / "001_im.png")
    return {"train": {f"48.84_{i}.JPG" for i in range(6)}, "test": {"001_im.png"}}


def ffhq(root: Path) -> dict[str, set[str]]:
    numbers = [0, 999, 59_999, 60_000, 69_999]
    for number in numbers:
        save(root / "images1024x1024" / f"{number // 1000 * 1000:05}" / f"{number:05}.png")
    return {
        "train": {"00000.png", "00999.png", "59999.png"},
        "validation": {"60000.png", "69999.png"},
    }


MAKERS = {
    "places2": places2,
    "celeba": celeba,
    "celeba-hq": celeba_hq,
    "paris": paris,
    "ffhq": ffhq,
}


def names(spec: object, part: Part | None, **options: object) -> list[str]:
    return [Path(n).name for n in open_photos(str(spec), part, **options).names]  # type: ignore


def test_every_layout_is_tested() -> None:
    assert MAKERS.keys() == LAYOUTS.keys()


@pytest.mark.parametrize("name", MAKERS)
class TestLayout:
    def test_the_official_split(self, name: str, tmp_path: Path) -> None:
        wanted = MAKERS[name](tmp_path)
        for part in PARTS:
            if part in wanted:
                found = names(f"{name}:{tmp_path}", part, split="official")
                assert set(found) == wanted[part], part
                assert len(found) == len(wanted[part])
            else:
                with pytest.raises(ImageError, match=f"official part {part}"):
                    open_photos(f"{name}:{tmp_path}", part, split="official")

    def test_the_split_by_seed_divides_all_photos(self, name: str, tmp_path: Path) -> None:
        wanted = MAKERS[name](tmp_path)
        everything = sorted(n for part in wanted.values() for n in part)
        assert sorted(names(f"{name}:{tmp_path}", None)) == everything
        parts = [_or_none(name, tmp_path, part) for part in PARTS]
        assert sorted(n for part in parts for n in part) == everything

    def test_photos_come_at_the_size(self, name: str, tmp_path: Path) -> None:
        MAKERS[name](tmp_path)
        photos = open_photos(f"{name}:{tmp_path}", size=24)
        assert {photos.read(i).shape for i in range(len(photos))} == {(24, 24, 3)}
        assert "24 px" in photos.fit.words  # type: ignore[union-attr]
        assert LAYOUTS[name].title in photos.words

    def test_another_layout_is_an_error_that_shows_this_one(
        self, name: str, tmp_path: Path
    ) -> None:
        save(tmp_path / "holiday" / "photo.jpg")
        with pytest.raises(ImageError, match="holds holiday; expected") as caught:
            open_photos(f"{name}:{tmp_path}")
        assert LAYOUTS[name].expected in str(caught.value)
        with pytest.raises(ImageError, match="no such folder"):
            open_photos(f"{name}:{tmp_path / 'nowhere'}")


def _or_none(name: str, root: Path, part: Part) -> list[str]:
    try:
        return names(f"{name}:{root}", part)
    except ImageError as error:
        if "too few" not in str(error):
            raise
        return []


class TestSplitBySeed:
    def photos(self, num: int) -> list[Path]:
        return [Path(f"/set/{i // 1000}/{i:06}.jpg") for i in range(num)]

    @pytest.mark.slow
    def test_a_large_set_gives_the_numbers_of_the_paper(self) -> None:
        photos = self.photos(80_000)
        parts = [draw_part(photos, part) for part in PARTS]
        assert [len(p) for p in parts] == [50_000, 10_000, 10_000] == list(COUNTS.values())
        assert len(set().union(*map(set, parts))) == 70_000

    def test_a_small_one_is_divided_in_their_proportion(self) -> None:
        assert [len(draw_part(self.photos(70), p)) for p in PARTS] == [50, 10, 10]
        assert [len(draw_part(self.photos(75), p)) for p in PARTS] == [53, 10, 12]

    def test_it_depends_on_the_seed_and_not_on_the_order_or_the_place(self) -> None:
        photos = self.photos(700)
        first = draw_part(photos, "test", seed=1)
        assert draw_part(photos[::-1], "test", seed=1) == first
        moved = [Path("/elsewhere") / p.relative_to("/set") for p in photos]
        assert [p.name for p in draw_part(moved, "test", seed=1)] == [p.name for p in first]
        assert draw_part(photos, "test", seed=2) != first


class TestFit:
    face = np.random.default_rng(0).integers(256, size=(218, 178, 3), dtype=np.uint8)
    photo = np.random.default_rng(1).integers(256, size=(400, 600, 3), dtype=np.uint8)

    def test_resize(self) -> None:
        assert Fit(256)(self.photo).shape == (256, 256, 3)
        wide = np.zeros((100, 300, 3), np.uint8)
        wide[:, 100:200] = 200
        assert (Fit(50)(wide)[:, 5:45] > 150).all(), "the middle is kept"

    def test_a_small_face_is_enlarged_or_kept_and_never_left_out(self) -> None:
        assert Fit(256)(self.face).shape == (256, 256, 3)
        assert Fit(256, how="crop")(self.face).shape == (256, 256, 3)
        for how in ("resize", "crop"):
            assert np.array_equal(Fit(256, how=how, small="keep")(self.face), self.face)
        kept = Fit(200, small="keep")(self.face)
        assert kept.shape == (200, 178, 3), "cut to at most the size"

    def test_a_crop_keeps_the_pixels_and_the_grid(self) -> None:
        crop = Fit(64, how="crop")(self.photo, "a/b.jpg")
        places = [
            (y, x)
            for y in range(0, 337, 8)
            for x in range(0, 537, 8)
            if np.array_equal(self.photo[y : y + 64, x : x + 64], crop)
        ]
        assert len(places) == 1
        assert np.array_equal(Fit(64, how="crop")(self.photo, "a/b.jpg"), crop)
        other = [Fit(64, how="crop")(self.photo, f"{i}.jpg") for i in range(5)]
        assert len({o.tobytes() for o in other}) == 5

    def test_what_it_is_told(self) -> None:
        for wrong in ({"how": "stretch"}, {"small": "skip"}, {"size": 0}):
            with pytest.raises(ConfigError):
                Fit(**wrong)
        assert Fit(small="keep").words.endswith("smaller photos at their own size")


def test_a_plain_folder_is_divided_as_trainings_divide_it(tmp_path: Path) -> None:
    from overpaint.data.sources import split

    paths = [save(tmp_path / "photos" / f"{i}.png", seed=i) for i in range(30)]
    found = open_photos(tmp_path / "photos", "test", size=None)
    assert sorted(found.names) == sorted(str(p) for p in split(paths, "test"))
    assert found.read(0).shape == (16, 20, 3)
    with pytest.raises(ConfigError, match="no official split"):
        open_photos(tmp_path, "test", split="official")


def test_an_unknown_name_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="celeba-hq"):
        open_photos(f"imagenet:{tmp_path}")


def test_damaged_lists_are_told(tmp_path: Path) -> None:
    celeba(tmp_path)
    partition = tmp_path / "Eval" / "list_eval_partition.txt"
    partition.write_text("000001.jpg 0\n")
    with pytest.raises(ImageError, match="does not name 6 of 7 photos"):
        open_photos(f"celeba:{tmp_path}", "test", split="official")
    partition.write_text("000001.jpg train\n")
    with pytest.raises(ImageError, match="line 1 is not FILE and 0, 1 or 2"):
        open_photos(f"celeba:{tmp_path}", "test", split="official")
    partition.unlink()
    with pytest.raises(ConfigError, match=r"list_eval_partition\.txt is not there"):
        open_photos(f"celeba:{tmp_path}", "test", split="official")
    assert len(open_photos(f"celeba:{tmp_path}")) == 7


@pytest.mark.parametrize("name", ["celeba", "celeba-hq"])
def test_a_list_that_is_no_text_is_told(name: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    (listing,) = tmp_path.rglob("*.txt")
    for data, said in (
        (b"\xff\xfe0\x001\x00", "is no text in UTF-8"),
        (b"h\n\xc2\xb2 2 3.jpg", "line"),
    ):
        listing.write_bytes(data)
        with pytest.raises(ImageError, match=rf"{listing.name}: .*{said}"):
            open_photos(f"{name}:{tmp_path}", "test", split="official")


def test_a_list_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    want = celeba(tmp_path)
    listing = tmp_path / "Eval" / "list_eval_partition.txt"
    listing.write_bytes(b"\xef\xbb\xbf" + listing.read_bytes())
    found = open_photos(f"celeba:{tmp_path}", "train", split="official").names
    assert {Path(each).name for each in found} == {Path(each).name for each in want["train"]}


@pytest.mark.parametrize("locked", ["data_256", "data_256/a"])
def test_a_folder_without_permission_is_told_and_not_passed_over(
    locked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "set"
    places2(root)
    save(root / "data_256" / "a" / "cabin" / "00000009.jpg")
    lock(root / locked, monkeypatch)
    for read in (open_photos, lambda spec: collect_photos([spec])):
        with pytest.raises(ImageError, match=rf"{root / locked}: cannot be read .*access rights"):
            read(f"places2:{root}")


def test_a_root_without_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock(tmp_path, monkeypatch)
    with pytest.raises(ImageError, match=rf"{tmp_path}: cannot be read .*access rights"):
        open_photos(f"places2:{tmp_path}")


def test_trainings_take_sets_by_name_beside_folders(tmp_path: Path) -> None:
    from overpaint.data.sources import split

    celeba(tmp_path / "faces")
    plain = [save(tmp_path / "photos" / f"{i}.png", seed=i) for i in range(30)]
    given = [f"celeba:{tmp_path / 'faces'}", tmp_path / "photos"]
    found = collect_photos(given, "train")
    faces = open_photos(given[0], "train").names
    assert set(found.names) == {*faces, *map(str, split(plain, "train"))}
    assert found.read(0).ndim == 3
    without = collect_photos(given, "train", exclude=[Path(faces[0]).name])
    assert set(found.names) - set(without.names) == {faces[0]}
    by_path = collect_photos(given, "train", exclude=[faces[0], plain[0]])
    assert set(found.names) - set(by_path.names) == {faces[0], str(plain[0])} & set(found.names)
    with pytest.raises(ImageError, match="all 5 photos are excluded"):
        collect_photos(given, "train", exclude=faces)
    assert len(collect_photos(given)) == 37
    missing = collect_photos([*given, tmp_path / "nowhere"])
    assert len(missing.problems) == 1
    with pytest.raises(ImageError, match="expected img_align_celeba"):
        collect_photos([f"celeba:{tmp_path / 'photos'}"])
