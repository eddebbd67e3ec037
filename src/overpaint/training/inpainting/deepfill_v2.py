"""Training of DeepFill v2: L1 of both stages, and SN-PatchGAN with the hinge loss.

Source: arXiv:1806.03589, section 3.3; the weights are those of the authors' code (CC BY-NC 4.0;
facts only). The losses are taken on pictures in [-1, 1], which those weights belong to. L1 is of
the whole pictures that the two networks make, the adversarial loss of the composed picture. No
backbone is used.

The discriminator is trained behind the generator, in the authors' code before it.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from overpaint.inpainters.base import compose
from overpaint.inpainters.deepfill_v2 import DeepFillV2
from overpaint.layers.sn_patchgan import SNPatchDiscriminator
from overpaint.training import losses
from overpaint.training.config import AdversarialLoss
from overpaint.training.inpainting.base import InpaintingTask, Weight
from overpaint.training.loop import Batch


class DeepFillV2Loss(AdversarialLoss):
    """Weights of the two losses, as published."""

    l1_weight: Weight = 1.0
    adversarial_weight: Weight = 1.0


class DeepFillV2Task(InpaintingTask[DeepFillV2, DeepFillV2Loss]):
    """Coarse network and refinement against SN-PatchGAN; see `InpaintingTask`."""

    architecture = DeepFillV2
    loss_config = DeepFillV2Loss

    def make_discriminators(self) -> dict[str, nn.Module]:
        if not self.terms.adversarial_weight:
            return {}
        return {"discriminator": SNPatchDiscriminator(width=self.terms.discriminator_width)}

    def compute_losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Tensor]]:
        terms, mask = self.terms, batch["mask"]
        stages = self.model.run_stages(batch["image"], mask)
        image, coarse, fine = (
            2 * x.float() - 1 for x in (batch["image"], stages.coarse, stages.output)
        )
        completed = compose(image, fine, mask)
        loss = terms.l1_weight * ((coarse - image).abs().mean() + (fine - image).abs().mean())
        adversarial = self.is_adversarial(step)
        if adversarial:
            self.modules["discriminator"].requires_grad_(False)
            fake = self._judge(completed, mask)
            loss = loss + terms.adversarial_weight * losses.hinge_generator_loss(fake)
        yield "model", loss
        if adversarial:
            self.modules["discriminator"].requires_grad_(True)
            real, fake = (self._judge(x, mask) for x in (image, completed.detach()))
            yield "discriminator", losses.hinge_discriminator_loss(real, fake) / 2

    def _judge(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.modules["discriminator"](torch.cat([image, mask], dim=1)).float()
