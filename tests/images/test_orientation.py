"""What turns a photo: EXIF, in AVIF and HEIC the boxes, and never XMP.

`SHOWN` holds what Chromium 150 and Firefox 140 ESR draw of a file with these four corners, read
from a canvas and from a screenshot: a JPEG turned by EXIF, an AVIF turned by its boxes.
"""

import io
import struct

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from helpers.handmade import png_chunk
from overpaint.images import decode_image

CORNERS = {"R": (255, 0, 0), "G": (0, 255, 0), "B": (0, 0, 255), "Y": (255, 255, 0)}
STORED = "RGBY"  # the corners of the stored picture, in reading order
SHOWN = {
    1: (64, 32, "RGBY"),
    2: (64, 32, "GRYB"),
    3: (64, 32, "YBGR"),
    4: (64, 32, "BYRG"),
    5: (32, 64, "RBGY"),
    6: (32, 64, "BRYG"),
    7: (32, 64, "YGBR"),
    8: (32, 64, "GYRB"),
}
HOW = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "TIFF": {},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 95},
    "HEIF": {"quality": 95},
}


def picture():
    quarters = np.array([CORNERS[name] for name in STORED], np.uint8).reshape(2, 2, 3)
    return Image.fromarray(quarters.repeat(16, axis=0).repeat(32, axis=1))


def exif(orientation):
    block = Image.Exif()
    block[274] = orientation
    return block.tobytes()


def xmp(orientation):
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        f'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{orientation}"/>'
        "</rdf:RDF></x:xmpmeta>"
    )


def saved(kind, *, turned=None, by_xmp=None):
    if kind == "HEIF":
        heif = pytest.importorskip("pillow_heif", reason="needs the extra overpaint[heic]")
        heif.register_heif_opener()
    how = dict(HOW[kind])
    how |= {"exif": exif(turned)} if turned else {}
    if by_xmp and kind == "PNG":
        how["pnginfo"] = PngImagePlugin.PngInfo()
        how["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp(by_xmp))
    elif by_xmp and kind == "TIFF":
        how["tiffinfo"] = {700: xmp(by_xmp).encode()} | ({274: turned} if turned else {})
    elif by_xmp:
        how["xmp"] = xmp(by_xmp).encode()
    if kind == "HEIF" and by_xmp:  # or pillow-heif would make boxes of it
        how["xmp"] = how["xmp"].replace(b"Orientation", b"Orientatiom")
    buffer = io.BytesIO()
    picture().save(buffer, kind, **how)
    return buffer.getvalue().replace(b"Orientatiom", b"Orientation")


def seen(data):
    """(width, height, corners) of the decoded file."""
    photo = decode_image(data, "a")
    corners = ""
    for y, x in ((1, 1), (1, 3), (3, 1), (3, 3)):
        pixel = photo.pixels[photo.height * y // 4, photo.width * x // 4].astype(int)
        corners += min(CORNERS, key=lambda name: np.abs(pixel - CORNERS[name]).sum())
    return photo.width, photo.height, corners


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("kind", HOW)
def test_a_photo_is_turned_as_it_is_shown(kind, orientation):
    """Pillow writes an AVIF's, and pillow-heif a HEIC's, orientation as boxes."""
    assert seen(saved(kind, turned=orientation)) == SHOWN[orientation]


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", HOW)
def test_xmp_turns_nothing(kind, orientation):
    data = saved(kind, by_xmp=orientation)
    assert b'tiff:Orientation="' in data
    assert seen(data) == SHOWN[1]
    assert not any("upright" in note for note in decode_image(data, "a").notes)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_exif_is_followed_and_xmp_beside_it_is_not(kind):
    assert seen(saved(kind, turned=6, by_xmp=3)) == SHOWN[6]
    assert seen(saved(kind, turned=1, by_xmp=3)) == SHOWN[1]


def test_exif_without_boxes_does_not_turn_an_avif():
    block = Image.Exif()
    block[271] = "XXXXXX"
    buffer = io.BytesIO()
    picture().save(buffer, "AVIF", quality=95, exif=block.tobytes())
    data = bytearray(buffer.getvalue())
    at = data.find(struct.pack(">HHI", 271, 2, 7))
    data[at : at + 12] = struct.pack(">HHIHH", 274, 3, 1, 6, 0)
    assert seen(bytes(data)) == SHOWN[1]


def test_the_exif_of_a_png_counts_also_behind_the_pixels():
    data = saved("PNG", turned=6)
    at = data.find(b"eXIf") - 4
    end = at + 12 + struct.unpack_from(">I", data, at)[0]
    last = data.find(b"IEND") - 4
    assert seen(data[:at] + data[end:last] + data[at:end] + data[last:]) == SHOWN[6]


def test_a_text_that_holds_exif_turns_nothing():
    block = exif(6).hex()
    text = b"Raw profile type exif\0\nexif\n%8d\n%s\n" % (len(block) // 2, block.encode())
    data = saved("PNG")
    assert seen(data[:33] + png_chunk(b"tEXt", text) + data[33:]) == SHOWN[1]


def test_a_note_says_what_turned_it():
    def notes(kind):
        return decode_image(saved(kind, turned=3), "a").notes

    assert notes("JPEG") == notes("TIFF") == ("turned upright by EXIF",)
    assert notes("WEBP") == ("turned upright by EXIF (browsers may show a WEBP unturned)",)
    assert notes("AVIF") == ("turned upright by its irot and imir boxes",)
