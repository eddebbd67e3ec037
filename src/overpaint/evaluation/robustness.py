"""The part "robustness": a detector on pictures of many inpainters, after JPEG, WebP and resizing.

- Inpainted pictures: universal test data, forgeries of test photos by each inpainter, and the
  triplets. If a triplet's known pixels were changed, it is also measured "composited": with the
  original's pixels outside the mask. Untouched pictures: test photos by quality, and originals.
- Each picture is decoded once and measured under every condition (`CONDITIONS`).
- The threshold is that of the quality band of the resulting file. Resized pictures and composites
  count as lossless.
- Every set has the same weight: headlines are means over inpainters, or over groups of triplets.
- Sources: this project; the conditions are those that robustness tables of the field have.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from overpaint import hashes
from overpaint.data.degrade import Step, replay
from overpaint.data.forgeries import ForgedRow, read_forgeries
from overpaint.data.samples import MANIFEST
from overpaint.detection.calibration import LOSSLESS, QUALITY_BANDS, find_quality, find_quality_band
from overpaint.detection.runner import DetectorRunner
from overpaint.errors import ConfigError
from overpaint.evaluation.measurement import (
    Measurement,
    Result,
    RobustnessSettings,
    draw_universal_samples,
    flag_pictures,
    make_rows_by_method,
    score_judged,
    score_picture,
)
from overpaint.evaluation.rows import (
    Picture,
    Row,
    Source,
    average_by_photo,
    make_mean_row,
    make_row,
)
from overpaint.evaluation.sheets import Album, draw_row
from overpaint.evaluation.triplets import GROUPS, HALVES, HEADLINE, SOURCES, Triplet, read_triplets
from overpaint.images import read_image, read_mask, write_png
from overpaint.run_identity import hash_config

SET = "robustness"
ORIGINALS = "originals of the triplets"
AS_IS = "as is"


@dataclass(frozen=True, slots=True)
class Condition:
    """Processing of a picture before detection."""

    steps: tuple[Step, ...] = ()
    quality: str | None = None
    """Quality band afterwards; None for the picture's own."""


def _make_jpeg(quality: int) -> Condition:
    return Condition((Step("jpeg", {"quality": quality}),), find_quality_band(quality, True))


def _make_resize(scale: float) -> Condition:
    return Condition((Step("resize", {"scale": scale}),), LOSSLESS)


CONDITIONS: Mapping[str, Condition] = {
    AS_IS: Condition(),
    "JPEG 95": _make_jpeg(95),
    "JPEG 85": _make_jpeg(85),
    "JPEG 75": _make_jpeg(75),
    "WebP 85": Condition((Step("webp", {"quality": 85}),), find_quality_band(None, True)),
    "resize 0.75": _make_resize(0.75),
    "resize 1.5": _make_resize(1.5),
}


@dataclass(frozen=True, slots=True, eq=False)
class Exhibit:
    """A picture to measure."""

    set: str
    """"forged:lama-s", "triplets:madf", "composited:madf", "universal:bank" or "untouched:..."."""
    id: str
    pixels: np.ndarray = field(repr=False)
    """uint8 (h, w, 3)."""
    mask: np.ndarray | None = field(repr=False)
    """uint8 (h, w), 1 = inpainted; None for an untouched picture."""
    quality: str
    """One of `QUALITY_BANDS`."""


def apply_condition(exhibit: Exhibit, condition: Condition) -> Exhibit:
    """The picture, its mask and its quality under a condition."""
    if exhibit.mask is None:
        pixels, mask = replay(exhibit.pixels, None, condition.steps)
    else:
        pixels, mask = replay(exhibit.pixels, exhibit.mask, condition.steps)
    return replace(exhibit, pixels=pixels, mask=mask, quality=condition.quality or exhibit.quality)


# The pictures


def draw_universal(job: Measurement) -> Iterator[Exhibit]:
    """The lossless samples of the part "universal"."""
    for kind, name, sample in draw_universal_samples(job):
        yield Exhibit(f"universal:{kind}", name, sample.pixels, sample.mask, LOSSLESS)


