"""Training samples from the folders that `overpaint forge` writes, beside the universal ones.

- A piece is cut out around a pixel of the hole, and then degraded as a universal sample is.
- As many as there untouched ones (`data.untouched`) show the original, cut out in the same way.
- Which forgeries belong to a part: `data.forgeries`.
- Sample i is a function of (seed, i); so is the choice between a forgery and a universal sample.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.utils.data import Dataset

from overpaint.data.assets import find_asset
from overpaint.data.crops import random_crop
from overpaint.data.forgeries import ForgedRow, read_forgeries
from overpaint.data.samples import read_rows
from overpaint.data.sources import Part
from overpaint.data.universal import (
    Sample,
    UniversalConfig,
    Weights,
    draw_weighted,
    finish_sample,
)
from overpaint.images import read_image, read_mask, to_tensor
from overpaint.training.config import Section

CHOICE, FORGERY = 1, 2
"""Third entry of a seed, which a universal sample's has not."""


class ForgedConfig(Section):
    """Folders of forgeries and how much of the training comes from them."""

    folders: Weights = Field(
        default={},
        description="folders of `overpaint forge`, below --assets or as named; their weights",
    )
    share: float = Field(default=0.0, ge=0, le=1, description="of the samples")

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if self.share and not any(self.folders.values()):
            raise ValueError("folders: give at least one folder a weight above 0, or share 0")
        return self


def describe_forgeries(config: ForgedConfig, assets: Path, exclude: Collection[str] = ()) -> str:
    """For a record: "0.5 of the samples from forgeries by aotgan-s, lama-s"."""
    folders = (find_asset(name, assets) for name in _select_drawn(config))
    rows = (r for f in folders for r in read_forgeries(f, "train", exclude))
    inpainters = ", ".join(sorted({row.inpainter for row in rows}))
    return f"{config.share:g} of the samples from forgeries by {inpainters}"


def list_forgeries(config: ForgedConfig, assets: Path, exclude: Collection[str] = ()) -> list[str]:
    """Names of the forgeries that train and validate; none where there is no share of them."""
    parts: tuple[Part, ...] = ("train", "validation")
    return [
        f"{part}/{Path(name).name}/{row.index}/{row.photo}"
        for name in (_select_drawn(config) if config.share else ())
        for part in parts
        for row in read_forgeries(find_asset(name, assets), part, exclude)
    ]


def list_forged_photos(config: ForgedConfig, assets: Path) -> list[str]:
    """Names of the photos of all forgeries, of every part; none where there is no share of them."""
    folders = (find_asset(name, assets) for name in (_select_drawn(config) if config.share else ()))
    return [row.photo for folder in folders for row in read_rows(folder, ForgedRow)]


class ForgedDataset(Dataset[dict[str, Tensor]]):
    """Forgeries by running number; items as of `UniversalDataset`.

    Raises ConfigError for a folder without a forgery of the part.
    """

    def __init__(
        self,
        config: UniversalConfig,
        forged: ForgedConfig,
        part: Part,
        seed: int,
        assets: Path = Path(),
        exclude: Collection[str] = (),
    ) -> None:
        self.config, self.seed = config, seed
        self.weights = _select_drawn(forged)
        self.folders = {name: find_asset(name, assets) for name in self.weights}
        self.rows = {n: read_forgeries(f, part, exclude) for n, f in self.folders.items()}

    def sample(self, index: int) -> Sample:
        """Raises ImageError for files that cannot be read."""
        rng, config = np.random.default_rng([self.seed, index, FORGERY]), self.config
        name = draw_weighted(self.weights, rng)
        row = self.rows[name][rng.integers(len(self.rows[name]))]
        untouched = bool(rng.random() < config.untouched)
        folder = self.folders[name]
        picture = read_image(folder / (row.original if untouched else row.inpainted)).pixels
        mask = read_mask(folder / row.mask, size=(picture.shape[0], picture.shape[1]))
        piece = crop_at_hole(picture, mask, config.degrade.find_margin(config.size), rng)
        picture, mask = piece[..., :3], piece[..., 3]
        if untouched:
            mask = np.zeros_like(mask)
        picture, mask, steps = finish_sample(config, picture, mask, rng, [self.seed, index])
        # As there, the cut to size may have missed the hole.
        inpainter = row.inpainter if mask.any() else ""
        return Sample(picture, mask, row.photo, inpainter, (), tuple(steps))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        sample = self.sample(index)
        mask = torch.from_numpy(sample.mask.astype(np.float32))[None]
        return {"image": to_tensor(sample.pixels)[0], "mask": mask}


class Mixed(Dataset[dict[str, Tensor]]):
    """Sample i is one of `others` with the probability of its share, or else sample i of `rest`."""

    def __init__(
        self,
        rest: Dataset[dict[str, Tensor]],
        others: Sequence[tuple[Dataset[dict[str, Tensor]], float]],
        seed: int,
    ) -> None:
        self.rest, self.others, self.seed = rest, others, seed

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        drawn = np.random.default_rng([self.seed, index, CHOICE]).random()
        for other, share in self.others:
            if drawn < share:
                return other[index]
            drawn -= share
        return self.rest[index]


def crop_at_hole(
    picture: np.ndarray, mask: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    """(size, size, 4): picture and mask of a window with a pixel of the hole; see `random_crop`."""
    row, column = rng.choice(np.argwhere(mask))
    rows, columns = (slice(max(0, at - size + 1), at + size) for at in (row, column))
    return random_crop(np.dstack([picture, mask])[rows, columns], size, rng)


def _select_drawn(config: ForgedConfig) -> Mapping[str, float]:
    """The folders with a weight."""
    return {name: weight for name, weight in config.folders.items() if weight}
