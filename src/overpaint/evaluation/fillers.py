"""Which inpainter is best for which size of hole, on holes shaped as objects and brush strokes.

`overpaint inpaint --model auto` chooses by these measurements (`overpaint.inpainting.choice`).

- Each photo is filled as a user's photo is, by `InpainterRunner`. Half of the photos have holes in
  the shape of objects, half of brush strokes; all inpainters fill the same holes.
- At 512 px: test photos, cropped to their middle 512 px; smaller ones as they are.
- At 1024 px: the middle 1024 px of photos with a side of at least 1000 px. The test part has too
  few of them, so photos of every part are used, also those that shipped networks were trained on.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from overpaint.data.crops import crop_middle
from overpaint.data.masks import MaskFn, limit_ratio
from overpaint.data.sources import Part, PhotoSource
from overpaint.data.universal import make_mask_mixture
from overpaint.evaluation.rows import Row, Source, make_row, write_results
from overpaint.images import to_tensor
from overpaint.inpainting.inpainter_runner import InpainterRunner
from overpaint.layers.perceptual import Backbone, load_backbone, perceptual_loss
from overpaint.metrics import EQUAL_PSNR, psnr, squared_error
from overpaint.run_identity import find_commit, hash_config

SET = "fillers"
BINS = {"1": (0.007, 0.014), "5": (0.04, 0.06), "15": (0.13, 0.17), "30": (0.27, 0.33)}
"""Lowest and highest share of the photo in the hole, by the bin's name in percent."""
SIDES: dict[int, tuple[Part | None, int, int]] = {512: ("test", 0, 60), 1024: (None, 1000, 20)}
"""For the longest side of a crop, pixels: part of the photos (None: all), the length that the
longer side of a photo has at least, and the number of photos."""
SHAPES = {"objects:masks/bsds_segments": 1.0, "objects:masks/person": 1.0}
BACKBONE = "distilled:weights/vgg19_distilled_16x.pth"


def measure_fillers(
    models: Iterable[str | Path],
    data: str | Path,
    out: str | Path,
    *,
    num: int | None = None,
    seed: int = 0,
    report: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Distance by the distilled VGG, PSNR and seconds for each inpainter, hole size and side.

    The rows are written to `out`/fillers.csv and replace earlier ones of these inpainters. data: a
    folder with photos/, masks/ and weights/. num: photos of each side, for a quick run; None for
    the numbers in `SIDES`. Raises OverpaintError.
    """
    data = Path(data)
    backbone = load_backbone(BACKBONE, data)
    assert backbone is not None
    runners = [InpainterRunner(model) for model in models]
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for side, (part, _, usual) in SIDES.items():
        photos, wished = PhotoSource.from_paths([data / "photos"], part=part), num or usual
        for i, (photo, holes) in enumerate(draw_cases(photos, data, wished, seed, side)):
            report(f"{SET}: photo {i + 1} of {wished}, {side} px")
            wanted = _compute_features(backbone, photo)
            for (name, hole), runner in product(holes.items(), runners):
                for metric, value in _score_fill(runner, backbone, photo, wanted, hole).items():
                    found[runner.name, name_method(name, side), metric].append(value)
    sources = {runner.name: _make_source(runner, num, seed) for runner in runners}
    rows = [
        make_row(sources[name], method, metric, values)
        for (name, method, metric), values in found.items()
    ]
    write_results(Path(out), rows, [])
    return rows


def name_method(bin_name: str, side: int) -> str:
    """Method of a row: share of the hole and longest side of the crop."""
    return f"{bin_name} %, {side} px"


def draw_cases(
    photos: PhotoSource, assets: Path, num: int, seed: int, side: int
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Photos (h, w, 3), each with a hole (h, w) for the name of every bin; uint8, 1 = hole.

    side: one of `SIDES`, pixels.
    """
    kinds: tuple[MaskFn, ...] = (
        make_mask_mixture(SHAPES, assets),
        make_mask_mixture({"brush": 1.0}),
    )
    for i, photo in enumerate(islice(_read_large(photos, SIDES[side][1], seed), num)):
        photo = crop_middle(photo, side)
        holes = {}
        for name, (low, high) in BINS.items():
            draw = limit_ratio(kinds[i % 2], low, high, tries=5000)
            height, width = photo.shape[:2]
            holes[name] = draw(height, width, np.random.default_rng([seed, i])).astype(np.uint8)
        yield photo, holes


def _read_large(photos: PhotoSource, at_least: int, seed: int) -> Iterator[np.ndarray]:
    """In random order, the photos whose longer side has at least that many pixels."""
    for index in np.random.default_rng(seed).permutation(len(photos)).tolist():
        if max((photo := photos.read(index)).shape[:2]) >= at_least:
            yield photo


def _make_source(runner: InpainterRunner, num: int | None, seed: int) -> Source:
    return Source(
        set=SET,
        weights=runner.name,
        commit=find_commit(),
        config_hash=hash_config({"part": SET, "num": num, "seed": seed, "sides": SIDES}),
        weights_sha256=runner.weights_sha256 or "",
        protocol="test photos of 512 px, all large ones of 1024; objects and brush strokes",
    )


@torch.inference_mode()
def _compute_features(backbone: Backbone, pixels: np.ndarray) -> dict[str, Tensor]:
    return backbone(to_tensor(pixels), backbone.perceptual_layers)


def _score_fill(
    runner: InpainterRunner,
    backbone: Backbone,
    photo: np.ndarray,
    wanted: dict[str, Tensor],
    hole: np.ndarray,
) -> dict[str, float]:
    started = time.perf_counter()
    filled, _ = runner.run(np.where(hole[..., None] == 1, 0, photo).astype(np.uint8), hole)
    seconds = time.perf_counter() - started
    got = _compute_features(backbone, filled)
    error = squared_error(filled.astype(np.float32), photo.astype(np.float32))
    return {
        "vgg-distilled": float(perceptual_loss(got, wanted)),
        "psnr": min(psnr(error), EQUAL_PSNR),
        "seconds": seconds,
    }
