"""Imports point down only, avoid torchvision, and keep the command line quick to start."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "overpaint"
RANK = {
    "core": 0,
    "images": 1,
    "weights": 1,
    "layers": 2,
    "detectors": 3,
    "inpainters": 3,
    "data": 4,
    "provenance": 4,
    "detection": 5,
    "inpainting": 6,
    "training": 6,
    "evaluation": 7,
    "benchmark": 8,
    "scan": 8,
    "report": 8,
    "app": 9,
    "cli": 10,
}
# torchvision's only build needs CUDA libraries; the others import it.
FORBIDDEN = {"torchvision", "timm", "lpips", "piq", "pyiqa"}


def imported(source: str, package: str) -> Iterator[str]:
    """Full names of all that `source`, a module of `package`, imports anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join(above if node.level else [])
            module = ".".join(part for part in (base, node.module) if part)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def room(name: str) -> str:
    """The room of a module's full name; what `overpaint` itself offers counts as `cli`."""
    first = name.split(".")[1]
    if first in RANK:
        return first
    is_core = first.startswith("__") or (ROOT / f"{first}.py").exists()
    return "core" if is_core else "cli"


def allowed(importer: str, name: str) -> bool:
    """Whether a module in room `importer` may import `name`."""
    if name.split(".")[0] != "overpaint" or name == "overpaint":
        return name.split(".")[0] not in FORBIDDEN
    target = room(name)
    return target == importer or RANK[target] < RANK[importer]


def modules() -> list[Path]:
    # `overpaint/__init__.py` offers the lazy shortcuts of all rooms, `__main__.py` starts the cli.
    outside = {ROOT / "__init__.py", ROOT / "__main__.py"}
    return [path for path in sorted(ROOT.rglob("*.py")) if path not in outside]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    package = ".".join(parts[:-1])
    importer = parts[1] if len(parts) > 2 else "core"
    wrong = [n for n in imported(path.read_text(), package) if not allowed(importer, n)]
    assert not wrong, f"{path.name} ({importer}) must not import {', '.join(wrong)}"


@pytest.mark.parametrize(
    ("importer", "name", "fine"),
    [
        ("detectors", "overpaint.layers.highpass", True),
        ("detectors", "overpaint.registry.detectors", True),
        ("detectors", "overpaint.data.masks", False),
        ("detectors", "overpaint.inpainters.base", False),
        ("core", "overpaint.detectors", False),
        ("data", "overpaint.load_detector", False),
        ("cli", "overpaint.load_detector", True),
        ("cli", "overpaint.training.loop", True),
        ("cli", "overpaint.app.server", True),
        ("app", "overpaint.cli.detect", False),
        ("app", "overpaint.report.views", True),
        ("detection", "overpaint.images.regions", True),
        ("detection", "overpaint.inpainting.api", False),
        ("inpainting", "overpaint.detection.runner", True),
        ("provenance", "overpaint.detection.report", False),
        ("evaluation", "overpaint.detection.tiles", True),
        ("training", "overpaint.metrics.iou", True),
        ("training", "overpaint.layers.perceptual", True),
        ("evaluation", "overpaint.training.losses", True),
        ("training", "overpaint.evaluation.fit_calibration", False),
        ("layers", "torchvision.ops", False),
        ("layers", "torch.nn", True),
    ],
)
def test_the_rule_itself(importer: str, name: str, fine: bool) -> None:
    assert allowed(importer, name) is fine


def test_relative_and_nested_imports_are_seen() -> None:
    source = "from ..data import masks\nfrom . import base\ndef f():\n    import torchvision.ops\n"
    assert set(imported(source, "overpaint.detectors")) == {
        "overpaint.data.masks",
        "overpaint.detectors.base",
        "torchvision.ops",
    }


@pytest.mark.parametrize("module", ["overpaint", "overpaint.cli", "overpaint.errors"])
def test_starting_the_command_line_does_not_import_torch(module: str) -> None:
    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
