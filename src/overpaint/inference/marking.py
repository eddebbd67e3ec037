"""Write an edited picture: encoded, marked, signed if there is a key, checked, with a receipt.

- There is one way to write an edited picture, and it has no switch to leave the mark out. The mark
  is XMP inside the file (`overpaint.inference.xmp`); the receipt lies beside it.
- All is made and checked in memory first: what was encoded is decoded again and must be upright,
  carry its mark, and as PNG equal the pixels bit for bit. Then the picture is written, with its
  mark inside, and the receipt last; when that fails, the error says that the picture is there.
- The picture is stored as its source was, turned by EXIF, and the EXIF keeps its orientation.
- Pictures of the photo before the edit go: EXIF thumbnail, previews, XMP thumbnails. A C2PA
  manifest of the source may hold one too. It is a signed record and kept whole, and the receipt
  says so: as parent in a signed picture, otherwise beside the picture as OUT.source.c2pa.
"""

import hashlib
import io
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from overpaint import __version__
from overpaint.decoding import upright
from overpaint.errors import ImageError, InputError, OverpaintError
from overpaint.images import (
    Photo,
    check_jpeg_size,
    decode_image,
    pixel_limit,
    read_bytes,
    write_bytes,
)
from overpaint.inference.credentials import MIME, Signer, sign
from overpaint.inference.metadata import Metadata, orientation_of, read_metadata, read_xmp
from overpaint.inference.xmp import COMPOSITE, add_mark, read_mark

TOOL = f"overpaint {__version__}"
RECEIPT = ".receipt.json"
"""Suffix of the receipt, behind the picture's whole name."""
MANIFESTS = ".source.c2pa"
"""Suffix of a source's C2PA manifest store that the picture itself could not keep."""

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_MAX_XMP, _MAX_EXIF = 65533 - 29, 65533  # one JPEG segment, without the name of XMP


@dataclass(frozen=True, slots=True)
class Source:
    """The photo that was edited: its file, the file's bytes, and what they decode to."""

    path: Path
    data: bytes
    photo: Photo


def read_source(path: str | Path) -> Source:
    """Read a photo once, for its pixels and for its marks. Raises `ImageError`."""
    data = read_bytes(Path(path), pixel_limit(None))
    return Source(Path(path), data, decode_image(data, path))


def write_edited(
    out: Path,
    pixels: np.ndarray,
    source: Source,
    *,
    mask_sha256: str,
    model: str,
    weights_sha256: str | None,
    parameters: Mapping[str, Any],
    signer: Signer | None = None,
    keep: Collection[Path] = (),
) -> dict[str, Any]:
    """Encode, mark, (sign,) verify and write `out` and its receipt; returns the receipt.

    out: .png, or .jpg / .jpeg (with the source's JPEG settings, otherwise quality 95, 4:4:4).
    pixels: uint8 (h, w, 3), upright, of the source's size. parameters: what JSON can hold.
    keep: files that are never written over, besides the source.
    Raises `InputError`, `ImageError` (cannot be written) and `OverpaintError` (cannot be signed,
    or does not read back as it should); nothing is written then, but for a failing receipt.
    """
    out, kind = Path(out), _FORMATS.get(Path(out).suffix.lower())
    if kind is None:
        raise InputError(f"{out}: edited pictures are written as .png or .jpg; name it so")
    if pixels.dtype != np.uint8 or pixels.shape != source.photo.pixels.shape:
        wanted = f"uint8 {source.photo.pixels.shape}, as its source has"
        raise InputError(f"{out}: pixels {pixels.dtype} {pixels.shape}; give {wanted}")
    if kind == "JPEG":
        check_jpeg_size(out, *pixels.shape[:2])
    time, edit = datetime.now(UTC).isoformat(timespec="seconds"), f"filled in by {model}"
    receipt = {
        "file": out.name,
        "sha256": "",
        "input": {"file": source.path.name, "sha256": source.photo.sha256},
        "mask_sha256": mask_sha256,
        "model": model,
        "weights_sha256": weights_sha256,
        "parameters": dict(parameters),
        "tool": "overpaint",
        "version": __version__,
        "time": time,
        "digital_source_type": COMPOSITE,
        "signed": signer is not None,
        "source_c2pa": None,
    }
    _to_json(receipt)  # parameters that JSON cannot hold must show before the work
    kept, notes = _kept(source, kind, signer)
    packet, replaced = _packet(kept.xmp, kind, time, edit)
    encoded, changed = _encode(pixels, kind, kept, packet)
    if signer is not None:
        about = {"title": out.name, "photo": source.photo, "source": source.data, "edit": edit}
        encoded = sign(signer, encoded, MIME[kind], **about)
    _verify(encoded, pixels, kind, out)
    receipt |= {"sha256": _sha256(encoded), "notes": [*notes, *replaced, *changed]}
    beside = kept.manifests if signer is None else None
    if beside is not None:
        receipt["source_c2pa"] = {"file": out.name + MANIFESTS, "sha256": _sha256(beside)}
    _write(out, encoded, beside, receipt, {source.path, *keep})
    return receipt


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _kept(source: Source, kind: str, signer: Signer | None) -> tuple[Metadata, list[str]]:
    """What the picture keeps of its source, and notes on it and on what it does not."""
    kept = read_metadata(source.data, source.path)
    notes = [f"input: {note}" for note in source.photo.notes] + list(kept.notes)
    if kind == "JPEG":
        notes.append("JPEG: the pixels outside the mask were compressed again")
        if kept.exif is not None and len(kept.exif) > _MAX_EXIF:
            notes.append("EXIF left out, as it is too long for a JPEG; write .png to keep it")
            kept = replace(kept, exif=None)
    if b"dcterms:provenance" in (kept.xmp or b""):
        notes.append("the input's XMP names a C2PA manifest elsewhere; it is of the input alone")
    if not kept.has_manifests:
        return kept, notes
    held = "it may hold a small picture of the photo before the edit"
    if signer is not None:
        notes.append(f"the input's C2PA manifest is kept as parent; {held}")
    elif kept.manifests is not None:
        notes.append(f"the input's C2PA manifest is kept in a file beside this one; {held}")
    else:
        lost = f"the input's C2PA manifest cannot be taken out of {source.photo.format} and stays"
        notes.append(f"{lost} in the input alone; sign with a key to keep it as parent")
    return kept, notes


