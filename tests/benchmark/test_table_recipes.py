"""The recipes of the papers' tables: each reads at every scale, and runs at the scale smoke."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image

from conftest import textured
from overpaint.benchmark import papers
from overpaint.benchmark.api import benchmark
from overpaint.benchmark.recipe import Recipe, load_recipe
from overpaint.benchmark.rows import BenchmarkRow
from overpaint.data.sources import split
from overpaint.registry import build_on_meta, detectors, inpainters
from overpaint.training.config import create_model, load_config
from overpaint.training.detection.base import DetectorRun, DetectorTask
from overpaint.training.discovery import find_task
from overpaint.training.inpainting.base import InpainterRun, InpaintingTask

TABLES = Path(__file__).parents[2] / "recipes" / "tables"
NAMES = ["nixnet-table-1", "nixnet-table-2", *(f"safepaint-table-{n}" for n in range(1, 7))]
SCALES = ("smoke", "lite", "paper")
SECONDS = 180
"""Of one core, for all tables at the scale smoke."""


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_reads_at_every_scale(name: str, scale: str) -> None:
    recipe = load_recipe(TABLES / f"{name}.yaml", scale)
    assert recipe.name == recipe.paper == name
    assert name in papers.REFERENCES
    assert recipe.differs
    for kind, models in (("detector", recipe.detectors), ("inpainter", recipe.inpainters)):
        for source in models.values():
            if source.recipe is None:
                continue
            common = recipe.detector_set if kind == "detector" else recipe.inpainter_set
            check_training(kind, TABLES / source.recipe, common | source.set)


def check_training(kind: str, recipe: Path, values: dict[str, object]) -> None:
    """The recipe of a training is one, and its network and losses can be built."""
    overrides = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    with build_on_meta():
        if kind == "detector":
            run = load_config(DetectorRun, recipe, overrides)
            model = create_model(detectors, run.detector, run.model)
            find_task(model, DetectorTask).load_terms(run)
        else:
            fill = load_config(InpainterRun, recipe, overrides)
            model = create_model(inpainters, fill.inpainter, fill.model)
            find_task(model, InpaintingTask).loss_config.model_validate(fill.loss)


@pytest.mark.parametrize("name", [n for n in NAMES if papers.has_figures(n)])
def test_every_figure_of_the_paper_has_its_place(name: str) -> None:
    """Each known figure belongs to names of the recipe, so that it is shown."""
    recipe = load_recipe(TABLES / f"{name}.yaml", "lite")
    sets = {p.stands_for for p in recipe.photos.values()}
    for table, detector, training, inpainter, photos, hole, metric in papers._read_figures():
        if table != name:
            continue
        assert detector in {"", *recipe.detectors}
        assert training in {"", "as given", *recipe.training}
        assert inpainter in recipe.inpainters
        assert photos in sets
        assert hole in recipe.bins
        assert metric in recipe.metrics


def test_the_papers_own_numbers() -> None:
    """Some of each table, read off the papers."""
    figures = papers._read_figures()
    one = ("nixnet-table-1", "NIX-Net", "UT", "GC", "CelebA", "any", "iou@0.5")
    assert figures[one] == 0.8820
    two = ("nixnet-table-2", "w/o all fusion modules", "UT", "GC", "Places2", "any", "iou@0.5")
    assert figures[two] == 0.6784
    assert figures["safepaint-table-1", "", "", "FcF", "CelebA", "50-60", "psnr"] == 22.48
    three = ("safepaint-table-2", "PSCC-Net", "as given", "SafePaint", "Places2", "50-60", "auc")
    assert figures[three] == 0.6058
    counts = {name: sum(key[0] == name for key in figures) for name in NAMES}
    assert counts["nixnet-table-1"] == 15 * 6
    assert counts["nixnet-table-2"] == 6 * 3
    assert counts["safepaint-table-1"] == 2 * (7 * 9 - 3 * 3)
    assert counts["safepaint-table-2"] == 7 * 9


def test_the_guide_shows_a_recipe() -> None:
    text = (TABLES.parents[1] / "docs" / "guides" / "researcher.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    recipe = Recipe.model_validate(yaml.safe_load(block))
    assert recipe.training["LaMa"].share == 0.5


@pytest.fixture(scope="module")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/ and faces/ with as many small pictures of each part as the scale smoke takes."""
    folder = tmp_path_factory.mktemp("small")
    for kind in ("photos", "faces"):
        (folder / kind).mkdir()
        names = [f"{kind}/{i}.png" for i in range(200)]
        for part, num in (("train", 6), ("validation", 4), ("test", 2)):
            for name in split(names, part)[:num]:  # type: ignore[arg-type]
                seed = int(Path(name).stem)
                Image.fromarray(textured(72, 80, seed)).save(folder / name)
    return folder


@pytest.mark.slow
@pytest.mark.tables
def test_all_tables_run_at_the_scale_smoke(small_data: Path, tmp_path: Path) -> None:
    """Every training, fill and figure of every table, on pictures made here."""
    begun = time.process_time()
    for name in NAMES:
        done = benchmark(
            TABLES / f"{name}.yaml",
            small_data,
            tmp_path / name,
            cache=tmp_path / "cache",
            scale="smoke",
        )
        assert done.num_failed == 0, {row.error for row in done.rows}
        check_complete(done.recipe, done.rows, (tmp_path / name / "table.md").read_text())
        shutil.rmtree(tmp_path / "cache" / "heatmaps", ignore_errors=True)
    assert time.process_time() - begun < SECONDS


def check_complete(recipe: Recipe, rows: list[BenchmarkRow], text: str) -> None:
    """Every model of the recipe has rows, and every table its lines."""
    assert {r.inpainter for r in rows} >= set(recipe.inpainters)
    assert {r.detector for r in rows} >= set(recipe.detectors)
    assert {r.photos for r in rows} == set(recipe.photos)
    trained = {(d, t) for d, s in recipe.detectors.items() if s.recipe for t in s.trained_on}
    assert {(r.detector, r.training) for r in rows} >= trained
    for view in recipe.views:
        assert f"## {view.title}" in text
    assert papers.REFERENCES[recipe.paper] in text
    assert "What differs from the paper" in text
