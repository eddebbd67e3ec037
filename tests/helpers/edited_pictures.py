"""Pictures with marks in them, and the shortest way to edit one."""

import io
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from overpaint.provenance.encoding import fit_samples
from overpaint.provenance.marking import mark_edited, read_source, write_edited


def edited(
    source: Path, out: Path, *, keep: Collection[Path] = (), **changes: Any
) -> tuple[np.ndarray, dict[str, Any]]:
    """Write `source` with a grey square; returns the RGB pixels asked for and the receipt."""
    photo = read_source(source)
    samples, notes = fit_samples(photo.samples, out)
    hole = np.zeros(samples.values.shape[:2], np.uint8)
    hole[2:8, 3:12] = 1
    grey = np.full((*hole.shape, 3), 127, np.uint8)
    samples = samples.fill(grey, hole, grey=False)
    how = {
        "hole": hole,
        "notes": notes,
        "mask_sha256": "0" * 64,
        "model": "telea",
        "weights_sha256": None,
        "trained": True,
        "parameters": {"r": 3},
    }
    made = mark_edited(out, samples, photo, **(how | changes))
    write_edited(out, made, keep=keep)
    return samples.pixels, made.receipt


def jpeg(pixels: np.ndarray, **how: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **how)
    return buffer.getvalue()


def packet(properties: str, attributes: str = "") -> bytes:
    """An XMP packet as Adobe writes it; namespaces declared in between."""
    return f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Adobe XMP Core">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:own="urn:own/"
    xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/"
    xmlns:stEvt="http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" {attributes}>
   {properties}
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
{" " * 200}
<?xpacket end="w"?>""".encode()


_BOX = struct.pack(">I4sI4s", 4096, b"jumb", 33, b"jumd") + bytes.fromhex(
    "63327061 0011 0010 8000 00aa00389b71 03"
)
STORE = _BOX + bytes(i * 7 % 251 for i in range(4096 - len(_BOX)))
"""What looks like a C2PA manifest store."""


def with_manifests(data: bytes, *, parts: int = 1, kind: bytes = STORE, head: int = 8) -> bytes:
    """A JPEG with a box in APP11 segments, as ISO 19566-5 says, with another box in between.

    head: bytes of the box's header, which each part repeats.
    """
    step = -(-len(kind) // parts)
    out = b""
    for packet_number, start in enumerate(range(0, len(kind), step), 1):
        again = kind[:head] if packet_number > 1 else b""
        body = b"JP\0\1" + struct.pack(">I", packet_number) + again + kind[start : start + step]
        out += b"\xff\xeb" + struct.pack(">H", len(body) + 2) + body
        other = b"JP\0\2" + struct.pack(">I", packet_number) + b"\0\0\0\x10jumbother"
        out += b"\xff\xeb" + struct.pack(">H", len(other) + 2) + other
    return data[:2] + out + data[2:]