def _packet(xmp: bytes | None, kind: str, time: str, edit: str) -> tuple[bytes, list[str]]:
    packet, notes = add_mark(xmp, tool=TOOL, when=time, details=edit)
    if kind == "JPEG" and len(packet) > _MAX_XMP:
        packet, _ = add_mark(None, tool=TOOL, when=time, details=edit)
        notes = ["XMP replaced by the mark alone, as it is too long for a JPEG; write .png"]
    return packet, notes


def _encode(
    pixels: np.ndarray, kind: str, kept: Metadata, packet: bytes
) -> tuple[bytes, list[str]]:
    """The file's bytes, turned by the orientation that readers will find in it."""
    how: dict[str, Any] = {"format": kind}
    how |= {"exif": kept.exif} if kept.exif else {}
    how |= {"icc_profile": kept.profile} if kept.profile else {}
    how |= {"dpi": kept.dpi} if kept.dpi else {}
    if kind == "PNG":
        how["pnginfo"] = PngImagePlugin.PngInfo()
        for name, content in kept.chunks:
            how["pnginfo"].add(name, content)
        how["pnginfo"].add_itxt("XML:com.adobe.xmp", packet.decode())
    else:
        how |= {"xmp": packet, "quality": 95, "subsampling": 0}
    orientation = orientation_of(_saved(np.zeros((1, 1, 3), np.uint8), how))
    notes = []
    if orientation != kept.orientation:
        notes.append("stored upright, as the EXIF orientation could not be kept")
    stored = np.ascontiguousarray(upright(pixels, {6: 8, 8: 6}.get(orientation, orientation)))
    if kind == "PNG" or kept.tables is None:
        return _saved(stored, how), notes
    try:
        tables = {"quality": -1, "qtables": kept.tables, "subsampling": kept.subsampling}
        return _saved(stored, how | tables), notes
    except (ValueError, OSError) as error:  # tables that libjpeg does not write
        return _saved(stored, how), [*notes, f"JPEG: quality 95, as the source's fails ({error})"]


def _saved(pixels: np.ndarray, how: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **how)
    return buffer.getvalue()


def _verify(encoded: bytes, pixels: np.ndarray, kind: str, out: Path) -> None:
    """Raises `OverpaintError` unless the file reads back as it should."""
    again = decode_image(encoded, out).pixels
    same = np.array_equal(again, pixels) if kind == "PNG" else again.shape == pixels.shape
    if not same:
        raise OverpaintError(f"{out}: not written, as its pixels do not read back; report this")
    mark = read_mark(read_xmp(encoded, out)[1])
    if mark.source_type != COMPOSITE or mark.tool != TOOL:
        raise OverpaintError(f"{out}: not written, as its mark does not read back; report this")


def _to_json(receipt: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(receipt, indent=1, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        reason = f"{error}; give text, finite numbers, lists and mappings"
        raise InputError(f"parameters that a receipt cannot hold: {reason}") from error


def _write(
    out: Path, encoded: bytes, beside: bytes | None, receipt: Mapping[str, Any], keep: set[Path]
) -> None:
    """The picture first, as it holds its mark; then what lies beside it, the receipt last."""
    text = _to_json(receipt)
    write_bytes(out, encoded, keep=keep)
    try:
        if beside is not None:
            write_bytes(out.with_name(out.name + MANIFESTS), beside, keep=keep)
        write_bytes(out.with_name(out.name + RECEIPT), text, keep=keep)
    except ImageError as error:
        there = f"{out} itself is written and marked, but has no valid receipt"
        raise ImageError(f"{error}; {there}") from error
