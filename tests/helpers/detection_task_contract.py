"""What the loss of every detector must hold to; a test class inherits it and sets its fields."""

from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import textured
from helpers.states import differing
from overpaint.data.universal import Pair
from overpaint.errors import ConfigError
from overpaint.training.detection.base import DetectorRun, DetectorTask, make_detection_task
from overpaint.training.distributed import Processes
from overpaint.training.loop import Run

SIDE = 64


class Redrawn:
    """Pairs of two pictures."""

    def draw(self, rng: np.random.Generator) -> Pair:
        photo, redrawn = picture(int(rng.integers(4))), picture(4)
        return Pair(photo, redrawn, "photo.png", "g")


def infinite(gradients: dict[str, Tensor]) -> list[str]:
    """Names of the gradients with a value that is infinite or no number."""
    return [name for name, gradient in gradients.items() if not gradient.isfinite().all()]


@lru_cache
def picture(seed: int) -> np.ndarray:
    return textured(SIDE, SIDE, seed)


def recipe(**changes: Any) -> DetectorRun:
    values: dict[str, Any] = {
        "name": "test",
        "data": {
            "size": SIDE,
            "bank": {"g": 1},
            "masks": {"boxes": 1},
            "untouched": 0.4,
            "degrade": {"probability": 0},
        },
        "loop": {"steps": 9, "batch_size": 2, "workers": 0},
        "validation_samples": 6,
    }
    return DetectorRun.model_validate(values | changes)


class DetectionTaskContract:
    kind: ClassVar[type[DetectorTask[Any, Any]]]
    detector: ClassVar[str]
    model: ClassVar[dict[str, Any]]
    """The smallest network that makes sense."""
    loss: ClassVar[dict[str, Any]] = {}
    wrong: ClassVar[tuple[str, str]]
    """A misspelt key of the loss, and the right one."""
    judges_photos: ClassVar[bool] = False

    @pytest.fixture
    def start_from(self, tmp_path: Path) -> str | None:
        return None

    @pytest.fixture
    def task(self, start_from: str | None) -> DetectorTask[Any, Any]:
        return self.made(start_from)

    def made(self, start_from: str | None = None, **loss: Any) -> DetectorTask[Any, Any]:
        torch.manual_seed(0)
        return make_detection_task(self.run(start_from, **loss), Redrawn(), Redrawn())

    def run(self, start_from: str | None = None, **loss: Any) -> DetectorRun:
        about = {"detector": self.detector, "model": self.model, "start_from": start_from}
        return recipe(**about, loss=self.loss | loss)

    def batch(self, *inpainted: bool) -> dict[str, Tensor]:
        """Noise, smooth in a square, for each picture that is to be inpainted."""
        torch.manual_seed(1)
        image, mask = torch.rand(len(inpainted), 3, SIDE, SIDE), torch.zeros(1, 1, SIDE, SIDE)
        mask[..., 8:48, 16:56] = 1
        masks = mask * torch.tensor(inpainted).float().reshape(-1, 1, 1, 1)
        return {"image": torch.where(masks == 1, 0.5, image), "mask": masks}

    def trained(self, task: DetectorTask[Any, Any]) -> set[str]:
        """Names of the parameters that the loss is to reach."""
        return {name for name, _ in task.model.named_parameters()}

    def gradients(self, task: DetectorTask[Any, Any], *inpainted: bool) -> dict[str, Tensor]:
        task.model.zero_grad()
        ((name, loss),) = task.compute_losses(self.batch(*inpainted), 0)
        assert (name, loss.shape, loss.dtype) == ("model", (), torch.float32)
        loss.backward()
        return {n: p.grad for n, p in task.model.named_parameters() if p.grad is not None}

    def test_the_task_is_that_of_the_detector(self, task: DetectorTask[Any, Any]) -> None:
        assert type(task) is self.kind
        assert task.modules.keys() == {"model"}

    def test_every_trained_parameter_gets_a_finite_gradient_and_no_other(
        self, task: DetectorTask[Any, Any]
    ) -> None:
        task.model.train()
        gradients = self.gradients(task, True, False)
        assert infinite(gradients) == []
        assert gradients.keys() == self.trained(task)
        assert any(g.any() for g in gradients.values())

    @pytest.mark.parametrize("inpainted", [True, False])
    def test_a_batch_of_one_kind_alone(self, inpainted: bool, task: DetectorTask[Any, Any]) -> None:
        task.model.train()
        gradients = self.gradients(task, inpainted, inpainted)
        assert infinite(gradients) == []

    def test_two_steps_are_finite_and_an_interrupted_run_goes_on_bit_for_bit(
        self, start_from: str | None
    ) -> None:
        batch = self.batch(True, False)
        with Processes("cpu") as processes:
            whole, resumed = (self._run(start_from) for _ in range(2))
            before = deepcopy(whole.modules["model"].state_dict())
            whole.train_step(batch, processes)
            resumed.restore(deepcopy(whole.make_state("hash")))
            values = [run.train_step(batch, processes) for run in (whole, resumed)]
        assert values[0] == values[1]
        assert np.isfinite(list(values[0].values())).all()
        after, copy = (run.modules["model"].state_dict() for run in (whole, resumed))
        assert differing(copy, after) == []
        kept = {key for key, value in after.items() if torch.equal(value, before[key])}
        assert not self.trained(whole.task) & kept  # type: ignore[arg-type]

    def _run(self, start_from: str | None) -> Run:
        task = self.made(start_from)
        return Run(task, task.run.loop, torch.device("cpu"))

    def test_an_unknown_key_of_the_loss_is_refused_with_a_suggestion(
        self, start_from: str | None
    ) -> None:
        key, right = self.wrong
        run = self.run(start_from, **{key: 1})
        with pytest.raises(ConfigError, match=f"loss: .*'{key}', did you mean '{right}'"):
            self.kind.load_terms(run)

    def test_validation_and_pictures(self, task: DetectorTask[Any, Any]) -> None:
        model = task.modules["model"].eval()
        figures = task.validate(model)
        assert {"figure", "miou", "auc", "flagged_untouched"} <= figures.keys()
        assert ("score_auc" in figures) == self.judges_photos
        assert np.isfinite(list(figures.values())).all()
        for picture in task.draw_pictures(model).values():
            assert picture.shape == (3, 3 * SIDE, 3 * SIDE)
            assert 0 <= picture.min() <= picture.max() <= 1
