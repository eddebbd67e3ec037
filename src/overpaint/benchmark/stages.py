"""What the stages do: photos -> weights -> fills -> heatmaps -> scores, and the quality of fills.

Each function takes its stage, the folders of what the stage needs, by role, and its own folder, and
returns what the rows want to know of it. All is done by the functions that the other commands have:
training, `forge`, `DetectorRunner`, the metrics.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from overpaint.benchmark.masks import make_mask_maker
from overpaint.benchmark.photos import bring_to_size, list_sized_photos
from overpaint.benchmark.recipe import FRECHET
from overpaint.benchmark.store import Stage
from overpaint.data.degrade import Step, replay
from overpaint.data.forgeries import ForgedRow
from overpaint.data.photo_sets import Fit
from overpaint.data.samples import read_rows
from overpaint.data.sources import PhotoSource, Place
from overpaint.detection.calibration import (
    AREA,
    LOSSLESS,
    find_quality,
    find_quality_band,
    judge,
    sigmoid,
)
from overpaint.detection.runner import DetectorRunner
from overpaint.detection.tiles import Seen
from overpaint.errors import ImageError, OverpaintError
from overpaint.evaluation.forge import forge
from overpaint.evaluation.frechet import compute_frechet_distance, measure_moments
from overpaint.evaluation.inpainting import FillScorers
from overpaint.images import Photo, read_image, read_mask, write_bytes
from overpaint.named_metrics import METRICS, Pooled, Scored, compute_figures
from overpaint.training.config import load_config
from overpaint.training.detection.base import DetectorRun, make_pairs
from overpaint.training.inpainting.base import InpainterRun
from overpaint.training.runs import Divided, train_detector, train_inpainter
from overpaint.weights import WeightsRecord, list_records

Folders = Mapping[str, Path]
PICTURES = "pictures.jsonl"
SCORES = "scores.json"
DETECTED = "detected@0.5"
"""Beside those of `named_metrics`, per picture: 1 where the detector says that it is inpainted: its
own score of the whole photo is 0.5 or more, or, of a detector without one, more than 1 % of the
pixels are."""
FOUND = "found@default"
"""Also beside those, per picture, of untouched ones as well: 1 where more than 1 % of the picture
reaches the calibrated threshold. Of untouched pictures its mean is the false-alarm rate."""
CURVE = np.array([-np.inf, *np.linspace(-16.0, 16.0, 513)])
"""Logits at which the points of pooled ROC and precision-recall curves lie; the first is reached by
every pixel."""


def list_photos(stage: Stage, folder: Path | None) -> list[Place]:
    """The photos of a stage of the kind "photos": as they are, or those that it wrote."""
    if stage.settings["fit"] == "native" or folder is None:
        return [Place(*place) for place in stage.places["photos"]]
    return list_sized_photos(folder)


def _open_photos(stage: Stage, folders: Folders, part: str) -> PhotoSource:
    return PhotoSource(list_photos(stage.needs[part], folders[part]))


# Training


def make_photos(stage: Stage, folders: Folders, out: Path, device: str) -> dict[str, Any]:
    """Photos at the size of the table; nothing to do for those that stay as they are."""
    places = [Place(*place) for place in stage.places["photos"]]
    if stage.settings["fit"] != "native":
        bring_to_size(places, Fit(stage.settings["size"], stage.settings["fit"]), out)
    return {"num": len(places)}


def make_reconstructions(stage: Stage, folders: Folders, out: Path, device: str) -> dict[str, Any]:
    """The cached reconstructions of universal data, which all detectors of one kind share."""
    run = load_config(DetectorRun, stage.places["recipe"], stage.places["set"])
    make_pairs(run, _open_photos(stage, folders, "train"), stage.places["assets"], out / "cache")
    return {"num": run.cache.num}


def make_detector(stage: Stage, folders: Folders, out: Path, device: str) -> dict[str, Any]:
    """Weights of a detector, trained by its recipe on universal data and fills."""
    overrides = list(stage.places["set"])
    fills = {str(f): 1.0 for role, f in sorted(folders.items()) if role.startswith("fills")}
    if fills:
        overrides.append(f"forged.folders={json.dumps(fills)}")
    overrides += _make_overrides(stage, folders)
    run = load_config(DetectorRun, stage.places["recipe"], overrides)
    cache = folders["reconstructions"] / "cache" if "reconstructions" in folders else None
    train = partial(train_detector, run, cache=cache)
    return _train(train, stage, folders, out, overrides, device)


def make_inpainter(stage: Stage, folders: Folders, out: Path, device: str) -> dict[str, Any]:
    """Weights of an inpainter, trained by its recipe."""
    overrides = [*stage.places["set"], *_make_overrides(stage, folders)]
    if "detector" in folders:
        overrides.append(f"loss.detector={json.dumps(find_weights(stage, 'detector', folders))}")
    run = load_config(InpainterRun, stage.places["recipe"], overrides)
    return _train(partial(train_inpainter, run), stage, folders, out, overrides, device)


def _train(
    train: Callable[..., WeightsRecord | None],
    stage: Stage,
    folders: Folders,
    out: Path,
    overrides: Sequence[str],
    device: str,
) -> dict[str, Any]:
    train_set, validation = (_open_photos(stage, folders, part) for part in ("train", "validation"))
    record = train(
        Divided(train_set, validation),
        out / "run",
        out,
        recipe=stage.places["recipe"],
        overrides=overrides,
        device=device,
        assets=stage.places["assets"],
    )
    assert record is not None, "one process trains"
    about = {"weights_sha256": record.sha256, "step": record.step}
    return about | {"validation": record.validation, "parameters": record.parameters}


def _make_overrides(stage: Stage, folders: Folders) -> list[str]:
    """As of --set: the weights of another stage that a training goes on from."""
    if "start" not in folders:
        return []
    return [f"start_from={json.dumps(find_weights(stage, 'start', folders))}"]


def find_weights(stage: Stage, role: str, folders: Folders) -> str:
    """The weights, or the method, of a stage's model: trained for it, or given."""
    if role in folders:
        (record,) = list_records(folders[role])
        return str(record.path)
    return str(stage.places[role])


