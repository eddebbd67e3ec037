"""What a report holds: the JSON twin of the page, and the schema of it.

- All times stand in `Report.times`; whatever else is in the file is the same for the same photos,
  the same software and the same command.
- The real path of a photo is left out: a report is handed on, and folders name people.
- Standard dataclasses, as pydantic's refuse a file name that is no UTF-8. In JSON such a byte is
  one of \\udc80 to \\udcff, as Python has it (PEP 383).
- `python -m overpaint.report.contents` prints the schema; docs/report.schema.json is that.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter

from overpaint.terminal import say

SCHEMA = "overpaint-report-1"
"""Changes whenever a field goes or gets another meaning."""

Grade = Literal["moderate support", "limited support", "no support either way", "no statement"]

_FIELDS = ConfigDict(extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True, slots=True)
class Times:
    """All that differs when the same command is run again. Times are UTC, ISO 8601."""

    __pydantic_config__ = _FIELDS

    started: str
    finished: str
    seconds: list[float | None]
    """For each photo, in the detector and its repetitions; null for a photo that failed."""


@dataclass(frozen=True, slots=True)
class Model:
    """A detector that took part."""

    __pydantic_config__ = _FIELDS

    name: str
    weights_sha256: str | None
    calibration_sha256: str | None
    """Null where the weights have no calibration."""
    runtime: str
    """What ran its network: name and version, precision, device."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What was asked for."""

    __pydantic_config__ = _FIELDS

    models: list[str]
    threshold: float | None
    """On the heatmap, 0..1; null for the calibrated one."""
    c2pa_trust_sha256: str | None
    """Of the file of certificates whose C2PA signers count as trusted; null without."""


@dataclass(frozen=True, slots=True)
class ExifField:
    """One field of EXIF, as text of one line."""

    __pydantic_config__ = _FIELDS

    group: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Jpeg:
    """How a JPEG file is coded."""

    __pydantic_config__ = _FIELDS

    estimated_quality: int | None
    """The IJG quality, 1..100, whose luma table is nearest."""
    tables_sha256: str | None
    """Of the quantisation tables' values as stored (zigzag), one component's after the other's."""
    process: str
    subsampling: str
    """Of the chroma, as 4:2:0; sampling factors where there is no such name."""
    segments: list[str]
    """Before the pixels, in order."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """The small picture in EXIF, and whether it shows the same as the photo."""

    __pydantic_config__ = _FIELDS

    width: int
    height: int
    differs: bool | None
    """Null where it cannot be compared."""
    largest_difference: float | None
    """Levels of 255: the largest mean difference in brightness of a cell of 8 x 8 pixels."""
    words: str


@dataclass(frozen=True, slots=True)
class Marks:
    """What the file says of its making, in words, and the checks that fail."""

    __pydantic_config__ = _FIELDS

    xmp: str
    receipt: str
    c2pa: str
    c2pa_state: str | None
    failed: list[str]


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the blocks of an earlier JPEG compression lie."""

    __pydantic_config__ = _FIELDS

    x: int
    y: int
    """Pixels, 0..7, from the photo's corner to the first whole block."""
    strength: float
    """Levels by which steps at the blocks' borders exceed those elsewhere."""
    found: bool
    """Whether that is more than chance."""


