"""Differences between a photo and its fill that real inpainting has and a reconstruction lacks.

Beyond the paper. An autoencoder gets the photo into which its output is blended, so the output
has the same traces, weakened. An inpainter was trained on other photos:

- The photo was stored as JPEG, mostly with 4:2:0 chroma; the fill was not. Here the photo is stored
  as JPEG after the reconstruction was made.
- Networks predict chroma at full resolution. In the fills of four networks (the choice half of the
  triplets, experiments/fine_detail.py) chroma has more fine detail, relative to luma, than in
  the photo around them; in three of them in grey levels, too: 0.4 to 0.6 in the finest band, where
  the photo has 0.2 to 0.4. Noise of 0.15 to 2 grey levels is nearer to that than the default, but
  improved detection less: much of it is too weak to be detected.
"""

from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from overpaint.data.degrade import GRID, QualityRange, Subsampling, check_rising, jpeg

LUMA = np.array((0.299, 0.587, 0.114), np.float32)
LARGEST_GRAIN = 3.0
BILINEAR = Image.Resampling.BILINEAR
COARSE = 0.7
"""Probability of 4:2:0 chroma subsampling; otherwise 4:4:4."""

GreyLevels = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Apart(BaseModel):
    """Probabilities and strengths of both differences."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Share = Field(default=0.0, description="share of photos stored as JPEG without the fill")
    quality: QualityRange = Field(
        default=(60, 98), description="JPEG quality of these files, lowest and highest"
    )
    coloured: Share = Field(default=0.0, description="share of fills with chroma noise")
    strength: Annotated[tuple[GreyLevels, GreyLevels], AfterValidator(check_rising)] = Field(
        default=(0.4, 4.0), description="standard deviation of this noise, grey levels; log-uniform"
    )

    def __call__(
        self, photo: np.ndarray, redrawn: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """-> photo and fill, both uint8 (h, w, 3), with the differences that were drawn."""
        if rng.random() < self.file:
            subsampling: Subsampling = 2 if rng.random() < COARSE else 0
            phase = rng.integers(GRID, size=2).tolist()
            photo = jpeg(photo, int(rng.integers(*self.quality, endpoint=True)), subsampling, phase)
        if rng.random() < self.coloured:
            strength = float(np.exp(rng.uniform(*np.log(self.strength))))
            redrawn = add_colour_noise(redrawn, strength, rng)
        return photo, redrawn


def add_colour_noise(pixels: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Noise that leaves the luma as it is; strength in grey levels, grain of 1 to 3 pixels."""
    height, width = pixels.shape[:2]
    grain = max(1.0, float(rng.uniform(0, LARGEST_GRAIN)))  # a third of the time a single pixel
    small = (max(1, round(height / grain)), max(1, round(width / grain)), 3)
    noise = _enlarge(rng.normal(size=small).astype(np.float32), width, height)
    noise /= max(float(noise.std()), 1e-6)
    noise -= (noise @ LUMA)[..., None]
    return np.clip(np.rint(pixels + strength * noise), 0, 255).astype(np.uint8)


def _enlarge(planes: np.ndarray, width: int, height: int) -> np.ndarray:
    """float32 (h, w, c), each plane bilinearly."""
    planes = planes.transpose(2, 0, 1)
    resized = [Image.fromarray(p).resize((width, height), BILINEAR) for p in planes]
    return np.stack([np.asarray(p) for p in resized], axis=-1)
