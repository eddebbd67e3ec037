"""Training of MADF by incremental supervision: more is asked of each drawing than of the last.

Source: arXiv:2104.13743, section III.D; weights and units are those of the authors' code (facts
only). There is no discriminator. L1 judges every drawing, the perceptual loss those from the
second on, style and total variation those from the third on; where there are fewer, the last one.
The features are of the drawing and of the composed picture, the variation of the composed one.

- L1 and total variation are of pixels divided by ImageNet's deviation, as the network draws them:
  in [0, 1] they would weigh a quarter of what was published.
- The features are the backbone's. Published: VGG-16 after its first three poolings, for both
  losses.
"""

from collections.abc import Iterator

from torch import Tensor

from overpaint.inpainters.base import compose
from overpaint.inpainters.madf import MADF
from overpaint.layers.perceptual import feature_losses
from overpaint.training.config import Section
from overpaint.training.inpainting.base import InpaintingTask, Weight
from overpaint.training.loop import Batch
from overpaint.training.losses import total_variation


class MADFLoss(Section):
    """Weights of the five losses, as published."""

    hole_weight: Weight = 6.0
    known_weight: Weight = 1.0
    perceptual_weight: Weight = 0.05
    style_weight: Weight = 120.0
    variation_weight: Weight = 0.1


class MADFTask(InpaintingTask[MADF, MADFLoss]):
    """The generator alone; see `InpaintingTask`."""

    architecture = MADF
    loss_config = MADFLoss

    def compute_losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Tensor]]:
        image, mask = batch["image"], batch["mask"]
        pictures = [picture.float() for picture in self.model.run_stages(image, mask)]
        second, third = (min(i, len(pictures) - 1) for i in (1, 2))
        loss = image.new_zeros(())
        for i, picture in enumerate(pictures):
            loss = loss + self._compute_l1(picture, image, mask)
            if i >= second:
                loss = loss + self._compute_refinement_loss(picture, image, mask, whole=i >= third)
        yield "model", loss

    def _compute_l1(self, picture: Tensor, image: Tensor, mask: Tensor) -> Tensor:
        """Of hole and known pixels, both divided by the number of all pixels; weighted."""
        weight = self.terms.hole_weight * mask + self.terms.known_weight * (1 - mask)
        return (weight * (picture - image).abs() / self.model.std).mean()

    def _compute_refinement_loss(
        self, picture: Tensor, image: Tensor, mask: Tensor, whole: bool
    ) -> Tensor:
        """Total variation and style, if `whole`, and the perceptual loss; weighted."""
        terms, composed = self.terms, compose(image, picture, mask)
        variation = terms.variation_weight * whole
        loss = variation * total_variation(composed / self.model.std)
        if self.backbone is None:
            return loss
        backbone, style_weight = self.backbone.to(image.device), terms.style_weight * whole
        perceptual, style = feature_losses(backbone, [picture, composed], image)
        return loss + terms.perceptual_weight * perceptual + style_weight * style
