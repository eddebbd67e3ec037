"""What people have, and files that are damaged: every kind must come out right or be named."""

import contextlib
import hashlib
import io
import os
import re
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.handmade import png16, png_bomb, save
from overpaint import images
from overpaint.errors import ImageError
from overpaint.images.decoding import from_pillow
from overpaint.images.samples import decode_samples
from overpaint.provenance.metadata import read_xmp


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def tiff(values, photometric, sample_format=1):
    """A little-endian, uncompressed TIFF made by hand. values: (h, w) or (h, w, c)."""
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    bits, content = values.dtype.itemsize * 8, values.tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 200)]
    tags += [(277, channels), (278, height), (279, len(content)), (339, sample_format)]
    extra = struct.pack("<3H", bits, bits, bits) + struct.pack("<3H", *[sample_format] * 3)
    entries = b""
    for tag, value in tags:
        if channels == 3 and tag in (258, 339):
            entries += struct.pack("<HHII", tag, 3, 3, 150 if tag == 258 else 156)
        else:
            entries += struct.pack("<HHII", tag, 4 if tag == 279 else 3, 1, value)
    body = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 4
    return (body.ljust(150, b"\0") + extra).ljust(200, b"\0") + content


# What people have


def test_png_is_read_bit_for_bit_with_the_hash_of_its_bytes(tmp_path, picture):
    path = save(tmp_path / "a.png", picture)
    photo = images.read_image(path)
    assert np.array_equal(photo.pixels, picture)
    assert photo.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (photo.format, photo.jpeg_quality, photo.lossy, photo.notes) == ("PNG", None, False, ())
    assert (photo.width, photo.height, photo.path) == (40, 24, path)
    assert photo.pixels.flags.writeable
    assert photo.pixels.flags.c_contiguous


def test_the_file_is_read_exactly_once(tmp_path, picture, monkeypatch):
    path, reads, original = save(tmp_path / "a.png", picture), [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: reads.append(self) or original(self))
    images.read_image(path)
    assert reads == [path]


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 90, 95, 100])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_quality_is_found(tmp_path, picture, quality, mode):
    photo = images.read_image(save(tmp_path / "a.jpg", picture, mode=mode, quality=quality))
    assert photo.jpeg_quality == quality
    assert photo.lossy


def test_jpeg_quality_of_foreign_tables_is_near(tmp_path, picture):
    luma = [max(1, value * 2 // 5) for value in [16, 11, 10, 16, 24, 40, 51, 61] * 8]
    path = save(tmp_path / "a.jpg", picture, qtables=[luma, luma])
    assert images.read_image(path).jpeg_quality in range(60, 96)


def test_jpeg_quality_is_that_of_the_luma_table_whatever_its_number(tmp_path, picture):
    data = bytearray(save(tmp_path / "a.jpg", picture, quality=80).read_bytes())
    for at in range(len(data) - 1):
        if data[at : at + 2] == b"\xff\xdb":
            data[at + 4] ^= 1  # swap the numbers of the two tables
        if data[at : at + 2] == b"\xff\xc0":
            for component in range(3):
                data[at + 12 + 3 * component] ^= 1
    assert images.decode_image(bytes(data), "swapped.jpg").jpeg_quality == 80


def test_cmyk_jpeg_comes_out_in_its_own_colours(tmp_path, picture):
    photo = images.read_image(save(tmp_path / "a.jpg", picture, mode="CMYK", quality=100))
    assert np.abs(photo.pixels.astype(int) - picture).max() <= 6
    assert photo.notes == ("CMYK converted without a colour profile",)


def test_mpo_gives_its_first_picture_as_a_jpeg(tmp_path, picture):
    path = tmp_path / "a.mpo"
    second = Image.fromarray(255 - picture)
    Image.fromarray(picture).save(path, save_all=True, append_images=[second], quality=90)
    photo = images.read_image(path)
    assert (photo.format, photo.jpeg_quality, photo.lossy) == ("JPEG", 90, True)
    assert photo.notes == ("first of 2 pictures in it, the only one read",)
    assert np.abs(photo.pixels.astype(int) - picture).mean() < 5


WIDE = np.array([0, 1, 128, 255, 256, 257, 0x7FFF, 0x8000, 0xFEFF, 0xFFFF], np.uint16)


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_png_keeps_the_high_byte(colour_type, channels):
    data = png16(np.repeat(WIDE[None, :, None], channels, axis=2), colour_type)
    photo = images.decode_image(data, "a.png")
    assert np.array_equal(photo.pixels, np.repeat((WIDE >> 8)[None, :, None], 3, axis=2))
    assert photo.notes[0] == "16 bit reduced to 8"
    if channels in (2, 4):
        assert np.array_equal(photo.alpha, (WIDE >> 8)[None])
        assert "alpha kept apart: 90.0 % of the pixels are not opaque" in photo.notes
    else:
        assert photo.alpha is None


def test_8_bit_widened_to_16_comes_back_exactly(picture):
    data = png16(picture.astype(np.uint16) * 257, 2)
    assert np.array_equal(images.decode_image(data, "a.png").pixels, picture)


@pytest.mark.parametrize(("channels", "photometric"), [(1, 1), (1, 0), (3, 2)])
def test_16_bit_tiff_keeps_the_high_byte(channels, photometric):
    values = np.repeat(WIDE[None, :, None], channels, axis=2).squeeze(-1 if channels == 1 else ())
    photo = images.decode_image(tiff(values, photometric), "a.tif")
    expected = (255 - (WIDE >> 8)) if photometric == 0 else WIDE >> 8
    assert np.array_equal(photo.pixels, np.repeat(expected[None, :, None], 3, axis=2))
    assert "16 bit reduced to 8" in photo.notes
    assert not photo.lossy


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 3)])
def test_float_tiff_is_refused_with_the_remedy(shape):
    data = tiff(np.full(shape, 0.5, np.float32), 1 if len(shape) == 2 else 2, sample_format=3)
    with pytest.raises(ImageError, match=r"a\.tif: .*float.*8 or 16 bit"):
        images.decode_image(data, "a.tif")


