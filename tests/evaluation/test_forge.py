"""`overpaint forge`: a test set is what its manifest says, and can be made again."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from conftest import textured
from overpaint import weights
from overpaint.cli import build
from overpaint.cli.forge import forge as command
from overpaint.data.forgeries import read_forgeries
from overpaint.data.photo_sets import collect_photos
from overpaint.data.sources import PhotoSource, shorten_name, split
from overpaint.errors import ConfigError, InputError, UnknownNameError, WeightsError
from overpaint.evaluation.forge import NATIVE, Forged, Forgery, forge
from overpaint.images import read_image, read_mask
from overpaint.inpainters import Inpainter
from overpaint.inpainting.inpainter_runner import InpainterRunner
from overpaint.provenance.checking import check_file
from overpaint.provenance.xmp import COMPOSITE
from overpaint.registry import Entry, inpainters

SIZE = 48


class Network(Inpainter):
    """A convolution; its sums would round differently on several threads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 3, 5, padding=2)

    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.conv(torch.cat([image, mask], dim=1)).sigmoid()


class Failing(Network):
    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        raise RuntimeError("not enough memory")


@pytest.fixture(autouse=True)
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights by the name of network."""
    inpainters.list_names()
    for name, factory in (("network", Network), ("failing", Failing)):
        entry: Entry[Any] = Entry(name, factory, "none", "Apache-2.0")
        monkeypatch.setitem(inpainters._entries, name, entry)
    monkeypatch.setenv("OVERPAINT_WEIGHTS", str(tmp_path / "weights"))
    train("network")


def train(name: str, seed: int = 0) -> None:
    torch.manual_seed(seed)
    about: dict[str, Any] = {"data": "", "recipe": "", "commit": "", "licence": "", "config": {}}
    about |= {"kind": "inpainter", "architecture": name}
    weights.save_weights(
        weights.find_imported_folder(), inpainters.create(name), name=name, **about
    )


@pytest.fixture
def photos(photo_folder: Path) -> PhotoSource:
    return PhotoSource.from_paths([photo_folder])


def made(folder: Path, photos: PhotoSource, **changes: Any) -> Forged:
    how: dict[str, Any] = {"inpainter": "network", "masks": ["brush"], "size": SIZE}
    return forge(folder, photos, **(how | changes))


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build(), ["forge", *map(str, arguments)])


class TestFiles:
    def test_they_are_what_the_manifest_says(self, tmp_path: Path, photos: PhotoSource) -> None:
        out = tmp_path / "out"
        done = made(out, photos, num=8, seed=3)
        lines = (out / "manifest.jsonl").read_text().splitlines()
        assert [Forgery.model_validate_json(line) for line in lines] == done.rows
        assert done.problems == []
        kinds = ("originals", "masks", "inpainted")
        files = [f"{kind}/{i:06d}.png" for kind in kinds for i in range(8)]
        assert set(content(out)) == {*files, "manifest.jsonl", "about.json"}
        record = weights.read_record("network")
        for i, row in enumerate(done.rows):
            assert (row.index, row.seed) == (i, 3)
            assert sha256(out / row.original) == row.original_sha256
            assert sha256(out / row.mask) == row.mask_sha256
            assert sha256(out / row.inpainted) == row.inpainted_sha256
            assert sha256(Path(row.photo)) == row.photo_sha256
            assert (row.inpainter, row.weights_sha256) == ("network", record.sha256)
            mask = read_mask(out / row.mask)
            assert mask.shape == (row.height, row.width) == (SIZE, SIZE)
            assert row.mask_ratio == mask.mean() > 0

    def test_their_photos_stay_in_their_parts_wherever_they_are_read(
        self, tmp_path: Path, photo_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = [f"{i}.png" for i in range(20)] + [os.fsdecode(b"caf\xe9.png")]
        folder = tmp_path / "set"
        folder.mkdir()
        for name in names:
            shutil.copy(next(photo_folder.rglob("*.png")), folder / name)
        test = split([str(folder / name) for name in names], "test")
        monkeypatch.chdir(folder)
        made(tmp_path / "out", PhotoSource.from_paths(["."]))
        monkeypatch.chdir(tmp_path)
        rows = read_forgeries(tmp_path / "out", "test")
        found = {row.photo.replace("?", "\udce9") for row in rows}
        assert found == {f"set/{Path(name).name}" for name in test}

    def test_the_hole_is_filled_and_nothing_else_is_touched(
        self, tmp_path: Path, photos: PhotoSource
    ) -> None:
        out = tmp_path / "out"
        runner = InpainterRunner("network")
        for row in made(out, photos, num=6).rows:
            original = read_image(out / row.original).pixels
            filled = read_image(out / row.inpainted).pixels
            mask = read_mask(out / row.mask)
            assert np.array_equal(filled[mask == 0], original[mask == 0])
            assert (filled != original).any(axis=2)[mask == 1].mean() > 0.5
            assert np.array_equal(filled, runner.run(original, mask)[0])

    def test_originals_are_pieces_of_the_photos_on_the_grid_of_jpeg(
        self, tmp_path: Path, photos: PhotoSource
    ) -> None:
        places = set()
        for row in made(tmp_path / "out", photos, num=12).rows:
            photo = read_image(row.photo).pixels
            piece = photo[row.top : row.top + row.height, row.left : row.left + row.width]
            assert np.array_equal(read_image(tmp_path / "out" / row.original).pixels, piece)
            assert (row.top % 8, row.left % 8) == (0, 0)
            places.add((row.top, row.left))
        assert len(places) > 4

    def test_whole_photos_at_their_own_size(self, tmp_path: Path, photos: PhotoSource) -> None:
        for row in made(tmp_path / "out", photos, size=NATIVE).rows:
            photo = read_image(row.photo).pixels
            assert np.array_equal(read_image(tmp_path / "out" / row.original).pixels, photo)
            assert (row.top, row.left, row.height, row.width) == (0, 0, *photo.shape[:2])

    def test_every_photo_is_taken_once_before_any_is_again(
        self, tmp_path: Path, photos: PhotoSource
    ) -> None:
        taken = [row.photo for row in made(tmp_path / "out", photos, num=15).rows]
        assert sorted(taken[:6]) == sorted(taken[6:12]) == sorted(photos.names)
        assert taken[:6] != sorted(taken[:6])
        assert len(made(tmp_path / "each", photos).rows) == 6

    def test_every_filled_picture_is_marked_and_no_other(
        self, tmp_path: Path, photos: PhotoSource
    ) -> None:
        for row in made(tmp_path / "out", photos, num=2).rows:
            xmp = check_file(tmp_path / "out" / row.inpainted)["xmp"]
            assert xmp["source_type"] == COMPOSITE
            assert xmp["tool"].startswith("overpaint ")
            details = (tmp_path / "out" / row.inpainted).read_bytes()
            assert b"filled in by network; receipt: manifest.jsonl" in details
            for other in (row.original, row.mask):
                assert check_file(tmp_path / "out" / other)["xmp"]["source_type"] is None


class TestMasks:
    def test_kinds_are_drawn_alike_and_named(self, tmp_path: Path, photos: PhotoSource) -> None:
        kinds = ["boxes", "brush"]
        rows = made(tmp_path / "out", photos, num=24, masks=kinds, inpainter="mean").rows
        counts = [sum(row.mask_kind == kind for row in rows) for kind in kinds]
        assert sum(counts) == 24
        assert min(counts) > 4
        assert {row.weights_sha256 for row in rows} == {None}

    def test_shapes_of_files_lie_below_the_assets(self, tmp_path: Path, photo_folder: Path) -> None:
        (tmp_path / "assets" / "shapes").mkdir(parents=True)
        Image.fromarray(np.tri(40, dtype=np.uint8) * 255).save(tmp_path / "assets/shapes/a.png")
        how = ["--inpainter", "mean", "--masks", "objects:shapes", "--size", SIZE, "--num", 2]
        out = tmp_path / "out"
        result = run(photo_folder, "--out", out, "--assets", tmp_path / "assets", *how)
        assert result.exit_code == 0, result.output
        line = (out / "manifest.jsonl").read_text().splitlines()[0]
        assert json.loads(line)["mask_kind"] == "objects:shapes"

    def test_empty_masks_are_drawn_again(self, tmp_path: Path, photo_folder: Path) -> None:
        photos = PhotoSource.from_paths([photo_folder])
        rows = made(tmp_path / "out", photos, num=40, size=16, masks=["lama-thick"]).rows
        assert all(0 < row.mask_ratio < 0.9 for row in rows)


class TestAgain:
    def test_the_bytes_are_the_same_whatever_the_number_of_workers(
        self, tmp_path: Path, photos: PhotoSource
    ) -> None:
        for workers in (0, 2):
            made(tmp_path / str(workers), photos, num=6, workers=workers)
        assert content(tmp_path / "0") == content(tmp_path / "2")
        made(tmp_path / "seed", photos, num=6, seed=1)
        other, first = content(tmp_path / "seed"), content(tmp_path / "0")
        assert not [name for name, data in first.items() if data == other[name]]

    def test_what_was_interrupted_is_filled_up(self, tmp_path: Path, photos: PhotoSource) -> None:
        made(tmp_path / "whole", photos, num=6)
        out = tmp_path / "out"

        def stop(done: int, total: int) -> None:
            if done == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            made(out, photos, num=6, progress=stop)
        (out / "inpainted" / "000001.png").unlink()
        with (out / "manifest.jsonl").open("a") as manifest:
            manifest.write('{"index": 3, "se')  # torn, as by a power cut
        before = (out / "inpainted" / "000002.png").stat().st_mtime_ns
        steps: list[int] = []
        made(out, photos, num=6, progress=lambda done, total: steps.append(done))
        assert steps == [3, 4, 5, 6]
        assert content(out) == content(tmp_path / "whole")
        assert (out / "inpainted" / "000002.png").stat().st_mtime_ns == before

    def test_more_are_added(self, tmp_path: Path, photos: PhotoSource) -> None:
        made(tmp_path / "out", photos, num=2)
        first = content(tmp_path / "out" / "inpainted")
        assert len(made(tmp_path / "out", photos, num=5).rows) == 5
        assert first.items() <= content(tmp_path / "out" / "inpainted").items()

    @pytest.mark.parametrize("other", ["inpainter", "weights_sha256", "masks", "size", "seed"])
    def test_another_recipe_is_refused(
        self, tmp_path: Path, photos: PhotoSource, other: str
    ) -> None:
        out = tmp_path / "out"
        made(out, photos, num=1)
        before = content(out)
        changes: dict[str, Any] = {
            "inpainter": {"inpainter": "mean"},
            "masks": {"masks": ["boxes"]},
            "size": {"size": 40},
            "seed": {"seed": 1},
        }.get(other, {})
        if other == "weights_sha256":
            train("network", seed=1)
        with pytest.raises(ConfigError, match=rf"not the same: \w*{other}"):
            made(out, photos, num=1, **changes)
        assert content(out) == before

    def test_a_folder_of_someone_else_is_left_alone(
        self, tmp_path: Path, photos: PhotoSource
    ) -> None:
        path = tmp_path / "out" / "originals" / "mine.png"
        path.parent.mkdir(parents=True)
        path.write_text("mine")
        with pytest.raises(ConfigError, match="not made here"):
            made(tmp_path / "out", photos)
        assert content(tmp_path / "out") == {"originals/mine.png": b"mine"}


class TestFailures:
    def test_bad_photos_do_not_stop_the_rest(self, tmp_path: Path, photo_folder: Path) -> None:
        (photo_folder / "2.jpg").write_bytes(b"no picture")
        Image.fromarray(textured(20, 90, seed=1)).save(photo_folder / "small.png")
        how = ["--inpainter", "network", "--masks", "brush", "--size", SIZE, "--num", 14]
        results = [
            run(photo_folder, "--out", tmp_path / str(n), "--workers", n, *how) for n in (0, 2)
        ]
        for result in results:
            assert result.exit_code == 1
            assert "10 samples in" in result.stdout
            assert re.search(r"2\.jpg: not a photo", result.stderr)
            assert re.search(r"small\.png: 90 x 20 pixels are too few", result.stderr)
            assert "2 could not be used" in result.stderr
        assert content(tmp_path / "0") == content(tmp_path / "2")
        Image.fromarray(textured(70, 90, seed=1)).save(photo_folder / "2.jpg")
        assert run(photo_folder, "--out", tmp_path / "0", *how).stdout.startswith("12 samples")

    def test_what_fails_in_the_inpainter_names_the_photo(
        self, tmp_path: Path, photos: PhotoSource
    ) -> None:
        train("failing")
        done = made(tmp_path / "out", photos, inpainter="failing", num=1)
        assert done.rows == []
        assert re.fullmatch(r".*photos/\d\.\w+: not enough memory", done.problems[0])

    def test_mistakes_are_named_before_anything_is_made(
        self, tmp_path: Path, photos: PhotoSource
    ) -> None:
        for changes, error, message in (
            ({"inpainter": "netwrok"}, WeightsError, "netwrok: there are no such weights"),
            ({"masks": ["brsh"]}, UnknownNameError, "did you mean brush"),
            ({"masks": []}, InputError, "give a kind of mask"),
            ({"num": 0}, InputError, "1 or more samples"),
        ):
            with pytest.raises(error, match=message):
                made(tmp_path / "out", photos, **changes)
        assert not (tmp_path / "out").exists()


class TestCommand:
    def test_results_among_the_photos_are_wrong_use(self, photo_folder: Path) -> None:
        how = ["--inpainter", "mean", "--masks", "brush"]
        for out in (photo_folder, photo_folder / "out"):
            assert run(photo_folder, "--out", out, *how).exit_code == 2
        assert len(list(photo_folder.iterdir())) == 6

    def test_photos_of_one_part(self, tmp_path: Path, photo_folder: Path) -> None:
        kept = split(map(str, photo_folder.iterdir()), "train")
        assert 0 < len(kept) < 6  # or the test would say nothing
        how = ["--inpainter", "mean", "--masks", "brush", "--size", SIZE, "--num", 6]
        result = run(photo_folder, "--out", tmp_path / "out", "--part", "train", *how)
        assert result.exit_code == 0, result.output
        lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
        rows = [Forgery.model_validate_json(line) for line in lines]
        assert {Path(row.photo).name for row in rows} == {Path(name).name for name in kept}

    @pytest.mark.parametrize("missing", ["--inpainter", "--masks", "--out"])
    def test_what_is_needed_is_asked_for(self, photo_folder: Path, missing: str) -> None:
        given = {"--inpainter": "mean", "--masks": "brush", "--out": "out"}
        rest = [part for pair in given.items() if pair[0] != missing for part in pair]
        assert run(photo_folder, *rest).exit_code == 2

    def test_it_has_few_options_and_each_has_help(self) -> None:
        app = typer.Typer()
        app.command()(command)
        options = [p for p in typer.main.get_command(app).params if p.param_type_name == "option"]
        shown = [p for p in options if p.name not in ("install_completion", "show_completion")]
        assert len(shown) < 15
        assert all(p.help for p in shown)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_photo_of_a_set_by_name_keeps_the_part_that_the_set_gives_it(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "img_align_celeba"
    plain = tmp_path / "plain"
    for number, place in enumerate((folder, plain)):
        place.mkdir(parents=True)
        for i in range(1, 41):
            photo = textured(64, 64, seed=100 * number + i)
            Image.fromarray(photo).save(place / f"{i:06}.jpg")
    photos = f"celeba:{tmp_path / 'set'}"
    out = tmp_path / "forged"
    arguments = [photos, plain, "--inpainter", "telea", "--masks", "brush", "--size", 64]
    assert run(*arguments, "--num", 80, "--out", out).exit_code == 0
    seen: set[str] = set()
    for part in ("train", "validation", "test"):
        expected = {shorten_name(n) for n in collect_photos([photos, plain], part).names}
        assert {shorten_name(row.photo) for row in read_forgeries(out, part)} == expected
        seen |= expected
    assert len(seen) == 80
