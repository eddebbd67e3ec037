"""Base class of all detectors: the input contract, padding to the stride, and the crop.

- A detector maps a photo to logits. No sigmoid, threshold or loss inside.
- Any size is accepted: the photo is padded at the right and at the bottom by reflection to a
  multiple of `stride`, and the logits are cropped back. Padding only there keeps the photo's pixel
  grid aligned with that of a tile. Repeated rows would be a strip without noise, like a fill: they
  caused most of the false alarms on photos of other sizes.
- The shape is checked in every call. The values are checked only in eval mode, because the check
  would slow down every training step, and the training data is made by our own code.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.images.image_checks import check_image, check_shape


@dataclass(frozen=True, slots=True)
class Findings:
    """All outputs of a detector for a batch of photos; at least float32, no sigmoid applied."""

    logits: Tensor
    """(b, 1, h, w), positive means inpainted."""
    score: Tensor | None = None
    """Logit (b,) of the whole photo, of a detector that scores it separately."""
    confidence: Tensor | None = None
    """(b, 1, h, w), confidence logits, of a detector that gives them."""


def pad_to(image: Tensor, stride: int) -> Tensor:
    """(b, c, h, w), padded by reflection at the bottom and right to multiples of stride.

    If a side is too short for the reflection, its last row or column is repeated.
    """
    height, width = image.shape[-2:]
    right, bottom = -width % stride, -height % stride
    if right:
        mode = "reflect" if right < width else "replicate"
        image = F.pad(image, (0, right, 0, 0), mode=mode)
    if bottom:
        mode = "reflect" if bottom < height else "replicate"
        image = F.pad(image, (0, 0, 0, bottom), mode=mode)
    return image


class Detector(nn.Module, ABC):
    """Base of all detectors: a photo (b, 3, h, w) in [0, 1] to logits (b, 1, h, w).

    A subclass sets `stride` and implements `_compute_logits`, whose inputs have sides that are
    multiples of it.
    """

    stride: ClassVar[int] = 1
    tile: int = 1024
    """Largest side of the tiles of a large photo, pixels; a multiple of `stride`. Below 1024 where
    a photo of 12 megapixels would otherwise take more than 3 GB."""
    tiles_at_once: int = 1
    """Tiles that may be processed at the same time, for their memory; see `detection.tiles`."""
    exact_parts: ClassVar[tuple[str, ...]] = ()
    """Children whose weights are stored in float32, because float16 changes their output."""
    residual_parts: ClassVar[tuple[str, ...]] = ()
    """Parts, each chosen by the configuration's field of its name, that start as the identity:
    weights of a network without them can be trained further with them."""

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits, at least float32, of the input's size; positive means inpainted.

        image: (b, 3, h, w), RGB in [0, 1], any height and width.
        Raises InputError for another shape or type and, in eval mode, for NaN or values outside
        [0, 1].
        """
        return self.examine(image).logits

    def examine(self, image: Tensor) -> Findings:
        """All outputs of the detector; arguments and errors as for `forward`."""
        if self.training:
            check_shape(image)
        else:
            check_image(image)
        height, width = image.shape[-2:]
        found = self._compute_logits(pad_to(image, self.stride))
        if isinstance(found, Tensor):
            found = Findings(found)
        logits = _promote(found.logits[..., :height, :width])
        score = None if found.score is None else _promote(found.score)
        confidence = found.confidence
        if confidence is not None:
            confidence = _promote(confidence[..., :height, :width])
        return Findings(logits, score, confidence)

    @abstractmethod
    def _compute_logits(self, image: Tensor) -> Tensor | Findings:
        """Map (b, 3, h, w), h and w multiples of `stride`, to logits (b, 1, h, w).

        A detector with more outputs returns its `Findings`.
        """

    @property
    def num_parameters(self) -> int:
        """The number of trainable values."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def _promote(x: Tensor) -> Tensor:
    """At least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
