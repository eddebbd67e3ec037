"""Files that cannot be read, size limits, masks, and the promises of the writer."""

import errno
import io
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.handmade import png_chunk, save
from overpaint import images
from overpaint.errors import ConfigError, ImageError, InputError


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def png_header(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0" * 64))
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


# Files that cannot be read


@pytest.mark.parametrize(
    "content", [b"this is a text, not a photo\n" * 9, b"\0" * 99, b"%!PS-Adobe"]
)
def test_what_is_not_a_photo_is_refused(tmp_path, content):
    path = tmp_path / "letter.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"letter\.jpg: not a photo.*give JPEG"):
        images.read_image(path)


def test_empty_folder_missing_and_pipe_each_say_what_they_are(tmp_path):
    (tmp_path / "empty.jpg").touch()
    os.mkfifo(tmp_path / "pipe")
    cases = {"empty.jpg": "is empty", ".": "folder", "gone.jpg": "no such file", "pipe": "pipe"}
    for name, reason in cases.items():
        with pytest.raises(ImageError, match=reason) as caught:
            images.read_image(tmp_path / name)
        assert str(tmp_path) in str(caught.value)
    with pytest.raises(ImageError, match="cannot be read"):
        images.read_image("nul\0inside.jpg")


def test_no_permission_says_so(tmp_path, picture, monkeypatch):
    path = save(tmp_path / "a.png", picture)

    def refuse(*_args, **_kwargs):  # changing the mode means nothing to root
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(io, "open", refuse)
    with pytest.raises(ImageError, match=r"a\.png: no permission.*access rights"):
        images.read_image(path)


# Size limits


def test_bomb_is_refused_before_decoding(monkeypatch):
    def decoded(_self):
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "load", decoded)
    with pytest.raises(ImageError, match=r"bomb\.png: .*3600000000.*OVERPAINT_MAX_PIXELS"):
        images.decode_image(png_header(60000, 60000), "bomb.png")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".gif", ".bmp"])
def test_the_limit_holds_to_the_pixel_in_every_format(tmp_path, picture, suffix):
    path = save(tmp_path / f"a{suffix}", picture)
    assert images.read_image(path, max_pixels=960).width == 40
    with pytest.raises(ImageError, match="960"):
        images.read_image(path, max_pixels=959)


def test_the_limit_may_exceed_that_of_pillow_and_leaves_it_alone(tmp_path, picture, monkeypatch):
    path = save(tmp_path / "a.png", picture)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert images.read_image(path).width == 40
    assert Image.MAX_IMAGE_PIXELS == 100


def test_threads_with_different_limits_do_not_disturb_each_other(tmp_path, picture):
    path = save(tmp_path / "a.png", picture)

    def reads(index):
        try:
            return images.read_image(path, max_pixels=960 - index % 2).width == 40
        except ImageError:
            return False

    before = Image.MAX_IMAGE_PIXELS
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(reads, range(200))) == [True, False] * 100
    assert before == Image.MAX_IMAGE_PIXELS


def test_environment_sets_the_limit_and_the_argument_wins(tmp_path, picture, monkeypatch):
    path = save(tmp_path / "a.png", picture)
    monkeypatch.setenv("OVERPAINT_MAX_PIXELS", "959")
    with pytest.raises(ImageError, match="limit"):
        images.read_image(path)
    assert images.read_image(path, max_pixels=960).height == 24
    for wrong in ("many", "0", "-5"):
        monkeypatch.setenv("OVERPAINT_MAX_PIXELS", wrong)
        with pytest.raises(ConfigError, match="OVERPAINT_MAX_PIXELS"):
            images.read_image(path)


def test_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "huge.tif"
    with path.open("wb") as file:
        file.truncate(2**26 + 8 * 100 + 1)
    with pytest.raises(ImageError, match="bytes, too many"):
        images.read_image(path, max_pixels=100)


