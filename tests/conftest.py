"""Fixtures for all tests: photos made by code, and the folder of real ones where there is one."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# Their assertions, too, are to say what was found and what was expected.
pytest.register_assert_rewrite(
    "helpers.detection_task_contract",
    "helpers.detector_contract",
    "helpers.inpainter_contract",
    "helpers.inpainting_task_contract",
    "helpers.tiny_runs",
)

DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def imported_weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder instead of the one with the weights that the user has imported."""
    folder = tmp_path_factory.mktemp("imported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVERPAINT_WEIGHTS", str(folder))
        yield folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with photos/, masks/, weights/ (third-party files, not part of the project)."""
    folder = Path(os.environ.get("OVERPAINT_DATA", DEFAULT_DATA))
    if not (folder / "photos").is_dir():
        pytest.skip(
            f"no photos/ in {folder}: third-party photos, masks and weights are not part of the "
            "project; download them (see the docs on data) and set OVERPAINT_DATA to their folder"
        )
    return folder


def textured(height: int, width: int, seed: int) -> np.ndarray:
    """A picture with what a photo has: large shapes, fine texture, noise; uint8 (h, w, 3)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    pixels = np.zeros((height, width, 3))
    for _ in range(4):  # waves from coarse to fine, each in its own colour
        period, angle = float(rng.uniform(6, 120)), float(rng.uniform(0, np.pi))
        phase = (rows * np.sin(angle) + columns * np.cos(angle)) * 2 * np.pi / period
        pixels += 18 * np.sin(phase)[..., None] * rng.uniform(0.3, 1, 3)
    for _ in range(6):  # discs with hard edges
        y, x, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(4, height / 3)
        disc = (rows - y) ** 2 + (columns - x) ** 2 < r**2
        pixels[disc] += rng.uniform(-50, 50, 3)
    pixels += 128 + rng.normal(0, 3, pixels.shape)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """One textured picture with noise: uint8 (96, 128, 3)."""
    return textured(96, 128, seed=11)


@pytest.fixture
def picture() -> np.ndarray:
    """A smooth colour picture, 24 high and 40 wide, that survives JPEG well."""
    y, x = np.mgrid[:24, :40]
    return np.stack([x * 6, y * 10, 255 - x * 3 - y], axis=-1).astype(np.uint8)


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """Six textured pictures of different sizes: four PNG files and two JPEG files."""
    folder = tmp_path / "photos"
    folder.mkdir()
    sizes = [(72, 96), (96, 72), (80, 80), (120, 100), (90, 110), (64, 64)]
    for i, (height, width) in enumerate(sizes):
        image = Image.fromarray(textured(height, width, seed=i))
        if i % 3 == 2:
            image.save(folder / f"{i}.jpg", quality=92)
        else:
            image.save(folder / f"{i}.png")
    return folder
