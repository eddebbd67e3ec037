"""A contact sheet of fills: photos in rows and inpainters in columns, in one picture.

    python benchmarks/contact_sheet.py --data DATA --out contact-sheet.webp

- Columns: the photo, the photo with its hole, then a fill for each `--inpainter`. "NAME:stage-1" is
  the first of the two stages of a SafePaint network, "auto" the choice of `overpaint inpaint`.
- Photos and holes are those of benchmarks/measure_fillers.py at 512 px: test photos in random
  order, none left out, and holes of 1, 5, 15 and 30 % of the photo in turn.
- Each photo is filled as a user's is (`InpainterRunner`), at its own resolution; the sheet shows it
  smaller.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from torch import Tensor

from overpaint.data.sources import PhotoSource
from overpaint.errors import ConfigError, OverpaintError
from overpaint.evaluation.fillers import BINS, SIDES, draw_cases
from overpaint.evaluation.sheets import GAP, draw_sheet, shrink
from overpaint.images import write_bytes
from overpaint.inpainters.base import Inpainter
from overpaint.inpainters.safepaint import SafePaint
from overpaint.inpainting.choice import AUTO, choose
from overpaint.inpainting.inpainter_runner import InpainterRunner

USUAL = ("patchmatch", "safepaint-s:stage-1", "safepaint-s", AUTO)
HOLE = (255, 0, 255)
SIDE = 512


def main(
    data: Annotated[Path, typer.Option("--data", help="Folder with photos/ and masks/.")],
    out: Annotated[Path, typer.Option(help="WebP file to write.")] = Path("contact-sheet.webp"),
    inpainter: Annotated[
        list[str] | None, typer.Option(help="Column: name or weights file; repeatable.")
    ] = None,
    num: Annotated[int, typer.Option(min=1, help="Photos.")] = 24,
    across: Annotated[int, typer.Option(min=1, help="Photos beside each other.")] = 2,
    shown: Annotated[int, typer.Option(min=16, help="Longest side on the sheet, pixels.")] = 144,
) -> None:
    """Fill, and write the sheet."""
    names = inpainter or USUAL
    cases = list(draw_holes(data, num))
    rows = [
        [shrink(picture, side=shown) for picture in row]
        for row in make_rows([(photo, hole) for photo, hole, _ in cases], names)
    ]
    labels = [f"hole {share} %" for *_, share in cases]
    height = -(-len(rows) // across)
    blocks = [
        draw_sheet(rows[i : i + height], ["photo", "hole", *names], labels[i : i + height])
        for i in range(0, len(rows), height)
    ]
    write_sheet(out, blocks)
    typer.echo(f"{out}: {len(rows)} photos, {', '.join(names)}")


def draw_holes(data: Path, num: int) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    """Photo (h, w, 3), hole (h, w) with 1 = hole, and its share of the photo in percent."""
    part = SIDES[SIDE][0]
    photos = PhotoSource.from_paths([data / "photos"], part=part)
    for i, (photo, holes) in enumerate(draw_cases(photos, data, num, 0, SIDE)):
        share = list(BINS)[(i + i // len(BINS)) % len(BINS)]  # each share with both kinds of holes
        yield photo, holes[share], share


def make_rows(
    cases: Sequence[tuple[np.ndarray, np.ndarray]], names: Sequence[str]
) -> Iterator[list[np.ndarray]]:
    """The pictures of each row: photo, hole, fills."""
    runners = {name: load(name) for name in names if name != AUTO}
    for photo, mask in cases:
        hole = photo.copy()
        hole[mask == 1] = HOLE
        yield [photo, hole, *(fill(photo, mask, runners.get(name)) for name in names)]


def fill(photo: np.ndarray, mask: np.ndarray, runner: InpainterRunner | None) -> np.ndarray:
    """The photo filled in by a runner, or by the choice of "auto" for None."""
    runner = runner or choose(AUTO, None, float(mask.mean())).runner
    return runner.run(photo, mask)[0]


def load(name: str) -> InpainterRunner:
    """The runner of a name or weights file, or with ":stage-1" of a SafePaint's first stage."""
    path, colon, stage = name.rpartition(":")
    if not colon:
        return InpainterRunner(name)
    network = InpainterRunner(path).module
    if stage != "stage-1" or not isinstance(network, SafePaint):
        raise ConfigError(f"{name}: give NAME:stage-1 with weights of SafePaint")
    return InpainterRunner(FirstStage(network))


class FirstStage(Inpainter):
    """The first of SafePaint's two stages, as an inpainter."""

    stride = SafePaint.stride
    min_size = SafePaint.min_size

    def __init__(self, network: SafePaint) -> None:
        super().__init__()
        self.network = network

    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.network.run_stages(image, mask).coarse


def write_sheet(path: Path, blocks: Sequence[np.ndarray]) -> None:
    """Blocks beside each other, as WebP."""
    height = max(block.shape[0] for block in blocks)
    padded = [
        np.pad(b, ((0, height - b.shape[0]), (0, GAP), (0, 0)), constant_values=255) for b in blocks
    ]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(padded, axis=1)).save(buffer, "webp", quality=72)
    write_bytes(path, buffer.getvalue())


if __name__ == "__main__":
    try:
        typer.run(main)
    except OverpaintError as error:
        raise SystemExit(str(error)) from error
