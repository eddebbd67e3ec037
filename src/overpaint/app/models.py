"""The detectors and inpainters that a user can choose from, and what each is good for.

The summaries of the inpainters rest on results/fillers.csv and the benchmarks of the documentation.
"""

import logging
from functools import lru_cache
from typing import Any

from overpaint.defaults import DEFAULT_DETECTOR
from overpaint.errors import OverpaintError
from overpaint.inpainting.choice import AUTO
from overpaint.registry import inpainters
from overpaint.terminal import make_printable
from overpaint.weights import WeightsRecord, list_records

_log = logging.getLogger(__name__)

Listed = dict[str, Any]

_GOOD_FOR = {
    AUTO: "Whichever of the others measured best on holes of this size.",
    "patchmatch": (
        "Ground with texture, such as grass, sand, walls or water: copies it from elsewhere in "
        "the photo. Takes some seconds."
    ),
    "telea": "Scratches, wires and small spots on smooth ground: quick; larger holes get blurred.",
    "navier-stokes": "Scratches and wires that cross edges: quick; larger holes get blurred.",
    "biharmonic": "Small holes in smooth gradients such as sky; slow in large ones.",
    "mean": "Nothing to look at: one colour, to compare others with.",
    "safepaint": (
        "Small holes, with little statistical trace at the seam; larger ones are smeared. Takes "
        "some seconds."
    ),
    "big-lama": "Large holes and regular structures: the best here.",
}


def list_models() -> list[Listed]:
    """The fields of `schemas.Model`: detectors first, and within each kind the default first.

    Weights without a proper record are left out, and logged once.
    """
    records = list_records(imported=True, problem=_log_once)
    found = [_describe_detector(r) for r in records if r.kind == "detector"]
    auto = {"name": AUTO, "sha256": None, "licence": "that of the inpainter it takes"}
    filling = [auto | _describe_inpainter(AUTO, AUTO)]
    filling += [
        {"name": name, "sha256": None, "licence": inpainters.get(name).licence}
        | _describe_inpainter(name, name)
        for name in inpainters.list_names()
        if _works_without_weights(name)
    ]
    filling += [
        {"name": r.name, "sha256": r.sha256, "licence": r.licence}
        | _describe_inpainter(r.name, r.architecture)
        for r in records
        if r.kind == "inpainter"
    ]
    found += filling
    return sorted(found, key=lambda one: (one["kind"], not one["default"], one["name"]))


def list_names(kind: str) -> list[str]:
    """The names of all models of a kind, "detector" or "inpainter"."""
    return [model["name"] for model in list_models() if model["kind"] == kind]


@lru_cache(maxsize=64)
def _log_once(problem: str) -> None:
    _log.warning("%s", make_printable(problem))


def _describe_detector(record: WeightsRecord) -> Listed:
    calibrated = record.calibration is not None
    summary = "Photos of any kind, with a stated false-alarm rate."
    if not calibrated:
        summary = "Comparison: it has no calibration, so it gives a heatmap and no verdict."
    elif record.name != DEFAULT_DETECTOR:
        summary = f"A second opinion, by {record.architecture}, with a stated false-alarm rate."
    return {
        "name": record.name,
        "kind": "detector",
        "summary": summary,
        "default": record.name == DEFAULT_DETECTOR,
        "sha256": record.sha256,
        "calibrated": calibrated,
        "licence": record.licence,
    }


def _describe_inpainter(name: str, architecture: str) -> Listed:
    usual = f"Filling by {architecture}, a network."
    return {
        "kind": "inpainter",
        "summary": _GOOD_FOR.get(architecture, usual),
        "default": name == AUTO,
        "calibrated": False,
    }


@lru_cache(maxsize=64)
def _works_without_weights(name: str) -> bool:
    """Whether it is a method without weights whose packages are installed."""
    entry = inpainters.get(name)
    if entry.trainable:
        return False
    try:
        entry.factory()
    except OverpaintError:
        return False
    return True
