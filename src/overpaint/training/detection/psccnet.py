"""Training of PSCC-Net: a mask at each of four scales, and the score of the whole photo.

Source: arXiv:2103.10596 and the authors' code (facts only): the sum of five cross-entropies. In
each mask both classes count alike over the batch; in the score, both kinds of photos. Masks are
made smaller by area (theirs: bicubic), and what is above a half is inpainted.
"""

from torch import Tensor
from torch.nn import functional as F

from overpaint.detectors.psccnet import PSCCNet
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


class PSCCNetLoss(Section):
    """As published; `inpainted_share` of the photos trained on is to be inpainted."""

    score_weight: Weight = 1.0
    inpainted_share: Share = 0.75


class PSCCNetTask(DetectorTask[PSCCNet, PSCCNetLoss]):
    """See `DetectorTask`; raises ConfigError, too, for samples that would have to be padded, and
    for a network without the head for the whole photo."""

    architecture = PSCCNet
    loss_config = PSCCNetLoss
    side_multiple = PSCCNet.stride

    @classmethod
    def load_terms(cls, run: DetectorRun) -> Section:
        if not run.model.get("image_head", True):
            raise ConfigError("model.image_head: the loss needs it; set it to true")
        return super().load_terms(run)

    def compute_loss(self, image: Tensor, mask: Tensor) -> Tensor:
        stages, share = self.model.run_stages(image), self.terms.inpainted_share
        weight_of_inpainted = (1 - share) / share
        assert stages.score is not None, "as of `load_terms`"
        loss = self.terms.score_weight * losses.weighted_cross_entropy(
            stages.score.float(), is_inpainted(mask), weight_of_inpainted
        )
        for logits in stages.masks:
            smaller = F.interpolate(mask, logits.shape[-2:], mode="area") > 0.5
            loss = loss + losses.balanced_cross_entropy(logits.float(), smaller.float())
        return loss
