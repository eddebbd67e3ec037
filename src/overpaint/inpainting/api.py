"""One photo and one mask in, one `Inpainted` out: the hole filled, the known pixels unchanged.

- The rules for masks are in `overpaint.inpainting.holes`, filling is in
  `overpaint.inpainting.inpainter_runner`.
- Grey, alpha and 16 bit of the photo are kept (`overpaint.images.samples`): the inpainter gets RGB
  of 8 bit, and only its fill is converted to the photo's channels and depth. A photo that is grey
  outside the hole is filled with grey, even if it is stored as RGB. Alpha is not changed, not even
  in the hole.
- Only `overpaint.provenance.marking` writes files, which marks them as edited. The arrays of a
  result have no mark: they are meant for research.
- Reasons why the result could not be written are checked before the filling.
"""

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from torch import nn

from overpaint.atomic import check_writable, is_same_file, is_taken
from overpaint.data.finding import find_reason
from overpaint.detection.result import format_percent
from overpaint.errors import ImageError, InputError
from overpaint.images import File, decode_image, is_file, read_file_bytes
from overpaint.images.from_arrays import Picture, as_photo
from overpaint.images.regions import find_regions
from overpaint.images.samples import Samples, decode_samples, from_photo
from overpaint.inpainting.choice import AUTO, Choice, choose
from overpaint.inpainting.holes import HoleMask, take_mask
from overpaint.inpainting.inpainter_runner import check_known
from overpaint.plain_files import read_plain_file
from overpaint.provenance.encoding import find_format, fit_samples, parse_colour
from overpaint.provenance.marking import (
    MANIFESTS,
    RECEIPT,
    Edited,
    Source,
    mark_edited,
    read_source,
    write_edited,
)

if TYPE_CHECKING:
    from PIL import Image

    from overpaint.provenance.checking import Signer


@dataclass(frozen=True, slots=True, eq=False)
class Inpainted:
    """A photo with its holes filled."""

    samples: np.ndarray = field(repr=False)
    """uint8 or uint16 (h, w, c), upright; c = 1: grey, 2: grey and alpha, 3: RGB, 4: RGB and alpha;
    as written, or as in the photo. Where `mask` is 0 they equal the photo's bit for bit."""
    pixels: np.ndarray = field(repr=False)
    """uint8 (h, w, 3), RGB, upright: `samples` without alpha; of 16 bits the upper 8."""
    mask: np.ndarray = field(repr=False)
    """uint8 (h, w): 1 = filled, including the ring by which the hole was grown; 0 = known."""
    radius: int
    """Pixels by which the hole was grown."""
    model: str
    """Name of the weights or of the method."""
    weights_sha256: str | None
    """None for a method without weights."""
    trained: bool
    """True for a trained network, False for a method without weights."""
    num_holes: int
    """Number of connected holes; holes that touch at a corner count as one."""
    num_windows: int
    """Number of windows, which were filled one after the other."""
    notes: tuple[str, ...]
    """Conversions while reading and writing, and rules applied to the mask."""
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
        """The result in one line: "2 holes, 3.1 % of the photo, filled in by telea"."""
        holes = f"{self.num_holes} hole{'' if self.num_holes == 1 else 's'}"
        return f"{holes}, {format_percent(self.fraction)} of the photo, filled in by {self.model}"


def inpaint(
    photo: Picture,
    mask: "File | np.ndarray | Image.Image",
    *,
    model: str | Path | nn.Module = AUTO,
    size: int | None = None,
    invert_mask: bool = False,
    dilate: int | None = None,
    flatten: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    signer: "Signer | None" = None,
    device: str = "cpu",
) -> Inpainted:
    """Fill the holes of one photo of any size; known pixels are returned bit for bit.

    photo: path, bytes, binary stream, uint8 array (h, w, 3) in RGB, or PIL image (taken as RGB of
    8 bit, with its alpha). mask: the same kinds, an array as (h, w), of the size of the upright
    photo, white or 1 = hole; the rules are in `overpaint.inpainting.holes`. model, size: see
    `choice.choose`; the last few models stay in memory. dilate: pixels, 0..64, by which the hole is
    grown, and in whose outer half fill and photo are mixed; None for 1/128 of the longer side, at
    most 16. flatten: CSS colour of the background that replaces transparency. out: file to write,
    its suffix one of `encoding.FORMATS`, marked as edited and with a receipt beside it; needs the
    path of a photo. Without it nothing is written, and the arrays of the result have no mark: that
    is meant for research. overwrite: replace an earlier result, which has a receipt; no other file
    is overwritten. signer: C2PA, see `overpaint.provenance.checking`. device: cpu or cuda.

    Raises `ImageError` (files; also if the format of `out` would make hidden pixels visible),
    `InputError` (arrays, arguments) and `WeightsError`.
    """
    colour = None if flatten is None else parse_colour(flatten)
    if out is None:
        samples = _read_samples(photo)
        samples = samples.flatten(colour) if colour else samples
        checked = take_mask(mask, samples.values.shape[:2], invert=invert_mask, dilate=dilate)
        return _run(choose(model, size, checked.share, device), samples, checked)
    if not isinstance(photo, str | Path):
        raise InputError("out needs the path of a photo, whose metadata the file keeps")
    out, kept = Path(out), [Path(p) for p in (photo, mask) if isinstance(p, str | Path)]
    _check_out(out, kept, overwrite)
    done, edited = inpaint_file(
        read_source(photo),
        mask,
        out,
        model=model,
        size=size,
        invert_mask=invert_mask,
        dilate=dilate,
        flatten=flatten,
        signer=signer,
        device=device,
    )
    write_edited(out, edited, keep=kept)
    return replace(done, path=out)


