"""Training of GLCIC in its three phases: the squared error, the discriminator, both together.

Source: Iizuka et al. 2017 (ACM TOG 36(4)), section 3.3 and algorithm 1; the sides of the losses
that it leaves open are those of otenim/GLCIC-PyTorch (MIT; facts only). No backbone is used.

- The order of a joint step is that of algorithm 1: first the discriminator, with the plain
  cross-entropy, then the completion network.
- The completion network's adversarial term is the non-saturating one, as in that code; the paper
  has log(1 - D).
- A photo's own window lies at the hole of another sample, so that its position does not identify
  it as real; the paper draws a random rectangle for it.
- The published hole is one rectangle of at most the window's size. Here holes have any shape, and
  the window, half the picture's side as published, is centred at what encloses the hole: it may
  miss some of it.
"""

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor, nn

from overpaint.inpainters.glcic import GLCIC, ContextDiscriminator, cut_local_window
from overpaint.training import losses
from overpaint.training.config import Section
from overpaint.training.inpainting.base import InpaintingTask, Weight
from overpaint.training.loop import Batch


class GLCICLoss(Section):
    """Eq. 4 and the phases, as published."""

    adversarial_weight: Weight = 4e-4
    completion_steps: int = Field(default=90_000, ge=0, description="of the squared error alone")
    discriminator_steps: int = Field(
        default=10_000, ge=0, description="of the discriminator alone, before both are trained"
    )
    discriminator_width: int = Field(default=64, gt=0)


class GLCICTask(InpaintingTask[GLCIC, GLCICLoss]):
    """Completion network against a global and a local discriminator; see `InpaintingTask`.

    Raises ConfigError for samples whose side is not a multiple of 64.
    """

    architecture = GLCIC
    loss_config = GLCICLoss

    def make_discriminators(self) -> dict[str, nn.Module]:
        if not self.terms.adversarial_weight:
            return {}
        discriminator = ContextDiscriminator(
            width=self.terms.discriminator_width,
            local_size=self.run.data.size // 2,
            global_size=self.run.data.size,
            activation_first=self.model.config.activation_first,
        )
        return {"discriminator": discriminator}

    def compute_losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Tensor]]:
        terms, image, mask = self.terms, batch["image"], batch["mask"]
        adversarial = "discriminator" in self.modules and step >= terms.completion_steps
        painted = not adversarial or step >= terms.completion_steps + terms.discriminator_steps
        with torch.set_grad_enabled(painted):
            stages = self.model.run_stages(image, mask)
        if adversarial:
            self.modules["discriminator"].requires_grad_(True)
            real = self._judge(image, mask.roll(1, dims=0))
            fake = self._judge(stages.output.detach(), mask)
            yield "discriminator", losses.discriminator_loss(real, fake) / 2
        if not painted:
            return
        loss = ((stages.fill.float() - image) * mask).square().mean()  # eq. 2
        if adversarial:
            self.modules["discriminator"].requires_grad_(False)
            fake = self._judge(stages.output, mask)
            loss = loss + terms.adversarial_weight * losses.generator_loss(fake)
        yield "model", loss

    def _judge(self, image: Tensor, mask: Tensor) -> Tensor:
        """The discriminator's logits (b, 1) for pictures (b, 3, size, size) and their windows."""
        window = cut_local_window(image, mask, image.shape[-1] // 2)
        return self.modules["discriminator"](window, image).float()
