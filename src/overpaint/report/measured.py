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
from typing import TYPE_CHECKING, Any

from overpaint.images import write_bytes
from overpaint.report.contents import Family, Misses

if TYPE_CHECKING:
    from overpaint.evaluation.rows import Row

FILE = Path(__file__).with_name("measured.json")

_COLUMNS = {
    "auc": "as is:auc",
    "f1": "as is:f1@default",
    "auc_jpeg85": "JPEG 85:auc",
    "f1_jpeg85": "JPEG 85:f1@default",
}
_MEANS = ("independent set: mean of ", "own pictures, not trained on: mean of ")
"""Beginnings of the titles of what is said in words; the first that there is."""


def find_misses(model: str, weights_sha256: str | None) -> Misses:
    """The published figures of these weights, in numbers and words."""
    found = _read_measured().get(weights_sha256 or "")
    if not found:
        words = "These weights were not measured on fills by generators of other origin."
        return Misses(model, words, [])
    families = [Family(**family) for family in found]
    means = (f for start in _MEANS for f in families if f.name.startswith(start))
    mean = next(means, None)
    return Misses(model, _describe(mean), families)


def _describe(mean: Family | None) -> str:
    if mean is None or mean.f1 is None or mean.f1_jpeg85 is None:
        return "Measured on pictures filled in by generators of these families."
    return (
        f"On {mean.num_pictures} photos filled in by generators that the detector was not "
        f"trained on, the mean F1 of the marked region is {mean.f1:.2f} (1 is perfect), and "
        f"{mean.f1_jpeg85:.3f} after JPEG of quality 85. So most fills are not marked, above all "
        "after recompression."
    )


@cache
def _read_measured() -> dict[str, list[dict[str, Any]]]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def summarise_results(results: Path) -> bytes:
    """The content of measured.json, from the folder `results/`, without pictures of the training.

    Raises `ConfigError` for files that cannot be read.
    """
    from overpaint.evaluation.family_table import TRAINING, list_families
    from overpaint.evaluation.rows import read_rows

    files = ("independent", "families")
    weights = {row.weights_sha256 for file in files for row in read_rows(results / f"{file}.csv")}
    made = {
        sha256: [
            {
                "name": line.title,
                "num_pictures": line.num_pictures or None,
                **{name: _round(line.rows.get(column)) for name, column in _COLUMNS.items()},
            }
            for line in list_families(results, lambda row, sha=sha256: row.weights_sha256 == sha)
            if not line.title.startswith(TRAINING)
        ]
        for sha256 in sorted(weights)
    }
    return (json.dumps(made, indent=1) + "\n").encode()


def _round(row: "Row | None") -> float | None:
    return None if row is None or math.isnan(row.value) else round(row.value, 4)


if __name__ == "__main__":
    checkout = Path(__file__).parents[3] / "results"
    write_bytes(FILE, summarise_results(Path(sys.argv[1]) if len(sys.argv) > 1 else checkout))
