"""Where a number or a file of weights comes from: the configuration's hash and the commit."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from overpaint import hashes


def hash_config(values: Mapping[str, Any]) -> str:
    """First 12 hexadecimal digits of the SHA-256 of a configuration's canonical JSON."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashes.sha256(text.encode())[:12]


def find_commit(module: Path = Path(__file__)) -> str:
    """The commit of the code, "-dirty" with uncommitted changes to tracked files.

    "unknown" outside a checkout of this project, and without git. module: any of its files.
    """

    def run_git(*arguments: str) -> str:
        command = ["git", "-C", str(module.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # An installed copy may be inside the checkout of another project.
        run_git("ls-files", "--error-unmatch", module.name)
        return run_git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
