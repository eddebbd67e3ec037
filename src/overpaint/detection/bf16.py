"""A detector whose convolutions compute in bfloat16, for processors that have instructions for it.

- Autocast, as in training: what a network computes in float32 there (noise residuals, statistics,
  attention scores) is float32 here, too.
- bfloat16 keeps 8 significant bits, so the logits are others than those of fp32, for the default
  detector by 0.01 on average (docs/scale.md). That is why it is taken by its name alone, and why
  records name the precision.
- Without such instructions (AMX or AVX512-BF16 on x86) it takes several times longer than fp32.
"""

import torch
from torch import Tensor

from overpaint.detectors.base import Detector, Findings


class Bf16Detector(Detector):
    """A detector under autocast to bfloat16, on the processor."""

    runtime = "torch-bf16"

    def __init__(self, detector: Detector) -> None:
        """detector: in eval mode; it is not copied."""
        super().__init__()
        self.detector = detector
        self.stride = detector.stride  # type: ignore[misc]  # of this detector
        self.tile = detector.tile
        self.tiles_at_once = detector.tiles_at_once
        self.eval()

    def examine(self, image: Tensor) -> Findings:
        """As the detector itself, which may not pad the photo."""
        with torch.autocast("cpu", torch.bfloat16):
            return self.detector.examine(image)

    def _compute_logits(self, image: Tensor) -> Tensor | Findings:
        with torch.autocast("cpu", torch.bfloat16):
            return self.detector._compute_logits(image)
