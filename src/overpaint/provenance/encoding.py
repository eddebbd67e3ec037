"""The formats in which an edited picture can be written, what each can hold, and how it is encoded.

| suffix | grey | alpha | 16 bit | known pixels |
| --- | --- | --- | --- | --- |
| .png, .tif, .tiff | kept | kept | kept | bit for bit |
| .webp (lossless) | as equal RGB | kept | upper 8 bit | bit for bit, of 8 bit |
| .jpg, .jpeg | kept | refused, or laid on a colour | upper 8 bit | compressed again |
| .avif (quality 90, 4:4:4) | as equal RGB | kept | upper 8 bit | compressed again |

- A note says what a format cannot hold. Alpha that hides something is refused instead, as the file
  would show what was hidden.
- Pillow writes the metadata. It cannot write colours of 16 bit, so this module encodes their image
  data: PNG (ISO/IEC 15948, filters by the usual heuristic of least absolute sum) and TIFF 6.0 (one
  strip, Deflate, horizontal differences; EXIF as separate directories).
- A JPEG gets its source's quantisation tables and subsampling, otherwise quality 95 without.
"""

import io
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor, PngImagePlugin, TiffImagePlugin

from overpaint.errors import ImageError, InputError
from overpaint.images.decoding import turn_upright
from overpaint.images.samples import Samples
from overpaint.provenance import exif
from overpaint.provenance.containers import read_png_chunks
from overpaint.provenance.metadata import Metadata, find_orientation

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True, slots=True)
class Format:
    """A file format and what it can hold.

    name: Pillow's. deep: 16 bit. chunks: PNG's colour chunks. longest: its largest side, pixels.
    """

    name: str
    alpha: bool = True
    grey: bool = True
    deep: bool = False
    lossless: bool = True
    chunks: bool = False
    resolution: bool = True
    longest: int = 2**31 - 1


_PNG = Format("PNG", deep=True, chunks=True)
_TIFF = Format("TIFF", deep=True)
_JPEG = Format("JPEG", alpha=False, lossless=False, longest=65500)
_WEBP = Format("WEBP", grey=False, resolution=False, longest=16383)
_AVIF = Format("AVIF", grey=False, lossless=False, resolution=False, longest=65535)
FORMATS = {
    ".png": _PNG,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".webp": _WEBP,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".avif": _AVIF,
}
"""By lower-case suffix."""


def find_format(out: str | Path) -> Format:
    """The format of a file to be written, by its name; raises `ImageError`."""
    found = FORMATS.get(Path(out).suffix.lower())
    if found is None:
        raise ImageError(f"{out}: a result is a {', '.join(FORMATS)} file; name it so")
    return found


def parse_colour(text: str) -> tuple[int, int, int]:
    """8 bit RGB of a colour's name in CSS or "#rrggbb"; raises `InputError`."""
    wanted = "give a name such as white, or #rrggbb"
    if not isinstance(text, str):
        raise InputError(f"colour {text!r}: {wanted}, as text")
    try:
        colour = ImageColor.getrgb(text)
    except ValueError as error:
        raise InputError(f"colour {text!r}: {wanted}") from error
    if len(colour) != 3:
        raise InputError(f"colour {text!r} has an alpha; {wanted}")
    return colour


def fit_samples(
    samples: Samples, out: Path, flatten: str | None = None
) -> tuple[Samples, list[str]]:
    """The samples as a file called `out` holds them, and notes on what it does not hold.

    flatten: colour that replaces transparency (see `parse_colour`). Raises `ImageError` for another
    suffix, for a photo that is too large for the format, and for transparency that it cannot hold,
    and `InputError` for another colour.
    """
    form, notes, alpha = find_format(out), [], samples.alpha
    colour = None if flatten is None else parse_colour(flatten)
    if max(samples.values.shape[:2]) > form.longest:
        reason = f"{form.name} holds at most {form.longest} pixels a side"
        raise ImageError(f"{out}: {reason}; write .png or .tif")
    if alpha is not None and alpha.min() == samples.opaque and (colour or not form.deep):
        samples, alpha = samples.remove_alpha(), None
        notes.append("alpha left out: it is opaque everywhere")
    if alpha is not None and colour is not None:
        samples = samples.flatten(colour)
        notes.append(f"transparency laid on {flatten}: alpha is gone")
    elif alpha is not None and not form.alpha:
        raise ImageError(
            f"{out}: the photo has transparent parts, which a {form.name} would uncover; write "
            ".png, .tif, .webp or .avif, or lay them on a colour with --flatten white "
            '(flatten="white")'
        )
    if samples.values.dtype == np.uint16 and not form.deep:
        notes.append(f"{samples.bits} bit reduced to 8, as {form.name} holds no more here")
        eight = (samples.values >> (samples.bits - 8)).astype(np.uint8)
        samples = replace(samples, values=eight, bits=8)
    # Few programs read a TIFF of grey and alpha with 16 bit.
    odd = form is _TIFF and samples.values.dtype == np.uint16 and samples.alpha is not None
    if samples.num_colours == 1 and (odd or not form.grey):
        notes.append("grey written as equal red, green and blue: write .png to keep one channel")
        order = [0, 0, 0] if samples.alpha is None else [0, 0, 0, 1]
        samples = replace(samples, values=samples.values[..., order])
    return samples, notes


