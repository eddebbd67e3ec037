"""The contract of an image at every public function: float (b, 3, h, w), RGB, in [0, 1].

Every error names the remedy, so that it can be shown to the caller as it stands.
"""

import torch
from torch import Tensor

from overpaint.errors import InputError

# How far float arithmetic before a model (a resize, say) may leave [0, 1].
RANGE_TOLERANCE = 1e-3


def check_shape(image: Tensor) -> None:
    """Raise InputError unless `image` is a float tensor (b, 3, h, w) with at least one pixel."""
    if not isinstance(image, Tensor):
        raise InputError(
            f"the image is a {type(image).__name__}; a network takes a tensor: read it with "
            "overpaint.images.read_image, and give to_tensor(photo.pixels)"
        )
    if not image.is_floating_point():
        raise InputError(
            f"the image is {image.dtype}; convert it to float and divide by 255, "
            "or use overpaint.images.to_tensor"
        )
    shape = tuple(image.shape)
    if image.ndim != 4:
        raise InputError(f"the image has shape {shape}, not (b, 3, h, w); add a batch dimension")
    if shape[1] != 3:
        raise InputError(
            f"the image has {shape[1]} channel(s), a model takes 3 (RGB): repeat a grey image "
            "with image.expand(-1, 3, -1, -1), drop an alpha channel"
        )
    if 0 in shape:
        raise InputError(f"the image has shape {shape}: give at least one photo of one pixel")


def check_image(image: Tensor) -> None:
    """Raise InputError, naming the remedy, unless `image` is (b, 3, h, w), finite, in [0, 1]."""
    check_shape(image)
    check_range(image, "the image")


def check_range(image: Tensor, what: str) -> None:
    """Raise InputError, naming the remedy, unless the values of `image` lie in [0, 1]."""
    low, high = (value.item() for value in torch.aminmax(image.detach()))
    if low != low or high != high:
        raise InputError(f"{what} holds NaN: replace it, for instance with torch.nan_to_num")
    if low < -RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE:
        raise InputError(
            f"{what} ranges from {low:.4g} to {high:.4g}, not within [0, 1]: "
            "divide 8-bit values by 255 and undo any mean and deviation normalisation"
        )
