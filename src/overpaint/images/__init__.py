"""Photos and masks: files to pixels, checked, and back."""

from overpaint.images.decoding import MAX_PIXELS, Photo, decode_image, find_pixel_limit
from overpaint.images.files import (
    BinaryStream,
    File,
    check_jpeg_size,
    image_suffixes,
    is_file,
    read_bytes,
    read_file_bytes,
    read_image,
    read_mask,
    read_mask_levels,
    remove_file,
    to_pixels,
    to_tensor,
    write_bytes,
    write_jpeg,
    write_png,
)

__all__ = [
    "MAX_PIXELS",
    "BinaryStream",
    "File",
    "Photo",
    "check_jpeg_size",
    "decode_image",
    "find_pixel_limit",
    "image_suffixes",
    "is_file",
    "read_bytes",
    "read_file_bytes",
    "read_image",
    "read_mask",
    "read_mask_levels",
    "remove_file",
    "to_pixels",
    "to_tensor",
    "write_bytes",
    "write_jpeg",
    "write_png",
]
