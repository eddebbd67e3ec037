"""The benchmark of inpainters: distance of a fill from the photo, and how well it is detected.

- Every inpainter gets the same photos, crops and masks: a case is a function of the seed, the photo
  and the hole's ratio. Every bin of ratios has the same photos, so that bins differ only by their
  holes.
- Holes are free-form brush strokes. One brush seldom covers more than a third of a picture, so the
  union of several is taken until the bin is reached; a mask that exceeds the bin is drawn again.
- An inpainter gets the whole crop at once, as in the papers. The windows into which `overpaint
  inpaint` divides a large photo are not part of the comparison.
- All numbers are of the composed picture at 8 bit, known pixels included, as in SafePaint. A
  picture that equals its photo has no finite PSNR; it counts as `EQUAL_PSNR`.
- `vgg-distilled` is eq. 9's distance by the distilled VGG-19. It is no LPIPS: `lpips-alex` needs
  the official files and is left out without them.
- The detector gets the fill as a lossless picture. A lower AUC means weaker traces; the row of the
  `UNTOUCHED` photo, scored with the same masks, is the value without any.
- The interval of a bin, and of all bins together, is over photos: a photo's bins are averaged
  first, because they are not independent.

Source of the protocol: SafePaint (ACM MM 2024), section 4.1 and tables 1 to 4.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from overpaint.data.crops import random_crop
from overpaint.data.masks import RATIO_BINS, Mask, brush, find_ratio_bin
from overpaint.data.sources import PhotoSource
from overpaint.defaults import DEFAULT_DETECTOR
from overpaint.detection.calibration import LOSSLESS
from overpaint.detection.runner import DetectorRunner
from overpaint.errors import ConfigError, ImageError, InputError
from overpaint.evaluation.measurement import Report, Result, find_test_photos, score_picture
from overpaint.evaluation.rows import (
    Picture,
    Row,
    Source,
    list_values,
    make_row,
    require_parquet,
    write_results,
)
from overpaint.images import to_pixels, to_tensor
from overpaint.inpainting.inpainter_runner import InpainterRunner
from overpaint.layers.perceptual import (
    LPIPS,
    Backbone,
    load_distilled_vgg19,
    load_lpips,
    perceptual_loss,
)
from overpaint.metrics import EQUAL_PSNR, mean, psnr, squared_error, ssim
from overpaint.registry import inpainters
from overpaint.run_identity import find_commit, hash_config
from overpaint.weights import list_records

SET = "inpainting"
UNTOUCHED = "untouched"
"""Name of the control: the photo itself, with nothing filled in."""
QUALITY = ("psnr", "l1", "ssim", "vgg-distilled", "lpips-alex")
TRACES = ("auc", "f1@0.5", "f1@default")
BINS = tuple(f"{round(100 * low)}-{round(100 * high)}" for low, high in RATIO_BINS)
DISTILLED_FILE = "vgg19_distilled_16x.pth"
TRIES = 1000

Fill = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class InpaintingSettings:
    """Settings of the measurement; every row has their hash."""

    size: int = 256
    """Side of the crops, pixels; photos with a smaller side are passed over."""
    bins: tuple[str, ...] = BINS[1:6]
    """Hole ratios in percent, names of `masks.find_ratio_bin`."""
    num: int = 40
    """Photos, each once in every bin."""
    seed: int = 0
    split_seed: int = 0

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.bins) - set(BINS)):
            raise ConfigError(f"no bin is called {unknown[0]!r}; there are {', '.join(BINS)}")
        if self.num < 1 or not self.bins:
            raise ConfigError("give at least one photo and one bin of hole ratios")


@dataclass(frozen=True, slots=True)
class Case:
    """One picture to fill in."""

    name: str
    """Folder and file name of the photo."""
    bin: str
    photo: np.ndarray = field(repr=False)
    """uint8 (h, w, 3)."""
    mask: Mask


@dataclass(frozen=True, slots=True)
class Method:
    """One inpainter by its name in the tables."""

    name: str
    fill: Fill
    sha256: str = ""
    """Of its weights; "" where there are none."""

    def __call__(self, photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Fill in a photo uint8 (h, w, 3), mask (h, w) with 1 = hole: the composed picture."""
        hole = torch.from_numpy(np.ascontiguousarray(mask, dtype=np.float32))[None, None]
        with torch.inference_mode():
            return to_pixels(self.fill(to_tensor(photo), hole))


