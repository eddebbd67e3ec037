"""Weights and inputs that anybody can make again from a formula, for golden files.

A golden file in tests/golden/ holds what a published network put out with weights made here under
its own names. Its code need not be at hand: ours gets the same weights, through `remap`.
"""

import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "golden"


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A state dict: each value is normal noise seeded by crc32 of its key, at a fitting scale."""
    return {key: _value(key, shape) for key, shape in shapes.items()}


def _value(key: str, shape: tuple[int, ...]) -> Tensor:
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return torch.zeros((), dtype=torch.int64)
    noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if leaf == "running_var":
        noise = 1 + 0.5 * np.abs(noise)
    elif leaf in ("weight_u", "weight_v"):  # spectral norm's vectors, of length 1 or so
        noise = np.abs(noise) / math.sqrt(shape[0])
    elif leaf.startswith("weight") and len(shape) > 1:
        noise = noise * math.sqrt(2 / math.prod(shape[1:]))
    elif leaf == "weight":
        noise = 1 + 0.1 * noise
    else:
        noise = 0.1 * noise
    return torch.from_numpy(noise.astype(np.float32))


def digest(state: Mapping[str, Tensor]) -> str:
    """sha256 of all values' bytes, in the order of their keys."""
    total = hashlib.sha256()
    for key in sorted(state):
        total.update(key.encode() + state[key].numpy().tobytes())
    return total.hexdigest()


def batch(size: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """Noise (1, 3, size, size), a mask with one box as its hole, and one pixel in ten an edge."""
    image = np.random.default_rng(1).random((1, 3, size, size))
    edges = np.random.default_rng(2).random((1, 1, size, size))
    mask = torch.zeros(1, 1, size, size)
    mask[..., size // 4 : size // 2, size // 4 : 3 * size // 4] = 1
    return torch.from_numpy(image).float(), mask, torch.from_numpy(edges < 0.1).float()


def sampled(x: Tensor) -> list[float]:
    """Every eighth row and column, from the third on, flat."""
    return x[..., 2::8, 2::8].flatten().tolist()


def golden(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())
