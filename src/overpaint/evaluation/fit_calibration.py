"""Fit a detector's calibration: thresholds with a stated false-alarm rate, and a score.

- From validation photos only. Untouched photos set the thresholds. Universal samples of the same
  photos (partly replaced by an autoencoder's reconstruction) are the positive class of the score.
- Each photo is used several times in each quality band: cropped or downsized to 256 to 1024 px,
  then stored at a quality of that band. A photo is also used once unchanged, in its own band.
- A lossless variant of a lossy photo is always downsized, to remove its JPEG traces. Nothing is
  enlarged: enlarged photos are not tested.
- A false-alarm rate needs at least 1 / rate photos. With fewer, none may reach the threshold, and
  only an upper bound of the rate is known. Variants of one photo do not count as more photos.
- Then ordinary edits (`data.ordinary_edits`) of the same photos are measured: each photo after each
  kind of edit, in one band, which changes from photo to photo. If a larger share than `EDIT_RATE`
  of one kind reaches the threshold, that of a strong trace is higher. Photos on which what is
  marked is smooth count as not reaching it, as they have no strong trace. The numbers of edited
  photos that reach each are stored by kind and shown in every report.
- Rank convention: of n untouched variants, floor(rate * n) may reach the threshold. The threshold
  is the smallest float32 above the value of the next variant.
- Score: Platt scaling with smoothed targets, fitted by Newton's method. Both classes have the same
  weight, so a score of 0.5 is a probability of one half where half of the photos are inpainted.

Sources: Platt, "Probabilistic outputs for support vector machines", 1999; Lin, Lin and Weng, "A
note on Platt's probabilistic outputs", Machine Learning 68, 2007. Written anew from the formulas.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from torch import Tensor, nn

from overpaint.data.bank import load_bank
from overpaint.data.crops import crop_middle
from overpaint.data.degrade import Kernel, Subsampling, crop, jpeg, resize
from overpaint.data.ordinary_edits import ORDINARY_EDITS, apply_edit
from overpaint.data.photo_sets import collect_photos
from overpaint.data.sources import PhotoSource, describe_unmatched
from overpaint.data.universal import make_test_set
from overpaint.detection.calibration import (
    HIGH,
    LOSSLESS,
    LOW,
    MEDIUM,
    QUALITY_BANDS,
    Calibration,
    EditCount,
    QualityBand,
    average_logits,
    bound_rate_of_variants,
    compute_untouched_quantiles,
    find_inconclusive_rate,
    find_quality,
    judge,
    q99,
)
from overpaint.detection.runner import DetectorRunner
from overpaint.detection.smoothness import is_smooth
from overpaint.errors import InputError, WeightsError
from overpaint.images import Photo, write_bytes
from overpaint.weights import WeightsRecord, build, load_weights

QUALITIES = {HIGH: (90, 98), MEDIUM: (75, 89), LOW: (50, 74)}
"""Lowest and highest JPEG quality of a band's variants."""
SIDES = (256, 1024)
"""Range of a variant's longer side, pixels; of a small photo at least three quarters remain."""
MIN_SIDE = 128
"""Shortest side of a photo that is used, pixels."""
LOSSY_SCALE = 0.9
"""Largest scale at which a photo with JPEG traces counts as lossless."""
FALSE_ALARMS = 0.01
EDIT_RATE = 0.05
"""Share of photos after one kind of ordinary edit that may have a strong trace."""
EDITED_SIDE = 512
"""Longest side of the photos that are edited, pixels."""
SAMPLE_SIDE = 320
"""Side of the universal samples, pixels."""
WINDOW = 13
"""Side of the window for averaging logits, pixels; chosen in docs/experiments.md."""
KERNELS: tuple[Kernel, ...] = ("bilinear", "bicubic", "lanczos")

Logits = Callable[[np.ndarray], np.ndarray]
"""Of a detector: uint8 (h, w, 3) -> float32 (h, w)."""


def fit_threshold(untouched: np.ndarray, rate: float) -> float:
    """The smallest float32 logit that at most the share `rate` of the values reaches (see above).

    Raises InputError when there is no value or a value is not finite.
    """
    values = np.sort(np.asarray(untouched, dtype=np.float32))[::-1]
    if not values.size or not np.isfinite(values).all():
        raise InputError("a threshold needs at least one photo, and finite logits for each")
    # Without the small term, 0.29 * 100 = 28.999... would be rounded down to 28.
    allowed = min(int(rate * values.size + 1e-9), values.size - 1)
    return float(np.nextafter(values[allowed], np.float32(np.inf)))


