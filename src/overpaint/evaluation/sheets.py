"""Contact sheets: one PNG with a row for each picture and a column for each view of it.

`Album` keeps the best and the worst pictures of each set while a part of the benchmark measures
them, so that each is measured once and few are in memory.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from overpaint.detection.calibration import Judgement
from overpaint.detection.report import draw_overlay

LABEL, GAP = 24, 4  # height of a line of text and space between pictures, pixels
SIDE = 384
"""Longest side of a picture on a sheet, pixels; larger ones are scaled down."""
TITLES = ("picture", "true mask", "heatmap", "found, outlined at the default threshold")

SheetRow = list[np.ndarray]
"""Pictures beside each other: uint8 (h, w, 3)."""


def draw_sheet(
    rows: Sequence[SheetRow], titles: Sequence[str], labels: Sequence[str]
) -> np.ndarray:
    """The pictures, all uint8 (h, w, 3), with titles above and a label over each row.

    Returns uint8 (rows * (h + LABEL + GAP) + LABEL, columns * (w + GAP) - GAP, 3), where h and w
    are the largest height and width. Smaller pictures are at the upper left of their cells.
    """
    height, width = (max(p.shape[axis] for row in rows for p in row) for axis in (0, 1))
    columns, step = len(titles), height + LABEL + GAP
    page = Image.new("RGB", (columns * (width + GAP) - GAP, len(rows) * step + LABEL), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=LABEL // 2)
    for j, title in enumerate(titles):
        draw.text((j * (width + GAP), LABEL // 4), title, fill="black", font=font)
    for i, (row, label) in enumerate(zip(rows, labels, strict=True)):
        top = LABEL + i * step
        draw.text((0, top + LABEL // 4), label, fill="black", font=font)
        for j, picture in enumerate(row):
            page.paste(Image.fromarray(picture), (j * (width + GAP), top + LABEL))
    return np.asarray(page)


def draw_heat(logits: np.ndarray) -> np.ndarray:
    """The heatmap: the logits' sigmoid, without overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * logits)


def draw_row(pixels: np.ndarray, mask: np.ndarray | None, judged: Judgement) -> SheetRow:
    """The views of `TITLES`, each side at most `SIDE` pixels.

    pixels: uint8 (h, w, 3). mask: (h, w), 1 = inpainted; None for an untouched picture. judged:
    the detector's result for the picture.
    """
    picture, heatmap = shrink(pixels), shrink(draw_heat(judged.logits).astype(np.float32))
    true = np.zeros(judged.mask.shape, np.uint8) if mask is None else mask
    found = shrink(judged.mask.astype(np.uint8), Image.Resampling.NEAREST)
    views = (shrink(true, Image.Resampling.NEAREST) * np.uint8(255), _to_grey_levels(heatmap))
    colourless = [np.repeat(view[..., None], 3, axis=2) for view in views]
    return [picture, *colourless, draw_overlay(picture, heatmap, found == 1)]


def shrink(
    array: np.ndarray, kernel: Image.Resampling = Image.Resampling.BOX, side: int = SIDE
) -> np.ndarray:
    """An array (h, w) or (h, w, 3), its longer side at most `side` pixels."""
    height, width = array.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return array
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.array(Image.fromarray(array).resize(size, kernel))


def _to_grey_levels(heatmap: np.ndarray) -> np.ndarray:
    return np.rint(heatmap.clip(0, 1) * 255).astype(np.uint8)


@dataclass(slots=True)
class Album:
    """The rows with the highest and the lowest value of each set."""

    num: int = 10
    """Number of rows kept of the highest values, and of the lowest."""
    kept: dict[str, list[tuple[float, str, SheetRow]]] = field(default_factory=dict)
    """(value, label, row) by set, the highest value first."""

    def add(self, name: str, value: float, label: str, row: SheetRow) -> None:
        """Keep a picture of the set `name` if its value is high or low enough; NaN never is."""
        if math.isnan(value):
            return
        rows = self.kept.setdefault(name, [])
        rows.append((value, label, row))
        rows.sort(key=lambda kept: -kept[0])
        del rows[self.num : -self.num]

    def draw_pages(self) -> dict[str, np.ndarray]:
        """The sheet of each set, from the highest value down to the lowest."""
        return {
            name: draw_sheet([row for _, _, row in rows], TITLES, [label for _, label, _ in rows])
            for name, rows in self.kept.items()
        }
