"""What the stages of hardening do, beside those of tables: pieces, thresholds, and mining."""

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from overpaint import hashes
from overpaint.benchmark.stages import (
    Folders,
    Looked,
    Work,
    find_weights,
    look_at,
    make_scored,
)
from overpaint.benchmark.store import Stage
from overpaint.data.forgeries import ForgedRow
from overpaint.data.real_fills import RealFill
from overpaint.data.samples import MANIFEST, read_rows
from overpaint.data.sources import PhotoSource, Place, shorten_name
from overpaint.detection.calibration import LOSSLESS, Calibration, average_logits, q99
from overpaint.detection.runner import DetectorRunner
from overpaint.errors import ImageError
from overpaint.evaluation.fit_calibration import (
    MIN_SIDE,
    QUALITIES,
    WINDOW,
    fit_band,
    store_calibration,
)
from overpaint.images import Photo, write_bytes
from overpaint.images.from_arrays import as_photo
from overpaint.named_metrics import compute_figures
from overpaint.weights import read_record

BLOCK = 8  # pixels; JPEG's blocks


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an untouched photo, cut as `overpaint forge` cuts its originals."""

    place: Place
    size: int
    seed: int
    index: int
    forged: bool = False

    @property
    def name(self) -> str:
        return f"{shorten_name(self.place.name)} {self.index}"

    def read(self) -> tuple[Photo, np.ndarray]:
        """The piece, and a mask of nothing. Raises ImageError for a photo that is too small."""
        pixels = PhotoSource([self.place]).read(0)
        if min(pixels.shape[:2]) < self.size:
            raise ImageError(
                f"{self.place.name}: {pixels.shape[1]} x {pixels.shape[0]} pixels are too few for "
                f"pieces of {self.size}"
            )
        rng = np.random.default_rng([self.seed, self.index])
        top, left = (
            BLOCK * int(rng.integers((n - self.size) // BLOCK + 1)) for n in pixels.shape[:2]
        )
        piece = np.ascontiguousarray(pixels[top : top + self.size, left : left + self.size])
        return as_photo(piece), np.zeros(piece.shape[:2], np.uint8)


def cut(places: list[Place], num: int, size: int, seed: int) -> list[Piece]:
    """As many pieces, of each photo alike, in a shuffled order."""
    order = np.random.default_rng(seed).permutation(len(places))
    return [Piece(places[order[i % len(order)]], size, seed, i) for i in range(num)]


@dataclass(frozen=True, slots=True)
class RealPicture:
    """A real fill as a picture that a detector is to look at."""

    fill: RealFill
    forged: bool = True

    @property
    def name(self) -> str:
        return self.fill.id

    def read(self) -> tuple[Photo, np.ndarray]:
        """The whole picture, and uint8 (h, w), 1 = inpainted. Raises ImageError."""
        pixels, mask = self.fill.read()
        return as_photo(pixels), mask


def make_calibrated(stage: Stage, folders: Folders, out: Path, device: str) -> dict[str, Any]:
    """The detector's weights with a threshold that a stated share of untouched pieces reaches.

    As `overpaint calibrate` does it, of lossless pictures alone, and without a score.
    """
    weights = find_weights(stage, "detector", folders)
    record, runner = read_record(weights, kind="detector"), DetectorRunner(weights, device=device)
    statistics, photos, problems = [], set(), []
    for piece in stage.places["pieces"]:
        try:
            photo, _ = piece.read()
        except ImageError as error:
            problems.append(str(error))
            continue
        statistics.append(q99(average_logits(runner.logits(photo.pixels), WINDOW)))
        photos.add(piece.place)
    rate, size = stage.settings["rate"], stage.settings["size"]
    fitted = fit_band(np.array(statistics), None, len(photos), rate)
    calibration = Calibration(
        bands={LOSSLESS: fitted},
        window=WINDOW,
        min_side=min(MIN_SIDE, size),
        min_jpeg_quality=min(low for low, _ in QUALITIES.values()),
        max_pixels_tested=size * size,
        data=f"{len(statistics)} pieces of {len(photos)} untouched validation photos, {size} px",
    )
    shutil.copyfile(record.path, out / record.file)
    record = store_calibration(record, calibration, out)
    return {
        "weights_sha256": record.sha256,
        "calibration_sha256": hashes.file_sha256(out / str(record.calibration)),
        "threshold": fitted.threshold_logit,
        "num": len(statistics),
        "problems": sorted(set(problems)),
    }


def make_mined(stage: Stage, folders: Folders, out: Path, device: str) -> dict[str, Any]:
    """A folder as of `overpaint forge`, with the fills that the detector does worst on.

    Of training photos, the share with the lowest metric is taken from the fills of all inpainters
    together, so that whose fills are missed most has the most of them; where the metric ties, a
    lower pixel AUC decides. Of validation photos all are taken, as they choose nothing.
    """
    found: list[tuple[tuple[float, float], str, Path, ForgedRow]] = []
    kept: list[tuple[str, Path, ForgedRow]] = []
    problems: list[str] = []
    by, roles = stage.settings["by"], [r for r in sorted(folders) if r.startswith("fills")]
    for role in roles:
        generator, rows = role.removeprefix("fills "), read_rows(folders[role], ForgedRow)
        of_training = {f"{row.index:06d}": row for row in rows if row.part == "train"}
        kept += [(generator, folders[role], row) for row in rows if row.part == "validation"]
        looks = look_at(stage, {**folders, "fills": folders[role]}, device, problems)
        found += [
            (_compute_rank(looked, by), generator, folders[role], of_training[looked.name])
            for looked in looks
            if looked.name in of_training
        ]
    found.sort(key=lambda each: (*each[0], each[1], each[3].index))
    num = max(1, round(stage.settings["share"] * len(found)))
    mined = [each[1:] for each in found[:num]]
    lines = []
    for index, (generator, folder, row) in enumerate([*mined, *kept]):
        files = {}
        for kind in ("original", "mask", "inpainted"):
            files[kind] = f"{kind}/{index:06d}.png"
            (out / kind).mkdir(exist_ok=True)
            shutil.copyfile(folder / getattr(row, kind), out / files[kind])
        lines.append(row.model_copy(update={"index": index, "inpainter": generator, **files}))
    manifest = "".join(f"{line.model_dump_json()}\n" for line in lines)
    write_bytes(out / MANIFEST, manifest.encode())
    made, taken = (Counter(each[-3] for each in group) for group in (found, mined))
    counts = {name: [taken[name], made[name]] for name in sorted(made)}
    return {"num": len(mined), "mined": counts, "problems": problems}


def _compute_rank(looked: Looked, by: str) -> tuple[float, float]:
    """What fills are ranked by: the metric, then pixel AUC; undefined counts as missed."""
    numbers = compute_figures(make_scored(looked), [by, "auc"])
    first, second = (numbers[name] for name in (by, "auc"))
    return tuple(-1.0 if np.isnan(v) else float(v) for v in (first, second))  # type: ignore[return-value]


WORK: dict[str, Work] = {"calibrated": make_calibrated, "mined": make_mined}
