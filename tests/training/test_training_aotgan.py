"""Training of AOT-GAN: its losses against values worked out by hand."""

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from helpers.inpainting_task_contract import InpaintingTaskContract
from overpaint.data.sources import PhotoSource
from overpaint.inpainters.aotgan import AOTGAN, soften_mask
from overpaint.training.inpainting.aotgan import AOTGANLoss


class Constant(torch.nn.Module):
    """A discriminator that finds every pixel as real as its only parameter says."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(value))

    def forward(self, image: Tensor) -> Tensor:
        return self.value * torch.ones_like(image[:, :1])


class TestAOTGANTask(InpaintingTaskContract):
    inpainter = "aotgan"
    model: ClassVar = {"width": 4, "num_blocks": 1}
    loss: ClassVar = {
        "perceptual_weight": 0,
        "style_weight": 0,
        "discriminator_width": 4,
        "softness": 2,
    }

    def test_the_defaults_are_as_published(self) -> None:
        loss = AOTGANLoss()
        features = (loss.perceptual_weight, loss.style_weight)
        assert (loss.l1_weight, *features, loss.adversarial_weight) == (1, 0.1, 250, 0.01)
        assert (loss.softness, loss.adversarial_from) == (10, 0)

    def test_losses_by_hand(self, photos: PhotoSource) -> None:
        task = self.task(photos)
        task.modules["discriminator"] = Constant(0.25)
        batch = self.batch(task)
        image, mask, model = batch["image"], batch["mask"], task.model
        assert isinstance(model, AOTGAN)
        l1 = (model.run_stages(image, mask).fill - image).abs().mean().item()
        (_, generator), (_, discriminator) = task.compute_losses(batch, 0)
        # The generator wants 1 in the hole and finds 1/4 everywhere.
        assert generator.item() == pytest.approx(l1 + 0.01 * (3 / 4) ** 2)
        # The discriminator wants 1 in the photo and 1 - soft mask in the composed picture.
        fake = (0.25 - (1 - soften_mask(mask, 15, 2))).square().mean().item()
        assert discriminator.item() == pytest.approx(fake + (3 / 4) ** 2)

    def test_the_gan_term_joins_at_its_step(self, photos: PhotoSource) -> None:
        task = self.task(photos, adversarial_from=5)
        names = [[name for name, _ in task.compute_losses(self.batch(task), i)] for i in (4, 5)]
        assert names == [["model"], ["model", "discriminator"]]