def encode(
    samples: Samples, form: Format, kept: Metadata, packet: bytes
) -> tuple[bytes, list[str]]:
    """The file's bytes, with the pixels rotated for its EXIF orientation, and notes.

    samples: upright, from `fit_samples`. packet: XMP.
    """
    kept, notes = _fit_metadata(samples, form, kept)
    trial = _encode_stored(replace(samples, values=samples.values[:1, :1]), form, kept, packet, [])
    orientation = find_orientation(trial)
    if orientation != kept.orientation:
        notes.append("stored upright, as the EXIF orientation could not be kept")
    turn = {6: 8, 8: 6}.get(orientation, orientation)
    stored = replace(samples, values=np.ascontiguousarray(turn_upright(samples.values, turn)))
    return _encode_stored(stored, form, kept, packet, notes), notes


def _fit_metadata(samples: Samples, form: Format, kept: Metadata) -> tuple[Metadata, list[str]]:
    """The metadata that the format can hold for these samples, and notes on the rest."""
    notes = []
    if kept.profile is not None:
        space = kept.profile[16:20]  # the profile's colour space, ICC.1 7.2.6
        if space != (b"GRAY" if samples.num_colours == 1 else b"RGB "):
            name = space.decode("ascii", "replace").strip()
            pixels = "grey" if samples.num_colours == 1 else "RGB"
            notes.append(f"colour profile of {name} left out: the pixels are {pixels}")
            kept = replace(kept, profile=None)
    if form is _PNG and samples.bits < 16 and samples.values.dtype == np.uint16:
        used = bytes([samples.bits] * samples.values.shape[2])
        kept = replace(kept, chunks=(*kept.chunks, (b"sBIT", used)))
    names = [name.decode() for name, _ in kept.chunks if name != b"sRGB"]
    if names and not form.chunks:
        reason = f"{form.name} has no place for it, so colours may look different; write .png"
        notes.append(f"colour description ({', '.join(names)}) left out: {reason}")
    if kept.dpi and not form.resolution:
        notes.append(f"resolution left out, as {form.name} holds none")
    if form is _TIFF and kept.exif is not None:
        notes.append("EXIF written anew for TIFF: maker notes may refer to places that are gone")
    return kept, notes


def _encode_stored(
    samples: Samples, form: Format, kept: Metadata, packet: bytes, notes: list[str]
) -> bytes:
    if form is _TIFF:
        return _encode_tiff(samples, kept, packet, notes)
    stored = samples.values
    how: dict[str, Any] = {"format": form.name}
    how |= {"exif": kept.exif} if kept.exif else {}
    how |= {"icc_profile": kept.profile} if kept.profile else {}
    how |= {"dpi": kept.dpi} if kept.dpi and form.resolution else {}
    if form is _PNG:
        return _encode_png(stored, kept, packet, how)
    how["xmp"] = packet
    if form is _WEBP:
        return _save(stored, how | {"lossless": True, "exact": True, "quality": 80})
    if form is _AVIF:
        return _save(stored, how | {"quality": 90, "subsampling": "4:4:4"})
    return _encode_jpeg(stored, kept, how, notes)


def _encode_jpeg(
    stored: np.ndarray, kept: Metadata, how: dict[str, Any], notes: list[str]
) -> bytes:
    usual = {"quality": 95, "subsampling": 0}
    if kept.tables is None:
        return _save(stored, how | usual)
    try:
        tables = kept.tables[:1] if stored.shape[2] == 1 else kept.tables
        tuned = {"quality": -1, "qtables": tables, "subsampling": kept.subsampling}
        return _save(stored, how | tuned)
    except (ValueError, OSError) as error:  # tables that libjpeg does not write
        notes.append(f"JPEG: quality 95, as the source's fails ({error})")
        return _save(stored, how | usual)


