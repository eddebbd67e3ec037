"""EXIF keeps its fields and loses its pictures; C2PA manifests are found without any package."""

import struct

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from helpers import deep_pictures
from helpers.edited_pictures import STORE, edited, jpeg, packet, with_manifests
from helpers.handmade import png_chunk
from overpaint.images import decode_image, read_image
from overpaint.provenance.containers import (
    count_trailing_bytes,
    extract_manifests,
    has_manifest,
    read_png_chunks,
)
from overpaint.provenance.exif import remove_pictures
from overpaint.provenance.metadata import _list_left_out, read_xmp


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def tiff_block(order: str, thumbnail: bytes, note: bytes, orientation: int = 6) -> bytes:
    """EXIF made by hand: make, orientation, a maker note, and a thumbnail in a second directory."""

    def field(tag: int, kind: int, count: int, value: bytes) -> bytes:
        return struct.pack(order + "HHI", tag, kind, count) + value.ljust(4, b"\0")

    def number(value: int, form: str = "I") -> bytes:
        return struct.pack(order + form, value)

    main, sub, second = 8, 60, 100
    note_at, thumbnail_at = 160, 160 + len(note)
    out = bytearray(thumbnail_at)
    out[:8] = (b"II*\0" if order == "<" else b"MM\0*") + number(main)
    fields = field(0x10F, 2, 4, b"abc\0") + field(0x112, 3, 1, number(orientation, "H"))
    fields += field(0x8769, 4, 1, number(sub))
    block = number(3, "H") + fields + number(second)
    out[main : main + len(block)] = block
    block = number(2, "H") + field(0x9000, 7, 4, b"0232")
    block += field(0x927C, 7, len(note), number(note_at)) + number(0)
    out[sub : sub + len(block)] = block
    block = number(2, "H") + field(0x201, 4, 1, number(thumbnail_at))
    block += field(0x202, 4, 1, number(len(thumbnail))) + number(0)
    out[second : second + len(block)] = block
    out[note_at:] = note
    return b"Exif\0\0" + bytes(out) + thumbnail


