"""PNG and TIFF of 16 bit, made by hand: what Pillow does not write."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from helpers.handmade import png_chunk

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def png(samples: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """Of uint8 or uint16 (h, w, c), with further chunks behind the head; lines are not filtered."""
    height, width, count = samples.shape
    bits = samples.dtype.itemsize * 8
    head = struct.pack(">IIBBBBB", width, height, bits, COLOUR_TYPES[count], 0, 0, 0)
    lines = samples.astype(f">u{bits // 8}")
    pixels = zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines))
    parts = [(b"IHDR", head), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)


def read_png(path: Path) -> np.ndarray:
    """A second reader of uint8 or uint16 (h, w, c), by the letter of the PNG specification."""
    data, at, chunks = path.read_bytes(), 8, {}
    while at < len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        chunks[name] = chunks.get(name, b"") + data[at + 8 : at + 8 + size]
        at += 12 + size
    width, height, bits, kind = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    count = {kind: count for count, kind in COLOUR_TYPES.items()}[kind]
    step = count * bits // 8
    raw, above, out = zlib.decompress(chunks[b"IDAT"]), bytes(width * step), []
    for start in range(0, len(raw), 1 + width * step):
        line = bytearray(raw[start + 1 : start + 1 + width * step])
        for i in range(len(line)):
            left, corner = (line[i - step], above[i - step]) if i >= step else (0, 0)
            near = min((left, above[i], corner), key=lambda x: abs(left + above[i] - corner - x))
            add = (0, left, above[i], (left + above[i]) // 2, near)[raw[start]]
            line[i] = (line[i] + add) % 256
        above = bytes(line)
        out.append(above)
    return np.frombuffer(b"".join(out), f">u{bits // 8}").reshape(height, width, count)


def save_tiff(path: Path, samples: np.ndarray, **how: Any) -> Path:
    """By another writer than ours: uint8 or uint16 (h, w, c), not compressed."""
    count = samples.shape[2]
    kind = "rgb" if count >= 3 else "minisblack"
    extra = ["unassalpha"] if count in (2, 4) else None
    values = samples[..., 0] if count == 1 else samples
    tifffile.imwrite(path, values, photometric=kind, extrasamples=extra, planarconfig=None, **how)
    return path
