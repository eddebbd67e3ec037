"""How samples are stored in a file, and what stands for white among them."""

import io
import itertools
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageCms

from helpers.handmade import keyed_grey_png, png16, png_chunk, save
from overpaint.errors import ImageError
from overpaint.images import decode_image

tifffile = pytest.importorskip("tifffile", reason="needs the extra overpaint[dev]")

KINDS = {
    "grey": (1, "minisblack", None),
    "rgb": (3, "rgb", None),
    "rgba": (4, "rgb", ["unassalpha"]),
    "cmyk": (4, "separated", None),
}
RNG = np.random.default_rng(0)


def lzw(data):
    """TIFF's LZW at its plainest: 9 bit codes of single bytes, the table cleared in time."""
    codes = []
    for start in range(0, len(data), 200):
        codes += [256, *data[start : start + 200]]
    bits = "".join(f"{code:09b}" for code in (*codes, 257))
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def tiff(values, kind="rgb", **how):
    """values (h, w, c); how: as for tifffile."""
    _, photometric, extra = KINDS[kind]
    how = {"photometric": photometric, "metadata": None, **how}
    if extra:
        how["extrasamples"] = extra
    if values.shape[2] == 1:
        values = values[..., 0]
    elif how.get("planarconfig") == "separate":
        values = np.moveaxis(values, 2, 0)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **how)
    return buffer.getvalue()


