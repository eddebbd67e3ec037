"""Untouched training samples from all photos, and more often from those that are flagged.

Reconstructions are costly, so a cache holds crops of some hundreds of photos, and training on it
shows no others untouched. The few photos in a hundred that a detector flags set its threshold, so
they have to be among the samples. Ours; to draw false alarms again is hard negative mining (Sung
and Poggio, "Example-based learning for view-based human face detection", PAMI 1998).

- A photo is read, cropped after a random history, edited by something else than inpainting in the
  share of `data.negatives`, and degraded, as an untouched universal sample is. There is no
  redrawn copy, so that `data.apart` does not apply.
- `often` names how often each photo is drawn; photos that it does not name have the weight 1.
- Sample i is a function of (seed, i).
"""

import csv
from pathlib import Path, PurePath

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset

from overpaint.data.assets import find_asset
from overpaint.data.masks import MaskFn
from overpaint.data.sources import PhotoSource
from overpaint.data.universal import (
    NEGATIVE,
    Sample,
    UniversalConfig,
    draw_photo,
    finish_sample,
)
from overpaint.errors import ConfigError
from overpaint.images import to_tensor
from overpaint.training.config import Section

UNTOUCHED = 7
"""Third entry of a seed; see `data.universal`."""


class UntouchedConfig(Section):
    """How much of the training are untouched photos that need no reconstruction."""

    share: float = Field(default=0.0, ge=0, le=1, description="of the samples")
    often: str | None = Field(
        default=None,
        description="CSV file with the columns photo (a file name) and weight, below --assets or "
        "as named: how often each photo is drawn",
    )


class UntouchedDataset(Dataset[dict[str, Tensor]]):
    """Untouched photos by running number; items as of `UniversalDataset`, with empty masks.

    Raises ConfigError for a file of weights that cannot be read, or names none of the photos.
    """

    def __init__(
        self,
        config: UniversalConfig,
        untouched: UntouchedConfig,
        photos: PhotoSource,
        mask_fn: MaskFn,
        seed: int,
        assets: Path = Path(),
    ) -> None:
        self.config, self.photos, self.mask_fn, self.seed = config, photos, mask_fn, seed
        weights = np.ones(len(photos))
        if untouched.often is not None:
            weights = read_weights(find_asset(untouched.often, assets), photos)
        self.shares = weights / weights.sum()

    def sample(self, index: int) -> Sample:
        """Raises ImageError for a photo that cannot be read."""
        rng, config = np.random.default_rng([self.seed, index, UNTOUCHED]), self.config
        number, side = int(rng.choice(self.shares.size, p=self.shares)), config.size
        margin = config.degrade.find_margin(side)
        photo, history = draw_photo(self.photos, number, config.history, margin, rng)
        own = np.random.default_rng([self.seed, index, NEGATIVE])
        name, photo = config.negatives(photo, self.mask_fn(*photo.shape[:2], rng), own)
        mask = np.zeros(photo.shape[:2], np.uint8)
        pixels, mask, steps = finish_sample(config, photo, mask, rng, [self.seed, index])
        return Sample(pixels, mask, self.photos.names[number], name, history, tuple(steps))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        sample = self.sample(index)
        mask = torch.from_numpy(sample.mask.astype(np.float32))[None]
        return {"image": to_tensor(sample.pixels)[0], "mask": mask}


def read_weights(file: Path, photos: PhotoSource) -> np.ndarray:
    """float64 (photos,): the weight of each photo by its file name, 1 where the file has none.

    Raises ConfigError as `UntouchedDataset`, and for a weight that is not a number of at least 0.
    """
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            named = {row["photo"]: float(row["weight"]) for row in csv.DictReader(lines)}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{file}: no weights of photos ({error}); needs the columns photo and weight"
        ) from error
    names = [PurePath(name.replace("::", "/")).name for name in photos.names]
    if not named.keys() & set(names):
        raise ConfigError(f"{file}: names none of the {len(names)} photos of the training")
    weights = np.array([named.get(name, 1.0) for name in names])
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise ConfigError(f"{file}: weights have to be numbers of at least 0, and one above it")
    return weights
