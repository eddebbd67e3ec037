"""A detector's published figures by generator family, for tables and reports.

- independent.csv: a set that was compiled and measured separately from the development, for some
  weights only. Its methods are "FAMILY, CONDITION".
- families.csv: the real fills and triplets of the part "families" (`evaluation.families`). The
  record of the weights names the families that they were trained on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from overpaint.errors import ConfigError
from overpaint.evaluation.families import FITTED, FITTED_MEAN, ORIGINALS, SEEN, UNSEEN
from overpaint.evaluation.rows import Row, read_rows
from overpaint.weights import list_records

TITLES = {
    "aotgan": "AOT-GAN",
    "asymmetric-vqgan": "Stable Diffusion, asymmetric VQGAN",
    "cmgan": "CM-GAN",
    "comodgan": "CoModGAN",
    "crfill": "CR-Fill",
    "deepfillv1": "DeepFill v1",
    "edgeconnect": "EdgeConnect",
    "lama": "LaMa",
    "lanpaint": "LanPaint",
    "latent-diffusion": "latent diffusion",
    "lbam": "LBAM",
    "madf": "MADF",
    "pconv": "partial convolutions",
    "pluralistic": "Pluralistic",
    "profill": "ProFill",
    "repaint": "RePaint",
    "resunet": "a student's U-Net",
    "rfr": "RFR",
    "sd2": "Stable Diffusion 2",
    "shiftnet": "Shift-Net",
}
NOT_TRAINED_ON = "own pictures, not trained on: "
TRAINED_ON = "own pictures, generator trained on: "
TRAINING = "the training's own pictures: "


@dataclass(frozen=True, slots=True)
class Line:
    """The published figures of one family, or of the mean of several."""

    title: str
    num_pictures: int
    """0 where it was not stated."""
    rows: dict[str, Row]
    """By "CONDITION:METRIC"."""


def list_families(results: Path, wanted: Callable[[Row], bool]) -> list[Line]:
    """The lines of the independent set, of the families not trained on, of other pictures of those
    trained on, and of the pictures trained on.

    Each of the four groups begins with its mean. wanted: whether a row is of the weights to list.
    Empty where no row is.

    Raises ConfigError for files that cannot be read.
    """
    lines = [
        Line(family, max(r.n for r in rows.values()), rows)
        for family, rows in _group_by_family(results / "independent.csv", wanted).items()
    ]
    found = _group_by_family(results / "families.csv", wanted)
    trained = _list_trained({r.weights_sha256 for rows in found.values() for r in rows.values()})
    means = {NOT_TRAINED_ON: UNSEEN, TRAINED_ON: SEEN, TRAINING: FITTED_MEAN}
    groups: dict[str, dict[str, dict[str, Row]]] = {heading: {} for heading in means}
    for name, rows in found.items():
        family = name.removeprefix(FITTED)
        if family != name:
            groups[TRAINING][family] = rows
        elif name not in means.values():
            groups[TRAINED_ON if family in trained else NOT_TRAINED_ON][family] = rows
    for heading, mean in means.items():
        if mean not in found:
            continue
        own = groups[heading]
        nums = {family: max(r.n for r in rows.values()) for family, rows in own.items()}
        title = f"{heading}mean of {len(own)} families"
        lines.append(Line(title, sum(nums.values()), found[mean]))
        titled = {TITLES.get(family, family): family for family in own}
        lines += [
            Line(f"{heading}{name}", nums[family], own[family])
            for name, family in sorted(titled.items(), key=lambda one: one[0].lower())
        ]
    return lines


def _group_by_family(path: Path, wanted: Callable[[Row], bool]) -> dict[str, dict[str, Row]]:
    found: dict[str, dict[str, Row]] = {}
    for row in read_rows(path):
        family, _, condition = row.method.rpartition(", ")
        if wanted(row) and not family.startswith(ORIGINALS):
            found.setdefault(family, {})[f"{condition}:{row.metric}"] = row
    return found


def _list_trained(weights_sha256: set[str]) -> set[str]:
    records = [record for record in list_records() if record.sha256 in weights_sha256]
    if weights_sha256 and not records:
        raise ConfigError("families.csv has rows of weights that are not shipped")
    return {family for record in records for family in record.families}
