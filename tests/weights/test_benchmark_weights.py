"""The weights in benchmarks/weights: small, traceable, and of networks that learnt something."""

from pathlib import Path

import numpy as np
import pytest
import torch

from overpaint import weights
from overpaint.cli.demo import PHOTO
from overpaint.evaluation.rows import read_rows
from overpaint.images import read_image

ROOT = Path(__file__).parents[2]
WEIGHTS = sorted((ROOT / "benchmarks" / "weights").glob("*.safetensors"))


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda p: p.stem)
def test_each_has_a_recipe_and_is_small(path: Path) -> None:
    record = weights.read_record(path)
    assert (path.parent / record.file).stat().st_size <= 4 * 2**20
    assert record.recipe is not None
    assert (ROOT / record.recipe).is_file(), record.recipe
    assert record.commit


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda p: p.stem)
def test_each_inpainter_fills_a_photo_with_something_finite_and_varied(path: Path) -> None:
    record, state = weights.load_weights(path)
    if record.kind != "inpainter":
        pytest.skip("another kind")
    pixels = read_image(PHOTO).pixels[100:228, 150:278]
    image = torch.from_numpy(pixels / np.float32(255)).permute(2, 0, 1)[None]
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 40:90, 30:100] = 1
    with torch.inference_mode():
        filled = weights.build(record, state).eval()(image, mask)
    hole = filled[(mask == 1).expand(-1, 3, -1, -1)]
    assert hole.isfinite().all()
    assert hole.std() > 0.01


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda p: p.stem)
def test_each_inpainter_is_better_than_the_mean_fill(path: Path) -> None:
    record, results = weights.read_record(path), ROOT / "results" / "inpainting.csv"
    if record.kind != "inpainter" or not results.exists():
        pytest.skip("no inpainter, or nothing measured yet")
    rows = [r for r in read_rows(results) if (r.method, r.metric) == ("all", "psnr")]
    figure = {r.weights: r.value for r in rows}
    assert {r.weights_sha256 for r in rows if r.weights == record.name} == {record.sha256}
    assert figure[record.name] > figure["mean"]
