"""Training of NIX-Net.

Source: NIX-Net (IJCAI 2021), eq. 4: focal loss with gamma 2 and no class weight.
"""

from pydantic import Field
from torch import Tensor, nn

from overpaint.detectors.nixnet import NIXNet
from overpaint.training import losses
from overpaint.training.config import Section
from overpaint.training.detection.base import DetectorTask


class NIXNetLoss(Section):
    """The paper's focal loss, and two options of ours."""

    focal_gamma: float = Field(default=2.0, ge=0)
    positive_weight: float = Field(
        default=1.0,
        gt=0,
        description="of inpainted pixels in the loss, against 1; a heatmap then passes 0.5 where "
        "the probability is 1 / (1 + it): for a high IoU, doubtful pixels belong to the region",
    )
    iou_weight: float = Field(
        default=0.0, ge=0, description="of the soft IoU loss beside the focal one; not in the paper"
    )


class NIXNetTask(DetectorTask[NIXNet, NIXNetLoss]):
    """See `DetectorTask`."""

    architecture = NIXNet
    loss_config = NIXNetLoss

    def list_frozen(self) -> list[nn.Module]:
        return [] if self.model.content is None else [self.model.content.features]

    def compute_loss(self, image: Tensor, mask: Tensor) -> Tensor:
        logits, terms = self.model(image), self.terms
        loss = losses.focal_loss(logits, mask, terms.focal_gamma, terms.positive_weight)
        if terms.iou_weight:
            loss = loss + terms.iou_weight * losses.soft_iou_loss(logits, mask)
        return loss
