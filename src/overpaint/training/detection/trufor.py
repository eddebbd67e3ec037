"""Training of TruFor, in two phases.

Source: arXiv:2212.10957 and the authors' code (facts only).

- `localisation`: 0.3 weighted cross-entropy and 0.7 dice of the pixels. They freeze a Noiseprint++
  that was trained before on untouched photos; `freeze_noiseprint` does, for weights to start from
  that hold one.
- `confidence`: all but the confidence and the score is frozen. The confidence learns the
  probability that the first phase gave to the true class (TCP; squared error), except for a band
  along the border of the hole. The score learns whether the photo is inpainted, half as important.

What is frozen is in eval mode: neither batch norms nor dropout move.
"""

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.detectors.base import Findings
from overpaint.detectors.trufor import TruFor
from overpaint.errors import ConfigError
from overpaint.training import losses
from overpaint.training.config import Section
from overpaint.training.detection.base import (
    DetectorRun,
    DetectorTask,
    Share,
    Weight,
    is_inpainted,
)

TRAINED = {
    "localisation": {"noiseprint", "encoder", "head"},
    "confidence": {"confidence", "score"},
}
ERODED, DILATED = 15, 11
"""Windows, pixels: the band of no truth reaches half of the one into the hole, of the other out."""


class TruForLoss(Section):
    """As published; `inpainted_share` of the photos trained on is to be inpainted."""

    phase: Literal["localisation", "confidence"] = "localisation"
    freeze_noiseprint: bool = False
    cross_entropy_weight: Weight = 0.3
    positive_weight: float = Field(
        default=5.0, gt=0, description="of inpainted pixels in the cross-entropy, against 1"
    )
    dice_weight: Weight = 0.7
    score_weight: Weight = 0.5
    inpainted_share: Share = 0.7


class TruForTask(DetectorTask[TruFor, TruForLoss]):
    """See `DetectorTask`; raises ConfigError, too, for the second phase without the first."""

    architecture = TruFor
    loss_config = TruForLoss

    def list_frozen(self) -> list[nn.Module]:
        trained = TRAINED[self.terms.phase]
        if self.terms.freeze_noiseprint:
            trained = trained - {"noiseprint"}
        return [part for name, part in self.model.named_children() if name not in trained]

    @classmethod
    def load_terms(cls, run: DetectorRun) -> Section:
        terms = super().load_terms(run)
        if isinstance(terms, TruForLoss) and terms.phase == "confidence" and not run.start_from:
            raise ConfigError("loss.phase confidence: name the localisation's weights: start_from")
        return terms

    def compute_loss(self, image: Tensor, mask: Tensor) -> Tensor:
        for part in self.list_frozen():
            part.eval()
        found, terms = self.model.examine(image), self.terms
        if terms.phase == "confidence":
            return self.compute_second_phase_loss(found, mask)
        loss = losses.weighted_cross_entropy(found.logits, mask, terms.positive_weight)
        dice = losses.dice_loss(found.logits, mask)
        return terms.cross_entropy_weight * loss + terms.dice_weight * dice

    def compute_second_phase_loss(self, found: Findings, mask: Tensor) -> Tensor:
        """Of the second phase, for findings of pictures with masks (b, 1, h, w)."""
        confidence, score = found.confidence, found.score
        assert confidence is not None
        assert score is not None
        inpainted, share = is_inpainted(mask), self.terms.inpainted_share
        weight = 0.5 * (inpainted / share + (1 - inpainted) / (1 - share))
        loss = F.binary_cross_entropy_with_logits(score, inpainted, weight)
        return confidence_loss(confidence, found.logits, mask) + self.terms.score_weight * loss

    def validate(self, model: nn.Module) -> dict[str, float]:
        """In the second phase, which leaves the heatmap as it is, the least loss is the best."""
        figures = super().validate(model)
        if self.terms.phase == "localisation":
            return figures
        values = []
        for sample in self.validation:
            found = self.examine(model, sample["image"])
            mask = sample["mask"][None].to(found.logits.device)
            values.append(float(self.compute_second_phase_loss(found, mask)))
        loss = float(np.mean(values))
        return {**figures, "figure": -loss, "second_phase_loss": loss}


def confidence_loss(confidence: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
    """Squared error of the confidence against the true class's probability (section 3.3).

    All (b, 1, h, w). -> scalar: the mean over the pixels outside of the band of no truth, 0 where
    there is none.
    """
    inpainted = _erode(mask, ERODED)
    untouched = _erode(1 - mask, DILATED)
    probability = torch.sigmoid(logits)
    truth = inpainted * probability + untouched * (1 - probability)
    known = inpainted + untouched
    error = (torch.sigmoid(confidence) - truth.detach()).square() * known
    return error.sum() / known.sum().clamp(min=1)


def _erode(mask: Tensor, window: int) -> Tensor:
    """1 where all pixels of the window are 1; beyond the picture's border everything is."""
    return 1 - F.max_pool2d(1 - mask, window, stride=1, padding=window // 2)
