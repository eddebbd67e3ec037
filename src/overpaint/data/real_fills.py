"""Real fills: pictures inpainted by fully trained networks, whose known pixels are intact.

A folder of them holds, all lossless:

    index.csv          a row for each picture: pool, family, method, source, known, x, y, ...
    known/NAME.webp    the picture with its hole black
    mask/NAME.png      white = inpainted
    fill/ID.webp       what was filled in, in the window at (x, y)

- A *family* is one generator, whatever tool ran it, and a *source* is one photo, of which there may
  be several masks or generators. Both are drawn evenly: a family with sixteen pictures of one photo
  teaches as much as one with a single picture.
- The pool "train" may be trained on; "dev" is for choosing, and validates. No source is in both.
  `SEEN` pictures, whose photos the index has twice, are left out.
- As training samples: cut out at the border of a hole or anywhere, then as universal samples are.
  A fill may be enlarged first, as that of a network that works at a fixed size is, or pasted into
  another photo.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.utils.data import Dataset

from overpaint.data.assets import find_asset
from overpaint.data.crops import random_crop
from overpaint.data.degrade import KERNELS, Kernel, ScaleRange, resize
from overpaint.data.recent import RecentArrays
from overpaint.data.universal import (
    APART,
    Pairs,
    Sample,
    UniversalConfig,
    blend,
    finish_sample,
)
from overpaint.errors import ConfigError, ImageError
from overpaint.images import read_image, read_mask, to_tensor

Pool = Literal["train", "dev"]
POOLS: tuple[Pool, ...] = get_args(Pool)
INDEX = "index.csv"
COLUMNS = ("id", "pool", "family", "method", "source", "known", "x", "y")
TOGETHER = ("lanpaint",)
"""What a family is called, where its index tells several base models of one tool apart."""

FILL = 5
"""Third entry of a seed; see `data.universal`."""
TRIES = 8
SEEN = frozenset(
    {
        "lama_project-alex-iby-G_Pk4D9rMLs_boundary",
        "lama_project-billow926-12-Wc-Zgx6Y_boundary",
    }
)
"""Pictures of "dev" whose photos "train" has, too, as another source: Unsplash's G_Pk4D9rMLs and
12-Wc-Zgx6Y, cut otherwise and with other fills."""
SHRINKING: tuple[Kernel, ...] = ("bilinear", "bicubic", "lanczos")
BORDER = (0.03, 0.97)
"""Shares of the hole between which a window counts as lying at its border."""

Share = Annotated[float, Field(ge=0, le=1)]

# A network's step takes little longer than to decode a picture. Outside of the class, so that a
# data set can be sent to worker processes that are not forked.
_recent: RecentArrays[tuple[np.ndarray, np.ndarray]] = RecentArrays()


@dataclass(frozen=True, slots=True)
class RealFill:
    """One picture of the index; its paths lie in the folder."""

    id: str
    pool: Pool
    family: str
    method: str
    source: str
    known: Path
    fill: Path
    mask: Path
    x: int
    y: int

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """The whole picture uint8 (h, w, 3) and its mask uint8 (h, w), 1 = inpainted.

        Raises ImageError for a file that is missing, damaged, or does not fit the others.
        """
        known, fill = read_image(self.known).pixels, read_image(self.fill).pixels
        mask = read_mask(self.mask, size=(known.shape[0], known.shape[1]))
        height, width = fill.shape[:2]
        window = (slice(self.y, self.y + height), slice(self.x, self.x + width))
        if known[window].shape != fill.shape or mask.sum() != mask[window].sum():
            raise ImageError(
                f"{self.fill}: does not cover the hole of {self.mask} at ({self.x}, {self.y}); "
                "fetch the folder again"
            )
        picture = known.copy()
        picture[window] = blend(known[window], fill, mask[window])
        return picture, mask


class RealFills(BaseModel):
    """How much of a training are real fills, and how they are drawn."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: Share = Field(default=0.0, description="of the samples")
    folder: str = Field(default="fills", description="below --assets, or as named")
    leave_out: tuple[str, ...] = Field(
        default=(), description="families that the weights never see, to be measured by them"
    )
    anywhere: Share = Field(
        default=0.0, description="of windows anywhere; the others lie at a hole's border"
    )
    shrunk: Share = Field(default=0.3, description="of pictures that are shrunk before the cut")
    shrunk_to: ScaleRange = (0.5, 1.0)
    enlarged: Share = Field(
        default=0.0, description="of fills that were made at a smaller size than the photo's"
    )
    enlarged_from: ScaleRange = (0.4, 0.9)
    pasted: Share = Field(default=0.0, description="of fills in another photo, where they lay")


