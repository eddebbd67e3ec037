"""The parts of a JPEG, PNG, WebP or TIFF file besides its pixels, such as its C2PA manifest.

- Sources: ITU-T T.81 (JPEG markers), the PNG and RIFF specifications, TIFF 6.0, and the C2PA
  specification, section "Embedding manifests into assets" (APP11, caBX, C2PA, tag 52545).
- Nothing is decoded, so a manifest is found without the `c2pa` package.
- A truncated file gives the parts before the end, and no part of a manifest.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

_PNG = b"\x89PNG\r\n\x1a\n"
_C2PA_TAG = 52545
_STORE = bytes.fromhex("6332706100110010800000aa00389b71")  # type of the box that holds manifests
_BMFF_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")  # its box in HEIF and AVIF
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}


class Entry(NamedTuple):
    """One field of a TIFF directory. Its value is `block[start:stop]`."""

    tag: int
    start: int
    stop: int


def extract_manifests(data: bytes) -> bytes | None:
    """The C2PA manifest store as it is embedded (JUMBF), or None."""
    if data[:2] == b"\xff\xd8":
        return _extract_from_jpeg(data)
    if data[:8] == _PNG:
        return next((content for name, content in read_png_chunks(data) if name == b"caBX"), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return next((content for name, content in read_riff_chunks(data) if name == b"C2PA"), None)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _extract_from_tiff(data)
    return None


def has_manifest(data: bytes) -> bool:
    """Whether the file has a C2PA manifest, also where `extract_manifests` cannot extract it: from
    HEIF, AVIF, GIF and BigTIFF, and where its place is damaged."""
    return _STORE in data or (data[4:8] == b"ftyp" and _BMFF_BOX in data)


def read_jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, content) of the segments before the pixels; 0xE1 is APP1."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xDA:
            return
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        if size < 2 or at + 2 + size > len(data):
            return
        yield marker, data[at + 4 : at + 2 + size]
        at += 2 + size


def count_trailing_bytes(data: bytes) -> int:
    """Number of bytes after the first picture of a JPEG or PNG, without NULs at the end: a video, a
    gain map, further pictures, the rest of a larger file that was written over. 0 where the picture
    has no end marker.
    """
    if data[:8] == _PNG:
        at = 8
        for name, content in read_png_chunks(data):
            at += 12 + len(content)
            if name == b"IEND":
                return len(data[at:].rstrip(b"\0"))
        return 0
    at = 2
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 1:
        marker = data[at + 1]
        if marker == 0xD9:
            return len(data[at + 2 :].rstrip(b"\0"))
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in (0, 1) or 0xD0 <= marker <= 0xD8:  # within the pixels, or without content
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0


def read_bmff_coding(data: bytes) -> tuple[int, int, int, int] | None:
    """How the colours of a HEIF or AVIF file are coded (ITU-T H.273); None where it does not say.

    Primaries, transfer, matrix and full range of the first box "colr" of type "nclx".
    """
    at = data.find(b"colrnclx") if data[4:8] == b"ftyp" else -1
    if at < 0 or at + 15 > len(data):
        return None
    primaries, transfer, matrix, flags = struct.unpack_from(">HHHB", data, at + 8)
    return primaries, transfer, matrix, flags >> 7


def read_png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, content) of each chunk."""
    at = 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + size > len(data):
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        at += 12 + size


def find_first_directory(block: bytes) -> int:
    """Offset of a TIFF block's first directory; raises `ValueError` when this is no TIFF block."""
    if block[:4] not in (b"II*\0", b"MM\0*") or len(block) < 8:
        raise ValueError("no TIFF header")
    return struct.unpack_from(_find_byte_order(block) + "I", block, 4)[0]


def read_directory(block: bytes, offset: int) -> tuple[list[Entry], int]:
    """The fields of the directory at `offset`, and the offset after its last field.

    Fields whose value is outside the block are left out. Raises `ValueError` for a directory that
    is outside the block.
    """
    order = _find_byte_order(block)
    if offset < 8 or offset + 2 > len(block):
        raise ValueError("a directory lies outside the block")
    (number,) = struct.unpack_from(order + "H", block, offset)
    end = offset + 2 + 12 * number
    if end > len(block):
        raise ValueError("a directory is cut short")
    entries = []
    for at in range(offset + 2, end, 12):
        tag, kind, count, value = struct.unpack_from(order + "HHII", block, at)
        size = _TYPE_SIZES.get(kind, 1) * count
        start = at + 8 if size <= 4 else value
        if start + size <= len(block):
            entries.append(Entry(tag, start, start + size))
    return entries, end


def read_number(block: bytes, entry: Entry) -> int:
    """The value of a field that holds one whole number."""
    order = "little" if block[:2] == b"II" else "big"
    return int.from_bytes(block[entry.start : entry.stop], order)


def _find_byte_order(block: bytes) -> str:
    return "<" if block[:2] == b"II" else ">"


def read_riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, content) of each chunk of a WebP."""
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + size > len(data):
            return
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _extract_from_tiff(data: bytes) -> bytes | None:
    try:
        entries, _ = read_directory(data, find_first_directory(data))
    except ValueError:
        return None
    return next((data[e.start : e.stop] for e in entries if e.tag == _C2PA_TAG), None)


def _extract_from_jpeg(data: bytes) -> bytes | None:
    """The box that is split over APP11 segments.

    A segment holds "JP", a box number (2 bytes), a packet number (4), and then a part of the box;
    each part but the first repeats the box's length and type (8 bytes, or 16 for a long box).
    """
    boxes: dict[bytes, bytes] = {}
    for marker, content in read_jpeg_segments(data):
        if marker != 0xEB or content[:2] != b"JP":
            continue
        number, part = content[2:4], content[8:]
        if number in boxes:
            part = part[16 if part[:4] == b"\0\0\0\1" else 8 :]
        boxes[number] = boxes.get(number, b"") + part
    whole = (box for box in boxes.values() if _read_box_size(box) == len(box))
    return next((box for box in whole if _STORE in box[:64]), None)


def _read_box_size(box: bytes) -> int:
    """The size in a box's head: its first 4 bytes, or where they are 1 the 8 after its type."""
    size = int.from_bytes(box[:4], "big")
    return int.from_bytes(box[8:16], "big") if size == 1 else size
