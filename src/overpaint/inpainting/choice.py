"""`--model auto`: the best measured inpainter for the size of a photo's hole.

- The order is measured: results/fillers.csv has the mean distance by the distilled VGG on holes of
  1, 5, 15 and 30 % of a photo of 512 or 1024 px (benchmarks/measure_fillers.py). PatchMatch is
  nearest to the photo at each of these sizes. A test compares this file with the table.
- Big LaMa comes first once its authors' weights are imported
  (`overpaint weights import big-lama FILE`). It is not in that table, because the weights were not
  available there; its place is based on its authors' published comparisons.
- OpenCV's shift maps (He and Sun 2012; `cv2.xphoto`, in opencv-contrib only) were a candidate. On
  seven holes of an earlier set they took 7.5 s of one core each, PatchMatch 0.7 s, and were nearer
  to the photo in two. Edges of the copied parts stay visible, and in one hole of 30 % a part was
  left unfilled. They are not used.
- An inpainter whose optional package is missing is skipped, and a note says so.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from overpaint.errors import OverpaintError
from overpaint.inpainting.inpainter_runner import InpainterRunner, make_runner
from overpaint.weights import has_weights

AUTO = "auto"
BIG_LAMA = "big-lama"
LIMITS = (0.03, 0.10, 0.22)
"""Shares of the photo, 0..1, between the bins of results/fillers.csv."""
BEST: tuple[tuple[str, ...], ...] = (
    ("patchmatch", "safepaint-s"),
    ("patchmatch", "safepaint-s"),
    ("patchmatch", "safepaint-s"),
    ("patchmatch", "safepaint-s"),
)
"""For holes up to each limit, then larger ones: best inpainter first; the last needs no package."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A loaded inpainter, and notes on why it was chosen."""

    runner: InpainterRunner
    notes: tuple[str, ...] = ()


def choose(
    model: str | Path | nn.Module, size: int | None, share: float, device: str = "cpu"
) -> Choice:
    """The runner of `model`, or for "auto" of the best inpainter for holes of that share, 0..1.

    model, size, device: as for `InpainterRunner`. share: of the photo's pixels in the hole, 0..1.
    Errors as for `make_runner`.
    """
    if model != AUTO:
        return Choice(make_runner(model, size, device))
    if has_weights(BIG_LAMA):
        note = f"auto took {BIG_LAMA}, whose weights are imported"
        return Choice(make_runner(BIG_LAMA, size, device), (note,))
    *better, last = BEST[sum(share > limit for limit in LIMITS)]
    passed: list[str] = []
    for name in better:
        try:
            runner = make_runner(name, size, device)
        except OverpaintError as error:
            passed.append(f"auto passed over {name}: {error}")
        else:
            return Choice(runner, (*passed, _describe(name, share)))
    return Choice(make_runner(last, size, device), (*passed, _describe(last, share)))


def _describe(name: str, share: float) -> str:
    return f"auto took {name} for a hole of {100 * share:.1f} % of the photo"
