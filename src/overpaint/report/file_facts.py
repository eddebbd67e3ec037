"""What a photo's file says besides its pixels: coding, EXIF, thumbnail, marks of how it was made.

- Sources: ITU-T T.81 (JPEG segments, tables and sampling), CIPA DC-008 (EXIF and its thumbnail).
- The hash of the quantisation tables distinguishes encoders: many programs and cameras have their
  own tables, and files of one program and quality have the same.
- Thumbnail and photo are compared by the mean brightness of cells of 8 x 8 thumbnail pixels, after
  a linear fit, as cameras process the two separately. The limit is a rule of thumb: how often
  thumbnails of untouched photos exceed it was not measured.
- JPEG, PNG and WebP files are searched for a thumbnail; of TIFF, AVIF and HEIC the record says that
  they were not. In an AVIF or a HEIC the reader has put another orientation into the EXIF, so that
  neither this field nor how a thumbnail lies is known.
- Texts in a file are untrusted: each is shown as one visible line (`terminal.make_printable`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from overpaint import hashes
from overpaint.errors import OverpaintError
from overpaint.images import Photo, decode_image
from overpaint.images.decoding import (
    find_pixel_limit,
    limit_pillow,
    turn_upright,
)
from overpaint.provenance import checking
from overpaint.provenance.containers import (
    find_first_directory,
    read_directory,
    read_jpeg_segments,
    read_number,
    read_png_chunks,
    read_riff_chunks,
)
from overpaint.provenance.metadata import find_orientation, read_metadata
from overpaint.report.contents import ExifField, File, Grid, Jpeg, Marks, Thumbnail
from overpaint.terminal import make_printable

MAX_VALUE = 200
"""Characters of an EXIF field that are kept."""
MAX_FIELDS = 200
"""EXIF fields that are kept."""
MAX_DIFFERENCE = 24.0
"""Levels of 255 that a cell of the thumbnail may differ by."""
_CELL = 8
_EXIF, _GPS = 0x8769, 0x8825
_OFFSET, _LENGTH, _STRIPS = 513, 514, 273
_NOT_SEARCHED = ("TIFF", "AVIF", "HEIF")
_REPLACED = ("AVIF", "HEIF")
_PREFIX = b"Exif\0\0"
_PROCESSES = {0xC0: "baseline", 0xC1: "extended sequential", 0xC2: "progressive", 0xC3: "lossless"}
_NOT_FRAMES = {0xC4, 0xC8, 0xCC}  # tables and an extension among the numbers of frames
_SUBSAMPLING = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """The record of a file, and its thumbnail as pixels."""

    file: File
    thumbnail: np.ndarray | None = field(repr=False)
    """uint8 (h, w, 3); None where there is none."""
    expected: np.ndarray | None = field(repr=False)
    """uint8 (h, w, 3): the photo at the thumbnail's size; None without a thumbnail."""


NO_FOLDER = "not looked for, as the photo was sent without its folder"
"""What a report says of the receipt of a photo that came without its folder."""


def gather_facts(
    data: bytes,
    photo: Photo,
    grid: Grid | None,
    anchors: str | None = None,
    *,
    beside: Path | None = None,
) -> Facts:
    """data: bytes of the file that `photo` was decoded from. anchors: certificates in PEM whose
    C2PA signers count as trusted. beside: the file's path, to look for a receipt beside it; None
    for a photo that was sent without its folder."""
    notes = list(photo.notes)
    exif, left_out = _read_exif(data, photo)
    notes += left_out
    if photo.format in _NOT_SEARCHED:
        notes.append(f"an EXIF thumbnail was not looked for in this {photo.format} file")
    thumbnail, shown, expected = _read_thumbnail(data, photo, notes)
    return Facts(
        File(
            name=str(photo.path),
            bytes=len(data),
            sha256=photo.sha256,
            format=photo.format,
            width=photo.width,
            height=photo.height,
            lossy=photo.lossy,
            notes=[make_printable(note) for note in notes],
            jpeg=describe_jpeg(data, photo.jpeg_quality),
            exif=exif,
            thumbnail=thumbnail,
            marks=_describe_marks(data, photo, anchors, beside),
            grid=grid,
        ),
        shown,
        expected,
    )


def describe_jpeg(data: bytes, quality: int | None) -> Jpeg | None:
    """How a JPEG is coded; None for another format."""
    if data[:2] != b"\xff\xd8":
        return None
    tables: dict[int, bytes] = {}
    components: list[tuple[int, int, int]] = []  # sampling factors across and down, table
    process, segments = "unknown", []
    for marker, content in read_jpeg_segments(data):
        segments.append(_name_segment(marker, content))
        if marker == 0xDB:
            tables |= dict(_read_tables(content))
        elif 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES and len(content) > 5:
            process = _PROCESSES.get(marker, f"SOF{marker - 0xC0}")
            fields = [content[at : at + 3] for at in range(6, 6 + 3 * content[5], 3)]
            components = [(f[1] >> 4, f[1] & 15, f[2]) for f in fields if len(f) == 3]
    used = [tables.get(table) for _, _, table in components]
    known = b"".join(table for table in used if table)
    return Jpeg(
        estimated_quality=quality,
        tables_sha256=hashes.sha256(known) if used and all(used) else None,
        process=process,
        subsampling=_name_subsampling(components),
        segments=segments,
    )


