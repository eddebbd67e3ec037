"""Write an edited picture: encode, mark, sign if there is a key, verify, and make a receipt.

- There is one way to write an edited picture, and no option to leave the mark out. The mark is XMP
  inside the file (`overpaint.provenance.xmp`); the receipt is a file beside it.
- Everything is made and verified in memory first: the encoded file is decoded again and must be
  upright, have its mark, and in a lossless format equal the samples bit for bit, alpha and 16 bit
  included (`overpaint.provenance.encoding`). Then the picture is written, and the receipt last;
  when that fails, the error says that the picture was written.
- The pixels are stored in the orientation of the source, and the EXIF keeps its orientation field.
- Pictures of the photo before the edit are removed: EXIF thumbnail, previews, XMP thumbnails; also
  the names of people whose region in XMP the hole covers.
- A C2PA manifest of the source may contain a picture of it, too. As a signed record it is kept
  whole, and the receipt says so: as parent in a signed picture, otherwise beside the picture as
  OUT.source.c2pa.
"""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from overpaint import __version__, hashes
from overpaint.errors import ImageError, InputError, OverpaintError
from overpaint.images import (
    Photo,
    decode_image,
    find_pixel_limit,
    read_bytes,
    remove_file,
    write_bytes,
)
from overpaint.images.decoding import turn_upright
from overpaint.images.samples import Samples, decode_samples
from overpaint.provenance.c2pa import MIME, Signer, sign
from overpaint.provenance.encoding import Format, encode, find_format
from overpaint.provenance.metadata import Metadata, read_metadata, read_xmp
from overpaint.provenance.people import Rectangle
from overpaint.provenance.xmp import add_mark, choose_source_type, read_mark

TOOL = f"overpaint {__version__}"
RECEIPT = ".receipt.json"
"""Suffix of the receipt, behind the picture's whole name."""
MANIFESTS = ".source.c2pa"
"""Suffix of a source's C2PA manifest store that the picture itself could not keep."""

_MAX_XMP, _MAX_EXIF = 65533 - 29, 65533  # one JPEG segment, without the name of XMP


@dataclass(frozen=True, slots=True)
class Source:
    """The photo that was edited: its file, the file's bytes, and what they decode to."""

    path: Path
    data: bytes = field(repr=False)
    photo: Photo
    samples: Samples


@dataclass(frozen=True, slots=True)
class Edited:
    """An edited picture, marked and checked, that is in memory."""

    data: bytes = field(repr=False)
    """Its file."""
    receipt: dict[str, Any]
    manifests: bytes | None = field(repr=False)
    """The source's C2PA manifest store, which belongs beside it; None where there is none."""
    source: Path
    """Of the photo, or its name where that came as bytes."""

    @property
    def receipt_file(self) -> bytes:
        return _to_json(self.receipt)


def read_source(path: str | Path) -> Source:
    """Read a photo once, for its pixels and for its marks. Raises `ImageError`."""
    return make_source(read_bytes(Path(path), find_pixel_limit(None)), path)


def make_source(data: bytes, name: str | Path) -> Source:
    """As `read_source`, for a file in memory that is called `name`."""
    photo = decode_image(data, name)
    return Source(Path(name), data, photo, decode_samples(data, photo))


def mark_edited(
    out: str | Path,
    samples: Samples,
    source: Source,
    *,
    hole: np.ndarray,
    mask_sha256: str,
    model: str,
    weights_sha256: str | None,
    trained: bool,
    parameters: Mapping[str, Any],
    notes: Sequence[str] = (),
    signer: Signer | None = None,
) -> Edited:
    """Encode, mark, (sign) and verify the file that will be called `out`, and make its receipt.

    out: its suffix is one of `encoding.FORMATS`. samples: upright, of the source's size, from
    `encoding.fit_samples` for `out`. hole: uint8 (h, w), 1 where it was filled. trained: whether
    the model is a trained network and not a method without weights. parameters: values that JSON
    can hold. notes: for the receipt, such as those of `encoding.fit_samples`.
    Raises `InputError`, `ImageError` (the source) and `OverpaintError` (the picture cannot be
    signed, or differs when it is read back).
    """
    out, form = Path(out), find_format(out)
    size = source.photo.pixels.shape[:2]
    if samples.values.shape[:2] != size or hole.shape != size:
        found = f"samples {samples.values.shape} and a hole {hole.shape}"
        raise InputError(f"{out}: {found}; give both of {size}, as their source has")
    time, edit = datetime.now(UTC).isoformat(timespec="seconds"), f"filled in by {model}"
    kept, found = _select_metadata(source, form, signer)
    manifests = source.data if kept.has_manifests else None
    kind_of_edit = choose_source_type(trained=trained)
    kind = choose_source_type(trained=trained, packet=kept.xmp, manifests=manifests)
    if kind != kind_of_edit:
        found.append(f"digital source type {kind}: as the input says, which holds for the rest")
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
        "digital_source_type": kind,
        "signed": signer is not None,
        "source_c2pa": None,
    }
    _to_json(receipt)  # parameters that JSON cannot hold must show before the work
    covered = _make_cover_measure(hole, kept.orientation)
    packet, replaced = _make_packet(kept.xmp, form, kind, time, edit, covered)
    encoded, changed = encode(samples, form, kept, packet)
    if signer is not None:
        about = {"title": out.name, "photo": source.photo, "source": source.data, "edit": edit}
        about["source_type"] = kind_of_edit
        encoded = sign(signer, encoded, MIME[form.name], **about)
    _verify(encoded, samples, form, kind, out)
    receipt |= {"sha256": hashes.sha256(encoded), "notes": [*found, *notes, *replaced, *changed]}
    beside = kept.manifests if signer is None else None
    if beside is not None:
        receipt["source_c2pa"] = {"file": out.name + MANIFESTS, "sha256": hashes.sha256(beside)}
    return Edited(encoded, receipt, beside, source.path)


