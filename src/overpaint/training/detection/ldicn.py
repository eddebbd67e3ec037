"""Training of LDICN.

Source: the authors' code (facts only), whose default is the focal loss with gamma 2 and no class
weight, and which offers cross-entropy, plain and with classes that count alike.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor

from overpaint.detectors.ldicn import LDICN
from overpaint.training import losses
from overpaint.training.config import Section
from overpaint.training.detection.base import DetectorTask


class LDICNLoss(Section):
    """One of the three losses of the authors' code."""

    kind: Literal["focal", "cross_entropy", "balanced_cross_entropy"] = "focal"
    focal_gamma: float = Field(default=2.0, ge=0)


class LDICNTask(DetectorTask[LDICN, LDICNLoss]):
    """See `DetectorTask`."""

    architecture = LDICN
    loss_config = LDICNLoss

    def compute_loss(self, image: Tensor, mask: Tensor) -> Tensor:
        logits, terms = self.model(image), self.terms
        if terms.kind == "balanced_cross_entropy":
            return losses.balanced_cross_entropy(logits, mask)
        return losses.focal_loss(logits, mask, terms.focal_gamma if terms.kind == "focal" else 0)
