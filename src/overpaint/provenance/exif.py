"""EXIF without the pictures in it: a camera's thumbnail shows the photo before the edit.

- The bytes of an EXIF block (CIPA DC-008: a small TIFF) are not moved, so that fields with offsets
  of their own (maker notes) stay readable. Only bytes that a field of the main directories refers
  to are kept; all others become zero: thumbnail, preview images, leftovers.
- A value that contains a JPEG, as some maker notes do, becomes zero from there on.
- A TIFF photo has no such block; one is made from the fields that describe the photo and not its
  storage.
- A preview inside a maker note that is not a JPEG is not recognised.
"""

from collections.abc import Iterator
from typing import Any

from PIL import Image

from overpaint.provenance.containers import find_first_directory, read_directory, read_number

_PREFIX = b"Exif\0\0"
_JPEG = b"\xff\xd8\xff"
_EXIF, _GPS, _INTEROPERABILITY = 0x8769, 0x8825, 0xA005

# Fields of a TIFF's first directory that describe the photo: from ImageDescription to the
# primaries, then rating, copyright, EXIF, GPS, and the titles and comments of Windows.
_DESCRIBING = (
    *(270, 271, 272, 274, 282, 283, 296, 305, 306, 315, 316, 318, 319),
    *(18246, 18249, 33432, _EXIF, _GPS, 40091, 40092, 40093, 40094, 40095),
)


def remove_pictures(exif: bytes) -> tuple[bytes, list[str]]:
    """The block with zeros for thumbnail and previews, and notes on what was left out.

    exif: with or without the leading "Exif", NUL, NUL; returned with it. Raises `ValueError` for
    a block that cannot be read.
    """
    block = exif.removeprefix(_PREFIX)
    out, end = bytearray(len(block)), 8
    out[:8] = block[:8]
    notes, todo, seen, copied = [], [find_first_directory(block)], set(), 0
    while todo:
        offset = todo.pop()
        if offset in seen:
            continue
        seen.add(offset)
        try:
            entries, behind = read_directory(block, offset)
        except ValueError:
            if len(seen) == 1:
                raise
            continue
        out[offset:behind] = block[offset:behind]  # the link to the next directory stays zero
        end = max(end, behind + 4)
        if offset == find_first_directory(block) and any(block[behind : behind + 4]):
            notes.append("EXIF thumbnail left out: it shows the photo before the edit")
        for tag, start, stop in entries:
            picture = block.find(_JPEG, start, stop)
            if picture >= 0:
                notes.append(f"a picture inside EXIF field {tag} left out")
            kept = stop if picture < 0 else picture
            out[start:kept] = block[start:kept]
            end, copied = max(end, stop), copied + stop - start
            if copied > 4 * len(block):
                raise ValueError("its fields overlap")
        pointers = (e for e in entries if e.tag in (_EXIF, _GPS, _INTEROPERABILITY))
        todo += [read_number(block, e) for e in pointers]
    return _PREFIX + bytes(out[:end]), notes


def make_from_tiff(image: Any) -> bytes | None:
    """EXIF made from the describing fields of an opened TIFF; None when it has none of them."""
    old, new = image.getexif(), Image.Exif()
    # Pillow's EXIF of a TIFF also has the orientation that the XMP states, which turns no photo.
    found = [tag for tag in _DESCRIBING if tag in old and tag in image.tag_v2]
    for tag in found:
        if tag in (_EXIF, _GPS):
            new.get_ifd(tag).update(old.get_ifd(tag))
        else:
            new[tag] = old[tag]
    return new.tobytes() if found else None


def list_describing(block: bytes) -> Iterator[tuple[int, Any]]:
    """Tag and value of each field that describes the photo, for a TIFF's first directory.

    block: with the leading "Exif", NUL, NUL. The values of EXIF and GPS are directories themselves.
    """
    found = Image.Exif()
    found.load(block)
    for tag in _DESCRIBING:
        if tag in found:
            value = dict(found.get_ifd(tag)) if tag in (_EXIF, _GPS) else found[tag]
            if tag == _EXIF:  # refers to a directory that does not describe the photo
                value.pop(_INTEROPERABILITY, None)
            yield tag, value
