"""Training of AOT-GAN against a discriminator that paints where the hole is.

Source: arXiv:2104.01431, section 3.2 and 3.3; the weights are those of the authors' code (facts
only). L1, perceptual and style loss are of the whole picture that the generator makes, the
adversarial one of the composed picture.

The published weights of the style loss fit the official VGG-19 alone.
"""

from collections.abc import Iterator

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.inpainters.aotgan import AOTGAN, SoftMaskDiscriminator, soften_mask
from overpaint.layers.perceptual import feature_losses
from overpaint.training.config import AdversarialLoss
from overpaint.training.inpainting.base import InpaintingTask, Weight
from overpaint.training.loop import Batch


class AOTGANLoss(AdversarialLoss):
    """Weights of the four losses, as published."""

    l1_weight: Weight = 1.0
    perceptual_weight: Weight = 0.1
    style_weight: Weight = 250.0
    adversarial_weight: Weight = 0.01
    softness: float = Field(
        default=10.0, gt=0, description="deviation of the soft mask's blur, pixels; 10 at 512 px"
    )


class AOTGANTask(InpaintingTask[AOTGAN, AOTGANLoss]):
    """Generator against SM-PatchGAN; see `InpaintingTask`."""

    architecture = AOTGAN
    loss_config = AOTGANLoss

    def make_discriminators(self) -> dict[str, nn.Module]:
        if not self.terms.adversarial_weight:
            return {}
        return {"discriminator": SoftMaskDiscriminator(self.terms.discriminator_width)}

    def compute_losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Tensor]]:
        terms, image, mask = self.terms, batch["image"], batch["mask"]
        stages = self.model.run_stages(image, mask)
        loss = terms.l1_weight * (stages.fill.float() - image).abs().mean()
        if self.backbone is not None:
            backbone = self.backbone.to(image.device)
            perceptual, style = feature_losses(backbone, [stages.fill], image)
            loss = loss + terms.perceptual_weight * perceptual + terms.style_weight * style
        adversarial = self.is_adversarial(step)
        if adversarial:
            discriminator = self.modules["discriminator"].requires_grad_(False)
            fake = discriminator(stages.output).float()
            # To the generator the hole alone counts: there it wants to pass as real, 1.
            loss = loss + terms.adversarial_weight * ((fake - 1).square() * mask).sum() / mask.sum()
        yield "model", loss
        if adversarial:
            discriminator = self.modules["discriminator"].requires_grad_(True)
            real = discriminator(image).float()
            fake = discriminator(stages.output.detach()).float()
            window = 2 * round(3.5 * terms.softness) + 1
            wanted = 1 - soften_mask(mask, window, terms.softness)
            yield "discriminator", F.mse_loss(fake, wanted) + (real - 1).square().mean()
