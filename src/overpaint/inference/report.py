"""From a `Detection` to what a person keeps: pictures and a JSON record.

- Per photo: NAME.heatmap.png (16 bit, 65535 = 1), NAME.mask.png (white = inpainted),
  NAME.overlay.png and NAME.json. NAME is the photo's name without its suffix.
- NAME.confidence.png (16 bit, 65535 = full trust) of a detector that says how far to trust each
  pixel, and NAME.disagreement.png (16 bit, 65535 = 1, of at most 0.5) of several detectors. The
  record of several is that of their mean, with one record per detector in `detectors`.
- Photos of one run whose names would collide each get the first 8 hexadecimal digits of the SHA-256
  of their absolute path behind the name: the same on every run, whatever the order.
- An input of the run is never written over, whatever name leads to it.
- The overlay's ramp runs from dark blue to light yellow through grey: its lightness rises steadily,
  and blue against yellow is told apart by nearly all colour-blind people. The photo below it is
  grey, so that its colours are not taken for heat; the mask's outline is white on black.
"""

import hashlib
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from overpaint import __version__
from overpaint.errors import ImageError
from overpaint.images import Photo, read_image, write_bytes, write_png
from overpaint.inference.detect import DetectorRunner
from overpaint.inference.detection import FAILURES, Detection
from overpaint.inference.fusion import Failure, FusedDetection, FusedRunner, reason_of

CAVEAT = (
    "A photo without a trace is not shown to be authentic: other edits, and inpainting that was "
    "saved anew at low quality, may leave none."
)

PICTURES = ("heatmap", "mask", "overlay", "confidence", "disagreement")

# Evenly spaced in heat, from 0 to 1; the luminance rises from end to end.
_RAMP = np.array(
    [[8, 24, 88], [48, 62, 112], [92, 98, 122], [138, 136, 120], [190, 178, 104], [255, 236, 80]]
)
_STRIP = 256  # rows of the overlay made at a time, so that memory stays bounded

Record = dict[str, Any]
Runner = DetectorRunner | FusedRunner


def record(found: Detection) -> Record:
    """The JSON record of a detection, without the paths of pictures. All values are finite."""
    out = _record(found)
    if isinstance(found, FusedDetection):
        out |= {
            "fusion": found.fusion_words,
            "fused": list(found.fused),
            "disagreement_q99": round(found.disagreement_q99, 6),
            "detectors": [
                failure(found.path, d, d.error) if isinstance(d, Failure) else _record(d)
                for d in found.detectors
            ],
        }
    return out


def _record(found: Detection) -> Record:
    return {
        "file": str(found.path) if found.path else None,
        "sha256": found.sha256,
        "width": found.width,
        "height": found.height,
        "score": round(found.score, 6),
        "calibrated": found.calibrated,
        "image_score": None if found.image_score is None else round(found.image_score, 6),
        "band": found.band,
        "words": found.words,
        "fraction": found.fraction,
        "regions": [region.to_dict() for region in found.regions],
        "num_regions": found.num_regions,
        "threshold": found.threshold,
        "threshold_words": found.threshold_words,
        "window": found.window,
        "false_alarm_rate": found.false_alarm_rate,
        "false_alarm_bound": (
            None if found.false_alarm_bound is None else round(found.false_alarm_bound, 6)
        ),
        "num_photos": found.num_photos,
        "false_alarm_note": found.false_alarm_note,
        "edits": {kind: round(rate, 4) for kind, rate in found.edits.items()},
        "quality": found.quality,
        "notes": list(found.notes),
        "model": found.model,
        "weights_sha256": found.weights_sha256,
        "version": found.version,
        "seconds": round(found.seconds, 3),
    }


def overlay(pixels: np.ndarray, heatmap: np.ndarray, mask: np.ndarray) -> np.ndarray:
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
    out[_grown(mask, width) & ~mask] = 0
    out[mask & _grown(~mask, width)] = 255
    return out


def _grown(mask: np.ndarray, steps: int) -> np.ndarray:
    """Dilation by so many steps to the four neighbours."""
    out = mask.copy()
    for _ in range(steps):
        last, out = out, out.copy()
        out[1:] |= last[:-1]
        out[:-1] |= last[1:]
        out[:, 1:] |= last[:, :-1]
        out[:, :-1] |= last[:, 1:]
    return out


def names(paths: Sequence[Path]) -> list[str]:
    """NAME for each photo of a run, in order. Names that differ only in case collide as well."""
    keys = [unicodedata.normalize("NFC", path.stem).casefold() for path in paths]
    count = Counter(keys)
    return [
        path.stem if count[key] == 1 else f"{path.stem}-{_path_hash(path)}"
        for path, key in zip(paths, keys, strict=True)
    ]


def _path_hash(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:8]


class Writer:
    """Writes results into one folder, and never over one of `inputs`."""

    def __init__(self, out: Path, inputs: Iterable[Path]) -> None:
        """Makes the folder; raises `ImageError` when that fails."""
        self.out = out
        self._inputs = {identity for path in inputs if (identity := _identity(path))}
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(f"{out}: cannot be made ({error.strerror}); choose another") from error

    def write(self, photo: Photo, found: Detection, name: str) -> Record:
        """Write pictures and record; returns the record with their paths. Raises `ImageError`."""
        paths = {kind: self.out / f"{name}.{kind}.png" for kind in _kinds(found)}
        json_path = self.out / f"{name}.json"
        for path in (*paths.values(), json_path):
            if _identity(path) in self._inputs:
                raise ImageError(f"{path}: would write over a photo of this run; use another --out")
        for kind, path in paths.items():
            write_png(path, _picture(kind, photo, found))
        full = record(found) | {kind: str(path) for kind, path in paths.items()}
        write_bytes(json_path, (json.dumps(full, indent=1, allow_nan=False) + "\n").encode())
        return full


def _kinds(found: Detection) -> list[str]:
    """Which of `PICTURES` there are."""
    return [k for k in PICTURES if k == "overlay" or getattr(found, k, None) is not None]


def _picture(kind: str, photo: Photo, found: Detection) -> np.ndarray:
    if kind == "overlay":
        return overlay(photo.pixels, found.heatmap, found.mask)
    if kind == "mask":
        return found.mask.astype(np.uint8) * 255
    return np.rint(getattr(found, kind) * 65535).astype(np.uint16)


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode, the same for every name that leads to a file; None when there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def examine(paths: Sequence[Path], runner: Runner, writer: Writer) -> Iterator[Record]:
    """Detect in one photo after the other and write what was found; yields the records.

    A photo that fails gives a record with `error`, and the run goes on.
    """
    for path, name in zip(paths, names(paths), strict=True):
        try:
            yield _examine_one(path, name, runner, writer)
        except FAILURES as error:
            yield failure(path, runner, reason_of(error))


def _examine_one(path: Path, name: str, runner: Runner, writer: Writer) -> Record:
    photo = read_image(path)
    return writer.write(photo, runner.run(photo), name)


def failure(path: str | Path | None, by: Runner | Failure, error: str) -> Record:
    """The record of a photo that a detector, or all of them, could not examine."""
    return {
        "file": str(path) if path else None,
        "error": error,
        "model": by.model if isinstance(by, Failure) else by.name,
        "weights_sha256": by.weights_sha256,
        "version": __version__,
    }
