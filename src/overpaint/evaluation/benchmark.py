"""The benchmark: a detector's numbers on universal data, triplets and untouched photos.

- Photos and faces of the test split, and the triplets; no picture was used for training or tuning.
- Every picture is examined as a user's photo is (`DetectorRunner`), at native resolution and with
  the threshold of its own quality band.
- Two thresholds: 0.5 on the heatmap, as in the paper, and the calibrated default.
- `flagged` is the share of pictures with more than 1 % of their area in the default mask: the
  detection rate of inpainted pictures, the false-alarm rate of untouched ones.
- Source of the universal protocol: NIX-Net (IJCAI 2021), section 5; of all else: this project.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from overpaint.atomic import make_folder
from overpaint.data.autoencoder import reconstruct
from overpaint.data.bank import load_bank
from overpaint.data.degrade import jpeg
from overpaint.data.sources import PhotoSource
from overpaint.detection.calibration import LOSSLESS, QUALITY_BANDS, find_quality, find_quality_band
from overpaint.errors import ConfigError
from overpaint.evaluation.edits import measure_edits
from overpaint.evaluation.families import SEEN, UNSEEN, compute_left_out, measure_families
from overpaint.evaluation.families import SET as FAMILIES
from overpaint.evaluation.measurement import (
    Measurement,
    Report,
    Result,
    RobustnessSettings,
    Settings,
    draw_universal_samples,
    flag_pictures,
    list_autoencoders,
    make_rows_by_method,
    score_picture,
)
from overpaint.evaluation.robustness import ORIGINALS, measure_forged, measure_robustness
from overpaint.evaluation.rows import (
    Picture,
    Row,
    Source,
    average_by_photo,
    list_values,
    make_mean_row,
    make_row,
    read_rows,
    require_parquet,
    write_results,
)
from overpaint.evaluation.speed import measure_speed
from overpaint.evaluation.triplets import GROUPS, HALVES, HEADLINE, SOURCES, read_triplets
from overpaint.images import read_image, read_mask
from overpaint.metrics import psnr, squared_error
from overpaint.weights import read_record


def measure_universal(job: Measurement) -> Result:
    """mIoU, F1 and AUC on universal test data: lossless, and after JPEG."""
    settings, runner = job.settings, job.make_runner()
    pictures = []
    for kind, name, sample in draw_universal_samples(job):
        for label, quality, pixels in store(sample.pixels, settings.qualities):
            numbers = score_picture(runner, pixels, quality, sample.mask)
            pictures.append(Picture("universal", f"{kind}, {label}", job.name, name, numbers))
    protocol = f"test split, {settings.size} px crops, brush masks, one sample of each photo"
    source = job.make_source("universal", protocol, runner)
    return make_rows_by_method(source, pictures), pictures


def store(pixels: np.ndarray, qualities: Iterable[int]) -> Iterator[tuple[str, str, np.ndarray]]:
    """(label, quality band, pixels) of a picture stored without loss, then as JPEGs."""
    yield "lossless", LOSSLESS, pixels
    for quality in qualities:
        yield f"JPEG {quality}", find_quality_band(quality, True), jpeg(pixels, quality)


def measure_triplets(job: Measurement) -> Result:
    """AUC, mIoU and F1 for each group of triplets, and the headline."""
    runner, pictures = job.make_runner(), []
    found = read_triplets(job.data)
    for group in GROUPS:
        triplets = [t for t in found if t.group == group][: job.settings.limit]
        job.report(f"triplets: {len(triplets)} of {group}")
        for triplet in triplets:
            photo = read_image(triplet.inpainted)
            mask = read_mask(triplet.mask, size=(photo.height, photo.width))
            quality = find_quality(photo)
            numbers = score_picture(runner, photo.pixels, quality, mask)
            pictures.append(Picture("triplets", group, job.name, triplet.id, numbers))
    protocol = "whole pictures at native resolution; headline: mean of four groups' means"
    source = job.make_source("triplets", protocol, runner)
    headlines = _compute_headlines(source, pictures, {t.id: t.half for t in found})
    return [*make_rows_by_method(source, pictures), *headlines], pictures


def _compute_headlines(
    source: Source, pictures: list[Picture], halves: Mapping[str, str]
) -> list[Row]:
    """Mean of the four groups' AUC: of all pictures, and of each half of them."""
    wanted = {"headline": HALVES, **{f"headline, {half} half": (half,) for half in HALVES}}
    rows = []
    for method, kept in wanted.items():
        shown = [p for p in pictures if halves[p.picture] in kept]
        four = [
            average_by_photo((p for p in shown if p.method == g), SOURCES, "auc") for g in HEADLINE
        ]
        rows.append(make_mean_row(source, method, "auc", four))
    return rows