def test_preview_of_a_camera_raw_is_refused(tmp_path, picture):
    path = save(tmp_path / "a.tif", picture, tiffinfo={254: 1})
    with pytest.raises(ImageError, match="preview"):
        images.read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_alpha_and_the_colour_beneath_are_both_kept(tmp_path, picture, suffix):
    alpha = np.linspace(0, 255, 24 * 40).reshape(24, 40, 1).astype(np.uint8)
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    path = save(tmp_path / f"a{suffix}", np.concatenate([picture, alpha], axis=2), **options)
    photo = images.read_image(path)
    assert np.array_equal(photo.pixels, picture)
    assert np.array_equal(photo.alpha, alpha[..., 0])
    share = 100 * (alpha < 255).mean()
    assert photo.notes == (f"alpha kept apart: {share:.1f} % of the pixels are not opaque",)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_an_opaque_alpha_is_not_worth_a_word(tmp_path, picture, suffix):
    opaque = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
    options = {"lossless": True} if suffix == ".webp" else {}
    photo = images.read_image(save(tmp_path / f"a{suffix}", opaque, **options))
    assert (photo.alpha, photo.notes) == (None, ())


def test_grey_with_alpha_keeps_the_grey_beneath(tmp_path, picture):
    grey = picture[..., 0]
    path = save(tmp_path / "a.png", np.stack([grey, np.zeros_like(grey)], axis=2))
    photo = images.read_image(path)
    assert np.array_equal(photo.pixels, np.repeat(grey[..., None], 3, axis=2))
    assert not photo.alpha.any()
    assert photo.notes == (
        "grey copied to three channels",
        "alpha kept apart: 100.0 % of the pixels are not opaque",
    )


@pytest.mark.parametrize(
    ("suffix", "transparency"),
    [(".png", None), (".png", 2), (".png", bytes([0, 255, 128, 1])), (".gif", None), (".gif", 2)],
)
def test_palette_is_expanded_and_its_transparency_is_alpha(tmp_path, picture, suffix, transparency):
    image = Image.fromarray(picture).quantize(8)
    options = {} if transparency is None else {"transparency": transparency}
    image.save(tmp_path / f"a{suffix}", **options)
    photo = images.read_image(tmp_path / f"a{suffix}")
    assert np.array_equal(photo.pixels, np.asarray(image.convert("RGB")))
    index = np.asarray(image)
    table = np.full(256, 255)
    if isinstance(transparency, int):
        table[transparency] = 0
    elif transparency is not None:
        table[: len(transparency)] = list(transparency)
    alpha = photo.alpha if photo.alpha is not None else np.full(index.shape, 255)
    assert np.array_equal(alpha, table[index])
    assert photo.lossy == (suffix == ".gif")


def test_one_bit_is_black_and_white(tmp_path):
    bits = np.eye(9, dtype=bool)
    photo = images.read_image(save(tmp_path / "a.png", bits))
    assert np.array_equal(photo.pixels, np.repeat(bits[..., None], 3, axis=2) * np.uint8(255))


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("alpha", [True, False])
def test_webp_says_whether_it_is_lossy(tmp_path, picture, lossless, alpha):
    array = np.dstack([picture, picture[..., 0]]) if alpha else picture
    photo = images.read_image(save(tmp_path / "a.webp", array, lossless=lossless))
    assert (photo.format, photo.lossy, photo.jpeg_quality) == ("WEBP", not lossless, None)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("frames", [1, 2])
