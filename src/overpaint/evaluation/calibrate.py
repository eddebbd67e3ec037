"""Fit a detector's calibration: thresholds with a stated false-alarm rate, and a score.

- From validation photos only. Untouched photos set the thresholds; universal samples of the same
  photos (a photo, redrawn in part by an autoencoder) give the score its other end.
- Each photo is used several times per quality band: cropped or downsized to 256 to 1024 px, then
  stored as that band says. A photo is also used once whole and as it is, in its own band.
- A lossless variant of a lossy photo is always downsized, or it would not be without JPEG traces.
  Nothing is enlarged: enlarged photos are outside of what is tested.
- Rank convention: of n untouched variants, floor(rate * n) may reach the threshold, which is the
  smallest float32 above the next one. With fewer than 1 / rate variants none may.
- Score: Platt scaling with his smoothed targets, fitted by Newton's method. Both classes weigh the
  same, so a score of 0.5 is an even bet where half of the photos are inpainted.

Sources: Platt, "Probabilistic outputs for support vector machines", 1999; Lin, Lin and Weng, "A
note on Platt's probabilistic outputs", Machine Learning 68, 2007. Written anew from the formulas.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

import numpy as np
from torch import nn

from overpaint.data.bank import load_bank
from overpaint.data.degrade import Kernel, Subsampling, crop, jpeg, resize
from overpaint.data.sources import PhotoSource
from overpaint.data.universal import universal_test_set
from overpaint.errors import InputError
from overpaint.images import Photo, write_bytes
from overpaint.inference.calibration import (
    HIGH,
    LOSSLESS,
    LOW,
    MEDIUM,
    QUALITY_BANDS,
    Calibration,
    QualityBand,
    q99,
    quality_band,
    smoothed,
    untouched_quantiles,
)
from overpaint.inference.detect import DetectorRunner
from overpaint.weights import WeightsRecord, build, load_weights

QUALITIES = {HIGH: (90, 98), MEDIUM: (75, 89), LOW: (50, 74)}
"""Lowest and highest JPEG quality of a band's variants."""
SIDES = (256, 1024)
"""Longer side of a variant, pixels; at least three quarters of the side where a photo is small."""
MIN_SIDE = 128
LOSSY_SCALE = 0.9
"""Largest scale at which a photo with JPEG traces counts as lossless."""
FALSE_ALARMS, INCONCLUSIVE = 0.01, 0.1
SAMPLE_SIDE = 320
WINDOW = 13
"""Side of the window that logits are averaged over, pixels; chosen in docs/experiments.md."""
KERNELS: tuple[Kernel, ...] = ("bilinear", "bicubic", "lanczos")

Statistic = Callable[[np.ndarray], float]


def threshold_at(untouched: np.ndarray, rate: float) -> float:
    """The smallest float32 logit that at most `rate` of the values reach (see above).

    Raises InputError when there is no value or one is not finite.
    """
    values = np.sort(np.asarray(untouched, dtype=np.float32))[::-1]
    if not values.size or not np.isfinite(values).all():
        raise InputError("a threshold needs at least one photo, and finite logits for each")
    # The tiny term keeps 0.29 * 100 = 28.999... from losing a photo that is allowed.
    allowed = min(int(rate * values.size + 1e-9), values.size - 1)
    return float(np.nextafter(values[allowed], np.float32(np.inf)))


