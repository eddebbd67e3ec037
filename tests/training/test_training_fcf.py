"""Training of FcF: its losses against values worked out by hand, and the lazy R1."""

from math import exp, log
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from helpers.inpainting_task_contract import InpaintingTaskContract
from helpers.pixel_backbone import Pixels
from overpaint.data.sources import PhotoSource
from overpaint.inpainters.base import compose
from overpaint.inpainters.fcf import Discriminator, Stages
from overpaint.training.inpainting.fcf import FcFLoss


class Brightness(torch.nn.Module):
    """A discriminator whose logit is 64 times the mean of the picture in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.reduced = False

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        if image.requires_grad:
            self.reduced = torch.is_autocast_enabled("cpu")
        return 64 * (2 * image - 1).flatten(1).mean(dim=1, keepdim=True)


class TestFcFTask(InpaintingTaskContract):
    inpainter = "fcf"
    model: ClassVar = {"resolution": 64, "width": 32, "max_width": 32, "latent_size": 32}
    loss: ClassVar = {
        "perceptual_weight": 0,
        "discriminator_width": 32,
        "discriminator_max_width": 32,
    }

    def test_the_defaults_are_as_published(self) -> None:
        loss = FcFLoss()
        assert (loss.l1_weight, loss.perceptual_weight, loss.adversarial_weight) == (10, 5, 1)
        assert (loss.r1_weight, loss.r1_every, loss.adversarial_from) == (10, 16, 0)
        assert (loss.discriminator_width, loss.discriminator_max_width) == (64, 512)

    def test_the_discriminator_has_widths_of_its_own(self, photos: PhotoSource) -> None:
        task = self.task(photos, discriminator_max_width=96)
        discriminator = task.modules["discriminator"]
        assert isinstance(discriminator, Discriminator)
        assert discriminator.first.weight.shape[0] == 32
        assert discriminator.last.weight.shape[0] == 96
        assert task.model.config.max_width == 32

    @pytest.mark.parametrize(
        ("step", "penalised"), [(0, True), (1, False), (15, False), (16, True)]
    )
    def test_losses_by_hand(self, photos: PhotoSource, step: int, penalised: bool) -> None:
        task = self.task(photos)
        task.backbone, task.terms = Pixels(), FcFLoss()
        task.modules["discriminator"] = judge = Brightness()
        image, mask = torch.full((2, 3, 64, 64), 0.5), torch.zeros(2, 1, 64, 64)
        mask[..., :16] = 1
        fill = image + 1 / 32
        task.model.run_stages = lambda image, mask: Stages(fill, compose(image, fill, mask))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (_, generator), (_, discriminator) = task.compute_losses(
                {"image": image, "mask": mask}, step
            )
        # The hole is a quarter of the photo, and 1/32 too bright; the logits are 0 and 1. L1 is on
        # the scale of [-1, 1].
        l1, perceptual = 10 * 2 / 32 / 4, 5 / 32 / 4
        assert generator.item() == pytest.approx(l1 + perceptual + log(1 + exp(-1)))
        # The logit rises by 64 / n with each of n = 3 * 64 * 64 values in [-1, 1]: 64^2 / n = 1/3.
        r1 = 16 * 10 / 2 / 3 if penalised else 0
        assert discriminator.item() == pytest.approx(log(2) + log(1 + exp(1)) + r1)
        assert not judge.reduced

    def test_the_gan_term_joins_at_its_step(self, photos: PhotoSource) -> None:
        task = self.task(photos, adversarial_from=5)
        names = [[name for name, _ in task.compute_losses(self.batch(task), i)] for i in (4, 5)]
        assert names == [["model"], ["model", "discriminator"]]
