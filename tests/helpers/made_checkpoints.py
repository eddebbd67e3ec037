"""Checkpoints for the tests of their reading, a hostile one among them."""

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"echo run > {self.trace}",)


def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {"a.weight": torch.rand(3, 2), "a.bias": torch.rand(3).half(), "n": torch.tensor(4)}


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(
        torch.equal(found[key], value) and found[key].dtype == value.dtype
        for key, value in wanted.items()
    )


def save(path: Path, content: Any, *, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def with_pickle(archive: Path, content: bytes, out: Path) -> Path:
    """A copy of a zip checkpoint with another data.pkl."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            target.writestr(name, content if name.endswith("/data.pkl") else source.read(name))
    return out