def load_method(name: str, what: str | Path | None = None) -> Method:
    """An inpainter: shipped weights, a weights file, or a registered method without weights.

    what: its name or path, None for `name`; `UNTOUCHED` is the photo itself. Raises WeightsError
    for a network without weights, and for weights that cannot be read.
    """
    if (what or name) == UNTOUCHED:
        return Method(name, lambda image, mask: image)
    runner = InpainterRunner(what or name)
    return Method(name, runner.module, runner.weights_sha256 or "")


def list_default_methods() -> dict[str, str]:
    """Name -> name: the control, all registered inpainters without weights, the shipped weights.

    Raises OverpaintError, naming the extra to install, where a method's package is missing.
    """
    plain = [n for n in inpainters.list_names() if not inpainters.get(n).trainable]
    for name in plain:
        inpainters.create(name)  # raises for a missing package before anything is measured
    shipped = [r.name for r in list_records() if r.kind == "inpainter"]
    return {name: name for name in (UNTOUCHED, *plain, *shipped)}


def draw_free_form(size: int, label: str, rng: np.random.Generator) -> Mask:
    """A free-form mask (size, size) whose hole ratio lies in the bin `label`."""
    low = int(label.partition("-")[0])
    for _ in range(TRIES):
        mask = brush(size, size, rng)
        while 100 * np.count_nonzero(mask) < low * mask.size:
            mask |= brush(size, size, rng)
        if find_ratio_bin(mask) == label:
            return mask
    raise InputError(f"no free-form mask of {size} px in the bin {label} in {TRIES} tries")


def draw_cases(photos: PhotoSource, settings: InpaintingSettings) -> list[Case]:
    """The pictures to fill in, photo by photo; fewer than `num` where photos are too small.

    Raises ImageError when no photo is large enough.
    """
    cases: list[Case] = []
    for index in np.random.default_rng(settings.seed).permutation(len(photos)).tolist():
        pixels = photos.read(index)
        if min(pixels.shape[:2]) < settings.size:
            continue
        rng = np.random.default_rng([settings.seed, index])
        crop = np.ascontiguousarray(random_crop(pixels, settings.size, rng))
        path = Path(photos.names[index])
        for label in settings.bins:
            mask_rng = np.random.default_rng([settings.seed, index, BINS.index(label)])
            mask = draw_free_form(settings.size, label, mask_rng)
            cases.append(Case(f"{path.parent.name}/{path.name}", label, crop, mask))
        if len(cases) == settings.num * len(settings.bins):
            break
    if not cases:
        raise ImageError(
            f"none of the {len(photos)} test photos has {settings.size} pixels on both sides; "
            "give larger photos"
        )
    return cases


@dataclass(frozen=True, slots=True)
class FillScorers:
    """Networks that measure a fill, beside the metrics without a network; each may be missing."""

    backbone: Backbone | None = None
    lpips: LPIPS | None = None
    detectors: Mapping[str, DetectorRunner] = field(default_factory=dict)

    @classmethod
    def load(cls, assets: Path, detectors: Mapping[str, str | Path]) -> "FillScorers":
        """The distilled VGG and LPIPS where their files lie in `assets`, and the detectors."""
        distilled = assets / DISTILLED_FILE
        return cls(
            load_distilled_vgg19(distilled) if distilled.exists() else None,
            load_lpips(assets, "alex"),
            {name: DetectorRunner(weights) for name, weights in detectors.items()},
        )

    def measure_quality(self, filled: np.ndarray, photo: np.ndarray) -> dict[str, float]:
        """`QUALITY` of two pictures uint8 (h, w, 3), without metrics whose network is missing."""
        difference = filled.astype(np.float64) - photo
        numbers = {
            "psnr": min(psnr(squared_error(filled, photo)), EQUAL_PSNR),
            "l1": float(np.abs(difference).mean() / 255),
            "ssim": ssim(filled, photo),
        }
        image, reference = to_tensor(filled), to_tensor(photo)
        with torch.inference_mode():
            if self.backbone is not None:
                layers = self.backbone.perceptual_layers
                found, wanted = (self.backbone(x, layers) for x in (image, reference))
                numbers["vgg-distilled"] = float(perceptual_loss(found, wanted))
            if self.lpips is not None:
                numbers["lpips-alex"] = float(self.lpips(image, reference)[0])
        return numbers


