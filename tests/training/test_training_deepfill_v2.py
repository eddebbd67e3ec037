"""Training of DeepFill v2: its losses against values worked out by hand."""

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from helpers.inpainting_task_contract import InpaintingTaskContract
from overpaint.data.sources import PhotoSource
from overpaint.inpainters.deepfill_v1 import Stages
from overpaint.training.inpainting.deepfill_v2 import DeepFillV2Loss


class Echo(nn.Module):
    """A discriminator whose verdicts are what it is shown, times its only parameter, 1."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.value * x


class TestDeepFillV2Task(InpaintingTaskContract):
    inpainter = "deepfill_v2"
    model: ClassVar = {"width": 2}
    loss: ClassVar = {"discriminator_width": 2}

    def test_the_defaults_are_as_published(self) -> None:
        loss = DeepFillV2Loss()
        assert (loss.l1_weight, loss.adversarial_weight, loss.adversarial_from) == (1, 1, 0)
        assert loss.discriminator_width == 64

    def test_losses_by_hand(self, photos: PhotoSource, monkeypatch: pytest.MonkeyPatch) -> None:
        task = self.task(photos, l1_weight=2, adversarial_weight=3)
        task.modules["discriminator"] = Echo()
        mask = torch.zeros(2, 1, 64, 64)
        mask[..., :16] = 1  # a quarter
        # In [-1, 1] the photo is 0.5; the refinement paints -0.5 in the hole and 0.9 elsewhere.
        image = torch.full((2, 3, 64, 64), 0.75)
        fine = torch.where(mask == 1, 0.25, 0.95).expand_as(image)
        monkeypatch.setattr(task.model, "run_stages", lambda *_: Stages(image - 0.1, fine))
        (_, generator), (_, discriminator) = task.compute_losses({"image": image, "mask": mask}, 0)
        l1 = 0.2 + (1 + 3 * 0.4) / 4
        # Three channels of the composed picture, -0.5 in a quarter and else 0.5, and the mask.
        fake = (3 * (-0.5 + 3 * 0.5) / 4 + 1 / 4) / 4
        assert generator.item() == pytest.approx(2 * l1 - 3 * fake)
        # Real ought to be over 1 and fake below -1.
        real_part = (3 * 0.5 + 3 / 4) / 4
        fake_part = (3 * (0.5 + 3 * 1.5) / 4 + (2 + 3 * 1) / 4) / 4
        assert discriminator.item() == pytest.approx((real_part + fake_part) / 2)

    def test_the_gan_term_joins_at_its_step(self, photos: PhotoSource) -> None:
        task = self.task(photos, adversarial_from=5)
        names = [[name for name, _ in task.compute_losses(self.batch(task), i)] for i in (4, 5)]
        assert names == [["model"], ["model", "discriminator"]]
