"""What a photo's file says beside its pixels: coding, EXIF, its thumbnail, marks of its making.

- Sources: ITU-T T.81 (JPEG segments, tables and sampling), CIPA DC-008 (EXIF and its thumbnail).
- The quantisation tables' hash tells encoders apart: many programs and cameras have tables of their
  own, and files of one program and quality have the same.
- A thumbnail is compared by the brightness of cells of 8 x 8 of its pixels, after the best fit of
  contrast and brightness, as cameras process the two apart. The limit is a rule of thumb: nobody
  has measured how often thumbnails of untouched photos exceed it.
- It is looked for in the EXIF of JPEG and PNG files.
- Texts of a file come from strangers: each becomes one visible line (`terminal.printable`).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from overpaint.errors import OverpaintError
from overpaint.images import Photo, decode_image
from overpaint.images.decoding import (
    pillow_limited_to,
    pixel_limit,
    upright,
)
from overpaint.provenance import checking
from overpaint.provenance.containers import (
    directory,
    first_directory,
    jpeg_segments,
    number_in,
    png_chunks,
)
from overpaint.provenance.metadata import orientation_of, read_metadata
from overpaint.report.contents import ExifField, File, Grid, Jpeg, Marks, Thumbnail
from overpaint.terminal import printable

MAX_VALUE = 200
"""Characters of an EXIF field that are kept."""
MAX_FIELDS = 200
"""EXIF fields that are kept."""
MAX_DIFFERENCE = 24.0
"""Levels of 255 that a cell of the thumbnail may differ by."""
_CELL = 8
_EXIF, _GPS = 0x8769, 0x8825
_OFFSET, _LENGTH = 513, 514
_PREFIX = b"Exif\0\0"
_PROCESSES = {0xC0: "baseline", 0xC1: "extended sequential", 0xC2: "progressive", 0xC3: "lossless"}
_NOT_FRAMES = {0xC4, 0xC8, 0xCC}  # tables and an extension among the numbers of frames
_SUBSAMPLING = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """Of a file, and the thumbnail beside what it should show: uint8 (h, w, 3), None without."""

    file: File
    thumbnail: np.ndarray | None
    expected: np.ndarray | None


NO_FOLDER = "not looked for, as the photo was sent without its folder"
"""Of a receipt."""


def file_facts(
    data: bytes,
    photo: Photo,
    grid: Grid | None,
    anchors: str | None = None,
    *,
    beside: Path | None = None,
) -> Facts:
    """data: the file's bytes, which `photo` was decoded from. anchors: certificates in PEM whose
    C2PA signers count as trusted. beside: the file's path, beside which a receipt may lie; None for
    a photo that came without its folder."""
    notes = list(photo.notes)
    exif, left_out = _exif_fields(data, photo.path)
    notes += left_out
    thumbnail, shown, expected = _thumbnail(data, photo, notes)
    return Facts(
        File(
            name=str(photo.path),
            bytes=len(data),
            sha256=photo.sha256,
            format=photo.format,
            width=photo.width,
            height=photo.height,
            lossy=photo.lossy,
            notes=[printable(note) for note in notes],
            jpeg=jpeg_facts(data, photo.jpeg_quality),
            exif=exif,
            thumbnail=thumbnail,
            marks=_marks(data, photo, anchors, beside),
            grid=grid,
        ),
        shown,
        expected,
    )


def jpeg_facts(data: bytes, quality: int | None) -> Jpeg | None:
    """How a JPEG is coded; None for another format."""
    if data[:2] != b"\xff\xd8":
        return None
    tables: dict[int, bytes] = {}
    parts: list[tuple[int, int, int]] = []  # of each component: across, down, table
    process, segments = "unknown", []
    for marker, content in jpeg_segments(data):
        segments.append(_segment(marker, content))
        if marker == 0xDB:
            tables |= dict(_tables(content))
        elif 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES and len(content) > 5:
            process = _PROCESSES.get(marker, f"SOF{marker - 0xC0}")
            fields = [content[at : at + 3] for at in range(6, 6 + 3 * content[5], 3)]
            parts = [(f[1] >> 4, f[1] & 15, f[2]) for f in fields if len(f) == 3]
    used = [tables.get(part[2]) for part in parts]
    known = b"".join(table for table in used if table)
    return Jpeg(
        estimated_quality=quality,
        tables_sha256=hashlib.sha256(known).hexdigest() if used and all(used) else None,
        process=process,
        subsampling=_subsampling(parts),
        segments=segments,
    )


def _tables(content: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(content):
        size = 128 if content[at] >> 4 else 64
        yield content[at] & 15, content[at + 1 : at + 1 + size]
        at += 1 + size


def _subsampling(parts: list[tuple[int, int, int]]) -> str:
    factors = [(across, down) for across, down, _ in parts]
    if len(factors) == 1:
        return "none, there is one component"
    if len(factors) == 3 and factors[1:] == [(1, 1), (1, 1)] and factors[0] in _SUBSAMPLING:
        return _SUBSAMPLING[factors[0]]
    return ", ".join(f"{across}x{down}" for across, down in factors) or "unknown"


def _segment(marker: int, content: bytes) -> str:
    names = {0xDB: "DQT", 0xC4: "DHT", 0xDD: "DRI", 0xFE: "COM"}
    if 0xE0 <= marker <= 0xEF:
        name = content[:32].split(b"\0")[0].split(b" ")[0][:24].decode("latin-1")
        return printable(f"APP{marker - 0xE0} {name}".strip())
    if 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES:
        return f"SOF{marker - 0xC0}"
    return names.get(marker, f"{marker:02X}")


def _exif_fields(data: bytes, name: Path) -> tuple[list[ExifField], list[str]]:
    """The fields of the main directories, and what could not be read or was left out, in words."""
    try:
        block = read_metadata(data, name).exif
        with pillow_limited_to(pixel_limit(None)):  # which keeps Pillow's warnings to itself
            found = [] if block is None else list(_fields(block))
    except Exception as error:  # a parser fed hostile bytes raises whatever it likes
        return [], [f"EXIF could not be read ({error})"]
    more = len(found) - MAX_FIELDS
    return found[:MAX_FIELDS], [f"{more} more EXIF fields left out"] * (more > 0)


def _fields(block: bytes) -> Iterator[ExifField]:
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
                yield ExifField(group, names.get(tag, f"tag {tag}"), _text(value))


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        text = value.rstrip(b"\0")
        plain = len(text) <= MAX_VALUE and all(32 <= byte < 127 for byte in text)
        value = text.decode("ascii") if plain else f"{len(value):,} bytes"
    elif isinstance(value, tuple):
        value = ", ".join(str(part) for part in value[:MAX_VALUE])
    text = printable(_as_utf8(str(value)).rstrip("\0").strip())
    if len(text) > MAX_VALUE:
        return f"{text[:MAX_VALUE]}... ({len(text):,} characters)"
    return text


def _as_utf8(text: str) -> str:
    """Pillow reads texts as Latin-1; most programs write UTF-8."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _thumbnail(
    data: bytes, photo: Photo, notes: list[str]
) -> tuple[Thumbnail | None, np.ndarray | None, np.ndarray | None]:
    """The record, the thumbnail, and what it should show."""
    try:
        found = thumbnail_bytes(data)
        if found is None:
            return None, None, None
        shown = decode_image(found, "the EXIF thumbnail", max_pixels=2**22).pixels
        # Stored as the photo is stored: turned with it.
        shown = np.ascontiguousarray(upright(shown, orientation_of(data)))
    except (OverpaintError, ValueError) as error:
        notes.append(f"the EXIF thumbnail could not be read ({error})")
        return None, None, None
    record, expected = compare(shown, photo.pixels)
    return record, shown, expected


