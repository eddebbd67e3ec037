"""The XMP packet: the mark is added, and all else keeps its meaning, or is told."""

import base64
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from conftest import textured
from helpers.edited_pictures import edited, jpeg, packet
from overpaint.provenance.xmp import (
    COMPOSITE,
    HUMAN_EDITS,
    VOCABULARY,
    add_mark,
    choose_source_type,
    read_mark,
)

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
MM, EVENT = (
    "{http://ns.adobe.com/xap/1.0/mm/}",
    "{http://ns.adobe.com/xap/1.0/sType/ResourceEvent#}",
)


def marked(source: bytes | None) -> tuple[ElementTree.Element, list[str], bytes]:
    out, notes = add_mark(
        source,
        source_type=COMPOSITE,
        tool="overpaint 1",
        when="2026-01-02T03:04:05+00:00",
        details="d",
    )
    return ElementTree.fromstring(out), notes, out


class TestXmp:
    def test_of_a_file_without_any(self):
        root, notes, out = marked(None)
        assert notes == []
        assert root.findtext(f".//{IPTC}DigitalSourceType") == COMPOSITE
        event = root.find(f".//{MM}History/{RDF}Seq/{RDF}li")
        assert event is not None
        assert event.findtext(f"{EVENT}softwareAgent") == "overpaint 1"
        assert event.findtext(f"{EVENT}when") == "2026-01-02T03:04:05+00:00"
        for prefix in (
            b"<Iptc4xmpExt:DigitalSourceType>",
            b"<xmp:CreatorTool>",
            b"<xmpMM:History>",
        ):
            assert prefix in out

    def test_all_other_properties_keep_meaning_and_prefix(self):
        properties = (
            "<dc:title><rdf:Alt><rdf:li xml:lang='x-default'>A &lt;b&gt; &amp; ü</rdf:li></rdf:Alt>"
            "</dc:title><own:thing own:deep='1'>text <own:in/> tail</own:thing>"
        )
        source = packet(properties, 'xmp:Rating="5" own:note="say &quot;x&quot;"')
        before, (after, notes, out) = ElementTree.fromstring(source), marked(source)
        assert notes == []
        for path in ("title", "thing"):
            one, other = (
                next(e for e in root.iter() if e.tag.endswith("}" + path))
                for root in (before, after)
            )
            assert ElementTree.canonicalize(
                ElementTree.tostring(one), strip_text=True
            ) == ElementTree.canonicalize(ElementTree.tostring(other), strip_text=True)
        one, other = (next(root.iter(f"{RDF}Description")) for root in (before, after))
        assert one.attrib == other.attrib
        assert b"<own:thing" in out
        assert b"<dc:title" in out
        assert b"ns0" not in out

    @pytest.mark.parametrize("form", ["attribute", "element", "resource"])
    def test_an_earlier_source_type_is_replaced_and_told(self, form):
        old = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
        name = "Iptc4xmpExt:DigitalSourceType"
        source = {
            "attribute": packet("", f'{name}="{old}" xmp:CreatorTool="Camera 1"'),
            "element": packet(f"<{name}>{old}</{name}><xmp:CreatorTool>Camera 1</xmp:CreatorTool>"),
            "resource": packet(f'<{name} rdf:resource="{old}"/>', 'xmp:CreatorTool="Camera 1"'),
        }[form]
        assert read_mark(source).source_type == old
        root, notes, out = marked(source)
        found = [e.text for e in root.iter(f"{IPTC}DigitalSourceType")]
        assert found == [COMPOSITE]
        assert not any(key.endswith("DigitalSourceType") for e in root.iter() for key in e.attrib)
        assert read_mark(out).tool == "overpaint 1"
        told = root.findtext(f".//{EVENT}parameters") or ""
        assert old in told
        assert "Camera 1" in told
        assert len(notes) == 2

    @pytest.mark.parametrize("trained", [True, False])
    @pytest.mark.parametrize(
        ("said", "by_method", "by_network"),
        [
            ("digitalCapture", "humanEdits", "compositeWithTrainedAlgorithmicMedia"),
            ("compositeSynthetic", "compositeSynthetic", "compositeWithTrainedAlgorithmicMedia"),
            ("trainedAlgorithmicMedia", "trainedAlgorithmicMedia", "trainedAlgorithmicMedia"),
            *[("compositeWithTrainedAlgorithmicMedia",) * 3],
        ],
    )
    def test_a_source_type_is_never_weakened(self, said, by_method, by_network, trained):
        expected = VOCABULARY + (by_network if trained else by_method)
        for place in (VOCABULARY, VOCABULARY.replace("http:", "https:"), ""):
            source = packet("", f'Iptc4xmpExt:DigitalSourceType="{place}{said}"')
            assert choose_source_type(trained=trained, packet=source) == expected

    def test_what_a_manifest_or_broken_xmp_says_of_networks_counts(self):
        said = VOCABULARY.encode() + b"trainedAlgorithmicMedia"
        assert choose_source_type(trained=False, manifests=b"\xd8jumb" + said) == COMPOSITE
        assert choose_source_type(trained=False, packet=b"<broken " + said) == COMPOSITE
        assert choose_source_type(trained=False, packet=b"<broken") == HUMAN_EDITS

    def test_the_history_grows(self):
        event = '<rdf:li stEvt:action="saved" stEvt:softwareAgent="Darkroom 2"/>'
        source = packet(f"<xmpMM:History><rdf:Seq>{event}</rdf:Seq></xmpMM:History>")
        once = marked(source)[2]
        twice = marked(once)[2]
        assert read_mark(once).agents == ("Darkroom 2", "overpaint 1")
        assert read_mark(twice).agents == ("Darkroom 2", "overpaint 1", "overpaint 1")

    def test_thumbnails_and_what_points_to_pictures_go(self):
        google = 'xmlns:G="http://ns.google.com/photos/1.0/image/" G:Data="/9j/ABCD"'
        source = packet("<xmp:Thumbnails><rdf:Alt/></xmp:Thumbnails>", google)
        _, notes, out = marked(source)
        assert b"Thumbnails" not in out
        assert b"/9j/ABCD" not in out
        assert len(notes) == 2

    @pytest.mark.parametrize(
        "inside",
        [
            # A page of a document, an ingredient with its own packet, and names that nobody lists.
            "<xmp:PageInfo><rdf:Seq><rdf:li rdf:parseType='Resource'><i:image>{}</i:image></rdf:li>"
            "</rdf:Seq></xmp:PageInfo>",
            "<xmpMM:Pantry><rdf:Bag><rdf:li><rdf:Description><xmp:Thumbnails><rdf:Alt><rdf:li "
            "i:image='{}'/></rdf:Alt></xmp:Thumbnails></rdf:Description></rdf:li></rdf:Bag>"
            "</xmpMM:Pantry>",
            "<own:depth><rdf:Description own:near='1' own:data='data:image/jpeg;base64,{}'/>"
            "</own:depth>",
            "<own:list><rdf:Seq><rdf:li>\n {}</rdf:li></rdf:Seq></own:list>",
        ],
    )
    def test_pictures_at_any_depth_go(self, inside: str):
        picture = base64.b64encode(jpeg(textured(16, 16, seed=0))).decode()
        space = 'xmlns:i="http://ns.adobe.com/xap/1.0/g/img/"'
        kept = "<own:kept>/9j/ is how a JPEG begins</own:kept>"
        _, notes, out = marked(packet(inside.format(picture) + kept, space))
        assert picture[:20].encode() not in out
        assert b"/9j/ is how" in out
        assert len(notes) == 1
        assert "the photo before the edit" in notes[0]

    @pytest.mark.parametrize(
        "bad",
        [
            b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>",
            b"\0\0\0",
            b"<a>no rdf</a>",
            b'<?xml version="1.0" encoding="no-such"?><a/>',
            b'<!DOCTYPE a [<!ENTITY e "ha">]>' + packet("<dc:a>&e;</dc:a>"),
            ('<!DOCTYPE a [<!ENTITY e "ha">]>' + packet("<dc:a>&e;</dc:a>").decode()).encode(
                "utf-16"
            ),
            packet("<own:a>" * 2000 + "</own:a>" * 2000),
        ],
    )
    def test_what_cannot_be_read_is_replaced_and_told(self, bad):
        _, notes, out = marked(bad)
        assert len(notes) == 1
        assert "could not be read" in notes[0]
        assert read_mark(out).source_type == COMPOSITE
        with pytest.raises(ValueError, match=r"."):
            read_mark(bad)

    def test_clashing_prefixes_stay_apart(self):
        inner = "<a:x xmlns:a='urn:1'/><a:x xmlns:a='urn:2'/><xmp:x xmlns:xmp='urn:3'/>"
        root, _, _ = marked(packet(inner + "<x xmlns='urn:4'/><ns0:x xmlns:ns0='urn:5'/>"))
        assert [e.tag for e in root.iter() if e.tag.startswith("{urn:")] == [
            f"{{urn:{i}}}x" for i in range(1, 6)
        ]

    def test_words_that_xml_cannot_hold_do_no_harm(self):
        out, _ = add_mark(
            None, source_type=COMPOSITE, tool="t", when="w", details="a\0b\x1b<&\udcff"
        )
        root = ElementTree.fromstring(out)
        assert root.findtext(f".//{EVENT}parameters") == "a?b?<&?"

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
    def test_of_every_kind_of_source_is_kept(self, tmp_path, picture, kind):
        source, path = packet('<dc:creator>"Ann"</dc:creator>'), tmp_path / "a"
        how: dict[str, Any] = {"xmp": source}
        if kind == "PNG":
            how = {"pnginfo": (info := PngInfo())}
            info.add_itxt("XML:com.adobe.xmp", source.decode())
        if kind == "TIFF":
            how = {"tiffinfo": {700: source}}
        Image.fromarray(picture).save(path, kind, **how)
        for name in ("b.png", "b.jpg"):
            edited(path, tmp_path / name)
            with Image.open(tmp_path / name) as image:
                assert b'<dc:creator>"Ann"</dc:creator>' in image.info["xmp"]

    def test_too_long_for_a_jpeg_leaves_the_mark(self, tmp_path, picture):
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", packet(f"<own:a>{'x' * 70000}</own:a>").decode())
        Image.fromarray(picture).save(tmp_path / "a.png", pnginfo=info)
        _, receipt = edited(tmp_path / "a.png", tmp_path / "b.jpg")
        assert any("too long for a JPEG" in note for note in receipt["notes"])
        _, receipt = edited(tmp_path / "a.png", tmp_path / "b.png")
        assert not any("XMP" in note for note in receipt["notes"])
        assert b"x" * 70000 in (tmp_path / "b.png").read_bytes()