def make_preview(samples: Samples, model: str, source_type: str) -> bytes:
    """The result for a screen: an upright PNG of 8 bit with its mark and without the source's
    metadata. model: what filled it in. source_type: of the result."""
    form, name = find_format("preview.png"), Path("the preview")
    values = (samples.values >> (samples.bits - 8)).astype(np.uint8)
    samples = Samples(values)
    time = datetime.now(UTC).isoformat(timespec="seconds")
    edit = f"filled in by {model}"
    packet, _ = add_mark(None, source_type=source_type, tool=TOOL, when=time, details=edit)
    encoded, _ = encode(samples, form, Metadata(orientation=1), packet)
    _verify(encoded, samples, form, source_type, name)
    return encoded


def _select_metadata(
    source: Source, form: Format, signer: Signer | None
) -> tuple[Metadata, list[str]]:
    """The source's metadata that the picture keeps, and notes on what is kept and left out."""
    kept = read_metadata(source.data, source.path)
    notes = [f"input: {note}" for note in source.samples.notes] + list(kept.notes)
    if not form.lossless:
        notes.append(f"{form.name}: the pixels outside the mask were compressed again")
    if form.name == "JPEG" and kept.exif is not None and len(kept.exif) > _MAX_EXIF:
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


def _make_packet(
    xmp: bytes | None,
    form: Format,
    kind: str,
    time: str,
    edit: str,
    covered: Callable[[Rectangle], float],
) -> tuple[bytes, list[str]]:
    mark = partial(add_mark, source_type=kind, tool=TOOL, when=time, details=edit)
    packet, notes = mark(xmp, covered=covered)
    if form.name == "JPEG" and len(packet) > _MAX_XMP:
        packet, _ = mark(None)
        notes = ["XMP replaced by the mark alone, as it is too long for a JPEG; write .png"]
    return packet, notes


def _make_cover_measure(hole: np.ndarray, orientation: int) -> Callable[[Rectangle], float]:
    """A function that gives the share of a rectangle that is hole, 0..1: in the upright or the
    stored picture, whichever is larger."""
    frames = [hole, turn_upright(hole, {6: 8, 8: 6}.get(orientation, orientation))]

    def share(where: Rectangle) -> float:
        shares = []
        for frame in frames:
            height, width = frame.shape
            top, bottom = _round_outwards(where.top, where.bottom, height)
            left, right = _round_outwards(where.left, where.right, width)
            shares.append(float(frame[top:bottom, left:right].mean()))
        return max(shares)

    return share


def _round_outwards(start: float, stop: float, length: int) -> tuple[int, int]:
    """First and last pixel (exclusive) that an interval in shares of a side touches."""
    first = min(max(0, math.floor(start * length)), length - 1)
    return first, min(max(first + 1, math.ceil(stop * length)), length)


def _verify(encoded: bytes, samples: Samples, form: Format, kind: str, out: Path) -> None:
    """Raise `OverpaintError` unless the decoded file has these samples and the mark."""
    again = decode_samples(encoded, decode_image(encoded, out)).values
    if form.lossless:
        same = again.dtype == samples.values.dtype and np.array_equal(again, samples.values)
    else:
        same = again.shape == samples.values.shape
    if not same:
        raise OverpaintError(f"{out}: not written, as its pixels do not read back; report this")
    mark = read_mark(read_xmp(encoded, out)[1])
    if mark.source_type != kind or mark.tool != TOOL:
        raise OverpaintError(f"{out}: not written, as its mark does not read back; report this")


def _to_json(receipt: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(receipt, indent=1, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        reason = f"{error}; give text, finite numbers, lists and mappings"
        raise InputError(f"parameters that a receipt cannot hold: {reason}") from error


def write_edited(out: Path, edited: Edited, *, keep: Collection[Path] = ()) -> None:
    """Write the picture first, as it contains its mark; then the files beside it, the receipt last.

    out: with the file name that it was marked for; a manifest store that an earlier result of this
    name left beside it is removed. keep: files that are never overwritten, besides the source.
    Raises `ImageError` where a file cannot be written or removed. Where that is the picture,
    nothing is written.
    """
    if out.name != edited.receipt["file"]:
        raise InputError(f"{out}: its receipt is of {edited.receipt['file']}; give that name")
    keep = {edited.source, *keep}
    text = edited.receipt_file
    write_bytes(out, edited.data, keep=keep)
    manifests = out.with_name(out.name + MANIFESTS)
    try:
        if edited.manifests is not None:
            write_bytes(manifests, edited.manifests, keep=keep)
        else:
            remove_file(manifests, keep=keep)
        write_bytes(out.with_name(out.name + RECEIPT), text, keep=keep)
    except ImageError as error:
        there = f"{out} itself is written and marked, but has no valid receipt"
        raise ImageError(f"{error}; {there}") from error
