"""What a detector is known to miss: published results, stored in the package.

- `python -m overpaint.report.measured` makes measured.json from `results/` of a checkout; a test
  compares the two. An installed copy has no `results/`.
- Figures belong to weights, identified by their SHA-256; for other weights there are none.
"""

import json
import math
import sys
from functools import cache
from pathlib import Path
from typing import Any

from overpaint.images import write_bytes
from overpaint.report.contents import Family, Misses

FILE = Path(__file__).with_name("measured.json")

_COLUMNS = {
    "auc": ("as is", "auc"),
    "f1": ("as is", "f1@default"),
    "auc_jpeg85": ("JPEG 85", "auc"),
    "f1_jpeg85": ("JPEG 85", "f1@default"),
}
_INDEPENDENT, _MEAN = "independent set: ", "independent set: mean of its eleven families"


def find_misses(model: str, weights_sha256: str | None) -> Misses:
    """The published figures of these weights, in numbers and words."""
    found = _read_measured().get(weights_sha256 or "")
    if not found:
        words = "These weights were not measured on fills by generators of other origin."
        return Misses(model, words, [])
    families = [Family(**family) for family in found]
    mean = next((family for family in families if family.name == _MEAN), None)
    return Misses(model, _describe(mean), families)


def _describe(mean: Family | None) -> str:
    if mean is None or mean.f1 is None or mean.f1_jpeg85 is None:
        return "Measured on pictures filled in by generators of these families."
    return (
        f"On {mean.num_pictures} pictures filled in by generators that the detector was not "
        f"developed on, the mean F1 of the marked region is {mean.f1:.2f} (1 is perfect), and "
        f"{mean.f1_jpeg85:.3f} after JPEG of quality 85. So most fills are not marked, above all "
        "after recompression."
    )


@cache
def _read_measured() -> dict[str, list[dict[str, Any]]]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def summarise_results(results: Path) -> bytes:
    """The content of measured.json, from the folder `results/`.

    Raises `ConfigError` for files that cannot be read.
    """
    from overpaint.evaluation.rows import read_rows
    from overpaint.evaluation.tables import LAYOUTS

    groups = {f"triplets:{group}": name for group, name in LAYOUTS["headline"].columns.items()}
    names = {"triplets": "own set: mean of its four families"}
    names |= {method: f"own set: {name}" for method, name in groups.items()}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for file in ("independent", "robustness"):
        for row in read_rows(results / f"{file}.csv"):
            method, _, condition = row.method.rpartition(", ")
            column = next((c for c, of in _COLUMNS.items() if of == (condition, row.metric)), None)
            known = method if method.startswith(_INDEPENDENT) else names.get(method)
            if column is None or known is None or math.isnan(row.value):
                continue
            empty = {"name": known, "num_pictures": None, **dict.fromkeys(_COLUMNS)}
            family = found.setdefault(row.weights_sha256, {}).setdefault(known, empty)
            family[column] = round(row.value, 4)
            family["num_pictures"] = max(family["num_pictures"] or 0, row.n) or None
    made = {weights: list(families.values()) for weights, families in found.items()}
    return (json.dumps(made, indent=1) + "\n").encode()


if __name__ == "__main__":
    checkout = Path(__file__).parents[3] / "results"
    write_bytes(FILE, summarise_results(Path(sys.argv[1]) if len(sys.argv) > 1 else checkout))
