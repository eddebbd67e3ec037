"""From the bytes of a file to a `Photo`: the inner part of `overpaint.images`.

- Pixels come upright (EXIF orientation applied), as RGB, 8 bit. What had to be converted for
  that is said in `Photo.notes`, because for evidence it matters.
- Alpha is dropped and the colour stored beneath it kept: compositing would invent pixels.
- 16 bit samples keep their high byte (value // 256), in colour and in grey alike. Pillow does so
  for colour; it is exact wherever 8 bit were widened to 16, and at most one level off otherwise.
- Float, signed and 32 bit samples are refused, because their range is a guess.
- CMYK is converted without its colour profile; a CMYK JPEG is taken as inverted (Adobe), as
  Pillow and the browsers do. RGB profiles are left alone: pixels are as stored.
- The size is checked from the header, before any pixel is decoded.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from overpaint.errors import ConfigError, ImageError

MAX_PIXELS = 200_000_000
"""Largest photo that is decoded, unless OVERPAINT_MAX_PIXELS or `max_pixels` says otherwise."""

# Pillow's decoders to try. A short list, as some of the others run outside programs.
_FORMATS = ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "BMP", "GIF"]
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC, _SUBFILE_TYPE, _DNG = 274, 258, 262, 254, 50706
_ALPHA_MODES = {"LA", "PA", "RGBA"}
_DAMAGED_TIFF = "a TIFF of a kind that cannot be read (float samples?); save it as 8 or 16 bit RGB"
# Pillow's size limit and Python's warning filters are global, so one thread decodes at a time.
_decoding = threading.Lock()


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded photo and what is known of its file.

    pixels: uint8 (h, w, 3), RGB, upright. sha256: of the file's bytes, hexadecimal.
    format: Pillow's name, with MPO counted as "JPEG". jpeg_quality: 1..100, None when not a JPEG.
    lossy: the format throws detail away (GIF counts as lossy for its 256 colours).
    notes: what was converted, in words.
    """

    pixels: np.ndarray
    path: Path
    sha256: str
    format: str
    jpeg_quality: int | None
    lossy: bool
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.shape[0]


def decode_image(data: bytes, name: str | Path, *, max_pixels: int | None = None) -> Photo:
    """Decode a photo that is already in memory; `name` is what errors and `Photo.path` call it."""
    limit = pixel_limit(max_pixels)
    if not data:
        raise ImageError(f"{name}: the file is empty; get it again from where it came")
    formats = formats_for(data, name)
    with pillow_limited_to(limit):
        try:
            photo = _decode(data, Path(name), formats)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            reason = f"{error}; if you trust it, raise OVERPAINT_MAX_PIXELS or max_pixels"
        except ImageError as error:
            reason = str(error)
        except UnidentifiedImageError:
            reason = "not a photo that can be read, or its header is damaged; give JPEG, PNG, "
            reason += "WebP, TIFF, HEIC, AVIF, BMP or GIF (the content counts, not the name)"
            reason = _DAMAGED_TIFF if data[:4] in (b"II*\0", b"MM\0*") else reason
        except Exception as error:  # a decoder fed hostile bytes raises whatever it likes
            reason = f"cut short or damaged ({error}); get the file again from where it came"
        else:
            return photo
    raise ImageError(f"{name}: {reason}")


def pixel_limit(max_pixels: int | None) -> int:
    """The argument if given, otherwise the environment's OVERPAINT_MAX_PIXELS or MAX_PIXELS."""
    text = os.environ.get("OVERPAINT_MAX_PIXELS", str(MAX_PIXELS))
    if max_pixels is None and not (text.isdecimal() and int(text) > 0):
        raise ConfigError(f"OVERPAINT_MAX_PIXELS={text!r}: give a whole number above 0, or unset")
    return int(text) if max_pixels is None else max_pixels


def check_num_bytes(name: str | Path, num_bytes: int, limit: int) -> None:
    """Raise `ImageError` for a file of more bytes than `limit` pixels can need."""
    if num_bytes > 8 * limit + 2**26:  # 16 bit RGBA without compression, and 64 MiB of metadata
        found = f"{num_bytes:,} bytes, too many for {limit:,} pixels"
        raise ImageError(f"{name}: {found}; raise OVERPAINT_MAX_PIXELS or max_pixels")


def formats_for(data: bytes, name: str | Path) -> list[str]:
    """Pillow's decoders to try on a file; `ImageError` where HEIC lacks its package."""
    if data[4:8] != b"ftyp" or data[8:12] not in _HEIC_BRANDS or b"avif" in data[8:40]:
        return _FORMATS
    try:
        import pillow_heif
    except ImportError as error:
        remedy = "pip install 'overpaint[heic]'"
        raise ImageError(f"{name}: HEIC needs one more package; run: {remedy}") from error
    pillow_heif.register_heif_opener()
    return ["HEIF"]


