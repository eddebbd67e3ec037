"""Apart: what sets a fill apart from its photo in real pictures, and not in a reconstruction.

Beyond the paper. An autoencoder is shown the photo as it will be blended, so that its output has
the photo's own traces, weakened. An inpainter was shown other photos when it learnt:

- The photo was a JPEG file, mostly with colours at half of the resolution; the fill was not. Here
  such a file comes after the reconstruction was made.
- Networks draw colours at full resolution. In the fills of four networks (the choice half of the
  triplets, experiments/fine_detail.py) the colours have more fine detail, against the luma's, than
  in the photo around them; in three of them in grey levels, too: 0.4 to 0.6 in the finest band,
  where the photo has 0.2 to 0.4. Noise of 0.15 to 2 grey levels is nearer to that than the default,
  but taught less: much of it cannot be seen.
"""

from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from overpaint.data.degrade import GRID, QualityRange, Subsampling, jpeg, rising

LUMA = np.array((0.299, 0.587, 0.114), np.float32)
LARGEST_GRAIN = 3.0
BILINEAR = Image.Resampling.BILINEAR
COARSE = 0.7
"""How often the file has its colours at half of the resolution, 4:2:0."""

GreyLevels = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Apart(BaseModel):
    """How often, and how strongly."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Share = Field(default=0.0, description="of photos stored by themselves")
    quality: QualityRange = Field(default=(60, 98), description="of these files")
    coloured: Share = Field(default=0.0, description="of fills with noise in their colours")
    strength: Annotated[tuple[GreyLevels, GreyLevels], AfterValidator(rising)] = Field(
        default=(0.4, 4.0), description="of this noise, grey levels; drawn by its logarithm"
    )

    def __call__(
        self, photo: np.ndarray, redrawn: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Photo and fill, both uint8 (h, w, 3), each with what is its own."""
        if rng.random() < self.file:
            subsampling: Subsampling = 2 if rng.random() < COARSE else 0
            phase = rng.integers(GRID, size=2).tolist()
            photo = jpeg(photo, int(rng.integers(*self.quality, endpoint=True)), subsampling, phase)
        if rng.random() < self.coloured:
            strength = float(np.exp(rng.uniform(*np.log(self.strength))))
            redrawn = colour_noise(redrawn, strength, rng)
        return photo, redrawn


def colour_noise(pixels: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Noise that leaves the luma as it is; strength in grey levels, grain of 1 to 3 pixels."""
    height, width = pixels.shape[:2]
    grain = max(1.0, float(rng.uniform(0, LARGEST_GRAIN)))  # a third of the time a single pixel
    small = (max(1, round(height / grain)), max(1, round(width / grain)), 3)
    noise = _enlarged(rng.normal(size=small).astype(np.float32), width, height)
    noise /= max(float(noise.std()), 1e-6)
    noise -= (noise @ LUMA)[..., None]
    return np.clip(np.rint(pixels + strength * noise), 0, 255).astype(np.uint8)


def _enlarged(planes: np.ndarray, width: int, height: int) -> np.ndarray:
    """float32 (h, w, c), each plane bilinearly."""
    planes = planes.transpose(2, 0, 1)
    resized = [Image.fromarray(p).resize((width, height), BILINEAR) for p in planes]
    return np.stack([np.asarray(p) for p in resized], axis=-1)
