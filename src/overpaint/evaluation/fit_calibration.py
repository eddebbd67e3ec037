"""Fit a detector's calibration: thresholds with a stated false-alarm rate, and a score.

- From validation photos only. Untouched photos set the thresholds; universal samples of the same
  photos (a photo, redrawn in part by an autoencoder) give the positive class of the score.
- Each photo is used several times per quality band: cropped or downsized to 256 to 1024 px, then
  stored as that band says. A photo is also used once whole and as it is, in its own band.
- A lossless variant of a lossy photo is always downsized, or it would not be without JPEG traces.
  Nothing is enlarged: enlarged photos are outside of what is tested.
- A false-alarm rate needs at least 1 / rate photos: of fewer, none may reach the threshold, and
  only an upper bound of the rate is known. Variants of one photo do not make more photos.
- Then ordinary edits (`data.ordinary_edits`) of the same photos are measured, each photo after
  each kind in one of the bands in turn. Where more of a kind than `EDIT_RATE` would reach the
  threshold, it is raised; the false-alarm rate of untouched photos is then below the rate asked
  for, and stated so. How many reach it is stored by kind, and every report says it.
- Rank convention: of n untouched variants, floor(rate * n) may reach the threshold, which is the
  smallest float32 above the next one.
- Score: Platt scaling with his smoothed targets, fitted by Newton's method. Both classes weigh the
  same, so a score of 0.5 is a probability of one half where half of the photos are inpainted.

Sources: Platt, "Probabilistic outputs for support vector machines", 1999; Lin, Lin and Weng, "A
note on Platt's probabilistic outputs", Machine Learning 68, 2007. Written anew from the formulas.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from torch import nn

from overpaint.data.bank import load_bank
from overpaint.data.degrade import Kernel, Subsampling, crop, jpeg, resize
from overpaint.data.ordinary_edits import ORDINARY_EDITS, apply_edit
from overpaint.data.photo_sets import collect_photos
from overpaint.data.sources import PhotoSource
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
    bound_rate,
    q99,
    quality_band,
    untouched_quantiles,
)
from overpaint.detection.runner import DetectorRunner
from overpaint.errors import InputError, WeightsError
from overpaint.images import Photo, write_bytes
from overpaint.weights import WeightsRecord, build, load_weights

QUALITIES = {HIGH: (90, 98), MEDIUM: (75, 89), LOW: (50, 74)}
"""Lowest and highest JPEG quality of a band's variants."""
SIDES = (256, 1024)
"""Longer side of a variant, pixels; at least three quarters of the side where a photo is small."""
MIN_SIDE = 128
LOSSY_SCALE = 0.9
"""Largest scale at which a photo with JPEG traces counts as lossless."""
FALSE_ALARMS = 0.01
TIMES_INCONCLUSIVE = 10
"""Rate of the lower threshold, in false-alarm rates; at most a half."""
EDIT_RATE = 0.05
"""Share of photos after one kind of ordinary edit that may reach the threshold."""
EDITED_SIDE = 512
"""Longest side of what is edited, pixels."""
SAMPLE_SIDE = 320
WINDOW = 13
"""Side of the window that logits are averaged over, pixels; chosen in docs/experiments.md."""
KERNELS: tuple[Kernel, ...] = ("bilinear", "bicubic", "lanczos")

Statistic = Callable[[np.ndarray], float]


def fit_threshold(untouched: np.ndarray, rate: float) -> float:
    """The smallest float32 logit that at most `rate` of the values reach (see above).

    Raises InputError when there is no value or one is not finite.
    """
    values = np.sort(np.asarray(untouched, dtype=np.float32))[::-1]
    if not values.size or not np.isfinite(values).all():
        raise InputError("a threshold needs at least one photo, and finite logits for each")
    # The tiny term keeps 0.29 * 100 = 28.999... from losing a photo that is allowed.
    allowed = min(int(rate * values.size + 1e-9), values.size - 1)
    return float(np.nextafter(values[allowed], np.float32(np.inf)))


def fit_platt(untouched: np.ndarray, inpainted: np.ndarray) -> tuple[float, float]:
    """(slope, intercept) of score = sigmoid(slope * q99 + intercept), both classes weighing alike.

    A slope that is not positive means that the detector does not separate the two; then the slope
    is a millionth and the score stays at a half.
    """
    x = np.concatenate([untouched, inpainted]).astype(float)
    n_0, n_1 = len(untouched), len(inpainted)
    target = np.repeat([1 / (n_0 + 2), (n_1 + 1) / (n_1 + 2)], [n_0, n_1])
    weight = np.repeat([0.5 / n_0, 0.5 / n_1], [n_0, n_1])
    center, spread = x.mean(), max(x.std(), 1e-6)
    slope, intercept = _newton((x - center) / spread, target, weight)
    slope, intercept = slope / spread, intercept - slope * center / spread
    return (slope, intercept) if slope > 0 else (1e-6, 0.0)