@pytest.mark.parametrize("shape", [(1, 1, 3), (10, 20000, 3), (20000, 10, 3)])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_extreme_shapes(tmp_path, shape, suffix):
    path = save(tmp_path / f"a{suffix}", np.full(shape, 77, np.uint8))
    pixels = images.read_image(path).pixels
    assert pixels.shape == shape
    assert np.ptp(pixels) <= 2


# Masks


def test_mask_is_one_where_white(tmp_path):
    values = np.array([[0, 127, 128, 255]], np.uint8)
    for mode in ("L", "RGB"):
        mask = images.read_mask(save(tmp_path / "m.png", values, mode=mode), size=(1, 4))
        assert mask.dtype == np.uint8
        assert mask.tolist() == [[0, 0, 1, 1]]


def test_mask_errors_name_both_sizes_and_the_zero_one_trap(tmp_path):
    path = save(tmp_path / "m.png", np.eye(4, 6, dtype=np.uint8))
    white = save(tmp_path / "w.png", np.eye(4, 6, dtype=np.uint8) * 255)
    with pytest.raises(ImageError, match=r"w\.png: .*6 x 4.*4 x 6"):
        images.read_mask(white, size=(6, 4))
    with pytest.raises(ImageError, match="0 and 255"):
        images.read_mask(path)
    empty = save(tmp_path / "e.png", np.zeros((4, 6), np.uint8))
    assert images.read_mask(empty).sum() == 0


def test_a_mask_with_transparency_is_refused_also_above_pillows_own_limit(
    tmp_path, picture, monkeypatch
):
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    alpha[0, 0] = 254
    path = save(tmp_path / "m.png", np.dstack([picture, alpha]))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match=r"m\.png: the mask has transparency.*save it without"):
        images.read_mask(path)


# Files in memory


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
def test_a_file_in_memory_is_read_as_one_on_disk(tmp_path, picture, kind):
    path = save(tmp_path / "a.jpg", picture, quality=83)
    there, here = images.read_image(path), images.read_image(kind(path.read_bytes()))
    assert np.array_equal(here.pixels, there.pixels)
    assert (here.sha256, here.jpeg_quality, here.path) == (there.sha256, 83, Path())


def test_what_is_no_file_in_memory_says_what_is_wanted():
    written = io.BytesIO()
    written.write(b"at its end")
    for source, error, reason in (
        (written, ImageError, r"seek\(0\)"),
        (b"not a photo", ImageError, "the bytes given: not a photo"),
        (io.StringIO("text"), InputError, "binary mode"),
        (None, InputError, "a NoneType is no file; give a path, bytes"),
        (torch.zeros(3, 4, 4), InputError, "a Tensor is no file"),
    ):
        with pytest.raises(error, match=reason):
            images.read_image(source)
    with pytest.raises(ImageError, match=r"the bytes given: .*too many"):
        images.read_image(bytes(2**26 + 8 * 100 + 1), max_pixels=100)


# The writer


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_holds_exactly_what_was_written(tmp_path, dtype):
    path, top = tmp_path / "a.png", np.iinfo(dtype).max
    array = np.random.default_rng(2).integers(0, top, (7, 5), dtype=dtype, endpoint=True)
    images.write_png(path, array)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), array)


def test_jpeg_is_written_at_its_quality(tmp_path, picture):
    for subsampling in (0, 1, 2):
        images.write_jpeg(tmp_path / "a.jpg", picture[:, ::-1], 83, subsampling)
        photo = images.read_image(tmp_path / "a.jpg")
        assert photo.jpeg_quality == 83
        assert np.abs(photo.pixels.astype(int) - picture[:, ::-1]).mean() < 8
    for wrong in ((0, 0), (101, 0), (90, 3)):
        with pytest.raises(InputError, match="quality"):
            images.write_jpeg(tmp_path / "b.jpg", picture, *wrong)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_writer_refuses_other_arrays_and_writes_nothing(tmp_path, array):
    with pytest.raises(InputError, match="give uint8"):
        images.write_png(tmp_path / "a.png", array)
    assert list(tmp_path.iterdir()) == []