class TestExif:
    def test_fields_stay_and_the_thumbnail_goes(self, tmp_path, picture):
        thumbnail, note = jpeg(picture[:8, :8]), bytes(range(50, 90))
        block = tiff_block("<", thumbnail, note)
        (tmp_path / "a.jpg").write_bytes(jpeg(picture, exif=block))
        for out in (tmp_path / "b.jpg", tmp_path / "b.png"):
            _, receipt = edited(tmp_path / "a.jpg", out)
            assert thumbnail[2:40] in (tmp_path / "a.jpg").read_bytes()
            assert thumbnail[2:40] not in out.read_bytes()
            assert any("thumbnail" in note for note in receipt["notes"])
            with Image.open(out) as image:
                exif = image.getexif()
                assert (exif[0x10F], exif[0x112]) == ("abc", 6)
                assert exif.get_ifd(ExifTags.IFD.Exif) == {0x9000: b"0232", 0x927C: note}
                assert not exif.get_ifd(ExifTags.IFD.IFD1)

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_what_stays_stays_where_it_was(self, picture, order):
        thumbnail, note = jpeg(picture[:8, :8]), b"note with offsets of its own"
        block = tiff_block(order, thumbnail, note)
        out, notes = remove_pictures(block)
        kept = block[: len(out)]
        changed = [i for i, (a, b) in enumerate(zip(kept, out, strict=True)) if a != b]
        assert len(notes) == 1
        assert block.index(note) == out.index(note)
        # changed: the link to the second directory (8 + 2 + 36, behind "Exif\0\0") and that itself
        assert all(6 + 46 <= i < 6 + 50 or 6 + 100 <= i < 6 + 130 for i in changed)
        assert not any(out[6 + 46 : 6 + 50])
        assert remove_pictures(out) == (out, [])

    def test_a_preview_in_a_maker_note_goes(self, picture):
        preview = jpeg(picture[:8, :8])
        out, notes = remove_pictures(tiff_block("<", b"", b"HEAD" + preview + b"TAIL"))
        assert b"HEAD" in out
        assert preview[:40] not in out
        assert b"TAIL" not in out
        assert any("37500" in note for note in notes)

    def test_damaged_exif_costs_itself_and_not_the_picture(self, tmp_path, picture):
        (tmp_path / "a.jpg").write_bytes(jpeg(picture, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"))
        pixels, receipt = edited(tmp_path / "a.jpg", tmp_path / "b.png")
        assert any("EXIF left out, because it is damaged" in note for note in receipt["notes"])
        np.testing.assert_array_equal(read_image(tmp_path / "b.png").pixels, pixels)

    def test_blocks_cut_anywhere_never_raise_anything_else(self, picture):
        block = tiff_block(">", jpeg(picture[:8, :8]), b"note")
        for size in range(6, 180):
            try:
                out, _ = remove_pictures(block[:size])
            except ValueError:
                continue
            assert len(out) <= max(size, 14) + 4

    def test_of_a_tiff_the_describing_fields_stay(self, tmp_path, picture):
        exif = Image.Exif()
        exif[274], exif[271], exif[700], exif[37724] = 3, "Maker", b"<x/>", b"layers" * 9
        exif.get_ifd(ExifTags.IFD.Exif).update({0x9003: "2020:01:01 00:00:00", 0x829A: 0.02})
        Image.fromarray(picture).save(tmp_path / "a.tif", exif=exif.tobytes())
        pixels, _ = edited(tmp_path / "a.tif", tmp_path / "b.png")
        assert b"layerslayers" not in (tmp_path / "b.png").read_bytes()
        with Image.open(tmp_path / "b.png") as image:
            found = image.getexif()
            assert (found[271], found[274], 256 in found) == ("Maker", 3, False)
            assert found.get_ifd(0x8769) == {0x9003: "2020:01:01 00:00:00", 0x829A: 0.02}
        np.testing.assert_array_equal(read_image(tmp_path / "b.png").pixels, pixels)

    def test_an_orientation_that_only_xmp_names_turns_nothing(self, tmp_path, picture):
        turned = packet("", 'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"')
        (tmp_path / "a.jpg").write_bytes(jpeg(picture, xmp=turned))
        pixels, _ = edited(tmp_path / "a.jpg", tmp_path / "b.png")
        assert pixels.shape == (24, 40, 3)
        np.testing.assert_array_equal(read_image(tmp_path / "b.png").pixels, pixels)


class TestC2paOfTheSource:
    """Without a key: what C2PA manifests look like is enough, no package is needed."""

    LONG = struct.pack(">I4sQ", 1, b"jumb", 4096) + STORE[8:-8]

    @pytest.mark.parametrize("parts", [1, 2, 7])
    @pytest.mark.parametrize("store", [STORE, LONG], ids=["short", "long"])
    def test_is_put_together_from_a_jpeg(self, picture, parts, store):
        head = 16 if store == self.LONG else 8
        data = with_manifests(jpeg(picture), parts=parts, kind=store, head=head)
        assert extract_manifests(data) == store
        decode_image(data, "a.jpg")  # still a JPEG

    def test_is_taken_from_png_webp_and_tiff(self, tmp_path, picture):
        image = Image.fromarray(picture)
        image.save(tmp_path / "a.png")
        png = (tmp_path / "a.png").read_bytes()
        assert extract_manifests(png[:33] + png_chunk(b"caBX", STORE) + png[33:]) == STORE
        image.save(tmp_path / "a.webp")
        webp = (tmp_path / "a.webp").read_bytes() + b"C2PA" + struct.pack("<I", 4096) + STORE
        assert extract_manifests(webp) == STORE
        image.save(tmp_path / "a.tif", tiffinfo={52545: STORE})
        assert extract_manifests((tmp_path / "a.tif").read_bytes()) == STORE

    def test_nothing_else_is_taken_for_one(self, picture):
        other = STORE.replace(b"c2pa", b"json")
        assert extract_manifests(with_manifests(jpeg(picture), parts=2, kind=other)) is None
        assert extract_manifests(b"") is None
        assert not has_manifest(jpeg(picture))

    def test_is_kept_beside_the_picture(self, tmp_path, picture):
        (tmp_path / "a.jpg").write_bytes(with_manifests(jpeg(picture), parts=2))
        _, receipt = edited(tmp_path / "a.jpg", tmp_path / "b.jpg")
        assert (tmp_path / "b.jpg.source.c2pa").read_bytes() == STORE
        assert receipt["source_c2pa"]["file"] == "b.jpg.source.c2pa"
        assert any("beside this one" in note for note in receipt["notes"])
        assert not has_manifest((tmp_path / "b.jpg").read_bytes())

    @pytest.mark.parametrize("suffix", [".gif", ".tif"])
    def test_where_it_cannot_be_taken_out_the_receipt_says_so(self, tmp_path, picture, suffix):
        source = tmp_path / f"a{suffix}"
        if suffix == ".tif":
            Image.fromarray(picture).save(source, big_tiff=True, tiffinfo={52545: STORE})
        else:
            Image.fromarray(picture).save(source)
            blocks = b"".join(b"\x80" + STORE[i : i + 128] for i in range(0, len(STORE), 128))
            data = source.read_bytes().removesuffix(b";")
            source.write_bytes(data + b"\x21\xff\x0bC2PA_GIF\1\0\0" + blocks + b"\0;")
        data = source.read_bytes()
        assert extract_manifests(data) is None
        assert has_manifest(data)
        _, receipt = edited(source, tmp_path / "b.png")
        assert any("stays in the input alone" in note for note in receipt["notes"])

    def test_files_cut_anywhere_give_it_whole_or_not_at_all(self, tmp_path, picture):
        Image.fromarray(picture).save(tmp_path / "a.tif", tiffinfo={52545: STORE})
        tiff = (tmp_path / "a.tif").read_bytes()
        for data in (with_manifests(jpeg(picture), parts=2), tiff):
            for size in [*range(200), *range(200, len(data), 97)]:
                assert extract_manifests(data[:size]) in (None, STORE)
            assert extract_manifests(data) == STORE


class TestEveryFormat:
    @pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg", ".avif"])
    @pytest.mark.parametrize("orientation", [1, 6, 7])
    def test_exif_profile_xmp_and_orientation_are_kept(
        self, tmp_path, picture, suffix, orientation
    ):
        exif, profile = Image.Exif(), srgb()
        exif[0x10F], exif[0x112], exif[0x132] = "Maker", orientation, "2020:01:02 03:04:05"
        exif.get_ifd(ExifTags.IFD.Exif).update({0x829A: 0.125, 0x9003: "2020:01:02 03:04:05"})
        exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (52.0, 31.0, 12.0)})
        how = {"exif": exif.tobytes(), "icc_profile": profile, "xmp": packet("<dc:a>kept</dc:a>")}
        (tmp_path / "a.jpg").write_bytes(jpeg(picture, quality=95, **how))
        out = tmp_path / f"b{suffix}"
        pixels, _ = edited(tmp_path / "a.jpg", out)
        with Image.open(out) as image:
            assert image.info["icc_profile"] == profile
            found = image.getexif()
            assert (found[0x10F], found[0x132]) == ("Maker", "2020:01:02 03:04:05")
            assert found.get_ifd(ExifTags.IFD.Exif)[0x829A] == 0.125
            assert found.get_ifd(ExifTags.IFD.GPSInfo)[2] == (52.0, 31.0, 12.0)
        assert b"<dc:a>kept</dc:a>" in (read_xmp(out.read_bytes(), out)[1] or b"")
        written = read_image(out).pixels
        assert written.shape == pixels.shape
        error = np.abs(written.astype(int) - pixels).mean()
        assert error == 0 if suffix in (".png", ".tif", ".webp") else error < 4

    @pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
    def test_a_grey_profile_stays_with_a_grey_photo(self, tmp_path, picture, suffix):
        profile = b"\0" * 16 + b"GRAY" + b"\0" * 108
        Image.fromarray(picture).convert("L").save(tmp_path / "a.jpg", icc_profile=profile)
        edited(tmp_path / "a.jpg", tmp_path / f"b{suffix}")
        with Image.open(tmp_path / f"b{suffix}") as image:
            assert (image.mode, image.info["icc_profile"]) == ("L", profile)
        _, receipt = edited(tmp_path / "a.jpg", tmp_path / "b.webp")
        assert "colour profile of GRAY left out: the pixels are RGB" in receipt["notes"]

    @pytest.mark.parametrize("bits", [8, 16])
    def test_colour_chunks_stay_in_a_png_and_are_told_elsewhere(self, tmp_path, picture, bits):
        values = picture if bits == 8 else picture.astype(np.uint16) * 257
        chunks = [(b"cICP", b"\x09\x10\0\1"), (b"gAMA", b"\0\0\xb1\x8f"), (b"mDCV", bytes(24))]
        chunks += [(b"cHRM", bytes(range(32))), (b"cLLI", bytes(range(8)))]
        (tmp_path / "a.png").write_bytes(deep_pictures.png(values, *chunks))
        _, receipt = edited(tmp_path / "a.png", tmp_path / "b.png")
        assert not [note for note in receipt["notes"] if "colour" in note]
        written = list(read_png_chunks((tmp_path / "b.png").read_bytes()))
        assert [chunk for chunk in written if chunk in chunks] == chunks
        names = [name for name, _ in written]
        assert max(names.index(name) for name, _ in chunks) < names.index(b"IDAT")
        _, receipt = edited(tmp_path / "a.png", tmp_path / "b.tif")
        (note,) = (note for note in receipt["notes"] if note.startswith("colour description"))
        assert "(cICP, gAMA, mDCV, cHRM, cLLI) left out" in note

    def test_a_profile_takes_the_place_of_srgb(self, tmp_path, picture):
        Image.fromarray(picture).save(tmp_path / "a.png", icc_profile=srgb())
        data = (tmp_path / "a.png").read_bytes()
        (tmp_path / "a.png").write_bytes(data[:33] + png_chunk(b"sRGB", b"\0") + data[33:])
        edited(tmp_path / "a.png", tmp_path / "b.png")
        names = [name for name, _ in read_png_chunks((tmp_path / "b.png").read_bytes())]
        assert b"iCCP" in names
        assert b"sRGB" not in names

    def test_what_an_avif_says_of_its_colours_becomes_cicp(self, tmp_path, picture):
        Image.fromarray(picture).save(tmp_path / "a.avif", quality=90)
        data = (tmp_path / "a.avif").read_bytes()
        at = data.index(b"colrnclx") + 8
        edited(tmp_path / "a.avif", tmp_path / "plain.png")
        assert b"cICP" not in (tmp_path / "plain.png").read_bytes()
        pq = data[:at] + struct.pack(">HH", 9, 16) + data[at + 4 :]  # BT.2020, PQ
        (tmp_path / "a.avif").write_bytes(pq)
        edited(tmp_path / "a.avif", tmp_path / "b.png")
        written = dict(read_png_chunks((tmp_path / "b.png").read_bytes()))
        assert written[b"cICP"] == b"\x09\x10\0\1"


