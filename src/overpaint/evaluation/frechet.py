"""Frechet distance between two sets of pictures, by the features of a fixed network.

- The papers' FID takes the features of an Inception network whose weights are not free to go
  along. Here they are those of the distilled VGG-19 (or of a VGG-19 that the user has), and the
  figure says so in its name: `fid-vgg-distilled`. It is on another scale, and no paper's FID may
  stand in its column.
- The features are the channels' means over the places of one layer: 128 numbers of the distilled
  VGG at relu5_1. Fewer pictures than that leave the covariance singular, which is biased upwards,
  as any FID is for few pictures; so a figure is given with the number of its pictures.
- Sums are accumulated picture by picture in float64, so that adding is pooling.

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
    """Of features (n, d); add two to pool them."""

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
    """Update: features (n, d). Raises InputError for another shape, or values not finite."""
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or not np.isfinite(features).all():
        raise InputError(f"features {features.shape}: give finite ones of (n, d)")
    return Moments(len(features), features.sum(axis=0), features.T @ features)


def extract_features(backbone: Backbone, pixels: np.ndarray) -> np.ndarray:
    """(1, d): the channels' means of the last perceptual layer, for uint8 (h, w, 3)."""
    layer = backbone.perceptual_layers[-1]
    with torch.inference_mode():
        found = backbone(to_tensor(pixels), (layer,))[layer]
    return found.mean(dim=(2, 3)).double().numpy()


def measure_moments(backbone: Backbone, pictures: Iterable[np.ndarray]) -> Moments:
    """Of pictures uint8 (h, w, 3), each at its own size. Raises InputError for none."""
    total: Moments | None = None
    for pixels in pictures:
        found = compute_moments(extract_features(backbone, pixels))
        total = found if total is None else total + found
    if total is None:
        raise InputError("a Frechet distance needs pictures; none were given")
    return total


def compute_frechet_distance(first: Moments, second: Moments) -> float:
    """Compute: squared distance of the means, plus tr(A + B - 2 (A B)^1/2); 0 for equal sets.

    The root's trace is that of (A^1/2 B A^1/2)^1/2, which is symmetric, so that no complex part
    arises. Raises InputError for fewer than two pictures in a set.
    """
    a, b = first.covariance, second.covariance
    root = _compute_root(a)
    inner = np.linalg.eigvalsh(root @ b @ root)
    cross = np.sqrt(np.clip(inner, 0, None)).sum()
    apart = float(np.square(first.mean - second.mean).sum())
    return max(0.0, float(apart + np.trace(a) + np.trace(b) - 2 * cross))


def _compute_root(matrix: np.ndarray) -> np.ndarray:
    """Of a symmetric matrix without negative eigenvalues, but for rounding."""
    numbers, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(numbers, 0, None))) @ vectors.T
