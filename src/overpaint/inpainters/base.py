"""Base class of all inpainters: input contract, padding to the stride, composition.

- An inpainter maps a photo and a mask (1 = hole) to a photo. Only `compose` restores the known
  pixels: by selection, not by arithmetic, so that they stay equal bit for bit.
- The photo's pixels in the hole are set to 0 before the network gets the photo. They have no
  influence on the result, even if they are NaN, and get no gradient.
- Known pixels of the output give the network no gradient; only the hole does.
- Any size is accepted: photo and mask are padded at the right and at the bottom by replication to a
  multiple of `stride` and to at least `min_size`, and the fill is cropped back.
- Shapes are checked in every call. Values are checked only in eval mode, because the check would
  slow down every training step, and the training data is made by our own code.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.errors import InputError
from overpaint.images.image_checks import check_range, check_shape


def check_shapes(image: Tensor, mask: Tensor) -> None:
    """Raise InputError unless image is float (b, 3, h, w) and mask (b, 1, h, w) of its size."""
    check_shape(image)
    shape, wanted = tuple(image.shape), tuple(mask.shape)
    if mask.ndim != 4 or wanted[1] != 1:
        raise InputError(
            f"the mask has shape {wanted}, not (b, 1, h, w); add dimensions with "
            "mask[None, None], keep one channel with mask[:, :1]"
        )
    if (shape[0], *shape[2:]) != (wanted[0], *wanted[2:]):
        raise InputError(
            f"the mask has shape {wanted} and the image {shape}: resize the mask to the image "
            "(nearest), and give one mask for each image"
        )


def check_values(image: Tensor, mask: Tensor) -> None:
    """Raise InputError, naming the remedy, unless mask is 0 or 1 and known pixels are in [0, 1]."""
    if not ((mask == 0) | (mask == 1)).all():
        raise InputError(
            "the mask holds other values than 0 (known) and 1 (hole): divide an 8-bit mask by 255 "
            "and threshold a soft one, for instance with (mask >= 0.5).float()"
        )
    known = torch.where(mask == 1, 0.0, image.detach())
    check_range(known, "the image outside the hole")


def compose(image: Tensor, fill: Tensor, mask: Tensor) -> Tensor:
    """Return `fill` where the mask is 1 and `image`, bit for bit, where it is 0.

    image, fill: (b, 3, h, w); mask: (b, 1, h, w) in {0, 1}. The result has the image's type.
    """
    return torch.where(mask == 1, fill.to(image.dtype), image)


class Inpainter(nn.Module, ABC):
    """Base of all inpainters: photo (b, 3, h, w) and mask (b, 1, h, w) to photo (b, 3, h, w).

    A subclass sets `stride` (and `min_size`) and implements `_fill`, whose input sides are
    multiples of `stride` and at least `min_size`.
    """

    stride: ClassVar[int] = 1
    min_size: ClassVar[int] = 1
    """Shortest side that the network takes, pixels; a multiple of `stride`."""

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Return the image with its hole filled in; known pixels are the input's, bit for bit.

        image: (b, 3, h, w), RGB in [0, 1], any height and width; the hole's pixels are ignored.
        mask: (b, 1, h, w), bool, integer or float, 1 = hole, 0 = known.
        Raises InputError for other shapes or types and, in eval mode, for a mask that is not
        binary and for known pixels that are NaN or outside [0, 1].
        """
        check_shapes(image, mask)
        if not self.training:
            check_values(image, mask)
        height, width = image.shape[-2:]
        hole = mask.to(image.dtype)
        known = torch.where(mask == 1, 0.0, image)
        padding = (0, self._count_missing(width), 0, self._count_missing(height))
        if any(padding):
            known, hole = (F.pad(x, padding, mode="replicate") for x in (known, hole))
        return compose(image, self._fill(known, hole)[..., :height, :width], mask)

    def _count_missing(self, side: int) -> int:
        return max(self.min_size, side + -side % self.stride) - side

    @abstractmethod
    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        """Map image (b, 3, h, w), 0 in the hole, and mask (float) to a picture (b, 3, h, w).

        Only its hole is used.
        """

    @property
    def num_parameters(self) -> int:
        """The number of trainable values."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