def _newton(x: np.ndarray, target: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Weighted logistic regression; smoothed targets keep the optimum finite."""

    def loss(beta: np.ndarray) -> float:
        z = design @ beta
        return float(weight @ (np.logaddexp(0, z) - target * z))

    design = np.stack([x, np.ones_like(x)], axis=1)
    beta = np.zeros(2)
    for _ in range(100):
        p = 0.5 * (1 + np.tanh(0.5 * (design @ beta)))
        gradient = design.T @ (weight * (p - target))
        hessian = design.T @ (design * (weight * p * (1 - p))[:, None]) + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        while loss(beta - step) > loss(beta) and np.abs(step).max() > 1e-12:
            step /= 2
        beta = beta - step
        if np.abs(step).max() < 1e-10:
            break
    return float(beta[0]), float(beta[1])


def check_num_photos(num: int, rate: float) -> None:
    """Raises InputError when a false-alarm rate in (0, 1) cannot be set on so many photos."""
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

    inpainted: None where no score is wanted; it is then the sigmoid of the distance to the
    threshold. num_photos: those that the untouched ones are variants of; None where each is a photo
    of its own. rate: of false alarms. Raises InputError when they are too few for it.
    """
    num_photos = len(untouched) if num_photos is None else num_photos
    allowed = math.floor(rate * len(untouched) + 1e-9)
    alarms = math.ceil(allowed * num_photos / len(untouched) - 1e-9)
    check_num_photos(num_photos, rate)
    threshold = fit_threshold(untouched, rate)
    slope, intercept = (1.0, -threshold) if inpainted is None else fit_platt(untouched, inpainted)
    return QualityBand(
        threshold_logit=threshold,
        inconclusive_logit=fit_threshold(untouched, min(0.5, TIMES_INCONCLUSIVE * rate)),
        slope=slope,
        intercept=intercept,
        num_untouched=len(untouched),
        num_photos=num_photos,
        num_inpainted=0 if inpainted is None else len(inpainted),
        untouched_quantiles=untouched_quantiles(untouched),
        false_alarm_rate=rate,
        false_alarm_bound=bound_rate(alarms, num_photos),
    )


def vary(
    pixels: np.ndarray, band: str, rng: np.random.Generator, *, lossy: bool, may_crop: bool = True
) -> np.ndarray:
    """A random variant of a photo uint8 (h, w, 3) in a quality band.

    lossy: the photo has JPEG traces. may_crop: otherwise it stays whole, at its size or smaller.
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
    """(band, pixels) of one photo: `num` in each band, one of them the photo as it is."""
    own = quality_band(photo.jpeg_quality, photo.lossy)
    if min(photo.pixels.shape[:2]) < MIN_SIDE:
        return
    for b, band in enumerate(QUALITY_BANDS):
        for v in range(num):
            if band == own and v == 0:
                yield band, photo.pixels
                continue
            rng = np.random.default_rng([seed, 0, index, b, v])
            yield band, vary(photo.pixels, band, rng, lossy=photo.lossy)


def measure_edits(
    statistic: Statistic,
    photos: PhotoSource,
    bands: Iterable[str],
    *,
    num: int | None = None,
    seed: int = 0,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[str, list[float]]]:
    """Statistics of photos after ordinary edits, by band and kind.

    num: photos, evenly spaced; None for all. Each is seen after each kind, in one band in turn;
    the next photo is the other one of montages and collages.
    """
    num, names = len(photos) if num is None else min(num, len(photos)), tuple(bands)
    found: dict[str, dict[str, list[float]]] = {b: defaultdict(list) for b in names}
    for place in range(num):
        index = place * len(photos) // num
        pixels, other = (_crop_middle(photos.read(i % len(photos))) for i in (index, index + 1))
        if min(pixels.shape[:2]) < MIN_SIDE:
            continue
        for number, kind in enumerate(ORDINARY_EDITS):
            band = names[(place + number) % len(names)]
            rng = np.random.default_rng([seed, 2, index, number])
            seen = apply_edit(kind, pixels, rng, other)
            if band != LOSSLESS:
                seen = jpeg(seen, int(rng.integers(*QUALITIES[band], endpoint=True)), 2)
            found[band][kind].append(statistic(seen))
        if (place + 1) % 10 == 0:
            report(f"{place + 1} of {num} photos edited")
    return {band: dict(sorted(kinds.items())) for band, kinds in found.items()}


def raise_for_edits(
    band: QualityBand, edits: Mapping[str, Sequence[float]], rate: float
) -> QualityBand:
    """The band with the lowest threshold, not below its own, that at most `rate` of the photos
    after each kind of edit reach (rank convention as above), and with their counts.

    edits: statistics by kind; rate: in [0, 1], 1 leaves the threshold as it is. The lower
    threshold stays.
    """
    needed = [fit_threshold(np.array(values), rate) for values in edits.values()]
    threshold = max([band.threshold_logit, *needed]) if rate < 1 else band.threshold_logit
    update: dict[str, object] = {}
    if threshold > band.threshold_logit:
        share, _ = band.false_alarms(threshold)
        reached = math.ceil((share or 0.0) * band.num_untouched - 1e-9)
        alarms = math.ceil(reached * band.num_photos / band.num_untouched - 1e-9)
        update = {
            "threshold_logit": threshold,
            "false_alarm_rate": reached / band.num_untouched,
            "false_alarm_bound": bound_rate(alarms, band.num_photos),
        }
    update["edits"] = {
        kind: EditCount(num=len(values), num_reached=sum(v >= threshold for v in values))
        for kind, values in edits.items()
    }
    return band.model_copy(update=update)


def _crop_middle(pixels: np.ndarray) -> np.ndarray:
    """At most `EDITED_SIDE` pixels square."""
    top, left = (max(0, (n - EDITED_SIDE) // 2) for n in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + EDITED_SIDE, left : left + EDITED_SIDE])


def calibrate(
    statistic: Statistic,
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

    statistic: uint8 (h, w, 3) -> q99 of the detector's logits, averaged over `window`. photos: the
    validation split. data: in words, what it is fitted on. variants: of each photo in each band.
    rate: of false alarms. edits: photos that ordinary edits are measured on, None for all;
    edit_rate: the share of them, of each kind, that may reach the threshold, 1 for any. report:
    called with a line of progress now and then. Raises InputError when the photos are too few for
    the rate.
    """
    check_num_photos(len(photos), rate)  # before anything is looked at
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
    seen = measure_edits(statistic, photos, bands, num=edits, seed=seed, report=report)
    return Calibration(
        bands={b: raise_for_edits(band, seen[b], edit_rate) for b, band in bands.items()},
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
    device: str = "cpu",
    report: Callable[[str], None] = lambda _: None,
    problem: Callable[[str], None] | None = None,
) -> tuple[WeightsRecord, Calibration]:
    """Calibrate a detector's weights and write NAME.calibration.json beside them.

    paths: folders of photos, of which the validation split is used. bank: the autoencoders that
    redraw, as `load_bank` names them. The record is rewritten to name the calibration; both are
    returned. rate: of false alarms, in (0, 1). edits, edit_rate: as of `calibrate`. problem:
    called with each path, line or member that could not be searched; `report` where None. Raises
    InputError for a window without a middle and for too few photos, WeightsError, ImageError.
    """
    if window < 1 or window % 2 == 0:
        raise InputError(f"window {window}: give an odd number of pixels, so that it has a middle")
    record, state = load_weights(weights, kind="detector")
    runner = DetectorRunner(build(record, state), device=device)
    # Short names, because the record travels and the folders of this machine do not.
    modules = {_shorten(name): module for name, module in load_bank(bank).items()}
    photos = collect_photos(paths, "validation", seed=0)
    _tell_of(photos, report, problem)
    folders = ", ".join(sorted({Path(name).parent.name for name in photos.names}))
    data = (
        f"{len(photos)} photos, the validation split (seed 0) of {folders}; {variants} variants "
        f"of each in each band (seed {seed}); inpainted: brush masks of universal data redrawn by "
        f"{', '.join(sorted(modules))}"
    )
    calibration = calibrate(
        lambda pixels: q99(average_logits(runner.logits(pixels), window)),
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
    name = f"{record.name}.calibration.json"
    calibration.save(record.folder / name)
    record = record.model_copy(update={"calibration": name})
    content = record.model_dump_json(indent=2) + "\n"
    write_bytes(record.folder / f"{record.name}.json", content.encode())
    return record, calibration


def add_edits(
    weights: str | Path,
    paths: Iterable[str | Path],
    *,
    num: int | None = None,
    rate: float = EDIT_RATE,
    seed: int = 0,
    device: str = "cpu",
    report: Callable[[str], None] = lambda _: None,
    problem: Callable[[str], None] | None = None,
) -> tuple[WeightsRecord, Calibration]:
    """Measure ordinary edits with the calibration that the weights have, raise its thresholds
    where more than `rate` of a kind reach them, and write it.

    Arguments and errors as of `calibrate_weights`; WeightsError where there is no calibration.
    """
    record, state = load_weights(weights, kind="detector")
    if record.calibration is None:
        raise WeightsError(f"{record.path}: has no calibration; fit one first")
    path = record.folder / record.calibration
    old = Calibration.load(path)
    runner = DetectorRunner(build(record, state), device=device)
    photos = collect_photos(paths, "validation", seed=0)
    _tell_of(photos, report, problem)
    seen = measure_edits(
        lambda pixels: q99(average_logits(runner.logits(pixels), old.window)),
        photos,
        old.bands,
        num=num,
        seed=seed,
        report=report,
    )
    bands = {name: raise_for_edits(band, seen[name], rate) for name, band in old.bands.items()}
    calibration = old.model_copy(update={"bands": bands})
    calibration.save(path)
    return record, calibration


def _tell_of(
    photos: PhotoSource, report: Callable[[str], None], problem: Callable[[str], None] | None
) -> None:
    for line in photos.problems:
        (problem or report)(line)
    if photos.passed_over:
        report(photos.passed_over)


def _shorten(name: str) -> str:
    return "taef2" if name.startswith("taef2:") else Path(name).stem
