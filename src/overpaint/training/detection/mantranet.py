"""Training of ManTra-Net.

Source: CVPR 2019: cross-entropy of the pixels. The authors' training code was never released; they
first train the features to tell 385 manipulations apart, which takes other data. Here features
and anomaly detector are trained together from the start.
"""

from pydantic import Field
from torch import Tensor

from overpaint.detectors.mantranet import ManTraNet
from overpaint.training import losses
from overpaint.training.config import Section
from overpaint.training.detection.base import DetectorTask


class ManTraNetLoss(Section):
    """The paper's cross-entropy, and a class weight of ours."""

    positive_weight: float = Field(
        default=1.0, gt=0, description="of inpainted pixels against 1; not in the paper"
    )


class ManTraNetTask(DetectorTask[ManTraNet, ManTraNetLoss]):
    """See `DetectorTask`."""

    architecture = ManTraNet
    loss_config = ManTraNetLoss

    def compute_loss(self, image: Tensor, mask: Tensor) -> Tensor:
        return losses.focal_loss(self.model(image), mask, 0, self.terms.positive_weight)
