"""Every set that a recipe takes by name has its entry, and docs/data.md has it too."""

from pathlib import Path

from overpaint.data import mask_sets, pair_sets, photo_sets
from overpaint.data.named_sets import list_named_sets

OWN = {"folder", "folder-black", "objects", "json"}
"""Of the user's own making."""


def test_every_name_has_an_entry() -> None:
    found = {
        kind: {s.name for s in list_named_sets() if s.kind == kind} for kind in ("photos", "pairs")
    }
    assert found["photos"] == set(photo_sets.LAYOUTS)
    assert found["pairs"] == set(pair_sets.SETS) - OWN
    masks = {s.name for s in list_named_sets() if s.kind == "masks"}
    assert masks == set(mask_sets.FILES) - OWN


def test_the_page_shows_them() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    for each in list_named_sets():
        assert f"`{each.spec}`" in page
        assert each.address in page
        assert each.unchecked in page.replace("\n", " ")
