"""Inpainters without a network: mean, Telea, Navier-Stokes and biharmonic.

- These methods are older than networks, and the baseline that a network has to exceed. The fifth
  of them, which copies patches, is in `patchmatch`.
- `Classical` converts a batch of tensors to single photos and holes. Without any known pixel the
  fill is mid-grey. No gradient passes.
- cv2, skimage and scipy come with the extra `classical`. They are imported when a method that
  needs them is built, so that listing the methods needs no import.
- The two methods of OpenCV run on single-precision channels from 0 to 255. On 8-bit photos its
  Telea (measured with 5.0.0) rounds upwards at every pixel, and a large flat hole becomes up to 15
  grey levels too bright.
- At the edges of the picture both also read pixels of the hole that are not filled yet. These are
  set to the mean colour, because black would darken the fill.

Sources. Telea: "An Image Inpainting Technique Based on the Fast Marching Method", Journal of
Graphics Tools 9(1), 2004. Navier-Stokes: Bertalmio, Bertozzi and Sapiro, "Navier-Stokes, Fluid
Dynamics, and Image and Video Inpainting", CVPR 2001. Biharmonic: Damelin and Hoang, "On Surface
Completion and Image Inpainting by Biharmonic Functions: Numerical Aspects", IJMMS 2018. They are
called in OpenCV (Apache-2.0) and scikit-image (BSD-3-Clause). Licence of this file: Apache-2.0.
"""

import importlib
from abc import abstractmethod
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from overpaint.errors import ConfigError, OverpaintError
from overpaint.inpainters.base import Inpainter
from overpaint.registry import inpainters

Picture = NDArray[np.float64]
Hole = NDArray[np.bool_]

MID_GREY = 0.5


def import_optional(name: str) -> ModuleType:
    """Import a module of the extra `classical`; raises OverpaintError naming the extra."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise OverpaintError(
            f"{name} cannot be imported ({error}); "
            'this inpainter needs it: pip install "overpaint[classical]"'
        ) from error


class Classical(Inpainter):
    """An inpainter without parameters that works on numpy arrays, one photo at a time."""

    requires: ClassVar[tuple[str, ...]] = ()
    """Modules of the extra `classical` that it needs."""

    def __init__(self) -> None:
        """Raises OverpaintError when a module is missing."""
        super().__init__()
        for name in self.requires:
            import_optional(name)

    @abstractmethod
    def _paint(self, photo: Picture, hole: Hole) -> NDArray[np.floating[Any]]:
        """Map photo (h, w, 3), 0 in the hole, and hole (h, w) to a picture (h, w, 3).

        Only its hole is used. At least one pixel is hole and at least one is known.
        """

    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        photos = image.detach().permute(0, 2, 3, 1).cpu().double().numpy()
        holes = (mask[:, 0] == 1).cpu().numpy()
        fills = [
            self._paint_clipped(photo, hole) for photo, hole in zip(photos, holes, strict=True)
        ]
        return torch.from_numpy(np.stack(fills)).permute(0, 3, 1, 2).to(image)

    def _paint_clipped(self, photo: Picture, hole: Hole) -> Picture:
        if hole.all():
            return np.full_like(photo, MID_GREY)
        if not hole.any():
            return photo
        return np.clip(self._paint(photo, hole).astype(np.float64), 0, 1)


class MeanFill(Classical):
    """The mean colour of the known pixels."""

    def _paint(self, photo: Picture, hole: Hole) -> Picture:
        return np.where(hole[..., None], photo[~hole].mean(axis=0), photo)


@dataclass(frozen=True, slots=True)
class RadiusConfig:
    """Configuration of Telea and NavierStokes."""

    radius: int = 3
    """Radius of the neighbourhood for a pixel's fill, pixels; 1 to 100."""

    def __post_init__(self) -> None:
        if not 1 <= self.radius <= 100:
            raise ConfigError(f"radius {self.radius}; give 1 to 100 pixels, as OpenCV takes it")


class OpenCVFill(Classical):
    """Fast marching from the edge of the hole; flag: name of OpenCV's constant."""

    requires = ("cv2",)
    flag: ClassVar[str]

    def __init__(self, config: RadiusConfig | None = None) -> None:
        super().__init__()
        self.config = config or RadiusConfig()

    def _paint(self, photo: Picture, hole: Hole) -> NDArray[np.floating[Any]]:
        cv2 = import_optional("cv2")
        levels = 255 * np.where(hole[..., None], photo[~hole].mean(axis=0), photo)
        channels = np.ascontiguousarray(levels.transpose(2, 0, 1), dtype=np.float32)
        mask, flag = hole.astype(np.uint8), getattr(cv2, self.flag)
        fills = [cv2.inpaint(channel, mask, self.config.radius, flag) for channel in channels]
        return np.stack(fills, axis=-1) / 255


class Telea(OpenCVFill):
    """Each pixel is a mean of known pixels, weighted by direction, distance and isophote.

    OpenCV limits the paper's gradient term to a step of 1.42 grey levels. In flat parts of the
    photo that step is noise.
    """

    flag = "INPAINT_TELEA"


class NavierStokes(OpenCVFill):
    """Each pixel is a mean of known pixels, weighted by how well isophotes continue into it."""

    flag = "INPAINT_NS"


class Biharmonic(Classical):
    """The surface with a Laplacian of Laplacian 0 that continues the known pixels.

    One sparse system with a row for each pixel of the hole is solved by a direct method. Its time
    and memory grow faster than the hole: 39,000 pixels took half a second and 0.2 GB, 620,000
    took 12 seconds and 2.8 GB. scikit-image limits the result to the range of the known colours.
    """

    requires = ("scipy", "skimage")

    def _paint(self, photo: Picture, hole: Hole) -> Picture:
        restoration = import_optional("skimage.restoration")
        return restoration.inpaint_biharmonic(photo, hole, channel_axis=-1)


def telea(**config: Any) -> Telea:
    """Telea's fast marching fill; fields of RadiusConfig as keyword arguments."""
    return Telea(RadiusConfig(**config))


def navier_stokes(**config: Any) -> NavierStokes:
    """The Navier-Stokes fill; fields of RadiusConfig as keyword arguments."""
    return NavierStokes(RadiusConfig(**config))


_OPENCV = "Apache-2.0 (OpenCV: Apache-2.0)"

for _name, _factory, _paper, _licence, _summary in (
    (
        "mean",
        MeanFill,
        "none",
        "Apache-2.0",
        "the mean colour of the known pixels",
    ),
    (
        "telea",
        telea,
        "An Image Inpainting Technique Based on the Fast Marching Method, JGT 9(1) 2004",
        _OPENCV,
        "smooth, by fast marching",
    ),
    (
        "navier-stokes",
        navier_stokes,
        "Navier-Stokes, Fluid Dynamics, and Image and Video Inpainting, CVPR 2001",
        _OPENCV,
        "smooth, along isophotes",
    ),
    (
        "biharmonic",
        Biharmonic,
        "On Surface Completion and Image Inpainting by Biharmonic Functions, IJMMS 2018",
        "Apache-2.0 (scikit-image: BSD-3-Clause)",
        "smooth, continues slopes",
    ),
):
    inpainters.register(
        _name, _factory, paper=_paper, licence=_licence, summary=_summary, trainable=False
    )