def measure_untouched(job: Measurement) -> Result:
    """Share of untouched photos that are flagged: by folder, by quality band, and recompressed."""
    runner, photos = job.make_runner(), job.find_photos()
    folders: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(photos.names):
        folders[Path(name).parent.name].append(index)
    measured: dict[tuple[str, str], list[Picture]] = defaultdict(list)

    def look(method: str, label: str, name: str, pixels: np.ndarray, quality: str) -> Picture:
        numbers = score_picture(runner, pixels, quality)
        picture = Picture("untouched", method, job.name, f"{label}/{name}", numbers)
        measured[method, label].append(picture)
        return picture

    for folder, indices in folders.items():
        job.report(f"untouched: {len(indices[: job.settings.limit])} photos of {folder}")
        for index in indices[: job.settings.limit]:
            photo = photos.read_photo(index)
            own = find_quality(photo)
            name = photo.path.name
            measured[own, "as-is"].append(look(folder, "as-is", name, photo.pixels, own))
            for q in job.settings.recompressed:
                pixels = jpeg(photo.pixels, q)
                look(folder, f"jpeg{q}", name, pixels, find_quality_band(q, True))
    pictures = [p for (m, _), group in measured.items() if m in folders for p in group]
    for path in _list_originals(job):
        photo = read_image(path)
        own = find_quality(photo)
        pictures.append(look(ORIGINALS, "as-is", path.name, photo.pixels, own))
    protocol = "test split at native resolution; flagged: over 1 % of the area in the default mask"
    source = job.make_source("untouched", protocol, runner)
    return _make_untouched_rows(source, measured, folders, job.settings), pictures


def _list_originals(job: Measurement) -> list[Path]:
    paths = [t.original for t in read_triplets(job.data) if t.original is not None]
    return paths[: job.settings.limit]


def _make_untouched_rows(
    source: Source,
    measured: Mapping[tuple[str, str], list[Picture]],
    folders: Iterable[str],
    settings: Settings,
) -> list[Row]:
    labels = ["as-is", *(f"jpeg{q}" for q in settings.recompressed)]
    together = {label: [p for f in folders for p in measured[f, label]] for label in labels}
    groups = {("all photos", label): pictures for label, pictures in together.items()}
    groups |= {(f, label): measured[f, label] for f in folders for label in labels}
    groups |= {
        (b, "as-is"): measured[b, "as-is"] for b in QUALITY_BANDS if (b, "as-is") in measured
    }
    groups[ORIGINALS, "as-is"] = measured[ORIGINALS, "as-is"]
    return [
        make_row(source, method, f"flagged@{label}", flag_pictures(pictures))
        for (method, label), pictures in groups.items()
        if pictures
    ]


def measure_autoencoders(job: Measurement) -> Result:
    """PSNR of every autoencoder on photos that none of them was trained on."""
    size, photos = job.settings.size, job.find_photos()
    rows, pictures = [], []
    protocol = f"test split, {size} px centre crops of photos that are at least as large"
    source = replace(job.make_source("autoencoders", protocol), weights="")
    for record in list_autoencoders(job.bank):
        job.report(f"autoencoders: {record.name}")
        (module,) = load_bank([str(record.path)]).values()
        of_this = []
        for name, pixels in _crop_centres(photos, size, job.settings.limit):
            error = squared_error(reconstruct(module, pixels), pixels)
            numbers = {"psnr": psnr(error)}
            of_this.append(Picture("autoencoders", record.name, "", name, numbers))
        own = replace(source, weights_sha256=record.sha256)
        rows.append(make_row(own, record.name, "psnr", list_values(of_this, "psnr")))
        pictures += of_this
    return rows, pictures


def _crop_centres(
    photos: PhotoSource, size: int, limit: int | None
) -> Iterator[tuple[str, np.ndarray]]:
    num = 0
    for index, name in enumerate(photos.names):
        pixels = photos.read(index)
        top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
        if min(top, left) >= 0 and (limit is None or num < limit):
            num += 1
            path = Path(name)
            yield f"{path.parent.name}/{path.name}", pixels[top : top + size, left : left + size]