@dataclass(frozen=True, slots=True)
class File:
    """The photo's file."""

    __pydantic_config__ = _FIELDS

    name: str
    """As it was given."""
    bytes: int
    sha256: str
    format: str
    width: int
    height: int
    """Pixels, upright."""
    lossy: bool
    notes: list[str]
    """What was converted while reading, and what could not be read."""
    jpeg: Jpeg | None
    exif: list[ExifField]
    thumbnail: Thumbnail | None
    marks: Marks
    grid: Grid | None
    """Null for a photo that is too small."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a detector, or the mean of several, found."""

    __pydantic_config__ = _FIELDS

    model: str
    verdict: str
    """One of overpaint's verdicts: "strong trace", "inconclusive", "no trace found", ..."""
    reason: str | None
    """Why there is no verdict; null where there is one."""
    score: float
    """0..1; see `calibrated`."""
    calibrated: bool
    """Whether score and default threshold were fitted for photos of this quality."""
    quality: str
    """The photo's quality band."""
    threshold: float
    window: int
    """Pixels: side of the window that is averaged before the threshold."""
    fraction: float
    """Share of the photo that is marked."""
    num_regions: int
    false_alarm_rate: float | None
    """Share of untouched photos of this quality band with more than 1 % of their area marked."""
    false_alarm_bound: float | None
    """What that rate may be at most, with 95 % confidence."""
    num_photos: int | None
    """Untouched photos behind that rate."""
    false_alarm_note: str | None
    """Why the rate is unknown."""
    edits: dict[str, float]
    """By kind of ordinary edit: share of photos, edited so alone, with a strong trace."""
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Opinion:
    """How far the finding supports one proposition over the other."""

    __pydantic_config__ = _FIELDS

    grade: Grade
    proposition: str
    alternative: str
    words: str
    reasons: list[str]


@dataclass(frozen=True, slots=True)
class Box:
    """Pixels of the photo, from its upper left corner."""

    __pydantic_config__ = _FIELDS

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Region:
    """A marked region, the largest first."""

    __pydantic_config__ = _FIELDS

    number: int
    box: Box
    area: int
    """Pixels."""
    mean: float
    """Mean heat, 0..1."""
    crop: Box | None
    """What the page shows of it, one pixel for each pixel; null for all but the largest."""
    stays: dict[str, float | None]
    """By change of the photo: share of the marked pixels in its box that stay marked; null where
    that could not be tried."""


@dataclass(frozen=True, slots=True)
class Change:
    """The photo after a change that adds and removes nothing."""

    __pydantic_config__ = _FIELDS

    name: str
    problem: str | None
    """Why it could not be tried."""
    verdict: str | None
    quality: str | None
    """The quality band whose thresholds apply after the change."""
    score: float | None
    num_regions: int | None
    iou: float | None
    """Of the masks before and after, 0..1; null where both are empty."""


@dataclass(frozen=True, slots=True)
class Family:
    """How a detector fares on fills by one family of generators; null for what is not known."""

    __pydantic_config__ = _FIELDS

    name: str
    num_pictures: int | None
    auc: float | None
    """Pixel AUC: 0.5 is chance."""
    f1: float | None
    """At the default threshold."""
    auc_jpeg85: float | None
    f1_jpeg85: float | None


@dataclass(frozen=True, slots=True)
class Misses:
    """What is known of what a detector misses."""

    __pydantic_config__ = _FIELDS

    model: str
    words: str
    families: list[Family]
    """Empty where nobody measured these weights."""


@dataclass(frozen=True, slots=True)
class Examined:
    """The report of one photo."""

    __pydantic_config__ = _FIELDS

    file: File
    opinion: Opinion
    finding: Finding
    detectors: list[Finding]
    """Of several detectors: each one's own finding; empty for one."""
    failed_detectors: dict[str, str]
    """By name: why a detector of several could not examine the photo."""
    regions: list[Region]
    changes: list[Change]
    changes_words: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A photo that could not be examined."""

    __pydantic_config__ = _FIELDS

    name: str
    error: str


@dataclass(frozen=True, slots=True)
class Report:
    """A report of one photo or several."""

    __pydantic_config__ = _FIELDS

    schema: Literal["overpaint-report-1"]
    version: str
    """Of overpaint."""
    command: str
    """What makes this report again, in the same folder."""
    times: Times
    software: dict[str, str]
    parameters: Parameters
    models: list[Model]
    misses: list[Misses]
    limits: list[str]
    photos: list[Examined | Failure]


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the JSON twin."""
    made = TypeAdapter(Report).json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def to_json(report: Report) -> bytes:
    """The JSON twin: ASCII, all numbers finite."""
    return _ascii(dataclasses.asdict(report))


def _ascii(values: Any) -> bytes:
    return (json.dumps(values, indent=1, allow_nan=False) + "\n").encode("ascii")


if __name__ == "__main__":
    say(*_ascii(json_schema()).decode().splitlines())
