"""What the losses of every inpainter must hold to; a test class inherits it and sets its fields."""

from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import default_collate

from helpers.states import differing
from overpaint.data.sources import PhotoSource
from overpaint.training.distributed import Processes
from overpaint.training.inpainting.base import InpainterRun, InpaintingTask, make_inpainting_task
from overpaint.training.loop import Run

Steps = list[tuple[str, Tensor]]


class InpaintingTaskContract:
    inpainter: ClassVar[str]
    model: ClassVar[dict[str, Any]]
    """The smallest network that makes sense."""
    loss: ClassVar[dict[str, Any]]
    """Without a backbone, every other term from step 0."""
    step: ClassVar[int] = 0
    """A step in which every module is trained."""

    @pytest.fixture
    def photos(self, photo_folder: Path) -> PhotoSource:
        return PhotoSource.from_paths([photo_folder])

    def task(self, photos: PhotoSource, **loss: Any) -> InpaintingTask[Any, Any]:
        torch.manual_seed(0)
        run = InpainterRun.model_validate(
            {
                "name": "test",
                "inpainter": self.inpainter,
                "model": self.model,
                "backbone": "none",
                "data": {"size": 64},
                "loop": {"steps": 9, "batch_size": 2, "bf16": False, "workers": 0},
                "loss": self.loss | loss,
                "validation_photos": 2,
            }
        )
        return make_inpainting_task(run, photos, photos)

    def batch(self, task: InpaintingTask[Any, Any]) -> dict[str, Tensor]:
        return default_collate([task.train[i] for i in range(2)])

    def test_each_loss_moves_the_module_that_it_names_alone(self, photos: PhotoSource) -> None:
        task = self.task(photos)
        for name, loss in task.compute_losses(self.batch(task), self.step):
            for module in task.modules.values():
                module.zero_grad()
            loss.backward()
            assert loss.shape == ()
            for other, module in task.modules.items():
                gradients = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
                infinite = [n for n, g in gradients.items() if not g.isfinite().all()]
                assert infinite == [], other
                assert any(g.any() for g in gradients.values()) == (other == name), other

    def test_every_module_is_trained_and_every_parameter_reached(self, photos: PhotoSource) -> None:
        task = self.task(photos)
        reached: set[int] = set()
        named = set()
        for name, loss in task.compute_losses(self.batch(task), self.step):
            task.modules[name].zero_grad()
            loss.backward()
            named.add(name)
            reached |= {id(p) for p in task.modules[name].parameters() if p.grad is not None}
        assert named == set(task.modules)
        wanted = {
            (k, n)
            for k, m in task.modules.items()
            for n, p in m.named_parameters()
            if id(p) not in reached
        }
        assert not wanted

    def test_an_interrupted_run_goes_on_bit_for_bit(self, photos: PhotoSource) -> None:
        with Processes("cpu") as processes:
            whole, resumed = (self._run(photos) for _ in range(2))
            whole.train_step(self.batch(whole.task), processes)  # type: ignore[arg-type]
            resumed.restore(deepcopy(whole.make_state("hash")))
            batch = self.batch(whole.task)  # type: ignore[arg-type]
            values = [run.train_step(batch, processes) for run in (whole, resumed)]
        assert values[0] == values[1]
        for name, module in whole.modules.items():
            changed = differing(resumed.modules[name].state_dict(), module.state_dict())
            assert changed == [], name

    def _run(self, photos: PhotoSource) -> Run:
        task = self.task(photos)
        run = Run(task, task.run.loop, torch.device("cpu"))
        run.step = self.step
        return run

    def test_validation_and_pictures(self, photos: PhotoSource) -> None:
        task = self.task(photos)
        model = task.modules["model"].eval()
        figures = task.validate(model)
        assert {"figure", "psnr"} <= figures.keys()
        assert np.isfinite(list(figures.values())).all()
        for picture in task.draw_pictures(model).values():
            assert picture.shape[0] == 3
            assert 0 <= picture.min() <= picture.max() <= 1
