"""Which features find a fill after JPEG? Linear probes, leaving out groups of families.

    python experiments/probe.py DATA FILE_OF_EFFICIENTNET     (recipes/efficientnet.sh fetches it)

A ridge regression is fitted on features of squares of 8 pixels, on the pool "train" of the real
fills. Each feature is its z-score in the photo, and the absolute value of that. Families have equal
weights, and in each photo inpainted and known squares. A family is measured with a regression
fitted without it and related families (the groups of families.sh). This takes minutes instead of
hours of training; it shows which features contain evidence, not how well a trained network would
use them. Rows are written to experiments/probe.csv.
"""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor
from torch.nn import functional as F

from overpaint.data.degrade import jpeg
from overpaint.data.real_fills import read_fills
from overpaint.detectors.nixnet_context import compute_z_scores
from overpaint.errors import OverpaintError
from overpaint.evaluation.families import OF_TRIPLETS
from overpaint.evaluation.triplets import HEADLINE, find_source, read_triplets
from overpaint.images import read_image, read_mask
from overpaint.layers.efficientnet import LiteFeatures, read_lite_features
from overpaint.layers.highpass import SRMFilter
from overpaint.layers.windows import average_windows
from overpaint.metrics import pixel_auc

CELL = 8  # pixels
SIDE = 384  # of the window that is used, pixels
MOST = 8  # pictures of a family and pool, of as many photos as possible
RIDGE = 0.01
# Of one kind, or with fills in the same holes of the same photos, as lama has with cmgan.
GROUPS = (
    ("asymmetric-vqgan", "latent-diffusion", "sd2"),
    ("cmgan", "comodgan", "lama", "profill"),
    ("lbam", "rfr"),
    ("lanpaint", "repaint", "shiftnet"),
)
SETS = {
    "noise": ("noise",),
    "noise at 1 and 1/2": ("noise 1", "noise 2"),
    "noise at 1/4 and 1/8": ("noise 4", "noise 8"),
    "DCT": ("dct",),
    "content": ("content",),
    "content at 1/4": ("content 4",),
    "content at 1/8": ("content 8",),
    "content at 1/16": ("content 16",),
    "content, photo enlarged": ("enlarged",),
    "content, both": ("content", "enlarged"),
    "noise and content": ("noise", "content"),
    "noise, DCT and content": ("noise", "dct", "content"),
}
CONDITIONS = ("as is", "JPEG 85")


def pictures(data: Path) -> Iterator[tuple[str, str, str, np.ndarray, np.ndarray]]:
    """(family, pool, photo, window of the picture, and of its mask)."""
    found = [(f.family, f.pool, f.source, f.read) for f in read_fills(data / "fills")]
    found += [
        (OF_TRIPLETS[t.group], "triplets", find_source(t.id), partial(_read, t.inpainted, t.mask))
        for t in read_triplets(data, HEADLINE)
    ]
    # First photos with few pictures so far.
    times: Counter[tuple[str, str, str]] = Counter()
    ranked = []
    for family, pool, source, read in found:
        ranked.append((times[family, pool, source], family, pool, source, read))
        times[family, pool, source] += 1
    num: Counter[tuple[str, str]] = Counter()
    for _, family, pool, source, read in sorted(ranked, key=lambda row: row[:4]):
        num[family, pool] += 1
        if num[family, pool] <= MOST:
            yield family, pool, source, *window(*read())


def _read(inpainted: Path, mask: Path) -> tuple[np.ndarray, np.ndarray]:
    pixels = read_image(inpainted).pixels
    return pixels, read_mask(mask, size=(pixels.shape[0], pixels.shape[1]))


