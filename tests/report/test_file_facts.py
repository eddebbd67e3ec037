"""What a report says of a file: coding, EXIF, and thumbnails that show something else."""

import contextlib
import hashlib
import io
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from conftest import textured
from helpers.edited_pictures import edited, packet
from overpaint.errors import ImageError
from overpaint.images import decode_image, read_image
from overpaint.report import file_facts
from overpaint.report.contents import ExifField
from overpaint.report.file_facts import compare_thumbnail, describe_jpeg, extract_thumbnail


def jpeg(pixels: np.ndarray, **how: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **how)
    return buffer.getvalue()


def exif_with(texts: dict[int, bytes], thumbnail: bytes = b"") -> bytes:
    """EXIF as a camera writes it: texts in the first directory, the thumbnail in the second."""
    at = 8 + 2 + 12 * len(texts) + 4
    fields, values = b"", b""
    for tag, text in sorted(texts.items()):
        text = text.ljust(4, b"\0") + b"\0"
        fields += struct.pack(">HHII", tag, 2, len(text), at + len(values))
        values += text
    second = at + len(values)
    first = struct.pack(">H", len(texts)) + fields + struct.pack(">I", second if thumbnail else 0)
    start = second + 2 + 24 + 4
    pair = struct.pack(">HHII", 513, 4, 1, start) + struct.pack(">HHII", 514, 4, 1, len(thumbnail))
    behind = struct.pack(">H", 2) + pair + struct.pack(">I", 0) + thumbnail if thumbnail else b""
    return b"Exif\0\0MM\0*" + struct.pack(">I", 8) + first + values + behind


def facts_of(path: Path) -> file_facts.Facts:
    return file_facts.gather_facts(path.read_bytes(), read_image(path), None)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_how_a_jpeg_is_coded(subsampling: str) -> None:
    pixels = textured(48, 64, seed=0)
    how = {"quality": 83, "subsampling": subsampling}
    facts = describe_jpeg(jpeg(pixels, **how), 83)
    assert facts is not None
    assert (facts.subsampling, facts.process, facts.estimated_quality) == (
        subsampling,
        "baseline",
        83,
    )
    assert facts.segments[0] == "APP0 JFIF"
    late = describe_jpeg(jpeg(pixels, progressive=True, **how), 83)
    assert late is not None
    assert late.process == "progressive"
    other = describe_jpeg(jpeg(textured(16, 16, seed=5), **how), 83)
    assert other is not None
    assert late.tables_sha256 == facts.tables_sha256 == other.tables_sha256
    worse = describe_jpeg(jpeg(pixels, quality=82), 82)
    assert worse is not None
    assert worse.tables_sha256 != facts.tables_sha256


def test_the_hash_is_that_of_the_tables_as_stored() -> None:
    ones = [[1] * 64, [2] * 64]
    facts = describe_jpeg(jpeg(textured(16, 16, seed=0), qtables=ones), None)
    assert facts is not None
    expected = hashlib.sha256(bytes([1] * 64 + [2] * 64 + [2] * 64)).hexdigest()
    assert facts.tables_sha256 == expected


def test_other_formats_and_damaged_files() -> None:
    data = jpeg(textured(16, 16, seed=0)[..., 0])
    grey = describe_jpeg(data, None)
    assert grey is not None
    assert grey.subsampling == "none, there is one component"
    assert describe_jpeg(b"\x89PNG\r\n\x1a\n", None) is None
    for end in range(2, len(data)):
        assert describe_jpeg(data[:end], None) is not None


def test_texts_are_one_visible_line(tmp_path: Path) -> None:
    hostile = {
        270: b"x" * 5000,
        271: b"<script>alert(1)</script>",
        272: "evil\u202egpj.exe\x1b[31m\n".encode(),
        315: "Zo\u00eb".encode(),
    }
    path = tmp_path / "p.jpg"
    path.write_bytes(jpeg(textured(64, 64, seed=0), exif=exif_with(hostile)))
    fields = {field.name: field for field in facts_of(path).file.exif}
    assert fields["Make"] == ExifField("image", "Make", "<script>alert(1)</script>")
    assert fields["Model"].value == "evil\\u202egpj.exe\\x1b[31m"
    assert fields["Artist"].value == "Zo\u00eb"
    assert fields["ImageDescription"].value == "x" * 200 + "... (5,000 characters)"