def test_metadata_of_a_webp_with_the_names_of_codings_do_not_count(
    tmp_path, picture, lossless, frames
):
    """Also a colour profile, which comes before the pixels."""
    names = b"VP8LVP8 " if not lossless else b"VP8 VP8L"
    options = {"xmp": names * 9, "icc_profile": names * 20, "lossless": lossless}
    if frames > 1:
        options |= {"save_all": True, "append_images": [Image.fromarray(255 - picture)]}
    assert images.read_image(save(tmp_path / "a.webp", picture, **options)).lossy != lossless


def test_heic_is_read_upright_where_its_package_is_installed(tmp_path, picture):
    heif = pytest.importorskip("pillow_heif", reason="needs the extra overpaint[heic]")
    heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.heic", picture, quality=95, exif=exif.tobytes())
    photo = images.read_image(path)
    assert (photo.format, photo.lossy) == ("HEIF", True)
    assert photo.pixels.shape == (40, 24, 3)
    assert np.abs(photo.pixels.astype(int) - np.rot90(picture, -1)).mean() < 6


def test_heic_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    data = b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + b"\0" * 64
    with pytest.raises(ImageError, match=r"a\.heic.*pip install 'overpaint\[heic\]'"):
        images.decode_image(data, "a.heic")


def test_a_wrong_suffix_does_not_matter(tmp_path, picture):
    path = save(tmp_path / "a.jpg", picture, format="PNG")
    assert images.read_image(path).format == "PNG"


# EXIF orientation


STORED_FROM_UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: np.rot90(a, 2),
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_every_orientation_comes_out_upright(tmp_path, picture, orientation, suffix):
    stored = np.ascontiguousarray(STORED_FROM_UPRIGHT[orientation](picture))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}
    path = tmp_path / f"a{suffix}"
    save(path, stored, exif=exif.tobytes(), **options.get(suffix, {}))
    photo = images.read_image(path)
    assert photo.pixels.shape == picture.shape
    assert np.abs(photo.pixels.astype(int) - picture).max() <= 4
    browsers = {".png": " (browsers may show a PNG unturned)"}
    browsers[".webp"] = browsers[".png"].replace("PNG", "WEBP")
    note = f"turned upright by EXIF{browsers.get(suffix, '')}"
    assert photo.notes == ((note,) if orientation > 1 else ())


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"]
)
def test_damaged_exif_does_not_cost_the_photo(tmp_path, picture, exif):
    path = save(tmp_path / "a.jpg", picture, exif=exif)
    assert images.read_image(path).pixels.shape == picture.shape


# Damaged files


