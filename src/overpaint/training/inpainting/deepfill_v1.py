"""Training of DeepFill v1: spatially discounted L1, and two critics of the Wasserstein distance.

Source: arXiv:1801.07892, section 3; the weights are those of the authors' code, branch v1.0.0 (CC
BY-NC 4.0; facts only). Gradient penalty: Gulrajani et al. 2017 (arXiv:1704.00028). The losses are
taken on pictures in [-1, 1], which those weights belong to. No backbone is used.

- The published hole is one box, with one picture of discounts for all. Here holes have any shape:
  each pixel's distance to the nearest known one is counted (chessboard, the same in a box), and L1
  of the hole is a mean over its pixels. A pixel at the hole's edge is at distance 1, as in the
  paper; the authors' code begins with 0.
- The local critic sees half the picture's side, as published, around what encloses the hole.
- The critics take their `n_critic` steps on the batch of the generator's step, each with other
  mixtures of real and fake; the authors draw a new batch each time.
"""

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.inpainters.base import compose
from overpaint.inpainters.deepfill_v1 import DeepFillV1, LocalGlobalCritic
from overpaint.inpainters.glcic import cut_local_window
from overpaint.training import losses
from overpaint.training.config import AdversarialLoss
from overpaint.training.inpainting.base import InpaintingTask, Weight
from overpaint.training.loop import Batch


class DeepFillV1Loss(AdversarialLoss):
    """Weights of the losses, as published."""

    hole_weight: Weight = Field(default=1.2, description="of the discounted L1 of the hole")
    known_weight: Weight = Field(default=1.2, description="of L1 of the known pixels")
    coarse_weight: Weight = Field(default=1.2, description="of the first network's L1, against 1")
    discount: float = Field(default=0.9, gt=0, le=1, description="gamma, per pixel of distance")
    adversarial_weight: Weight = 0.001
    penalty_weight: Weight = Field(default=10.0, description="lambda of the gradient penalty")
    n_critic: int = Field(default=5, ge=1, description="the critics' steps for the generator's one")


class DeepFillV1Task(InpaintingTask[DeepFillV1, DeepFillV1Loss]):
    """Coarse network and refinement against a global and a local critic; see `InpaintingTask`.

    Raises ConfigError for samples whose side is not a multiple of 32.
    """

    architecture = DeepFillV1
    loss_config = DeepFillV1Loss

    def make_discriminators(self) -> dict[str, nn.Module]:
        if not self.terms.adversarial_weight:
            return {}
        width = self.terms.discriminator_width
        return {"critic": LocalGlobalCritic(self.run.data.size, width)}

    def compute_losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Tensor]]:
        terms, mask = self.terms, batch["mask"]
        stages = self.model.run_stages(batch["image"], mask)
        image, coarse, fine = (
            2 * x.float() - 1 for x in (batch["image"], stages.coarse, stages.output)
        )
        completed = compose(image, fine, mask)
        loss = terms.coarse_weight * self._compute_l1(coarse, image, mask) + self._compute_l1(
            fine, image, mask
        )
        critic = self.modules.get("critic")
        if isinstance(critic, LocalGlobalCritic) and self.is_adversarial(step):
            critic.requires_grad_(True)
            for _ in range(terms.n_critic):
                yield "critic", self._compute_critic_loss(critic, image, completed.detach(), mask)
            critic.requires_grad_(False)
            scores = critic(completed, _cut_window(completed, mask))
            fooled = sum(losses.hinge_generator_loss(score.float()) for score in scores)
            loss = loss + terms.adversarial_weight * fooled
        yield "model", loss

    def _compute_l1(self, picture: Tensor, image: Tensor, mask: Tensor) -> Tensor:
        """L1 of one network's picture, in the hole and outside, weighted."""
        error = (picture - image).abs().mean(dim=1, keepdim=True)
        discounted = error * self.terms.discount ** compute_distance_to_known(mask) * mask
        known = error * (1 - mask)
        return (
            self.terms.hole_weight * discounted.sum() / mask.sum()
            + self.terms.known_weight * known.sum() / (1 - mask).sum()
        )

    def _compute_critic_loss(
        self, critic: LocalGlobalCritic, image: Tensor, completed: Tensor, mask: Tensor
    ) -> Tensor:
        """Both critics' losses, in full precision for the penalty's second derivatives."""
        views = image, completed, mask
        windows = (_cut_window(x, mask) for x in views)
        weight = self.terms.penalty_weight
        with torch.autocast(image.device.type, enabled=False):
            whole = wasserstein_loss(critic.whole, *views, penalty_weight=weight)
            return whole + wasserstein_loss(critic.local, *windows, penalty_weight=weight)


def _cut_window(image: Tensor, mask: Tensor) -> Tensor:
    return cut_local_window(image, mask, image.shape[-1] // 2)


def wasserstein_loss(
    critic: nn.Module, real: Tensor, fake: Tensor, mask: Tensor, penalty_weight: float
) -> Tensor:
    """WGAN-GP as the critic minimises it; the penalty is of the hole's pixels alone.

    real, fake: (b, 3, h, w); mask: (b, 1, h, w), 1 = hole. critic: pictures -> scores (b, 1).
    """
    mixed = real.lerp(fake, torch.rand(len(real), 1, 1, 1, device=real.device))
    leaf = mixed.clone().requires_grad_()
    square = losses.gradient_square(critic(compose(mixed, leaf, mask)), leaf)
    penalty = (square.sqrt() - 1).square().mean()
    return critic(fake).mean() - critic(real).mean() + penalty_weight * penalty


def compute_distance_to_known(mask: Tensor) -> Tensor:
    """Chessboard distance of each pixel to the nearest known one; mask and result (b, 1, h, w).

    0 where known, 1 at the hole's edge; what lies outside the picture is not known. Without a known
    pixel it is the longer side.
    """
    distance, known = torch.zeros_like(mask), 1 - mask
    for _ in range(max(mask.shape[-2:])):
        if known.all():
            break
        distance += 1 - known
        known = F.max_pool2d(known, 3, stride=1, padding=1)
    return distance
