"""One row of a scan's table: what was found in one photo, or why it could not be examined.

- The figures are those of `overpaint detect`'s record, from the same function.
- Parquet's text is UTF-8. A path that is none is stored with its odd bytes spelled out, and its
  very bytes beside it, so that no two paths become one.
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

SCHEMA_VERSION = 1
VERSION_KEY = b"overpaint.scan.schema"

HEATMAP_SIDE = 96
"""Longest side of the small heatmap, pixels."""

Row = dict[str, Any]

OF_RECORD = (
    *("width", "height", "quality", "band", "score", "calibrated", "fraction", "regions"),
    *("num_regions", "threshold", "notes", "model", "weights_sha256", "version", "seconds"),
)
"""What a row takes from the record of `overpaint detect` as it stands."""


def pyarrow() -> Any:
    """The package; `ScanError`, naming the extra to install, without it."""
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


def schema() -> Any:
    """Columns of the shards. All but `path` may be null: of an error row most are."""
    pa = pyarrow()
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
            ("same_as", pa.string()),  # path of the identical file that was looked at instead
            ("examined", pa.timestamp("us")),  # UTC
            ("error", pa.string()),
        ],
        {VERSION_KEY: str(SCHEMA_VERSION).encode()},
    )


def found_row(found: Detection, photo: Photo, about: Row) -> Row:
    """What was found in a photo. about: `model` and the like, the same in every row."""
    from overpaint.detection.report import make_record

    full = make_record(found)
    return {
        "sha256": photo.sha256,
        "format": photo.format,
        "jpeg_quality": photo.jpeg_quality,
        **{name: full[name] for name in OF_RECORD},
        "verdict": full["words"],
        "heatmap": small_heatmap(found.heatmap),
        **about,
    }


def error_row(place: Place, stamp: Stamp, error: str, sha256: str | None = None) -> Row:
    """What there is to say of a photo that could not be examined."""
    return {**where(place, stamp), "sha256": sha256, "error": readable(error)}


def where(place: Place, stamp: Stamp) -> Row:
    """Where a photo is, and the state that it was in."""
    name = readable(place.name)
    raw = None if name == place.name else os.fsencode(place.name)
    return {
        "path": name,
        "path_bytes": raw,
        "bytes": stamp.num_bytes,
        "modified": stamp.tag,
    }


def copied_row(row: Row, place: Place, stamp: Stamp) -> Row:
    """The row of a file that is identical to one that was examined."""
    return {**row, **where(place, stamp), "same_as": row["same_as"] or row["path"]}


def readable(text: str) -> str:
    """Text as UTF-8 can hold it: bytes of a name that are none become "\\udcf6" in ASCII."""
    return text.encode("utf-8", "backslashreplace").decode()


def small_heatmap(heatmap: np.ndarray) -> bytes:
    """float32 (h, w) in [0, 1] as grey PNG, uint8, at most `HEATMAP_SIDE` on a side; each pixel the
    mean of what it stands for."""
    image = Image.fromarray(heatmap.astype(np.float32))
    scale = min(1.0, HEATMAP_SIDE / max(heatmap.shape))
    size = [max(1, round(side * scale)) for side in image.size]
    small = np.asarray(image.resize((size[0], size[1]), Image.Resampling.BOX))
    buffer = io.BytesIO()
    Image.fromarray(np.rint(small.clip(0, 1) * 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