def test_truncated_jpeg_is_refused_wherever_it_ends(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = save(tmp_path / "a.jpg", noise).read_bytes()
    for end in [1, 3, 20, 200, 700, len(data) // 2, len(data) - 300]:
        with pytest.raises(ImageError, match=r"cut\.jpg: .*(damaged|not a photo).*"):
            images.decode_image(data[:end], "cut.jpg")


def noisy_jpeg(**options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(str(options.pop("mode", "RGB"))).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 90},
        {"quality": 90, "mode": "L"},
        {"quality": 90, "mode": "CMYK"},
        {"quality": 80, "progressive": True},
        {"quality": 80, "restart_marker_blocks": 2},
        {"quality": 80, "subsampling": 0},
        {"quality": 80, "subsampling": "4:1:1"},
    ],
    ids=str,
)
def test_a_jpeg_with_a_piece_missing_is_refused_and_a_whole_one_is_not(options):
    data = noisy_jpeg(**options)
    whole = images.decode_image(data, "a.jpg")
    assert not [note for note in whole.notes if "damaged" in note]
    start = data.index(b"\xff\xda")
    without = data[: (start + len(data)) // 2] + data[-2:]  # its end is there: not cut short
    with pytest.raises(ImageError, match=r"a\.jpg: damaged \(.*\); get the file again"):
        images.decode_image(without, "a.jpg")


def test_left_over_bytes_in_a_jpeg_are_a_note():
    data = noisy_jpeg()
    photo = images.decode_image(data[:-2] + b"left over" + data[-2:], "a.jpg")
    (note,) = photo.notes
    assert re.match(r"perhaps damaged, libjpeg says: \d extraneous bytes before marker", note)
    np.testing.assert_array_equal(photo.pixels, images.decode_image(data, "a.jpg").pixels)


def test_a_jpeg_that_cannot_be_checked_is_examined_and_the_note_says_so():
    data = bytearray(noisy_jpeg(subsampling=0))
    data[data.index(b"\xff\xc0") + 14] = 0x21  # Cb has twice as many columns as Y and Cr
    (note,) = images.decode_image(bytes(data), "a.jpg").notes
    assert "not checked for damage of its coded data" in note


def test_bytes_after_the_end_of_a_jpeg_are_no_damage():
    assert images.decode_image(noisy_jpeg() + b"appended" * 9, "a.jpg").notes == ()


def test_damaged_bytes_never_raise_anything_else(tmp_path, picture):
    rng = np.random.default_rng(1)
    for suffix in (".jpg", ".png", ".webp", ".tif", ".gif"):
        data = save(tmp_path / f"a{suffix}", picture).read_bytes()
        for _ in range(60):
            damaged = bytearray(data)
            for at in rng.integers(0, min(len(data), 400), 6):
                damaged[at] = rng.integers(256)
            with contextlib.suppress(ImageError):
                photo = images.decode_image(bytes(damaged), "a", max_pixels=100_000)
                assert photo.pixels.dtype == np.uint8
                assert photo.pixels.shape[2] == 3


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "WEBP", "PNG", "AVIF"])
def test_the_pictures_of_a_file_are_counted_and_the_first_is_read(picture, kind):
    data, more = io.BytesIO(), [Image.fromarray(np.roll(picture, i, axis=0)) for i in (5, 9)]
    how = {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(picture).save(data, kind, save_all=True, append_images=more, **how)
    photo = images.decode_image(data.getvalue(), "a")
    assert "first of 3 pictures in it, the only one read" in photo.notes
    if kind in ("TIFF", "WEBP", "PNG"):
        assert np.array_equal(photo.pixels, picture)


def test_a_second_picture_that_is_damaged_does_not_count(picture):
    data = io.BytesIO()
    Image.fromarray(picture).save(
        data, "TIFF", save_all=True, append_images=[Image.new("L", (3, 3))]
    )
    data = bytearray(data.getvalue())
    first = struct.unpack_from("<I", data, 4)[0]
    (num,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * num, len(data) - 3)  # the next directory
    photo = images.decode_image(bytes(data), "a.tif")
    assert np.array_equal(photo.pixels, picture)
    assert any(note.startswith("first of several pictures in it") for note in photo.notes)


# What the machine lacks, and not the file


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is that of Linux")
@pytest.mark.parametrize(
    "reader", ["overpaint.images:decode_image", "overpaint.provenance.metadata:read_xmp"]
)
def test_a_lack_of_memory_is_no_damage(tmp_path, reader):
    module, name = reader.split(":")
    (tmp_path / "a.png").write_bytes(png_bomb(12000))
    code = (
        "import pathlib, resource\n"
        f"from {module} import {name} as read\n"
        "data = pathlib.Path('a.png').read_bytes()\n"
        "used = 4096 * int(open('/proc/self/statm').read().split()[0])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**26,) * 2)\n"
        "try: read(data, 'a.png')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.startswith("ImageError a.png: there is too little memory to read it; ")


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError("out of memory error when reading image file")]
)
def test_every_reader_tells_lack_of_memory_from_damage(monkeypatch, tmp_path, picture, error):
    def fail(*_args, **_how):
        raise error

    path = save(tmp_path / "a.png", picture)
    photo, image = images.read_image(path), Image.open(path)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    for name, read in (
        ("a.png", lambda: images.read_image(path)),
        ("a.png", lambda: decode_samples(path.read_bytes(), photo)),
        ("a.png", lambda: read_xmp(path.read_bytes(), path)),
        ("PIL image", lambda: from_pillow(image)),
    ):
        with pytest.raises(ImageError, match=f"{name}: there is too little memory to read it; "):
            read()


@pytest.mark.parametrize("has_memory_files", [True, False])
def test_a_tiff_is_read_without_a_folder_for_temporary_files(
    monkeypatch, tmp_path, picture, has_memory_files
):
    data = save(tmp_path / "a.tif", picture).read_bytes()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    if has_memory_files:
        if not hasattr(os, "memfd_create"):
            pytest.skip("this system has no files in memory")
        assert np.array_equal(images.decode_image(data, "a.tif").pixels, picture)
        return
    monkeypatch.delattr(os, "memfd_create", raising=False)
    before = os.dup(2)
    os.close(before)
    for _ in range(3):
        with pytest.raises(ImageError, match=r"a\.tif: .*temporary file.*none.*; set TMPDIR to a"):
            images.decode_image(data, "a.tif")
    after = os.dup(2)
    os.close(after)
    assert after == before, "a descriptor is still open"