def platt(untouched: np.ndarray, inpainted: np.ndarray) -> tuple[float, float]:
    """(slope, intercept) of score = sigmoid(slope * q99 + intercept), both classes weighing alike.

    A slope that is not positive says that the detector cannot tell the two apart; then the slope
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


def fit_band(untouched: np.ndarray, inpainted: np.ndarray) -> QualityBand:
    """One band's thresholds and score from the q99 of untouched and inpainted photos."""
    threshold = threshold_at(untouched, FALSE_ALARMS)
    slope, intercept = platt(untouched, inpainted)
    return QualityBand(
        threshold_logit=threshold,
        inconclusive_logit=threshold_at(untouched, INCONCLUSIVE),
        slope=slope,
        intercept=intercept,
        num_untouched=len(untouched),
        num_inpainted=len(inpainted),
        untouched_quantiles=untouched_quantiles(untouched),
        false_alarm_rate=FALSE_ALARMS,
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


def untouched_variants(
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


def calibrate(
    statistic: Statistic,
    photos: PhotoSource,
    autoencoders: Mapping[str, nn.Module],
    *,
    data: str,
    window: int = 1,
    variants: int = 3,
    seed: int = 0,
    report: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Fit all bands.

    statistic: uint8 (h, w, 3) -> q99 of the detector's logits, averaged over `window`. photos: the
    validation split. data: in words, what it is fitted on. variants: of each photo in each band.
    report: called with a line of progress now and then.
    """
    untouched, inpainted = defaultdict(list), defaultdict(list)
    max_pixels = 0
    for index in range(len(photos)):
        for band, pixels in untouched_variants(photos.photo(index), variants, seed, index):
            untouched[band].append(statistic(pixels))
            max_pixels = max(max_pixels, pixels.shape[0] * pixels.shape[1])
        if (index + 1) % 20 == 0:
            report(f"{index + 1} of {len(photos)} photos")
    samples = universal_test_set(
        photos, autoencoders, size=SAMPLE_SIDE, num=variants * len(photos), seed=seed
    )
    for index, sample in enumerate(samples):
        for b, band in enumerate(QUALITY_BANDS):
            rng = np.random.default_rng([seed, 1, index, b])
            varied = vary(sample.pixels, band, rng, lossy=False, may_crop=False)
            inpainted[band].append(statistic(varied))
        if (index + 1) % 50 == 0:
            report(f"{index + 1} of {variants * len(photos)} inpainted samples")
    bands = {b: fit_band(np.array(untouched[b]), np.array(inpainted[b])) for b in QUALITY_BANDS}
    return Calibration(
        bands=bands,
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
    seed: int = 0,
    device: str = "cpu",
    report: Callable[[str], None] = lambda _: None,
) -> tuple[WeightsRecord, Calibration]:
    """Calibrate a detector's weights and write NAME.calibration.json beside them.

    paths: folders of photos, of which the validation split is used. bank: the autoencoders that
    redraw, as `load_bank` names them. The record is rewritten to name the calibration; both are
    returned. Raises InputError for a window without a middle, WeightsError, ImageError.
    """
    if window < 1 or window % 2 == 0:
        raise InputError(f"window {window}: give an odd number of pixels, so that it has a middle")
    record, state = load_weights(weights, kind="detector")
    runner = DetectorRunner(build(record, state), device=device)
    # Short names, because the record travels and the folders of this machine do not.
    modules = {_short(name): module for name, module in load_bank(bank).items()}
    photos = PhotoSource.from_paths(paths, "validation", seed=0)
    for line in (*photos.problems, photos.passed_over):
        if line:
            report(line)
    folders = ", ".join(sorted({Path(name).parent.name for name in photos.names}))
    data = (
        f"{len(photos)} photos, the validation split (seed 0) of {folders}; {variants} variants "
        f"of each in each band (seed {seed}); inpainted: brush masks of universal data redrawn by "
        f"{', '.join(sorted(modules))}"
    )
    calibration = calibrate(
        lambda pixels: q99(smoothed(runner.logits(pixels), window)),
        photos,
        modules,
        data=data,
        window=window,
        variants=variants,
        seed=seed,
        report=report,
    )
    name = f"{record.name}.calibration.json"
    calibration.save(record.folder / name)
    record = record.model_copy(update={"calibration": name})
    content = record.model_dump_json(indent=2) + "\n"
    write_bytes(record.folder / f"{record.name}.json", content.encode())
    return record, calibration


def _short(name: str) -> str:
    return "taef2" if name.startswith("taef2:") else Path(name).stem