def test_writer_refuses_an_input_by_any_of_its_names(tmp_path, picture, monkeypatch):
    path = save(tmp_path / "in.png", picture)
    before = path.read_bytes()
    (tmp_path / "link.png").symlink_to(path)
    (tmp_path / "hard.png").hardlink_to(path)
    monkeypatch.chdir(tmp_path)
    for name in ("in.png", path, "link.png", "hard.png", tmp_path / "." / "in.png"):
        with pytest.raises(ImageError, match="input and is never written over"):
            images.write_png(name, 255 - picture, keep=[path])
    assert path.read_bytes() == before
    images.write_png("out.png", picture, keep=[path])


def test_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path, picture, monkeypatch):
    path = save(tmp_path / "a.png", picture)
    before = path.read_bytes()

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ImageError, match=r"a\.png: cannot be written \(No space left"):
        images.write_png(path, picture[::-1])
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == before


def test_writing_where_there_is_no_folder_says_so(tmp_path, picture):
    (tmp_path / "file").touch()
    for parent in ("gone", "file"):
        with pytest.raises(ImageError, match="folder must exist"):
            images.write_png(tmp_path / parent / "a.png", picture)


def test_written_file_is_as_readable_as_any_other(tmp_path, picture):
    (tmp_path / "other").touch()
    images.write_png(tmp_path / "a.png", picture)
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("shape", [(1, 65501), (65501, 1, 3)])
def test_a_picture_that_no_jpeg_can_hold_is_refused_with_the_remedy(tmp_path, shape):
    with pytest.raises(InputError, match=r"a\.jpg: .*at most 65,500 on a side; write a \.png"):
        images.write_jpeg(tmp_path / "a.jpg", np.zeros(shape, np.uint8), 90)
    images.write_jpeg(tmp_path / "b.jpg", np.zeros((1, 65500), np.uint8), 90)
    images.write_png(tmp_path / "a.png", np.zeros(shape, np.uint8))


def test_writers_and_tensor_functions_refuse_what_is_no_array(tmp_path):
    for array in (None, torch.zeros(3, 4, 4), [[0]]):
        with pytest.raises(InputError, match="give"):
            images.write_png(tmp_path / "a.png", array)
        with pytest.raises(InputError, match="give a uint8 array"):
            images.to_tensor(array)
    for tensor in (None, np.zeros((3, 4, 4))):
        with pytest.raises(InputError, match="give a float tensor"):
            images.to_pixels(tensor)


# Tensors


def test_to_tensor_and_back_is_bit_equal():
    pixels = np.random.default_rng(3).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    pixels.setflags(write=False)
    tensor = images.to_tensor(pixels)
    assert tensor.shape == (1, 3, 5, 7)
    assert tensor.dtype == torch.float32
    assert tensor[0, 2, 4, 6].item() == pytest.approx(int(pixels[4, 6, 2]) / 255)
    assert np.array_equal(images.to_pixels(tensor), pixels)
    every = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, axis=2)
    assert np.array_equal(images.to_pixels(images.to_tensor(every)[0]), every)


def test_to_pixels_clamps_and_rounds_halves_to_even():
    tensor = torch.tensor([-0.5, 1.5, 0.5 / 255, 1.5 / 255, 2.4 / 255]).expand(3, 1, 5)
    assert images.to_pixels(tensor)[0, :, 0].tolist() == [0, 255, 0, 2, 2]


def test_tensor_functions_refuse_other_shapes_and_nan():
    for tensor in (torch.zeros(2, 3, 4, 4), torch.zeros(1, 4, 4), torch.zeros(3, 4, 4).int()):
        with pytest.raises(InputError, match="give floats"):
            images.to_pixels(tensor)
    with pytest.raises(InputError, match="NaN"):
        images.to_pixels(torch.full((3, 2, 2), float("nan")))
    for array in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)):
        with pytest.raises(InputError, match="give uint8"):
            images.to_tensor(array)
