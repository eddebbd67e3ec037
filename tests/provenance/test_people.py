"""Names of people and regions in XMP: gone when the hole covers them, told where it is not sure."""

import json

import numpy as np
import pytest
from PIL import Image

import overpaint
from helpers.edited_pictures import jpeg, packet
from helpers.holed import holes
from overpaint.images import read_image
from overpaint.provenance.metadata import read_xmp
from overpaint.provenance.people import Rectangle
from overpaint.provenance.xmp import COMPOSITE, add_mark

SPACES = """xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/"
 xmlns:stArea="http://ns.adobe.com/xmp/sType/Area#"
 xmlns:MP="http://ns.microsoft.com/photo/1.2/"
 xmlns:MPRI="http://ns.microsoft.com/photo/1.2/t/RegionInfo#"
 xmlns:MPReg="http://ns.microsoft.com/photo/1.2/t/Region#"
 xmlns:lr="http://ns.adobe.com/lightroom/1.0/" xmlns:digiKam="http://www.digikam.org/ns/1.0/" """


def mwg(*people: tuple[str, str], form: str = "attributes") -> str:
    """Regions with a name and "x y w h" of their area: centre and size, in shares."""
    items = ""
    for name, area in people:
        parts = dict(zip("xywh", area.split(), strict=True)) | {"unit": "normalized"}
        if form == "attributes":
            said = " ".join(f'stArea:{key}="{value}"' for key, value in parts.items())
            item = f'<rdf:Description mwg-rs:Name="{name}" mwg-rs:Type="Face">'
            items += f"<rdf:li>{item}<mwg-rs:Area {said}/></rdf:Description></rdf:li>"
        else:
            said = "".join(f"<stArea:{k}>{value}</stArea:{k}>" for k, value in parts.items())
            item = f"<mwg-rs:Name>{name}</mwg-rs:Name>"
            area = f'<mwg-rs:Area rdf:parseType="Resource">{said}</mwg-rs:Area>'
            items += f'<rdf:li rdf:parseType="Resource">{item}{area}</rdf:li>'
    bag = f"<mwg-rs:RegionList><rdf:Bag>{items}</rdf:Bag></mwg-rs:RegionList>"
    return f'<mwg-rs:Regions rdf:parseType="Resource">{bag}</mwg-rs:Regions>'


def microsoft(*people: tuple[str, str]) -> str:
    """Regions with a name and "x, y, w, h": left, top and size, in shares."""
    items = "".join(
        f'<rdf:li MPReg:PersonDisplayName="{name}" MPReg:Rectangle="{area}"/>'
        for name, area in people
    )
    bag = f"<MPRI:Regions><rdf:Bag>{items}</rdf:Bag></MPRI:Regions>"
    return f'<MP:RegionInfo rdf:parseType="Resource">{bag}</MP:RegionInfo>'


def iptc(name: str, boundary: str) -> str:
    sides = dict(part.split("=") for part in boundary.split())
    inside = "".join(f"<Iptc4xmpExt:{k}>{v}</Iptc4xmpExt:{k}>" for k, v in sides.items())
    title = f"<rdf:Alt><rdf:li xml:lang='x-default'>{name}</rdf:li></rdf:Alt>"
    return (
        '<Iptc4xmpExt:ImageRegion><rdf:Bag><rdf:li rdf:parseType="Resource">'
        f"<Iptc4xmpExt:Name>{title}</Iptc4xmpExt:Name>"
        f'<Iptc4xmpExt:RegionBoundary rdf:parseType="Resource">{inside}'
        "</Iptc4xmpExt:RegionBoundary></rdf:li></rdf:Bag></Iptc4xmpExt:ImageRegion>"
    )


def bag(name: str, *values: str) -> str:
    items = "".join(f"<rdf:li>{value}</rdf:li>" for value in values)
    return f"<{name}><rdf:Bag>{items}</rdf:Bag></{name}>"


def left_half(where: Rectangle) -> float:
    """The hole is the left half of the picture."""
    return max(0.0, min(where.right, 0.5) - where.left) / (where.right - where.left)


def marked(properties: str) -> tuple[str, list[str]]:
    source = packet(properties, SPACES)
    out, notes = add_mark(
        source, source_type=COMPOSITE, tool="t", when=None, details="d", covered=left_half
    )
    return out.decode(), notes