def find_forged_folders(paths: Iterable[Path]) -> list[Path]:
    """The folders that `overpaint forge` wrote: each path, or the folders in it."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(manifest.parent for manifest in path.glob(f"*/{MANIFEST}"))
        found += inside if inside and not (path / MANIFEST).exists() else [path]
    return list(dict.fromkeys(found))


def read_forged(folders: Iterable[Path], seed: int = 0) -> list[tuple[Path, ForgedRow]]:
    """(folder, row) of each forgery of a test photo; ConfigError for a folder without any.

    seed: of the split.
    """
    return [(f, row) for f in folders for row in read_forgeries(f, "test", seed=seed)]


def read_forged_exhibits(rows: Iterable[tuple[Path, ForgedRow]]) -> Iterator[Exhibit]:
    """One set for each inpainter, whatever the folders."""
    for folder, forgery in rows:
        photo = read_image(folder / forgery.inpainted)
        mask = read_mask(folder / forgery.mask, size=(photo.height, photo.width))
        name = _name_forgery(folder, forgery)
        yield Exhibit(f"forged:{forgery.inpainter}", name, photo.pixels, mask, find_quality(photo))


def _name_forgery(folder: Path, forgery: ForgedRow) -> str:
    return f"{folder.name}/{forgery.index:06d}"


def _list_photos(forgeries: Sequence[tuple[Path, ForgedRow]]) -> dict[str, str]:
    """By a picture's id the photo it was made from, see `average_by_photo`.

    Raises ConfigError for folders of one name, whose pictures would have the same ids.
    """
    folders: dict[str, Path] = {}
    for folder, _ in forgeries:
        if (other := folders.setdefault(folder.name, folder)) != folder:
            raise ConfigError(f"{other} and {folder}: rename one, as pictures go by their folder")
    return SOURCES | {_name_forgery(folder, row): row.photo for folder, row in forgeries}


def make_composite(
    inpainted: np.ndarray, original: np.ndarray, mask: np.ndarray
) -> np.ndarray | None:
    """The inpainted picture with the original's pixels outside the mask, all uint8 (h, w, 3).

    None where the sizes differ, and where the known pixels are unchanged.
    """
    if original.shape != inpainted.shape:
        return None
    whole = np.where(mask[..., None] == 1, inpainted, original)
    return None if np.array_equal(whole, inpainted) else whole


def read_triplet_exhibits(triplets: Iterable[Triplet]) -> Iterator[Exhibit]:
    """Each triplet as published, then composited, then its original, where these exist."""
    for triplet in triplets:
        photo = read_image(triplet.inpainted)
        mask = read_mask(triplet.mask, size=(photo.height, photo.width))
        published = Exhibit(
            f"triplets:{triplet.group}", triplet.id, photo.pixels, mask, find_quality(photo)
        )
        yield published
        if triplet.original is None:
            continue
        original = read_image(triplet.original)
        whole = make_composite(photo.pixels, original.pixels, mask)
        if whole is not None:
            name = f"composited:{triplet.group}"
            yield replace(published, set=name, pixels=whole, quality=LOSSLESS)
        name, quality = f"untouched:{ORIGINALS}", find_quality(original)
        yield Exhibit(name, triplet.id, original.pixels, None, quality)


def read_untouched(job: Measurement) -> Iterator[Exhibit]:
    """Photos of the test split, one set for each quality band."""
    photos = job.find_photos()
    for index, path in enumerate(map(Path, photos.names)):
        photo = photos.read_photo(index)
        name, quality = f"{path.parent.name}/{path.name}", find_quality(photo)
        yield Exhibit(f"untouched:{quality}", name, photo.pixels, None, quality)


def limit_exhibits(exhibits: Iterable[Exhibit], limit: int | None) -> Iterator[Exhibit]:
    """At most `limit` pictures of each set; None for all."""
    seen: Counter[str] = Counter()
    for exhibit in exhibits:
        seen[exhibit.set] += 1
        if limit is None or seen[exhibit.set] <= limit:
            yield exhibit


# The measurement


def measure_robustness(job: Measurement) -> Result:
    """Every picture under every condition: rows for each set and condition, and the headlines."""
    conditions = choose_conditions(job.robustness)
    folders = find_forged_folders(job.robustness.forged)
    forgeries = read_forged(folders, job.settings.split_seed)
    found = read_triplets(job.data)
    triplets = [t for group in GROUPS for t in found if t.group == group]
    photos = _list_photos(forgeries)
    kinds = {
        "universal samples": draw_universal(job),
        f"{len(forgeries)} forgeries": read_forged_exhibits(forgeries),
        f"{len(triplets)} triplets": read_triplet_exhibits(triplets),
        "untouched photos": read_untouched(job),
    }
    runner, pictures = job.make_runner(), []
    sheets = job.robustness.sheets
    for kind, exhibits in kinds.items():
        job.report(f"robustness: {kind}")
        album = Album() if sheets else None
        for exhibit in limit_exhibits(exhibits, job.settings.limit):
            pictures += score_exhibit(runner, exhibit, conditions, job.name, album)
        if sheets and album:
            write_sheets(sheets / job.name, album)
    source = _make_source(job, runner, conditions, folders)
    halves = {t.id: t.half for t in triplets}
    rows = [
        *make_rows_by_method(source, pictures, photos),
        *compute_headlines(source, pictures, conditions, halves, photos),
    ]
    return rows, pictures


def measure_forged(job: Measurement) -> Result:
    """The forgeries alone, as they are: the rows of NIX-Net's table 1, a method per inpainter."""
    folders = find_forged_folders(job.robustness.forged)
    forgeries = read_forged(folders, job.settings.split_seed)
    if not forgeries:
        raise ConfigError("the part forged needs a folder of `overpaint forge`; name it (--forged)")
    photos = _list_photos(forgeries)
    job.report(f"forged: {len(forgeries)} forgeries")
    runner, pictures = job.make_runner(), []
    for exhibit in limit_exhibits(read_forged_exhibits(forgeries), job.settings.limit):
        numbers = score_picture(runner, exhibit.pixels, exhibit.quality, exhibit.mask)
        method = exhibit.set.removeprefix("forged:")
        pictures.append(Picture("forged", method, job.name, exhibit.id, numbers))
    source = _make_source(job, runner, {AS_IS: CONDITIONS[AS_IS]}, folders)
    source = replace(source, set="forged", protocol="forgeries of test photos, as cut out by forge")
    return make_rows_by_method(source, pictures, photos), pictures


