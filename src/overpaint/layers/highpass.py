"""Fixed high-pass filters, whose response to a photo is its noise residual.

- The three SRM kernels and their use on colour images follow Zhou et al. 2018, "Learning Rich
  Features for Image Manipulation Detection" (arXiv 1805.04953), section 3.2; the kernels come
  from Fridrich and Kodovsky 2012, "Rich Models for Steganalysis of Digital Images".
- The kernels are kept as whole numbers with a divisor each, so that they stay exact in a model
  that was cast to half precision.
- Borders are padded by replication: zero padding would add an edge as strong as the photo's
  brightness, far above any noise.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SRM_KERNELS: tuple[tuple[tuple[int, ...], ...], ...] = (
    (
        (0, 0, 0, 0, 0),
        (0, -1, 2, -1, 0),
        (0, 2, -4, 2, 0),
        (0, -1, 2, -1, 0),
        (0, 0, 0, 0, 0),
    ),
    (
        (-1, 2, -2, 2, -1),
        (2, -6, 8, -6, 2),
        (-2, 8, -12, 8, -2),
        (2, -6, 8, -6, 2),
        (-1, 2, -2, 2, -1),
    ),
    (
        (0, 0, 0, 0, 0),
        (0, 0, 0, 0, 0),
        (0, 1, -2, 1, 0),
        (0, 0, 0, 0, 0),
        (0, 0, 0, 0, 0),
    ),
)
SRM_DIVISORS = (4, 12, 2)


class SRMFilter(nn.Module):
    """The three SRM residuals, each summed over the three colour channels.

    Input (b, 3, h, w) in [0, 1]; output (b, 3, h, w), in grey levels of 8 bit divided by `unit`.
    On photos the responses have a median size of about 5 grey levels and a standard deviation of
    about 35, so the default unit of 16 puts them around one.
    The filters are buffers that are not saved: they are constants, not weights.

    The arithmetic is float32 also under autocast. A noise residual is a difference of nearly
    equal numbers; bfloat16 keeps 8 significant bits, so the noise would be lost in rounding
    before the subtraction.
    """

    kernels: Tensor
    divisors: Tensor

    def __init__(self, unit: float = 16.0) -> None:
        super().__init__()
        self.unit = unit
        kernels = torch.tensor(SRM_KERNELS, dtype=torch.float32).unsqueeze(1)
        divisors = torch.tensor(SRM_DIVISORS, dtype=torch.float32).reshape(1, 3, 1, 1)
        self.register_buffer("kernels", kernels, persistent=False)  # (3, 1, 5, 5)
        self.register_buffer("divisors", divisors, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the residuals of `image`, float32 (float64 for a float64 image)."""
        # All colours have the same kernels, so they may be summed before the convolution.
        return self.filter_planes(image.to(_promote_dtype(image)).sum(dim=1, keepdim=True))

    def filter_planes(self, planes: Tensor) -> Tensor:
        """The three residuals of each plane, in the order of the planes.

        (b, n, h, w), in the image's units -> (b, 3 * n, h, w), dtype as of `forward`.
        """
        b, n, h, w = planes.shape
        dtype = _promote_dtype(planes)
        with torch.autocast(planes.device.type, enabled=False):
            single = planes.to(dtype).reshape(b * n, 1, h, w) * 255
            single = F.pad(single, (2, 2, 2, 2), mode="replicate")
            response = F.conv2d(single, self.kernels.to(dtype))  # (b * n, 3, h, w)
            return (response / (self.divisors.to(dtype) * self.unit)).reshape(b, 3 * n, h, w)


def _promote_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
