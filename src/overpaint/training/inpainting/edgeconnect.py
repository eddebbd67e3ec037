"""Training of EdgeConnect in three phases: edges, inpainting along real edges, both together.

Source: arXiv:1901.00212, sections 3.1 and 3.2; what the paper leaves open, and the weights, are
those of the authors' code (CC BY-NC 4.0; facts only).

- Each generator has its discriminator, trained at a tenth of its learning rate. The discriminator
  of the edges gets grey and edges of the whole photo; that of the pictures, and L1 and perceptual
  loss, get the whole output of the generator; the style loss gets the hole alone.
- In the joint phase the inpainting losses reach the edge generator too, as in the paper, which
  drops the discriminator of the edges there. Here it stays, as in the authors' joint mode.
- The learning rate is the recipe's in all phases; the paper lowers it tenfold twice.
- Known edges are those of the known region, as in use. The authors train on those of the whole
  photo, blanked in the hole.
- The published losses feed VGG-19 the picture as it is: `vgg19-raw`. The published weights of the
  style loss fit that backbone alone.
"""

from collections.abc import Iterator, Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from overpaint.inpainters.edgeconnect import EdgeConnect, to_grey
from overpaint.layers.patchgan import PatchDiscriminator
from overpaint.layers.perceptual import feature_losses
from overpaint.training import losses
from overpaint.training.config import Section
from overpaint.training.inpainting.base import InpaintingTask, Weight
from overpaint.training.loop import Batch


class EdgeConnectLoss(Section):
    """Weights of the losses and the phases, as published."""

    edge_adversarial_weight: Weight = 1.0
    feature_matching_weight: Weight = 10.0
    l1_weight: Weight = Field(default=1.0, description="of L1 over the hole's share")
    perceptual_weight: Weight = 0.1
    style_weight: Weight = 250.0
    adversarial_weight: Weight = 0.1
    edge_steps: int = Field(default=2_000_000, ge=0, description="of the edges alone")
    real_edge_steps: int = Field(
        default=2_000_000, ge=0, description="of inpainting along real edges, before both"
    )
    discriminator_width: int = Field(default=64, gt=0)


class EdgeConnectTask(InpaintingTask[EdgeConnect, EdgeConnectLoss]):
    """Two generators, each against its PatchGAN; see `InpaintingTask`."""

    architecture = EdgeConnect
    loss_config = EdgeConnectLoss
    rates: Mapping[str, float] = {"edge_discriminator": 0.1, "discriminator": 0.1}

    def make_discriminators(self) -> dict[str, nn.Module]:
        width = self.terms.discriminator_width
        return {
            "edge_discriminator": PatchDiscriminator(2, width),  # D1
            "discriminator": PatchDiscriminator(3, width),  # D2
        }

    def compute_losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Tensor]]:
        terms, model, image, mask = self.terms, self.model, batch["image"], batch["mask"]
        joint = step >= terms.edge_steps + terms.real_edge_steps
        drawn, painted = joint or step < terms.edge_steps, step >= terms.edge_steps
        edges, loss = model.find_edges(image), image.new_zeros(())
        contests: dict[str, tuple[Tensor, Tensor]] = {}  # real and fake by discriminator
        if drawn:
            grey, real = to_grey(image), edges
            predicted, edges = model.draw(image, mask)
            pair = [torch.cat([grey, x], dim=1) for x in (real, predicted)]
            loss = loss + self._compute_edge_loss(*pair)
            contests["edge_discriminator"] = pair[0], pair[1]
        if painted:
            fill = model.paint(image, edges, mask)
            loss = loss + self._compute_inpainting_loss(fill, image, mask)
            contests["discriminator"] = image, fill
        yield "model", loss
        for name, (real, fake) in contests.items():
            discriminator = self.modules[name].requires_grad_(True)
            verdicts = (discriminator(x).float() for x in (real, fake.detach()))
            yield name, losses.discriminator_loss(*verdicts) / 2

    def _compute_edge_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Adversarial and feature-matching loss, weighted, of grey and edges (b, 2, h, w)."""
        discriminator = self.modules["edge_discriminator"].requires_grad_(False)
        with torch.no_grad():
            wanted = find_features(discriminator, real)
        found = find_features(discriminator, fake)
        matching = [(f - w).abs().mean() for f, w in zip(found, wanted, strict=True)]
        return (
            self.terms.edge_adversarial_weight * losses.generator_loss(found[-1])
            + self.terms.feature_matching_weight * torch.stack(matching).sum()
        )

    def _compute_inpainting_loss(self, fill: Tensor, image: Tensor, mask: Tensor) -> Tensor:
        """L1, perceptual, style and adversarial loss, weighted, of a fill (b, 3, h, w)."""
        terms = self.terms
        loss = terms.l1_weight * (fill.float() - image).abs().mean() / mask.mean()
        if self.backbone is not None:
            backbone = self.backbone.to(image.device)
            perceptual, style = feature_losses(backbone, [fill], image, region=mask)
            loss = loss + terms.perceptual_weight * perceptual + terms.style_weight * style
        fake = self.modules["discriminator"].requires_grad_(False)(fill).float()
        return loss + terms.adversarial_weight * losses.generator_loss(fake)


def find_features(discriminator: nn.Module, x: Tensor) -> list[Tensor]:
    """What the convolutions of a `PatchDiscriminator` find, activated; last the logits."""
    found: list[Tensor] = []
    for layer in discriminator.layers:  # type: ignore[union-attr]
        x = layer(x)
        if isinstance(layer, nn.LeakyReLU):
            found.append(x.float())
    return [*found, x.float()]
