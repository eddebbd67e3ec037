"""`overpaint synthesize`: what is on disk is what the manifest says, however it came to be."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from overpaint import weights
from overpaint.cli import build
from overpaint.cli.synthesize import synthesize as command
from overpaint.data.autoencoder import conv_autoencoder
from overpaint.data.bank import load_bank
from overpaint.data.degrade import Degrade, History
from overpaint.data.samples import claim
from overpaint.data.sources import PhotoSource
from overpaint.data.synthesize import (
    RETRY,
    UniversalRow,
    list_passed_over,
    read_manifest,
    synthesize,
)
from overpaint.data.universal import LivePairs, UniversalConfig, UniversalDataset, make_mask_mixture
from overpaint.errors import ConfigError, ImageError, WeightsError
from overpaint.images import read_image, read_mask

SIZE, NUM = 32, 6
SMALL = {"width": 4, "latent_channels": 4, "num_blocks": 1}


class StoppedError(Exception):
    pass


def save(folder: Path, name: str, seed: int = 0) -> str:
    torch.manual_seed(seed)
    about = {"data": "none", "recipe": "none", "commit": "none", "licence": "Apache-2.0"}
    record = weights.save_weights(
        folder,
        conv_autoencoder(**SMALL),
        name=name,
        kind="autoencoder",
        architecture="conv-autoencoder",
        config=SMALL,
        **about,  # type: ignore[arg-type]
    )
    return str(record.path)


@pytest.fixture
def member(tmp_path: Path) -> str:
    return save(tmp_path / "bank", "ae-test")


@pytest.fixture
def photos(photo_folder: Path) -> PhotoSource:
    return PhotoSource.from_paths([photo_folder])


def settings(member: str, **changes: Any) -> UniversalConfig:
    return UniversalConfig(**({"size": SIZE, "bank": {member: 1.0}} | changes))


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build(), ["synthesize", *map(str, arguments)])


# The files


def test_files_are_what_the_manifest_says(tmp_path: Path, photos: PhotoSource, member: str) -> None:
    rows = synthesize(tmp_path / "out", photos, settings(member), num=NUM, seed=7)
    assert rows == read_manifest(tmp_path / "out")
    assert [row.image for row in rows] == [f"images/{i:06d}.png" for i in range(NUM)]
    assert [row.mask for row in rows] == [f"masks/{i:06d}.png" for i in range(NUM)]
    names = {"about.json", "manifest.jsonl", *(r.image for r in rows), *(r.mask for r in rows)}
    assert set(content(tmp_path / "out")) == names  # nothing temporary stays
    for i, row in enumerate(rows):
        image, mask = tmp_path / "out" / row.image, tmp_path / "out" / row.mask
        assert hashlib.sha256(image.read_bytes()).hexdigest() == row.image_sha256
        assert hashlib.sha256(mask.read_bytes()).hexdigest() == row.mask_sha256
        grey = np.asarray(Image.open(mask))
        assert grey.shape == read_image(image).pixels.shape[:2] == (row.height, row.width)
        assert set(np.unique(grey)) <= {0, 255}
        assert row.mask_ratio == (grey > 0).mean()
        assert row.redrawn_by == (member if row.mask_ratio else "")
        assert row.source in photos.names
        assert (row.seed, row.index, row.number) == (7, i, i)


def test_a_row_is_enough_to_draw_its_sample_again(
    tmp_path: Path, photos: PhotoSource, member: str
) -> None:
    synthesize(tmp_path / "out", photos, settings(member), num=NUM)
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    config = UniversalConfig.model_validate(about["config"])
    crop = config.degrade.find_margin(config.size)
    pairs = LivePairs(photos, load_bank(config.bank), config.bank, config.history, crop)
    dataset = UniversalDataset(config, pairs, make_mask_mixture(config.masks), about["seed"])
    for row in read_manifest(tmp_path / "out"):
        sample = dataset.sample(row.index)
        assert np.array_equal(sample.pixels, read_image(tmp_path / "out" / row.image).pixels)
        assert np.array_equal(sample.mask, read_mask(tmp_path / "out" / row.mask))
        assert (sample.history, sample.degradations) == (row.history, row.degradations)


def test_outside_the_mask_the_file_is_the_photo(
    tmp_path: Path, photos: PhotoSource, member: str
) -> None:
    plain = {"history": History(probability=0), "degrade": Degrade(probability=0)}
    whole = photos.names.index(next(n for n in photos.names if n.endswith("5.jpg")))
    only = PhotoSource(photos._photos[whole : whole + 1])  # 64 x 64, so that nothing is cut
    config = settings(member, size=64, untouched=0, **plain)
    photo = only.read(0)
    turned = [t for k in range(4) for t in (np.rot90(photo, k), np.rot90(photo, k)[:, ::-1])]
    for row in synthesize(tmp_path / "out", only, config, num=NUM):
        known = read_mask(tmp_path / "out" / row.mask) == 0
        pixels = read_image(tmp_path / "out" / row.image).pixels
        assert any(np.array_equal(pixels[known], t[known]) for t in turned)
        assert not any(np.array_equal(pixels, t) for t in turned)


def test_about_says_what_it_all_depends_on(
    tmp_path: Path, photos: PhotoSource, member: str
) -> None:
    config = settings(member)
    synthesize(tmp_path / "out", photos, config, num=1, seed=3)
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about["config"] == config.model_dump(mode="json")
    assert len(about["config_hash"]) == 12
    assert about["bank_sha256"] == {member: hashlib.sha256(Path(member).read_bytes()).hexdigest()}
    assert about["photos"]["number"] == 6
    assert about["seed"] == 3
    assert about["version"]


def test_same_bytes_whatever_the_number_of_workers(
    tmp_path: Path, photos: PhotoSource, member: str
) -> None:
    config = settings(member, traces={"periodic": 1.0})
    for workers in (0, 2):
        synthesize(tmp_path / str(workers), photos, config, num=NUM, workers=workers)
    assert content(tmp_path / "0") == content(tmp_path / "2")
    synthesize(tmp_path / "seed", photos, config, num=NUM, seed=1)
    other = content(tmp_path / "seed")
    assert not [name for name, data in content(tmp_path / "0").items() if data == other[name]]


def test_one_thread_computes_and_the_number_is_put_back(
    tmp_path: Path, photos: PhotoSource, member: str
) -> None:
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        synthesize(
            tmp_path / "out",
            photos,
            settings(member),
            num=2,
            progress=lambda done, total: seen.append(torch.get_num_threads()),
        )
        assert seen == [1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# Going on


def stopped(folder: Path, photos: PhotoSource, config: UniversalConfig, after: int) -> None:
    def progress(done: int, total: int) -> None:
        if done == after:
            raise StoppedError

    with pytest.raises(StoppedError):
        synthesize(folder, photos, config, num=NUM, progress=progress)


def test_an_interrupted_folder_is_filled_up(
    tmp_path: Path, photos: PhotoSource, member: str
) -> None:
    config, out = settings(member), tmp_path / "out"
    synthesize(tmp_path / "whole", photos, config, num=NUM)
    stopped(out, photos, config, after=3)
    assert [row.number for row in read_manifest(out)] == [0, 1, 2]
    with (out / "manifest.jsonl").open("a") as manifest:
        manifest.write('{"image": "images/0000')  # torn, as by a power cut
    (out / "images" / "000001.png").unlink()
    before = {p.name: p.stat().st_mtime_ns for p in (out / "images").iterdir()}
    marks: list[int] = []
    synthesize(out, photos, config, num=NUM, progress=lambda done, total: marks.append(done))
    assert marks == [3, 4, 5, 6]
    assert content(out) == content(tmp_path / "whole")
    after = {p.name: p.stat().st_mtime_ns for p in (out / "images").iterdir()}
    assert [after[name] for name in before] == list(before.values())


def test_more_samples_are_added(tmp_path: Path, photos: PhotoSource, member: str) -> None:
    config = settings(member)
    synthesize(tmp_path / "out", photos, config, num=2)
    first = content(tmp_path / "out" / "images")
    assert len(synthesize(tmp_path / "out", photos, config, num=NUM)) == NUM
    now = content(tmp_path / "out" / "images")
    assert len(now) == NUM
    assert first.items() <= now.items()
    assert len(synthesize(tmp_path / "out", photos, config, num=1)) == NUM  # never fewer


@pytest.mark.parametrize("other", ["config", "seed", "photos", "bank_sha256"])
def test_samples_made_otherwise_are_refused(
    tmp_path: Path, photos: PhotoSource, member: str, other: str
) -> None:
    config, out, seed = settings(member), tmp_path / "out", 0
    synthesize(out, photos, config, num=1)
    before = content(out)
    if other == "config":
        config = settings(member, untouched=0.5)
    elif other == "seed":
        seed = 1
    elif other == "photos":
        photos = PhotoSource(photos._photos[1:])
    else:
        save(Path(member).parent, "ae-test", seed=1)
    with pytest.raises(ConfigError, match=rf"same: \w*{other}.*choose another folder, or delete"):
        synthesize(out, photos, config, num=1, seed=seed)
    assert content(out) == before


@pytest.mark.parametrize("name", ["images/000000.png", "masks/x.png", "manifest.jsonl"])
def test_a_folder_of_someone_else_is_left_alone(
    tmp_path: Path, photos: PhotoSource, member: str, name: str
) -> None:
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(ConfigError, match="not made here; choose another folder"):
        synthesize(tmp_path / "out", photos, settings(member), num=1)
    assert content(tmp_path / "out") == {name: b"mine"}


# Photos that cannot be read


def test_bad_photos_are_passed_over_and_reported(
    tmp_path: Path, photo_folder: Path, member: str
) -> None:
    (photo_folder / "2.jpg").write_bytes(b"no picture")
    (photo_folder / "3.png").write_bytes((photo_folder / "3.png").read_bytes()[:500])
    arguments = [photo_folder, "--num", 12, "--bank", member, "--size", SIZE]
    results = [run(*arguments, "--out", tmp_path / str(n), "--workers", n) for n in (0, 2)]
    for result in results:
        assert result.exit_code == 1
        assert "12 samples" in result.stdout
        assert "2.jpg" in result.stderr
        assert "3.png" in result.stderr
        assert "2 could not be read" in result.stderr
    assert content(tmp_path / "0") == content(tmp_path / "2")
    rows = read_manifest(tmp_path / "0")
    assert not {"2.jpg", "3.png"} & {Path(row.source).name for row in rows}
    assert len(list_passed_over(rows)) == 2
    again = [row for row in rows if row.passed_over]
    assert again
    assert all(row.index >= RETRY and row.number < 12 for row in again)
    assert all(row.index == row.number for row in rows if not row.passed_over)
    assert run(*arguments, "--out", tmp_path / "0").exit_code == 1  # nothing new, same report


@pytest.mark.parametrize("workers", [0, 1])
def test_no_readable_photo_ends_the_run(
    tmp_path: Path, photo_folder: Path, member: str, workers: int
) -> None:
    for path in photo_folder.iterdir():
        path.write_bytes(b"no picture")
    photos = PhotoSource.from_paths([photo_folder])
    with pytest.raises(ImageError, match=r"(?s)^[^\n]*give other photos$"):
        synthesize(tmp_path / "out", photos, settings(member), num=1, workers=workers)


# The command


def test_recipe_and_options(tmp_path: Path, photo_folder: Path, member: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: any\nloop: {{steps: 3}}\ndata:\n  bank: {{'{member}': 2}}\n  size: 24\n"
        "  untouched: 0\n  degrade: {probability: 0}\n"
    )
    common = ["--config", recipe, "--num", 2]
    result = run(photo_folder, "--out", tmp_path / "a", *common)
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "a" / "about.json").read_text())["config"]
    assert (config["bank"], config["size"], config["untouched"]) == ({member: 2.0}, 24, 0.0)
    options = ["--size", 40, "--masks", "boxes", "--masks", "brush", "--bank", member, "--seed", 5]
    assert run(photo_folder, "--out", tmp_path / "b", *common, *options).exit_code == 0
    about = json.loads((tmp_path / "b" / "about.json").read_text())
    assert about["config"]["masks"] == {"boxes": 1.0, "brush": 1.0}
    assert about["config"]["bank"] == {member: 1.0}
    assert about["config"]["degrade"]["probability"] == 0  # the rest is the recipe's
    assert about["seed"] == 5
    assert {row.width for row in read_manifest(tmp_path / "b")} == {40}


def test_shapes_lie_below_the_assets(tmp_path: Path, photo_folder: Path, member: str) -> None:
    (tmp_path / "assets" / "shapes").mkdir(parents=True)
    Image.fromarray(np.tri(40, dtype=np.uint8) * 255).save(tmp_path / "assets/shapes/a.png")
    where = ["--assets", tmp_path / "assets", "--masks", "keep:shapes"]
    result = run(photo_folder, "--out", tmp_path / "out", "--num", 2, "--bank", member, *where)
    assert result.exit_code == 0, result.output


def test_part_chooses_photos(tmp_path: Path, photo_folder: Path, member: str) -> None:
    arguments = [photo_folder, "--num", 4, "--bank", member, "--size", SIZE]
    assert run(*arguments, "--out", tmp_path / "train", "--part", "train").exit_code == 0
    train = PhotoSource.from_paths([photo_folder], part="train").names
    assert {row.source for row in read_manifest(tmp_path / "train")} <= set(train)
    about = json.loads((tmp_path / "train" / "about.json").read_text())
    assert about["photos"]["number"] == len(train)
    with pytest.raises(ConfigError, match="train, validation, test"):
        raise_error(run(*arguments, "--out", tmp_path / "no", "--part", "tests"))


def raise_error(result: Result) -> None:
    assert result.exception is not None
    raise result.exception


def test_default_bank_is_the_shipped_one_without_the_held_out_member(
    tmp_path: Path, photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights.store, "PRETRAINED", tmp_path / "bank")
    arguments = [photo_folder, "--out", tmp_path / "out", "--num", 1]
    with pytest.raises(WeightsError, match="no autoencoder is shipped"):
        raise_error(run(*arguments))
    for name in ("ae-b", "ae-heldout", "ae-a"):
        save(tmp_path / "bank", name)
    assert run(*arguments).exit_code == 0
    config = json.loads((tmp_path / "out" / "about.json").read_text())["config"]
    assert config["bank"] == {"ae-a": 1.0, "ae-b": 1.0}


def test_mistakes_are_named(tmp_path: Path, photo_folder: Path, member: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {bank: {a: 1}, untuched: 0}\n")
    arguments = [photo_folder, "--out", tmp_path / "out"]
    with pytest.raises(ConfigError, match=r"data\.untuched', did you mean 'data\.untouched'"):
        raise_error(run(*arguments, "--config", recipe))
    with pytest.raises(KeyError, match="brush"):
        raise_error(run(*arguments, "--bank", member, "--masks", "brsh"))
    with pytest.raises(WeightsError, match="ae-nowhere"):
        raise_error(run(*arguments, "--bank", "ae-nowhere"))
    with pytest.raises(ImageError, match="no such file"):
        raise_error(run(tmp_path / "none", "--out", tmp_path / "out", "--bank", member))
    assert run(*arguments, "--num", 0).exit_code == 2
    assert not (tmp_path / "out").exists()


def test_command_has_few_options_and_each_has_help() -> None:
    app = typer.Typer()
    app.command()(command)
    options = [p for p in typer.main.get_command(app).params if p.param_type_name == "option"]
    shown = [p for p in options if p.name not in ("install_completion", "show_completion")]
    assert len(shown) < 15
    assert all(p.help for p in shown)  # type: ignore[attr-defined]


def test_rows_survive_json(tmp_path: Path, photos: PhotoSource, member: str) -> None:
    config = settings(member, degrade=Degrade(probability=1, noise=1, resize=1))
    (row,) = synthesize(tmp_path / "out", photos, config, num=1)
    assert {"resize", "noise"} <= {step.name for step in row.degradations}
    assert UniversalRow.model_validate_json(row.model_dump_json()) == row


def test_a_folder_that_cannot_be_made_or_is_damaged_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="choose another folder"):
        claim(tmp_path / "file", {"seed": 0}, ["images"])
    for content in (b"{", b"[]", b"\xff"):
        (tmp_path / "about.json").write_bytes(content)
        with pytest.raises(ConfigError, match=r"about\.json: .*choose another folder"):
            claim(tmp_path, {"seed": 0}, ["images"])
        assert (tmp_path / "about.json").read_bytes() == content


def test_a_setting_that_is_left_out_is_another_one(tmp_path: Path) -> None:
    claim(tmp_path, {"seed": 0, "device": "cuda"}, ["images"])
    with pytest.raises(ConfigError, match="not the same: device"):
        claim(tmp_path, {"seed": 0}, ["images"])  # the processor's folders do not name it
    claim(tmp_path, {"seed": 0, "device": "cuda"}, ["images"])