def inpaint_file(
    source: Source,
    mask: "File | np.ndarray | Image.Image",
    out: str | Path,
    *,
    model: str | Path | nn.Module = AUTO,
    size: int | None = None,
    invert_mask: bool = False,
    dilate: int | None = None,
    flatten: str | None = None,
    signer: "Signer | None" = None,
    device: str = "cpu",
) -> tuple[Inpainted, Edited]:
    """As `inpaint`, but the marked result stays in memory. out: its file name, which sets the
    format.

    Other arguments and errors as for `inpaint`.
    """
    samples, notes = fit_samples(source.samples, Path(out), flatten)
    checked = take_mask(mask, samples.values.shape[:2], invert=invert_mask, dilate=dilate)
    choice = choose(model, size, checked.share, device)
    done = _run(choice, samples, checked)
    edited = mark_edited(
        out,
        replace(samples, values=done.samples),
        source,
        hole=done.mask,
        mask_sha256=checked.sha256,
        model=done.model,
        weights_sha256=done.weights_sha256,
        trained=done.trained,
        parameters={
            "working_size": choice.runner.working_size,
            "invert_mask": invert_mask,
            "dilate": checked.radius,
            "flatten": flatten,
        },
        notes=notes,
        signer=signer,
    )
    said = (*choice.notes, *checked.notes, *edited.receipt["notes"])
    return replace(done, notes=said), edited


def _read_samples(photo: Picture) -> Samples:
    if not is_file(photo):
        taken = as_photo(photo)
        return from_photo(replace(taken, notes=taken.notes[1:]))  # the first is on its compression
    data, name = read_file_bytes(cast("File", photo))
    return decode_samples(data, decode_image(data, name))


def _run(choice: Choice, samples: Samples, mask: HoleMask) -> Inpainted:
    runner, hole, hidden = choice.runner, mask.pixels, samples.hidden
    seen = (hole == 0) if hidden is None else (hole == 0) & ~hidden
    if not seen.any():
        raise InputError("outside the hole the photo is transparent, so there is nothing to go by")
    started = time.perf_counter()
    fill, num_windows = runner.run(samples.pixels, hole, hidden)
    filled = samples.fill(fill, mask.weight, grey=samples.is_grey(seen))
    seconds = time.perf_counter() - started
    check_known(filled.values, samples.values, hole)
    return Inpainted(
        samples=filled.values,
        pixels=filled.pixels,
        mask=hole,
        radius=mask.radius,
        model=runner.name,
        weights_sha256=runner.weights_sha256,
        trained=runner.trained,
        num_holes=find_regions(hole == 1, hole, min_area=1, max_regions=0)[1],
        num_windows=num_windows,
        notes=(*choice.notes, *samples.notes, *mask.notes),
        seconds=seconds,
        path=None,
    )


def _check_out(out: Path, kept: list[Path], overwrite: bool) -> None:
    """Raise `ImageError` before the work if `out` cannot be written after it."""
    find_format(out)
    beside = [out.with_name(out.name + suffix) for suffix in (RECEIPT, MANIFESTS)]
    try:
        has_folder = out.parent.is_dir()
        there = [path for path in (out, *beside) if is_taken(path)]
    except (OSError, ValueError) as error:  # of a name that is too long, also with ".receipt.json"
        reason = f"no name for a file and its receipt ({find_reason(error)})"
        raise ImageError(f"{out}: {reason}; choose a shorter one") from error
    if not has_folder:
        raise ImageError(f"{out}: its folder does not exist; make it first")
    for path in there:
        if any(is_same_file(path, other) for other in kept):
            raise ImageError(f"{path}: this is an input and is never written over; name another")
    if there and not overwrite:
        remedy = "name another, or replace an earlier result with --overwrite (overwrite=True)"
        raise ImageError(f"{there[0]}: there is such a file; {remedy}")
    receipt, manifests = beside
    if there and not receipt.is_file():
        remedy = "name another, or remove this one yourself"
        raise ImageError(f"{there[0]}: has no receipt, so it is no earlier result; {remedy}")
    if manifests in there and not _names(receipt, manifests):
        remedy = "move it away, or name another result"
        raise ImageError(f"{manifests}: the receipt of {out.name} does not name it; {remedy}")
    check_writable(out, ImageError)


def _names(receipt: Path, manifests: Path) -> bool:
    """Whether a receipt says that the file with the source's manifests was written with it."""
    try:
        return json.loads(read_plain_file(receipt))["source_c2pa"]["file"] == manifests.name
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