def _save(stored: np.ndarray, how: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    values = stored[..., 0] if stored.shape[2] == 1 else stored
    Image.fromarray(values, _MODES[stored.shape[2]]).save(buffer, **how)
    return buffer.getvalue()


def _encode_png(stored: np.ndarray, kept: Metadata, packet: bytes, how: dict[str, Any]) -> bytes:
    how["pnginfo"] = PngImagePlugin.PngInfo()
    how["pnginfo"].add_itxt("XML:com.adobe.xmp", packet.decode())
    is_deep = stored.dtype == np.uint16
    # For 16 bit, Pillow encodes one pixel of 8 bit with the metadata; its image data are replaced.
    data = _save(np.zeros_like(stored[:1, :1], np.uint8) if is_deep else stored, how)
    height, width, count = stored.shape
    out = [data[:8]]
    for name, content in read_png_chunks(data):
        if name == b"IHDR":
            kind = {1: 0, 2: 4, 3: 2, 4: 6}[count]
            head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
            out.append(_make_chunk(name, head if is_deep else content))
            # A colour profile has precedence over sRGB, and takes its place.
            colours = (c for c in kept.chunks if not (kept.profile and c[0] == b"sRGB"))
            out += [_make_chunk(*colour) for colour in colours]
        elif name == b"IDAT" and is_deep:
            out += [_make_chunk(name, part) for part in _deflate(_filter_lines(stored))]
        else:
            out.append(_make_chunk(name, content))
    return b"".join(out)


def _make_chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(content, zlib.crc32(name))
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def _deflate(parts: Iterator[bytes]) -> Iterator[bytes]:
    deflate = zlib.compressobj(6)
    for part in parts:
        yield deflate.compress(part)
    yield deflate.flush()


def _filter_lines(stored: np.ndarray) -> Iterator[bytes]:
    """The filtered lines of a PNG of 16 bit, some at a time: a byte for the filter, then the line.

    Each line is filtered by whichever of None, Sub, Up, Average and Paeth gives the least sum of
    absolute differences, the bytes taken as signed.
    """
    height, width, count = stored.shape
    step = 2 * count
    lines = stored.astype(">u2").reshape(height, -1).view(np.uint8)
    some = max(1, 2**20 // (width * step))
    for start in range(0, height, some):
        here = lines[start : start + some].astype(np.int16)
        above = np.zeros_like(here)
        above[1:] = here[:-1]
        above[0] = lines[start - 1] if start else 0
        left, corner = (np.pad(x, ((0, 0), (step, 0)))[:, :-step] for x in (here, above))
        guess = left + above - corner
        to_left, to_above, to_corner = (np.abs(guess - x) for x in (left, above, corner))
        paeth = np.where(to_above <= to_corner, above, corner)
        paeth = np.where((to_left <= to_above) & (to_left <= to_corner), left, paeth)
        predicted = (np.zeros_like(here), left, above, (left + above) // 2, paeth)
        candidates = np.stack([(here - x).astype(np.uint8) for x in predicted])
        cost = np.abs(candidates.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64)
        best = cost.argmin(axis=0)
        chosen = candidates[best, np.arange(len(here))]
        yield np.concatenate([best.astype(np.uint8)[:, None], chosen], axis=1).tobytes()


def _encode_tiff(samples: Samples, kept: Metadata, packet: bytes, notes: list[str]) -> bytes:
    stored = samples.values
    height, width, count = stored.shape
    little = sys.byteorder == "little"
    tags = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\0\0\0\0" if little else b"MM\0*\0\0\0\0")
    try:
        for tag, value in exif.list_describing(kept.exif) if kept.exif else ():
            tags[tag] = value
        tags.tobytes()
    except MemoryError:
        raise
    except Exception as error:  # a camera's value need not fit its stated type
        notes.append(f"EXIF left out, as a TIFF cannot hold it ({error})")
        return _encode_tiff(samples, replace(kept, exif=None), packet, notes)
    differences = stored.copy()
    differences[:, 1:] -= stored[:, :-1]  # modulo the type's range, as predictor 2 is defined
    strip = zlib.compress(differences.tobytes(), 6)
    tags[256], tags[257], tags[258] = width, height, (stored.dtype.itemsize * 8,) * count
    tags[259], tags[262], tags[317] = 8, 2 if count >= 3 else 1, 2  # Deflate; RGB or grey
    tags[273], tags[277], tags[278], tags[279] = 0, count, height, len(strip)
    if samples.bits < stored.dtype.itemsize * 8:
        tags[281] = (samples.opaque,) * count  # MaxSampleValue: what is white
    if count in (2, 4):
        tags[338] = 2  # unassociated alpha: the colours are not multiplied by it
    if kept.dpi:
        tags[282], tags[283], tags[296] = *kept.dpi, 2
    tags.tagtype[700] = 1
    tags[700] = packet
    if kept.profile:
        tags.tagtype[34675] = 7
        tags[34675] = kept.profile
    buffer = io.BytesIO()
    tags.save(buffer)
    buffer.write(strip)
    return buffer.getvalue()
