"""`overpaint harden`: its rounds, what is mined, the threshold, and what is held out."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from conftest import textured
from helpers.bright_detectors import calibration, registered, save
from helpers.real_fills import write_fills
from overpaint.benchmark import pages, work
from overpaint.benchmark.hardening.api import HardeningDone, harden
from overpaint.benchmark.hardening.plan import UNTOUCHED, plan_race
from overpaint.benchmark.hardening.recipe import find_overlap, load_hardening
from overpaint.benchmark.hardening.rows import GAIN, MINED, HardeningRow
from overpaint.benchmark.hardening.stages import cut, make_mined
from overpaint.benchmark.hardening.tables import render_markdown, write_plot
from overpaint.benchmark.rows import read_rows
from overpaint.benchmark.stages import FOUND
from overpaint.benchmark.store import Stage
from overpaint.cli import build
from overpaint.data.forgeries import ForgedRow, read_forgeries
from overpaint.data.samples import read_rows as read_samples
from overpaint.data.sources import Place, split
from overpaint.detection.calibration import LOSSLESS, Calibration, average_logits, q99
from overpaint.detection.runner import DetectorRunner
from overpaint.errors import ConfigError, ImageError
from overpaint.evaluation.forge import forge
from overpaint.images import read_image, read_mask
from overpaint.metrics import mean, pixel_auc
from overpaint.registry import detectors, inpainters
from overpaint.weights import list_records, save_weights

SIDE = 64
ROOT = Path(__file__).parents[2]
TINY_STEPS = {
    "steps": 1,
    "batch_size": 2,
    "workers": 0,
    "bf16": False,
    "validate_every": 1,
    "checkpoint_every": 1,
}
RECIPE: dict[str, Any] = {
    "name": "toys",
    "title": "Toys",
    "size": SIDE,
    "rounds": 2,
    "photos": {"source": "photos"},
    "false_alarm_rate": 0.5,
    "untouched": 6,
    "detector": {
        "name": "NIX-Net",
        "weights": "weights/tiny-nixnet.safetensors",
        "recipe": "detector.yaml",
    },
    "adversary": {
        "name": "SafePaint",
        "weights": "weights/tiny-safepaint.safetensors",
        "recipe": "inpainter.yaml",
    },
    "inpainters": {"mean": {"method": "mean"}, "telea": {"method": "telea"}},
    "mining": {"num": 4, "share": 0.5},
    "held_out": {"inpainters": {"plain": {"method": "navier-stokes"}}},
}
DETECTOR = {
    "name": "tiny-nixnet",
    "detector": "nixnet",
    "model": {"widths": [4, 4, 4]},
    "loop": TINY_STEPS,
    "data": {
        "size": SIDE,
        "bank": {"ae-nearest": 1},
        "untouched": 0,
        "history": {"probability": 0},
        "degrade": {"probability": 0},
    },
    "validation_samples": 2,
}
INPAINTER = {
    "name": "tiny-safepaint",
    "inpainter": "safepaint",
    "model": {"width": 4, "num_blocks": 1, "vector_size": 4},
    "loop": TINY_STEPS,
    "data": {"size": SIDE, "masks": {"boxes": 1}},
    "backbone": "none",
    "loss": {
        "perceptual_weight": 0,
        "style_weight": 0,
        "adversarial_weight": 0,
        "second_phase_only": True,
        "detector_weight": 1,
    },
    "validation_photos": 1,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/ with six photos to train on, four to validate and three to test, and real fills."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "photos").mkdir()
    names = [f"photos/{i}.png" for i in range(300)]
    for part, num in {"train": 6, "validation": 4, "test": 3}.items():
        for name in split(names, part)[:num]:  # type: ignore[arg-type]
            seed = int(Path(name).stem)
            Image.fromarray(textured(SIDE + 8, SIDE + 16, seed)).save(folder / name)
    entries = [("a", "dev", "gan", "s"), ("b", "dev", "flow", "t"), ("c", "train", "old", "u")]
    write_fills(folder / "fills", *entries)
    return folder


def write_recipe(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """The recipe with its trainings and the weights that it starts from."""
    made = folder / "weights"
    if not made.is_dir():
        about = {"data": "-", "recipe": "-", "commit": "-", "licence": "Apache-2.0"}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for kind, registry, recipe in (
                ("detector", detectors, DETECTOR),
                ("inpainter", inpainters, INPAINTER),
            ):
                name, config = str(recipe[kind]), dict(recipe["model"])  # type: ignore[call-overload]
                how = {"name": f"tiny-{name}", "kind": kind, "architecture": name}
                model = registry.create(name, **config)  # type: ignore[attr-defined]
                save_weights(made, model, config=config, **how, **about)  # type: ignore[arg-type]
        (folder / "detector.yaml").write_text(yaml.safe_dump(DETECTOR))
        (folder / "inpainter.yaml").write_text(yaml.safe_dump(INPAINTER))
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE | (changes or {}), sort_keys=False))
    return path


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[Path, HardeningDone]:
    """A folder with the recipe, out/ and cache/, and what two rounds gave."""
    folder = tmp_path_factory.mktemp("race")
    held_out = {**RECIPE["held_out"], "fills": "fills"}
    path = write_recipe(folder, {"held_out": held_out})
    return folder, harden(path, data, folder / "out", cache=folder / "cache")


def find(rows: list[HardeningRow], **wanted: Any) -> HardeningRow:
    (row,) = [r for r in rows if all(getattr(r, k) == v for k, v in wanted.items())]
    return row


# A whole race


@pytest.mark.slow
def test_every_round_measures_both_sides(raced: tuple[Path, HardeningDone]) -> None:
    folder, done = raced
    assert done.num_failed == 0, {row.error for row in done.rows}
    loop = {"mean", "telea", *(f"SafePaint, round {k}" for k in range(3))}
    apart = {"plain", "real fills: gan", "real fills: flow"}
    for number in range(3):
        rows = [r for r in done.rows if r.round == number and r.side == "detector" and r.group]
        looked = {r.inpainter: r.held_out for r in rows if r.metric == "auc"}
        assert looked == dict.fromkeys(loop, "no") | dict.fromkeys(apart, "yes")
        alarms = find(rows, inpainter=UNTOUCHED, metric=FOUND)
        assert (alarms.n, alarms.held_out) == (6, "")
        quality = [r for r in done.rows if r.side == "inpainter" and r.round == number]
        assert {r.metric for r in quality} == {"psnr", "ssim"}
    row = find(done.rows, inpainter="telea", metric="auc", round=1)
    assert (row.n, row.table, row.config_hash, row.steps) == (3, "toys", done.recipe.hash, "1")
    assert done.recipe.model_copy(update={"notes": ("Another.",)}).hash == done.recipe.hash
    assert row.ci_low <= row.value <= row.ci_high
    assert len(row.detector_sha256) == len(row.calibration_sha256) == len(row.data_hash) == 64
    assert row.commit
    before = find(done.rows, inpainter="telea", metric="auc", round=0)
    assert (before.steps, before.training) == ("", "as given")
    assert before.detector_sha256 != row.detector_sha256
    read = read_rows(folder / "out" / "rows.csv", HardeningRow)
    assert [(r.round, r.side, r.metric) for r in read] == [
        (r.round, r.side, r.metric) for r in done.rows
    ]


def test_means_and_gains_are_those_of_the_pictures(raced: tuple[Path, HardeningDone]) -> None:
    _, done = raced
    names = ("mean", "telea", "SafePaint, round 0")
    for number in (0, 2):
        of_each = [find(done.rows, inpainter=n, metric="auc", round=number) for n in names]
        all_of_them = find(done.rows, inpainter="all in the loop", metric="auc", round=number)
        assert all_of_them.value == pytest.approx(mean(r.value for r in of_each))
        assert all_of_them.n == 9
    values = [find(done.rows, inpainter="telea", metric="auc", round=k).value for k in (0, 2)]
    gain = find(done.rows, inpainter="telea", metric=f"{GAIN}auc", round=2)
    assert gain.value == pytest.approx(values[1] - values[0])
    assert gain.ci_low <= gain.value <= gain.ci_high


def test_weights_of_every_round_are_given_with_their_thresholds(
    raced: tuple[Path, HardeningDone],
) -> None:
    folder, done = raced
    records = {r.name: r for r in list_records(folder / "out" / "weights")}
    assert set(records) == {
        *("tiny-nixnet", "tiny-nixnet-round-1", "tiny-nixnet-round-2"),
        *("tiny-safepaint-round-1", "tiny-safepaint-round-2"),
    }
    last = DetectorRunner(folder / "out" / "weights" / "tiny-nixnet-round-2.safetensors")
    assert last.calibration is not None
    row = find(done.rows, inpainter="telea", metric="auc", round=2)
    assert row.detector_sha256 == last.weights_sha256
    assert row.calibration_sha256 == last.calibration_sha256
    second = records["tiny-nixnet-round-2"]
    assert second.parents[0].name == "tiny-nixnet-round-1"
    assert records["tiny-safepaint-round-1"].parents[0].name == "tiny-safepaint"
    assert "forgeries by SafePaint" in second.data
    filled = find(done.rows, inpainter="SafePaint, round 1", metric="auc", round=0)
    assert filled.inpainter_sha256 == records["tiny-safepaint-round-1"].sha256


def test_the_threshold_is_fitted_at_the_same_rate_in_every_round(
    raced: tuple[Path, HardeningDone], data: Path
) -> None:
    folder, _ = raced
    race = plan_race(load_hardening(folder / "recipe.yaml"), folder, data, folder / "cache")
    for model in race.detectors:
        assert model.stage is not None
        (record,) = list_records(folder / "cache" / "calibrated" / model.stage.key)
        band = Calibration.load(record.folder / str(record.calibration)).bands[LOSSLESS]
        runner = DetectorRunner(record.path)
        pieces = model.stage.places["pieces"]
        logits = (runner.logits(piece.read()[0].pixels) for piece in pieces)
        values = np.array([q99(average_logits(x, 13)) for x in logits])
        assert band.false_alarm_rate == 0.5
        assert np.mean(values >= band.threshold_logit) <= 0.5
        assert np.mean(values >= band.threshold_logit - 1e-3) > 0.3  # and not much lower


def test_what_is_held_out_is_in_no_training(raced: tuple[Path, HardeningDone], data: Path) -> None:
    """Not in the graph, and not in what was mined."""
    folder, _ = raced
    race = plan_race(load_hardening(folder / "recipe.yaml"), folder, data, folder / "cache")

    def below(stage: Stage) -> Iterator[Stage]:
        yield stage
        for needed in stage.needs.values():
            yield from below(needed)

    made = [m.stage for m in race.adversaries if m.stage is not None]
    assert len(race.trained) == len(made) == 2
    for stage in (*race.trained, *made):
        used = [s for s in below(stage) if s.kind == "fills"]
        assert used
        assert not any(s.settings["inpainter"].get("method") == "navier-stokes" for s in used)
        assert not any("test" in s.needs for s in used)
    for stage in race.mined:
        rows = read_samples(folder / "cache" / "mined" / stage.key, ForgedRow)
        assert {r.inpainter for r in rows} <= {"mean", "telea", *race_names()}
        assert {r.part for r in rows} == {"train", "validation"}


def race_names() -> list[str]:
    return [f"SafePaint, round {k}" for k in range(3)]


def test_a_finished_race_is_not_run_again(raced: tuple[Path, HardeningDone], data: Path) -> None:
    folder, done = raced
    again = harden(folder / "recipe.yaml", data, folder / "again", cache=folder / "cache")
    text = (folder / "again" / "rows.csv").read_text()
    assert text == (folder / "out" / "rows.csv").read_text()
    assert len(again.rows) == len(done.rows)


def test_the_tables_and_the_plot(raced: tuple[Path, HardeningDone], tmp_path: Path) -> None:
    folder, done = raced
    text = (folder / "out" / "table.md").read_text()
    value = find(done.rows, inpainter="plain", metric="auc", round=0).value
    assert f"| plain | yes | 3 | {value:.3f} |" in text
    made = {r.inpainter: r for r in done.rows if r.metric == MINED and r.round == 1}
    assert sum(r.value * r.n for r in made.values()) == pytest.approx(
        round(0.5 * sum(r.n for r in made.values()))
    )
    first = write_plot(done.recipe, done.rows, tmp_path / "first.png").read_bytes()
    assert first == (folder / "out" / "rounds.png").read_bytes()
    rows = read_rows(folder / "out" / "rows.csv", HardeningRow)
    assert render_markdown(done.recipe, rows) == text


def test_a_page_shows_the_committed_rows(
    raced: tuple[Path, HardeningDone], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = raced
    (tmp_path / "recipes").mkdir()
    (tmp_path / "results" / "tables").mkdir(parents=True)
    recipe, rows = tmp_path / "recipes" / "toys.yaml", tmp_path / "results" / "tables" / "toys.csv"
    recipe.write_bytes((folder / "recipe.yaml").read_bytes())
    rows.write_bytes((folder / "out" / "rows.csv").read_bytes())
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- hardening:toys -->\n<!-- /hardening -->\nafter\n")
    assert pages.main([str(page), "--root", str(tmp_path), "--check"]) == 1
    assert pages.main([str(page), "--root", str(tmp_path)]) == 0
    assert "\n### Pixel AUC\n" in page.read_text()
    recipe.write_text(recipe.read_text().replace("Toys", "Other toys"))
    assert pages.main([str(page), "--root", str(tmp_path), "--check"]) == 1
    assert "another configuration" in capsys.readouterr().err


# Interruptions and failures


@pytest.mark.slow
def test_an_interrupted_race_goes_on_where_it_was(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_recipe(tmp_path, {"rounds": 1})
    ran, kinds = work.run_stage, []

    def stopping(stage: Any, *rest: Any) -> Any:
        kinds.append(stage.kind)
        if stage.kind == "inpainter" and len(kinds) < 100:
            raise KeyboardInterrupt
        return ran(stage, *rest)

    monkeypatch.setattr("overpaint.benchmark.running.run_stage", stopping)
    with pytest.raises(KeyboardInterrupt):
        harden(path, data, tmp_path / "out", cache=tmp_path / "cache")
    assert kinds.count("detector") == 1
    kinds[:] = ["-"] * 100
    done = harden(path, data, tmp_path / "out", cache=tmp_path / "cache")
    assert done.num_failed == 0
    assert kinds.count("inpainter") == 1
    assert not {"detector", "mined", "reconstructions"} & set(kinds)


@pytest.mark.slow
def test_what_is_missing_fails_alone(tmp_path: Path, data: Path) -> None:
    apart = {"gone": {"weights": "weights/gone.safetensors"}, "plain": {"method": "navier-stokes"}}
    path = write_recipe(tmp_path, {"rounds": 1, "held_out": {"inpainters": apart}})
    args = ["harden", str(path), "--data", str(data), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(build(), [*args, "--cache", str(tmp_path / "cache")])
    assert result.exit_code == 1
    rows = read_rows(tmp_path / "out" / "rows.csv", HardeningRow)
    failed = [r for r in rows if r.error]
    assert {(r.inpainter, r.held_out) for r in failed} == {("gone", "yes")}
    assert all("gone" in r.error and math.isnan(r.value) for r in failed)
    assert not math.isnan(find(rows, inpainter="plain", metric="auc", round=1).value)
    assert "| gone | yes | 0 | failed | failed |" in (tmp_path / "out" / "table.md").read_text()


def test_the_plan_makes_nothing(tmp_path: Path, data: Path) -> None:
    path = write_recipe(tmp_path)
    args = ["harden", str(path), "--data", str(data), "--cache", str(tmp_path / "cache"), "--plan"]
    result = CliRunner().invoke(build(), args)
    assert result.exit_code == 0
    assert "training of SafePaint, round 2" in result.output
    assert not list((tmp_path / "cache").glob("*/*/made.json"))


# What is held out


@pytest.mark.parametrize(
    ("held_out", "named"),
    [
        ({"inpainters": {"telea": {"method": "navier-stokes"}}}, "telea"),
        ({"inpainters": {"other": {"method": "telea"}}}, "telea"),
        ({"inpainters": {"Mean": {"method": "navier-stokes"}}}, "mean"),
        ({"inpainters": {"mine": {"weights": "weights/copy.safetensors"}}}, "SafePaint"),
        ({"fills": "fills"}, "SafePaint"),
    ],
)
def test_a_recipe_with_a_held_out_generator_in_the_loop_is_refused(
    tmp_path: Path, data: Path, held_out: dict[str, Any], named: str
) -> None:
    """By its name in the recipe, what it is, other letters, the same content, and its family."""
    path = write_recipe(tmp_path, {"held_out": held_out})
    for suffix in ("json", "safetensors"):
        source = tmp_path / "weights" / f"tiny-safepaint.{suffix}"
        text = source.read_bytes().replace(b'"tiny-safepaint"', b'"copy"')
        (tmp_path / "weights" / f"copy.{suffix}").write_bytes(
            text.replace(b"tiny-safepaint.safetensors", b"copy.safetensors")
        )
    mine = tmp_path / "data"
    (mine / "photos").mkdir(parents=True)
    for photo in (data / "photos").iterdir():
        (mine / "photos" / photo.name).write_bytes(photo.read_bytes())
    write_fills(mine / "fills", ("a", "dev", "safe-paint", "s"))
    with pytest.raises(ConfigError, match=f"in the loop.*{named}"):
        harden(path, mine, tmp_path / "out", cache=tmp_path / "cache")
    assert not (tmp_path / "out").exists()


def test_a_detector_that_knows_what_is_held_out_is_refused(tmp_path: Path, data: Path) -> None:
    path = write_recipe(tmp_path, {"held_out": {"fills": "fills"}})
    record = tmp_path / "weights" / "tiny-nixnet.json"
    values = json.loads(record.read_text())
    record.write_text(json.dumps(values | {"families": ["flow"]}))
    with pytest.raises(ConfigError, match="flow is in the loop, as training data of tiny-nixnet"):
        harden(path, data, tmp_path / "out", cache=tmp_path / "cache")
    record.write_text(json.dumps(values))
    own = {**RECIPE["detector"], "set": {"fills.share": 0.25}}
    path = write_recipe(tmp_path, {"held_out": {"fills": "fills"}, "detector": own})
    with pytest.raises(ConfigError, match=r"fills\.share 0\.25"):
        harden(path, data, tmp_path / "out", cache=tmp_path / "cache")


def test_an_adversary_without_a_detector_is_refused(tmp_path: Path, data: Path) -> None:
    for values in ({"inpainter": "lama"}, {"loss.detector_weight": 0}):
        path = write_recipe(tmp_path, {"adversary": {**RECIPE["adversary"], "set": values}})
        with pytest.raises(ConfigError, match="set that weight above 0"):
            harden(path, data, tmp_path / "out", cache=tmp_path / "cache")


def test_names_that_differ_in_letters_alone_are_one() -> None:
    assert find_overlap({"a": {"DeepFill_v1"}}, {"b": {"deepfillv1"}}) is not None
    assert find_overlap({"a": {"deepfill_v2"}}, {"b": {"deepfillv1"}}) is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"mining": {"num": 4, "by": "image:auc"}}, "one picture"),
        ({"photos": {"source": "photos", "fit": "crop"}}, "native"),
        ({"inpainters": {"x": {"recipe": "x.yaml"}}}, "not trained"),
        ({"rounds": 0}, "rounds"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        load_hardening(write_recipe(tmp_path, changes))


def test_triplets_are_held_out_by_network(tmp_path: Path, data: Path) -> None:
    """Those of a JPEG file are left out, as the threshold is fitted for lossless pictures."""
    mine = tmp_path / "data"
    (mine / "triplets").mkdir(parents=True)
    (mine / "photos").symlink_to(data / "photos", target_is_directory=True)
    lines = ["method,id,original,mask,inpainted"]
    for number, (method, suffix) in enumerate(
        [("madf", "png"), ("madf", "jpg"), ("crfill", "png")]
    ):
        paths = [f"triplets/{kind}{number}.png" for kind in ("original", "mask")]
        paths.append(f"triplets/inpainted{number}.{suffix}")
        for path in paths:
            Image.fromarray(textured(SIDE, SIDE, number)).save(mine / path)
        lines.append(",".join([method, f"picture{number}", *paths]))
    (mine / "triplets" / "index.csv").write_text("\n".join(lines) + "\n")
    path = write_recipe(tmp_path, {"held_out": {"triplets": True}})
    race = plan_race(load_hardening(path), tmp_path, mine, tmp_path / "cache")
    first = {look.generator: look for look in race.looks if look.round == 0}
    names = {"triplets: madf": 1, "triplets: crfill256": 1, "originals of the triplets": 2}
    for name, num in names.items():
        pictures = first[name].cell.scores.places["pairs"]
        assert len(pictures) == num
        assert all(p.forged == name.startswith("triplets") for p in pictures)
    loop = {"CA": {"weights": "weights/ca.safetensors"}}
    source = tmp_path / "weights" / "tiny-safepaint.json"
    values = {"architecture": "deepfill_v1", "name": "ca", "file": "ca.safetensors"}
    record = json.loads(source.read_text()) | values
    (tmp_path / "weights" / "ca.json").write_text(json.dumps(record))
    content = source.with_suffix(".safetensors").read_bytes()
    (tmp_path / "weights" / "ca.safetensors").write_bytes(content + b" ")
    path = write_recipe(tmp_path, {"held_out": {"triplets": True}, "inpainters": loop})
    with pytest.raises(ConfigError, match="the real fills of deepfillv1 is in the loop, as CA"):
        plan_race(load_hardening(path), tmp_path, mine, tmp_path / "cache")


# Single stages


def test_the_fills_that_the_detector_does_worst_on_are_mined(tmp_path: Path, data: Path) -> None:
    """A detector of brightness, against the AUC worked out by hand."""
    from overpaint.data.sources import PhotoSource

    photos = PhotoSource.from_paths([data / "photos"])
    parts = {n: p for p in ("train", "validation") for n in split(photos.names, p)}  # type: ignore[arg-type]
    folders = {}
    for name in ("mean", "telea"):
        folder = tmp_path / name
        forge(folder, photos, name, ["boxes"], num=12, size=SIDE, part_of=parts.get)  # type: ignore[arg-type]
        folders[f"fills {name}"] = folder
    with registered(tmp_path):
        record = save(tmp_path / "detector", "steep", gain=40, fitted=calibration())
        folders["detector"] = record.folder
        settings = {"by": "auc", "share": 0.25, "processing": [], "of": "inpainted"}
        (out := tmp_path / "mined").mkdir()
        info = make_mined(Stage("mined", "-", settings), folders, out, "cpu")
        runner = DetectorRunner(record.path)
        by_hand = []
        for name in ("mean", "telea"):
            folder = folders[f"fills {name}"]
            for row in read_samples(folder, ForgedRow):
                if row.part == "train":
                    pixels = read_image(folder / row.inpainted).pixels
                    mask = read_mask(folder / row.mask, size=(SIDE, SIDE))
                    auc = pixel_auc(runner.logits(pixels), mask)
                    by_hand.append((auc, name, (folder / row.inpainted).read_bytes()))
    by_hand.sort(key=lambda each: each[0])
    lowest = by_hand[: info["num"]]
    assert info["num"] == round(0.25 * len(by_hand)) > 1
    assert lowest[-1][0] < by_hand[info["num"]][0]
    rows = read_forgeries(out, "train")
    assert [(out / r.inpainted).read_bytes() for r in rows] == [each[2] for each in lowest]
    assert [r.inpainter for r in rows] == [each[1] for each in lowest]
    assert info["mined"]["mean"][0] == sum(each[1] == "mean" for each in lowest)
    assert sum(made for _, made in info["mined"].values()) == len(by_hand)
    assert len(read_forgeries(out, "validation")) == sum(
        row.part == "validation"
        for role, folder in folders.items()
        if role.startswith("fills")
        for row in read_samples(folder, ForgedRow)
    )


def test_pieces_are_cut_on_the_grid_of_jpeg(tmp_path: Path) -> None:
    pixels = textured(100, 130, seed=3)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    place = Place(str(tmp_path / "photo.png"), "", str(tmp_path / "photo.png"))
    places = set()
    for piece in cut([place], 20, 64, seed=1):
        photo, mask = piece.read()
        (top, left) = next(
            (y, x)
            for y in range(37)
            for x in range(67)
            if np.array_equal(pixels[y : y + 64, x : x + 64], photo.pixels)
        )
        assert top % 8 == left % 8 == 0
        assert not mask.any()
        places.add((top, left))
    assert len(places) > 5
    with pytest.raises(ImageError, match="too few"):
        cut([place], 1, 128, seed=1)[0].read()


@pytest.mark.slow
@pytest.mark.tables
def test_the_recipe_runs_at_the_scale_smoke(tmp_path: Path, data: Path) -> None:
    path = ROOT / "recipes" / "harden.yaml"
    done = harden(path, data, tmp_path / "out", cache=tmp_path / "cache", scale="smoke")
    assert done.num_failed == 0, {row.error for row in done.rows}
    assert find(done.rows, inpainter="LaMa", metric="auc", round=1).held_out == "yes"


@pytest.mark.parametrize("scale", ["smoke", "lite"])
def test_the_recipe_reads_at_every_scale(scale: str) -> None:
    recipe = load_hardening(ROOT / "recipes" / "harden.yaml", scale)
    assert recipe.scale == scale
    assert not set(recipe.inpainters) & set(recipe.held_out.inpainters)
