"""Every edited picture is marked, keeps its source's marks, and hides what was there before."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from helpers.edited_pictures import edited, jpeg, packet
from helpers.handmade import png_chunk
from overpaint.errors import ImageError, InputError, OverpaintError
from overpaint.images import read_image, write_png
from overpaint.images.samples import from_pixels
from overpaint.provenance import encoding, marking
from overpaint.provenance.marking import mark_edited, read_source
from overpaint.provenance.metadata import read_xmp
from overpaint.provenance.xmp import COMPOSITE, read_mark


def settings(path: Path) -> list[tuple[list[int], tuple[int, int]]]:
    """Quantisation table and sampling factors of each component, however tables are numbered."""
    with Image.open(path) as opened:
        image: Any = opened
        return [(image.quantization[part[3]], part[1:3]) for part in image.layer]


class TestThePicture:
    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG"])
    def test_carries_the_mark_whatever_its_format(self, tmp_path, photo, suffix):
        Image.fromarray(photo).save(tmp_path / "a.png")
        edited(tmp_path / "a.png", tmp_path / f"b{suffix}")
        with Image.open(tmp_path / f"b{suffix}") as image:
            mark = read_mark(image.info["xmp"])
        assert mark.source_type == COMPOSITE
        assert mark.source_type.endswith("/compositeWithTrainedAlgorithmicMedia")
        assert mark.tool == mark.agents[-1] == marking.TOOL

    def test_png_equals_the_pixels_and_carries_the_mark_as_the_xmp_standard_says(
        self, tmp_path, photo
    ):
        (tmp_path / "a.jpg").write_bytes(jpeg(photo))
        pixels, _ = edited(tmp_path / "a.jpg", tmp_path / "b.png")
        np.testing.assert_array_equal(read_image(tmp_path / "b.png").pixels, pixels)
        data = (tmp_path / "b.png").read_bytes()
        # XMP Specification, part 3: iTXt, keyword, not compressed, no language, before the pixels
        at = data.index(b"iTXtXML:com.adobe.xmp\0\0\0\0\0<?xpacket")
        assert at < data.index(b"IDAT")

    @pytest.mark.parametrize(
        ("quality", "subsampling"), [(3, 0), (50, 2), (77, 1), (92, 2), (100, 0)]
    )
    def test_jpeg_is_written_with_its_sources_settings(self, tmp_path, photo, quality, subsampling):
        (tmp_path / "a.jpg").write_bytes(jpeg(photo, quality=quality, subsampling=subsampling))
        edited(tmp_path / "a.jpg", tmp_path / "b.jpg")
        assert settings(tmp_path / "b.jpg") == settings(tmp_path / "a.jpg")

    def test_jpeg_of_a_png_is_of_quality_95_without_subsampling(self, tmp_path, photo):
        Image.fromarray(photo).save(tmp_path / "a.png")
        edited(tmp_path / "a.png", tmp_path / "b.jpg")
        (tmp_path / "c.jpg").write_bytes(jpeg(photo, quality=95, subsampling=0))
        assert settings(tmp_path / "b.jpg") == settings(tmp_path / "c.jpg")

    def test_grey_jpeg_stays_one_component_with_its_table(self, tmp_path, photo):
        Image.fromarray(photo).convert("L").save(tmp_path / "a.jpg", quality=60)
        edited(tmp_path / "a.jpg", tmp_path / "b.jpg")
        assert len(settings(tmp_path / "a.jpg")) == 1
        assert settings(tmp_path / "b.jpg") == settings(tmp_path / "a.jpg")

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("suffix", [".png", ".jpg"])
    def test_is_stored_as_its_source_was(self, tmp_path, picture, orientation, suffix):
        exif = Image.Exif()
        exif[274] = orientation
        (tmp_path / "a.jpg").write_bytes(jpeg(picture, exif=exif.tobytes(), quality=95))
        pixels, _ = edited(tmp_path / "a.jpg", tmp_path / f"b{suffix}")
        with Image.open(tmp_path / f"b{suffix}") as image:
            assert image.size == (40, 24)  # as stored
            assert image.getexif()[274] == orientation
        upright = read_image(tmp_path / f"b{suffix}").pixels
        assert upright.shape == pixels.shape
        assert np.abs(upright.astype(int) - pixels).mean() < (1e-9 if suffix == ".png" else 4)

    def test_is_not_written_when_its_pixels_do_not_read_back(self, tmp_path, photo, monkeypatch):
        Image.fromarray(photo).save(tmp_path / "a.png")
        monkeypatch.setattr(encoding, "turn_upright", lambda pixels, _: pixels // 2)
        with pytest.raises(OverpaintError, match=r"b\.png: not written"):
            edited(tmp_path / "a.png", tmp_path / "b.png")
        assert [path.name for path in tmp_path.iterdir()] == ["a.png"]

    def test_is_not_written_without_its_mark(self, tmp_path, photo, monkeypatch):
        Image.fromarray(photo).save(tmp_path / "a.png")
        monkeypatch.setattr(marking, "add_mark", lambda *_, **__: (packet("<dc:a>1</dc:a>"), []))
        with pytest.raises(OverpaintError, match="its mark does not read back"):
            edited(tmp_path / "a.png", tmp_path / "b.png")
        assert [path.name for path in tmp_path.iterdir()] == ["a.png"]

    @pytest.mark.parametrize("name", ["b.gif", "b.heic", "b"])
    def test_other_formats_are_refused_with_the_remedy(self, tmp_path, photo, name):
        Image.fromarray(photo).save(tmp_path / "a.png")
        with pytest.raises(ImageError, match=rf"{name}: .*\.png, .*\.jpg"):
            edited(tmp_path / "a.png", tmp_path / name)

    def test_pixels_of_another_size_are_refused(self, tmp_path, photo):
        Image.fromarray(photo).save(tmp_path / "a.png")
        source = read_source(tmp_path / "a.png")
        how = {"mask_sha256": "0", "model": "m", "weights_sha256": None}
        how |= {"trained": False, "parameters": {}}
        hole = np.zeros(photo.shape[:2], np.uint8)
        for pixels, its_hole in ((photo[1:], hole), (photo, hole[:, 1:])):
            with pytest.raises(InputError, match="as their source has"):
                mark_edited("b.png", from_pixels(pixels), source, hole=its_hole, **how)

    def test_a_second_edit_without_a_network_keeps_the_mark_of_the_first(self, tmp_path, photo):
        first, second = tmp_path / "first.png", tmp_path / "second.png"
        write_png(tmp_path / "a.png", photo)
        edited(tmp_path / "a.png", first, trained=True)
        _, receipt = edited(first, second, trained=False)
        assert read_mark(read_xmp(second.read_bytes(), second)[1]).source_type == COMPOSITE
        assert receipt["digital_source_type"] == COMPOSITE
        assert any("as the input says" in note for note in receipt["notes"])

    def test_inputs_are_never_written_over(self, tmp_path, photo):
        for name in ("a.png", "mask.png", "b.png.receipt.json"):
            Image.fromarray(photo).save(tmp_path / name, "PNG")
        for out, keep in (
            ("a.png", []),
            ("mask.png", ["mask.png"]),
            ("b.png", ["b.png.receipt.json"]),
        ):
            before = {path: path.read_bytes() for path in tmp_path.iterdir()}
            with pytest.raises(ImageError, match="input"):
                edited(tmp_path / "a.png", tmp_path / out, keep=[tmp_path / name for name in keep])
            assert all(path.read_bytes() == data for path, data in before.items())


class TestColour:
    def test_rgb_profile_resolution_and_gamma_are_kept(self, tmp_path, picture):
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        Image.fromarray(picture).save(tmp_path / "a.png", icc_profile=profile, dpi=(300, 300))
        data = (tmp_path / "a.png").read_bytes()
        (tmp_path / "a.png").write_bytes(
            data[:33] + png_chunk(b"gAMA", b"\0\0\xb1\x8f") + data[33:]
        )
        edited(tmp_path / "a.png", tmp_path / "b.png")
        edited(tmp_path / "a.png", tmp_path / "b.jpg")
        with Image.open(tmp_path / "b.png") as png, Image.open(tmp_path / "b.jpg") as other:
            assert png.info["icc_profile"] == other.info["icc_profile"] == profile
            assert png.info["gamma"] == pytest.approx(0.45455)
            assert [round(x) for x in png.info["dpi"]] == [300, 300]

    @pytest.mark.parametrize(("mode", "space"), [("CMYK", b"CMYK"), ("L", b"RGB"), ("RGB", b"Lab")])
    def test_profiles_of_other_colours_go_and_the_receipt_says_so(
        self, tmp_path, picture, mode, space
    ):
        profile = b"\0" * 16 + space.ljust(4) + b"\0" * 108
        Image.fromarray(picture).convert(mode).save(tmp_path / "a.jpg", icc_profile=profile)
        _, receipt = edited(tmp_path / "a.jpg", tmp_path / "b.png")
        with Image.open(tmp_path / "b.png") as image:
            assert "icc_profile" not in image.info
        assert any(space.decode() in note for note in receipt["notes"])


class TestReceipt:
    def test_says_what_was_done(self, tmp_path, photo):
        Image.fromarray(photo).save(tmp_path / "a.png")
        _, receipt = edited(tmp_path / "a.png", tmp_path / "b.png", weights_sha256="f" * 64)
        assert json.loads((tmp_path / "b.png.receipt.json").read_text()) == receipt
        assert receipt["sha256"] == read_image(tmp_path / "b.png").sha256
        assert receipt["input"] == {
            "file": "a.png",
            "sha256": read_image(tmp_path / "a.png").sha256,
        }
        assert (receipt["mask_sha256"], receipt["weights_sha256"]) == ("0" * 64, "f" * 64)
        assert (receipt["model"], receipt["parameters"]) == ("telea", {"r": 3})
        assert receipt["time"].endswith("+00:00")
        assert str(tmp_path) not in json.dumps(receipt)

    @pytest.mark.parametrize("bad", [float("nan"), b"bytes", Path()])
    def test_parameters_it_cannot_hold_show_before_anything_is_written(self, tmp_path, photo, bad):
        Image.fromarray(photo).save(tmp_path / "a.png")
        with pytest.raises(InputError, match="receipt cannot hold"):
            edited(tmp_path / "a.png", tmp_path / "b.png", parameters={"x": bad})
        assert not (tmp_path / "b.png").exists()

    def test_that_cannot_be_written_is_an_error_and_the_picture_is_marked(self, tmp_path, photo):
        Image.fromarray(photo).save(tmp_path / "a.png")
        (tmp_path / "b.png.receipt.json").mkdir()
        with pytest.raises(ImageError, match=r"receipt\.json.*b\.png itself is written and marked"):
            edited(tmp_path / "a.png", tmp_path / "b.png")
        with Image.open(tmp_path / "b.png") as image:
            assert read_mark(image.info["xmp"]).source_type == COMPOSITE


class TestWhatIsLeftOut:
    def test_is_said(self, tmp_path, picture):
        info = PngInfo()
        info.add_text("parameters", "a prompt")
        Image.fromarray(picture).save(tmp_path / "a.png", pnginfo=info)
        _, receipt = edited(tmp_path / "a.png", tmp_path / "b.png")
        assert "texts (parameters) left out" in receipt["notes"]
        extended = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 40 + b"picture"
        segment = b"\xff\xe1" + struct.pack(">H", len(extended) + 2) + extended
        data = jpeg(picture, comment=b"hello")
        (tmp_path / "a.jpg").write_bytes(data[:2] + segment + data[2:])
        _, receipt = edited(tmp_path / "a.jpg", tmp_path / "b.jpg")
        assert {"comment left out", "extended XMP, which mostly holds pictures left out"} <= set(
            receipt["notes"]
        )
        assert b"picture" not in (tmp_path / "b.jpg").read_bytes()