# Pictures


def make_fills(stage: Stage, folders: Folders, out: Path, device: str) -> dict[str, Any]:
    """A folder of `overpaint forge`: of test photos, or of those that are trained on."""
    roles = sorted(role for role in stage.needs if role in ("train", "validation", "test"))
    settings = stage.settings
    photos = {role: list_photos(stage.needs[role], folders[role]) for role in roles}
    parts: dict[str, Any] = {p.name: part for part, found in photos.items() for p in found}
    done = forge(
        out,
        PhotoSource([place for found in photos.values() for place in found]),
        find_weights(stage, "inpainter", folders),
        {
            name: make_mask_maker(spec, bin_name, stage.places["assets"])
            for name, (spec, bin_name) in settings["masks"].items()
        },
        num=settings["num"],
        seed=settings["seed"],
        size=settings["size"],
        device=device,
        part_of=parts.get,
    )
    if not done.rows:
        raise ImageError(f"nothing could be filled in: {done.problems[0]}")
    return {"num": len(done.rows), "problems": done.problems}


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture that a detector is to look at."""

    name: str
    read: Callable[[], tuple[Photo, np.ndarray]]
    """The photo, and uint8 (h, w), 1 = inpainted. Raises ImageError."""
    forged: bool
    """Whether anything in it is inpainted."""


def read_pictures(stage: Stage, folders: Folders) -> Iterator[Shown]:
    """Fills or their originals, or the pictures of a set of pairs."""
    for pair in stage.places.get("pairs", ()):
        yield Shown(pair.name, pair.read, pair.forged)
    if "fills" in folders:
        folder, forged = folders["fills"], stage.settings["of"] != "originals"
        for row in read_rows(folder, ForgedRow):
            path = folder / (row.inpainted if forged else row.original)
            mask = folder / row.mask if forged else None
            yield Shown(f"{row.index:06d}", partial(_read, path, mask), forged)


def _read(path: Path, mask: Path | None) -> tuple[Photo, np.ndarray]:
    photo = read_image(path)
    size = photo.height, photo.width
    return photo, np.zeros(size, np.uint8) if mask is None else read_mask(mask, size=size)


@dataclass(frozen=True, slots=True)
class Looked:
    """What a detector said of a picture."""

    name: str
    forged: bool
    logits: np.ndarray = field(repr=False)
    """float32 (h, w)."""
    mask: np.ndarray = field(repr=False)
    """uint8 (h, w), 1 = inpainted."""
    threshold: float | None
    """The calibrated one, a logit; None without a calibration."""
    window: int
    score: float
    """Of the whole photo, in [0, 1]."""
    own_score: bool
    """Whether the detector has a score of its own; otherwise it is that of q99."""
    default_score: float | None
    """Which score stands for the calibrated threshold."""
    found: bool | None
    """Whether the picture reaches that threshold; None without a calibration."""


def look_at(stage: Stage, folders: Folders, device: str, problems: list[str]) -> Iterator[Looked]:
    """Run the detector over the pictures after the stage's processing.

    A picture that cannot be read is left out, and told of in `problems`.
    """
    runner = DetectorRunner(find_weights(stage, "detector", folders), device=device)
    steps = [Step(**step) for step in stage.settings["processing"]]
    problems += stage.places.get("problems", ())
    for shown in read_pictures(stage, folders):
        try:
            photo, mask = shown.read()
        except ImageError as error:
            problems.append(str(error))
            continue
        quality = find_band(steps, find_quality(photo))
        pixels, mask = replay(photo.pixels, mask, steps)
        yield _make_looked(runner, shown, runner.look(pixels), mask, quality)


def _make_looked(
    runner: DetectorRunner, shown: Shown, seen: Seen, mask: np.ndarray, quality: str
) -> Looked:
    fitted = runner.get_fitted_band(quality)
    judged = runner.judge(seen.logits, quality)
    own = sigmoid(max(seen.scores)) if seen.scores else None
    of_q99 = fitted.score(judged.statistic) if fitted else sigmoid(judged.statistic)
    return Looked(
        name=shown.name,
        forged=shown.forged,
        logits=seen.logits,
        mask=mask,
        threshold=judged.threshold if fitted else None,
        window=judged.window,
        score=of_q99 if own is None else own,
        own_score=own is not None,
        default_score=fitted.score(fitted.threshold_logit) if fitted and own is None else None,
        found=judged.statistic >= judged.threshold if fitted else None,
    )


def find_band(steps: list[Step], band: str) -> str:
    """The quality band of a picture after processing: that of the last file or change."""
    for step in steps:
        if step.name == "jpeg":
            band = find_quality_band(step.params["quality"], True)
        elif step.name == "webp":
            band = find_quality_band(None, True)
        else:  # its pixels are saved without loss
            band = LOSSLESS
    return band


def make_heatmaps(stage: Stage, folders: Folders, out: Path, device: str) -> dict[str, Any]:
    """The detector's outputs for each picture, logits as float32."""
    lines, problems = [], []
    for number, looked in enumerate(look_at(stage, folders, device, problems)):
        arrays = {"logits": looked.logits, "mask": looked.mask}
        with (out / f"{number:06d}.npz").open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        values = {n: getattr(looked, n) for n in looked.__dataclass_fields__ if n not in arrays}
        lines.append(json.dumps(values))
    write_bytes(out / PICTURES, "".join(f"{line}\n" for line in lines).encode())
    return {"num": len(lines), "problems": problems}