@contextlib.contextmanager
def pillow_limited_to(limit: int) -> Iterator[None]:
    """Pillow with our size limit as a hard one, and without its other warnings."""
    with _decoding, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, limit
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _decode(data: bytes, path: Path, formats: list[str]) -> Photo:
    image: Any = Image.open(io.BytesIO(data), formats=formats)  # header and size only
    tags = getattr(image, "tag_v2", {})
    if tags.get(_SUBFILE_TYPE, 0) & 1 or _DNG in tags:
        raise ImageError("this holds a preview only (camera raw?); develop it to TIFF or JPEG")
    notes = ["first of several pictures in it"] if getattr(image, "is_animated", False) else []
    stored = read_orientation(image)
    image.load()
    turn = read_orientation(image)  # Pillow has already turned a TIFF while loading it
    pixels = np.require(upright(_rgb(image, data, notes), turn), requirements=["C", "W"])
    notes += ["turned upright by EXIF"] if stored != 1 else []
    kind = "JPEG" if image.format == "MPO" else str(image.format)
    quality = _jpeg_quality(image) if kind == "JPEG" else None
    digest = hashlib.sha256(data).hexdigest()
    return Photo(pixels, path, digest, kind, quality, _is_lossy(image, kind, data), tuple(notes))


def _rgb(image: Any, data: bytes, notes: list[str]) -> np.ndarray:
    """The loaded image as uint8 (h, w, 3); says in `notes` what was converted."""
    mode, tags, bits = image.mode, getattr(image, "tag_v2", {}), 8
    if mode in ("I", "F"):
        raise ImageError("float, signed or 32 bit samples of unknown range; save as 8 or 16 bit")
    if image.format == "PNG":
        bits = data[24]  # IHDR comes first: signature 8, length 4, name 4, size 8, depth 1
    elif image.format in ("TIFF", "HEIF"):
        bits = max(tags.get(_BITS_PER_SAMPLE, (image.info.get("bit_depth", 8),)))
    if bits > 8:
        notes.append(f"{bits} bit reduced to 8")
    if mode.startswith("I;16"):
        grey = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
        # Pillow undoes "white is zero" for 8 bit only.
        image, mode = Image.fromarray(255 - grey if tags.get(_PHOTOMETRIC) == 0 else grey), "L"
    if mode in _ALPHA_MODES or "transparency" in image.info:
        notes.append("alpha dropped")
    if mode in ("1", "L", "LA"):
        notes.append("grey copied to three channels")
    elif mode in ("P", "PA"):
        notes.append("palette expanded")
    elif mode not in ("RGB", "RGBA"):
        notes.append(f"{mode} converted without its colour profile")
    return np.asarray(image.convert("RGB"))  # leaves alpha out, composites nothing


def read_orientation(image: Any) -> int:
    """The EXIF orientation of an open Pillow image, 1..8; 1 where there is none to be read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF must not cost the photo
        return 1
    return value if value in range(2, 9) else 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (CIPA DC-008, tag 274): transpose, then flip."""
    pixels = pixels.swapaxes(0, 1) if orientation >= 5 else pixels
    pixels = pixels[::-1] if orientation in (3, 4, 7, 8) else pixels
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels


# Luma table of the JPEG standard (ITU-T T.81, table K.1), which IJG's quality scales.
_LUMA = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 "
    "62 18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 "
    "98 112 100 103 99"
)


@cache
def _ijg_tables() -> np.ndarray:
    """The luma tables of qualities 1..100: int (100, 64)."""
    quality = np.arange(1, 101)[:, None]
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((np.array(_LUMA.split(), int) * scale + 50) // 100, 1, 255)


def _jpeg_quality(image: Any) -> int | None:
    """The IJG quality whose luma table is nearest: least sum of absolute differences.

    Exact for files written by libjpeg; for other encoders (Photoshop, cameras) an equivalent.
    """
    table = image.quantization.get(image.layer[0][3])  # the table of the first component
    if table is None:
        return None
    return int(np.abs(_ijg_tables() - np.array(table)).sum(axis=1).argmin()) + 1


def _is_lossy(image: Any, kind: str, data: bytes) -> bool:
    if kind == "WEBP":  # the image chunk's name: "VP8 " lossy, "VP8L" lossless
        lossless, lossy = data.find(b"VP8L", 12), data.find(b"VP8 ", 12)
        return lossless < 0 or 0 <= lossy < lossless
    if kind == "TIFF":
        return image.info.get("compression") in ("jpeg", "tiff_jpeg", "webp")
    return kind in ("JPEG", "AVIF", "HEIF", "GIF")
