"""What a detector is known to miss, from the published results, as a file of the package.

- measured.json is made from `results/` of a checkout by `python -m overpaint.report.measured`; a
  test compares the two. An installed copy has no `results/`.
- Figures are those of weights, known by their SHA-256. Of other weights nothing is known.
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


def misses_of(model: str, weights_sha256: str | None) -> Misses:
    """What is known of these weights."""
    found = _measured().get(weights_sha256 or "")
    if not found:
        words = "How these weights fare on fills by generators of other origin was not measured."
        return Misses(model, words, [])
    families = [Family(**family) for family in found]
    mean = next((family for family in families if family.name == _MEAN), None)
    return Misses(model, _in_words(mean), families)


def _in_words(mean: Family | None) -> str:
    if mean is None or mean.f1 is None or mean.f1_jpeg85 is None:
        return "Measured on pictures filled in by generators of these families."
    return (
        f"Of {mean.num_pictures} pictures filled in by generators that the detector was not "
        f"developed on, the marked region and the true one overlap with a mean F1 of {mean.f1:.2f} "
        f"(1 is perfect); after JPEG of quality 85, of {mean.f1_jpeg85:.3f}. So a fill that is not "
        "marked is the usual case, above all after recompression."
    )


@cache
def _measured() -> dict[str, list[dict[str, Any]]]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def from_results(results: Path) -> bytes:
    """measured.json, of `results/`; raises `ConfigError` for files that cannot be read."""
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
    write_bytes(FILE, from_results(Path(sys.argv[1]) if len(sys.argv) > 1 else checkout))
