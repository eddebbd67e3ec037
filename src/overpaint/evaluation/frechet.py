"""Frechet distance between two sets of pictures, by the features of a fixed network.

- The papers' FID uses the features of an Inception network whose weights may not be redistributed.
  Here the features are those of the distilled VGG-19 (or of a VGG-19 that the user has), hence the
  name `fid-vgg-distilled`. Its scale differs, so it cannot be compared with a paper's FID.
- The features are spatial means of the channels of one layer: 128 numbers for the distilled VGG at
  relu5_1. With fewer pictures than features the covariance is singular. Any FID of few pictures is
  biased upwards, so a figure is given with its number of pictures.
- Sums are accumulated picture by picture in float64, so that adding `Moments` pools the sets.

Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
Equilibrium", NeurIPS 2017, eq. 6 (after Dowson and Landau, 1982). Written from the formula.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from overpaint.errors import InputError
from overpaint.images import to_tensor
from overpaint.layers.perceptual import Backbone

NAME = "fid-vgg-distilled"


@dataclass(frozen=True)
class Moments:
    """First and second moments of features (n, d); the sum of two is that of both sets pooled."""

    num: int
    total: np.ndarray
    """(d,), sum."""
    products: np.ndarray
    """(d, d), sum of outer products."""

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.num + other.num, self.total + other.total, self.products + other.products
        )

    @property
    def mean(self) -> np.ndarray:
        return self.total / self.num

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased; raises InputError for fewer than two pictures."""
        if self.num < 2:
            raise InputError(f"a covariance needs two pictures or more, not {self.num}")
        return (self.products - np.outer(self.total, self.mean)) / (self.num - 1)


def compute_moments(features: np.ndarray) -> Moments:
    """The moments of features (n, d). Raises InputError for another shape or infinite values."""
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or not np.isfinite(features).all():
        raise InputError(f"features {features.shape}: give finite ones of (n, d)")
    return Moments(len(features), features.sum(axis=0), features.T @ features)


def extract_features(backbone: Backbone, pixels: np.ndarray) -> np.ndarray:
    """(1, d): the spatial means of the last perceptual layer, for uint8 (h, w, 3)."""
    layer = backbone.perceptual_layers[-1]
    with torch.inference_mode():
        found = backbone(to_tensor(pixels), (layer,))[layer]
    return found.mean(dim=(2, 3)).double().numpy()


def measure_moments(backbone: Backbone, pictures: Iterable[np.ndarray]) -> Moments:
    """The moments of pictures uint8 (h, w, 3), each at its own size. Raises InputError for none."""
    total: Moments | None = None
    for pixels in pictures:
        found = compute_moments(extract_features(backbone, pixels))
        total = found if total is None else total + found
    if total is None:
        raise InputError("a Frechet distance needs pictures; none were given")
    return total


def compute_frechet_distance(first: Moments, second: Moments) -> float:
    """Squared distance of the means, plus tr(A + B - 2 (A B)^1/2); 0 for equal sets.

    The trace of (A B)^1/2 equals that of (A^1/2 B A^1/2)^1/2, a symmetric matrix, so that all
    numbers are real. Raises InputError for fewer than two pictures in a set.
    """
    a, b = first.covariance, second.covariance
    root = _compute_root(a)
    inner = np.linalg.eigvalsh(root @ b @ root)
    cross = np.sqrt(np.clip(inner, 0, None)).sum()
    apart = float(np.square(first.mean - second.mean).sum())
    return max(0.0, float(apart + np.trace(a) + np.trace(b) - 2 * cross))


def _compute_root(matrix: np.ndarray) -> np.ndarray:
    """Square root of a symmetric matrix; negative eigenvalues, from rounding, count as 0."""
    numbers, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(numbers, 0, None))) @ vectors.T
