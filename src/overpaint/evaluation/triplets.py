"""The triplets: pictures filled in by real networks (original, mask, inpainted), by group.

- Read from `triplets/index.csv` in a data folder; its paths are relative to that folder.
- A development test set: nothing is trained on it.
- Pictures go in whole, at native resolution; those above 512 px go through in tiles.
- The headline is the mean of four groups' mean pixel AUC, so that each group has the same weight
  whatever its number of pictures.
- Two halves, by source picture, so that no photo is in both: one may be looked at to choose between
  networks ("choice"), the other is kept for what is reported ("report"). See `halves`.
"""

import csv
import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from torch import nn

from overpaint.detection.tiles import tiled
from overpaint.errors import ImageError
from overpaint.images import read_image, read_mask
from overpaint.metrics import Means, pixel_auc

HEADLINE = ("madf", "crfill256", "deepfillv1", "sd2_fill")
GROUPS = (*HEADLINE, "crfill_jpeg", "sd2_replace", "patchmatch_misc")
WHOLE_SIDE = 512

Half = Literal["choice", "report"]
HALVES: tuple[Half, ...] = ("choice", "report")
SOURCES = {"IA_replace_bus": "IA_fill_sample4", "IA_replace_dog": "IA_fill_sample1"}
"""Source picture of the triplets that share one, by their ids; otherwise the id stands for it."""


@dataclass(frozen=True, slots=True)
class Triplet:
    """One picture. Mask: white = inpainted. There is not always an original."""

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
        half_of = halves((_group(row), _source(row)) for row in rows)
        found = [_triplet(root, row, half_of[_source(row)]) for row in rows]
    except OSError as error:
        raise ImageError(
            f"{index}: cannot be read ({error.strerror}); name the data folder that holds triplets/"
        ) from error
    except KeyError as error:
        raise ImageError(f"{index}: has no column {error}; fetch the index again") from error
    return [t for t in found if t.group in groups]


def halves(pictures: Iterable[tuple[str, str]]) -> dict[str, Half]:
    """The half of each source, from (group, source) of every triplet.

    Each group is divided evenly, an odd one with one more for the report. The order of the
    sources' SHA-256 decides; small groups come first, as a source of two groups is decided once.
    """
    groups: dict[str, set[str]] = defaultdict(set)
    for group, source in pictures:
        groups[group].add(source)
    decided: dict[str, Half] = {}
    for sources in sorted(groups.values(), key=lambda s: (len(s), min(s))):
        reported = [s for s in sources if decided.get(s) == "report"]
        left = (len(sources) + 1) // 2 - len(reported)
        free = sorted(sources - decided.keys(), key=lambda s: hashlib.sha256(s.encode()).digest())
        decided |= {s: "report" if i < left else "choice" for i, s in enumerate(free)}
    return decided


def _source(row: dict[str, str]) -> str:
    return SOURCES.get(row["id"], row["id"])


def _triplet(root: Path, row: dict[str, str], half: Half) -> Triplet:
    original = root / row["original"] if row["original"] else None
    paths = root / row["inpainted"], root / row["mask"], original
    return Triplet(_group(row), row["id"], *paths, half)


def _group(row: dict[str, str]) -> str:
    method = row["method"]
    if method == "crfill":  # its object removals are large and saved as JPEG
        return "crfill256" if row["inpainted"].endswith(".png") else "crfill_jpeg"
    if method == "sd2_inpaint":
        return "sd2_fill" if row["id"].startswith("IA_fill_sample") else "sd2_replace"
    return method


def logits_of(module: nn.Module, pixels: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Logits float32 (h, w) of a photo uint8 (h, w, 3): whole up to 512 px, otherwise in tiles."""
    stride = int(getattr(module, "stride", 8))
    return tiled(module, pixels, tile=WHOLE_SIDE, overlap=64, stride=stride, device=device)


def quick_auc(
    module: nn.Module,
    data_dir: str | Path,
    device: str = "cpu",
    groups: Collection[str] = tuple(g for g in GROUPS if g != "crfill_jpeg"),
    half: Half | None = None,
) -> dict[str, float]:
    """Mean pixel AUC of each group, and as "mean" that of the four (NaN unless all are there).

    For measuring a network in training, which must be on `device`; its mode is restored. The seven
    large photos of crfill_jpeg are as many pixels as all others together: ask for them by `groups`.
    half: of the pictures; None for all.
    """
    aucs = Means()
    was_training = module.training
    module.eval()
    try:
        for triplet in read_triplets(data_dir, groups):
            if half not in (None, triplet.half):
                continue
            pixels = read_image(triplet.inpainted).pixels
            mask = read_mask(triplet.mask, size=pixels.shape[:2])
            auc = pixel_auc(logits_of(module, pixels, device), mask)
            aucs.update({triplet.group: auc})
    finally:
        module.train(was_training)
    means = aucs.compute()
    return {**means, "mean": float(np.mean([means.get(g, np.nan) for g in HEADLINE]))}