def measure_method(method: Method, cases: Iterable[Case], scorers: FillScorers) -> list[Picture]:
    """One picture per case for the quality, one per case and detector ("BIN, DETECTOR")."""
    pictures = []
    for case in cases:
        filled = method(case.photo, case.mask)
        numbers = scorers.measure_quality(filled, case.photo)
        pictures.append(Picture(SET, case.bin, method.name, case.name, numbers))
        for name, runner in scorers.detectors.items():
            seen = score_picture(runner, filled, LOSSLESS, case.mask)
            pictures.append(Picture(SET, f"{case.bin}, {name}", method.name, case.name, seen))
    return pictures


def make_rows(source: Source, pictures: Sequence[Picture]) -> list[Row]:
    """A row per bin and number, and for "all" bins, where a photo's bins are averaged first."""
    groups: dict[str, list[Picture]] = defaultdict(list)
    together: dict[str, dict[str, list[Picture]]] = defaultdict(lambda: defaultdict(list))
    for picture in pictures:
        groups[picture.method].append(picture)
        _, comma, detector = picture.method.partition(", ")
        together[f"all{comma}{detector}"][picture.picture].append(picture)
    rows = [
        make_row(source, method, number, values)
        for method, group in groups.items()
        for number in (*QUALITY, *TRACES)
        if (values := list_values(group, number))
    ]
    for method, photos in together.items():
        for number in (*QUALITY, *TRACES):
            values = [list_values(group, number) for group in photos.values()]
            if any(values):
                rows.append(make_row(source, method, number, [mean(v) for v in values]))
    return rows


def measure_inpainters(
    methods: Mapping[str, str | Path],
    data: str | Path,
    out: str | Path,
    *,
    detectors: Mapping[str, str | Path] | None = None,
    settings: InpaintingSettings | None = None,
    report: Report = lambda _: None,
) -> list[Row]:
    """Measure inpainters and merge their rows into `out`/inpainting.csv, each once it is done.

    methods: name in the tables -> see `load_method`. data: folder with photos/ and, for the
    perceptual distances, weights/. detectors: name -> weights, nixnet-s when None. Raises
    ConfigError, ImageError, WeightsError; all weights are read before the first picture.
    """
    require_parquet()  # before anything is filled
    settings = settings or InpaintingSettings()
    seen_by = {DEFAULT_DETECTOR: DEFAULT_DETECTOR} if detectors is None else detectors
    loaded = [load_method(name, what) for name, what in methods.items()]
    scorers = FillScorers.load(Path(data) / "weights", seen_by)
    cases = draw_cases(find_test_photos(Path(data), settings.split_seed), settings)
    rows: list[Row] = []
    for method in loaded:
        report(f"{SET}: {method.name}, {len(cases)} pictures")
        started = time.perf_counter()
        found, pictures = _measure_cases(method, cases, scorers, settings)
        report(f"{SET}: {method.name}, {time.perf_counter() - started:.0f} s")
        write_results(Path(out), found, pictures)
        rows += found
    return rows


def _measure_cases(
    method: Method, cases: Sequence[Case], scorers: FillScorers, settings: InpaintingSettings
) -> Result:
    seen_by = [
        f"{name} {(r.weights_sha256 or '-')[:12]} {(r.calibration_sha256 or '-')[:12]}"
        for name, r in scorers.detectors.items()
    ]
    source = Source(
        set=SET,
        weights=method.name,
        commit=find_commit(),
        config_hash=hash_config(asdict(settings)),
        weights_sha256=method.sha256,
        protocol=f"test split, {settings.size} px crops, the same photos and free-form masks for "
        "each inpainter and bin; composed, 8 bit",
        seen_by="; ".join(seen_by),
    )
    pictures = measure_method(method, cases, scorers)
    return make_rows(source, pictures), pictures
