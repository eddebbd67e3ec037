"""Training of CTSDG: six losses, against a discriminator of texture and of structure.

Source: arXiv:2108.09760, section 3.4; what the paper leaves open, and the weights, are those of the
authors' code (MIT; facts only). The L1 losses are taken on pictures in [-1, 1], which those weights
belong to.

- Edges that are to be found are Canny's of the whole photo, the hole's content included: by the
  structure's features, and by the discriminator's detector in a photo and in a fill alike.
- The discriminator gets the whole output of the generator, with the photo's grey.
- Perceptual and style loss are of that picture and of the composed one. The published ones compare
  VGG-16's pool1 to pool3; here the run's backbone stands in, with its own layers, and the published
  weights hold in their order of magnitude only.
- The generator's batch norms are frozen at the end. The authors do so in a second run, with a
  fourth of the learning rate.
- At 128 pixels the bottom of both U-Nets is a single place, so a batch needs two samples or more.
"""

from collections.abc import Iterator, Mapping

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.errors import ConfigError
from overpaint.inpainters.base import compose
from overpaint.inpainters.ctsdg import CTSDG, DualDiscriminator, Stages
from overpaint.layers.perceptual import feature_losses
from overpaint.training import losses
from overpaint.training.config import Section
from overpaint.training.inpainting.base import InpaintingTask, Weight
from overpaint.training.loop import Batch


class CTSDGLoss(Section):
    """Weights of the losses, as published."""

    hole_weight: Weight = 60.0
    valid_weight: Weight = 10.0
    perceptual_weight: Weight = 0.1
    style_weight: Weight = 250.0
    adversarial_weight: Weight = 0.1
    intermediate_weight: Weight = 1.0
    frozen_from: int = Field(
        default=300_000, ge=0, description="step from which batch norms keep their statistics"
    )
    discriminator_width: int = Field(default=64, gt=0)


class CTSDGTask(InpaintingTask[CTSDG, CTSDGLoss]):
    """Generator against texture and structure discriminator; see `InpaintingTask`."""

    architecture = CTSDG
    loss_config = CTSDGLoss
    rates: Mapping[str, float] = {"discriminator": 0.1}

    def make_discriminators(self) -> dict[str, nn.Module]:
        size = self.run.data.size
        if size % self.architecture.stride:
            raise ConfigError(
                f"data.size {size}: CTSDG takes multiples of {self.architecture.stride}"
            )
        if not self.terms.adversarial_weight:
            return {}
        return {"discriminator": DualDiscriminator(self.terms.discriminator_width)}

    def compute_losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Tensor]]:
        terms, model, image, mask = self.terms, self.model, batch["image"], batch["mask"]
        if step >= terms.frozen_from:
            freeze_norms(model)
        stages = model.run_stages(image, mask)
        edges, grey = model.find_structure(image).chunk(2, dim=1)
        loss = self._compute_reconstruction_loss(stages, image, mask)
        loss = loss + terms.intermediate_weight * (
            edge_loss(stages.edge_logits, edges) + compute_distance(stages.texture, image)
        )
        if "discriminator" in self.modules:
            discriminator = self.modules["discriminator"].requires_grad_(False)
            fake, detected = discriminator(stages.fill, grey)
            adversarial = losses.generator_loss(fake.float()) + edge_loss(detected, edges)
            loss = loss + terms.adversarial_weight * adversarial
        yield "model", loss
        if "discriminator" in self.modules:
            discriminator = self.modules["discriminator"].requires_grad_(True)
            real, real_edges = discriminator(image, grey, edges)
            fake, fake_edges = discriminator(stages.fill.detach(), grey)
            loss = losses.discriminator_loss(real.float(), fake.float())
            loss = loss + edge_loss(real_edges, edges) + edge_loss(fake_edges, edges)
            yield "discriminator", loss

    def _compute_reconstruction_loss(self, stages: Stages, image: Tensor, mask: Tensor) -> Tensor:
        """L1 of hole and known region, perceptual and style loss, weighted."""
        terms, fill = self.terms, stages.fill.float()
        hole, valid = (
            compute_distance(fill * region, image * region) for region in (mask, 1 - mask)
        )
        loss = terms.hole_weight * hole + terms.valid_weight * valid
        if self.backbone is None:
            return loss
        both = (fill, compose(image, fill, mask))
        perceptual, style = feature_losses(self.backbone.to(image.device), both, image)
        return loss + terms.perceptual_weight * perceptual + terms.style_weight * style


def compute_distance(picture: Tensor, image: Tensor) -> Tensor:
    """Mean absolute difference of pictures (b, 3, h, w) in [0, 1], as it is in [-1, 1]."""
    return 2 * (picture.float() - image).abs().mean()


def edge_loss(logits: Tensor, edges: Tensor) -> Tensor:
    """Cross-entropy of logits and edges (b, 1, h, w), mean over pixels."""
    return F.binary_cross_entropy_with_logits(logits.float(), edges)


def freeze_norms(model: nn.Module) -> None:
    """Let batch norms use the statistics that they have, until the next `train()`."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
