"""`--model auto`: the inpainter that did best on holes of a photo's size.

- The order is measured: results/fillers.csv has the mean distance by the distilled VGG on holes of
  1, 5, 15 and 30 % of a photo (benchmarks/measure_fillers.py), and a test holds this file to it.
- Within 2 % of the nearest, the look of the fills decided. At 5 % `safepaint-s` is nearer by 0.001
  of 0.123, on eight photos; its larger fills are smears where PatchMatch goes on with the ground.
- Big LaMa comes first once its authors' weights are imported
  (`overpaint weights import big-lama FILE`). It is not in that table, whose machine had no copy of
  the weights: this rests on the published comparisons of its authors.
- OpenCV's shift maps (He and Sun 2012; `cv2.xphoto`, in opencv-contrib only) were a candidate. On
  the first seven of those holes they took 7.5 s of one core each, PatchMatch 0.7, and were nearer
  to the photo in two; edges of the copied parts stay visible, and in one hole of 30 % a part was
  left unfilled. They are not used.
- What cannot be built here, for want of an optional package, is passed over, and a note says so.
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
"""Shares of the photo that part the bins of results/fillers.csv."""
BEST: tuple[tuple[str, ...], ...] = (
    ("patchmatch", "safepaint-s"),
    ("patchmatch", "safepaint-s"),
    ("patchmatch", "safepaint-s"),
    ("patchmatch", "safepaint-s"),
)
"""For holes of up to each limit, and larger ones: the best first; the last needs no package."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An inpainter that is ready, and how it came to be taken."""

    runner: InpainterRunner
    notes: tuple[str, ...] = ()


def choose(
    model: str | Path | nn.Module, size: int | None, share: float, device: str = "cpu"
) -> Choice:
    """The runner of `model`, or for "auto" of the best inpainter for holes of that share, 0..1.

    model, size, device: as for `InpainterRunner`. share: of the photo's pixels in the hole. Raises
    what `make_runner` does.
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
