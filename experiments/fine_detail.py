"""Differences between real fills and photos: fine detail of luma and colours, in both.

    python experiments/fine_detail.py --data DATA

- For each group of triplets, on the choice half, the only one used for hypotheses: the deviation
  in grey levels of bands of detail (differences of Gaussians), median over pictures of a robust
  estimate, first for the known pixels, then for the fill.
- Also the pixel AUC of a single number: the ratio of the colours' residual to the luma's in a
  window. Nothing is trained.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from overpaint.errors import OverpaintError

ROOT = Path(__file__).parents[1]
BANDS = ((0.0, 0.7), (0.7, 1.4), (1.4, 2.8))
"""Sigmas of the two Gaussians, pixels."""
WINDOW = 15  # pixels
LUMA = (0.299, 0.587, 0.114)
RESIDUAL = ((-1, 2, -1), (2, -4, 2), (-1, 2, -1))
"""The first SRM kernel; see layers/highpass.py."""


def main(
    data: Annotated[Path, typer.Option("--data", help="Folder with triplets/.")],
    half: Annotated[str, typer.Option(help="Of the triplets: choice or report.")] = "choice",
) -> None:
    """Print two tables in Markdown."""
    from overpaint.evaluation.triplets import HEADLINE, read_triplets
    from overpaint.images import read_image, read_mask
    from overpaint.metrics import pixel_auc

    deviations: dict[str, list[list[float]]] = defaultdict(list)
    aucs: dict[str, list[list[float]]] = defaultdict(list)
    for triplet in read_triplets(data, HEADLINE):
        if triplet.half != half:
            continue
        pixels = read_image(triplet.inpainted).pixels.astype(np.float64)
        mask = read_mask(triplet.mask, size=pixels.shape[:2])
        deviations[triplet.group].append(list(band_deviations(pixels, mask == 1)))
        aucs[triplet.group].append([pixel_auc(x, mask) for x in energies(pixels).values()])
    bands = ", ".join(f"{low:g} to {high:g}" for low, high in BANDS)
    show(f"deviation by band ({bands} pixels), known / fill", ("luma", "R - G"), deviations)
    show("pixel AUC of one number", ("luma", "colours", "colours / luma"), aucs)


def planes(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Luma and colour differences, (h, w) each, of pixels (h, w, 3)."""
    red, green, blue = pixels.transpose(2, 0, 1)
    return {"luma": pixels @ np.array(LUMA), "R - G": red - green, "B - G": blue - green}


def band_deviations(pixels: np.ndarray, mask: np.ndarray) -> Iterator[float]:
    """Known, fill, for each band of luma and of R - G; 1.48 times the median absolute value."""
    from scipy.ndimage import gaussian_filter

    of = planes(pixels)
    for name in ("luma", "R - G"):
        blurred = {s: gaussian_filter(of[name], s) if s else of[name] for b in BANDS for s in b}
        for low, high in BANDS:
            band = np.abs(blurred[low] - blurred[high])
            yield from (1.48 * float(np.median(band[where])) for where in (~mask, mask))


def energies(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Logarithm of the mean residual in a window, (h, w): luma, colours, and their difference."""
    from scipy.ndimage import convolve, uniform_filter

    kernel = np.array(RESIDUAL) / 4
    sizes = {name: np.abs(convolve(x, kernel)) for name, x in planes(pixels).items()}
    luma, colours = (
        np.log(uniform_filter(x, WINDOW) + 0.05)
        for x in (sizes["luma"], sizes["R - G"] + sizes["B - G"])
    )
    return {"luma": luma, "colours": colours, "colours / luma": colours - luma}


def show(title: str, headings: tuple[str, ...], groups: dict[str, list[list[float]]]) -> None:
    """A line for each group: medians (of deviations, in pairs) or means (of AUCs)."""
    typer.echo(f"\n| {title} | n | " + " | ".join(headings) + " |")
    typer.echo("| --- |" + " ---: |" * (1 + len(headings)))
    for group, rows in groups.items():
        values = np.array(rows)
        if values.shape[1] == len(headings):
            cells = [f"{x:.3f}" for x in values.mean(axis=0)]
        else:
            pairs = np.median(values, axis=0).reshape(len(headings), -1, 2)
            cells = [", ".join(f"{a:.2f} / {b:.2f}" for a, b in plane) for plane in pairs]
        typer.echo(f"| {group} | {len(rows)} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    try:
        typer.run(main)
    except OverpaintError as error:
        raise SystemExit(str(error)) from error
