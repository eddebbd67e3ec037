"""The metadata of a photo that an edited picture keeps.

- Kept: EXIF without its pictures (see `overpaint.provenance.exif`), XMP, the colour profile,
  resolution, PNG's colour chunks, and for JPEG the quantisation tables and chroma subsampling.
- The colour coding of HEIF and AVIF files without a profile becomes PNG's chunk cICP.
- Left out, with a note in `Metadata.notes`: extended XMP, further pictures and other data after the
  first one (they mostly show the photo before the edit), depth maps and other pictures that belong
  to a HEIC's, smaller pictures below a TIFF's, channels besides colours and alpha, Photoshop and
  IPTC records, comments, texts, and PNG chunks of other kinds.
"""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, JpegImagePlugin

from overpaint.errors import ImageError, OverpaintError, TooLargeError
from overpaint.images.decoding import (
    choose_formats,
    find_pixel_limit,
    limit_pillow,
    read_orientation,
    refuse_lack_of_memory,
)
from overpaint.provenance import exif
from overpaint.provenance.containers import (
    count_trailing_bytes,
    extract_manifests,
    has_manifest,
    read_bmff_coding,
    read_jpeg_segments,
    read_png_chunks,
)

_SUB_DIRECTORIES, _SAMPLES = 330, 277
_RECORDS = {33723, 34377, 37724}  # tags of IPTC, of Photoshop, and of its layers
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
# The last four in the third edition of PNG and as they were written before it.
_COLOUR_CHUNKS = {b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"mDCv", b"cLLi"}
_PLAIN_CHUNKS = _COLOUR_CHUNKS | {
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"pHYs", b"eXIf"),
    *(b"tEXt", b"zTXt", b"iTXt", b"caBX", b"acTL", b"fcTL", b"fdAT"),
}
_PLAIN_CODING = {(1, 13), (2, 2), (1, 1), (1, 2), (2, 13)}  # sRGB, or of unknown or video transfer


@dataclass(frozen=True, slots=True)
class Metadata:
    """The metadata of one file.

    exif: with the leading "Exif", NUL, NUL. exif_problem: why there is none although the file has
    EXIF. tables: JPEG quantisation, one for each colour
    component. subsampling: 0, 1, 2 as in `write_jpeg`. manifests: its C2PA manifest store.
    has_manifests: also true where that could not be extracted. notes: on what is left out.
    """

    orientation: int
    exif: bytes | None = field(default=None, repr=False)
    exif_problem: str | None = None
    xmp: bytes | None = field(default=None, repr=False)
    profile: bytes | None = field(default=None, repr=False)
    dpi: tuple[float, float] | None = None
    tables: tuple[tuple[int, ...], ...] | None = None
    subsampling: int = 0
    chunks: tuple[tuple[bytes, bytes], ...] = ()
    manifests: bytes | None = field(default=None, repr=False)
    has_manifests: bool = False
    notes: tuple[str, ...] = ()


def read_metadata(data: bytes, name: str | Path) -> Metadata:
    """From the bytes of a photo that `decode_image` has accepted under this name."""
    notes: list[str] = []
    with _open(data, name) as image:
        orientation = read_orientation(image)
        block, problem = _read_exif(image, notes)
        tables, subsampling = _read_jpeg_settings(image, notes)
        notes += _list_left_out(image, data)
        chunks = read_png_chunks(data) if image.format == "PNG" else _make_coding_chunk(image, data)
        return Metadata(
            orientation=orientation,
            exif=block,
            exif_problem=problem,
            xmp=_read_packet(image),
            profile=image.info.get("icc_profile") or None,
            dpi=_read_dpi(image),
            tables=tables,
            subsampling=subsampling,
            chunks=tuple((n, content) for n, content in chunks if n in _COLOUR_CHUNKS),
            manifests=extract_manifests(data),
            has_manifests=has_manifest(data),
            notes=tuple(notes),
        )


def read_xmp(data: bytes, name: str | Path) -> tuple[str, bytes | None]:
    """(format as in `Photo.format`, XMP packet or None) of a file; raises `ImageError`."""
    try:
        with _open(data, name) as image:
            return "JPEG" if image.format == "MPO" else str(image.format), _read_packet(image)
    except OverpaintError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLargeError(
            f"{name}: {error}; if you trust it, raise OVERPAINT_MAX_PIXELS"
        ) from error
    except Exception as error:  # damaged bytes may raise any exception
        refuse_lack_of_memory(error, name)
        reason = "not a photo that can be read, or damaged; give JPEG, PNG, WebP or TIFF"
        raise ImageError(f"{name}: {reason}") from error


