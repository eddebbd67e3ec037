"""What a photo's file says beside its pixels, as an edited picture may keep it.

- Kept: EXIF without its pictures (see `overpaint.inference.exif`), XMP, the RGB colour profile,
  resolution, PNG's colour chunks, and for JPEG the quantisation tables and chroma subsampling.
- Left out, and said so in `Metadata.notes`: colour profiles that are not RGB (the pixels are RGB
  now), extended XMP and multi-picture parts (they mostly hold the photo before the edit), Photoshop
  and IPTC records, comments and texts.
"""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, JpegImagePlugin

from overpaint.decoding import formats_for, pillow_limited_to, pixel_limit, read_orientation
from overpaint.errors import ImageError, OverpaintError
from overpaint.inference import exif
from overpaint.inference.containers import (
    has_manifest,
    jpeg_segments,
    manifest_store,
    png_chunks,
)

_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_COLOUR_CHUNKS = {b"gAMA", b"cHRM", b"sRGB"}


@dataclass(frozen=True, slots=True)
class Metadata:
    """Of one file. exif: with the leading "Exif", NUL, NUL. tables: JPEG quantisation, one for
    each colour component; subsampling: 0, 1, 2 as in `write_jpeg`. manifests: its C2PA manifest
    store; has_manifests: also true where that could not be taken out. notes: in words."""

    orientation: int
    exif: bytes | None = None
    xmp: bytes | None = None
    profile: bytes | None = None
    dpi: tuple[float, float] | None = None
    tables: tuple[tuple[int, ...], ...] | None = None
    subsampling: int = 0
    chunks: tuple[tuple[bytes, bytes], ...] = ()
    manifests: bytes | None = None
    has_manifests: bool = False
    notes: tuple[str, ...] = ()


def read_metadata(data: bytes, name: str | Path) -> Metadata:
    """From the bytes of a photo that `decode_image` has already accepted under that name."""
    notes: list[str] = []
    with _opened(data, name) as image:
        orientation = read_orientation(image)
        block = _exif(image, notes)
        profile = _profile(image, notes)
        tables, subsampling = _jpeg_settings(image, notes)
        notes += _left_out(image, data)
        chunks = png_chunks(data) if image.format == "PNG" else ()
        return Metadata(
            orientation=orientation,
            exif=block,
            xmp=_xmp(image),
            profile=profile,
            dpi=_dpi(image),
            tables=tables,
            subsampling=subsampling,
            chunks=tuple((n, content) for n, content in chunks if n in _COLOUR_CHUNKS),
            manifests=manifest_store(data),
            has_manifests=has_manifest(data),
            notes=tuple(notes),
        )


def read_xmp(data: bytes, name: str | Path) -> tuple[str, bytes | None]:
    """(format as in `Photo.format`, XMP packet or None) of a file; raises `ImageError`."""
    try:
        with _opened(data, name) as image:
            return "JPEG" if image.format == "MPO" else str(image.format), _xmp(image)
    except OverpaintError:
        raise
    except Exception as error:  # a decoder fed hostile bytes raises whatever it likes
        reason = "not a photo that can be read, or damaged; give JPEG, PNG, WebP or TIFF"
        raise ImageError(f"{name}: {reason}") from error


def orientation_of(data: bytes) -> int:
    """The EXIF orientation, 1..8, by which readers will turn this file."""
    with _opened(data, "") as image:
        return read_orientation(image)


@contextlib.contextmanager
def _opened(data: bytes, name: str | Path) -> Iterator[Any]:
    """The file as a Pillow image, under the size limit and the lock of `overpaint.decoding`."""
    formats = formats_for(data, name)
    with pillow_limited_to(pixel_limit(None)):
        image: Any = Image.open(io.BytesIO(data), formats=formats)
        if image.format == "PNG":
            image.load()  # its texts may stand behind the pixels
        yield image


def _xmp(image: Any) -> bytes | None:
    packet = image.info.get("xmp")
    if isinstance(packet, tuple):  # a TIFF field of several values
        packet = bytes(packet)
    return packet.encode() if isinstance(packet, str) else packet or None


def _exif(image: Any, notes: list[str]) -> bytes | None:
    try:
        block = image.info.get("exif")
        if image.format == "TIFF":
            block = exif.from_tiff(image)
        if not block:
            return None
        block, found = exif.without_pictures(block)
    except Exception as error:  # damaged EXIF must not cost the photo
        notes.append(f"EXIF left out, because it is damaged ({error})")
        return None
    notes += found
    return block


def _profile(image: Any, notes: list[str]) -> bytes | None:
    profile = image.info.get("icc_profile")
    if not profile or profile[16:20] == b"RGB ":  # the profile's colour space, ICC.1 7.2.6
        return profile or None
    space = profile[16:20].decode("ascii", "replace").strip()
    notes.append(f"colour profile of {space} left out: the pixels are RGB now")
    return None


def _dpi(image: Any) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 1 <= across <= 60000 and 1 <= down <= 60000 else None


def _jpeg_settings(image: Any, notes: list[str]) -> tuple[tuple[tuple[int, ...], ...] | None, int]:
    """(tables, subsampling); (None, 0) where the file is not a JPEG."""
    if image.format not in ("JPEG", "MPO"):
        return None, 0
    used = [image.quantization.get(part[3]) for part in image.layer[:3]]
    if not all(used):
        return None, 0
    subsampling = JpegImagePlugin.get_sampling(image)
    if subsampling < 0 and len(image.layer) == 3:  # a CMYK picture has no chroma
        notes.append("chroma subsampling of a rare kind: a JPEG made of it has none")
    return tuple(tuple(table) for table in used), max(subsampling, 0)


def _left_out(image: Any, data: bytes) -> list[str]:
    """What no edited picture carries on, in words."""
    tags = getattr(image, "tag_v2", {})
    texts = [key for key in getattr(image, "text", {}) if key != "XML:com.adobe.xmp"]
    found = {
        "further pictures (MPO)": image.format == "MPO",
        "Photoshop and IPTC records": "photoshop" in image.info or 34377 in tags or 33723 in tags,
        "comment": "comment" in image.info,
        f"texts ({', '.join(texts)})": bool(texts),
        "extended XMP, which mostly holds pictures": data[:2] == b"\xff\xd8"
        and any(content.startswith(_EXTENDED_XMP) for _, content in jpeg_segments(data)),
    }
    return [f"{what} left out" for what, present in found.items() if present]
