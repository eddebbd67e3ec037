"""The bank: every autoencoder that universal data may draw from, by name.

A name is a record in `overpaint/pretrained` (the bank that ships), a path to a record,
`taef2:FOLDER` for the two official files of TAEF2, or `esrgan:FOLDER` for a super-resolution GAN
(`data.superresolution`). Folders lie below the assets, or are as named. Importing this module
registers all kinds.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

from overpaint import hashes
from overpaint.data import autoencoder as _autoencoder  # noqa: F401  (registers)
from overpaint.data.assets import find_asset
from overpaint.data.superresolution import list_esrgan_files, load_esrgan
from overpaint.data.taef2 import find_taef2_files, load_taef2
from overpaint.errors import WeightsError
from overpaint.weights import build, list_records, read_record

HELD_OUT = "ae-heldout"
"""Ships with the others, and no detector is trained on it: the first unseen method."""

_FOLDERS: Mapping[str, tuple[Callable[[Path], nn.Module], Callable[[Path], Iterable[Path]]]] = {
    "taef2": (load_taef2, find_taef2_files),
    "esrgan": (load_esrgan, list_esrgan_files),
}
"""Readers of a folder and the names of its files, by the prefix before the colon."""


def list_shipped_bank() -> list[str]:
    """The shipped autoencoders that detectors train on: all but the held-out one.

    Raises WeightsError when there is none.
    """
    records = [record for record in list_records() if record.kind == "autoencoder"]
    names = [record.name for record in records if record.name != HELD_OUT]
    if not names:
        raise WeightsError(
            "no autoencoder is shipped with this installation; name a bank (weights files, or "
            "taef2:FOLDER), or train one with `overpaint train autoencoder`"
        )
    return names


def load_bank(names: Iterable[str], assets: Path = Path()) -> dict[str, nn.Module]:
    """Autoencoders in eval mode, by the names given; folders are looked up below `assets`.

    Raises WeightsError naming what is missing.
    """
    return {name: _load_autoencoder(name, assets) for name in names}


def hash_bank(names: Iterable[str], assets: Path = Path()) -> dict[str, str]:
    """The weights of these names: the sha256 of each file, of a folder's files joined.

    Raises WeightsError naming what is missing.
    """
    return {name: _hash_weights(name, assets) for name in names}


def _hash_weights(name: str, assets: Path) -> str:
    kind, folder = _find_folder(name, assets)
    if folder is None:
        return read_record(name, kind="autoencoder").sha256
    files = _FOLDERS[kind][1](folder)
    return hashes.sha256(b"".join(path.read_bytes() for path in files))


def _load_autoencoder(name: str, assets: Path) -> nn.Module:
    kind, folder = _find_folder(name, assets)
    if folder is None:
        module = build(read_record(name, kind="autoencoder"))
    else:
        module = _FOLDERS[kind][0](folder)
    return module.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _find_folder(name: str, assets: Path) -> tuple[str, Path | None]:
    """(kind, its folder), which is None for a record."""
    kind, colon, folder = name.partition(":")
    if not colon or kind not in _FOLDERS:
        return "", None
    return kind, find_asset(folder, assets)
