"""One reader and one writer for photos and masks, and their way to tensors and back.

- A file is read once; `Photo.sha256` is that of the very bytes that are decoded.
- What is converted while decoding, and by which rule, is said in `overpaint.images.decoding`.
- A written file appears whole or not at all, and never in the place of an input.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, cast

import numpy as np
from PIL import Image

from overpaint import atomic
from overpaint.errors import ImageError, InputError
from overpaint.images.decoding import Photo, check_num_bytes, decode_image, find_pixel_limit

if TYPE_CHECKING:
    import torch

_USUAL = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".tif", ".tiff", ".webp"}
image_suffixes: frozenset[str] = frozenset(_USUAL | {".heic", ".heif", ".avif", ".bmp", ".gif"})
"""Lower-case file suffixes that the reader takes (the content decides, not the suffix)."""


class BinaryStream(Protocol):
    """What gives a file's bytes: a file opened in binary mode, `io.BytesIO`."""

    def read(self) -> bytes: ...


File = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryStream
"""A picture's file: its path, its bytes, or a stream that is read from where it stands."""

MAX_JPEG_SIDE = 65500
"""Pixels that libjpeg writes; the standard allows 65,535."""


def is_file(source: object) -> TypeGuard[File]:
    """Whether it is one of the kinds in `File`."""
    kinds = (str, os.PathLike, bytes, bytearray, memoryview)
    return isinstance(source, kinds) or callable(getattr(source, "read", None))


def read_image(file: File, *, max_pixels: int | None = None) -> Photo:
    """Read a photo; raises `ImageError` naming the file, the reason and the remedy, and
    `InputError` for what is no `File`."""
    data, name = read_file_bytes(file, max_pixels=max_pixels)
    photo = decode_image(data, name, max_pixels=max_pixels)
    return photo if isinstance(name, Path) else replace(photo, path=Path())


def read_file_bytes(file: File, *, max_pixels: int | None = None) -> tuple[bytes, str | Path]:
    """All of a file, and what errors call it: its path, or words for bytes. Raises as `read_image`.

    max_pixels: no file is read that holds more bytes than so many pixels can need.
    """
    limit = find_pixel_limit(max_pixels)
    if isinstance(file, str | os.PathLike):
        return read_bytes(Path(file), limit), Path(file)
    if isinstance(file, bytes | bytearray | memoryview):
        data = bytes(file)
    elif is_file(file):
        data = cast("BinaryStream", file).read()
    else:
        raise InputError(f"a {type(file).__name__} is no file; give a path, bytes or a stream")
    if not isinstance(data, bytes):
        raise InputError(f"the stream gives {type(data).__name__}; open it in binary mode, 'rb'")
    if not data:
        raise ImageError("the bytes given are empty; a stream that was written needs seek(0)")
    check_num_bytes("the bytes given", len(data), limit)
    return data, "the bytes given"


def read_mask(
    file: File, *, size: tuple[int, int] | None = None, max_pixels: int | None = None
) -> np.ndarray:
    """Read a mask: uint8 (h, w), 1 where the file's brightness is 128 or more, otherwise 0.

    size: (h, w) that the mask must have, usually its photo's. Raises `ImageError`, also as
    `read_mask_levels`.
    """
    grey, _ = read_mask_levels(file, max_pixels=max_pixels)
    if size is not None and grey.shape != tuple(size):
        raise ImageError(
            f"{_name_file(file)}: the mask has {grey.shape[1]} x {grey.shape[0]} pixels, its photo "
            f"{size[1]} x {size[0]}; save the mask at the size of the upright photo"
        )
    return (grey >= 128).astype(np.uint8)


def read_mask_levels(file: File, *, max_pixels: int | None = None) -> tuple[np.ndarray, str]:
    """A mask's brightness, uint8 (h, w), and the SHA-256 of its file.

    Raises `ImageError`, also for a mask with transparency, as programs differ in what that means,
    for one of several pictures, of which one would be read, and for one stored as 0 and 1, which
    would silently be read as empty.
    """
    photo = read_image(file, max_pixels=max_pixels)
    if any(note.startswith("first of ") for note in photo.notes):
        raise ImageError(
            f"{_name_file(file)}: the mask holds several pictures, of which one would be used; "
            "save them as one: white what is to be removed, black the rest"
        )
    if photo.alpha is not None:
        raise ImageError(
            f"{_name_file(file)}: the mask has transparency, which some programs use for the hole "
            "and others for the rest; save it without: white what is to be removed, black the rest"
        )
    if photo.pixels.max() == 1:
        raise ImageError(
            f"{_name_file(file)}: the mask is stored as 0 and 1; store it as 0 and 255"
        )
    return np.asarray(Image.fromarray(photo.pixels).convert("L")), photo.sha256


def _name_file(file: File) -> str:
    return str(file) if isinstance(file, str | os.PathLike) else "the bytes given"


def write_png(path: str | Path, array: np.ndarray, *, keep: Collection[Path] = ()) -> None:
    """Write uint8 (h, w) or (h, w, 3), or uint16 (h, w), as PNG. keep, errors: `write_bytes`."""
    write_bytes(path, _encode(array, True, format="PNG"), keep=keep)


