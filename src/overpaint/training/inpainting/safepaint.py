"""Training of SafePaint: five losses, two optimisers, one loop with all other tasks.

Source: SafePaint (ACM MM 2024), eq. 7 to 14 and section 4.1. The defaults of `SafePaintLoss` are
the paper's; where the authors' code (facts only) does otherwise, that is an option.

- The discriminator is frozen in the generators' step, and each has its own backward pass. The
  authors' code adds both losses up before one backward pass, which also pushes the discriminator
  by the generators' term.
- The extractor P is trained with the generators, by the domain distance, which it could bring to
  zero by giving every region the same vector. `validate` therefore reports the spread of the
  vectors over photos, and `repel_weight` (not in the paper) pushes different photos apart.
- The Euclidean distance of eq. 13 has no gradient where it is zero; torch gives 0 there.
- The weights of the perceptual and the style loss are for features of torchvision's VGG-19; those
  of another backbone are brought to its scale (`Backbone.perceptual_factor`, `style_factor`).
- Known pixels come back by `inpainters.base.compose`, so every loss reaches the generators
  through the hole alone.
- **Beyond the paper**, for `overpaint harden`: a trained detector, frozen, as a further adversary
  (`detector`, `detector_weight`). Its loss is the cross-entropy of its logits in the hole against
  "untouched". It sees the fill at 8 bit, as in a file; the gradient passes the rounding as if it
  were not there (Bengio et al. 2013, the straight-through estimator). With `second_phase_only` the
  completion G1 stays as it is, and G2 and P learn.
"""

from collections.abc import Iterator
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.inpainters.safepaint import SafePaint, Stages
from overpaint.layers.patchgan import PatchDiscriminator
from overpaint.layers.perceptual import feature_losses
from overpaint.metrics import psnr, squared_error
from overpaint.training import losses
from overpaint.training.config import AdversarialLoss
from overpaint.training.inpainting.base import InpainterRun, InpaintingTask, Weight, to_levels
from overpaint.training.loop import Batch
from overpaint.weights.resolve import load


class SafePaintLoss(AdversarialLoss):
    """Eq. 14: the weights of the five losses, and the readings in which code and paper differ."""

    l1_weight: Weight = 1.0
    perceptual_weight: Weight = 0.1
    style_weight: Weight = 250.0
    adversarial_weight: Weight = 0.1
    domain_weight: Weight = Field(default=0.01, description="acts where the model has P")
    l1_by_hole: bool = Field(
        default=False, description="divide L1 by the hole's share, as the authors' code does"
    )
    style_region: Literal["picture", "hole"] = Field(
        default="picture", description="hole: as in the authors' code"
    )
    adversarial: Literal["hinge", "non-saturating"] = Field(
        default="hinge", description="non-saturating: as in the authors' code"
    )
    domain_constant: Weight = Field(
        default=0.0,
        description="added to each distance; 0.1 (a triplet margin) in the authors' code. It has "
        "no gradient",
    )
    repel_weight: Weight = Field(default=0.0, description="term between photos, not in the paper")
    repel_distance: float = Field(default=1.0, gt=0, description="at which it ends")
    detector: str | None = Field(
        default=None,
        description="weights of a frozen detector that the fill is to escape, not in the paper: a "
        "shipped name, or a path",
    )
    detector_weight: Weight = Field(default=0.0, description="of that detector's loss")
    second_phase_only: bool = Field(
        default=False, description="G1 is not trained, not in the paper"
    )

    @model_validator(mode="after")
    def _has_detector(self) -> Self:
        if self.detector_weight and self.detector is None:
            raise ValueError("detector_weight is above 0; name the detector")
        return self


