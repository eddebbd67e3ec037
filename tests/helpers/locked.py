"""Folders without read permission, which root, who may run the tests, cannot have."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the listing of one folder fail as it does without permission."""

    def guard(listing: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(path: Any = ".") -> Any:
            if not isinstance(path, int) and os.fspath(path) == str(folder):
                raise PermissionError(13, "Permission denied", str(folder))
            return listing(path)

        return refuse

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, guard(getattr(os, name)))
