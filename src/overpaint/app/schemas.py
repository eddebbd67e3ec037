"""The answers of the API, for its OpenAPI document: fields, units, examples."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from overpaint.app.table import JobKind, State
from overpaint.detection.calibration import Band

_OWN = ConfigDict(extra="forbid", use_attribute_docstrings=True)
Share = Annotated[float, Field(ge=0, le=1)]


class Health(BaseModel):
    """That the server answers."""

    model_config = _OWN

    status: Literal["ok"]
    version: str
    """Of overpaint."""
    max_bytes: int
    """Of a request."""
    max_pixels: int
    """Of a photo."""


class Model(BaseModel):
    """A detector or inpainter that a request can name."""

    model_config = _OWN

    name: str
    kind: Literal["detector", "inpainter"]
    summary: str
    """What it is good for."""
    default: bool
    """Whether it is used where a request names none."""
    sha256: str | None
    """Of its weights; null for a method without weights."""
    calibrated: bool
    """Whether a detector's verdicts have a stated false-alarm rate."""
    licence: str


class Problem(BaseModel):
    """Why there is no result."""

    model_config = _OWN | {
        "json_schema_extra": {
            "example": {
                "message": "photo.jpg: cut short or damaged (image file is truncated)",
                "remedy": "get the file again from where it came",
            }
        }
    }

    message: str
    remedy: str | None = None
    """What to do about it."""


class Region(BaseModel):
    """A marked region, in pixels of the upright photo."""

    model_config = _OWN

    x: int
    y: int
    width: int
    height: int
    area: int
    mean: Share
    """Mean heat."""


class View(BaseModel):
    """The text beside a view of the photo."""

    model_config = _OWN

    name: str
    """Its file is NAME.png; that of the photo may be photo.jpg."""
    title: str
    shows: str
    look_for: str
    ignore: str


class Heatmap(BaseModel):
    """The file heatmap.png: grey, of the photo's size; the value `top` is 1."""

    model_config = _OWN

    width: int
    height: int
    bits: Literal[16]
    top: Literal[65535]


class EditTest(BaseModel):
    """How often one kind of ordinary edit gives a strong trace."""

    model_config = _OWN

    photos: int
    """Number of photos that were edited so, and not inpainted."""
    strong_trace: int
    """Number of them with a strong trace."""


class FalseAlarmCurve(BaseModel):
    """False alarms at other thresholds: a share `levels[i]` of the untouched photos of this quality
    band have less than 1 % of their area above the threshold whose log odds are `logits[i]`."""

    model_config = _OWN

    logits: list[float]
    levels: list[Share]


class DetectResult(BaseModel):
    """The record of `overpaint detect`, with the client's own name of the file."""

    model_config = _OWN

    tool: str
    file: str
    sha256: str
    width: int
    height: int
    score: Share
    """If `calibrated`, 0.5 where inpainted and untouched test photos are equally likely."""
    calibrated: bool
    image_score: Share | None
    """Of a detector that judges the whole photo apart from its pixels; uncalibrated."""
    band: Band
    """The verdict."""
    words: str
    """The verdict and the extent, in one line."""
    doubt: str | None
    """Why the photo is inconclusive; null otherwise."""
    meaning: str
    """What the verdict says, or why there is none."""
    caveat: str
    """What no verdict can show."""
    fraction: Share
    """Share of the photo that is marked."""
    regions: list[Region]
    """The largest first; the smallest may be left out."""
    num_regions: int
    threshold: Share
    """On the heatmap after its log odds are averaged over `window` pixels square."""
    threshold_words: str
    window: int
    false_alarm_rate: Share | None
    """Share of untouched photos of this quality band with more than 1 % of their area marked."""
    false_alarm_bound: Share | None
    """Upper bound of that rate, with 95 % confidence."""
    num_photos: int | None
    """Untouched photos behind that rate."""
    false_alarm_note: str | None
    """Why the rate is unknown."""
    edits: dict[str, EditTest]
    """By kind of ordinary edit: photos with a strong trace after that edit alone."""
    edits_words: str
    """The same in a sentence; empty where there is no trace."""
    false_alarm_curve: FalseAlarmCurve | None
    """Null where the detector is not calibrated for this quality band."""
    quality: str
    """The photo's quality band."""
    notes: list[str]
    model: str
    weights_sha256: str | None
    calibration_sha256: str | None
    """Null without a calibration."""
    runtime: str
    """What executed the network, its precision and device."""
    version: str
    seconds: float
    """Time in the detector."""
    heatmap: Heatmap
    views: list[View]


class InpaintResult(BaseModel):
    """What was filled in, and how."""

    model_config = _OWN

    file: str
    """The client's name of the photo."""
    words: str
    width: int
    height: int
    fraction: Share
    """Share of the photo that was filled."""
    num_holes: int
    radius: int
    """Pixels by which the hole was grown."""
    inpainter: str
    weights_sha256: str | None
    sha256: str
    """Of the result's file, which is marked as edited."""
    picture: str
    """Name of that file among `files`; receipt.json describes the edit."""
    shown: str
    """Name of a file that every browser shows upright: `picture`, or after.png, also marked."""
    notes: list[str]
    seconds: float


class ReportResult(BaseModel):
    """The report's summary; report.json holds all of it."""

    model_config = _OWN

    file: str
    sha256: str
    grade: str
    """How far the finding supports that a part was filled in."""
    words: str
    verdict: str
    seconds: float