class SafePaintTask(InpaintingTask[SafePaint, SafePaintLoss]):
    """Generators and extractor against a PatchGAN; see `InpaintingTask`."""

    architecture = SafePaint
    loss_config = SafePaintLoss

    def __init__(self, run: InpainterRun, model: nn.Module, *data: Any) -> None:
        super().__init__(run, model, *data)
        self.detector: nn.Module | None = None
        if self.terms.detector is not None:
            self.detector = load(self.terms.detector, "detector")[0].requires_grad_(False)
        if self.terms.second_phase_only:
            self.model.completion.requires_grad_(False)

    def make_discriminators(self) -> dict[str, nn.Module]:
        if not self.terms.adversarial_weight:
            return {}
        return {"discriminator": PatchDiscriminator(width=self.terms.discriminator_width)}

    def compute_losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Tensor]]:
        terms, image, mask = self.terms, batch["image"], batch["mask"]
        if terms.second_phase_only:
            self.model.completion.eval()  # so that its norms stand still, too
        stages = self.model.run_stages(image, mask)
        parts = self._compute_reconstruction_losses(
            stages, image, mask
        ) | self._compute_domain_losses(stages, image, mask)
        if self.detector is not None and terms.detector_weight:
            detector = self.detector.to(image.device)
            logits = detector(round_to_8_bit(stages.output.float())).float()
            parts["detector"] = terms.detector_weight * escape_loss(logits, mask)
        adversarial = self.is_adversarial(step)
        if adversarial:
            discriminator = self.modules["discriminator"].requires_grad_(False)
            fake = discriminator(stages.output).float()
            parts["adversarial"] = terms.adversarial_weight * generator_loss(
                fake, terms.adversarial
            )
        self.loss_terms = {name: part.detach() for name, part in parts.items()}
        yield "model", torch.stack(list(parts.values())).sum()
        if adversarial:
            discriminator = self.modules["discriminator"].requires_grad_(True)
            real, fake = discriminator(image), discriminator(stages.output.detach())
            yield (
                "discriminator",
                discriminator_loss(real.float(), fake.float(), terms.adversarial),  # eq. 11
            )

    def _compute_reconstruction_losses(
        self, stages: Stages, image: Tensor, mask: Tensor
    ) -> dict[str, Tensor]:
        """L1, perceptual and style loss of both stages (eq. 8 to 10), weighted."""
        terms, both = self.terms, (stages.coarse, stages.output)
        l1 = torch.stack([(picture - image).abs().mean() for picture in both]).sum()  # eq. 8
        if terms.l1_by_hole:
            l1 = l1 / mask.mean()
        parts = {"l1": terms.l1_weight * l1}
        if self.backbone is None:
            return parts
        backbone = self.backbone.to(image.device)
        region = mask if terms.style_region == "hole" else None
        perceptual, style = feature_losses(backbone, both, image, region)
        return parts | {
            "perceptual": terms.perceptual_weight * backbone.perceptual_factor * perceptual,
            "style": terms.style_weight * backbone.style_factor * style,
        }

    def _compute_domain_losses(
        self, stages: Stages, image: Tensor, mask: Tensor
    ) -> dict[str, Tensor]:
        """Domain distance (eq. 12 and 13) and the repelling term, weighted; none without P."""
        terms, extractor = self.terms, self.model.extractor
        if extractor is None or stages.vector is None:
            return {}
        z_b = stages.vector.float()
        z_gt = extractor(image, mask).float()
        z_out = extractor(stages.output, mask).float()
        distance = domain_distance(z_out, z_b, z_gt) + 2 * terms.domain_constant
        parts = {"domain": terms.domain_weight * distance}
        if terms.repel_weight:
            parts["repel"] = terms.repel_weight * repulsion(z_b, terms.repel_distance)
        return parts

    def validate(self, model: nn.Module) -> dict[str, float]:
        """PSNR of the whole picture at 8 bit, its distance by the backbone, and the domain vectors.

        perceptual, coarse_perceptual: `perceptual_loss` of the backbone's features, unweighted.
        spread: see `measure_spread`, of the known regions' vectors over the photos; relative_spread
        is divided by the vectors' length. Near 0: P has collapsed. domain_distance: eq. 13.
        """
        assert isinstance(model, SafePaint)
        figures: dict[str, list[float]] = {"psnr": [], "coarse_psnr": []}
        vectors: list[list[Tensor]] = []
        if self.backbone is not None:
            figures |= {"perceptual": [], "coarse_perceptual": []}
        for sample in self.validation:
            image, mask, stages = self._run_stages(model, sample)
            for name, picture in (("psnr", stages.output), ("coarse_psnr", stages.coarse)):
                figures[name].append(psnr(squared_error(to_levels(picture), to_levels(image))))
            if self.backbone is not None:
                backbone = self.backbone.to(image.device)
                for name, picture in (
                    ("perceptual", stages.output),
                    ("coarse_perceptual", stages.coarse),
                ):
                    loss, _ = feature_losses(backbone, [picture], image)
                    figures[name].append(float(loss))
            if model.extractor is not None and stages.vector is not None:
                with torch.inference_mode():
                    inside = [model.extractor(x, mask) for x in (stages.output, image)]
                vectors.append([stages.vector, *inside])
        means = {name: float(np.mean(values)) for name, values in figures.items()}
        if vectors:
            z_b, z_out, z_gt = (torch.cat(z).float() for z in zip(*vectors, strict=True))
            means |= measure_spread(z_b)
            means["domain_distance"] = float(domain_distance(z_out, z_b, z_gt))
        return {"figure": means["psnr"], **means}

    def draw_pictures(self, model: nn.Module) -> dict[str, Tensor]:
        """Three validation samples side by side: hole, first phase, second phase, photo."""
        assert isinstance(model, SafePaint)
        rows = []
        for sample in self.validation[:3]:
            image, mask, stages = self._run_stages(model, sample)
            row = [torch.where(mask == 1, 1.0, image), stages.coarse, stages.output, image]
            rows.append(torch.cat(row, dim=3)[0])
        return {"hole, both phases and photo": torch.cat(rows, dim=1)}

    @torch.inference_mode()
    def _run_stages(self, model: SafePaint, sample: Batch) -> tuple[Tensor, Tensor, Stages]:
        device = next(model.parameters()).device
        image, mask = (sample[name][None].to(device) for name in ("image", "mask"))
        return image, mask, model.run_stages(image, mask)


