"""`overpaint inpaint`: what it prints, writes and returns, for one photo and for folders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from conftest import textured
from overpaint import weights
from overpaint.cli import build
from overpaint.data.finding import find_photos
from overpaint.images import read_image, write_jpeg, write_png

HOLE = (slice(20, 40), slice(30, 60))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    for name in ("OVERPAINT_C2PA_CERT", "OVERPAINT_C2PA_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put_photo(path: str, seed: int = 0, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pixels = textured(*size, seed=seed)
    if path.endswith(".jpg"):
        write_jpeg(path, pixels, 90)
    else:
        write_png(path, pixels)
    return read_image(path).pixels


def put_mask(path: str, size: tuple[int, int] = (60, 80), *, empty: bool = False) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size, np.uint8)
    mask[HOLE] = 0 if empty else 255
    write_png(path, mask)


def inpaint(*arguments: object, model: str = "mean") -> Result:
    given = ["inpaint", *map(str, arguments), "--model", model]
    return CliRunner().invoke(build(), given)


def records(result: Result) -> list[dict]:
    """Every line of stdout must be one JSON object."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def changed(path: str | Path, photo: np.ndarray) -> np.ndarray:
    """bool (h, w): where a written file differs from the photo."""
    return (read_image(path).pixels != photo).any(axis=2)


def snapshot(folder: str = ".") -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


