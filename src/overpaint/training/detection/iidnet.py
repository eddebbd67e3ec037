"""Training of IID-Net.

Source: arXiv:2101.07419 and the authors' code (facts only): focal loss with alpha 0.25 and gamma 2,
plus cross-entropy. Their focal loss takes the sigmoid of what is a probability already; here both
terms see the same probability.
"""

from pydantic import Field
from torch import Tensor

from overpaint.detectors.iidnet import IIDNet
from overpaint.training import losses
from overpaint.training.config import Section
from overpaint.training.detection.base import DetectorTask, Share, Weight


class IIDNetLoss(Section):
    """As published."""

    focal_alpha: Share = Field(
        default=0.25, description="weight of inpainted pixels; that of the others is 1 - alpha"
    )
    focal_gamma: float = Field(default=2.0, ge=0)
    cross_entropy_weight: Weight = 1.0


class IIDNetTask(DetectorTask[IIDNet, IIDNetLoss]):
    """See `DetectorTask`."""

    architecture = IIDNet
    loss_config = IIDNetLoss

    def compute_loss(self, image: Tensor, mask: Tensor) -> Tensor:
        logits, terms, alpha = self.model(image), self.terms, self.terms.focal_alpha
        focal = losses.focal_loss(logits, mask, terms.focal_gamma, alpha / (1 - alpha))
        cross_entropy = losses.focal_loss(logits, mask, gamma=0)
        return (1 - alpha) * focal + terms.cross_entropy_weight * cross_entropy
