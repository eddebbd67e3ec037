"""Training of LaMa against a patch discriminator whose features are matched.

Source: arXiv:2109.07161, section 2.2 and 3; weights are those of the authors' code (facts only).
All losses are of the whole picture that the generator paints, not of the composed one. L1 is of
known pixels alone: in the hole, features decide.

- The perceptual loss here is the backbone's, mean absolute differences. Published: the high
  receptive field perceptual loss (HRFPL), mean squares of features of a ResNet-50 trained to
  segment ADE20K. The default weight is the one published for HRFPL, and fits that loss alone.
- The discriminator learns at a tenth of the generator's rate, as published.
- R1 and the logits of photos are computed in full precision.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.inpainters.lama import Discriminator, LaMa
from overpaint.layers.perceptual import feature_losses
from overpaint.training import losses
from overpaint.training.config import AdversarialLoss
from overpaint.training.inpainting.base import InpaintingTask, Weight
from overpaint.training.loop import Batch


class LaMaLoss(AdversarialLoss):
    """Weights of the losses, as published."""

    known_weight: Weight = Field(default=10.0, description="of L1 outside of the hole")
    hole_weight: Weight = Field(default=0.0, description="of L1 in the hole")
    perceptual_weight: Weight = Field(default=30.0, description="published for HRFPL")
    adversarial_weight: Weight = 10.0
    matching_weight: Weight = Field(
        default=100.0, description="of the differences of the discriminator's features"
    )
    r1_weight: Weight = Field(default=0.001, description="of the discriminator's squared gradient")


class LaMaTask(InpaintingTask[LaMa, LaMaLoss]):
    """Generator against a patch discriminator; see `InpaintingTask`."""

    architecture = LaMa
    loss_config = LaMaLoss
    rates: Mapping[str, float] = {"discriminator": 0.1}

    def make_discriminators(self) -> dict[str, nn.Module]:
        if not self.terms.adversarial_weight:
            return {}
        return {"discriminator": Discriminator(self.terms.discriminator_width)}

    def compute_losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Tensor]]:
        image, mask = batch["image"], batch["mask"]
        fill = self.model.run_stages(image, mask).fill
        adversarial = self.is_adversarial(step)
        loss = self._compute_reconstruction_loss(fill, image, mask)
        yield "model", loss + self._compute_adversarial_loss(fill, image) if adversarial else loss
        if adversarial:
            yield "discriminator", self._compute_discriminator_loss(fill.detach(), image, mask)

    def _compute_reconstruction_loss(self, fill: Tensor, image: Tensor, mask: Tensor) -> Tensor:
        """L1 and perceptual loss, weighted."""
        terms = self.terms
        weight = terms.hole_weight * mask + terms.known_weight * (1 - mask)
        loss = (weight * (fill.float() - image).abs()).mean()
        if self.backbone is None:
            return loss
        perceptual, _ = feature_losses(self.backbone.to(image.device), [fill], image)
        return loss + terms.perceptual_weight * perceptual

    def _compute_adversarial_loss(self, fill: Tensor, image: Tensor) -> Tensor:
        """The generator's side: all patches want to pass as real, and to have their features."""
        discriminator = self.modules["discriminator"].requires_grad_(False)
        with torch.no_grad():
            _, wanted = discriminator(image)
        fake, features = discriminator(fill)
        loss = self.terms.adversarial_weight * losses.generator_loss(fake.float())
        return loss + self.terms.matching_weight * feature_matching(features, wanted)

    def _compute_discriminator_loss(self, fill: Tensor, image: Tensor, mask: Tensor) -> Tensor:
        discriminator = self.modules["discriminator"].requires_grad_(True)
        fake, _ = discriminator(fill)
        with torch.autocast(image.device.type, enabled=False):
            photo = image.detach().requires_grad_()
            real, _ = discriminator(photo)
            penalty = losses.gradient_square(real, photo).mean()
        loss = F.softplus(-real).mean() + masked_fake_loss(fake.float(), mask)
        return loss + self.terms.r1_weight * penalty


def masked_fake_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of a painted picture's logits (b, 1, h', w'), mean over the patches.

    A patch is fake where the mask (b, 1, h, w), taken at the nearest pixel, is 1. Others are real:
    what the generator repeated outside of the hole need not be told from the photo.
    """
    hole = F.interpolate(mask, logits.shape[2:], mode="nearest")
    return (hole * F.softplus(logits) + (1 - hole) * F.softplus(-logits)).mean()


def feature_matching(features: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Mean squared difference, mean over the layers."""
    pairs = zip(features, wanted, strict=True)
    return torch.stack([F.mse_loss(f.float(), w.float()) for f, w in pairs]).mean()