def _read_tables(content: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(content):
        size = 128 if content[at] >> 4 else 64
        yield content[at] & 15, content[at + 1 : at + 1 + size]
        at += 1 + size


def _name_subsampling(components: list[tuple[int, int, int]]) -> str:
    factors = [(across, down) for across, down, _ in components]
    if len(factors) == 1:
        return "none, there is one component"
    if len(factors) == 3 and factors[1:] == [(1, 1), (1, 1)] and factors[0] in _SUBSAMPLING:
        return _SUBSAMPLING[factors[0]]
    return ", ".join(f"{across}x{down}" for across, down in factors) or "unknown"


def _name_segment(marker: int, content: bytes) -> str:
    names = {0xDB: "DQT", 0xC4: "DHT", 0xDD: "DRI", 0xFE: "COM"}
    if 0xE0 <= marker <= 0xEF:
        name = content[:32].split(b"\0")[0].split(b" ")[0][:24].decode("latin-1")
        return make_printable(f"APP{marker - 0xE0} {name}".strip())
    if 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES:
        return f"SOF{marker - 0xC0}"
    return names.get(marker, f"{marker:02X}")


def _read_exif(data: bytes, photo: Photo) -> tuple[list[ExifField], list[str]]:
    """The fields of the main directories, and notes on what was not read or was left out."""
    try:
        known = read_metadata(data, photo.path)
        with limit_pillow(find_pixel_limit(None)):  # which also suppresses Pillow's warnings
            found = [] if known.exif is None else list(_read_fields(known.exif))
    except MemoryError:
        raise
    except Exception as error:  # a parser fed hostile bytes raises whatever it likes
        return [], [f"EXIF could not be read ({error})"]
    notes = []
    if known.exif_problem is not None:
        notes.append(f"EXIF could not be read ({known.exif_problem})")
    stated = [one for one in found if (one.group, one.name) != ("image", "Orientation")]
    if photo.format in _REPLACED and len(stated) < len(found):
        found = stated
        notes.append("EXIF orientation not shown: the reader puts there what the boxes say, or 1")
    if (more := len(found) - MAX_FIELDS) > 0:
        notes.append(f"{more} more EXIF fields left out")
    return found[:MAX_FIELDS], notes


def _read_fields(block: bytes) -> Iterator[ExifField]:
    found = Image.Exif()
    found.load(block)
    groups = (
        ("image", dict(found), ExifTags.TAGS),
        ("EXIF", found.get_ifd(_EXIF), ExifTags.TAGS),
        ("GPS", found.get_ifd(_GPS), ExifTags.GPSTAGS),
    )
    for group, values, names in groups:
        for tag, value in values.items():
            if tag not in (_EXIF, _GPS):
                yield ExifField(group, names.get(tag, f"tag {tag}"), _format_value(value))


def _format_value(value: Any) -> str:
    if isinstance(value, bytes):
        text = value.rstrip(b"\0")
        plain = len(text) <= MAX_VALUE and all(32 <= byte < 127 for byte in text)
        value = text.decode("ascii") if plain else f"{len(value):,} bytes"
    elif isinstance(value, tuple):
        value = ", ".join(str(part) for part in value[:MAX_VALUE])
    text = make_printable(_decode_utf8(str(value)).rstrip("\0").strip())
    if len(text) > MAX_VALUE:
        return f"{text[:MAX_VALUE]}... ({len(text):,} characters)"
    return text


def _decode_utf8(text: str) -> str:
    """Pillow reads texts as Latin-1; most programs write UTF-8."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _read_thumbnail(
    data: bytes, photo: Photo, notes: list[str]
) -> tuple[Thumbnail | None, np.ndarray | None, np.ndarray | None]:
    """The thumbnail's record, its pixels, and the photo at its size. Adds to the notes."""
    try:
        found = extract_thumbnail(data)
        if found is None:
            return None, None, None
        shown = decode_image(found, "the EXIF thumbnail", max_pixels=2**22).pixels
        # A thumbnail is stored in the orientation of the photo.
        shown = np.ascontiguousarray(turn_upright(shown, find_orientation(data)))
    except (OverpaintError, ValueError) as error:
        notes.append(f"the EXIF thumbnail could not be read ({error})")
        return None, None, None
    record, expected = compare_thumbnail(shown, photo.pixels)
    return record, shown, expected


def extract_thumbnail(data: bytes) -> bytes | None:
    """The JPEG in the second directory of the EXIF of a JPEG, PNG or WebP; None without one.

    Raises `ValueError` for EXIF that cannot be read, and for a thumbnail that is no JPEG.
    """
    block = _find_exif(data)
    if block is None:
        return None
    _, end = read_directory(block, find_first_directory(block))
    order = "little" if block[:2] == b"II" else "big"
    second = int.from_bytes(block[end : end + 4], order)
    if not second:
        return None
    entries, _ = read_directory(block, second)
    values = {e.tag: read_number(block, e) for e in entries if e.tag in (_OFFSET, _LENGTH)}
    if len(values) < 2:
        if any(e.tag == _STRIPS for e in entries):
            raise ValueError("it is stored without compression, as strips")
        return None
    found = block[values[_OFFSET] : values[_OFFSET] + values[_LENGTH]]
    return found or None


def _find_exif(data: bytes) -> bytes | None:
    if data[:2] == b"\xff\xd8":
        for marker, content in read_jpeg_segments(data):
            if marker == 0xE1 and content.startswith(_PREFIX):
                return content.removeprefix(_PREFIX)
        return None
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return next((content for name, content in read_png_chunks(data) if name == b"eXIf"), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        found = (content for name, content in read_riff_chunks(data) if name == b"EXIF")
        return next((content.removeprefix(_PREFIX) for content in found), None)
    return None


def compare_thumbnail(thumbnail: np.ndarray, pixels: np.ndarray) -> tuple[Thumbnail, np.ndarray]:
    """Whether a thumbnail shows the photo, and the photo at its size; both uint8 (h, w, 3).

    Thumbnails of 160 x 120 often have black bars where the photo has another aspect ratio: dark
    bars are not compared.
    """
    height, width = thumbnail.shape[:2]
    scale = min(width / pixels.shape[1], height / pixels.shape[0])
    wide = max(1, round(scale * pixels.shape[1]))
    tall = max(1, round(scale * pixels.shape[0]))
    left, top = (width - wide) // 2, (height - tall) // 2
    expected = np.zeros_like(thumbnail)
    small = Image.fromarray(pixels).resize((wide, tall), Image.Resampling.BOX, reducing_gap=2)
    expected[top : top + tall, left : left + wide] = np.asarray(small)
    inner = np.zeros((height, width), bool)
    inner[top : top + tall, left : left + wide] = True
    bars = ~inner
    has_bars = max(width - wide, height - tall) > 1
    if has_bars and thumbnail[bars].mean() > 32:
        words = (
            "its aspect ratio is not the photo's: one of the two was cropped, stretched or turned "
            "since, or the thumbnail was made so"
        )
        return Thumbnail(width, height, True, None, words), expected
    one = thumbnail[top : top + tall, left : left + wide].mean(axis=2)
    other = np.asarray(small).mean(axis=2)
    if min(one.shape) < 2 * _CELL:
        words = "it is too small to be compared"
        return Thumbnail(width, height, None, None, words), expected
    largest = round(_measure_difference(one, other), 2)
    differs = largest > MAX_DIFFERENCE
    said = "above" if differs else "within"
    words = (
        f"its cells of {_CELL} x {_CELL} pixels differ from the photo by up to {largest:.1f} "
        f"levels, {said} the {MAX_DIFFERENCE:.0f} that processing in a camera is taken to explain"
    )
    return Thumbnail(width, height, differs, largest, words), expected


def _measure_difference(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference of the means of cells, after a linear fit of contrast and brightness."""
    down, across = one.shape[0] // _CELL, one.shape[1] // _CELL

    def cells(plane: np.ndarray) -> np.ndarray:
        whole = plane[: down * _CELL, : across * _CELL]
        return whole.reshape(down, _CELL, across, _CELL).mean(axis=(1, 3)).ravel()

    a, b = cells(one), cells(other)
    spread = float(np.var(b))
    # Beyond these bounds of the contrast it is another picture.
    gain = float(np.clip(np.cov(a, b, bias=True)[0, 1] / spread, 0.7, 1.4)) if spread > 1 else 1.0
    shift = float(np.median(a - gain * b))
    return float(np.abs(a - gain * b - np.clip(shift, -32, 32)).max())


def _describe_marks(data: bytes, photo: Photo, anchors: str | None, beside: Path | None) -> Marks:
    found = checking.check_bytes(data, photo.path, anchors, beside=beside)
    xmp, receipt, c2pa = (
        make_printable(words) for words in checking.describe_marks(found).values()
    )
    receipt = NO_FOLDER if beside is None else receipt
    state = found["c2pa"]["state"] if found["c2pa"] else None
    return Marks(xmp, receipt, c2pa, state, [make_printable(line) for line in found["failed"]])
