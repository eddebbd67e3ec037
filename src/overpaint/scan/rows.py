"""One row of a scan's table: what was found in one photo, or why it could not be examined.

- The figures are those of `overpaint detect`'s record, from the same function.
- Text in Parquet is UTF-8. A path with other bytes is stored with these spelled out, and once more
  as bytes, so that no two paths become equal.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from overpaint.data.sources import Place, Stamp
from overpaint.errors import ScanError

if TYPE_CHECKING:
    from overpaint.detection.result import Detection
    from overpaint.images import Photo

SCHEMA_VERSION = 2
VERSION_KEY = b"overpaint.scan.schema"

HEATMAP_SIDE = 96
"""Longest side of the small heatmap, pixels."""

PhotoRow = dict[str, Any]

OF_RECORD = (
    *("width", "height", "quality", "band", "score", "calibrated", "fraction", "regions"),
    *("num_regions", "threshold", "notes", "model", "weights_sha256", "version", "seconds"),
)
"""Fields that a row takes unchanged from the record of `overpaint detect`."""


def import_pyarrow() -> Any:
    """The package; raises `ScanError`, which names the extra to install, without it."""
    try:
        import pyarrow
        import pyarrow.dataset
        import pyarrow.parquet
    except ImportError as error:
        raise ScanError(
            "the results of a scan are Parquet files, which need pyarrow: "
            "pip install 'overpaint[scan]'"
        ) from error
    return pyarrow


def make_schema() -> Any:
    """Columns of the shards. All but `path` may be null, and most are in an error row; see also
    `make_repaired_row`."""
    pa = import_pyarrow()
    sizes = [(n, pa.int32()) for n in ("x", "y", "width", "height", "area")]
    region = pa.struct([*sizes, ("mean", pa.float64())])
    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            ("path_bytes", pa.binary()),  # of a path that is no UTF-8
            ("sha256", pa.string()),
            ("bytes", pa.int64()),
            ("modified", pa.string()),  # `Stamp.tag`
            ("format", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("jpeg_quality", pa.int16()),
            ("quality", pa.string()),  # band of the photo's quality
            ("band", pa.string()),  # of the verdict
            ("score", pa.float64()),
            ("calibrated", pa.bool_()),
            ("verdict", pa.string()),  # in words
            ("fraction", pa.float64()),
            ("regions", pa.list_(region)),
            ("num_regions", pa.int32()),
            ("threshold", pa.float64()),
            ("heatmap", pa.binary()),  # PNG, uint8, 255 = inpainted
            ("notes", pa.list_(pa.string())),
            ("model", pa.string()),
            ("weights_sha256", pa.string()),
            ("calibration_sha256", pa.string()),
            ("runtime", pa.string()),
            ("version", pa.string()),
            ("seconds", pa.float64()),  # in the detector
            ("same_as", pa.string()),  # path of the identical file that was examined instead
            ("examined", pa.timestamp("us")),  # UTC
            ("error", pa.string()),
            ("source", pa.string()),  # whose search met the error
        ],
        {VERSION_KEY: str(SCHEMA_VERSION).encode()},
    )


def make_row(found: Detection, photo: Photo, about: PhotoRow) -> PhotoRow:
    """The row of a photo that was examined, without its place. about: `LoadedDetector.about`."""
    from overpaint.detection.report import make_record

    full = make_record(found)
    return {
        "sha256": photo.sha256,
        "format": photo.format,
        "jpeg_quality": photo.jpeg_quality,
        **{name: full[name] for name in OF_RECORD},
        "verdict": full["words"],
        "heatmap": shrink_heatmap(found.heatmap),
        **about,
    }


def make_error_row(place: Place, stamp: Stamp, error: str, sha256: str | None = None) -> PhotoRow:
    """The row of a photo that could not be examined."""
    return {**describe_place(place, stamp), "sha256": sha256, "error": to_utf8(error)}


def make_problem_row(place: Place, error: str, source: str) -> PhotoRow:
    """The row of what could not be found or searched. source: the source, by its absolute name, of
    which that is a part, or the same."""
    return {**make_error_row(place, Stamp(), error), "source": to_utf8(source)}


def make_repaired_row(place: Place) -> PhotoRow:
    """The row of what has an earlier `make_problem_row`, and is searched without that error now. It
    has neither `sha256` nor `error`: it is not among the photos, and the error no longer is."""
    return describe_place(place, Stamp())


def describe_place(place: Place, stamp: Stamp) -> PhotoRow:
    """The columns for a photo's place and state."""
    name = to_utf8(place.name)
    raw = None if name == place.name else os.fsencode(place.name)
    return {
        "path": name,
        "path_bytes": raw,
        "bytes": stamp.num_bytes,
        "modified": stamp.tag,
    }


def find_name(row: PhotoRow) -> str:
    """The name of the place of a row."""
    return os.fsdecode(row["path_bytes"]) if row["path_bytes"] is not None else row["path"]


def copy_row(row: PhotoRow, place: Place, stamp: Stamp) -> PhotoRow:
    """The row of a file that is identical to an examined one, whose row is given; an error names
    the file of its row."""
    copy = {**row, **describe_place(place, stamp), "same_as": row["same_as"] or row["path"]}
    if row.get("error") is not None:
        copy["error"] = row["error"].replace(row["path"], copy["path"])
    return copy


def to_utf8(text: str) -> str:
    """Text that UTF-8 can hold: other bytes of a name become "\\udcf6" in ASCII."""
    return text.encode("utf-8", "backslashreplace").decode()


def shrink_heatmap(heatmap: np.ndarray) -> bytes:
    """float32 (h, w) in [0, 1] as grey PNG, uint8, at most `HEATMAP_SIDE` on a side, reduced by
    averaging."""
    image = Image.fromarray(heatmap.astype(np.float32))
    scale = min(1.0, HEATMAP_SIDE / max(heatmap.shape))
    size = [max(1, round(side * scale)) for side in image.size]
    small = np.asarray(image.resize((size[0], size[1]), Image.Resampling.BOX))
    buffer = io.BytesIO()
    Image.fromarray(np.rint(small.clip(0, 1) * 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