def find_family(name: str) -> str:
    """The family that counts as one."""
    first = name.partition("-")[0]
    return first if first in TOGETHER else name


def read_fills(
    folder: str | Path, pools: Collection[Pool] = POOLS, leave_out: Collection[str] = ()
) -> list[RealFill]:
    """The pictures of some pools, without some families and `SEEN`, in the order of the index.

    Raises ImageError for a folder without a readable index, and ConfigError for a source in both
    pools, for a family to leave out that is not there, and when nothing is left.
    """
    folder = Path(folder)
    try:
        with (folder / INDEX).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        found = [_make_fill(folder, row) for row in rows if row["id"] not in SEEN]
    except OSError as error:
        raise ImageError(
            f"{folder / INDEX}: cannot be read ({error.strerror}); name a folder of real fills"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError(
            f"{folder / INDEX}: not an index of real fills ({error}); it needs the columns "
            f"{', '.join(COLUMNS)}"
        ) from error
    of_pools = ({f.source for f in found if f.pool == pool} for pool in POOLS)
    if twice := sorted(set.intersection(*of_pools)):
        raise ConfigError(f"{folder}: source {twice[0]} is in both pools; leave it in one")
    if unknown := sorted(set(leave_out) - {f.family for f in found}):
        known = ", ".join(sorted({f.family for f in found}))
        raise ConfigError(f"{folder}: no family is called {unknown[0]!r}; there are {known}")
    kept = [f for f in found if f.pool in pools and f.family not in leave_out]
    if not kept:
        raise ConfigError(f"{folder}: no real fill is left of the pools {', '.join(sorted(pools))}")
    return kept


def _make_fill(folder: Path, row: Mapping[str, str]) -> RealFill:
    if row["pool"] not in POOLS:
        raise ValueError(f"no pool is called {row['pool']!r}")
    return RealFill(
        row["id"],
        row["pool"],  # type: ignore[arg-type]  # checked above
        find_family(row["family"]),
        row["method"],
        row["source"],
        folder / "known" / f"{row['known']}.webp",
        folder / "fill" / f"{row['id']}.webp",
        folder / "mask" / f"{row['known']}.png",
        int(row["x"]),
        int(row["y"]),
    )


def list_trained_families(config: RealFills, assets: Path) -> tuple[str, ...]:
    """Families that a training sees."""
    fills = read_fills(find_asset(config.folder, assets), ("train",), config.leave_out)
    return tuple(sorted({fill.family for fill in fills}))


def list_fills(config: RealFills, assets: Path) -> list[str]:
    """Names of the pictures that train and validate."""
    fills = read_fills(find_asset(config.folder, assets), leave_out=config.leave_out)
    return [f"{fill.pool}/{fill.id}" for fill in fills]


def describe_fills(config: RealFills, assets: Path) -> str:
    """For a record: "a share of 0.5 real fills by cmgan 16, lama 16 (left out: sd2)"."""
    counts: dict[str, int] = defaultdict(int)
    for fill in read_fills(find_asset(config.folder, assets), ("train",), config.leave_out):
        counts[fill.family] += 1
    families = ", ".join(f"{name} {num}" for name, num in sorted(counts.items()))
    left = f" (left out: {', '.join(sorted(config.leave_out))})" if config.leave_out else ""
    return f"a share of {config.share:g} real fills by {families}{left}"


def group_fills(fills: Iterable[RealFill]) -> dict[str, dict[str, list[RealFill]]]:
    """By family, then by source, both sorted."""
    families: dict[str, dict[str, list[RealFill]]] = defaultdict(lambda: defaultdict(list))
    for fill in fills:
        families[fill.family][fill.source].append(fill)
    return {f: dict(sorted(sources.items())) for f, sources in sorted(families.items())}


class RealFillDataset(Dataset[dict[str, Tensor]]):
    """Real fills by running number; items as of `UniversalDataset`.

    pairs: photos for fills that are pasted into another one. Raises as `read_fills`.
    """

    def __init__(
        self,
        config: UniversalConfig,
        fills: RealFills,
        pool: Pool,
        pairs: Pairs,
        seed: int,
        assets: Path = Path(),
    ) -> None:
        self.config, self.fills, self.pairs, self.seed = config, fills, pairs, seed
        found = read_fills(find_asset(fills.folder, assets), (pool,), fills.leave_out)
        self.families = [list(sources.values()) for sources in group_fills(found).values()]

    def sample(self, index: int) -> Sample:
        """Raises ImageError for files that cannot be read."""
        rng = np.random.default_rng([self.seed, index, FILL])
        config, how = self.config, self.fills
        sources = self.families[rng.integers(len(self.families))]
        pictures = sources[rng.integers(len(sources))]
        fill = pictures[rng.integers(len(pictures))]
        picture, mask = _recent.get(fill, fill.read)
        name = fill.method
        margin = config.degrade.find_margin(config.size)
        scale = float(rng.uniform(*how.shrunk_to)) if rng.random() < how.shrunk else 1.0
        anywhere = bool(rng.random() < how.anywhere)
        photo, mask = cut_window(picture, mask, math.ceil(margin / scale), rng, anywhere=anywhere)
        if scale < 1:
            photo, mask = resize(photo, mask, scale, SHRINKING[rng.integers(len(SHRINKING))])
            photo, mask = photo[:margin, :margin], mask[:margin, :margin]
        redrawn = photo
        if rng.random() < how.enlarged:
            name, redrawn = f"{name}+enlarged", imitate_enlarging(redrawn, how.enlarged_from, rng)
        if rng.random() < how.pasted:
            name, photo = f"{name}+pasted", random_crop(self.pairs.draw(rng).photo, margin, rng)
        own = np.random.default_rng([self.seed, index, APART])
        photo, redrawn = config.apart(photo, redrawn, own)
        blended = blend(photo, redrawn, mask)
        pixels, mask, steps = finish_sample(config, blended, mask, rng, [self.seed, index])
        name = name if mask.any() else ""
        return Sample(pixels, mask, fill.source, name, (), tuple(steps))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        sample = self.sample(index)
        mask = torch.from_numpy(sample.mask.astype(np.float32))[None]
        return {"image": to_tensor(sample.pixels)[0], "mask": mask}


def cut_window(
    picture: np.ndarray,
    mask: np.ndarray,
    size: int,
    rng: np.random.Generator,
    *,
    anywhere: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """A square of picture (h, w, 3) and mask (h, w); smaller ones are padded by reflection.

    Unless `anywhere`, drawn again a few times until it holds the border of a hole.
    """
    padding = [(0, max(0, size - side)) for side in mask.shape]
    if any(after for _, after in padding):
        picture = np.pad(picture, [*padding, (0, 0)], mode="symmetric")
        mask = np.pad(mask, padding, mode="symmetric")
    square = _draw_square(mask, size, rng)
    for _ in range(TRIES - 1):
        if anywhere or BORDER[0] < mask[square].mean() < BORDER[1]:
            break
        square = _draw_square(mask, size, rng)
    return picture[square], mask[square]


def _draw_square(mask: np.ndarray, size: int, rng: np.random.Generator) -> tuple[slice, slice]:
    top, left = (int(rng.integers(side - size + 1)) for side in mask.shape)
    return slice(top, top + size), slice(left, left + size)


def imitate_enlarging(
    pixels: np.ndarray, scales: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """The picture as if it had been made at a smaller size; uint8 (h, w, 3), same size."""
    names = sorted(KERNELS)
    small, _ = resize(pixels, None, float(rng.uniform(*scales)), "bicubic")
    kernel = KERNELS[names[rng.integers(len(names))]]
    size = (pixels.shape[1], pixels.shape[0])
    return np.array(Image.fromarray(small).resize(size, kernel))
