"""Training of FcF against StyleGAN2's discriminator, which is shown the mask.

Source: arXiv:2208.03382, section 3.4; weights, units and schedule are those of the authors' code
(facts only). All losses are of the composed picture. Style mixing is the network's own.

- L1 and R1 are of pictures in [-1, 1], as published.
- R1 joins every 16th step, 16 times as heavy (Karras et al. 2020, arXiv:1912.04958, section 3.1),
  in full precision. Theirs is a step of its own; here both losses share one.
- The perceptual loss here is the backbone's, mean absolute differences. Published: the high
  receptive field perceptual loss (HRFPL) of LaMa, mean squares of features of a ResNet-50 trained
  to segment ADE20K. The default weight is the one published for HRFPL, and fits that loss alone.
- The discriminator gets the picture that the generator was trained on; theirs gets one of a
  fresh latent.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor, nn

from overpaint.inpainters.fcf import Discriminator, FcF
from overpaint.layers.perceptual import feature_losses
from overpaint.training import losses
from overpaint.training.config import AdversarialLoss
from overpaint.training.inpainting.base import InpaintingTask, Weight
from overpaint.training.loop import Batch


class FcFLoss(AdversarialLoss):
    """Weights of the losses, as published."""

    l1_weight: Weight = 10.0
    perceptual_weight: Weight = Field(default=5.0, description="published for HRFPL")
    adversarial_weight: Weight = 1.0
    r1_weight: Weight = Field(
        default=10.0, description="gamma: of half the discriminator's squared gradient"
    )
    r1_every: int = Field(default=16, gt=0, description="steps from one R1 to the next")
    discriminator_width: int = Field(default=64, gt=0, description="see FcFConfig")
    discriminator_max_width: int = Field(default=512, gt=0, description="see FcFConfig")


class FcFTask(InpaintingTask[FcF, FcFLoss]):
    """Generator against StyleGAN2's discriminator; see `InpaintingTask`."""

    architecture = FcF
    loss_config = FcFLoss

    def make_discriminators(self) -> dict[str, nn.Module]:
        terms = self.terms
        if not terms.adversarial_weight:
            return {}
        width, max_width = terms.discriminator_width, terms.discriminator_max_width
        config = replace(self.model.config, width=width, max_width=max_width)
        return {"discriminator": Discriminator(config)}

    def compute_losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Tensor]]:
        terms, image, mask = self.terms, batch["image"], batch["mask"]
        output = self.model.run_stages(image, mask).output
        loss = terms.l1_weight * 2 * (output - image).abs().mean()  # 2: in [-1, 1]
        if self.backbone is not None:
            perceptual, _ = feature_losses(self.backbone.to(image.device), [output], image)
            loss = loss + terms.perceptual_weight * perceptual
        adversarial = self.is_adversarial(step)
        if adversarial:
            discriminator = self.modules["discriminator"].requires_grad_(False)
            fake = discriminator(output, mask).float()
            loss = loss + terms.adversarial_weight * losses.generator_loss(fake)
        yield "model", loss
        if adversarial:
            discriminator = self.modules["discriminator"].requires_grad_(True)
            real, fake = discriminator(image, mask), discriminator(output.detach(), mask)
            loss = losses.discriminator_loss(real.float(), fake.float())
            if step % terms.r1_every == 0:
                loss = loss + terms.r1_every * terms.r1_weight / 2 * self._compute_r1(image, mask)
            yield "discriminator", loss

    def _compute_r1(self, image: Tensor, mask: Tensor) -> Tensor:
        """The squared gradient at photos in [-1, 1], mean over the batch."""
        with torch.autocast(image.device.type, enabled=False):
            photo = image.detach().requires_grad_()
            logits = self.modules["discriminator"](photo, mask)
            # Photos in [0, 1] have half the spread, so a gradient there is twice as large.
            return losses.gradient_square(logits, photo).mean() / 4
