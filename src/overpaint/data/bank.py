"""The bank: every autoencoder that universal data may draw from, by name.

A name is a record in `overpaint/pretrained` (the bank that ships), a path to a record, or
`taef2:FOLDER` for the two official files of TAEF2. Importing this module registers all kinds.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from overpaint.data import autoencoder as _autoencoder  # noqa: F401  (registers)
from overpaint.data.taef2 import load_taef2
from overpaint.weights import build, load_weights


def load_bank(names: Iterable[str], assets: Path = Path()) -> dict[str, nn.Module]:
    """Autoencoders in eval mode, by the names given; folders are looked up below `assets`.

    Raises WeightsError naming what is missing.
    """
    return {name: _load(name, assets) for name in names}


def _load(name: str, assets: Path) -> nn.Module:
    if name.startswith("taef2:"):
        module: nn.Module = load_taef2(assets / name.removeprefix("taef2:"))
    else:
        module = build(load_weights(name, kind="autoencoder")[0])
    return module.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