def thumbnail_bytes(data: bytes) -> bytes | None:
    """The JPEG in the second directory of the EXIF of a JPEG or PNG; None where there is none.

    Raises `ValueError` for EXIF that cannot be read.
    """
    block = _exif_block(data)
    if block is None:
        return None
    _, end = directory(block, first_directory(block))
    order = "little" if block[:2] == b"II" else "big"
    second = int.from_bytes(block[end : end + 4], order)
    if not second:
        return None
    entries, _ = directory(block, second)
    values = {e.tag: number_in(block, e) for e in entries if e.tag in (_OFFSET, _LENGTH)}
    if len(values) < 2:
        return None
    found = block[values[_OFFSET] : values[_OFFSET] + values[_LENGTH]]
    return found or None


def _exif_block(data: bytes) -> bytes | None:
    if data[:2] == b"\xff\xd8":
        for marker, content in jpeg_segments(data):
            if marker == 0xE1 and content.startswith(_PREFIX):
                return content.removeprefix(_PREFIX)
        return None
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return next((content for name, content in png_chunks(data) if name == b"eXIf"), None)
    return None


def compare(thumbnail: np.ndarray, pixels: np.ndarray) -> tuple[Thumbnail, np.ndarray]:
    """Whether a thumbnail shows the photo, and the photo as it should; both uint8 (h, w, 3).

    Thumbnails of 160 x 120 often have black bars where the photo has another shape: those are left
    out where they are dark.
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
        words = "it has another shape than the photo, so the photo was cropped or scaled since"
        return Thumbnail(width, height, True, None, words), expected
    one = thumbnail[top : top + tall, left : left + wide].mean(axis=2)
    other = np.asarray(small).mean(axis=2)
    if min(one.shape) < 2 * _CELL:
        words = "it is too small to be compared"
        return Thumbnail(width, height, None, None, words), expected
    largest = round(_largest_difference(one, other), 2)
    differs = largest > MAX_DIFFERENCE
    said = "above" if differs else "within"
    words = (
        f"its cells of {_CELL} x {_CELL} pixels differ from the photo by up to {largest:.1f} "
        f"levels, {said} the {MAX_DIFFERENCE:.0f} that processing in a camera is taken to explain"
    )
    return Thumbnail(width, height, differs, largest, words), expected


def _largest_difference(one: np.ndarray, other: np.ndarray) -> float:
    """Of the means of cells, after the best fit of contrast and brightness."""
    down, across = one.shape[0] // _CELL, one.shape[1] // _CELL

    def cells(plane: np.ndarray) -> np.ndarray:
        whole = plane[: down * _CELL, : across * _CELL]
        return whole.reshape(down, _CELL, across, _CELL).mean(axis=(1, 3)).ravel()

    a, b = cells(one), cells(other)
    spread = float(np.var(b))
    # A contrast outside these bounds is another picture.
    gain = float(np.clip(np.cov(a, b, bias=True)[0, 1] / spread, 0.7, 1.4)) if spread > 1 else 1.0
    shift = float(np.median(a - gain * b))
    return float(np.abs(a - gain * b - np.clip(shift, -32, 32)).max())


def _marks(data: bytes, photo: Photo, anchors: str | None, beside: Path | None) -> Marks:
    found = checking.examine_bytes(data, photo.path, anchors, beside=beside)
    said = [line.partition(": ")[2] for line in checking.in_words(found)]
    xmp, receipt, c2pa = (printable(line) for line in said)
    receipt = NO_FOLDER if beside is None else receipt
    state = found["c2pa"]["state"] if found["c2pa"] else None
    return Marks(xmp, receipt, c2pa, state, [printable(line) for line in found["failed"]])