def read_heatmaps(folder: Path) -> Iterator[Looked]:
    """What `make_heatmaps` wrote."""
    lines = (folder / PICTURES).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        values = json.loads(line)
        with np.load(folder / f"{number:06d}.npz") as arrays:
            yield Looked(logits=arrays["logits"], mask=arrays["mask"], **values)


# Numbers


def make_scores(stage: Stage, folders: Folders, out: Path, device: str) -> dict[str, Any]:
    """The figures of each forged picture, those of all their pixels together, and points of curves.

    Of untouched pictures there is the score of the whole photo alone.
    """
    wanted = stage.settings["metrics"]
    of_picture = [n for n in wanted if n in METRICS and METRICS[n].level == "picture"]
    of_all = [n for n in wanted if n in METRICS and METRICS[n].level == "pooled"]
    problems: list[str] = []
    if "heatmaps" in folders:
        pictures = read_heatmaps(folders["heatmaps"])
    else:
        pictures = look_at(stage, folders, device, problems)
    pooled, found = Pooled(), []
    curve = np.zeros((2, len(CURVE)), np.int64)
    for looked in pictures:
        picture = make_scored(looked)
        numbers = {"score": looked.score, "default_score": looked.default_score}
        numbers["forged"] = float(looked.forged)
        if FOUND in wanted:
            numbers[FOUND] = None if looked.found is None else float(looked.found)
        if looked.forged:
            numbers |= compute_figures(picture, of_picture)
            curve += _count_points(looked)
            if DETECTED in wanted:
                numbers[DETECTED] = float(_is_detected(looked))
            if of_all:
                pooled.add(picture)
        found.append({"picture": looked.name, "numbers": numbers})
    if not found:
        reason = f": {problems[0]}" if problems else ""
        raise ImageError(f"{stage.label}: there is no picture{reason}")
    values = {
        "pictures": found,
        "pooled": compute_figures(pooled, of_all) if of_all else {},
        "curve": curve.tolist(),
    }
    write_bytes(out / SCORES, json.dumps(values).encode())
    return {"num": len(found), "problems": problems}


