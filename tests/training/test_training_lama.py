"""Training of LaMa: its losses against values worked out by hand."""

from math import exp, log
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from helpers.inpainting_task_contract import InpaintingTaskContract
from helpers.pixel_backbone import Pixels
from overpaint.data.sources import PhotoSource
from overpaint.inpainters.lama import Stages
from overpaint.training.inpainting.lama import LaMaLoss, LaMaTask, masked_fake_loss


class Brightness(torch.nn.Module):
    """A discriminator of 4 x 4 patches whose logits are all twice the picture's mean."""

    def __init__(self) -> None:
        super().__init__()
        self.reduced = False

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        if image.requires_grad:
            self.reduced = torch.is_autocast_enabled("cpu")
        logits = 2 * image.mean(dim=(1, 2, 3), keepdim=True).expand(-1, 1, 4, 4)
        return logits, [2 * image, 4 * image]


class TestLaMaTask(InpaintingTaskContract):
    inpainter = "lama"
    model: ClassVar = {"width": 4, "num_blocks": 1}
    loss: ClassVar = {"perceptual_weight": 0, "discriminator_width": 4}

    def test_the_defaults_are_as_published(self) -> None:
        loss = LaMaLoss()
        assert (loss.known_weight, loss.hole_weight, loss.perceptual_weight) == (10, 0, 30)
        assert (loss.adversarial_weight, loss.matching_weight, loss.r1_weight) == (10, 100, 0.001)
        assert (loss.adversarial_from, loss.discriminator_width) == (0, 64)
        assert LaMaTask.rates == {"discriminator": 0.1}

    def test_losses_by_hand(self, photos: PhotoSource) -> None:
        task = self.task(photos)
        task.backbone, task.terms = Pixels(), LaMaLoss(hole_weight=2, r1_weight=0.5)
        task.modules["discriminator"] = judge = Brightness()
        image, mask = torch.zeros(2, 3, 64, 64), torch.zeros(2, 1, 64, 64)
        mask[..., :16] = 1
        fill = torch.full_like(image, 0.5)
        task.model.run_stages = lambda image, mask: Stages(fill, image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (_, generator), (_, discriminator) = task.compute_losses(
                {"image": image, "mask": mask}, 0
            )
        # Black photos with a quarter of hole are painted grey, 1/2, and judged 0 and 1.
        l1 = 10 * 1 / 2 * 3 / 4 + 2 * 1 / 2 * 1 / 4
        perceptual = 30 * 1 / 2  # of the whole picture
        matching = 100 * (1**2 + 2**2) / 2  # the features' errors are 1 and 2
        adversarial = 10 * log(1 + exp(-1))
        total = l1 + perceptual + adversarial + matching
        assert generator.item() == pytest.approx(total)
        # The quarter that is hole ought to be judged negative, the rest positive. The 16 patches'
        # logits rise by 2 * 16 / n with each of n = 3 * 64 * 64 values: a gradient of 32^2 / n.
        fake = log(1 + exp(1)) / 4 + log(1 + exp(-1)) * 3 / 4
        r1 = 32**2 / (3 * 64 * 64)
        assert discriminator.item() == pytest.approx(log(2) + fake + 0.5 * r1)
        assert not judge.reduced

    def test_known_patches_of_a_painted_picture_count_as_real(self) -> None:
        mask = torch.zeros(1, 1, 8, 8)
        mask[..., :4, :] = 1
        right = torch.tensor([[-9.0, -9.0], [9.0, 9.0]])[None, None]
        assert masked_fake_loss(right, mask).item() == pytest.approx(log(1 + exp(-9)))
        assert masked_fake_loss(-right, mask).item() == pytest.approx(log(1 + exp(9)))

    def test_the_gan_term_joins_at_its_step(self, photos: PhotoSource) -> None:
        task = self.task(photos, adversarial_from=5)
        names = [[name for name, _ in task.compute_losses(self.batch(task), i)] for i in (4, 5)]
        assert names == [["model"], ["model", "discriminator"]]