class TestOnePhoto:
    def test_the_hole_is_filled_and_it_is_said_by_what_and_where_it_lies(self) -> None:
        photo = put_photo("p.jpg")
        put_mask("m.png")
        result = inpaint("p.jpg", "m.png", "-o", "out.png", "--dilate", 0)
        assert result.exit_code == 0
        assert result.stderr == ""
        first, *_, last = result.stdout.splitlines()
        assert first == "p.jpg: 1 hole, 12.5 % of the photo, filled in by mean"
        assert "out.png: marked as edited; receipt: out.png.receipt.json" in last
        difference = changed("out.png", photo)
        assert difference[HOLE].mean() > 0.9
        difference[HOLE] = False
        assert not difference.any()
        assert json.loads(Path("out.png.receipt.json").read_text())["model"] == "mean"
        assert {p.name for p in Path().iterdir()} == {
            *("p.jpg", "m.png", "out.png", "out.png.receipt.json")
        }

    def test_json(self) -> None:
        put_photo("p.png")
        put_mask("m.png")
        arguments = ("p.png", "m.png", "-o", "out.png", "--size", 64, "--dilate", 0)
        (record,) = records(inpaint(*arguments, "--json"))
        assert (record["file"], record["mask"], record["out"]) == ("p.png", "m.png", "out.png")
        assert (record["width"], record["height"], record["num_holes"]) == (80, 60, 1)
        assert record["fraction"] == 0.125
        assert record["weights_sha256"] is None
        receipt = json.loads(Path(record["receipt"]).read_text())
        how = {"working_size": 64, "invert_mask": False, "dilate": 0, "flatten": None}
        assert receipt["parameters"] == how

    def test_inverted(self) -> None:
        photo = put_photo("p.png")
        put_mask("m.png")
        result = inpaint("p.png", "m.png", "-o", "out.png", "--invert-mask", "--dilate", 0)
        assert "87.5 % of the photo" in result.stdout
        assert "note: mask inverted" in result.stdout
        assert not changed("out.png", photo)[HOLE].any()

    def test_the_hole_grows_as_asked_and_it_is_said(self) -> None:
        photo = put_photo("p.png")
        put_mask("m.png")
        arguments = ("p.png", "m.png", "-o", "out.png", "--dilate", 3)
        (record,) = records(inpaint(*arguments, "--json"))
        assert record["dilate"] == 3
        assert record["fraction"] > 0.125
        assert "hole grown by 3 pixels; the fill fades out over the outer 1" in record["notes"]
        difference = changed("out.png", photo)
        assert difference[18:42, 28:62].mean() > 0.9
        difference[17:43, 27:63] = False
        assert not difference.any()

    def test_transparency_is_refused_for_a_jpeg_unless_it_is_laid_on_a_colour(self) -> None:
        image = Image.fromarray(textured(60, 80, seed=0))
        image.putalpha(Image.fromarray(np.tile(np.arange(80, dtype=np.uint8) * 3, (60, 1))))
        image.save("p.png")
        put_mask("m.png")
        refused = inpaint("p.png", "m.png", "-o", "out.jpg")
        assert refused.exit_code == 1
        assert "--flatten white" in refused.stderr
        assert not Path("out.jpg").exists()
        assert inpaint("p.png", "m.png", "-o", "out.jpg", "--flatten", "white").exit_code == 0
        assert (read_image("out.jpg").pixels[:, 0] > 240).all()
        assert inpaint("p.png", "m.png", "-o", "out.png", "--flatten", "no").exit_code == 2

    def test_the_mask_may_lie_in_a_folder_of_masks(self) -> None:
        put_photo("a/p.png")
        put_mask("masks/p_mask.png")
        (record,) = records(inpaint("a/p.png", "--masks", "masks", "-o", "out.png", "--json"))
        assert record["mask"] == "masks/p_mask.png"

    @pytest.mark.parametrize(
        ("photo", "mask", "reason"),
        [
            ("gone.png", "m.png", "gone.png: there is no such file"),
            ("p.png", "gone.png", "gone.png: there is no such file"),
            ("p.png", "other.png", "the mask has 81 x 60 pixels, its photo 80 x 60"),
            ("p.png", "empty.png", "nothing to fill"),
        ],
    )
    def test_a_failure_is_one_line_and_exit_code_1(
        self, photo: str, mask: str, reason: str
    ) -> None:
        put_photo("p.png")
        put_mask("m.png")
        put_mask("other.png", (60, 81))
        put_mask("empty.png", empty=True)
        before = snapshot()
        result = inpaint(photo, mask, "-o", "out.png")
        assert result.exit_code == 1
        assert result.stdout == ""
        assert len(result.stderr.strip().splitlines()) == 1
        assert reason in result.stderr
        (record,) = records(inpaint(photo, mask, "-o", "out.png", "--json"))
        assert reason in record["error"]
        assert snapshot() == before

    def test_only_earlier_results_are_replaced_and_only_when_asked(self) -> None:
        put_photo("p.png")
        put_photo("q.png", seed=1)
        put_mask("m.png")
        before = snapshot()
        for out in ("p.png", "m.png", "q.png"):
            for more in ([], ["--overwrite"]):
                assert inpaint("p.png", "m.png", "-o", out, *more).exit_code == 1
        assert snapshot() == before
        assert inpaint("p.png", "m.png", "-o", "out.png").exit_code == 0
        assert "--overwrite" in inpaint("q.png", "m.png", "-o", "out.png").stderr
        assert inpaint("q.png", "m.png", "-o", "out.png", "--overwrite").exit_code == 0
        receipt = json.loads(Path("out.png.receipt.json").read_text())
        assert receipt["input"]["file"] == "q.png"


