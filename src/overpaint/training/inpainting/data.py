"""Photos and holes to train inpainters on."""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from overpaint.data.crops import PhotoCrops
from overpaint.data.masks import MaskFn
from overpaint.data.sources import PhotoSource
from overpaint.data.universal import Weights
from overpaint.errors import ConfigError
from overpaint.training.config import Section


class InpaintingData(Section):
    """Photos and holes of the training; SafePaint: whole photos at 256 px, irregular masks."""

    size: int = Field(default=256, ge=64, multiple_of=4, description="side of a sample, pixels")
    shrink: float = Field(
        default=1.0, ge=1, le=8, description="largest factor by which a photo is made smaller"
    )
    early_size: int = Field(
        default=128,
        ge=64,
        multiple_of=4,
        description="side of the first samples, pixels",
    )
    early_samples: int = Field(
        default=0,
        ge=0,
        description="how many samples have that side",
    )
    masks: Weights = Field(
        default={"brush": 1.0}, description="kinds of masks, see UniversalConfig"
    )
    ratio: tuple[float, float] = Field(
        default=(0.01, 0.6), description="least and largest share of the hole"
    )


class PhotosAndHoles(Dataset[dict[str, Tensor]]):
    """Sample i: {"image": (3, size, size), "mask": (1, size, size)}, a function of (seed, i).

    size: `data.early_size` for the first `data.early_samples`, then `data.size`. The largest part
    of a photo that a sample shows is the same for both.
    """

    def __init__(
        self, photos: PhotoSource, data: InpaintingData, mask_fn: MaskFn, seed: int
    ) -> None:
        """Raises ConfigError when the first samples are to be larger than the others."""
        if data.early_samples and data.early_size > data.size:
            raise ConfigError(
                f"data.early_size {data.early_size}: the first samples are smaller than the "
                f"others, at most {data.size}"
            )
        self.data, self.mask_fn, self.seed = data, mask_fn, seed
        self.crops = PhotoCrops(photos, round(data.size * data.shrink), seed)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        data = self.data
        size = data.early_size if index < data.early_samples else data.size
        rng = np.random.default_rng([self.seed, index, 1])  # 1: apart from the crop's numbers
        image = self.crops[index]["image"]
        side = round(size * rng.uniform(1, data.shrink * (data.size / size)))
        if side > size:
            smaller = F.interpolate(
                image[None, :, :side, :side], (size, size), mode="bilinear", antialias=True
            )
            image = smaller[0].clamp(0, 1)
        mask = self.mask_fn(size, size, rng).astype(np.float32)
        return {"image": image[:, :size, :size].contiguous(), "mask": torch.from_numpy(mask)[None]}
