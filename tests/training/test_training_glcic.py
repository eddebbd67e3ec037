"""Training of GLCIC: its phases, its windows, and its losses against values worked out by hand."""

from math import exp, log1p
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from helpers.inpainting_task_contract import InpaintingTaskContract
from overpaint.data.sources import PhotoSource
from overpaint.inpainters.glcic import Stages
from overpaint.training.inpainting.glcic import GLCICLoss


class Means(nn.Module):
    """A discriminator that adds the means of window and picture up, and keeps the windows."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(1.0))
        self.windows: list[Tensor] = []

    def forward(self, window: Tensor, picture: Tensor) -> Tensor:
        self.windows.append(window)
        return self.value * (window.mean(dim=(1, 2, 3)) + picture.mean(dim=(1, 2, 3)))[:, None]


class TestGLCICTask(InpaintingTaskContract):
    inpainter = "glcic"
    model: ClassVar = {"width": 2}
    loss: ClassVar = {"completion_steps": 1, "discriminator_steps": 1, "discriminator_width": 2}
    step = 2

    def test_the_defaults_are_as_published(self) -> None:
        loss = GLCICLoss()
        assert (loss.adversarial_weight, loss.discriminator_width) == (4e-4, 64)
        assert (loss.completion_steps, loss.discriminator_steps) == (90_000, 10_000)

    def test_losses_by_hand(self, photos: PhotoSource, monkeypatch: pytest.MonkeyPatch) -> None:
        task = self.task(photos, adversarial_weight=0.5)
        task.modules["discriminator"] = Means()
        mask = torch.zeros(2, 1, 64, 64)
        mask[..., 16:48, 16:48] = 1  # a quarter, and the whole window
        image, fill = torch.full((2, 3, 64, 64), 0.5), torch.full((2, 3, 64, 64), 0.9)
        output = torch.where(mask == 1, fill, image)
        monkeypatch.setattr(task.model, "run_stages", lambda *_: Stages(fill, output))
        (_, discriminator), (_, model) = task.compute_losses({"image": image, "mask": mask}, 2)
        real, fake = 0.5 + 0.5, 0.9 + (0.9 + 3 * 0.5) / 4
        expected = (log1p(exp(-real)) + log1p(exp(fake))) / 2
        assert discriminator.item() == pytest.approx(expected)
        assert model.item() == pytest.approx(0.4**2 / 4 + 0.5 * log1p(exp(-fake)))

    def test_windows_follow_the_holes_and_the_photos_own_do_not(self, photos: PhotoSource) -> None:
        task = self.task(photos)
        task.modules["discriminator"] = judge = Means()
        batch = self.batch(task)
        batch["mask"].zero_()
        batch["mask"][0, :, 4:20, 4:20] = 1
        batch["mask"][1, :, 44:60, 44:60] = 1
        list(task.compute_losses(batch, 2))
        real, fake, again = judge.windows
        first, second = (..., slice(32), slice(32)), (..., slice(32, 64), slice(32, 64))
        assert torch.equal(real[0], batch["image"][0][second])
        assert torch.equal(real[1], batch["image"][1][first])
        hole = batch["mask"][0, 0][first] == 1
        assert torch.equal(fake[0][:, ~hole], batch["image"][0][first][:, ~hole])
        assert not torch.equal(fake[0][:, hole], batch["image"][0][first][:, hole])
        assert torch.equal(fake, again)

    def test_the_phases_follow_each_other(self, photos: PhotoSource) -> None:
        task = self.task(photos, completion_steps=2, discriminator_steps=2)
        names = [[name for name, _ in task.compute_losses(self.batch(task), i)] for i in range(5)]
        both = ["discriminator", "model"]
        assert names == [["model"], ["model"], ["discriminator"], ["discriminator"], both]

    def test_without_adversarial_weight_the_first_phase_never_ends(
        self, photos: PhotoSource
    ) -> None:
        task = self.task(photos, adversarial_weight=0)
        assert list(task.modules) == ["model"]
        assert [name for name, _ in task.compute_losses(self.batch(task), 2)] == ["model"]
