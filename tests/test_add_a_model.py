"""CONTRIBUTING's steps, walked with a toy model of each kind in a copy of the package.

A model is its own file and the file of its losses; no list is edited.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from conftest import textured

HEAT = Path(__file__).parents[1] / "recipes" / "tables" / "heat.yaml"
PACKAGE = Path(__file__).parents[1] / "src" / "overpaint"

TOY_DETECTOR = '''
"""A toy: one convolution."""

from torch import Tensor, nn

from overpaint.detectors.base import Detector
from overpaint.registry import detectors


class ToyNet(Detector):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3, padding=1)

    def _compute_logits(self, image: Tensor) -> Tensor:
        return self.conv(image)


detectors.register("toynet", ToyNet, paper="none", licence="Apache-2.0", summary="a toy")
'''

TOY_DETECTOR_LOSS = '''
"""Training of the toy."""

from torch import Tensor

from overpaint.detectors.toynet import ToyNet
from overpaint.training import losses
from overpaint.training.config import Section
from overpaint.training.detection.base import DetectorTask


class ToyLoss(Section):
    gamma: float = 0.0


class ToyNetTask(DetectorTask[ToyNet, ToyLoss]):
    architecture = ToyNet
    loss_config = ToyLoss

    def compute_loss(self, image: Tensor, mask: Tensor) -> Tensor:
        return losses.focal_loss(self.model(image), mask, self.terms.gamma)
'''

TOY_INPAINTER = '''
"""A toy: one convolution."""

import torch
from torch import Tensor, nn

from overpaint.inpainters.base import Inpainter
from overpaint.registry import inpainters


class ToyFill(Inpainter):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 3, 3, padding=1)

    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.conv(torch.cat([image, mask], dim=1)).sigmoid()


inpainters.register("toyfill", ToyFill, paper="none", licence="Apache-2.0", summary="a toy")
'''

TOY_INPAINTER_LOSS = '''
"""Training of the toy."""

from collections.abc import Iterator

from torch import Tensor

from overpaint.inpainters.toyfill import ToyFill
from overpaint.training.config import Section
from overpaint.training.inpainting.base import InpaintingTask
from overpaint.training.loop import Batch


class ToyLoss(Section):
    pass


class ToyFillTask(InpaintingTask[ToyFill, ToyLoss]):
    architecture = ToyFill
    loss_config = ToyLoss

    def compute_losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Tensor]]:
        image, mask = batch["image"], batch["mask"]
        yield "model", (self.model(image, mask) - image).abs().mean()
'''

LOOP = "loop: {steps: 2, batch_size: 2, workers: 0, bf16: false, validate_every: 2}\n"
DETECTOR_RECIPE = (
    "name: toynet-s\ndetector: toynet\n"
    "data: {size: 64, bank: {ae-nearest: 1}, masks: {boxes: 1}, history: {probability: 0},"
    " degrade: {probability: 0}}\nvalidation_samples: 4\n" + LOOP
)
INPAINTER_RECIPE = (
    "name: toyfill-s\ninpainter: toyfill\nbackbone: none\n"
    "data: {size: 64, masks: {boxes: 1}}\nvalidation_photos: 1\n" + LOOP
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package that knows the toys, photos, and the recipes."""
    here = tmp_path_factory.mktemp("toys")
    shutil.copytree(PACKAGE, here / "overpaint", ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in {
        "overpaint/detectors/toynet.py": TOY_DETECTOR,
        "overpaint/training/detection/toynet.py": TOY_DETECTOR_LOSS,
        "overpaint/inpainters/toyfill.py": TOY_INPAINTER,
        "overpaint/training/inpainting/toyfill.py": TOY_INPAINTER_LOSS,
        "toynet-s.yaml": DETECTOR_RECIPE,
        "toyfill-s.yaml": INPAINTER_RECIPE,
    }.items():
        (here / path).write_text(text.lstrip())
    (here / "photos").mkdir()
    for i in range(24):
        Image.fromarray(textured(96, 96, seed=i)).save(here / "photos" / f"{i}.png")
    (here / "recipes" / "tables").mkdir(parents=True)
    shutil.copy(HEAT, here / "recipes" / "tables")
    return here


SESSION = """
import json, sys
from overpaint.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["overpaint", *arguments]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            sys.exit(f"{arguments}: {ended.code}")
"""


def overpaint(place: Path, *commands: list[str]) -> str:
    """What commands of the copy print that are run one after the other in one process."""
    done = subprocess.run(
        [sys.executable, "-c", SESSION, json.dumps(commands)],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_detector_is_two_files_and_a_recipe(place: Path) -> None:
    weights = "runs/toynet-s/toynet-s.safetensors"
    out = overpaint(
        place,
        ["models"],
        ["train", "detector", "--config", "toynet-s.yaml", "--photos", "photos"],
        ["detect", "photos/0.png", "--model", weights, "--json"],
    )
    *before, last = out.splitlines()
    assert any(line.startswith("toynet: ") for line in before)
    record = json.loads(last)
    assert record["model"] == "toynet-s"
    assert (place / record["heatmap"]).is_file()


@pytest.mark.slow
def test_an_inpainter_is_two_files_and_a_recipe(place: Path) -> None:
    weights = "runs/toyfill-s/toyfill-s.safetensors"
    mask = textured(96, 96, seed=1)[..., 0] * 0
    mask[30:50, 30:50] = 255
    Image.fromarray(mask).save(place / "mask.png")
    out = overpaint(
        place,
        ["models"],
        ["train", "inpainter", "--config", "toyfill-s.yaml", "--photos", "photos"],
        ["inpaint", "photos/0.png", "mask.png", "--model", weights, "--out", "filled.png"],
    )
    assert "\ntoyfill: " in out
    assert (place / "filled.png").is_file()


@pytest.mark.slow
def test_both_appear_in_the_heat_table_by_one_command(place: Path) -> None:
    """Their weights are put where the recipe looks; it stays as it is."""
    commands = []
    for kind, name in (("detector", "toynet-s"), ("inpainter", "toyfill-s")):
        train = ["train", kind, "--config", f"{name}.yaml", "--photos", "photos"]
        commands.append([*train, "--out", f"runs/heat-{name}", "--export", "benchmarks/weights"])
    table = ["benchmark", "recipes/tables/heat.yaml", "--scale", "smoke", "--out", "heat"]
    overpaint(place, *commands, table)
    text = (place / "heat" / "table.md").read_text()
    header, row = (
        next(line for line in text.splitlines() if line.startswith(start)).split(" | ")
        for start in ("| inpainter |", "| toyfill-s |")
    )
    (column,) = (i for i, name in enumerate(header) if name.strip(" |") == "toynet-s")
    assert 0 <= float(row[column].strip(" |")) <= 1
    assert (place / "heat" / "heat-photos.png").is_file()
