"""A report of photos: detect, detect again after changes, grade the finding, write two files.

- A photo that fails gets a chapter with the reason; the others are examined all the same.
- Only what the report shows of a photo is kept, so that memory is that of one photo.
- Only an earlier report is ever overwritten, and only when the caller asks for it.
"""

import datetime
import json
import os
import platform
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np
import torch
from PIL import Image, features

from overpaint import __version__, progress
from overpaint.atomic import check_writable, is_same_file, write_together
from overpaint.detection.fusion import FUSED_THRESHOLD, FusedRunner, describe_error
from overpaint.detection.report import Runner, make_record
from overpaint.detection.result import FAILURES
from overpaint.errors import ImageError, InputError
from overpaint.images import MAX_PIXELS, decode_image, find_pixel_limit, read_file_bytes
from overpaint.images.regions import Region
from overpaint.report import contents
from overpaint.report.contents import Box, Examined, Failure, Report
from overpaint.report.file_facts import gather_facts
from overpaint.report.measured import find_misses
from overpaint.report.page import render_page
from overpaint.report.stability import SHIFT, Trial, describe_changes, try_changes
from overpaint.report.views import (
    View,
    choose_crop,
    encode_png,
    find_jpeg_grid,
    make_crops,
    make_views,
)
from overpaint.report.wording import LIMITS, form_opinion, make_finding
from overpaint.terminal import make_printable

MAX_CROPS = 6
"""Regions that are shown at full resolution; the others are only listed."""

_OURS = b'<meta name="generator" content="overpaint report'
_HEAD = 2000  # bytes


@dataclass(frozen=True, slots=True)
class Chapter:
    """What the page shows of one photo."""

    number: int
    about: Examined | Failure
    seconds: float | None
    views: list[View] = field(default_factory=list)
    crops: dict[int, dict[str, bytes]] = field(default_factory=dict)
    """PNG, by the region's number and the crop's caption."""
    thumbnail: tuple[bytes, bytes] | None = None
    """PNG: the thumbnail in EXIF, and the photo at its size."""


def make_chapters(
    paths: Sequence[Path], runner: Runner, *, anchors: str | None = None
) -> Iterator[Chapter]:
    """Yield a chapter per photo. anchors: certificates in PEM whose C2PA signers are trusted."""
    for number, path in enumerate(paths, start=1):
        try:
            data, _ = read_file_bytes(path)
            yield make_chapter(number, data, path, runner, anchors, beside=path)
        except FAILURES as error:
            yield make_failed_chapter(number, path, describe_error(error))


def make_failed_chapter(number: int, path: str | Path, reason: str) -> Chapter:
    """The chapter of a photo that could not be examined."""
    return Chapter(number, Failure(str(path), make_printable(reason)), None)


def make_chapter(
    number: int,
    data: bytes,
    name: str | Path,
    runner: Runner,
    anchors: str | None = None,
    *,
    beside: Path | None = None,
) -> Chapter:
    """The chapter of one photo.

    data: bytes of its file. name: what the report calls it. beside: its path, to look for a receipt
    beside it; None for a photo that was sent without its folder. Raises one of `FAILURES`.
    """
    photo = decode_image(data, name)
    with progress.map_to(0, 0.19):
        found = runner.run(photo)
    said = make_record(found)
    grid = find_jpeg_grid(photo.pixels)
    facts = gather_facts(data, photo, grid[0] if grid else None, anchors, beside=beside)
    views = make_views(photo.pixels, found.heatmap, found.mask, grid)
    with progress.map_to(0.24, 1):
        tried = try_changes(photo, found.mask, runner)
    moved = next(t for t in tried if t.change.name == SHIFT)
    finding, parts = make_finding(said), said.get("detectors", ())
    detectors = [make_finding(part) for part in parts if "error" not in part]
    largest = moved.stays(found.mask, found.regions[0]) if found.regions else None
    regions = [
        _describe_region(i, region, found.mask, tried)
        for i, region in enumerate(found.regions, start=1)
    ]
    about = Examined(
        file=facts.file,
        opinion=form_opinion(finding, detectors, tried, largest, chosen=_is_chosen(runner)),
        finding=finding,
        detectors=detectors,
        failed_detectors={p["model"]: make_printable(p["error"]) for p in parts if "error" in p},
        regions=regions,
        changes=[t.change for t in tried],
        changes_words=describe_changes(tried, found.mask, found.regions),
    )
    return Chapter(
        number=number,
        about=about,
        seconds=round(found.seconds + sum(t.seconds for t in tried), 2),
        views=views,
        crops={
            region.number: make_crops(photo.pixels, found.heatmap, found.mask, region.crop)
            for region in regions
            if region.crop
        },
        thumbnail=_pair(facts.thumbnail, facts.expected),
    )


def _is_chosen(runner: Runner) -> bool:
    """Whether a caller chose the threshold of the masks."""
    usual = FUSED_THRESHOLD if isinstance(runner, FusedRunner) else None
    return runner.threshold != usual