class Job(BaseModel):
    """A job and its result."""

    model_config = _OWN

    id: str
    kind: JobKind
    state: State
    ahead: int
    """Number of jobs of its kind that are done before it."""
    share: Share
    """Share of the work that is done."""
    error: Problem | None
    result: DetectResult | InpaintResult | ReportResult | None
    """While a detection runs, its result may come before its views."""
    files: dict[str, str]
    """Addresses of the files so far, by name."""


_ID = "mJ3zq0Yd1mWq8mB2bq7G3A"
_NAMES = {
    "detect": ("photo.jpg", "heatmap.png", "mask.png", "noise.png"),
    "inpaint": ("result.jpg", "receipt.json"),
    "report": ("report.html", "report.json"),
}
_RESULTS: dict[str, dict[str, Any]] = {
    "detect": {
        "tool": "overpaint detect",
        "file": "photo.jpg",
        "sha256": "d898b66519e7bb0807b6d20124f0a8122d7220d630f9f856c573840f6ffa6239",
        "width": 1632,
        "height": 1224,
        "score": 0.93,
        "calibrated": True,
        "image_score": None,
        "band": "strong trace",
        "words": "strong trace of inpainting: 3.1 % of the photo, 1 region",
        "doubt": None,
        "meaning": (
            "It reaches the threshold that 1 % of untouched photos of this quality reach. It also "
            "reaches that of a strong trace, and what is marked has fine detail: after each kind "
            "of ordinary edit at most 5 % of the calibration photos have one."
        ),
        "caveat": "A photo without a trace is not shown to be authentic.",
        "fraction": 0.031,
        "regions": [
            {"x": 410, "y": 288, "width": 260, "height": 310, "area": 61925, "mean": 0.9712}
        ],
        "num_regions": 1,
        "threshold": 0.939,
        "threshold_words": "threshold 0.939 for jpeg>=90, on averages over 13 pixels square",
        "window": 13,
        "false_alarm_rate": 0.01,
        "false_alarm_bound": 0.0377,
        "num_photos": 165,
        "false_alarm_note": None,
        "edits": {"blur": {"photos": 20, "strong_trace": 1}},
        "edits_words": (
            "untouched photos give a strong trace after ordinary edits, too: blur 1 of 20"
        ),
        "false_alarm_curve": {"logits": [-4.2, 0.3, 2.73], "levels": [0, 0.5, 0.99]},
        "quality": "jpeg>=90",
        "notes": [],
        "model": "nixnet-s",
        "weights_sha256": "b6c21e90f0e2136d7be56ecfbeb255f7fa78f394c81baad82dc6766efc657fd0",
        "calibration_sha256": "b0e8c3ededfd93ccf6dca5ac387867401005538c83f2f641320e4a157576bac5",
        "runtime": "torch 2.13.0+cpu, fp32, cpu",
        "version": "0.1.0",
        "seconds": 2.6,
        "heatmap": {"width": 1632, "height": 1224, "bits": 16, "top": 65535},
        "views": [
            {
                "name": "noise",
                "title": "Noise residual",
                "shows": "The brightness after a high-pass filter; white is 4.2 of 255 levels.",
                "look_for": "An area with less or with other noise than like surfaces elsewhere.",
                "ignore": "Edges and texture, which always show.",
            }
        ],
    },
    "inpaint": {
        "file": "photo.jpg",
        "words": "1 hole, 1.2 % of the photo, filled in by patchmatch",
        "width": 1632,
        "height": 1224,
        "fraction": 0.012,
        "num_holes": 1,
        "radius": 7,
        "inpainter": "patchmatch",
        "weights_sha256": None,
        "sha256": "233f3f27b9c0f5cfb3fca71e55109850c2e34a5dc88fae12ac8505304985ab04",
        "picture": "result.jpg",
        "shown": "result.jpg",
        "notes": ["JPEG: the pixels outside the mask were compressed again"],
        "seconds": 3.4,
    },
    "report": {
        "file": "photo.jpg",
        "sha256": "d898b66519e7bb0807b6d20124f0a8122d7220d630f9f856c573840f6ffa6239",
        "grade": "limited support",
        "words": "The finding gives limited support to the first proposition.",
        "verdict": "strong trace",
        "seconds": 13.1,
    },
}


def _make_example(kind: str, state: State, share: float, *, is_over: bool) -> dict[str, Any]:
    names = _NAMES[kind] if is_over else ()
    return {
        "id": _ID,
        "kind": kind,
        "state": state,
        "ahead": 0,
        "share": share,
        "error": None,
        "result": _RESULTS[kind] if is_over else None,
        "files": {name: f"/api/jobs/{_ID}/files/{name}" for name in names},
    }


EXAMPLES: dict[tuple[str, str, int], dict[str, Any]] = {
    **{
        ("post", f"/api/{kind}", 200): _make_example(kind, "done", 1.0, is_over=True)
        for kind in _RESULTS
    },
    **{
        ("post", f"/api/{kind}", 202): _make_example(kind, "queued", 0.0, is_over=False)
        for kind in _RESULTS
    },
    ("get", "/api/jobs/{id}", 200): _make_example("detect", "running", 0.4, is_over=False),
}
"""Examples of answers, by method, address and status."""
