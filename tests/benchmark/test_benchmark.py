"""`overpaint benchmark`: the matrix, its cache, failures, and intervals over inpainters."""

import math
import zipfile
from collections.abc import Iterator
from dataclasses import replace
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
from overpaint.benchmark import pages, plots, work
from overpaint.benchmark import rows as benchmark_rows
from overpaint.benchmark.api import Done, benchmark, estimate_run
from overpaint.benchmark.plan import hash_truth, plan
from overpaint.benchmark.recipe import Recipe
from overpaint.benchmark.rendering import render_markdown
from overpaint.benchmark.rows import (
    ALL,
    OVER_BOTH,
    UNSEEN,
    BenchmarkRow,
    publish_rows,
    read_rows,
    write_rows,
)
from overpaint.cli import build
from overpaint.data.autoencoder import conv_autoencoder
from overpaint.data.pair_sets import MaskRule, Pair
from overpaint.data.sources import split
from overpaint.errors import ConfigError, InputError
from overpaint.inpainting.inpainter_runner import InpainterRunner
from overpaint.metrics import bootstrap, bootstrap_levels, mean
from overpaint.weights import save_weights

SIDE = 64


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/ with four photos to train on, three to validate and five to test."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "photos").mkdir()
    wanted = {"train": 4, "validation": 3, "test": 5}
    names = [f"photos/{i}.png" for i in range(300)]
    for part, num in wanted.items():
        for name in split(names, part)[:num]:  # type: ignore[arg-type]
            seed = int(Path(name).stem)
            Image.fromarray(textured(SIDE + 8, SIDE + 16, seed)).save(folder / name)
    return folder


@pytest.fixture
def toys(tmp_path: Path) -> Iterator[Path]:
    """weights/ with calibrated and uncalibrated detectors, and one that fails."""
    with registered(tmp_path):
        folder = tmp_path / "weights"
        save(folder, "steep", gain=40, fitted=calibration())
        save(folder, "flat", gain=4)
        save(folder, "judge", "judge")
        save(folder, "fails", "fails")
        yield folder


RECIPE: dict[str, Any] = {
    "name": "toys",
    "title": "Toys",
    "size": SIDE,
    "photos": {"all": {"source": "photos"}},
    "inpainters": {"mean": {"method": "mean"}, "telea": {"method": "telea"}},
    "detectors": {"steep": {"weights": "weights/steep.safetensors"}},
    "metrics": ["iou@0.5", "auc"],
    "views": [
        {
            "title": "AUC",
            "rows": ["detector"],
            "columns": ["inpainter"],
            "where": {"metric": ["auc"]},
        }
    ],
}


def measure(toys: Path, data: Path, recipe: dict[str, Any] | None = None, **how: Any) -> Done:
    """The recipe, changed where told, beside the weights."""
    path = toys.parent / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE | (recipe or {}), sort_keys=False))
    how = {"out": toys.parent / "out", "cache": toys.parent / "cache"} | how
    return benchmark(path, data, **how)


