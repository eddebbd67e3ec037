"""What a report holds: the fields of its JSON file, and their schema.

- All times are in `Report.times`; everything else is the same for the same photos, software and
  command.
- The absolute path of a photo is left out: reports are passed on, and folder names may name people.
- Standard dataclasses, as pydantic's refuse a file name that is not UTF-8. In JSON such a byte is
  one of \\udc80 to \\udcff, as in Python (PEP 383).
- `python -m overpaint.report.contents` prints the schema, which docs/report.schema.json holds.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter

from overpaint.terminal import say

SCHEMA = "overpaint-report-1"
"""Changes whenever a field is removed or gets another meaning."""

Grade = Literal["moderate support", "limited support", "no support either way", "no statement"]


class _Fields:
    """Tells pydantic how to describe a class of this module."""

    __slots__ = ()
    __pydantic_config__ = ConfigDict(extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True, slots=True)
class Times(_Fields):
    """Everything that differs when the same command is run again. Times are UTC, ISO 8601."""

    started: str
    finished: str
    seconds: list[float | None]
    """For each photo: time in the detector, repetitions included; null for a photo that failed."""


@dataclass(frozen=True, slots=True)
class Model(_Fields):
    """A detector of this report."""

    name: str
    weights_sha256: str | None
    calibration_sha256: str | None
    """Null where the weights have no calibration."""
    runtime: str
    """What executed its network: name and version, precision, device."""


@dataclass(frozen=True, slots=True)
class Parameters(_Fields):
    """What the caller asked for."""

    models: list[str]
    threshold: float | None
    """On the heatmap, 0..1; null for the calibrated one."""
    c2pa_trust_sha256: str | None
    """Of the file of certificates whose C2PA signers count as trusted; null without such a file."""


@dataclass(frozen=True, slots=True)
class ExifField(_Fields):
    """One EXIF field, as one line of text."""

    group: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Jpeg(_Fields):
    """How a JPEG file is coded."""

    estimated_quality: int | None
    """The IJG quality, 1..100, with the nearest luma table."""
    tables_sha256: str | None
    """Of the quantisation tables' values as stored (zigzag), in the order of the components."""
    process: str
    subsampling: str
    """Of the chroma, such as 4:2:0; the sampling factors where there is no such name."""
    segments: list[str]
    """Before the pixels, in order."""


@dataclass(frozen=True, slots=True)
class Thumbnail(_Fields):
    """The thumbnail in EXIF, and whether it shows the same as the photo."""

    width: int
    height: int
    differs: bool | None
    """Null where it cannot be compared."""
    largest_difference: float | None
    """Largest difference of the mean brightness of a cell of 8 x 8 pixels, in levels of 255."""
    words: str


@dataclass(frozen=True, slots=True)
class Marks(_Fields):
    """What the file says of how it was made, in words, and the checks that fail."""

    xmp: str
    receipt: str
    c2pa: str
    c2pa_state: str | None
    failed: list[str]


@dataclass(frozen=True, slots=True)
class Grid(_Fields):
    """Position of the blocks of an earlier JPEG compression."""

    x: int
    y: int
    """Pixels, 0..7, from the photo's corner to the first whole block."""
    strength: float
    """Levels by which steps at the blocks' borders exceed those elsewhere."""
    found: bool
    """Whether the strength is above chance."""


@dataclass(frozen=True, slots=True)
class File(_Fields):
    """The photo's file."""

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
    """What was converted when the file was read, and what could not be read."""
    jpeg: Jpeg | None
    exif: list[ExifField]
    thumbnail: Thumbnail | None
    """Null where there is none, and where none was read, which the notes then say."""
    marks: Marks
    grid: Grid | None
    """Null for a photo that is too small."""


@dataclass(frozen=True, slots=True)
class EditTest(_Fields):
    """How often one kind of ordinary edit gives a strong trace."""

    photos: int
    """Number of photos that were edited so, and not inpainted."""
    strong_trace: int
    """Number of them with a strong trace."""

    def __str__(self) -> str:
        return f"{self.strong_trace} of {self.photos}"


