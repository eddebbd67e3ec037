"""One photo and one mask in, one `Inpainted` out: the hole filled, and the known pixels untouched.

- What counts as hole is settled in `overpaint.inference.holes`, how it is filled in
  `overpaint.inference.fill`.
- A file is written by `overpaint.inference.marking` alone, which marks it as edited. Bare arrays
  carry no mark: they are meant for research.
- Whatever would stop the writing is looked for before the filling.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from overpaint.errors import ImageError, InputError
from overpaint.images import Photo
from overpaint.inference.choice import AUTO, Choice, choose
from overpaint.inference.detect import as_photo
from overpaint.inference.detection import percent
from overpaint.inference.holes import Mask, take_mask
from overpaint.inference.marking import MANIFESTS, RECEIPT, read_source, write_edited
from overpaint.inference.regions import find_regions

if TYPE_CHECKING:
    from PIL import Image

    from overpaint.inference.provenance import Signer

OUT_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True, eq=False)
class Inpainted:
    """A photo with its holes filled."""

    pixels: np.ndarray
    """uint8 (h, w, 3), RGB, upright. Where `mask` is 0 it equals the photo bit for bit."""
    mask: np.ndarray
    """uint8 (h, w): 1 = filled."""
    model: str
    """Name of the weights or of the method."""
    weights_sha256: str | None
    """None for a method without weights."""
    num_holes: int
    """Connected holes; those that touch by a corner count as one."""
    num_windows: int
    """Pieces that were filled one after the other."""
    notes: tuple[str, ...]
    """What was converted while reading and writing, and which rule was applied to the mask."""
    seconds: float
    """Time for filling, without reading and writing files."""
    path: Path | None
    """The written file, marked as edited; None where nothing was written."""

    @property
    def receipt(self) -> Path | None:
        """The receipt beside the written file."""
        return None if self.path is None else self.path.with_name(self.path.name + RECEIPT)

    @property
    def fraction(self) -> float:
        """Share of the photo that was filled, 0..1."""
        return np.count_nonzero(self.mask) / self.mask.size

    @property
    def words(self) -> str:
        """What was done, in one line: "2 holes, 3.1 % of the photo, filled in by telea"."""
        holes = f"{self.num_holes} hole{'' if self.num_holes == 1 else 's'}"
        return f"{holes}, {percent(self.fraction)} of the photo, filled in by {self.model}"


def inpaint(
    photo: "str | Path | np.ndarray | Image.Image",
    mask: str | Path | np.ndarray,
    *,
    model: str | Path | nn.Module = AUTO,
    size: int | None = None,
    invert_mask: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
    signer: "Signer | None" = None,
) -> Inpainted:
    """Fill the holes of one photo of any size; known pixels come back bit for bit.

    photo: path, uint8 array (h, w, 3) in RGB, or PIL image. mask: path or array (h, w) of the size
    of the upright photo, white or 1 = hole; `overpaint.inference.holes` has the rules. model, size:
    see `choice.choose`; the last few models stay in memory. out: a file to write, .png or
    .jpg, marked as edited and with a receipt beside it; needs the path of a photo. Without it
    nothing is written, and the arrays of the result are not marked: that is meant for research.
    overwrite: replace an earlier result, known by its receipt; no other file is written over.
    signer: C2PA, see `overpaint.inference.provenance`.

    Raises `ImageError` (files), `InputError` (arrays, arguments) and `WeightsError`.
    """
    if out is None:
        taken = as_photo(photo)
        checked = take_mask(mask, taken.pixels.shape[:2], invert=invert_mask)
        return _run(choose(model, size, checked.share), taken, checked)
    if not isinstance(photo, str | Path):
        raise InputError("out needs the path of a photo, whose metadata the file keeps")
    out, kept = Path(out), [Path(p) for p in (photo, mask) if not isinstance(p, np.ndarray)]
    _check_out(out, kept, overwrite)
    source = read_source(photo)
    checked = take_mask(mask, source.photo.pixels.shape[:2], invert=invert_mask)
    choice = choose(model, size, checked.share)
    done = _run(choice, source.photo, checked, out)
    receipt = write_edited(
        out,
        done.pixels,
        source,
        mask_sha256=checked.sha256,
        model=done.model,
        weights_sha256=done.weights_sha256,
        parameters={"working_size": choice.runner.working_size, "invert_mask": invert_mask},
        signer=signer,
        keep=kept,
    )
    return replace(done, notes=(*choice.notes, *checked.notes, *receipt["notes"]))


def _run(choice: Choice, photo: Photo, mask: Mask, out: Path | None = None) -> Inpainted:
    runner, started = choice.runner, time.perf_counter()
    pixels, num_windows = runner.run(photo.pixels, mask.pixels)
    seconds = time.perf_counter() - started
    # Notes on arrays are about their JPEG quality, which does not matter here.
    notes = photo.notes if photo.sha256 else ()
    return Inpainted(
        pixels=pixels,
        mask=mask.pixels,
        model=runner.name,
        weights_sha256=runner.weights_sha256,
        num_holes=find_regions(mask.pixels == 1, mask.pixels, min_area=1, max_regions=0)[1],
        num_windows=num_windows,
        notes=(*choice.notes, *notes, *mask.notes),
        seconds=seconds,
        path=out,
    )


def _check_out(out: Path, kept: list[Path], overwrite: bool) -> None:
    """Fail before the work is done and not after it."""
    if out.suffix.lower() not in OUT_SUFFIXES:
        raise ImageError(f"{out}: a result is a {' or '.join(OUT_SUFFIXES)} file; name it so")
    if not out.parent.is_dir():
        raise ImageError(f"{out}: its folder does not exist; make it first")
    beside = [out.with_name(out.name + suffix) for suffix in (RECEIPT, MANIFESTS)]
    there = [path for path in (out, *beside) if path.exists()]
    for path in there:
        if any(other.exists() and path.samefile(other) for other in kept):
            raise ImageError(f"{path}: this is an input and is never written over; name another")
    if there and not overwrite:
        remedy = "name another, or replace an earlier result with --overwrite (overwrite=True)"
        raise ImageError(f"{there[0]}: there is such a file; {remedy}")
    if there == [out]:
        remedy = "name another, or remove this one yourself"
        raise ImageError(f"{out}: has no receipt, so it is no earlier result; {remedy}")
