"""Where a number or a file of weights comes from: the configuration's hash and the commit."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def config_hash(values: Mapping[str, Any]) -> str:
    """First 12 hexadecimal digits of the SHA-256 of a configuration's canonical JSON."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def current_commit(folder: Path = Path(__file__).parent) -> str:
    """The commit of the code, with "+" where src or recipes changed since; "" outside of git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        top = git("rev-parse", "--show-toplevel")
        changed = git("status", "--porcelain", "--", f"{top}/src", f"{top}/recipes")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