def made(toys: Path, data: Path, recipe: dict[str, Any] | None = None, **how: Any) -> list[str]:
    """The kinds of what is made on the way."""
    lines: list[str] = []
    ran = work.run_stage

    def noting(stage: Any, *rest: Any) -> Any:
        lines.append(stage.kind)
        return ran(stage, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("overpaint.benchmark.running.run_stage", noting)
        measure(toys, data, recipe, **how)
    return sorted(lines)


def find(rows: list[BenchmarkRow], **wanted: str) -> BenchmarkRow:
    (row,) = [r for r in rows if all(r.get_coordinate(k) == v for k, v in wanted.items())]
    return row


def test_a_row_says_what_it_is_and_where_it_comes_from(toys: Path, data: Path) -> None:
    done = measure(toys, data)
    row = find(done.rows, detector="steep", inpainter="telea", metric="auc")
    assert (row.n, row.error, row.interval) == (5, "", "pictures")
    assert row.ci_low <= row.value <= row.ci_high
    assert len(row.detector_sha256) == len(row.calibration_sha256) == len(row.data_hash) == 64
    assert row.config_hash == done.recipe.hash
    assert row.commit
    assert read_rows(toys.parent / "out" / "rows.csv")[0].table == "toys"
    text = (toys.parent / "out" / "table.md").read_text()
    assert "| detector | mean | telea |" in text
    assert f"| steep | {find(done.rows, inpainter='mean', metric='auc').value:.3f} |" in text


def test_figures_are_those_of_the_pictures(toys: Path, data: Path) -> None:
    """Against the metrics computed by hand from the forged folder."""
    from overpaint.data.forgeries import ForgedRow
    from overpaint.data.samples import read_rows as read_samples
    from overpaint.detection.runner import DetectorRunner
    from overpaint.images import read_image, read_mask
    from overpaint.metrics import pixel_auc

    done = measure(toys, data)
    runner = DetectorRunner(toys / "steep.safetensors")
    by_hand = {}
    for folder in (toys.parent / "cache" / "fills").iterdir():
        rows = read_samples(folder, ForgedRow)
        by_hand[rows[0].inpainter] = [
            pixel_auc(
                runner.logits(read_image(folder / r.inpainted).pixels),
                read_mask(folder / r.mask, size=(SIDE, SIDE)),
            )
            for r in rows
        ]
    for name, values in by_hand.items():
        row = find(done.rows, inpainter=name, metric="auc")
        assert row.value == pytest.approx(mean(values))
        assert (row.ci_low, row.ci_high) == pytest.approx(bootstrap(values))
    both = find(done.rows, inpainter=ALL, metric="auc")
    assert both.interval == OVER_BOTH
    assert both.value == pytest.approx(mean(map(mean, by_hand.values())))
    groups = [dict(enumerate(by_hand[name])) for name in ("mean", "telea")]
    assert (both.ci_low, both.ci_high) == pytest.approx(bootstrap_levels(groups))


def test_only_what_changed_is_made_again(toys: Path, data: Path) -> None:
    first = made(toys, data)
    assert first == ["fills"] * 2 + ["heatmaps"] * 2 + ["photos"] + ["scores"] * 2
    assert made(toys, data) == []
    assert made(toys, data, {"metrics": ["auc", "f1@0.5"]}) == ["scores"] * 2
    two = {**RECIPE["detectors"], "flat": {"weights": "weights/flat.safetensors"}}
    assert made(toys, data, {"detectors": two}) == ["heatmaps"] * 2 + ["scores"] * 2
    save(toys, "steep", gain=30)
    assert made(toys, data) == ["heatmaps"] * 2 + ["scores"] * 2
    more = {**RECIPE["inpainters"], "plain": {"method": "navier-stokes"}}
    assert made(toys, data, {"inpainters": more}) == ["fills", "heatmaps", "scores"]
    assert made(toys, data, {"seed": 1}) == first[:-3] + ["scores"] * 2


def test_results_of_another_device_are_kept_apart_and_named(
    toys: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="not supported; give cpu or cuda"):
        measure(toys, data, device="meta")
    assert not (toys.parent / "cache").exists(), "said before anything is made"
    first = made(toys, data)
    # A card as the recipes see it; the processor stands in for it.
    monkeypatch.setattr("overpaint.benchmark.running.find_device", lambda _: torch.device("cuda"))
    ran, asked = work.run_stage, []

    def run_here(stage: Any, folders: Any, out: Path, device: str) -> dict[str, Any]:
        asked.append(device)
        return ran(stage, folders, out, "cpu")

    monkeypatch.setattr("overpaint.benchmark.running.run_stage", run_here)
    rows = measure(toys, data, device="cuda:0").rows
    assert asked == ["cuda:0"] * len(first)
    assert {row.device for row in rows} == {"cuda"}
    assert made(toys, data, device="cuda:1") == [], "of the same kind"
    assert {row.device for row in measure(toys, data).rows} == {""}


def test_a_photo_that_changed_is_another_one(toys: Path, data: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / "photos").mkdir(parents=True)
    for path in (data / "photos").iterdir():
        (mine / "photos" / path.name).write_bytes(path.read_bytes())
    before = measure(toys, data).rows[0].data_hash
    assert made(toys, mine) == []  # the same photos in another place
    (name, *_) = split([f"photos/{p.name}" for p in (mine / "photos").iterdir()], "test")
    Image.fromarray(textured(SIDE, SIDE, 999)).save(mine / name)
    assert "fills" in made(toys, mine)
    assert measure(toys, mine).rows[0].data_hash != before


def test_a_failing_cell_is_a_row_with_its_error(toys: Path, data: Path) -> None:
    detectors = {
        **RECIPE["detectors"],
        "fails": {"weights": "weights/fails.safetensors"},
        "nowhere": {"weights": "weights/nowhere.safetensors"},
    }
    done = measure(toys, data, {"detectors": detectors})
    broken = find(done.rows, detector="fails", inpainter="mean", metric="auc")
    assert math.isnan(broken.value)
    assert "not enough memory" in broken.error
    missing = find(done.rows, detector="nowhere", inpainter="mean", metric="auc")
    assert "nowhere" in missing.error
    assert find(done.rows, detector="steep", inpainter="mean", metric="auc").error == ""
    assert done.num_failed == 8
    text = (toys.parent / "out" / "table.md").read_text()
    assert "| fails | failed | failed |" in text
    assert "not enough memory" in text
    # They are tried again, unless an earlier run is only to be ended.
    assert made(toys, data, {"detectors": detectors}) == ["heatmaps"] * 2 + ["missing"]
    assert made(toys, data, {"detectors": detectors}, resume=True) == []


def test_an_inpainter_that_fails_costs_its_own_cells_and_the_mean(toys: Path, data: Path) -> None:
    inpainters = {"gone": {"weights": "weights/gone.safetensors"}, **RECIPE["inpainters"]}
    recipe = {"inpainters": inpainters, "metrics": ["auc", "image:auc"], "views": []}
    detectors = {"judge": {"weights": "weights/judge.safetensors"}}
    rows = measure(toys, data, {**recipe, "detectors": detectors}).rows
    assert "gone" in find(rows, inpainter="gone", metric="auc").error
    for metric in ("auc", "image:auc"):  # the untouched pictures are those of another
        assert not math.isnan(find(rows, inpainter="telea", metric=metric).value)
    mean_row = find(rows, inpainter=ALL, metric="auc")
    assert mean_row.error == "no mean: failed with gone"
    assert math.isnan(mean_row.value)


def test_there_is_no_mean_where_an_inpainter_has_no_number(
    toys: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = benchmark_rows._list_values

    def lacking(scores: Any) -> Any:
        found = ran(scores)
        if not calls:  # of the first inpainter
            found["auc"] = dict.fromkeys(found["auc"], math.nan)
        calls.append(scores)
        return found

    calls: list[Any] = []
    monkeypatch.setattr(benchmark_rows, "_list_values", lacking)
    row = find(measure(toys, data).rows, inpainter=ALL, metric="auc")
    assert math.isnan(row.value)
    assert (math.isnan(row.ci_low), row.interval, row.n) == (True, "", 5)


def test_there_is_no_mean_over_a_choice_of_inpainters(toys: Path, data: Path) -> None:
    rows = measure(toys, data, only=["inpainter=*a*"]).rows  # both
    assert {r.inpainter for r in rows} == {"mean", "telea"}
    rows = measure(toys, data, only=["detector=steep"]).rows
    assert ALL in {r.inpainter for r in rows}


def test_an_autoencoder_that_changed_makes_its_stages_old(
    toys: Path, data: Path, tmp_path: Path
) -> None:
    """One that is no shipped one, named by its file."""
    about: dict[str, Any] = dict.fromkeys(("data", "recipe", "commit", "licence"), "-")
    config = {"width": 4, "depth": 1, "latent_channels": 4, "num_blocks": 1}
    bank = "bank: {" + str(tmp_path / "mine.safetensors") + ": 1}"
    recipe = RECIPE | {"detectors": {"tiny": {"recipe": "tiny.yaml"}}}
    text = TRAINED.replace("bank: {none: 1}", bank) + "cache: {num: 2}"
    (toys.parent / "tiny.yaml").write_text(text)
    keys = []
    for seed in range(2):
        torch.manual_seed(seed)
        save_weights(
            tmp_path, conv_autoencoder(**config), name="mine", kind="autoencoder", config=config,
            architecture="conv-autoencoder", **about,
        )  # fmt: skip
        (cell, *_) = plan(Recipe.model_validate(recipe), toys.parent, data, toys.parent / "cache")
        (training,) = [s for s in cell.list_stages() if s.kind == "detector"]
        keys.append((training.key, training.needs["reconstructions"].key))
    assert keys[0][0] != keys[1][0]
    assert keys[0][1] != keys[1][1]


@pytest.mark.parametrize("error", [KeyError("x"), zipfile.BadZipFile("x"), AssertionError("x")])
def test_no_kind_of_error_costs_the_other_cells(
    toys: Path, data: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    ran = work.run_stage

    def failing(stage: Any, *rest: Any) -> Any:
        if stage.kind == "heatmaps" and "telea" in stage.label:
            raise error
        return ran(stage, *rest)

    monkeypatch.setattr("overpaint.benchmark.running.run_stage", failing)
    rows = measure(toys, data).rows
    assert find(rows, inpainter="telea", metric="auc").error.startswith(type(error).__name__)
    assert find(rows, inpainter="mean", metric="auc").error == ""


def test_code_that_changed_makes_results_old(
    toys: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(toys, data)
    monkeypatch.setattr("overpaint.benchmark.plan.hash_code", lambda *_: "another")
    ahead = estimate_run(toys.parent / "recipe.yaml", data, cache=toys.parent / "cache")
    assert len(ahead.stages) == 7
    assert "about" in ahead.words
    assert made(toys, data, resume=True) == []
    assert len(made(toys, data)) == 7


def test_interrupted_fills_go_on(toys: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, calls = InpainterRunner.run, []

    def stopping(self: InpainterRunner, *of: Any) -> Any:
        calls.append(of)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return ran(self, *of)

    monkeypatch.setattr(InpainterRunner, "run", stopping)
    with pytest.raises(KeyboardInterrupt):
        measure(toys, data)
    done = measure(toys, data)
    assert done.num_failed == 0
    assert len(calls) == 3 + 3 + 5  # two of five were there, and the other inpainter's five
    assert find(done.rows, inpainter="mean", metric="auc").n == 5


def test_whole_photos_are_judged_beside_untouched_ones(toys: Path, data: Path) -> None:
    detectors = {"judge": {"weights": "weights/judge.safetensors"}, **RECIPE["detectors"]}
    metrics = ["image:auc", "image:balanced-accuracy@0.5", "detected@0.5", "pooled:auc"]
    rows = measure(toys, data, {"detectors": detectors, "metrics": metrics, "views": []}).rows
    row = find(rows, detector="judge", inpainter="mean", metric="image:auc")
    assert row.n == 10
    # No photo's first pixel is white, so that all have one score.
    assert row.value == 0.5
    assert find(rows, detector="judge", inpainter="mean", metric="detected@0.5").value == 0
    pooled = find(rows, detector="steep", inpainter="mean", metric="pooled:auc")
    assert 0 <= pooled.value <= 1
    assert math.isnan(pooled.ci_low)


@pytest.mark.slow
def test_processing_and_bins_are_axes(toys: Path, data: Path) -> None:
    recipe = {
        "bins": ["10-20", "50-60"],
        "processing": {"as is": [], "JPEG 60": [{"jpeg": {"quality": 60}}]},
        "plots": True,
    }
    view = {"title": "all", "rows": ["inpainter", "bin"], "columns": ["processing", "metric"]}
    done = measure(toys, data, recipe | {"views": [view]})
    assert len([r for r in done.rows if r.inpainter == "mean"]) == 2 * 2 * 2
    names = {path.name for path in done.files}
    assert {"heat-all.png", "robustness-all.png", "holes-all.png", "roc-all.png"} <= names
    assert "precision-recall-all.png" in names
    text = (toys.parent / "out" / "table.md").read_text()
    assert "| inpainter | hole, % | as is, mIoU | as is, pixel AUC | JPEG 60, mIoU |" in text
    latex = (toys.parent / "out" / "table.tex").read_text()
    assert r"telea & 50-60 \% &" in latex
    for folder in (toys.parent / "cache" / "fills").iterdir():
        shares = [np.asarray(Image.open(m)).mean() / 255 for m in (folder / "masks").iterdir()]
        assert all(0.1 <= s < 0.2 for s in shares) or all(0.5 <= s < 0.6 for s in shares)


def test_a_view_never_mixes_rows(toys: Path, data: Path) -> None:
    recipe = {"processing": {"as is": [], "JPEG 60": [{"jpeg": {"quality": 60}}]}}
    with pytest.raises(ConfigError, match=r"'as is' and 'JPEG 60' \(processing\) would share"):
        measure(toys, data, recipe)


def test_quality_of_fills(toys: Path, data: Path) -> None:
    rows = measure(toys, data, {"metrics": ["psnr", "ssim"], "detectors": {}, "views": []}).rows
    row = find(rows, inpainter="telea", metric="psnr")
    assert row.detector == ""
    assert 10 < row.value < 80


def test_a_view_without_any_figure_says_so(toys: Path, data: Path) -> None:
    views = [
        {"title": m, "rows": ["inpainter"], "columns": ["bin"], "where": {"metric": [m]}}
        for m in ("psnr", "lpips-alex")
    ]
    done = measure(toys, data, {"metrics": ["psnr", "lpips-alex"], "detectors": {}, "views": views})
    text = render_markdown(done.recipe, done.rows)
    assert "## lpips-alex\n\nNot measured in any cell.\n" in text
    assert "## psnr\n\n| inpainter |" in text


def test_what_is_only_shown_does_not_change_the_configuration(toys: Path, data: Path) -> None:
    first = measure(toys, data).recipe.hash
    assert (
        measure(toys, data, {"differs": ["A word."], "views": [], "plots": False}).recipe.hash
        == first
    )
    assert measure(toys, data, {"metrics": ["auc"]}).recipe.hash != first


def test_heatmaps_need_not_be_kept(toys: Path, data: Path) -> None:
    kept = measure(toys, data).rows
    again = measure(toys, data, {"keep_heatmaps": False}).rows
    assert [r.value for r in kept] == [r.value for r in again]


def test_all_weights_of_a_folder_take_part(toys: Path, data: Path) -> None:
    for file in toys.glob("fails.*"):
        file.unlink()
    rows = measure(toys, data, {"detectors": {}, "detectors_from": ["weights"]}).rows
    assert {r.detector for r in rows} == {"steep", "flat", "judge"}


def test_scales_and_their_errors(toys: Path, data: Path) -> None:
    scales = {"smoke": {"photos": {"all": {"test": 2}}}, "lite": {}}
    assert measure(toys, data, {"scales": scales}, scale="smoke").rows[0].n == 2
    assert measure(toys, data, {"scales": scales}).recipe.scale == "lite"
    with pytest.raises(ConfigError, match="there are smoke, lite"):
        measure(toys, data, {"scales": scales}, scale="paper")
    with pytest.raises(ConfigError, match="no metric is called 'auk'"):
        measure(toys, data, {"metrics": ["auk"]})
    with pytest.raises(ConfigError, match="give one of weights, recipe and method"):
        measure(toys, data, {"detectors": {"x": {}}})
    with pytest.raises(ConfigError, match="no training data 'GL'"):
        measure(toys, data, {"detectors": {"x": {"recipe": "x.yaml", "trained_on": ["GL"]}}})


TRAINED = """
name: tiny
detector: nixnet
model: {widths: [4, 4, 4]}
loop: {steps: 2, batch_size: 2, workers: 0, bf16: false, validate_every: 2}
data: {size: 32, bank: {none: 1}, masks: {boxes: 1}, untouched: 0, history: {probability: 0},
  degrade: {probability: 0}}
validation_samples: 2
"""


def test_detectors_are_trained_on_fills_of_photos_that_are_not_tested(
    toys: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overpaint.training.detection.base.load_bank", lambda *_: {})
    (toys.parent / "tiny.yaml").write_text(TRAINED)
    recipe = {
        "detectors": {"tiny": {"recipe": "tiny.yaml", "trained_on": ["telea"]}},
        "training": {"telea": {"inpainters": ["telea"]}},
        "inpainters": {**RECIPE["inpainters"], "plain": {"method": "navier-stokes"}},
        "seeds": [0, 1],
    }
    rows = measure(toys, data, recipe).rows
    both = [r for r in rows if r.inpainter == "mean" and r.metric == "auc"]
    assert [r.seed for r in both] == ["0", "1"]
    assert {r.error for r in both} == {""}
    assert both[0].detector_sha256 != both[1].detector_sha256
    assert both[0].steps == "2"
    unseen = find(rows, inpainter=UNSEEN, metric="auc", seed="0")
    others = [find(rows, inpainter=i, metric="auc", seed="0").value for i in ("mean", "plain")]
    assert unseen.value == pytest.approx(mean(others))
    assert " ± " in (toys.parent / "out" / "table.md").read_text()


def test_a_changed_file_of_a_training_recipe_makes_its_stage_old(
    toys: Path, data: Path, tmp_path: Path
) -> None:
    """Weights of untouched photos and folders of forgeries, below the data folder or elsewhere."""
    weights, forged = tmp_path / "often.csv", tmp_path / "forged" / "rows.csv"
    forged.parent.mkdir()
    weights.write_text("photo,weight\n0.png,2\n")
    forged.write_text("")
    lines = [
        "untouched: {share: 0.25, often: " + str(weights) + "}",
        "forged: {share: 0.25, folders: {" + str(forged.parent) + ": 1}}",
        "cache: {num: 2}",
    ]
    (toys.parent / "tiny.yaml").write_text(TRAINED + "\n".join(lines))
    recipe = RECIPE | {
        "detectors": {"tiny": {"recipe": "tiny.yaml", "trained_on": ["universal"]}},
        "training": {"universal": {}},
    }

    def find_keys() -> tuple[str, str]:
        """Of the training, and of its reconstructions."""
        (cell, *_) = plan(Recipe.model_validate(recipe), toys.parent, data, toys.parent / "cache")
        (training,) = [s for s in cell.list_stages() if s.kind == "detector"]
        return training.key, training.needs["reconstructions"].key

    keys = [find_keys()]
    for file, text in ((weights, "photo,weight\n0.png,3\n"), (forged, "photo\n")):
        file.write_text(text)
        keys.append(find_keys())
    assert len({training for training, _ in keys}) == 3
    assert len({reconstructions for _, reconstructions in keys}) == 1
    assert find_keys() == keys[-1]


def test_sets_of_pairs_are_measured_as_they_are(toys: Path, data: Path, tmp_path: Path) -> None:
    """Of which untouched pictures count for whole photos alone; a broken one is told of."""
    folder = tmp_path / "pairs"
    for name in ("images", "masks", "originals"):
        (folder / name).mkdir(parents=True)
    for i in range(3):
        pixels = np.full((48, 40, 3), 50, np.uint8)
        pixels[:20] = 200  # bright, which the toys take for inpainted
        mask = np.zeros((48, 40) if i else (8, 8), np.uint8)
        mask[:20] = 255
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")
    Image.fromarray(pixels // 5).save(folder / "originals" / "untouched.png")
    recipe = {"photos": {}, "inpainters": {}, "pairs": {"own": f"folder:{folder}"}, "views": []}
    metrics = ["iou@0.5", "image:auc"]
    lines: list[str] = []
    rows = measure(toys, data, recipe | {"metrics": metrics}, report=lines.append).rows
    assert find(rows, photos="own", metric="iou@0.5").value == 1
    assert find(rows, photos="own", metric="iou@0.5").n == 2
    assert find(rows, photos="own", metric="image:auc").value == 1
    assert any("left out" in line and "8 x 8" in line for line in lines)


def test_the_same_files_read_otherwise_are_another_set() -> None:
    image, mask = Path("a.png"), Path("m.png")
    pair = Pair("a", image, mask)
    others = [
        pair,
        replace(pair, rule=MaskRule(invert=True)),
        replace(pair, whole=True),
        replace(pair, row=3),
        replace(pair, image=mask, mask=image),
    ]
    assert len({hash_truth([p], [image, mask]) for p in others}) == len(others)
    assert hash_truth([replace(pair, part="b")], [image, mask]) == hash_truth([pair], [image, mask])


@pytest.mark.slow
def test_processes_beside_each_other_give_the_same_rows(tmp_path: Path, data: Path) -> None:
    """Of shipped weights: processes that are started anew do not know the toys."""
    recipe = RECIPE | {"detectors": {"nixnet-s": {"weights": "nixnet-s"}}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    one, two = (
        benchmark(path, data, tmp_path / f"out{n}", cache=tmp_path / f"cache{n}", jobs=n).rows
        for n in (1, 2)
    )
    assert one == two


def test_the_command(toys: Path, data: Path) -> None:
    path = toys.parent / "recipe.yaml"
    detectors = {**RECIPE["detectors"], "fails": {"weights": "weights/fails.safetensors"}}
    path.write_text(yaml.safe_dump(RECIPE | {"detectors": detectors}))
    out, cache = str(toys.parent / "here"), str(toys.parent / "cache")
    common = ["benchmark", str(path), "--data", str(data), "--cache", cache]
    run = CliRunner().invoke
    planned = run(build(), [*common, "--plan"])
    assert planned.exit_code == 0
    assert "0 results are there, 11 to make: an unknown time for" in planned.output
    some = run(
        build(), [*common, "--out", out, "--only", "detector=st*", "--only", "inpainter=mean"]
    )
    assert some.exit_code == 0, some.output
    assert {r.detector for r in read_rows(Path(out) / "rows.csv")} == {"steep"}
    every = run(build(), [*common, "--out", out])
    assert every.exit_code == 1
    assert "4 of 10 rows failed" in every.output
    wrong = run(build(), [*common, "--only", "detector"])
    assert "write AXIS=PATTERN" in str(wrong.exception)


def test_plots_say_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"overpaint\[plots\]"):
        plots.require_matplotlib()


def test_pages_show_committed_rows(toys: Path, data: Path, tmp_path: Path) -> None:
    measure(toys, data)
    root = tmp_path / "checkout"
    (root / "recipes/tables").mkdir(parents=True)
    recipe = root / "recipes" / "tables" / "toys.yaml"
    recipe.write_bytes((toys.parent / "recipe.yaml").read_bytes())
    measured = toys.parent / "out" / "rows.csv"
    page = root / "page.md"
    page.write_text("Before\n<!-- benchmark:toys -->\nold\n<!-- /benchmark -->\nafter\n")
    assert pages.main([str(page), "--root", str(root), "--rows", str(measured), "--check"]) == 1
    committed = root / "results" / "tables" / "toys.csv"
    assert read_rows(committed) == read_rows(measured)
    assert committed.stat().st_size < measured.stat().st_size / 2
    assert pages.main([str(page), "--root", str(root)]) == 0
    text = page.read_text()
    assert "\n## Toys\n" in text
    assert "| detector | mean | telea |" in text
    assert text.endswith("<!-- /benchmark -->\nafter\n")
    assert pages.main([str(page), "--root", str(root), "--check"]) == 0
    recipe.write_text(recipe.read_text() + "seed: 5\n")
    with pytest.raises(ConfigError, match="of another configuration"):
        pages.render("toys", root)


def test_sources_of_other_tables_are_kept(toys: Path, data: Path, tmp_path: Path) -> None:
    rows = measure(toys, data).rows
    for table, commit in (("one", "a" * 40), ("two", "b" * 40), ("one", "c" * 40)):
        of_table = [replace(row, table=table, commit=commit) for row in rows]
        write_rows(tmp_path / "rows.csv", of_table)
        publish_rows(tmp_path / "rows.csv", tmp_path / "tables")
    found = (read_rows(tmp_path / "tables" / f"{name}.csv") for name in ("one", "two"))
    commits = {row.commit for rows in found for row in rows}
    assert commits == {"b" * 40, "c" * 40}
    assert "a" * 40 not in (tmp_path / "tables" / "provenance.csv").read_text()
    write_rows(tmp_path / "rows.csv", [*rows, replace(rows[0], table="three")])
    with pytest.raises(ConfigError, match=r"rows\.csv: holds the rows of 2 tables"):
        publish_rows(tmp_path / "rows.csv", tmp_path / "tables")


def test_published_pages_are_up_to_date() -> None:
    root = Path(__file__).parents[2]
    files = [str(path) for path in sorted((root / "docs").glob("benchmarks*.md"))]
    assert pages.main([*files, "--root", str(root), "--check"]) == 0