class TestWrongUse:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["p.png", "-o", "out.png"],
            ["p.png", "m.png"],
            ["p.png", "m.png", "--masks", "masks", "-o", "out.png"],
            ["p.png", "masks", "-o", "out.png"],
            ["p.png", "--masks", "gone", "-o", "out.png"],
            ["p.png", "m.png", "-o", "photos"],
            ["photos", "m.png", "-o", "p.png"],
            ["photos", "m.png", "-o", "photos"],
            ["photos", "--masks", "photos", "-o", "out"],
            ["photos", "--masks", "masks", "-o", "masks"],
            ["p.png", "m.png", "-o", "out.png", "--size", "10"],
            ["p.png", "m.png", "-o", "out.png", "--no-mark"],
            ["p.png", "m.png", "-o", "out.png", "--c2pa-cert", "gone.pem"],
        ],
    )
    def test_is_exit_code_2_and_writes_nothing(self, arguments: list[str]) -> None:
        put_photo("p.png")
        put_photo("photos/p.png")
        put_mask("m.png")
        put_mask("masks/p.png")
        before = snapshot()
        result = inpaint(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr
        assert snapshot() == before

    def test_a_model_that_is_not_there_is_wrong_use(
        self, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(weights.store, "PRETRAINED", here / "pretrained")
        put_photo("p.png")
        put_mask("m.png")
        for model in ("safepaint-s", "safepaint", "nothing"):
            result = inpaint("p.png", "m.png", "-o", "out.png", model=model)
            assert result.exit_code == 2
            assert f"overpaint inpaint: {model}" in result.stderr
            assert "needs none (" in result.stderr
            assert "mean" in result.stderr

    def test_no_option_leaves_the_mark_out(self) -> None:
        text = CliRunner().invoke(build(), ["inpaint", "--help"]).stdout
        options = {word for word in text.split() if word.startswith("--")}
        assert not {o for o in options if "mark" in o or "unmarked" in o or o.startswith("--no-")}
        assert "--overwrite" in options


class TestFolders:
    def test_masks_are_matched_by_place_and_name(self) -> None:
        photos = {
            name: put_photo(f"photos/{name}", seed=i)
            for i, name in enumerate(("a.jpg", "b.png", "deep/c.jpg", "d.e.png", "none.png"))
        }
        for name in ("a.png", "b_mask.png", "deep/c.mask.png", "d.e.png", "c.png"):
            put_mask(f"masks/{name}")
        arguments = ("photos", "--masks", "masks", "-o", "results", "--dilate", 0)
        result = inpaint(*arguments, "--json")
        assert result.exit_code == 1
        assert "1 of 5 could not be filled" in result.stderr
        found = {r["file"].removeprefix("photos/"): r for r in records(result)}
        assert found.keys() == photos.keys()
        error = found.pop("none.png")["error"]
        assert "photos/none.png: has no mask" in error
        assert "masks/none.png" in error
        masks = {name: r["mask"].removeprefix("masks/") for name, r in found.items()}
        assert masks == {
            "a.jpg": "a.png",
            "b.png": "b_mask.png",
            "deep/c.jpg": "deep/c.mask.png",
            "d.e.png": "d.e.png",
        }
        for name, record in found.items():
            assert record["out"] == f"results/{Path(name).stem}.png"
            difference = changed(record["out"], photos[name])
            assert difference[HOLE].mean() > 0.9
            assert difference.sum() == difference[HOLE].sum()
        assert len(list(Path("results").iterdir())) == 8

    def test_one_mask_for_all_and_a_bad_photo_does_not_stop_the_rest(self) -> None:
        put_mask("photos/mask.png")
        put_photo("photos/a.png")
        Path("photos/bad.jpg").write_bytes(b"no photo")
        put_photo("photos/other-size.png", size=(61, 80))
        put_photo("photos/z.png")
        result = inpaint("photos", "photos/mask.png", "-o", "photos/results")
        assert result.exit_code == 1
        assert [p.name for p in sorted(Path("photos/results").glob("*.png"))] == ["a.png", "z.png"]
        assert "bad.jpg: not a photo" in result.stderr
        assert "its photo 80 x 61" in result.stderr
        assert "2 of 4 could not be filled" in result.stderr
        assert result.stdout.count("marked as edited") == 2

    @pytest.mark.parametrize("gone", ["p/x.png", "m/x.png"])
    def test_a_file_that_disappears_after_it_was_found_does_not_stop_the_rest(
        self, gone: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in "xy":
            put_photo(f"p/{name}.png")
            put_mask(f"m/{name}.png")

        def found_and_lost(*arguments: Any, **options: Any) -> Any:
            search = find_photos(*arguments, **options)
            if str(search.photos[0]) == gone:
                Path(gone).unlink()
            return search

        monkeypatch.setattr("overpaint.data.finding.find_photos", found_and_lost)
        result = inpaint("p", "--masks", "m", "-o", "out", "--json")
        assert result.exit_code == 1
        lost, there = records(result)
        assert lost["error"] == f"{gone}: there is no such file; check the spelling"
        assert "error" not in there
        assert sorted(p.name for p in Path("out").iterdir()) == ["y.png", "y.png.receipt.json"]

    def test_a_second_run_takes_no_result_for_a_photo(self) -> None:
        put_photo("photos/a.png")
        put_mask("m.png")
        arguments = ("photos", "m.png", "-o", "photos/results", "--json")
        assert inpaint(*arguments).exit_code == 0
        (refused,) = records(inpaint(*arguments))
        assert "--overwrite" in refused["error"]
        (record,) = records(inpaint(*arguments, "--overwrite"))
        assert (record["file"], record["out"]) == ("photos/a.png", "photos/results/a.png")

    def test_names_that_collide_are_told_apart(self) -> None:
        for i, name in enumerate(("x.png", "x.jpg", "deep/x.png", "y.png")):
            put_photo(f"photos/{name}", seed=i)
        put_mask("m.png")
        found = records(inpaint("photos", "m.png", "-o", "results", "--json"))
        outs = [Path(record["out"]).name for record in found]
        assert len(set(outs)) == 4
        assert sum(name.startswith("x-") for name in outs) == 3
        assert "y.png" in outs

    def test_two_masks_of_one_name_are_an_error(self) -> None:
        put_photo("photos/a.png")
        put_mask("masks/a.png")
        Image.open("masks/a.png").save("masks/a.bmp")
        (record,) = records(inpaint("photos", "--masks", "masks", "-o", "results", "--json"))
        assert "more than one mask: masks/a.bmp, masks/a.png" in record["error"]

    def test_photos_may_share_a_mask_by_links_to_it_or_to_its_folder(self) -> None:
        for i, name in enumerate(("a", "b", "one/c", "two/c")):
            put_photo(f"photos/{name}.png", seed=i)
        put_mask("shared/m.png")
        put_mask("shared/folder/c.png")
        Path("masks").mkdir()
        Path("masks/notes.md").write_text("no mask")
        for name, target in (("a.png", "m.png"), ("b.png", "m.png"), ("loop", "../masks")):
            Path("masks", name).symlink_to(Path("../shared", target))
        for name in ("one", "two"):
            Path("masks", name).symlink_to("../shared/folder")
        result = inpaint("photos", "--masks", "masks", "-o", "results", "--json")
        assert result.exit_code == 0
        assert [r["mask"].removeprefix("masks/") for r in records(result)] == [
            *("a.png", "b.png", "one/c.png", "two/c.png")
        ]
        assert "masks: 2 files passed over: 1 no picture (1 .md), 1 links to" in result.stderr

    def test_inputs_stay_as_they_are(self) -> None:
        put_photo("photos/a.jpg")
        put_mask("masks/a.png")
        before = snapshot()
        assert inpaint("photos", "--masks", "masks", "-o", ".").exit_code == 0
        after = snapshot()
        assert {path: after[path] for path in before} == before
        assert Path("a.png").is_file()

    def test_another_photos_result_is_kept_and_marked_ones_are_no_photos(self) -> None:
        for i, folder in enumerate("ab"):
            put_photo(f"{folder}/x.png", seed=i)
        put_mask("m.png")
        assert inpaint("a", "m.png", "-o", "r").exit_code == 0
        before = snapshot("r")
        (record,) = records(inpaint("b", "m.png", "-o", "r", "--overwrite", "--json"))
        assert Path(record["out"]).name.startswith("x-")
        assert {path: path.read_bytes() for path in before} == before
        Path("r/x.png").rename("a/looks-like-a-photo.png")
        result = inpaint("a", "m.png", "-o", "r2", "--json")
        assert [r["file"] for r in records(result)] == ["a/x.png"]
        assert "1 written by overpaint" in result.stderr
