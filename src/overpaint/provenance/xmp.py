"""The mark in XMP: read an XMP packet, add the mark to it, write it again.

- Sources: ISO 16684-1 (XMP), IPTC Photo Metadata 2023 (`DigitalSourceType` and its vocabulary).
- All other properties keep their meaning and their namespace prefixes. The new entry of the history
  names what the mark replaces (an earlier source type or tool).
- Properties that contain or point to pictures of the photo before the edit are left out, at any
  depth: pages and ingredients have thumbnails, too. So are those that describe a video, a gain map
  or another picture that the edited file does not have, and every value that is a picture in
  Base64, whatever its name.
- Regions that the hole covers are removed, with their names: `overpaint.provenance.people`.
- A packet is untrusted XML: document types, and with them entities, are refused, and the depth is
  limited. A packet that cannot be read is replaced by one with the mark alone.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement
from xml.sax.saxutils import escape, quoteattr

from overpaint.provenance.people import Rectangle, remove_covered

VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED = VOCABULARY + "trainedAlgorithmicMedia"
"""A picture that a trained network made (IPTC digital source type)."""
COMPOSITE = VOCABULARY + "compositeWithTrainedAlgorithmicMedia"
"""A photo of which a trained network made a part (likewise)."""
HUMAN_EDITS = VOCABULARY + "humanEdits"
"""A photo that a person edited with tools that are not generative (likewise)."""

_BY_NETWORKS = re.compile(rb"(?<![A-Za-z])(t|compositeWithT)rainedAlgorithmicMedia(?![A-Za-z])")
_SYNTHETIC = {VOCABULARY + term for term in ("compositeSynthetic", "algorithmicMedia")}

_X = "adobe:ns:meta/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XMP = "http://ns.adobe.com/xap/1.0/"
_MM = "http://ns.adobe.com/xap/1.0/mm/"
_EVENT = "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_PREFIXES = {
    "http://www.w3.org/XML/1998/namespace": "xml",
    _X: "x",
    _RDF: "rdf",
    _XMP: "xmp",
    _MM: "xmpMM",
    _EVENT: "stEvt",
    _IPTC: "Iptc4xmpExt",
}
_SOURCE_TYPE, _TOOL = f"{{{_IPTC}}}DigitalSourceType", f"{{{_XMP}}}CreatorTool"
_HISTORY, _AGENT = f"{{{_MM}}}History", f"{{{_EVENT}}}softwareAgent"
_RDF_ROOT, _DESCRIPTION, _ABOUT = f"{{{_RDF}}}RDF", f"{{{_RDF}}}Description", f"{{{_RDF}}}about"
# Thumbnails, and data that phones append: original, depth map, sound, files, video, gain map.
# A key that ends in "}" means a whole namespace, one that ends in "*" all names with that prefix.
_PICTURES = {
    f"{{{_XMP}}}Thumbnails": "thumbnails",
    "{http://ns.adobe.com/xap/1.0/g/img/}": "thumbnails",
    "{http://ns.google.com/photos/1.0/image/}": "original",
    "{http://ns.google.com/photos/1.0/depthmap/}": "depth map",
    "{http://ns.google.com/photos/dd/1.0/device/}": "depth map",
    "{http://ns.google.com/photos/1.0/audio/}": "sound",
    "{http://ns.google.com/photos/1.0/container/}": "list of appended files",
    "{http://ns.google.com/photos/1.0/camera/}MotionPhoto*": "mark of a motion photo",
    "{http://ns.google.com/photos/1.0/camera/}MicroVideo*": "mark of a motion photo",
    "{http://ns.adobe.com/hdr-gain-map/1.0/}": "gain map",
    "{http://ns.apple.com/HDRGainMap/1.0/}": "gain map",
    "{http://ns.adobe.com/xmp/note/}HasExtendedXMP": "link to extended XMP",
}
# JPEG, PNG, GIF, WebP or TIFF in Base64, with or without "data:...," in front.
_PICTURE = re.compile(
    r"\s*(data:[^,]{1,99},\s*)?(/9j/|iVBORw0KGgo|R0lGOD|UklGR|SUkqA|TU0AK)[A-Za-z0-9+/=\s]{48,}"
)
_OTHER = "picture"
_MAX_DEPTH = 100


@dataclass(frozen=True, slots=True)
class Mark:
    """What a packet says of how the picture was made; None and () where it says nothing."""

    source_type: str | None
    tool: str | None
    agents: tuple[str, ...]


def add_mark(
    packet: bytes | None,
    *,
    source_type: str,
    tool: str,
    when: str | None,
    details: str,
    covered: Callable[[Rectangle], float] | None = None,
) -> tuple[bytes, list[str]]:
    """The packet with the mark, as UTF-8, and notes on what could not be kept.

    source_type: the IPTC digital source type. tool: name and version. when: ISO 8601; None leaves
    the time out, for reproducible files. details: of this edit, for the history. covered: see
    `people.remove_covered`.
    """
    notes: list[str] = []
    prefixes = dict(_PREFIXES)
    try:
        root = _parse(packet, prefixes) if packet else _make_empty()
    except ValueError as error:
        notes.append(f"XMP replaced by the mark alone, because it could not be read ({error})")
        root = _make_empty()
    parts = _find_descriptions(root)
    for key, value, label in (
        (_SOURCE_TYPE, source_type, "Iptc4xmpExt:DigitalSourceType"),
        (_TOOL, tool, "xmp:CreatorTool"),
    ):
        before = [old for old in _take(parts, key) if old not in ("", value)]
        SubElement(parts[0], key).text = value
        if before:
            details += f"; {label} was {', '.join(before)}"
            notes.append(f"XMP: {label} was {', '.join(before)}")
    gone = set(_remove_pictures(root))
    named = (what for what in dict.fromkeys([*_PICTURES.values(), _OTHER]) if what in gone)
    notes += [f"XMP: {what} left out, which is of the photo before the edit" for what in named]
    if covered is not None:
        notes += remove_covered(parts, covered)
    event = SubElement(_find_events(parts), f"{{{_RDF}}}li", {f"{{{_RDF}}}parseType": "Resource"})
    for key, text in (("action", "edited"), ("softwareAgent", tool), ("when", when)):
        if text is not None:
            SubElement(event, f"{{{_EVENT}}}{key}").text = text
    SubElement(event, f"{{{_EVENT}}}parameters").text = _replace_unprintable(details)
    return _write(root, prefixes), notes


def choose_source_type(
    *, trained: bool, packet: bytes | None = None, manifests: bytes | None = None
) -> str:
    """The digital source type of a photo that was filled in.

    trained: by a trained network, not by a method without weights. packet, manifests: XMP and C2PA
    manifests of the source, unchecked. What they say of networks and synthetic parts is never
    weakened: it holds for the rest of the picture.
    """
    try:
        said = read_mark(packet).source_type
    except ValueError:
        said = None
    said = VOCABULARY + said.rstrip("/").rpartition("/")[2] if said else None
    if said == GENERATED:
        return GENERATED
    if trained or any(_BY_NETWORKS.search(found or b"") for found in (packet, manifests)):
        return COMPOSITE
    return said if said in _SYNTHETIC else HUMAN_EDITS


def read_mark(packet: bytes | None) -> Mark:
    """Raises `ValueError` for a packet that cannot be read."""
    if not packet:
        return Mark(None, None, ())
    parts = _find_descriptions(_parse(packet, {}))
    agents = []
    for history in (part.find(_HISTORY) for part in parts):
        for element in history.iter() if history is not None else ():
            agents += [text for key, text in _read_properties(element) if key == _AGENT]
    return Mark(_find_first(parts, _SOURCE_TYPE), _find_first(parts, _TOOL), tuple(agents))


class _Builder(ElementTree.TreeBuilder):
    """Collects prefixes; refuses document types and deep nesting."""

    def __init__(self, prefixes: dict[str, str]) -> None:
        super().__init__()
        self.prefixes, self.depth = prefixes, 0

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError(f"it declares a document type, {name}")

    def start_ns(self, prefix: str, uri: str) -> None:
        if prefix and prefix not in self.prefixes.values():
            self.prefixes.setdefault(uri, prefix)

    def start(self, tag: str, attrs: dict[str, str]) -> Element:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")
        return super().start(tag, attrs)

    def end(self, tag: str) -> Element:
        self.depth -= 1
        return super().end(tag)


def _parse(packet: bytes, prefixes: dict[str, str]) -> Element:
    if packet[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        packet = packet[: packet.rfind(b">") + 1]  # some writers fill up with NULs
    parser = ElementTree.XMLParser(target=_Builder(prefixes))
    try:
        parser.feed(packet)
        root = parser.close()
    except (ElementTree.ParseError, LookupError) as error:  # LookupError: unknown encoding
        raise ValueError(str(error)) from error
    if root.tag != _RDF_ROOT and root.find(f".//{_RDF_ROOT}") is None:
        raise ValueError("it holds no RDF")
    return root


def _make_empty() -> Element:
    root = Element(f"{{{_X}}}xmpmeta")
    SubElement(SubElement(root, _RDF_ROOT), _DESCRIPTION, {_ABOUT: ""})
    return root


def _find_descriptions(root: Element) -> list[Element]:
    """The elements that have properties, as attributes or as elements below; at least one."""
    rdf = root if root.tag == _RDF_ROOT else root.find(f".//{_RDF_ROOT}")
    assert rdf is not None, "_parse and _empty see to it"
    return rdf.findall(_DESCRIPTION) or [SubElement(rdf, _DESCRIPTION, {_ABOUT: ""})]


def _read_properties(part: Element) -> Iterator[tuple[str, str]]:
    yield from part.attrib.items()
    for child in part:
        yield child.tag, (child.text or "").strip() or child.get(f"{{{_RDF}}}resource", "")


def _find_first(parts: list[Element], key: str) -> str | None:
    return next((text for part in parts for k, text in _read_properties(part) if k == key), None)


def _take(parts: list[Element], key: str) -> list[str]:
    """Remove a property; returns its values."""
    taken = []
    for part in parts:
        taken += [text for k, text in _read_properties(part) if k == key]
        part.attrib.pop(key, None)
        for child in part.findall(key):
            part.remove(child)
    return taken


def _remove_pictures(element: Element) -> Iterator[str]:
    """Remove what `_PICTURES` names and pictures in Base64, at any depth; yields what they are."""
    for name in list(element.attrib):
        if what := _name_picture(name, element.attrib[name]):
            del element.attrib[name]
            yield what
    for child in list(element):
        if what := _name_picture(child.tag, child.text or ""):
            element.remove(child)
            yield what
        else:
            yield from _remove_pictures(child)


def _name_picture(name: str, text: str) -> str | None:
    """What a property has of the photo before the edit; None for any other property."""
    known = (what for key, what in _PICTURES.items() if _matches(name, key))
    return next(known, _OTHER if _PICTURE.match(text) else None)


def _matches(name: str, key: str) -> bool:
    return name.startswith(key.rstrip("*")) if key.endswith(("}", "*")) else name == key


def _find_events(parts: list[Element]) -> Element:
    """The list of the history, made where there is none."""
    history = next((h for part in parts if (h := part.find(_HISTORY)) is not None), None)
    if history is None:
        history = SubElement(parts[0], _HISTORY)
    return history[0] if len(history) else SubElement(history, f"{{{_RDF}}}Seq")


def _replace_unprintable(text: str) -> str:
    """With "?" for control characters and bytes that are no text, which XML cannot hold."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _write(root: Element, prefixes: dict[str, str]) -> bytes:
    names = {n for e in root.iter() for n in (e.tag, *e.attrib) if n.startswith("{")}
    spaces = sorted({name[1:].partition("}")[0] for name in names})
    free = (p for n in count() if (p := f"ns{n}") not in prefixes.values())
    for space in spaces:
        prefixes[space] = prefixes.get(space) or next(free)
    declared = "".join(
        f" xmlns:{prefixes[space]}={quoteattr(space)}"
        for space in spaces
        if prefixes[space] != "xml"
    )
    body = "".join(_write_element(root, prefixes, declared))
    text = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    return f'{text}{body}\n<?xpacket end="w"?>'.encode()


def _write_element(element: Element, prefixes: dict[str, str], declared: str = "") -> Iterator[str]:
    tag = _name(element.tag, prefixes)
    given = "".join(f" {_name(k, prefixes)}={quoteattr(v)}" for k, v in element.attrib.items())
    yield f"<{tag}{declared}{given}>{escape(element.text or '')}"
    for child in element:
        yield from _write_element(child, prefixes)
        yield escape(child.tail or "")
    yield f"</{tag}>"


def _name(name: str, prefixes: dict[str, str]) -> str:
    space, _, local = name[1:].rpartition("}")
    return f"{prefixes[space]}:{local}" if name.startswith("{") else name
