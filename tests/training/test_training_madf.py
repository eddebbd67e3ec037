"""Training of MADF: its losses, and what is asked of which drawing, by hand."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from helpers.inpainting_task_contract import InpaintingTaskContract
from helpers.pixel_backbone import Pixels
from overpaint.data.masks import brush
from overpaint.data.sources import PhotoSource
from overpaint.training.inpainting.base import InpaintingTask
from overpaint.training.inpainting.data import InpaintingData, PhotosAndHoles
from overpaint.training.inpainting.madf import MADFLoss

SIDE = 128
"""The shortest that the network takes."""


class TestMADFTask(InpaintingTaskContract):
    inpainter = "madf"
    model: ClassVar = {"width": 4, "mask_channels": 2}
    loss: ClassVar = {"perceptual_weight": 0, "style_weight": 0}

    def task(self, photos: PhotoSource, **loss: Any) -> InpaintingTask[Any, Any]:
        task = super().task(photos, **loss)
        task.train = PhotosAndHoles(photos, InpaintingData(size=SIDE), brush, 0)
        return task

    def test_the_defaults_are_as_published(self) -> None:
        loss = MADFLoss()
        features = (loss.perceptual_weight, loss.style_weight)
        assert (loss.hole_weight, loss.known_weight, loss.variation_weight) == (6, 1, 0.1)
        assert features == (0.05, 120)

    def test_pixel_losses_by_hand(self, photos: PhotoSource) -> None:
        task = self.task(photos)
        value = drawn(task, [error * task.model.std for error in (0.1, 0.2, 0.4)])
        # A quarter is hole. Only the last drawing's step at the hole's edge is one of variation:
        # one column of the 127 pairs of neighbours, in the composed picture.
        l1 = (0.1 + 0.2 + 0.4) * (6 / 4 + 3 / 4)
        assert value == pytest.approx(l1 + 0.1 * 0.4 / 127, rel=1e-5)

    @pytest.mark.parametrize(
        ("errors", "content", "style"),
        [
            # A black photo, so that a drawing is its error: content of all but the first one ...
            ([0.1, 0.2, 0.4], 0.2 + 0.4, 0.4**2),
            ([0.1, 0.2, 0.4, 0.3], 0.2 + 0.4 + 0.3, 0.4**2 + 0.3**2),
            # ... and where there are fewer than three, style of the last one.
            ([0.1, 0.2], 0.2, 0.2**2),
            ([0.1], 0.1, 0.1**2),
        ],
    )
    def test_incremental_supervision(
        self, photos: PhotoSource, errors: list[float], content: float, style: float
    ) -> None:
        task = self.task(photos)
        task.backbone = Pixels()
        task.terms = MADFLoss(hole_weight=0, known_weight=0, variation_weight=0)
        value = drawn(task, [torch.full((1, 3, 1, 1), error) for error in errors])
        # The composed picture has a quarter of the drawing's error, and of its Gram matrix, which
        # is the square divided by three channels.
        assert value == pytest.approx(5 / 4 * (0.05 * content + 120 * style / 3), rel=5e-4)


def drawn(task: InpaintingTask[Any, Any], pictures: list[Tensor]) -> float:
    """The loss where the network draws these colours on black photos with a quarter of hole."""
    image, mask = torch.zeros(2, 3, SIDE, SIDE), torch.zeros(2, 1, SIDE, SIDE)
    mask[..., : SIDE // 4] = 1
    task.model.run_stages = lambda image, mask: [p.expand_as(image) for p in pictures]
    ((name, loss),) = task.compute_losses({"image": image, "mask": mask}, 0)
    assert name == "model"
    return loss.item()