def find_orientation(data: bytes) -> int:
    """The EXIF orientation, 1..8, by which readers will rotate this file."""
    with _open(data, "") as image:
        return read_orientation(image)


@contextlib.contextmanager
def _open(data: bytes, name: str | Path) -> Iterator[Any]:
    """The file as a Pillow image, under the size limit and the lock of `images.decoding`."""
    formats = choose_formats(data, name)
    with limit_pillow(find_pixel_limit(None)):
        image: Any = Image.open(io.BytesIO(data), formats=formats)
        if image.format == "PNG":
            image.load()  # its texts may come after the pixels
        yield image


def _read_packet(image: Any) -> bytes | None:
    packet = image.info.get("xmp")
    if isinstance(packet, tuple):  # a TIFF field of several values
        packet = bytes(packet)
    return packet.encode() if isinstance(packet, str) else packet or None


def _read_exif(image: Any, notes: list[str]) -> tuple[bytes | None, str | None]:
    """The block without its pictures, and why it could not be read; adds to the notes."""
    try:
        block = image.info.get("exif")
        if image.format == "TIFF":
            block = exif.make_from_tiff(image)
        if not block:
            return None, None
        block, found = exif.remove_pictures(block)
    except MemoryError:
        raise
    except Exception as error:  # damaged EXIF is no reason to refuse the photo
        notes.append(f"EXIF left out, because it is damaged ({error})")
        return None, str(error) or type(error).__name__
    notes += found
    return block, None


def _make_coding_chunk(image: Any, data: bytes) -> list[tuple[bytes, bytes]]:
    """PNG's chunk cICP for colours that have no profile and are not plain sRGB."""
    found = None if image.info.get("icc_profile") else read_bmff_coding(data)
    if found is None or found[:2] in _PLAIN_CODING or max(found[:2]) > 255:
        return []
    return [(b"cICP", bytes([found[0], found[1], 0, 1]))]  # RGB, full range: as decoded


def _read_dpi(image: Any) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 1 <= across <= 60000 and 1 <= down <= 60000 else None


def _read_jpeg_settings(
    image: Any, notes: list[str]
) -> tuple[tuple[tuple[int, ...], ...] | None, int]:
    """(tables, subsampling); (None, 0) where the file is not a JPEG."""
    if image.format not in ("JPEG", "MPO"):
        return None, 0
    used = [image.quantization.get(part[3]) for part in image.layer[:3]]
    if not all(used):
        return None, 0
    subsampling = JpegImagePlugin.get_sampling(image)
    if subsampling < 0 and len(image.layer) == 3:  # a CMYK picture has no chroma
        notes.append("chroma subsampling of a rare kind: a JPEG of the result has none")
    return tuple(tuple(table) for table in used), max(subsampling, 0)


def _list_left_out(image: Any, data: bytes) -> list[str]:
    """Notes on the data that no edited picture keeps."""
    tags = getattr(image, "tag_v2", {})
    is_jpeg, is_png = data[:2] == b"\xff\xd8", image.format == "PNG"
    other = {n for n, _ in read_png_chunks(data) if is_png and n.isalpha()} - _PLAIN_CHUNKS
    chunks = ", ".join(sorted(name.decode() for name in other))
    behind = count_trailing_bytes(data) if is_jpeg or is_png else 0
    follows = "bytes after the picture (a video, a gain map or further pictures)"
    texts = [key for key in getattr(image, "text", {}) if key != "XML:com.adobe.xmp"]
    found = {
        "further pictures (MPO)": image.format == "MPO",
        f"{behind:,} {follows}": behind > 0,
        f"PNG chunks ({chunks})": bool(chunks),
        "pictures below the first (sub-directories)": _SUB_DIRECTORIES in tags,
        "channels besides colours and alpha": tags.get(_SAMPLES, 1) > len(image.getbands()),
        "Photoshop and IPTC records": "photoshop" in image.info or not _RECORDS.isdisjoint(tags),
        "comment": "comment" in image.info,
        f"texts ({', '.join(texts)})": bool(texts),
        "extended XMP, which mostly holds pictures": is_jpeg
        and any(content.startswith(_EXTENDED_XMP) for _, content in read_jpeg_segments(data)),
    }
    belonging = [kind.rpartition(":")[2] for kind in image.info.get("aux") or {}]  # of a HEIC
    belonging += ["depth map"] * bool(image.info.get("depth_images"))
    found[f"pictures that belong to the first ({', '.join(belonging)})"] = bool(belonging)
    return [f"{what} left out" for what, present in found.items() if present]