def shown(levels, kind):
    """uint8 (h, w, c) as RGB, in plain arithmetic."""
    if kind == "cmyk":
        ink = levels.astype(int)
        out = (255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255
        return np.rint(out).astype(np.uint8)
    return np.repeat(levels, 3, axis=2) if kind == "grey" else levels[..., :3]


@pytest.mark.parametrize("tile", [None, (32, 48)])
@pytest.mark.parametrize("compression", [None, "zlib", "predictor"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_of_a_tiff_gives_the_same_pixels(
    kind, planar, byteorder, bits, compression, tile
):
    values = RNG.integers(0, 2**bits, (50, 70, KINDS[kind][0])).astype(f"u{bits // 8}")
    how = {"byteorder": byteorder, "planarconfig": planar if kind != "grey" else None}
    how |= {"tile": tile} if tile else {"rowsperstrip": 16}
    if compression:
        how |= {"compression": "zlib", "predictor": compression == "predictor"}
    photo = decode_image(tiff(values, kind, **how), "a.tif")
    levels = (values >> (bits - 8)).astype(np.uint8)
    expected = shown(levels, kind)
    assert np.abs(photo.pixels.astype(int) - expected).max() <= (1 if kind == "cmyk" else 0)
    assert ("16 bit reduced to 8" in photo.notes) == (bits == 16)
    if kind == "rgba":
        assert np.array_equal(photo.alpha, levels[..., 3])
    else:
        assert photo.alpha is None


@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_lzw_in_either_layout(planar, byteorder, bits, predictor):
    values = RNG.integers(0, 2**bits, (12, 20, 3)).astype(f"u{bits // 8}")
    stored = values
    if predictor:  # differences along a row, modulo the sample's range
        stored = np.concatenate([values[:, :1], np.diff(values, axis=1)], axis=1)
    planes = [stored] if planar == "contig" else list(np.moveaxis(stored, 2, 0))
    strips = [lzw(plane.astype(f"{byteorder}u{bits // 8}").tobytes()) for plane in planes]
    samples = 3
    entries = [(256, 3, [20]), (257, 3, [12]), (258, 3, [bits] * 3), (259, 3, [5]), (262, 3, [2])]
    entries += [(273, 4, []), (277, 3, [samples]), (278, 3, [12])]
    entries += [(279, 4, [len(strip) for strip in strips])]
    entries += [(284, 3, [1 if planar == "contig" else 2]), (317, 3, [1 + predictor])]
    at, head, tail = 8 + 2 + 12 * len(entries) + 4, b"", b""
    content = at + 100  # where the strips begin, behind the values that need room
    for tag, kind, found in entries:
        if tag == 273:
            found = [content + sum(map(len, strips[:i])) for i in range(len(strips))]
        packed = struct.pack(f"{byteorder}{len(found)}{'H' if kind == 3 else 'I'}", *found)
        if len(packed) > 4:
            packed, tail = struct.pack(f"{byteorder}I", at + len(tail)), tail + packed
        head += struct.pack(f"{byteorder}HHI", tag, kind, len(found)) + packed.ljust(4, b"\0")
    data = (b"II*\0" if byteorder == "<" else b"MM\0*") + struct.pack(f"{byteorder}I", 8)
    data += struct.pack(f"{byteorder}H", len(entries)) + head + b"\0" * 4 + tail.ljust(100, b"\0")
    photo = decode_image(data + b"".join(strips), "a.tif")
    assert np.array_equal(photo.pixels, values >> (bits - 8))


def test_libtiff_is_asked_for_while_a_file_is_read_and_not_for_ever():
    from PIL import TiffImagePlugin

    decode_image(tiff(RNG.integers(0, 256, (9, 9, 3), np.uint8)), "a.tif")
    assert not TiffImagePlugin.READ_LIBTIFF


# What stands for white


def rows(bits, channels):
    """Every sample value of so many bits once at least, as uint16 (64, 64, c)."""
    values = np.linspace(0, 2**bits - 1, 64 * 64).astype(np.uint16).reshape(64, 64, 1)
    return np.repeat(values, channels, axis=2)


def as_file(values, container):
    kind = {1: "grey", 3: "rgb", 4: "rgba"}[values.shape[2]]
    if container == "png":
        return png16(values, {1: 0, 3: 2, 4: 6}[values.shape[2]])
    return tiff(values, kind, byteorder=container)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("container", ["png", "<", ">"])
def test_few_bits_that_lie_low_in_16_are_scaled_with_a_note(container, channels, bits):
    values = rows(bits, channels)
    photo = decode_image(as_file(values, container), "a")
    assert np.array_equal(photo.pixels, np.repeat(values[..., :1] >> (bits - 8), 3, axis=2))
    note = f"sample value {2**bits - 1} of 65535 taken for white, as no sample is above "
    assert any(found.startswith(note) for found in photo.notes)
    assert (photo.alpha is None) == (channels != 4)
    if channels == 4:
        assert np.array_equal(photo.alpha, values[..., 3] >> (bits - 8))


def test_an_alpha_of_full_range_beside_colours_of_12_bit_stays_opaque():
    values = rows(12, 4)
    values[..., 3] = 65535
    assert decode_image(png16(values, 6), "a.png").alpha is None


@pytest.mark.parametrize("channels", [1, 3])
def test_a_dark_picture_of_16_bit_stays_dark_and_a_black_one_black(channels):
    photo = decode_image(png16(rows(13, channels), {1: 0, 3: 2}[channels]), "a.png")
    assert photo.pixels.max() == 31
    assert "no sample is above a quarter of the 16 bit range: taken for a dark picture" in (
        photo.notes
    )
    black = decode_image(png16(np.zeros((4, 4, channels), np.uint16), {1: 0, 3: 2}[channels]), "b")
    assert not black.pixels.any()
    assert black.notes[0] == "16 bit reduced to 8"


@pytest.mark.parametrize("channels", [1, 3])
def test_what_a_tiff_states_counts_unless_a_sample_is_above_it(channels):
    values = rows(14, channels)
    kind = {1: "grey", 3: "rgb"}[channels]
    for white, top in ((16383, 255), (20000, 209), (9999, 63)):
        tag = (281, "H", channels, (white,) * channels if channels > 1 else white, True)
        photo = decode_image(tiff(values, kind, extratags=[tag]), "a.tif")
        assert photo.pixels.max() == top
        stated = f"sample value {white} of 65535 taken for white, as MaxSampleValue says"
        assert (stated in photo.notes) == (white >= 16383)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_a_png_states_counts_where_samples_lie_low(channels):
    def with_sbit(values):
        data = png16(values, {1: 0, 3: 2}[channels])
        return data[:33] + png_chunk(b"sBIT", bytes([14] * channels)) + data[33:]

    low = decode_image(with_sbit(rows(14, channels)), "a.png")
    assert low.pixels.max() == 255
    assert "sample value 16383 of 65535 taken for white, as sBIT says" in low.notes
    high = decode_image(with_sbit(rows(14, channels) << 2), "a.png")
    assert np.array_equal(high.pixels, low.pixels)
    assert high.notes[0] == "16 bit reduced to 8"
    dark = decode_image(with_sbit((rows(14, channels) >> 3) << 2), "a.png")
    assert dark.pixels.max() == 31


def test_low_samples_in_planes_and_beside_grey_with_alpha_are_refused_with_the_remedy():
    planes = tiff(rows(12, 3), planarconfig="separate")
    for data in (planes, png16(rows(12, 2), 4)):
        with pytest.raises(ImageError, match=r"a: none of its 16 bit samples is above 4095.*8 bit"):
            decode_image(data, "a")


@pytest.mark.parametrize("dtype", ["i1", "i2", "f2", "f4", "u4"])
@pytest.mark.parametrize("kind", ["grey", "rgb"])
def test_samples_of_unknown_range_are_refused(kind, dtype):
    values = np.ones((5, 5, KINDS[kind][0]), dtype)
    with pytest.raises(ImageError, match=r"a\.tif: .*(float|signed).*save .*8 or 16 bit"):
        decode_image(tiff(values, kind), "a.tif")


def test_a_jpeg_of_12_bit_says_so():
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 11, 12, 8, 8, 1) + b"\1\x11\0"
    data = b"\xff\xd8" + frame + b"\xff\xda\0\x08\1\1\0\0\x3f\0" + b"\0" * 20 + b"\xff\xd9"
    with pytest.raises(ImageError, match=r"a\.jpg: a JPEG of 12 bit.*save it as 16 bit PNG"):
        decode_image(data, "a.jpg")


# Colours and transparency


def test_lab_is_refused_and_ycbcr_read(picture):
    lab = tifffile_lab(picture)
    with pytest.raises(ImageError, match=r"a\.tif: Lab colours.*save it as RGB"):
        decode_image(lab, "a.tif")
    ycc = np.asarray(Image.fromarray(picture).convert("YCbCr"))
    for how in ({}, {"compression": "zlib"}, {"tile": (16, 16)}):
        photo = decode_image(tiff(ycc, photometric="ycbcr", subsampling=(1, 1), **how), "a.tif")
        assert np.abs(photo.pixels.astype(int) - picture).max() <= 4


def tifffile_lab(picture):
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = ImageCms.applyTransform(Image.fromarray(picture), to_lab)
    buffer = io.BytesIO()
    lab.save(buffer, "TIFF")
    return buffer.getvalue()


@pytest.mark.parametrize(("bits", "key"), [(1, 1), (2, 2), (4, 9), (8, 200), (16, 40000)])
def test_the_transparent_grey_of_a_png_is_found_at_every_depth(bits, key):
    levels = RNG.integers(0, 2**bits, (8, 16))
    levels[2, 3:9] = key
    photo = decode_image(keyed_grey_png(levels, bits, key), "a.png")
    assert np.array_equal(photo.alpha == 0, levels == key)
    assert np.array_equal(photo.alpha == 255, levels != key)


@pytest.mark.parametrize("bits", [8, 16])
def test_the_transparent_colour_of_a_png_is_one_exact_colour(bits):
    values = RNG.integers(0, 2**bits, (8, 16, 3)).astype(np.uint16)
    values[1, 2:5] = key = [7, 8, 9]
    values[3, 4] = [7, 8, 10]  # the same high bytes
    if bits == 16:
        data = png16(values, 2)
    else:
        data = io.BytesIO()
        Image.fromarray(values.astype(np.uint8)).save(data, "PNG")
        data = data.getvalue()
    data = data[:33] + png_chunk(b"tRNS", struct.pack(">3H", *key)) + data[33:]
    photo = decode_image(data, "a.png")
    assert np.argwhere(photo.alpha == 0).tolist() == [[1, 2], [1, 3], [1, 4]]


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_a_bmp_whose_alpha_is_zero_throughout_has_none(picture, alpha):
    height, width = picture.shape[:2]
    content = np.dstack([picture[..., ::-1], np.full((height, width), alpha, np.uint8)]).tobytes()
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, width, -height, 1, 32, 3, 0, 0, 0, 0, 0) + masks
    header += b"BGRs" + b"\0" * 48
    start = struct.pack("<2sIHHI", b"BM", 14 + 108 + len(content), 0, 0, 14 + 108)
    photo = decode_image(start + header + content, "a.bmp")
    assert np.array_equal(photo.pixels, picture)
    assert (photo.alpha is None) == (alpha != 128)


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_the_depth_of_an_avif_is_told(tmp_path, picture, bits):
    data = save(tmp_path / "a.avif", picture, quality=95).read_bytes()
    at = data.find(b"av1C") + 6
    flags = data[at] | {8: 0, 10: 0x40, 12: 0x60}[bits]
    from overpaint.images.decoding import _find_bits

    with Image.open(tmp_path / "a.avif") as image:
        assert _find_bits(image, data[:at] + bytes([flags]) + data[at + 1 :]) == bits
    assert decode_image(data, "a.avif").notes == ()


def test_an_animated_png_gives_its_first_picture(picture):
    buffer = io.BytesIO()
    second = Image.fromarray(255 - picture)
    Image.fromarray(picture).save(buffer, "PNG", save_all=True, append_images=[second])
    photo = decode_image(buffer.getvalue(), "a.png")
    assert np.array_equal(photo.pixels, picture)
    assert photo.notes == ("first of 2 pictures in it, the only one read",)


# What libtiff prints


def test_what_libtiff_prints_is_heard_and_the_stream_left_as_it_was(tmp_path, picture):
    data = bytearray(save(tmp_path / "a.tif", picture, compression="tiff_lzw").read_bytes())
    start = struct.unpack_from("<I", data, data.find(struct.pack("<HHI", 273, 4, 1)) + 8)[0]
    data[start : start + 40] = b"\xff" * 40
    (tmp_path / "b.tif").write_bytes(data)
    code = (
        "import os, sys, overpaint.images as i\n"
        "try: i.read_image(sys.argv[1])\n"
        "except Exception as e: print(e)\n"
        "os.write(2, b'still here')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "b.tif"], capture_output=True, text=True
    )
    assert done.stderr == "still here"
    assert "b.tif: cut short or damaged (" in done.stdout
    closed = subprocess.run(
        [sys.executable, "-c", "import os; os.close(2)\n" + code.rsplit("\n", 1)[0], "b.tif"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert "b.tif: cut short or damaged (" in closed.stdout


def test_what_others_print_meanwhile_is_passed_on(capfd):
    from overpaint.images.decoding import _collect_libtiff

    said = []
    with _collect_libtiff(said):
        os.write(2, b"JPEGLib: Bogus marker length.\nWARNING: from another thread\n")
    assert said == ["Bogus marker length"]
    assert capfd.readouterr().err == "WARNING: from another thread\n"


def test_sizes_of_one_pixel_in_every_kind():
    for kind, bits in itertools.product(KINDS, (8, 16)):
        values = np.full((1, 1, KINDS[kind][0]), 2**bits - 1, f"u{bits // 8}")
        assert decode_image(tiff(values, kind), "a.tif").pixels.shape == (1, 1, 3)
