"""Regions in XMP that name who or what is seen there, and the names of those that a hole covers.

- Sources: Metadata Working Group, Guidelines 2.0 (mwg-rs); Microsoft People Tagging (MP); IPTC
  Photo Metadata 2023 (ImageRegion, PersonInImage). ACDSee's regions are laid out as in MWG.
- A region of which the hole covers half or more goes, and its name also from the lists of people
  and from the keywords. One that is only touched stays, and so does a name without a place: a note
  says how many there are of each. No note repeats a name.
- Whether a region is placed in the stored or in the upright picture differs from program to
  program, so for a turned photo the caller counts as covered what is so in either.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple
from xml.etree.ElementTree import Element

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_LISTS = {"RegionList", "Regions", "ImageRegion"}
_NAMES = {"Name", "PersonDisplayName", "PersonInImage", "PersonName"}
_PEOPLE = {"PersonInImage", "PersonInImageWDetails", "People"}
_KEYWORDS = {"subject", "hierarchicalSubject", "TagsList", "LastKeywordXMP"}
_MOSTLY = 0.5


class Rectangle(NamedTuple):
    """Of a picture, in shares of its width and height."""

    left: float
    top: float
    right: float
    bottom: float


def strike_covered(parts: list[Element], covered: Callable[[Rectangle], float]) -> list[str]:
    """Take covered regions and their names out of an XMP packet's descriptions; notes, in words.

    covered: the share of a rectangle that is hole, 0..1.
    """
    names: set[str] = set()
    num_struck = num_touched = num_unplaced = 0
    for items in list(_items(parts, _LISTS)):
        for item in list(items):
            where = _rectangle(item)
            share = 0.0 if where is None else covered(where)
            num_unplaced += where is None
            num_touched += 0 < share < _MOSTLY
            if share >= _MOSTLY:
                num_struck += 1
                names |= _names(item)
                items.remove(item)
    _strike_names(parts, names)
    people = sum(len(items) for items in _items(parts, _PEOPLE))
    counts = {
        "XMP: {} of what was removed left out, with {} name(s)": num_struck,
        "XMP: {} of what the hole touches kept; look whether it still holds": num_touched,
        "XMP: {} of unknown place kept; look whether it still holds": num_unplaced,
    }
    notes = [
        text.format(f"{n} region{'s'[: n > 1]}", len(names)) for text, n in counts.items() if n
    ]
    if people:
        notes.append(f"XMP: {people} name(s) of people kept; look whether they are still seen")
    return notes


def _strike_names(parts: list[Element], names: set[str]) -> None:
    for items in list(_items(parts, _PEOPLE | _KEYWORDS)):
        for item in list(items):
            said = _names(item) or {_leaf(text) for text in _texts(item)}
            if said & names:
                items.remove(item)


def _leaf(keyword: str) -> str:
    """The name in a keyword that stands in a hierarchy: "People|Ann" and "People/Ann" are Ann."""
    return keyword.replace("|", "/").rpartition("/")[2].strip()


def _items(parts: list[Element], holders: set[str]) -> Iterator[Element]:
    """The Bag, Seq or Alt of each property that is called one of `holders`."""
    for part in parts:
        for element in part.iter():
            if _local(element.tag) in holders:
                yield from (child for child in element if child.tag.startswith(_RDF))


def _rectangle(item: Element) -> Rectangle | None:
    """Where a region lies; None where it does not say so in a way that is known here."""
    said = dict(_values(item))
    try:
        if "Rectangle" in said:  # MP: left, top, width, height
            left, top, width, height = map(float, said["Rectangle"].split(","))
        elif "rbX" in said:  # IPTC: left, top, width, height, or the centre and a radius
            if said.get("rbUnit") != "relative":
                return None
            left, top = float(said["rbX"]), float(said["rbY"])
            if "rbRx" in said:
                radius = float(said["rbRx"])
                left, top, width, height = left - radius, top - radius, 2 * radius, 2 * radius
            else:
                width, height = float(said["rbW"]), float(said["rbH"])
        else:  # MWG: the centre, with width and height, or a diameter
            if said.get("unit", "normalized") != "normalized":
                return None
            width = float(said.get("w") or said.get("d") or 0)
            height = float(said.get("h") or said.get("d") or 0)
            left, top = float(said["x"]) - width / 2, float(said["y"]) - height / 2
    except (KeyError, ValueError):
        return None
    found = Rectangle(left, top, left + width, top + height)
    return found if all(-2 < value < 3 for value in found) else None  # not for NaN either


def _names(item: Element) -> set[str]:
    found = {text for key, text in _values(item) if key in _NAMES}
    for element in item.iter():
        if _local(element.tag) in _NAMES:
            found |= set(_texts(element))
    return found


def _values(item: Element) -> Iterator[tuple[str, str]]:
    """Name, without its namespace, and text of every property below, however it is written."""
    for element in item.iter():
        yield from ((_local(key), text.strip()) for key, text in element.attrib.items())
        if element.text and element.text.strip():
            yield _local(element.tag), element.text.strip()


def _texts(element: Element) -> list[str]:
    return [text for text in map(str.strip, element.itertext()) if text]


def _local(name: str) -> str:
    return name.rpartition("}")[2]