def _describe_region(
    number: int, region: Region, mask: np.ndarray, tried: Sequence[Trial]
) -> contents.Region:
    box = Box(region.x, region.y, region.width, region.height)
    return contents.Region(
        number=number,
        box=box,
        area=region.area,
        mean=round(region.mean, 4),
        crop=choose_crop(mask, box) if number <= MAX_CROPS else None,
        stays={t.change.name: t.stays(mask, region) for t in tried},
    )


def _pair(one: np.ndarray | None, other: np.ndarray | None) -> tuple[bytes, bytes] | None:
    return None if one is None or other is None else (encode_png(one), encode_png(other))


def read_clock() -> str:
    """The time, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def make_report(
    chapters: Sequence[Chapter],
    runner: Runner,
    parameters: contents.Parameters,
    *,
    command: str,
    started: str,
    passed_over: Sequence[Path] = (),
) -> Report:
    """The report with these chapters. started: from `read_clock`. passed_over: of a search, the
    pictures that say that they are findings."""
    runners = runner.runners if isinstance(runner, FusedRunner) else [runner]
    models = [
        contents.Model(r.name, r.weights_sha256, r.calibration_sha256, r.runtime) for r in runners
    ]
    return Report(
        schema=contents.SCHEMA,
        version=__version__,
        command=command,
        times=contents.Times(started, read_clock(), [chapter.seconds for chapter in chapters]),
        software=_list_software(),
        parameters=parameters,
        models=models,
        misses=[find_misses(model.name, model.weights_sha256) for model in models],
        limits=list(LIMITS),
        photos=[chapter.about for chapter in chapters],
        passed_over=[path.name for path in passed_over],
    )


def _list_software() -> dict[str, str]:
    """The versions and settings that the figures may depend on, besides the weights."""
    return {
        "overpaint": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pillow": str(getattr(Image, "__version__", "unknown")),
        "libjpeg": str(features.version("libjpeg_turbo") or features.version("jpg")),
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
    }


def find_json_path(out: Path) -> Path:
    """Path of the JSON file that belongs to the page `out`."""
    return out.with_suffix(".json")


def check_out(out: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Raise `InputError` where a report must not be written to `out`.

    overwrite: whether an earlier report may be replaced; other files never are.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{out}: the report is a page; give a name that ends in .html")
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; make it first")
    taken = {os.path.realpath(path) for path in inputs}
    other = out.with_suffix(".htm" if out.suffix.lower() == ".html" else ".html")
    if os.path.lexists(other) and not is_same_file(out, other):
        own = find_json_path(out).name
        raise InputError(f"{out}: {other.name} is there, to which {own} belongs; name another file")
    for path in (out, find_json_path(out)):
        if os.path.realpath(path) in taken:
            raise InputError(f"{path}: this is an input and is never overwritten; name another")
        if not os.path.lexists(path):
            continue
        if not _is_report(path):
            raise InputError(f"{path}: exists and is no report of overpaint; name another file")
        if not overwrite:
            raise InputError(f"{path}: exists; name another file, or use --overwrite")
    for path in (out, find_json_path(out)):
        check_writable(path, InputError)


def _is_report(path: Path) -> bool:
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        if path.suffix.lower() != ".json":
            with path.open("rb") as file:
                return _OURS in file.read(_HEAD)
        there = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(there, dict) and str(there.get("schema", "")).startswith("overpaint-report-")


def render_report(
    report: Report, chapters: Sequence[Chapter], json_name: str
) -> tuple[bytes, bytes]:
    """The page and the JSON file, which the page calls `json_name`."""
    text = contents.to_json(report)
    return render_page(report, chapters, json_name, text), text


def write_report(report: Report, chapters: Sequence[Chapter], out: Path) -> None:
    """Write page and JSON file, after `check_out`: both, or neither with an `ImageError`."""
    page, text = render_report(report, chapters, find_json_path(out).name)
    write_together([(out, page), (find_json_path(out), text)], ImageError)


def make_command(
    paths: Sequence[str],
    out: PurePath,
    models: Sequence[str],
    folders: Sequence[Path] = (),
    threshold: float | None = None,
    trust: Path | None = None,
    runtime: str = "torch",
) -> str:
    """The shell command that makes the report again."""
    words = ["overpaint", "report", "--out", str(out)]
    if (limit := find_pixel_limit(None)) != MAX_PIXELS:
        words.insert(0, f"OVERPAINT_MAX_PIXELS={limit}")
    for name in models:
        words += ["--model", name]
    for folder in folders:
        words += ["--weights-dir", str(folder)]
    if threshold is not None:
        words += ["--threshold", repr(threshold)]
    if trust is not None:
        words += ["--trust", str(trust)]
    if runtime != "torch":
        words += ["--runtime", runtime]
    dashed = any(path.startswith("-") for path in paths)
    return " ".join(map(_quote, [*words, *(["--"] if dashed else []), *paths]))


def _quote(word: str) -> str:
    """Quoted for a shell; characters that are not visible as bytes, in bash's $'' quoting."""
    if make_printable(word) == word:
        return shlex.quote(word)
    parts = {"'": "\\'", "\\": "\\\\"}
    for char in set(word):
        if make_printable(char) != char:
            stored = char.encode("utf-8", "surrogateescape")
            parts[char] = "".join(f"\\x{byte:02x}" for byte in stored)
    return f"$'{''.join(parts.get(char, char) for char in word)}'"