@dataclass(frozen=True, slots=True)
class Finding(_Fields):
    """What a detector, or the mean of several, found."""

    model: str
    verdict: str
    """One of overpaint's verdicts: "strong trace", "inconclusive", "no trace found", ..."""
    reason: str | None
    """Why there is no verdict; null where there is one."""
    doubt: str | None
    """Why the photo is inconclusive; null otherwise."""
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
    """Upper bound of that rate, with 95 % confidence."""
    num_photos: int | None
    """Untouched photos behind that rate."""
    false_alarm_note: str | None
    """Why the rate is unknown."""
    edits: dict[str, EditTest]
    """By kind of ordinary edit: photos with a strong trace after that edit alone."""
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Opinion(_Fields):
    """How far the finding supports one proposition over the other."""

    grade: Grade
    proposition: str
    alternative: str
    words: str
    reasons: list[str]


@dataclass(frozen=True, slots=True)
class Box(_Fields):
    """A rectangle in pixels, from the photo's upper left corner."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Region(_Fields):
    """A marked region, the largest first."""

    number: int
    box: Box
    area: int
    """Pixels."""
    mean: float
    """Mean heat, 0..1."""
    crop: Box | None
    """What the page shows of it at full resolution; null for all but the largest regions."""
    stays: dict[str, float | None]
    """By change of the photo: share of the marked pixels in its box that stay marked; null where
    the change could not be tried."""


@dataclass(frozen=True, slots=True)
class Change(_Fields):
    """The result on the photo after a change that adds and removes nothing."""

    name: str
    problem: str | None
    """Why it could not be tried."""
    verdict: str | None
    quality: str | None
    """The photo's quality band after the change."""
    score: float | None
    num_regions: int | None
    iou: float | None
    """IoU of the masks before and after the change, 0..1; null where both are empty."""


@dataclass(frozen=True, slots=True)
class Family(_Fields):
    """Figures of a detector on fills by one family of generators; null for what is not known."""

    name: str
    num_pictures: int | None
    auc: float | None
    """Pixel AUC: 0.5 is chance."""
    f1: float | None
    """At the default threshold."""
    auc_jpeg85: float | None
    f1_jpeg85: float | None


@dataclass(frozen=True, slots=True)
class Misses(_Fields):
    """The fills that a detector is known to miss."""

    model: str
    words: str
    families: list[Family]
    """Empty where these weights were not measured."""


@dataclass(frozen=True, slots=True)
class Examined(_Fields):
    """The report of one photo."""

    file: File
    opinion: Opinion
    finding: Finding
    detectors: list[Finding]
    """The finding of each of several detectors; empty for one."""
    failed_detectors: dict[str, str]
    """By name: why a detector of several could not examine the photo."""
    regions: list[Region]
    changes: list[Change]
    changes_words: str


@dataclass(frozen=True, slots=True)
class Failure(_Fields):
    """A photo that could not be examined."""

    name: str
    error: str


@dataclass(frozen=True, slots=True)
class Report(_Fields):
    """A report of one photo or several."""

    schema: Literal["overpaint-report-1"]
    version: str
    """Of overpaint."""
    command: str
    """Makes this report again when run in the same folder."""
    times: Times
    software: dict[str, str]
    parameters: Parameters
    models: list[Model]
    misses: list[Misses]
    limits: list[str]
    photos: list[Examined | Failure]
    passed_over: list[str]
    """Names of pictures in searched folders that say of themselves that they are findings of
    overpaint. They were not examined, and anybody can write this into a picture."""


def make_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the JSON file."""
    schema = TypeAdapter(Report).json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def to_json(report: Report) -> bytes:
    """The JSON file: ASCII, all numbers finite."""
    return _encode(dataclasses.asdict(report))


def _encode(values: Any) -> bytes:
    return (json.dumps(values, indent=1, allow_nan=False) + "\n").encode("ascii")


if __name__ == "__main__":
    say(*_encode(make_schema()).decode().splitlines())
