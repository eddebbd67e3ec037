"""Training of SafePaint: each loss by hand, who learns from what, and a whole run."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import default_collate
from typer.testing import CliRunner

from helpers.bright_detectors import registered, save
from overpaint import weights
from overpaint.cli import build
from overpaint.data.sources import PhotoSource
from overpaint.errors import ConfigError, WeightsError
from overpaint.inpainters.safepaint import SafePaint
from overpaint.layers.perceptual import DistilledVGG19
from overpaint.registry import inpainters
from overpaint.training.config import load_config, load_section
from overpaint.training.distributed import Processes
from overpaint.training.inpainting.base import InpainterRun, make_inpainting_task
from overpaint.training.inpainting.safepaint import (
    SafePaintLoss,
    SafePaintTask,
    discriminator_loss,
    domain_distance,
    escape_loss,
    generator_loss,
    measure_spread,
    repulsion,
    round_to_8_bit,
)
from overpaint.training.loop import Run

RECIPE = Path(__file__).parents[2] / "recipes" / "safepaint-s.yaml"
TINY: dict[str, Any] = {"width": 4, "num_blocks": 1, "vector_size": 4}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def photos(photo_folder: Path) -> PhotoSource:
    return PhotoSource.from_paths([photo_folder])


def recipe(**changes: Any) -> InpainterRun:
    loss = {"perceptual_weight": 0, "style_weight": 0, "discriminator_width": 4}
    values = {
        "name": "test",
        "model": {**TINY, **changes.pop("model", {})},
        "backbone": "none",
        "data": {"size": 64},
        "loop": {"steps": 2, "batch_size": 2},
        "loss": {**loss, **changes.pop("loss", {})},
        "validation_photos": 2,
        **changes,
    }
    return InpainterRun.model_validate(values)


def task_and_batch(photos: PhotoSource, **changes: Any) -> tuple[SafePaintTask, dict[str, Tensor]]:
    task = cast(SafePaintTask, make_inpainting_task(recipe(**changes), photos, photos))
    return task, default_collate([task.train[i] for i in range(2)])


def first_loss(task: SafePaintTask, batch: dict[str, Tensor]) -> Tensor:
    torch.manual_seed(0)
    task.modules["model"].eval()  # so that spectral norms stand still
    return next(task.compute_losses(batch, 0))[1]


def test_holes_have_the_share_that_the_recipe_asks_for(photos: PhotoSource) -> None:
    task, _ = task_and_batch(photos, data={"size": 64, "ratio": [0.2, 0.3]})
    for i in range(6):
        assert 0.2 <= task.train[i]["mask"].mean() < 0.3


# Losses


def test_adversarial_losses_are_those_worked_out_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 1.0])
    assert discriminator_loss(real, fake, "hinge").item() == pytest.approx(0.25 + 1.0)
    assert generator_loss(fake, "hinge").item() == pytest.approx(1.0)
    soft = [np.log1p(np.exp(v)) for v in (-2.0, -0.5, -3.0, 1.0, 3.0, -1.0)]
    expected = (soft[0] + soft[1] + soft[2] + soft[3]) / 2
    assert discriminator_loss(real, fake, "non-saturating").item() == pytest.approx(expected)
    assert generator_loss(fake, "non-saturating").item() == pytest.approx((soft[4] + soft[5]) / 2)


def test_domain_losses_are_those_worked_out_by_hand() -> None:
    out = torch.tensor([[0.0, 0.0], [1.0, 1.0]], requires_grad=True)
    b, gt = torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 3.0]])
    distance = domain_distance(out, b, gt)
    assert distance.item() == pytest.approx((5 + 0) / 2 + (0 + 2) / 2)
    distance.backward()
    assert out.grad is not None
    assert out.grad.isfinite().all()  # two of the distances are 0
    assert repulsion(torch.tensor([[0.0], [0.25], [4.0]]), 1.0).item() == pytest.approx(0.75 / 3)
    assert repulsion(torch.tensor([[1.0]]), 1.0).item() == 0


def test_spread_tells_a_collapsed_extractor() -> None:
    lively = measure_spread(torch.tensor([[3.0, 4.0], [-3.0, -4.0]]))
    assert lively == pytest.approx({"spread": 5.0, "relative_spread": 1.0})
    assert measure_spread(torch.tensor([[3.0, 4.0]] * 2)) == {"spread": 0.0, "relative_spread": 0.0}


def test_total_is_the_weighted_sum_of_equation_14(photos: PhotoSource) -> None:
    task, batch = task_and_batch(photos, loss={"adversarial_from": 0})
    model, discriminator = task.modules["model"], task.modules["discriminator"].eval()
    total = first_loss(task, batch)
    assert isinstance(model, SafePaint)
    image, mask = batch["image"], batch["mask"]
    stages = model.run_stages(image, mask)
    assert model.extractor is not None
    z = [model.extractor(image, 1 - mask), model.extractor(image, mask)]
    z_out = model.extractor(stages.output, mask)
    l1 = (stages.coarse - image).abs().mean() + (stages.output - image).abs().mean()
    domain = sum((z_out - v).square().sum(1).sqrt().mean() for v in z)
    adversarial = -discriminator(stages.output).mean()
    torch.testing.assert_close(total, l1 + 0.1 * adversarial + 0.01 * domain)


def test_the_defaults_are_the_papers() -> None:
    loss = SafePaintLoss()
    values = (loss.l1_weight, loss.perceptual_weight, loss.style_weight)
    assert (*values, loss.adversarial_weight, loss.domain_weight) == (1, 0.1, 250, 0.1, 0.01)
    assert (loss.adversarial, loss.style_region) == ("hinge", "picture")
    assert (loss.l1_by_hole, loss.domain_constant, loss.repel_weight) == (False, 0, 0)


def test_the_authors_readings_change_what_they_say(photos: PhotoSource) -> None:
    quiet = {"adversarial_weight": 0, "domain_weight": 0}
    task, batch = task_and_batch(photos, loss=quiet)
    plain = first_loss(task, batch)

    def total(**loss: Any) -> Tensor:
        task.terms = load_section(SafePaintLoss, recipe(loss={**quiet, **loss}).loss, "loss")
        return first_loss(task, batch)

    torch.testing.assert_close(total(l1_by_hole=True), plain / batch["mask"].mean())
    constant = total(domain_weight=1, domain_constant=0.1) - total(domain_weight=1)
    assert constant.item() == pytest.approx(0.2, abs=1e-5)
    assert total(repel_weight=1, repel_distance=100) > plain + 90
    task.backbone = DistilledVGG19()
    style = {k: total(style_weight=250, style_region=k) for k in ("picture", "hole")}
    assert plain < style["picture"]
    assert style["picture"] != style["hole"]


@pytest.mark.parametrize(
    ("model", "domain"),
    [({}, True), ({"domain_vector": False}, False), ({"rwsa": False}, True)],
)
def test_rows_of_table_5_have_the_domain_loss_where_they_have_the_extractor(
    photos: PhotoSource, model: dict[str, bool], domain: bool
) -> None:
    task, batch = task_and_batch(photos, model=model, loss={"adversarial_weight": 0})
    with_it = first_loss(task, batch)
    task.terms = task.terms.model_copy(update={"domain_weight": 0})
    assert (with_it != first_loss(task, batch)) == domain
    figures = task.validate(task.modules["model"].eval())
    assert ("spread" in figures) == domain
    assert np.isfinite(list(figures.values())).all()


def test_each_optimiser_moves_its_own_module(photos: PhotoSource) -> None:
    task, batch = task_and_batch(photos)
    model, discriminator = task.modules["model"], task.modules["discriminator"]
    steps = task.compute_losses(batch, 0)

    name, loss = next(steps)
    loss.backward()
    assert name == "model"
    assert all(p.grad is None for p in discriminator.parameters())
    # The extractor learns from the domain distance though V itself cannot reach the picture.
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert isinstance(model, SafePaint)
    assert model.extractor is not None
    assert all(p.grad is not None and p.grad.any() for p in model.extractor.parameters())

    model.zero_grad()
    name, loss = next(steps)
    loss.backward()
    assert name == "discriminator"
    assert all(p.grad is not None and p.grad.any() for p in discriminator.parameters())
    assert all(p.grad is None for p in model.parameters())
    assert next(steps, None) is None


def test_the_gan_term_joins_at_its_step(photos: PhotoSource) -> None:
    task, batch = task_and_batch(photos, loss={"adversarial_from": 5})
    assert [name for name, _ in task.compute_losses(batch, 4)] == ["model"]
    assert [name for name, _ in task.compute_losses(batch, 5)] == ["model", "discriminator"]


def test_a_resumed_run_equals_an_uninterrupted_one(photos: PhotoSource) -> None:
    def run() -> Run:
        torch.manual_seed(0)
        config = recipe(loop={"steps": 3, "batch_size": 2, "bf16": False})
        return Run(make_inpainting_task(config, photos, photos), config.loop, torch.device("cpu"))

    def batch(i: int) -> dict[str, Tensor]:
        return default_collate([whole.task.make_dataset()[2 * i + j] for j in range(2)])

    with Processes("cpu") as processes:
        whole, resumed = run(), run()
        for i in range(2):
            whole.train_step(batch(i), processes)
        resumed.restore(deepcopy(whole.make_state("hash")))  # as through a file
        values = [r.train_step(batch(2), processes) for r in (whole, resumed)]
    assert values[0] == values[1]
    for name, module in whole.modules.items():
        copy = resumed.modules[name].state_dict()
        assert all(torch.equal(value, copy[key]) for key, value in module.state_dict().items())


def test_pictures_show_hole_both_phases_and_photo(photos: PhotoSource) -> None:
    task, _ = task_and_batch(photos)
    (picture,) = task.draw_pictures(task.modules["model"].eval()).values()
    assert picture.shape == (3, 2 * 64, 4 * 64)
    sample = task.validation[0]
    assert torch.equal(picture[:, :64, 192:], sample["image"])
    known = sample["mask"] == 0
    assert torch.equal(
        torch.where(known, picture[:, :64, 128:192], sample["image"]), sample["image"]
    )


# Against a detector


def test_the_loss_against_a_detector_is_that_worked_out_by_hand() -> None:
    logits = torch.tensor([[2.0, -1.0], [30.0, 0.0]])[None, None]
    mask = torch.tensor([[1.0, 1.0], [0.0, 0.0]])[None, None]
    expected = (np.log1p(np.exp(2.0)) + np.log1p(np.exp(-1.0))) / 2
    assert escape_loss(logits, mask).item() == pytest.approx(expected)
    assert escape_loss(logits, torch.zeros_like(mask)).item() == 0


def test_the_detector_sees_levels_of_a_file_and_the_gradient_passes() -> None:
    picture = torch.tensor([0.1, 0.5, 0.9999], requires_grad=True)
    levels = round_to_8_bit(picture)
    torch.testing.assert_close(levels * 255, torch.tensor([26.0, 128.0, 255.0]))
    (3 * levels).sum().backward()
    assert picture.grad is not None
    assert picture.grad.tolist() == [3, 3, 3]


def test_the_second_phase_learns_to_escape_a_detector(photos: PhotoSource, tmp_path: Path) -> None:
    """One of brightness: the holes become darker. G1 and the detector stay as they are."""
    with registered(tmp_path):
        detector = save(tmp_path, "steep", gain=8).path
        loss = {
            "l1_weight": 0,
            "adversarial_weight": 0,
            "domain_weight": 0,
            "detector": str(detector),
            "detector_weight": 2,
            "second_phase_only": True,
        }
        optimizer = {"learning_rate": 0.02}
        loop = {"steps": 9, "batch_size": 2, "bf16": False, "optimizer": optimizer}
        task, batch = task_and_batch(photos, loss=loss, loop=loop)
    run = Run(task, task.run.loop, torch.device("cpu"))
    before = deepcopy(task.model.state_dict())
    assert task.detector is not None
    gain = deepcopy(task.detector.state_dict())
    with Processes("cpu") as processes:
        values = [run.train_step(batch, processes)["model"] for _ in range(8)]
    assert values[-1] < 0.8 * values[0]
    with torch.no_grad():
        stages = task.model.eval().run_stages(batch["image"], batch["mask"])
        again = escape_loss(task.detector(round_to_8_bit(stages.output)), batch["mask"])
    assert 2 * again.item() < values[0]
    after = task.model.state_dict()
    moved = {key.partition(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert moved == {"optimisation", "extractor"}
    assert all(torch.equal(gain[key], value) for key, value in task.detector.state_dict().items())


def test_a_weight_against_no_detector_is_an_error(photos: PhotoSource) -> None:
    with pytest.raises(ConfigError, match="detector_weight is above 0; name the detector"):
        task_and_batch(photos, loss={"detector_weight": 1})


def test_a_training_goes_on_from_weights(photos: PhotoSource, tmp_path: Path) -> None:
    model = inpainters.create("safepaint", **TINY)
    about = {"data": "-", "recipe": "-", "commit": "-", "licence": "Apache-2.0"}
    how = {"kind": "inpainter", "architecture": "safepaint", "config": TINY}
    record = weights.save_weights(tmp_path, model, name="first", **how, **about)  # type: ignore[arg-type]
    task, _ = task_and_batch(photos, start_from=str(record.path))
    _, state = weights.load_weights(record.path, kind="inpainter")
    own = task.model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in state.items())
    with pytest.raises(WeightsError):
        task_and_batch(photos, start_from=str(record.path), model={"width": 8})


# Configuration and whole runs


def test_the_recipe_from_the_white_hole_is_the_papers() -> None:
    run = load_config(InpainterRun, RECIPE.with_name("safepaint-white.yaml"))
    config = inpainters.get(run.inpainter).factory(**{**run.model, "num_blocks": 1}).config
    assert (config.start, config.norm, config.vector_region) == ("white", "batch", "all")
    terms, paper = load_section(SafePaintLoss, run.loss, "loss"), SafePaintLoss()
    for name in ("l1", "perceptual", "style", "adversarial", "domain"):
        assert getattr(terms, f"{name}_weight") == getattr(paper, f"{name}_weight")
    assert (terms.adversarial, terms.adversarial_from) == ("hinge", 0)
    optimizer = run.loop.optimizer
    assert (optimizer.learning_rate, optimizer.betas) == (2e-4, (0.5, 0.999))


def test_the_shipped_recipe_is_valid() -> None:
    run = load_config(InpainterRun, RECIPE)
    small = inpainters.get(run.inpainter).factory(**{**run.model, "num_blocks": 1})
    assert small.config.width == 24  # see test_safepaint for the size of the file
    assert run.backbone.startswith("distilled:")


def test_command_line_trains_exports_and_resumes(photo_folder: Path, tmp_path: Path) -> None:
    arguments = ["train", "inpainter", "--config", str(RECIPE), "--out", str(tmp_path / "run")]
    values = {
        "name": "tiny",
        "backbone": "none",
        "validation_photos": 1,
        "model": "{width: 4, num_blocks: 1}",
        "data": "{size: 64}",
        "loss": "{perceptual_weight: 0, style_weight: 0, adversarial_from: 1}",
        "loop": "{steps: 2, batch_size: 2, workers: 0}",
    }
    for key, value in values.items():
        arguments += ["--set", f"{key}={value}"]
    arguments += ["--photos", str(folder_of_many(photo_folder, tmp_path))]
    for _ in range(2):  # the second run finds the first one's end and only exports
        result = CliRunner().invoke(build(), arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    record, state = weights.load_weights(tmp_path / "run" / "tiny.json", kind="inpainter")
    assert record.architecture == "safepaint"
    assert {"psnr", "coarse_psnr", "spread", "domain_distance"} <= record.validation.keys()
    model = weights.build(record, state)
    image, mask = torch.rand(1, 3, 70, 50), torch.zeros(1, 1, 70, 50)
    mask[..., 20:40, 20:40] = 1
    with torch.no_grad():
        out = model(image, mask)
    assert torch.equal(out * (1 - mask), image * (1 - mask))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(lines) if "discriminator" in line)
    terms = {k.removeprefix("term/"): v for k, v in last.items() if k.startswith("term/")}
    assert terms.keys() == {"l1", "domain", "adversarial"}
    assert sum(terms.values()) == pytest.approx(last["model"], rel=1e-4)
    assert any("validation/relative_spread" in line for line in lines)


def folder_of_many(photo_folder: Path, tmp_path: Path) -> Path:
    """The six photos under names of which some fall into the validation part."""
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(40):
        original = photo_folder / f"{(0, 1, 3, 4)[i % 4]}.png"
        (folder / f"{i:02}.png").write_bytes(original.read_bytes())
    return folder