def test_damaged_exif_costs_nothing(tmp_path: Path) -> None:
    path, whole = tmp_path / "p.jpg", exif_with({271: b"Maker of it"}, jpeg(textured(40, 40, 0)))
    for end in (7, 12, 20, 40, len(whole) - 60):
        path.write_bytes(jpeg(textured(64, 64, seed=0), exif=whole[:end]))
        assert facts_of(path).file.format == "JPEG"
    path.write_bytes(jpeg(textured(64, 64, seed=0), exif=exif_with({271: b"Maker"}, b"no JPEG")))
    found = facts_of(path).file
    assert found.thumbnail is None
    assert any("thumbnail could not be read" in note for note in found.notes)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_that_cannot_be_read_is_said(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "p"
    Image.fromarray(textured(64, 64, seed=0)).save(path, kind, exif=b"Exif\0\0II*\0\xff\xff\0\0")
    notes = facts_of(path).file.notes
    assert any(note.startswith("EXIF could not be read") for note in notes)


def test_a_thumbnail_without_compression_is_said(tmp_path: Path) -> None:
    block = exif_with({271: b"Maker of it"}, b"grey")
    block = block.replace(struct.pack(">HHI", 513, 4, 1), struct.pack(">HHI", 273, 4, 1))
    (tmp_path / "p.jpg").write_bytes(jpeg(textured(64, 64, seed=0), exif=block))
    found = facts_of(tmp_path / "p.jpg").file
    assert found.thumbnail is None
    assert any("thumbnail could not be read" in note for note in found.notes)


def test_the_orientation_that_the_reader_made_is_not_shown_as_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[271], exif[274] = "Maker", 6
    path = tmp_path / "p.avif"  # whose orientation Pillow writes into a box alone
    Image.fromarray(textured(64, 48, seed=0)).save(path, exif=exif.tobytes())
    found = facts_of(path).file
    assert [field.name for field in found.exif] == ["Make"]
    assert any("orientation not shown" in note for note in found.notes)
    assert any("thumbnail was not looked for" in note for note in found.notes)


def test_orientation_in_xmp_is_not_shown_as_exif(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[271] = "Maker"
    tags.tagtype[700], tags[700] = 1, packet("", 'xmlns:t="urn:t" tiff:Orientation="6"')
    path = tmp_path / "p.tif"
    Image.fromarray(textured(64, 48, seed=0)).save(path, tiffinfo=tags)
    assert [field.name for field in facts_of(path).file.exif] == ["Make"]


def small(pixels: np.ndarray, size: tuple[int, int] = (160, 120)) -> np.ndarray:
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def camera_like(pixels: np.ndarray) -> np.ndarray:
    """The same in other contrast and brightness, and through JPEG."""
    processed = np.clip(1.15 * (pixels.astype(float) - 128) + 138, 0, 255).astype(np.uint8)
    return np.array(Image.open(io.BytesIO(jpeg(processed, quality=80))))


class TestThumbnails:
    photo = textured(480, 640, seed=7)

    def test_the_same_picture(self) -> None:
        record, expected = compare_thumbnail(camera_like(small(self.photo)), self.photo)
        assert record.differs is False
        assert (record.width, record.height) == (160, 120)
        assert expected.shape == (120, 160, 3)

    def test_something_removed_since(self) -> None:
        before = self.photo.copy()
        before[200:264, 300:364] = (250, 30, 20)
        record, _ = compare_thumbnail(camera_like(small(before)), self.photo)
        assert record.differs is True
        assert record.largest_difference is not None
        assert record.largest_difference > file_facts.MAX_DIFFERENCE

    def test_black_bars_are_no_difference(self) -> None:
        wide = textured(400, 640, seed=8)
        barred = np.zeros((120, 160, 3), np.uint8)
        barred[10:110] = small(wide, (160, 100))
        assert compare_thumbnail(barred, wide)[0].differs is False
        assert compare_thumbnail(small(self.photo), wide)[0].differs is True  # of another shape

    def test_another_picture(self) -> None:
        assert compare_thumbnail(small(textured(480, 640, seed=9)), self.photo)[0].differs is True

    def test_too_small(self) -> None:
        assert compare_thumbnail(small(self.photo, (12, 9)), self.photo)[0].differs is None

    @pytest.mark.parametrize("orientation", [1, 6])
    def test_it_is_found_in_jpeg_and_png_and_turned(self, tmp_path: Path, orientation: int) -> None:
        thumbnail = jpeg(small(self.photo), quality=90)
        exif = exif_with({271: b"Maker of it"}, thumbnail)
        assert extract_thumbnail(jpeg(self.photo, exif=exif)) == thumbnail
        if orientation != 1:  # a number in the first directory, in place of the text
            field = struct.pack(">HHIHH", 274, 3, 1, orientation, 0)
            exif = exif[:16] + field + exif[28:]
        for name in ("p.jpg", "p.png", "p.webp"):
            Image.fromarray(self.photo).save(tmp_path / name, exif=exif, quality=95)
            found = facts_of(tmp_path / name)
            assert found.file.thumbnail is not None
            assert found.file.thumbnail.differs is False
            assert found.thumbnail is not None
            assert found.thumbnail.shape[0] == (120 if orientation == 1 else 160)


def test_a_file_that_changes_meanwhile(tmp_path: Path) -> None:
    path, out = tmp_path / "p.png", tmp_path / "out.png"
    Image.fromarray(textured(64, 64, seed=0)).save(path)
    edited(path, out)
    data = out.read_bytes()
    photo = decode_image(data, out)
    Image.fromarray(textured(64, 64, seed=1)).save(out)
    found = file_facts.gather_facts(data, photo, None, beside=out).file
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert "a trained network made a part" in found.marks.xmp
    assert "is of this very file" in found.marks.receipt


def test_a_photo_that_came_without_its_folder(tmp_path: Path) -> None:
    edited(_saved(tmp_path), tmp_path / "out.png")
    data = (tmp_path / "out.png").read_bytes()
    found = file_facts.gather_facts(data, decode_image(data, "out.png"), None).file
    assert found.marks.receipt == file_facts.NO_FOLDER
    assert found.name == "out.png"


def _saved(folder: Path) -> Path:
    Image.fromarray(textured(64, 64, seed=0)).save(folder / "p.png")
    return folder / "p.png"


def test_bytes_changed_anywhere_in_the_head_raise_nothing_else(tmp_path: Path) -> None:
    pixels, path = textured(60, 80, seed=1), tmp_path / "p"
    exif = exif_with({270: b"a title", 271: b"a maker"}, jpeg(small(pixels, (32, 24))))
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG", exif=exif)
    rng, examined = random.Random(0), 0
    for number in range(200):
        data = bytearray(jpeg(pixels, exif=exif) if number % 2 else png.getvalue())
        for _ in range(rng.choice((1, 3, 9))):
            data[rng.randrange(2, 900)] = rng.choice((0, 255, rng.randrange(256)))
        path.write_bytes(data)
        with contextlib.suppress(ImageError):
            photo = decode_image(bytes(data), path)
            file_facts.gather_facts(bytes(data), photo, None)
            examined += 1
    assert examined > 20
