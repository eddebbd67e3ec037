"""Files for a `Detection`: pictures and a JSON record.

- Per photo: NAME.heatmap.png (16 bit, 65535 = 1), NAME.mask.png (white = inpainted),
  NAME.overlay.png and NAME.json. NAME is the photo's name without its suffix.
- NAME.confidence.png (16 bit, 65535 = 1) if the detector gives a confidence for each pixel, and
  NAME.disagreement.png (16 bit, 65535 = 1; values are at most 0.5) of several detectors. The record
  of several detectors is that of their mean, with one record per detector in `detectors`.
- Photos of one run whose names would collide each get the first 8 hexadecimal digits of the SHA-256
  of their real path after the name: the same on every run, in any order. The same is done if the
  name is taken by an earlier run's result for another photo or by a file of another program, and if
  the name is too long: file systems allow 255 bytes, not characters.
- Each file states its photo: the record by path and hash, every picture by a PNG text chunk
  (`overpaint.data.finding.MARK`) with both. Only results of the same photo are replaced, and then
  all of them, so that no result of another model or of an earlier run stays beside the new ones.
- The record is deleted first and written last, so that it is never beside pictures of another run.
  If a photo fails, a record of the error replaces the earlier record.
- An input of the run is never overwritten, not even by a link to it.
- The overlay's colour map runs from dark blue through grey to light yellow: its lightness rises
  steadily, and nearly all colour-blind people can distinguish blue from yellow. The photo below it
  is grey, so that its colours cannot be confused with the colour map. The mask's outline is white
  on black.
"""

import contextlib
import io
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from overpaint import __version__, hashes
from overpaint.atomic import make_folder
from overpaint.data.finding import MARK, read_head, read_result_mark
from overpaint.detection.fusion import Failure, FusedDetection, FusedRunner, describe_error
from overpaint.detection.result import FAILURES, Detection
from overpaint.detection.runner import DetectorRunner
from overpaint.errors import ImageError
from overpaint.images import Photo, read_image, write_bytes

CAVEAT = (
    "A photo without a trace is not shown to be authentic: other edits, and inpainting that was "
    "saved anew at low quality, may leave none."
)

TOOL = "overpaint detect"
"""The value of `tool` in every record that a `Writer` writes."""

PICTURES = ("heatmap", "mask", "overlay", "confidence", "disagreement")

# Evenly spaced in heat, from 0 to 1; the luminance rises from end to end.
_RAMP = np.array(
    [[8, 24, 88], [48, 62, 112], [92, 98, 122], [138, 136, 120], [190, 178, 104], [255, 236, 80]]
)
_MAX_NAME, _LONGEST_END = 255, len(".disagreement.png")  # bytes; as long as ".png.receipt.json"
_MAX_OWN = 2**30  # bytes; no result is longer
_STRIP = 256  # rows of the overlay made at a time, so that memory stays bounded

Record = dict[str, Any]
Runner = DetectorRunner | FusedRunner


def make_record(found: Detection) -> Record:
    """The JSON record of a detection, without the paths of pictures. All values are finite."""
    out = _record(found)
    if isinstance(found, FusedDetection):
        out |= {
            "fusion": found.fusion_words,
            "fused": list(found.fused),
            "disagreement_q99": round(found.disagreement_q99, 6),
            "detectors": [
                make_failure(found.path, d, d.error) if isinstance(d, Failure) else _record(d)
                for d in found.detectors
            ],
        }
    return out


def _record(found: Detection) -> Record:
    limit, examiner = found.mask_threshold, found.examiner
    return {
        "tool": TOOL,
        "file": str(found.path) if found.path else None,
        "path": _resolve(found.path) if found.path else None,
        "sha256": found.source.sha256,
        "width": found.width,
        "height": found.height,
        "score": round(found.score, 6),
        "calibrated": found.calibrated,
        "image_score": None if found.image_score is None else round(found.image_score, 6),
        "band": found.band,
        "words": found.words,
        "doubt": found.verdict.doubt,
        "fraction": found.fraction,
        "regions": [region.to_dict() for region in found.regions],
        "num_regions": found.num_regions,
        "threshold": found.threshold,
        "threshold_words": found.threshold_words,
        "window": limit.window,
        "false_alarm_rate": found.false_alarm_rate,
        "false_alarm_bound": None if limit.bound is None else round(limit.bound, 6),
        "num_photos": limit.num_photos,
        "false_alarm_note": limit.note,
        "edits": {
            kind: {"photos": count.num, "strong_trace": count.num_strong}
            for kind, count in found.edits.items()
        },
        "quality": found.quality,
        "notes": list(found.notes),
        "model": found.model,
        "weights_sha256": examiner.weights_sha256,
        "calibration_sha256": examiner.calibration_sha256,
        "version": examiner.version,
        "runtime": examiner.runtime,
        "seconds": round(examiner.seconds, 3),
    }


