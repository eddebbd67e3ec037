"""Picture files made by hand, for what no library writes."""

import struct
import zlib

from PIL import Image


def save(path, array, *, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def png_chunk(name, content):
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def png_bomb(side):
    """A black PNG of side x side pixels of one bit: bytes, few of them, and quickly made."""
    rows = bytes(side * (1 + (side + 7) // 8))
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows, 1))
    return b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b"")


def png16(values, colour_type):
    """A 16 bit PNG made by hand, for Pillow writes no colour one. values: uint16 (h, w, c)."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b"")


def keyed_grey_png(levels, bits, key):
    """A grey PNG in which one level is transparent. levels: whole numbers (h, w) below 2**bits,
    w a multiple of 8."""
    if bits == 16:
        packed = [row.astype(">u2").tobytes() for row in levels]
    else:
        flat = ("".join(f"{v:0{bits}b}" for v in row) for row in levels)
        packed = [int(row, 2).to_bytes(len(row) // 8, "big") for row in flat]
    height, width = levels.shape
    body = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    body += png_chunk(b"tRNS", struct.pack(">H", key))
    body += png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in packed)))
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")