def window(pixels: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The window whose share of the hole is nearest to 0.4; sides are multiples of 32."""
    height, width = (min(side, SIDE) // 32 * 32 for side in mask.shape)
    tops, lefts = (
        range(0, n - m + 1, 32) for n, m in zip(mask.shape, (height, width), strict=True)
    )
    _, top, left = min(
        (abs(mask[y : y + height, x : x + width].mean() - 0.4), y, x) for y in tops for x in lefts
    )
    square = (slice(top, top + height), slice(left, left + width))
    return np.ascontiguousarray(pixels[square]), np.ascontiguousarray(mask[square])


def features(image: Tensor, network: LiteFeatures) -> dict[str, Tensor]:
    """Maps (1, c, h/8, w/8) of a photo (1, 3, h, w) in [0, 1], by name."""
    residual, size = SRMFilter(), (image.shape[2] // CELL, image.shape[3] // CELL)
    found = {}
    for scale in (1, 2, 4, 8):
        x = F.avg_pool2d(image, scale)
        planes = [x.mean(dim=1, keepdim=True), x[:, :1] - x[:, 1:2], x[:, 2:] - x[:, 1:2]]
        noise = torch.cat([residual.filter_planes(plane) for plane in planes], dim=1).abs()
        noise = F.avg_pool2d(noise, CELL // scale)
        found[f"noise {scale}"] = (average_windows(noise, 3) + 0.01).log()
    blocks = 255 * F.pixel_unshuffle(image.mean(dim=1, keepdim=True), CELL)
    coefficients = torch.einsum("fp,bphw->bfhw", dct_basis(), blocks)[:, 1:].abs()
    found["dct"] = (average_windows(coefficients, 3) + 0.5).log()
    for name, photo in (("content", image), ("enlarged", F.interpolate(image, scale_factor=2.0))):
        for at, x in zip((4, 8, 16), network(photo), strict=True):
            small = x.shape[2] < size[0]
            same = F.interpolate(x, size) if small else F.adaptive_avg_pool2d(x, size)
            found[f"{name} {at}"] = average_windows(same, 3)
    return found


def dct_basis() -> Tensor:
    """(64, 64): the DCT of a block of 8 x 8, row by row."""
    k = torch.arange(CELL)
    line = torch.cos((2 * k + 1) * k[:, None] * torch.pi / (2 * CELL)) / 2
    line[0] /= 2**0.5
    return torch.kron(line, line)


def main(data: Annotated[Path, typer.Argument()], efficientnet: Annotated[Path, typer.Argument()]):
    """Measure all sets of features."""
    torch.set_num_threads(1)
    network = LiteFeatures()
    network.load_state_dict(read_lite_features(efficientnet))
    rows = []
    with torch.inference_mode():
        for family, pool, source, pixels, mask in pictures(data):
            truth = F.avg_pool2d(torch.from_numpy(mask).float()[None, None], CELL).flatten() > 0.5
            if not 0.01 < truth.float().mean() < 0.99:
                continue
            for condition in CONDITIONS:
                shown = jpeg(pixels, 85) if condition == "JPEG 85" else pixels
                image = torch.from_numpy(shown).permute(2, 0, 1)[None].float() / 255
                scored = {}
                for name, x in features(image, network).items():
                    z = compute_z_scores(x, ())[0].flatten(1)
                    scored[name] = torch.cat([z, z.abs()]).half()
                rows.append((family, pool, source, condition, scored, truth))
            typer.echo(f"{len(rows) // 2} {family}", err=True)
    out = Path("experiments/probe.csv")
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["features", "condition", "family", "auc", "photos"])
        for name, parts in SETS.items():
            for condition in CONDITIONS:
                found = probe([r for r in rows if r[3] == condition], parts)
                values = {family: float(np.mean(list(v.values()))) for family, v in found.items()}
                mean = float(np.mean(list(values.values())))
                typer.echo(f"{name}, {condition}: {mean:.3f}")
                writer.writerow([name, condition, "mean", f"{mean:.4f}", len(values)])
                for family, value in sorted(values.items()):
                    writer.writerow([name, condition, family, f"{value:.4f}", len(found[family])])


def probe(rows: list, parts: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """By family and photo, the AUC of squares, fitted without the family and related ones."""

    def columns(scored: dict[str, Tensor]) -> Tensor:
        named = [
            v for k, v in scored.items() if any(k == p or k.startswith(f"{p} ") for p in parts)
        ]
        x = torch.cat(named).float().T
        return torch.cat([x, torch.ones(len(x), 1)], dim=1)

    sums: dict[str, tuple[Tensor, Tensor]] = {}
    num: Counter[str] = Counter(r[0] for r in rows if r[1] == "train")
    for family, pool, _, _, scored, truth in rows:
        if pool == "train":
            x, y = columns(scored), truth.float()
            weight = torch.where(truth, 0.5 / y.sum(), 0.5 / (1 - y).sum()) / num[family]
            a, b = (x * weight[:, None]).T @ x, (x * weight[:, None]).T @ (2 * y - 1)
            before = sums.get(family, (0, 0))
            sums[family] = (before[0] + a, before[1] + b)
    solved: dict[tuple[str, ...], Tensor] = {}
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for family, _, source, _, scored, truth in rows:
        kin = next((group for group in GROUPS if family in group), (family,))
        if kin not in solved:
            used = [v for k, v in sums.items() if k not in kin]
            a, b = (torch.stack(part).mean(dim=0) for part in zip(*used, strict=True))
            solved[kin] = torch.linalg.solve(a + RIDGE * torch.eye(len(a)), b)
        score = columns(scored) @ solved[kin]
        found[family][source].append(pixel_auc(score.numpy(), truth.numpy().astype(np.uint8)))
    return {f: {s: float(np.mean(v)) for s, v in by.items()} for f, by in found.items()}


if __name__ == "__main__":
    try:
        typer.run(main)
    except OverpaintError as error:
        raise SystemExit(str(error)) from error
