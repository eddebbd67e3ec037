"""A photo of any of the kinds that the API takes, as a `Photo`."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from overpaint.errors import InputError
from overpaint.images.decoding import Photo, from_pillow
from overpaint.images.files import File, is_file, read_image

Picture = File | np.ndarray | Image.Image
"""A photo: its file (path, bytes, binary stream), uint8 (h, w, 3) in RGB, or a PIL image."""


def as_photo(image: Picture) -> Photo:
    """A photo of any of the kinds as a `Photo`; `ImageError`, `InputError` with the remedy."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            remedy = "give uint8 (h, w, 3), RGB: scale other ranges to 0..255, leave alpha out"
            raise InputError(f"array {image.dtype} {image.shape}: {remedy}")
        return Photo(image, Path(), "", "array", None, False, ("array: taken as lossless",))
    if isinstance(image, Image.Image):
        return from_pillow(image)
    if isinstance(image, Tensor):
        remedy = "give its pixels, overpaint.images.to_pixels(tensor)"
        raise InputError(f"a photo is no tensor; {remedy} for floats (1, 3, h, w) in 0..1")
    if not is_file(image):
        kinds = "a path, bytes, a binary stream, a uint8 array (h, w, 3) or a PIL image"
        raise InputError(f"a photo is no {type(image).__name__}; give {kinds}")
    return read_image(image)