class TestRegions:
    @pytest.mark.parametrize(
        "regions",
        [
            mwg(("Ann", "0.2 0.5 0.2 0.2"), ("Bob", "0.8 0.5 0.2 0.2")),
            mwg(("Ann", "0.2 0.5 0.2 0.2"), ("Bob", "0.8 0.5 0.2 0.2"), form="elements"),
            microsoft(("Ann", "0.1, 0.4, 0.2, 0.2"), ("Bob", "0.7, 0.4, 0.2, 0.2")),
            iptc("Ann", "rbShape=rectangle rbUnit=relative rbX=0.1 rbY=0.4 rbW=0.2 rbH=0.2")
            + iptc("Bob", "rbShape=circle rbUnit=relative rbX=0.8 rbY=0.5 rbRx=0.1"),
        ],
        ids=["MWG attributes", "MWG elements", "Microsoft", "IPTC"],
    )
    def test_a_covered_one_goes_with_its_name_and_the_other_stays(self, regions):
        people = bag("Iptc4xmpExt:PersonInImage", "Ann", "Bob")
        keywords = bag("dc:subject", "Ann", "Annual report", "Bob")
        deep = bag("lr:hierarchicalSubject", "People|Ann", "People|Bob")
        tags = bag("digiKam:TagsList", "People/Ann", "Places/Annecy")
        out, notes = marked(regions + people + keywords + deep + tags)
        assert ">Ann<" not in out
        assert '"Ann"' not in out
        assert "People|Ann" not in out
        assert "People/Ann" not in out
        for kept in ("Bob", "Annual report", "People|Bob", "Places/Annecy"):
            assert kept in out
        assert "XMP: 1 region of what was removed left out, with 1 name(s)" in notes
        assert any(note.startswith("XMP: 1 name(s) of people kept") for note in notes)
        assert not any("Ann" in note for note in notes)

    def test_one_that_is_only_touched_stays_and_is_told(self):
        out, notes = marked(mwg(("Ann", "0.55 0.5 0.2 0.2")))
        assert "Ann" in out
        (note,) = notes
        assert "1 region of what the hole touches kept" in note

    def test_one_outside_stays_without_a_word(self):
        out, notes = marked(mwg(("Bob", "0.8 0.5 0.2 0.2")))
        assert "Bob" in out
        assert notes == []

    @pytest.mark.parametrize(
        "region",
        [
            mwg(("Ann", "x 0.5 0.2 0.2")),
            mwg(("Ann", "nan 0.5 0.2 0.2")),
            mwg(("Ann", "120 90 20 20")),
            microsoft(("Ann", "0.1, 0.4")),
            iptc("Ann", "rbShape=rectangle rbUnit=pixel rbX=1 rbY=4 rbW=9 rbH=9"),
            iptc("Ann", "rbShape=polygon"),
        ],
    )
    def test_one_whose_place_cannot_be_read_is_told(self, region):
        out, notes = marked(region)
        assert "Ann" in out
        (note,) = notes
        assert "1 region of unknown place kept" in note

    def test_a_list_of_people_without_places_is_told(self):
        details = (
            "<Iptc4xmpExt:PersonInImageWDetails><rdf:Bag><rdf:li rdf:parseType='Resource'>"
            "<Iptc4xmpExt:PersonName>Cy</Iptc4xmpExt:PersonName>"
            "</rdf:li></rdf:Bag></Iptc4xmpExt:PersonInImageWDetails>"
        )
        out, notes = marked(bag("Iptc4xmpExt:PersonInImage", "Ann", "Bob") + details)
        assert all(name in out for name in ("Ann", "Bob", "Cy"))
        assert notes == ["XMP: 3 name(s) of people kept; look whether they are still seen"]

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("frame", ["stored", "upright"])
    def test_of_a_turned_photo_in_a_file_whichever_frame_was_meant(
        self, tmp_path, picture, orientation, frame
    ):
        exif = Image.Exif()
        exif[274] = orientation
        # The upper left of the picture as it is stored or shown, away from the middle.
        xmp = packet(mwg(("Ann", "0.15 0.2 0.2 0.3")), SPACES)
        (tmp_path / "a.jpg").write_bytes(jpeg(picture, exif=exif.tobytes(), xmp=xmp))
        stored = holes((24, 40), (1, 2, 9, 11))
        Image.fromarray(stored * 255).save(tmp_path / "m.png", exif=exif)
        mask = (read_image(tmp_path / "m.png").pixels[..., 0] == 255).astype(np.uint8)
        if frame == "upright":
            mask = np.zeros_like(mask)
            height, width = mask.shape
            mask[: round(0.36 * height), round(0.05 * width) : round(0.26 * width)] = 1
        out = tmp_path / "b.png"
        done = overpaint.inpaint(tmp_path / "a.jpg", mask, model="mean", dilate=0, out=out)
        xmp = read_xmp(out.read_bytes(), out)[1] or b""
        assert b"Ann" not in xmp
        assert done.receipt is not None
        receipt = json.loads(done.receipt.read_text())
        assert any("of what was removed left out" in note for note in receipt["notes"])
        assert "Ann" not in done.receipt.read_text()