def choose_conditions(settings: RobustnessSettings) -> dict[str, Condition]:
    """The conditions by name; raises ConfigError for an unknown one."""
    names = settings.conditions or tuple(CONDITIONS)
    for name in names:
        if name not in CONDITIONS:
            raise ConfigError(f"no condition is called {name!r}; there are {', '.join(CONDITIONS)}")
    if settings.sheets is not None and AS_IS not in names:
        raise ConfigError(f"sheets show the pictures {AS_IS}; measure this condition, too")
    return {name: CONDITIONS[name] for name in names}


def score_exhibit(
    runner: DetectorRunner,
    exhibit: Exhibit,
    conditions: Mapping[str, Condition],
    weights: str,
    album: Album | None = None,
) -> list[Picture]:
    """The numbers of one picture under each condition; the unchanged picture enters the album."""
    pictures = []
    for name, condition in conditions.items():
        shown = apply_condition(exhibit, condition)
        judged = runner.judge(runner.logits(shown.pixels), shown.quality)
        numbers = score_judged(judged, shown.mask)
        method = f"{exhibit.set}, {name}"
        pictures.append(Picture(SET, method, weights, exhibit.id, numbers))
        if album and name == AS_IS:
            drawn = draw_row(shown.pixels, shown.mask, judged)
            album.add(exhibit.set, *_make_label(exhibit.id, numbers), drawn)
    return pictures


def _make_label(name: str, numbers: Mapping[str, float]) -> tuple[float, str]:
    """(sort key in a sheet, label)."""
    if "auc" not in numbers:
        return numbers["q99"], f"{name}, q99 {numbers['q99']:.2f}"
    auc, f1 = numbers["auc"], numbers["f1@default"]
    return auc, f"{name}, AUC {auc:.3f}, F1 {f1:.3f} at the default threshold"


def write_sheets(folder: Path, album: Album) -> None:
    """One PNG for each set, named by it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in album.draw_pages().items():
        write_png(folder / f"{re.sub('[^A-Za-z0-9._-]+', '-', name)}.png", page)


def _make_source(
    job: Measurement,
    runner: DetectorRunner,
    conditions: Mapping[str, Condition],
    folders: Iterable[Path],
) -> Source:
    """The hash covers the forgeries, by their manifests."""
    about: dict[str, object] = {
        "settings": asdict(job.settings),
        "conditions": {name: asdict(condition) for name, condition in conditions.items()},
        "forged": [hashes.file_sha256(f / MANIFEST) for f in folders],
    }
    protocol = (
        "test split and triplets, whole or as cut out by forge, thresholds by quality; "
        "forged: mean over inpainters; triplets: mean of four groups' means"
    )
    return replace(job.make_source(SET, protocol, runner), config_hash=hash_config(about))


def compute_headlines(
    source: Source,
    pictures: Iterable[Picture],
    conditions: Iterable[str],
    halves: Mapping[str, str],
    photos: Mapping[str, str],
) -> list[Row]:
    """Means over the inpainters, and over the four groups of triplets, for each condition.

    Also the share of all untouched photos that is flagged. halves: the triplets' halves by their
    ids. photos: by the pictures' ids the photos that were filled, see `average_by_photo`.
    """
    by_method: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        by_method[picture.method].append(picture)
    rows = []
    for name in conditions:
        inpainters = [m for m in by_method if m.startswith("forged:") and m.endswith(f", {name}")]
        sets = [by_method[m] for m in inpainters]
        if sets:
            rows += _make_mean_rows(
                source, f"forged, {name}", sets, photos, ("auc", "iou@0.5", "iou@default")
            )
        groups = [by_method[f"triplets:{group}, {name}"] for group in HEADLINE]
        rows += _make_mean_rows(source, f"triplets, {name}", groups, photos, ("auc", "f1@default"))
        for half in HALVES:
            method = f"triplets of the {half} half, {name}"
            kept = [[p for p in group if halves[p.picture] == half] for group in groups]
            rows += _make_mean_rows(source, method, kept, photos, ("auc", "f1@default"))
        untouched = [p for b in QUALITY_BANDS for p in by_method[f"untouched:{b}, {name}"]]
        rows.append(
            make_row(source, f"untouched, {name}", "flagged@default", flag_pictures(untouched))
        )
    return rows


def _make_mean_rows(
    source: Source,
    method: str,
    sets: Sequence[Sequence[Picture]],
    photos: Mapping[str, str],
    numbers: Iterable[str],
) -> list[Row]:
    return [
        make_mean_row(
            source,
            method,
            number.replace("iou", "miou"),
            [average_by_photo(pictures, photos, number) for pictures in sets],
        )
        for number in numbers
    ]
