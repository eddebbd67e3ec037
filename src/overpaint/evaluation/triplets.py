"""The triplets: pictures filled in by real networks (original, mask, inpainted), by group.

- Read from `triplets/index.csv` in a data folder; its paths are relative to that folder.
- A development test set: nothing is trained on it.
- The headline is the mean of four groups' mean pixel AUC, so that each group has the same weight
  whatever its number of pictures.
- Two halves, divided by source picture, so that no photo is in both: one to choose between networks
  ("choice"), the other for the figures that are reported ("report"). See `assign_halves`.
"""

import csv
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from overpaint import hashes
from overpaint.errors import ImageError

HEADLINE = ("madf", "crfill256", "deepfillv1", "sd2_fill")
GROUPS = (*HEADLINE, "crfill_jpeg", "sd2_replace", "patchmatch_misc")

Half = Literal["choice", "report"]
HALVES: tuple[Half, ...] = ("choice", "report")
SOURCES = {"IA_replace_bus": "IA_fill_sample4", "IA_replace_dog": "IA_fill_sample1"}
"""By a triplet's id its source picture, where several triplets share it; otherwise it is the id."""


@dataclass(frozen=True, slots=True)
class Triplet:
    """One picture. Mask: white = inpainted. original: None where there is none."""

    group: str
    id: str
    inpainted: Path
    mask: Path
    original: Path | None
    half: Half


def read_triplets(data_dir: str | Path, groups: Collection[str] = GROUPS) -> list[Triplet]:
    """The triplets of `groups` under a data folder, in the order of its index.

    Raises ImageError when the index is missing or lacks a column.
    """
    root = Path(data_dir)
    index = root / "triplets" / "index.csv"
    try:
        with index.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        half_of = assign_halves((_find_group(row), find_source(row["id"])) for row in rows)
        found = [_make_triplet(root, row, half_of[find_source(row["id"])]) for row in rows]
    except OSError as error:
        raise ImageError(
            f"{index}: cannot be read ({error.strerror}); name the data folder that holds triplets/"
        ) from error
    except KeyError as error:
        raise ImageError(f"{index}: has no column {error}; fetch the index again") from error
    return [t for t in found if t.group in groups]


def assign_halves(pictures: Iterable[tuple[str, str]]) -> dict[str, Half]:
    """The half of each source, from (group, source) of every triplet.

    Each group is divided evenly; of an odd number the report half gets one more. The order of the
    sources' SHA-256 decides. Small groups come first, because a source of two groups is assigned
    only once.
    """
    groups: dict[str, set[str]] = defaultdict(set)
    for group, source in pictures:
        groups[group].add(source)
    decided: dict[str, Half] = {}
    for sources in sorted(groups.values(), key=lambda s: (len(s), min(s))):
        reported = [s for s in sources if decided.get(s) == "report"]
        left = (len(sources) + 1) // 2 - len(reported)
        free = sorted(sources - decided.keys(), key=lambda s: hashes.sha256(s.encode()))
        decided |= {s: "report" if i < left else "choice" for i, s in enumerate(free)}
    return decided


def find_source(name: str) -> str:
    """Source picture of a triplet, by its id."""
    return SOURCES.get(name, name)


def _make_triplet(root: Path, row: dict[str, str], half: Half) -> Triplet:
    original = root / row["original"] if row["original"] else None
    paths = root / row["inpainted"], root / row["mask"], original
    return Triplet(_find_group(row), row["id"], *paths, half)


def _find_group(row: dict[str, str]) -> str:
    method = row["method"]
    if method == "crfill":  # its object removals are large and saved as JPEG
        return "crfill256" if row["inpainted"].endswith(".png") else "crfill_jpeg"
    if method == "sd2_inpaint":
        return "sd2_fill" if row["id"].startswith("IA_fill_sample") else "sd2_replace"
    return method
