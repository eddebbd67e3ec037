"""Where a number comes from: the commit is this project's, or it is not named."""

import re
import subprocess
from pathlib import Path

import pytest

from overpaint.run_identity import find_commit


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=x", "-c", "user.email=x@y"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "module.py"
    file.write_text("")
    assert find_commit(file) == "unknown"  # no checkout
    git(tmp_path, "init")
    (tmp_path / "other.txt").write_text("")
    git(tmp_path, "add", "other.txt")
    git(tmp_path, "commit", "-m", "x")
    assert find_commit(file) == "unknown"  # somebody else's checkout
    git(tmp_path, "add", file.name)
    git(tmp_path, "commit", "-m", "y")
    clean = find_commit(file)
    assert re.fullmatch("[0-9a-f]{40}", clean)
    file.write_text("# changed")
    assert find_commit(file) == f"{clean}-dirty"
    monkeypatch.setenv("PATH", "")
    assert find_commit(file) == "unknown"  # no git