def write_jpeg(
    path: str | Path,
    array: np.ndarray,
    quality: int,
    subsampling: int = 0,
    *,
    keep: Collection[Path] = (),
) -> None:
    """Write uint8 (h, w) or (h, w, 3) as JPEG. keep, errors: see `write_bytes`.

    quality: IJG, 1..100. subsampling of the chroma: 0 = 4:4:4, 1 = 4:2:2, 2 = 4:2:0. Raises
    `InputError` also for a side of more than 65,500 pixels.
    """
    if not 1 <= quality <= 100 or subsampling not in (0, 1, 2):
        raise InputError(
            f"quality {quality} is not in 1..100, or subsampling {subsampling} in 0..2"
        )
    how = {"format": "JPEG", "quality": quality, "subsampling": subsampling}
    if isinstance(array, np.ndarray) and array.ndim > 1:
        check_jpeg_size(path, *array.shape[:2])
    write_bytes(path, _encode(array, False, **how), keep=keep)


def check_jpeg_size(path: str | Path, height: int, width: int) -> None:
    """Raise `InputError` for a picture that is too wide or too high for a JPEG."""
    if max(height, width) > MAX_JPEG_SIDE:
        raise InputError(
            f"{path}: {width:,} x {height:,} pixels, and a JPEG is written with at most "
            f"{MAX_JPEG_SIDE:,} on a side; write a .png"
        )


def write_bytes(path: str | Path, data: bytes, *, keep: Collection[Path] = ()) -> None:
    """Write a file so that it appears whole or not at all.

    keep: files that are never written over (the inputs). Raises `ImageError` for one of them, and
    when the file cannot be written.
    """
    path = Path(path)
    _check_is_no_input(path, keep)
    atomic.write(path, data, ImageError)


def remove_file(path: Path, *, keep: Collection[Path] = ()) -> None:
    """Remove a file if it is there. keep: as in `write_bytes`. Raises `ImageError`."""
    _check_is_no_input(path, keep)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImageError(f"{path}: cannot be removed ({reason}); remove it yourself") from error


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (h, w, 3) -> float32 (1, 3, h, w) in [0, 1]; raises `InputError` for another array."""
    import torch

    if not isinstance(pixels, np.ndarray):
        raise InputError(f"{type(pixels).__name__}: give a uint8 array of shape (h, w, 3)")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(f"array {pixels.shape} of {pixels.dtype}: give uint8 of shape (h, w, 3)")
    writable = np.require(pixels, requirements=["C", "W"])  # torch warns of read-only memory
    return torch.from_numpy(writable).permute(2, 0, 1)[None].contiguous().float().div_(255)


def to_pixels(image: torch.Tensor) -> np.ndarray:
    """float (1, 3, h, w) or (3, h, w) -> uint8 (h, w, 3): clamp to [0, 1], times 255, round.

    Halves go to the even neighbour; `to_pixels(to_tensor(x))` is x, bit for bit. Raises
    `InputError` for another shape, for integers and for NaN.
    """
    if not hasattr(image, "is_floating_point"):
        raise InputError(f"{type(image).__name__}: give a float tensor, (1, 3, h, w) or (3, h, w)")
    image = image[0] if image.ndim == 4 and image.shape[0] == 1 else image
    if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
        found = f"tensor {tuple(image.shape)} of {image.dtype}"
        raise InputError(f"{found}: give floats of shape (1, 3, h, w) or (3, h, w)")
    levels = image.detach().float().cpu().clamp(0, 1).mul(255).round()
    if levels.isnan().any():
        raise InputError("the image holds NaN; find where it arises, a photo must be finite")
    return levels.byte().permute(1, 2, 0).contiguous().numpy()


def read_bytes(path: Path, limit: int) -> bytes:
    """All of a file; raises `ImageError`, also for more bytes than `limit` pixels can need."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{path}: this is a folder; name a photo in it")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{path}: this is a device or a pipe; save it to a file first")
        check_num_bytes(path, status.st_size, limit)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"{path}: there is no such file; check the spelling") from error
    except PermissionError as error:
        raise ImageError(f"{path}: no permission to read it; change its access rights") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError(f"{path}: cannot be read ({error}); copy it to a local disk") from error


def _encode(array: np.ndarray, allow_uint16: bool, **how: Any) -> bytes:
    if not isinstance(array, np.ndarray):
        raise InputError(f"{type(array).__name__}: give an array, of a tensor to_pixels(tensor)")
    depths = (np.uint8, np.uint16) if allow_uint16 else (np.uint8,)
    shaped = array.ndim == 2 or (
        array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
    )
    if array.size == 0 or array.dtype not in depths or not shaped:
        wanted = "uint8 of shape (h, w) or (h, w, 3); PNG also takes uint16 of shape (h, w)"
        raise InputError(f"array {array.shape} of {array.dtype}: give {wanted}")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, **how)
    return buffer.getvalue()


def _check_is_no_input(path: Path, keep: Collection[Path]) -> None:
    if any(atomic.is_same_file(path, kept) for kept in keep):
        raise ImageError(f"{path}: this is an input and is never written over; name another file")