class TestWhatFollowsThePicture:
    CAMERA = 'xmlns:GCamera="http://ns.google.com/photos/1.0/camera/"'
    GAIN = 'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"'
    CONTAINER = (
        'xmlns:Container="http://ns.google.com/photos/1.0/container/" '
        'xmlns:Item="http://ns.google.com/photos/1.0/container/item/"'
    )

    def test_marks_of_a_video_and_a_gain_map_go_with_them(self, tmp_path, picture):
        marks = 'GCamera:MotionPhoto="1" GCamera:MicroVideoOffset="99" GCamera:BurstID="kept" '
        marks += 'hdrgm:Version="1.0"'
        items = "<rdf:li><Container:Item Item:Semantic='MotionPhoto' Item:Length='9'/></rdf:li>"
        directory = f"<Container:Directory><rdf:Seq>{items}</rdf:Seq></Container:Directory>"
        spaces = f"{self.CAMERA} {self.GAIN} {self.CONTAINER}"
        video = b"\0\0\0\x18ftypmp42" + b"frames of the photo before the edit"
        data = jpeg(picture, xmp=packet(directory, f"{spaces} {marks}"))
        (tmp_path / "a.jpg").write_bytes(data + video)
        for out in (tmp_path / "b.jpg", tmp_path / "b.png"):
            _, receipt = edited(tmp_path / "a.jpg", out)
            written = out.read_bytes()
            for gone in (b"MotionPhoto", b"MicroVideo", b"hdrgm", b"Container", b"frames of"):
                assert gone not in written
            assert b"BurstID" in written
            notes = "\n".join(receipt["notes"])
            assert f"{len(video)} bytes after the picture (a video" in notes
            for what in ("mark of a motion photo", "gain map", "list of appended files"):
                assert f"XMP: {what} left out" in notes

    @pytest.mark.parametrize("how", [{}, {"progressive": True}, {"restart_marker_blocks": 1}])
    def test_of_a_jpeg_without_anything_behind_it_nothing_is_said(self, photo, how):
        data = jpeg(photo, comment=b"\xff\xd9 in a comment", **how)
        assert count_trailing_bytes(data) == 0
        assert count_trailing_bytes(data + b"\0" * 9) == 0
        assert count_trailing_bytes(data + b"12345") == 5
        assert all(count_trailing_bytes(data[:size]) == 0 for size in range(0, len(data), 7))

    def test_bytes_behind_a_png_are_told(self, tmp_path, picture):
        data = deep_pictures.png(picture)
        assert count_trailing_bytes(data) == 0
        assert all(count_trailing_bytes(data[:size]) == 0 for size in range(0, len(data), 7))
        # What a program leaves that writes a cropped picture over a larger file.
        (tmp_path / "a.png").write_bytes(data + data[-99:])
        _, receipt = edited(tmp_path / "a.png", tmp_path / "b.png")
        assert any(note.startswith("99 bytes after the picture") for note in receipt["notes"])

    def test_what_a_tiff_has_besides_its_colours_is_told(self, tmp_path, picture):
        more = np.dstack([picture, picture[..., :1]])
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(more, photometric="rgb", extrasamples=["unspecified"], subifds=1)
            file.write(picture[::2, ::2], photometric="rgb", subfiletype=1)
        _, receipt = edited(tmp_path / "a.tif", tmp_path / "b.png")
        assert "channels besides colours and alpha left out" in receipt["notes"]
        assert "pictures below the first (sub-directories) left out" in receipt["notes"]
        layers = {37724: b"Adobe Photoshop Document Data Block\0"}
        Image.fromarray(picture).save(tmp_path / "l.tif", tiffinfo=layers)
        _, receipt = edited(tmp_path / "l.tif", tmp_path / "c.png")
        assert "Photoshop and IPTC records left out" in receipt["notes"]

    def test_colours_multiplied_by_alpha_are_told(self, tmp_path, picture):
        alpha = np.full(picture.shape[:2], 100, np.uint8)
        stored = np.dstack([picture * (100 / 255), alpha]).astype(np.uint8)
        tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["assocalpha"])
        _, receipt = edited(tmp_path / "a.tif", tmp_path / "b.png")
        assert any("colours divided by alpha" in note for note in receipt["notes"])

    def test_pictures_that_belong_to_a_heic_are_told(self, picture):
        image = Image.fromarray(picture)  # in place of a HEIC, which no package here writes so
        image.info["aux"] = {"urn:com:apple:photo:2020:aux:hdrgainmap": [3]}
        image.info["depth_images"] = [object()]
        [note] = _list_left_out(image, b"")
        assert note == "pictures that belong to the first (hdrgainmap, depth map) left out"

    def test_further_pictures_of_an_mpo_go(self, tmp_path, picture):
        second = Image.fromarray(picture[::-1].copy())
        path = tmp_path / "a.mpo"
        Image.fromarray(picture).save(path, "MPO", save_all=True, append_images=[second])
        _, receipt = edited(path, tmp_path / "b.jpg")
        assert "further pictures (MPO) left out" in receipt["notes"]
        with Image.open(tmp_path / "b.jpg") as image:
            assert (image.format, getattr(image, "n_frames", 1)) == ("JPEG", 1)
        assert b"MPF" not in (tmp_path / "b.jpg").read_bytes()

    def test_png_chunks_of_other_kinds_are_told(self, tmp_path, picture):
        data = deep_pictures.png(picture, (b"bKGD", bytes(6)), (b"vpAg", bytes(9)))
        (tmp_path / "a.png").write_bytes(data)
        _, receipt = edited(tmp_path / "a.png", tmp_path / "b.png")
        assert "PNG chunks (bKGD, vpAg) left out" in receipt["notes"]