def make_scored(looked: Looked) -> Scored:
    default = None
    if looked.threshold is not None:
        default = judge(looked.logits, looked.threshold, looked.window).mask
    return Scored(looked.logits, looked.mask, half=0.0, default=default)


def _is_detected(looked: Looked) -> bool:
    if looked.own_score:
        return looked.score >= 0.5
    return float((looked.logits >= 0).mean()) > AREA


def _count_points(looked: Looked) -> np.ndarray:
    """(2, thresholds): how many inpainted and untouched pixels reach each of `CURVE`."""
    inside = looked.mask.astype(bool)
    counts = []
    for values in (looked.logits[inside], looked.logits[~inside]):
        below = np.searchsorted(np.sort(values), CURVE, side="left")
        counts.append(values.size - below)
    return np.array(counts)


def make_quality(stage: Stage, folders: Folders, out: Path, device: str) -> dict[str, Any]:
    """The figures of each fill against its photo, and of all fills against all photos."""
    scorers, found = FillScorers.load(stage.places["assets"] / "weights", {}), []
    wanted, folder = stage.settings["metrics"], folders["fills"]
    rows = read_rows(folder, ForgedRow)
    for row in rows:
        filled, photo = (read_image(folder / p).pixels for p in (row.inpainted, row.original))
        numbers = scorers.measure_quality(filled, photo)
        kept = {n: v for n, v in numbers.items() if n in wanted}
        found.append({"picture": f"{row.index:06d}", "numbers": kept})
    pooled = {}
    if FRECHET in wanted and scorers.backbone is not None and len(rows) > 1:
        sets = ([folder / r.inpainted for r in rows], [folder / r.original for r in rows])
        moments = (
            measure_moments(scorers.backbone, (read_image(f).pixels for f in files))
            for files in sets
        )
        pooled[FRECHET] = compute_frechet_distance(*moments)
    values = {"pictures": found, "pooled": pooled, "curve": []}
    write_bytes(out / SCORES, json.dumps(values).encode())
    return {"num": len(found)}


def make_nothing(stage: Stage, folders: Folders, out: Path, device: str) -> dict[str, Any]:
    """Of a model or data set that is not there: fails with the reason."""
    raise OverpaintError(stage.settings["error"])


Work = Callable[[Stage, Folders, Path, str], dict[str, Any]]

WORK: dict[str, Work] = {
    "photos": make_photos,
    "reconstructions": make_reconstructions,
    "detector": make_detector,
    "inpainter": make_inpainter,
    "fills": make_fills,
    "heatmaps": make_heatmaps,
    "scores": make_scores,
    "quality": make_quality,
    "missing": make_nothing,
}


def read_scores(folder: Path) -> dict[str, Any]:
    """What `make_scores` or `make_quality` wrote."""
    return json.loads((folder / SCORES).read_text(encoding="utf-8"))