def fit_platt(untouched: np.ndarray, inpainted: np.ndarray) -> tuple[float, float]:
    """(slope, intercept) of score = sigmoid(slope * q99 + intercept), with equal class weights.

    If the fitted slope is not positive, the detector does not separate the classes; the result is
    then (1e-6, 0), which gives a score of about 0.5 for every photo.
    """
    x = np.concatenate([untouched, inpainted]).astype(float)
    n_0, n_1 = len(untouched), len(inpainted)
    target = np.repeat([1 / (n_0 + 2), (n_1 + 1) / (n_1 + 2)], [n_0, n_1])
    weight = np.repeat([0.5 / n_0, 0.5 / n_1], [n_0, n_1])
    center, spread = x.mean(), max(x.std(), 1e-6)
    slope, intercept = _fit_logistic((x - center) / spread, target, weight)
    slope, intercept = slope / spread, intercept - slope * center / spread
    return (slope, intercept) if slope > 0 else (1e-6, 0.0)


def _fit_logistic(x: np.ndarray, target: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Weighted logistic regression; the targets lie inside (0, 1), so that the optimum is finite.

    (slope, intercept) for x, target, weight (n,).
    """

    def compute_loss(beta: np.ndarray) -> float:
        z = design @ beta
        return float(weight @ (np.logaddexp(0, z) - target * z))

    design = np.stack([x, np.ones_like(x)], axis=1)
    beta = np.zeros(2)
    for _ in range(100):
        p = 0.5 * (1 + np.tanh(0.5 * (design @ beta)))
        gradient = design.T @ (weight * (p - target))
        hessian = design.T @ (design * (weight * p * (1 - p))[:, None]) + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        while compute_loss(beta - step) > compute_loss(beta) and np.abs(step).max() > 1e-12:
            step /= 2
        beta = beta - step
        if np.abs(step).max() < 1e-10:
            break
    return float(beta[0]), float(beta[1])


def check_num_photos(num: int, rate: float) -> None:
    """Raises InputError when `num` photos are too few for a false-alarm rate in (0, 1)."""
    needed = math.ceil(1 / rate - 1e-9)
    if num < needed:
        raise InputError(
            f"{num} untouched photos of at least {MIN_SIDE} px are in the validation split, and a "
            f"false-alarm rate of {rate:.2%} needs {needed}: give about {10 * needed} photos or "
            f"more, of which a tenth validates, or set a higher rate"
        )


def fit_band(
    untouched: np.ndarray,
    inpainted: np.ndarray | None,
    num_photos: int | None = None,
    rate: float = FALSE_ALARMS,
) -> QualityBand:
    """One band's thresholds and score from the q99 of untouched and inpainted photos.

    untouched, inpainted: (n,) logits. inpainted: None for a score that is not fitted, the sigmoid
    of the distance to the threshold. num_photos: number of photos that the untouched variants were
    made from; None where each is a separate photo. rate: false-alarm rate, in (0, 1). Raises
    InputError when the photos are too few for the rate.
    """
    num_photos = len(untouched) if num_photos is None else num_photos
    allowed = math.floor(rate * len(untouched) + 1e-9)
    check_num_photos(num_photos, rate)
    threshold = fit_threshold(untouched, rate)
    slope, intercept = (1.0, -threshold) if inpainted is None else fit_platt(untouched, inpainted)
    return QualityBand(
        threshold_logit=threshold,
        inconclusive_logit=fit_threshold(untouched, find_inconclusive_rate(rate)),
        slope=slope,
        intercept=intercept,
        num_untouched=len(untouched),
        num_photos=num_photos,
        num_inpainted=0 if inpainted is None else len(inpainted),
        untouched_quantiles=compute_untouched_quantiles(untouched),
        false_alarm_rate=rate,
        false_alarm_bound=bound_rate_of_variants(allowed, len(untouched), num_photos),
    )


def vary(
    pixels: np.ndarray, band: str, rng: np.random.Generator, *, lossy: bool, may_crop: bool = True
) -> np.ndarray:
    """A random variant of a photo uint8 (h, w, 3) in a quality band.

    lossy: whether the photo has JPEG traces. may_crop: if False, the photo is only resized.
    """
    height, width = pixels.shape[:2]
    longer, shorter = max(height, width), min(height, width)
    must_shrink = band == LOSSLESS and lossy
    low, high = min(SIDES[0], 0.75 * longer), min(SIDES[1], longer)
    if must_shrink:
        high = min(high, LOSSY_SCALE * longer)
    side = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    side = min(high, max(side, MIN_SIDE * longer / shorter))
    if must_shrink or rng.random() < 0.5:
        pixels = resize(pixels, None, side / longer, KERNELS[rng.integers(len(KERNELS))])[0]
    elif may_crop:
        size = (min(height, round(side)), min(width, round(side)))
        top, left = (
            int(rng.integers(n - s + 1)) for n, s in zip((height, width), size, strict=True)
        )
        pixels = crop(pixels, None, top, left, *size)[0]
    if band == LOSSLESS:
        return pixels
    quality = int(rng.integers(*QUALITIES[band], endpoint=True))
    return jpeg(pixels, quality, cast("Subsampling", int(rng.choice([0, 2]))))


def make_untouched_variants(
    photo: Photo, num: int, seed: int, index: int
) -> Iterator[tuple[str, np.ndarray]]:
    """(band, pixels) of one photo: `num` in each band; in its own band one is the photo itself."""
    own = find_quality(photo)
    if min(photo.pixels.shape[:2]) < MIN_SIDE:
        return
    for b, band in enumerate(QUALITY_BANDS):
        for v in range(num):
            if band == own and v == 0:
                yield band, photo.pixels
                continue
            rng = np.random.default_rng([seed, 0, index, b, v])
            yield band, vary(photo.pixels, band, rng, lossy=photo.lossy)


class Edited(NamedTuple):
    """What the detector says of an edited photo."""

    statistic: float
    """q99."""
    smooth: bool
    """Whether what is marked has no fine detail."""


def measure_edits(
    compute_logits: Logits,
    photos: PhotoSource,
    bands: Mapping[str, QualityBand],
    window: int = 1,
    *,
    num: int | None = None,
    seed: int = 0,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[str, list[Edited]]]:
    """Photos after ordinary edits, by band and kind.

    num: number of photos, evenly spaced; None for all. Each is measured after each kind of edit, in
    one of the bands. Montages and collages also use the next photo.
    """
    num, names = len(photos) if num is None else min(num, len(photos)), tuple(bands)
    found: dict[str, dict[str, list[Edited]]] = {b: defaultdict(list) for b in names}
    for place in range(num):
        index = place * len(photos) // num
        pixels, other = (
            crop_middle(photos.read(i % len(photos)), EDITED_SIDE) for i in (index, index + 1)
        )
        if min(pixels.shape[:2]) < MIN_SIDE:
            continue
        for number, kind in enumerate(ORDINARY_EDITS):
            band = names[(place + number) % len(names)]
            rng = np.random.default_rng([seed, 2, index, number])
            seen = apply_edit(kind, pixels, rng, other)
            if band != LOSSLESS:
                seen = jpeg(seen, int(rng.integers(*QUALITIES[band], endpoint=True)), 2)
            judged = judge(compute_logits(seen), bands[band].threshold_logit, window)
            found[band][kind].append(Edited(judged.statistic, is_smooth(seen, judged.mask)))
        if (place + 1) % 10 == 0:
            report(f"{place + 1} of {num} photos edited")
    return {band: dict(sorted(kinds.items())) for band, kinds in found.items()}


def add_strong_threshold(
    band: QualityBand, edits: Mapping[str, Sequence[Edited]], rate: float
) -> QualityBand:
    """The band with the threshold of a strong trace, and with counts by kind of edit.

    Of the photos after each kind of edit, at most the share `rate` has a strong trace (rank
    convention as above). The other thresholds do not change. rate: in [0, 1]; 1 gives the
    threshold itself.
    """
    low = np.finfo(np.float32).min
    needed = [
        fit_threshold(np.array([low if smooth else value for value, smooth in values]), rate)
        for values in edits.values()
    ]
    strong = max([band.threshold_logit, *needed]) if rate < 1 else band.threshold_logit
    counts = {
        kind: EditCount(
            num=len(values),
            num_reached=sum(value >= band.threshold_logit for value, _ in values),
            num_strong=sum(value >= strong and not smooth for value, smooth in values),
        )
        for kind, values in edits.items()
    }
    return band.model_copy(update={"strong_logit": strong if edits else None, "edits": counts})


def calibrate(
    compute_logits: Logits,
    photos: PhotoSource,
    autoencoders: Mapping[str, nn.Module],
    *,
    data: str,
    window: int = 1,
    variants: int = 3,
    rate: float = FALSE_ALARMS,
    edits: int | None = None,
    edit_rate: float = EDIT_RATE,
    seed: int = 0,
    report: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Fit all bands.

    photos: the validation split. data: description of the photos in words. window: side in pixels
    over which logits are averaged. variants: number for each photo and band. rate: false-alarm
    rate, in (0, 1). edits: number of photos for measuring ordinary edits, None for all. edit_rate:
    largest share of the photos after one kind of edit that may have a strong trace, 1 for no limit.
    report: called with a line of progress from time to time. Raises InputError when the photos are
    too few for the rate.
    """

    def statistic(pixels: np.ndarray) -> float:
        return q99(average_logits(compute_logits(pixels), window))

    check_num_photos(len(photos), rate)  # before the first photo is measured
    untouched, inpainted = defaultdict(list), defaultdict(list)
    max_pixels = num_photos = 0
    for index in range(len(photos)):
        photo = photos.read_photo(index)
        num_photos += min(photo.pixels.shape[:2]) >= MIN_SIDE
        for band, pixels in make_untouched_variants(photo, variants, seed, index):
            untouched[band].append(statistic(pixels))
            max_pixels = max(max_pixels, pixels.shape[0] * pixels.shape[1])
        if (index + 1) % 20 == 0:
            report(f"{index + 1} of {len(photos)} photos")
    check_num_photos(num_photos, rate)
    samples = make_test_set(
        photos, autoencoders, size=SAMPLE_SIDE, num=variants * len(photos), seed=seed
    )
    for index, sample in enumerate(samples):
        for b, band in enumerate(QUALITY_BANDS):
            rng = np.random.default_rng([seed, 1, index, b])
            varied = vary(sample.pixels, band, rng, lossy=False, may_crop=False)
            inpainted[band].append(statistic(varied))
        if (index + 1) % 50 == 0:
            report(f"{index + 1} of {variants * len(photos)} inpainted samples")
    bands = {
        b: fit_band(np.array(untouched[b]), np.array(inpainted[b]), num_photos, rate)
        for b in QUALITY_BANDS
    }
    seen = measure_edits(compute_logits, photos, bands, window, num=edits, seed=seed, report=report)
    return Calibration(
        bands={b: add_strong_threshold(band, seen[b], edit_rate) for b, band in bands.items()},
        window=window,
        min_side=MIN_SIDE,
        min_jpeg_quality=QUALITIES[LOW][0],
        max_pixels_tested=max_pixels,
        data=data,
    )


def calibrate_weights(
    weights: str | Path,
    paths: Iterable[str | Path],
    bank: Iterable[str],
    *,
    window: int = WINDOW,
    variants: int = 3,
    rate: float = FALSE_ALARMS,
    edits: int | None = None,
    edit_rate: float = EDIT_RATE,
    seed: int = 0,
    exclude: Collection[str] = (),
    overwrite_shipped: bool = False,
    device: str = "cpu",
    report: Callable[[str], None] = lambda _: None,
    problem: Callable[[str], None] | None = None,
) -> tuple[WeightsRecord, Calibration]:
    """Calibrate a detector's weights and write FILE.calibration.json beside FILE.safetensors.

    paths: folders of photos, of which the validation split is used. bank: the autoencoders of the
    universal samples, as for `load_bank`. window: side in pixels, odd. The record is rewritten with
    the name of the calibration; both are returned. rate: false-alarm rate, in (0, 1). edits,
    edit_rate: as for `calibrate`. exclude: file names of photos to leave out. overwrite_shipped:
    whether weights that come with overpaint may be calibrated anew. problem: called with each path,
    line or archive member that could not be searched, and each excluded name that no photo has;
    `report` where None. Raises InputError for an even window and for too few photos, WeightsError,
    ImageError.
    """
    if window < 1 or window % 2 == 0:
        raise InputError(f"window {window}: give an odd number of pixels, so that it has a middle")
    record, state = _load_to_calibrate(weights, overwrite_shipped)
    runner = DetectorRunner(build(record, state), device=device)
    # Short names, because the record is copied to other machines, where these folders are missing.
    modules = {_shorten(name): module for name, module in load_bank(bank).items()}
    photos = _collect(list(paths), exclude, report, problem)
    folders = ", ".join(sorted({Path(name).parent.name for name in photos.names}))
    data = (
        f"{len(photos)} photos, the validation split (seed 0) of {folders}; {variants} variants "
        f"of each in each band (seed {seed}); inpainted: brush masks of universal data redrawn by "
        f"{', '.join(sorted(modules))}"
    )
    calibration = calibrate(
        runner.logits,
        photos,
        modules,
        data=data,
        window=window,
        variants=variants,
        rate=rate,
        edits=edits,
        edit_rate=edit_rate,
        seed=seed,
        report=report,
    )
    return store_calibration(record, calibration, record.folder), calibration


def store_calibration(
    record: WeightsRecord, calibration: Calibration, folder: Path
) -> WeightsRecord:
    """Write FILE.calibration.json and the record that names it; returns this record.

    The names are those of the file of weights, which a copy of weights does not share with them.
    Raises WeightsError, ImageError for files that cannot be written.
    """
    name = f"{record.path.stem}.calibration.json"
    calibration.save(folder / name)
    record = record.model_copy(update={"calibration": name})
    content = record.model_dump_json(indent=2) + "\n"
    write_bytes(folder / record.record_path.name, content.encode())
    return record


def _load_to_calibrate(
    weights: str | Path, overwrite_shipped: bool
) -> tuple[WeightsRecord, dict[str, Tensor]]:
    record, state = load_weights(weights, kind="detector")
    if record.is_shipped and not overwrite_shipped:
        beside = " and ".join(filter(None, (record.record_path.name, record.calibration)))
        raise WeightsError(
            f"{record.path}: comes with overpaint, for all who use this installation; copy it with "
            f"{beside} to a folder of yours and calibrate the copy, by its path (or use "
            "--overwrite-shipped)"
        )
    return record, state


def add_edits(
    weights: str | Path,
    paths: Iterable[str | Path],
    *,
    num: int | None = None,
    rate: float = EDIT_RATE,
    seed: int = 0,
    exclude: Collection[str] = (),
    overwrite_shipped: bool = False,
    device: str = "cpu",
    report: Callable[[str], None] = lambda _: None,
    problem: Callable[[str], None] | None = None,
) -> tuple[WeightsRecord, Calibration]:
    """Measure ordinary edits with the weights' calibration, and write its strong thresholds anew.

    Arguments and errors as for `calibrate_weights`; WeightsError where there is no calibration.
    """
    record, state = _load_to_calibrate(weights, overwrite_shipped)
    if record.calibration is None:
        raise WeightsError(f"{record.path}: has no calibration; fit one first")
    old = Calibration.load(record.folder / record.calibration)
    runner = DetectorRunner(build(record, state), device=device)
    photos = _collect(list(paths), exclude, report, problem)
    seen = measure_edits(
        runner.logits, photos, old.bands, old.window, num=num, seed=seed, report=report
    )
    bands = {name: add_strong_threshold(band, seen[name], rate) for name, band in old.bands.items()}
    calibration = old.model_copy(update={"bands": bands})
    return store_calibration(record, calibration, record.folder), calibration


def _collect(
    paths: Collection[str | Path],
    exclude: Collection[str],
    report: Callable[[str], None],
    problem: Callable[[str], None] | None,
) -> PhotoSource:
    """The validation split without the excluded photos."""
    photos = collect_photos(paths, "validation", seed=0, exclude=exclude)
    unmatched = describe_unmatched(collect_photos(paths).names, exclude) if exclude else []
    for line in (*photos.problems, *unmatched):
        (problem or report)(line)
    if photos.passed_over:
        report(photos.passed_over)
    return photos


def _shorten(name: str) -> str:
    return "taef2" if name.startswith("taef2:") else Path(name).stem
