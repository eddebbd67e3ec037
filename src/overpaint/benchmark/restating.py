"""Published rows after a calibration was rewritten with the same thresholds.

Rows name the calibration by its hash, which also changes with the counts of ordinary edits and with
words. What names it: `sources.csv` (`evaluation.rows`) and `provenance.csv` of the tables
(`benchmark.rows`), in which a line's key is a hash of the line; and the files beside them, whose
lines name a key.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from overpaint import hashes
from overpaint.benchmark.rows import PROVENANCE, make_source_key, read_lines, write_lines
from overpaint.detection.calibration import Calibration
from overpaint.errors import ConfigError
from overpaint.evaluation.rows import SOURCES, Source

Line = dict[str, str]
KEY = "source"
"""The column with the key of a line, and with that which a row names."""


def restate_calibration(folder: Path, before: Path, after: Path) -> list[Path]:
    """Replace a calibration's hash in all rows by that of a file with the same thresholds.

    If only ordinary edits were measured again (`overpaint calibrate --only-edits`) or its words
    changed, a calibration gives the same masks and scores, so the measured numbers stay valid;
    those of the set "edits", which depend on the threshold of a strong trace, do not. A second call
    completes an interrupted one. folder: of the results; those below it are included. -> the files
    that were changed.

    Raises ConfigError where anything but edits and words differs; the rows must then be measured
    again. Raises WeightsError for calibrations that cannot be read.
    """
    old, new = (_remove_edits(Calibration.load(path)) for path in (before, after))
    if old != new:
        raise ConfigError(
            f"{after}: its thresholds, scores or limits are not those of {before}, so that numbers "
            "measured by that do not hold; measure again"
        )
    hashes_of = hashes.file_sha256(before), hashes.file_sha256(after)
    changed = []
    for name, restate in ((f"{SOURCES}.csv", _restate_source), (PROVENANCE, _restate_shared)):
        for place in sorted(folder.rglob(name)):
            changed += _restate_folder(place, restate, *hashes_of)
    return changed


def _remove_edits(calibration: Calibration) -> dict[str, Any]:
    of_edits = {"edits", "strong_logit"}
    return calibration.model_dump(exclude={"data": True, "bands": {"__all__": of_edits}})


def _restate_folder(
    place: Path, restate: Callable[[Line, str, str], Line], before: str, after: str
) -> list[Path]:
    """`restate` each line of a file of sources, and put the new keys into the files beside it."""
    changed, found = [], read_lines(place)
    here = list({line[KEY]: line for line in (restate(x, before, after) for x in found)}.values())
    # By the sources as they are to be, so that lines of an interrupted run are known as well.
    keys = {restate(line, after, before)[KEY]: line[KEY] for line in here}
    if here != found:
        write_lines(place, list(here[0]), here)
        changed.append(place)
    for path in sorted(place.parent.glob("*.csv")):
        lines = read_lines(path) if path != place else []
        moved = [line | {KEY: keys[line[KEY]]} if line.get(KEY) in keys else line for line in lines]
        if moved != lines:
            write_lines(path, list(moved[0]), moved)
            changed.append(path)
    return changed


def _restate_source(line: Line, before: str, after: str) -> Line:
    """A line of `sources.csv`: the calibration of the weights, and of detectors that looked on."""
    source = Source(**_drop_key(line))
    seen = [entry.split(" ") for entry in source.seen_by.split("; ")]
    for entry in seen:
        if entry[-1] == before[:12]:
            entry[-1] = after[:12]
    own = after if source.calibration_sha256 == before else source.calibration_sha256
    seen_by = "; ".join(map(" ".join, seen))
    source = replace(source, calibration_sha256=own, seen_by=seen_by)
    return {KEY: source.key, **asdict(source)}


def _restate_shared(line: Line, before: str, after: str) -> Line:
    """A line of the tables' `provenance.csv`."""
    own = after if line["calibration_sha256"] == before else line["calibration_sha256"]
    shared = _drop_key(line) | {"calibration_sha256": own}
    return {KEY: make_source_key(shared), **shared}


def _drop_key(line: Mapping[str, str]) -> Line:
    return {name: value for name, value in line.items() if name != KEY}
