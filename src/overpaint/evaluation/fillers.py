"""Which inpainter is best for which size of hole, on holes shaped as objects and brush strokes.

`overpaint inpaint --model auto` chooses by these measurements (`overpaint.inpainting.choice`). The
photos are of the validation part, so that the choice does not use the test part. Each is filled as
a user's photo is, by `InpainterRunner`. Half of the photos have holes in the shape of objects, half
of brush strokes; all inpainters fill the same holes. Photos are cropped to their middle 512 px.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from overpaint.data.crops import crop_middle
from overpaint.data.masks import MaskFn, limit_ratio
from overpaint.data.sources import PhotoSource
from overpaint.data.universal import make_mask_mixture
from overpaint.evaluation.rows import Row, Source, make_row, write_results
from overpaint.images import to_tensor
from overpaint.inpainting.inpainter_runner import InpainterRunner
from overpaint.layers.perceptual import Backbone, load_backbone, perceptual_loss
from overpaint.metrics import psnr, squared_error
from overpaint.run_identity import find_commit, hash_config

SET = "fillers"
BINS = {"1": (0.007, 0.014), "5": (0.04, 0.06), "15": (0.13, 0.17), "30": (0.27, 0.33)}
"""Lowest and highest share of the photo in the hole, by the bin's name in percent."""
SIDE = 512
"""Longest side of a photo, pixels."""
SHAPES = {"objects:masks/bsds_segments": 1.0, "objects:masks/person": 1.0}
BACKBONE = "distilled:weights/vgg19_distilled_16x.pth"


def measure_fillers(
    models: Iterable[str | Path],
    data: str | Path,
    out: str | Path,
    *,
    num: int = 20,
    seed: int = 0,
    report: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Distance by the distilled VGG, PSNR and seconds for each inpainter and bin of hole sizes.

    The rows are written to `out`/fillers.csv. data: a folder with photos/, masks/ and weights/.
    num: number of photos. Raises OverpaintError.
    """
    data = Path(data)
    backbone = load_backbone(BACKBONE, data)
    assert backbone is not None
    photos = PhotoSource.from_paths([data / "photos"], part="validation")
    cases = list(draw_cases(photos, data, num, seed))
    rows = []
    for model in models:
        runner = InpainterRunner(model)
        report(f"{SET}: {runner.name}, {len(cases)} holes")
        source = Source(
            set=SET,
            weights=runner.name,
            commit=find_commit(),
            config_hash=hash_config({"part": SET, "num": num, "seed": seed, "side": SIDE}),
            weights_sha256=runner.weights_sha256 or "",
            protocol=f"validation photos of {SIDE} px, objects and brush strokes as holes",
        )
        found: dict[str, dict[str, list[float]]] = {
            name: {"vgg-distilled": [], "psnr": [], "seconds": []} for name in BINS
        }
        for name, photo, hole in cases:
            for metric, value in _score_fill(runner, backbone, photo, hole).items():
                found[name][metric].append(value)
        rows += [
            make_row(source, name, metric, [values])
            for name, metrics in found.items()
            for metric, values in metrics.items()
        ]
    write_results(Path(out), rows, [])
    return rows


def draw_cases(
    photos: PhotoSource, assets: Path, num: int, seed: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name of the bin, photo (h, w, 3) and hole (h, w), uint8, 1 = hole: each photo in each bin."""
    kinds: tuple[MaskFn, ...] = (
        make_mask_mixture(SHAPES, assets),
        make_mask_mixture({"brush": 1.0}),
    )
    chosen = np.random.default_rng(seed).permutation(len(photos))[:num].tolist()
    for i, index in enumerate(chosen):
        photo = crop_middle(photos.read(index), SIDE)
        for name, (low, high) in BINS.items():
            draw = limit_ratio(kinds[i % 2], low, high, tries=5000)
            height, width = photo.shape[:2]
            hole = draw(height, width, np.random.default_rng([seed, i]))
            yield name, photo, hole.astype(np.uint8)


@torch.inference_mode()
def _score_fill(
    runner: InpainterRunner, backbone: Backbone, photo: np.ndarray, hole: np.ndarray
) -> dict[str, float]:
    started = time.perf_counter()
    filled, _ = runner.run(np.where(hole[..., None] == 1, 0, photo).astype(np.uint8), hole)
    seconds = time.perf_counter() - started
    wanted, got = (backbone(to_tensor(x), backbone.perceptual_layers) for x in (photo, filled))
    error = squared_error(filled.astype(np.float32), photo.astype(np.float32))
    return {
        "vgg-distilled": float(perceptual_loss(got, wanted)),
        "psnr": psnr(error),
        "seconds": seconds,
    }
