"""Weights: files with a record to networks, and published checkpoints to such files."""

from overpaint.weights.lineage import Lineage, Parent, render_tree
from overpaint.weights.store import (
    FOLDER_VARIABLE,
    Kind,
    Published,
    WeightsRecord,
    build,
    find_imported_folder,
    has_weights,
    is_imported_folder,
    is_shipped,
    list_records,
    load_weights,
    read_record,
    save_weights,
)

__all__ = [
    "FOLDER_VARIABLE",
    "Kind",
    "Lineage",
    "Parent",
    "Published",
    "WeightsRecord",
    "build",
    "find_imported_folder",
    "has_weights",
    "is_imported_folder",
    "is_shipped",
    "list_records",
    "load_weights",
    "read_record",
    "render_tree",
    "save_weights",
]