def measure_speed_rows(job: Measurement) -> Result:
    """Time and memory of a 12-megapixel photo, and of starting the command line."""
    runs = 1 if job.settings.limit else 3
    protocol = f"2 threads, own process; median of {runs} runs, of 5 for starting"
    source = replace(
        job.make_source("speed", protocol),
        weights_sha256=read_record(job.weights).sha256,
    )
    photos = job.find_photos()
    return measure_speed(source, job.weights, photos.read(0), runs, job.report), []


PARTS: dict[str, Callable[[Measurement], Result]] = {
    "universal": measure_universal,
    "triplets": measure_triplets,
    "untouched": measure_untouched,
    "edits": measure_edits,
    "autoencoders": measure_autoencoders,
    "speed": measure_speed_rows,
    "robustness": measure_robustness,
    "forged": measure_forged,
    "families": measure_families,
}
OF_FORGERIES = ("robustness", "forged")
"""Parts that measure the forgeries of given folders."""
NAMED = (*OF_FORGERIES, "edits", "families")
"""Parts that are measured only when they are named."""


def _refuse_to_replace_all(out: Path, weights: Iterable[str]) -> None:
    """Rows of all families are not replaced by those of some, which have no headline."""
    path = out / f"{FAMILIES}.csv"
    rows = read_rows(path) if path.exists() else []
    whole = {row.weights for row in rows if row.method.startswith((UNSEEN, SEEN))}
    if known := sorted(whole.intersection(weights)):
        raise ConfigError(
            f"{path}: has rows of {known[0]} for all families, which those of a choice of them "
            "would replace; choose another --out"
        )


def evaluate(
    weights: Mapping[str, str | Path],
    data: str | Path,
    out: str | Path,
    only: Iterable[str] = (),
    *,
    settings: Settings | None = None,
    bank: str | Path | None = None,
    robustness: RobustnessSettings | None = None,
    device: str = "cpu",
    report: Report = lambda _: None,
) -> list[Row]:
    """Measure weights (name in the tables -> name or path) and merge the rows into `out`.

    data: folder with photos/, faces/ and triplets/. only: names in `PARTS`; when empty all but
    those `NAMED`, and "robustness", which takes long, if forged folders are given. bank: folder of
    the autoencoders, None for the shipped ones. device: cpu or cuda, for the detectors; the part
    speed always uses the processor. Each part is written once it is done.
    Raises ConfigError for an unknown part and for settings of a part that is not measured,
    WeightsError, ImageError, and ConfigError where pyarrow is missing.
    """
    special = robustness or RobustnessSettings()
    usual = [p for p in PARTS if p not in NAMED]
    parts = list(only) or [*usual, *(["robustness"] if special.forged else [])]
    unknown = [name for name in parts if name not in PARTS]
    if unknown:
        raise ConfigError(f"no part is called {unknown[0]!r}; there are {', '.join(PARTS)}")
    if special.forged and not set(parts) & set(OF_FORGERIES):
        raise ConfigError(
            f"forged folders are for the parts {' and '.join(OF_FORGERIES)}; name one of them"
        )
    if (special.families or special.pools) and "families" not in parts:
        raise ConfigError("families and pools are for the part families; name it as well")
    if (special.conditions or special.sheets) and not {"robustness", "families"} & set(parts):
        raise ConfigError(
            "conditions and sheets are for the parts robustness and families; name one of them"
        )
    require_parquet()  # before anything is measured
    make_folder(Path(out), ConfigError, "choose another --out")
    if "families" in parts and special.chooses_families:
        _refuse_to_replace_all(Path(out), weights)
    rows: list[Row] = []
    of_families: list[Picture] = []
    for number, (name, path) in enumerate(weights.items()):
        folder = None if bank is None else Path(bank)
        job = Measurement(
            Path(data), folder, path, name, settings or Settings(), report, special, device
        )
        for part in parts:
            if part == "autoencoders" and number:  # the same for all detectors
                continue
            found, pictures = PARTS[part](job)
            write_results(Path(out), found, pictures)
            rows += found
            of_families += pictures if part == "families" else []
    if len(weights) > 1 and of_families and not special.chooses_families:
        together = compute_left_out(rows, of_families, Path(data), weights)
        write_results(Path(out), together, [])
        rows += together
    return rows