def generator_loss(fake: Tensor, kind: str) -> Tensor:
    """Adversarial term of the generators, from logits: hinge or non-saturating."""
    hinge = kind == "hinge"
    return losses.hinge_generator_loss(fake) if hinge else losses.generator_loss(fake)


def discriminator_loss(real: Tensor, fake: Tensor, kind: str) -> Tensor:
    """Eq. 11 as the discriminator minimises it, from logits: hinge, or cross-entropy."""
    hinge = kind == "hinge"
    loss = losses.hinge_discriminator_loss if hinge else losses.discriminator_loss
    return loss(real, fake)


def escape_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of a detector's logits (b, 1, h, w) against "untouched", mean over the holes.

    mask: (b, 1, h, w), 1 = hole.
    """
    return (F.softplus(logits) * mask).sum() / mask.sum().clamp(min=1)


def round_to_8_bit(picture: Tensor) -> Tensor:
    """A picture in [0, 1] rounded to the levels of a file; its gradient is that of no rounding."""
    return picture + ((picture * 255).round() / 255 - picture).detach()


def domain_distance(z_out: Tensor, z_b: Tensor, z_gt: Tensor) -> Tensor:
    """Eq. 13: Euclidean distances of vectors (b, n), mean over the batch."""
    return (z_out - z_b).norm(dim=1).mean() + (z_out - z_gt).norm(dim=1).mean()


def repulsion(z: Tensor, distance: float) -> Tensor:
    """Mean over pairs of photos of how much nearer than `distance` their vectors (b, n) lie."""
    if len(z) < 2:
        return z.new_zeros(())
    first, second = torch.triu_indices(len(z), len(z), 1, device=z.device)
    return F.relu(distance - (z[first] - z[second]).norm(dim=1)).mean()


def measure_spread(z: Tensor) -> dict[str, float]:
    """Root mean square distance of vectors (n, d) from their mean, and that over their length."""
    around = (z - z.mean(dim=0)).square().sum(dim=1).mean().sqrt()
    length = z.square().sum(dim=1).mean().sqrt()
    return {"spread": float(around), "relative_spread": float(around / length.clamp(min=1e-12))}
