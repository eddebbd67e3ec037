"""Remove the regions of XMP that a hole covers, with the names of the people in them.

- Sources: Metadata Working Group, Guidelines 2.0 (mwg-rs); Microsoft People Tagging (MP); IPTC
  Photo Metadata 2023 (ImageRegion, PersonInImage). ACDSee's regions have the layout of MWG.
- A region of which the hole covers half or more is removed, and its name also from the lists of
  people and from the keywords. A region that the hole only touches is kept, and so is a name
  without a region; notes say how many there are of each. No note repeats a name.
- Some programs place regions in the stored picture and some in the upright one, so for a rotated
  photo the caller counts a region as covered where it is covered in either.
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
    """A part of a picture, in shares of its width and height."""

    left: float
    top: float
    right: float
    bottom: float


def remove_covered(parts: list[Element], covered: Callable[[Rectangle], float]) -> list[str]:
    """Remove covered regions and their names from an XMP packet's descriptions; returns notes.

    covered: gives the share of a rectangle that is hole, 0..1.
    """
    names: set[str] = set()
    num_struck = num_touched = num_unplaced = 0
    for items in list(_find_items(parts, _LISTS)):
        for item in list(items):
            where = _read_rectangle(item)
            share = 0.0 if where is None else covered(where)
            num_unplaced += where is None
            num_touched += 0 < share < _MOSTLY
            if share >= _MOSTLY:
                num_struck += 1
                names |= _read_names(item)
                items.remove(item)
    _remove_names(parts, names)
    people = sum(len(items) for items in _find_items(parts, _PEOPLE))
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


def _remove_names(parts: list[Element], names: set[str]) -> None:
    for items in list(_find_items(parts, _PEOPLE | _KEYWORDS)):
        for item in list(items):
            said = _read_names(item) or {_strip_hierarchy(text) for text in _read_texts(item)}
            if said & names:
                items.remove(item)


def _strip_hierarchy(keyword: str) -> str:
    """The last name of a hierarchical keyword: "People|Ann" and "People/Ann" give Ann."""
    return keyword.replace("|", "/").rpartition("/")[2].strip()


def _find_items(parts: list[Element], holders: set[str]) -> Iterator[Element]:
    """The Bag, Seq or Alt of each property whose name is in `holders`."""
    for part in parts:
        for element in part.iter():
            if _strip_namespace(element.tag) in holders:
                yield from (child for child in element if child.tag.startswith(_RDF))


def _read_rectangle(item: Element) -> Rectangle | None:
    """The place of a region; None where it has none in a known format."""
    said = dict(_read_values(item))
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


def _read_names(item: Element) -> set[str]:
    found = {text for key, text in _read_values(item) if key in _NAMES}
    for element in item.iter():
        if _strip_namespace(element.tag) in _NAMES:
            found |= set(_read_texts(element))
    return found


def _read_values(item: Element) -> Iterator[tuple[str, str]]:
    """Name, without its namespace, and text of every property below, as attribute or element."""
    for element in item.iter():
        yield from ((_strip_namespace(key), text.strip()) for key, text in element.attrib.items())
        if element.text and element.text.strip():
            yield _strip_namespace(element.tag), element.text.strip()


def _read_texts(element: Element) -> list[str]:
    return [text for text in map(str.strip, element.itertext()) if text]


def _strip_namespace(name: str) -> str:
    return name.rpartition("}")[2]