def draw_overlay(pixels: np.ndarray, heatmap: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The photo in grey under the heatmap in colour, with the mask's outline: uint8 (h, w, 3)."""
    out = np.empty_like(pixels)
    levels = np.linspace(0, 1, len(_RAMP))
    table = np.stack([np.interp(np.linspace(0, 1, 256), levels, c) for c in _RAMP.T], axis=1)
    for top in range(0, len(pixels), _STRIP):
        rows = slice(top, top + _STRIP)
        grey = pixels[rows] @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        heat = table[np.rint(heatmap[rows] * 255).astype(np.uint8)]
        out[rows] = np.rint(0.5 * grey[..., None] + 0.5 * heat)
    width = max(1, round(min(mask.shape) / 400))
    out[_dilate(mask, width) & ~mask] = 0
    out[mask & _dilate(~mask, width)] = 255
    return out


def _dilate(mask: np.ndarray, steps: int) -> np.ndarray:
    """Dilation by `steps` pixels with the four neighbours."""
    out = mask.copy()
    for _ in range(steps):
        last, out = out, out.copy()
        out[1:] |= last[:-1]
        out[:-1] |= last[1:]
        out[:, 1:] |= last[:, :-1]
        out[:, :-1] |= last[:, 1:]
    return out


def choose_names(paths: Sequence[Path]) -> list[str]:
    """NAME for each photo of a run, in order. Names that differ only in case collide as well."""
    keys = [unicodedata.normalize("NFC", path.stem).casefold() for path in paths]
    count = Counter(keys)
    return [
        path.stem if count[key] == 1 and _fits(path.stem) else make_unique_name(path)
        for path, key in zip(paths, keys, strict=True)
    ]


def make_unique_name(path: Path) -> str:
    """NAME of a photo where its plain name is taken or too long."""
    stem = path.stem
    while not _fits(f"{stem}-{_hash_path(path)}"):
        stem = stem[:-1]
    return f"{stem}-{_hash_path(path)}"


def _fits(name: str) -> bool:
    return len(name.encode("utf-8", "surrogatepass")) + _LONGEST_END <= _MAX_NAME


def _hash_path(path: str | Path) -> str:
    return hashes.sha256(os.fsencode(_resolve(path)))[:8]


def _resolve(path: str | Path) -> str:
    """A photo's absolute path without links, which identifies it on this machine."""
    try:
        return os.path.realpath(path)
    except ValueError:  # a NUL, in a line of a list: there is no such file
        return str(path)


class Writer:
    """Writes results into one folder; overwrites no input, other photo's result, or other file.

    Earlier results of the same photo are replaced, also those under another name.
    """

    def __init__(self, out: Path, inputs: Sequence[Path]) -> None:
        """inputs: all photos of the run. Makes the folder.

        Raises `ImageError` where it cannot be made or written into.
        """
        self.out = out
        self._inputs = {identity for path in inputs if (identity := _identify(path))}
        self._names = dict(zip(map(_resolve, inputs), choose_names(inputs), strict=True))
        make_folder(out, ImageError, "choose another --out")

    def write(self, photo: Photo, found: Detection) -> Record:
        """Write pictures and record; returns the record with their paths. Raises `ImageError`."""
        name = self._clear(photo.path)
        paths = {kind: self.out / f"{name}.{kind}.png" for kind in _list_kinds(found)}
        for kind, path in paths.items():
            write_bytes(path, _encode_png(_draw(kind, photo, found), _make_mark(kind, photo)))
        full = make_record(found) | {kind: str(path) for kind, path in paths.items()}
        write_bytes(self.out / f"{name}.json", _encode_json(full))
        return full

    def write_failure(self, path: Path, failed: Record) -> Record:
        """Replace the photo's earlier results by the record of a failure.

        Returns the record; if the earlier results cannot be replaced, it says so.
        """
        try:
            write_bytes(self.out / f"{self._clear(path)}.json", _encode_json(failed))
        except ImageError as error:
            stale = [name for name in self._list_names(path) if self._is_of(path, f"{name}.json")]
            left = [f"an earlier run's record stays in {self.out / name}.json" for name in stale]
            return failed | {"error": "; ".join([failed["error"], str(error), *left])}
        return failed

    def replace_earlier(self, path: Path, failed: Record) -> Record:
        """As `write_failure`, but only if an earlier run wrote a record of this path, which may be
        no photo (a folder, a glob)."""
        known = any(self._is_of(path, f"{name}.json") for name in self._list_names(path))
        return self.write_failure(path, failed) if known else failed

    def _list_choices(self, path: Path) -> list[str]:
        """The names that a photo may get in this run, the best first."""
        usual = self._names.get(_resolve(path)) or choose_names([path])[0]
        return list(dict.fromkeys((usual, make_unique_name(path))))

    def _list_names(self, path: Path) -> list[str]:
        """The names that an earlier run may have given to a photo."""
        return list(dict.fromkeys((*self._list_choices(path), path.stem)))

    def _clear(self, path: Path) -> str:
        """Delete the earlier results of a photo, and return the name for the new ones."""
        choices = self._list_choices(path)
        free = next((name for name in choices if self._is_free(path, name)), None)
        if free is None:
            taken = self.out / f"{choices[0]}.json"
            raise ImageError(
                f"{taken}: this or a picture beside it is no earlier result of {path} and would be "
                "written over; use another --out"
            )
        try:
            for name in self._list_names(path):
                for file in _list_files(name):
                    if self._is_of(path, file) and not self._is_input(file):
                        (self.out / file).unlink()
        except OSError as error:
            raise ImageError(
                f"{self.out}: the earlier results of {path} cannot be replaced ({error.strerror}); "
                "the folder must be writable"
            ) from error
        return free

    def _is_free(self, path: Path, name: str) -> bool:
        files = [file for file in _list_files(name) if os.path.lexists(self.out / file)]
        return all(self._is_of(path, file) and not self._is_input(file) for file in files)

    def _is_input(self, file: str) -> bool:
        return _identify(self.out / file) in self._inputs

    def _is_of(self, path: Path, file: str) -> bool:
        """Whether a file is a result of this photo, by its content and not by its name."""
        place = self.out / file
        with contextlib.suppress(OSError, ValueError, RecursionError):
            if not place.is_file() or place.stat().st_size > _MAX_OWN:
                return False
            if file.endswith(".png"):
                said = read_result_mark(read_head(place)) or ""
                return said.endswith(_make_path_mark(path))
            there = json.loads(place.read_bytes())
            ours = isinstance(there, dict) and there.get("tool") == TOOL
            return ours and there.get("path") == _resolve(path)
        return False


def _list_files(name: str) -> list[str]:
    """The names of all files that a photo's results may have, the record first."""
    return [f"{name}.json", *(f"{name}.{kind}.png" for kind in PICTURES)]


def _encode_json(record: Record) -> bytes:
    return (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()


def _make_mark(kind: str, photo: Photo) -> str:
    return (
        f"{kind} by overpaint {__version__} of the photo sha256 {photo.sha256}"
        + _make_path_mark(photo.path)
    )


def _make_path_mark(path: Path) -> str:
    return f", path {_hash_path(path)}"


def _encode_png(array: np.ndarray, mark: str) -> bytes:
    """uint8 (h, w) or (h, w, 3), or uint16 (h, w), as PNG with the text chunk `mark`."""
    text = PngImagePlugin.PngInfo()
    text.add_text(MARK, mark)
    buffer = io.BytesIO()
    # A higher level takes several times as long and saves only 3 % of a heatmap's bytes.
    Image.fromarray(array).save(buffer, "PNG", pnginfo=text, compress_level=1)
    return buffer.getvalue()


def _list_kinds(found: Detection) -> list[str]:
    """Those of `PICTURES` that a detection has."""
    return [k for k in PICTURES if k == "overlay" or getattr(found, k, None) is not None]


def _draw(kind: str, photo: Photo, found: Detection) -> np.ndarray:
    if kind == "overlay":
        return draw_overlay(photo.pixels, found.heatmap, found.mask)
    if kind == "mask":
        return found.mask.astype(np.uint8) * 255
    return np.rint(getattr(found, kind) * 65535).astype(np.uint16)


def _identify(path: Path) -> tuple[int, int] | None:
    """Device and inode, the same for every name that leads to a file; None when there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def detect_files(paths: Sequence[Path], runner: Runner, writer: Writer) -> Iterator[Record]:
    """Detect in one photo after the other and write the results; yields the records.

    A photo that fails gives a record with `error`, and the run goes on.
    """
    for path in paths:
        try:
            yield _examine_one(path, runner, writer)
        except FAILURES as error:
            yield writer.write_failure(path, make_failure(path, runner, describe_error(error)))


def _examine_one(path: Path, runner: Runner, writer: Writer) -> Record:
    photo = read_image(path)
    return writer.write(photo, runner.run(photo))


def make_failure(path: str | Path | None, by: Runner | Failure, error: str) -> Record:
    """The record of a photo that a detector, or all of them, could not examine."""
    return {
        "tool": TOOL,
        "file": str(path) if path else None,
        "path": _resolve(path) if path else None,
        "error": error,
        "model": by.model if isinstance(by, Failure) else by.name,
        "weights_sha256": by.weights_sha256,
        "version": __version__,
    }
