"""`overpaint inpaint`: fill what a mask marks, in one photo or in a folder of them.

- Everything that is written is marked as edited, in the file and in a receipt beside it. There is
  no switch that leaves the mark out.
- A folder's results are named as those of `overpaint detect`: by the photo, and with 8 digits of
  its path's hash where two names would collide, or what is there is another photo's or not ours.
- Results in the folder of photos are no photos: they are known by their mark.
- No file is replaced without --overwrite, and with it only what has a receipt of an earlier run.

Exit codes: 0 every photo was filled; 1 some could not be; 2 the command was used wrongly, or the
model could not be loaded.
"""
# ruff: noqa: PTH112 (pathlib raises for names that are too long)

import json
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint import hashes
from overpaint.devices import DEVICE_HELP
from overpaint.plain_files import read_plain_file
from overpaint.terminal import say, say_json

if TYPE_CHECKING:
    from overpaint.errors import ImageError
    from overpaint.inpainting.api import Inpainted

Record = dict[str, Any]

MASK_NAMES = ("{}", "{}_mask", "{}.mask")
"""What the mask of a photo NAME is called, without its suffix; the first that is there counts."""

RECEIPT = ".receipt.json"
"""That of `overpaint.provenance.marking`, which takes long to import."""

MAX_OUT_BYTES = 255 - len(RECEIPT)


Photo = Annotated[Path, typer.Argument(metavar="PHOTO", help="A photo, or a folder of them.")]
Out = Annotated[
    Path,
    typer.Option(
        "--out", "-o", help="File: .png, .tif, .webp, .jpg or .avif; for a folder, a folder."
    ),
]
Mask = Annotated[
    Path | None,
    typer.Argument(metavar="MASK", help="Mask: white is removed. For a folder, one mask for all."),
]
Masks = Annotated[
    Path | None,
    typer.Option("--masks", help="Folder of masks: NAME.png, NAME_mask.png or NAME.mask.png."),
]
Model = Annotated[
    str,
    typer.Option("--model", help="Shipped name, weights file, method without weights, or auto."),
]
Size = Annotated[
    int | None,
    typer.Option("--size", min=64, max=2048, help="Working size, pixels. Default: model's."),
]
InvertMask = Annotated[
    bool, typer.Option("--invert-mask", help="Black is removed instead of white.")
]
Dilate = Annotated[
    int | None,
    typer.Option(
        "--dilate",
        min=0,
        max=64,
        help="Pixels by which holes grow. Default: 1 for each 128 of the longer side, at most 16.",
    ),
]
Flatten = Annotated[
    str | None,
    typer.Option("--flatten", help="Colour on which transparent parts are laid: white, #rrggbb."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Results of an earlier run are replaced.")
]
Device = Annotated[str, typer.Option("--device", help=DEVICE_HELP)]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of words.")]
C2paCert = Annotated[
    Path | None, typer.Option("--c2pa-cert", help="Certificate chain, to sign with C2PA.")
]
C2paKey = Annotated[Path | None, typer.Option("--c2pa-key", help="Private key of the certificate.")]


def inpaint(
    photo: Photo,
    out: Out,
    mask: Mask = None,
    masks: Masks = None,
    model: Model = "auto",
    size: Size = None,
    invert_mask: InvertMask = False,
    dilate: Dilate = None,
    flatten: Flatten = None,
    overwrite: Overwrite = False,
    device: Device = "cpu",
    as_json: AsJson = False,
    c2pa_cert: C2paCert = None,
    c2pa_key: C2paKey = None,
) -> None:
    """Remove what a mask covers from a photo of any size, and fill the hole.

    White in the mask is the hole. It grows by --dilate pixels, and in the outer half of them the
    fill fades out. All other pixels keep their values, and the file its EXIF data and colour
    profile. It is marked as edited, and OUT.receipt.json says by what. A .png or .tif keeps known
    pixels exact, with alpha and 16 bit; a .webp with alpha, of 8 bit; a .jpg gets the photo's own
    compression.

    A folder is searched to the bottom; its results are PNG files in the folder OUT. With --masks,
    the mask of REL/NAME.jpg is MASKS/REL/NAME.png, NAME_mask.png or NAME.mask.png.

    Exit code 0: all filled. 1: some failed, the rest is done. 2: wrong use.
    """
    from overpaint.errors import OverpaintError
    from overpaint.inpainting.choice import choose
    from overpaint.provenance.checking import make_signer
    from overpaint.provenance.encoding import parse_colour

    _check_use(photo, mask, masks, out)
    try:
        how = {"model": model, "size": size, "invert_mask": invert_mask, "overwrite": overwrite}
        how |= {"dilate": dilate, "flatten": flatten, "device": device}
        if flatten is not None:
            parse_colour(flatten)
        how["signer"] = make_signer(c2pa_cert, c2pa_key)
        choose(model, size, share=0, device=device)
        jobs, problems = _list_jobs(photo, mask, masks, out)
        its_masks = masks and _Masks(photo, masks)
    except OverpaintError as error:
        say(f"overpaint inpaint: {error}", err=True)
        raise typer.Exit(2) from error
    problems += its_masks.problems if its_masks else []
    failed = [{"file": path, "error": str(error), "model": model} for path, error in problems]
    records = chain(failed, _run(jobs, mask, its_masks, how))
    _report(records, len(failed) + len(jobs), as_json=as_json, batch=os.path.isdir(photo))


def _report(records: Iterator[Record], num_jobs: int, *, as_json: bool, batch: bool) -> None:
    """Print each record as it comes; ends with exit code 1 when one of them failed."""
    num_failed = 0
    for record in records:
        num_failed += "error" in record
        if as_json:
            say_json(record)
        else:
            _print(record)
    if num_failed:
        if batch:
            say(f"{num_failed} of {num_jobs} could not be filled", err=True)
        raise typer.Exit(1)


def _check_use(photo: Path, mask: Path | None, masks: Path | None, out: Path) -> None:
    if (mask is None) == (masks is None):
        raise typer.BadParameter("give a mask, or --masks with a folder of them", param_hint="MASK")
    if mask is not None and os.path.isdir(mask):
        raise typer.BadParameter("this is a folder; give it as --masks", param_hint="MASK")
    if masks is not None and not os.path.isdir(masks):
        raise typer.BadParameter(f"{masks}: there is no such folder", param_hint="--masks")
    batch = os.path.isdir(photo)
    if batch and os.path.lexists(out) and not os.path.isdir(out):
        raise typer.BadParameter(f"{out}: give a folder for those of a folder", param_hint="--out")
    if not batch and os.path.isdir(out):
        raise typer.BadParameter(f"{out} is a folder; name a file in it", param_hint="--out")
    if not batch and len(os.fsencode(out.name)) > MAX_OUT_BYTES:
        wanted = f"give a name of at most {MAX_OUT_BYTES} bytes, as the receipt's name is longer"
        raise typer.BadParameter(f"{out}: {wanted}", param_hint="--out")
    folders = [os.path.realpath(folder) for folder in (photo, masks, out) if folder]
    if batch and len(set(folders)) < len(folders):
        raise typer.BadParameter("keep photos, masks and results in folders of their own")


Problems = list[tuple[str, "ImageError"]]


def _list_jobs(
    photo: Path, mask: Path | None, masks: Path | None, out: Path
) -> tuple[list[tuple[Path, Path]], Problems]:
    """Photo and file to write, and what could not be searched.

    Masks and earlier results in the folder of photos are no photos.
    """
    from overpaint.atomic import make_folder
    from overpaint.data.finding import find_photos
    from overpaint.detection.report import choose_names
    from overpaint.errors import ImageError
    from overpaint.provenance.checking import is_edited

    if not os.path.isdir(photo):
        return [(photo, out)], []
    top = Path(os.path.realpath(photo))
    others = [Path(os.path.realpath(p)) for p in (mask, masks, out) if p]
    others = [p for p in others if p.is_relative_to(top)]
    search = find_photos([photo])
    found = [
        p
        for p in search.photos
        if not any(Path(os.path.realpath(p)).is_relative_to(other) for other in others)
    ]
    edited = [p for p in found if is_edited(p)]
    photos = [p for p in found if p not in set(edited)]
    search.findings += map(str, edited)
    if search.words:
        say(search.words, err=True)
    if not photos:
        if search.problems:
            raise search.problems[0][1]
        raise ImageError(f"{photo}: holds no photo but masks and results of overpaint")
    make_folder(out, ImageError, "choose another OUT")
    jobs = [
        (p, _choose_place(out, name, p))
        for p, name in zip(photos, choose_names(photos), strict=True)
    ]
    return jobs, search.problems


def _choose_place(folder: Path, name: str, photo: Path) -> Path:
    """Where the result of a photo goes: under its own name where what is there is not another's."""
    from overpaint.detection.report import make_unique_name

    plain = folder / f"{name}.png"
    taken = os.path.lexists(plain) or os.path.lexists(f"{plain}{RECEIPT}")
    return (
        folder / f"{make_unique_name(photo)}.png" if taken and not _is_of(plain, photo) else plain
    )


def _is_of(result: Path, photo: Path) -> bool:
    """Whether the receipt beside a result is of this very photo."""
    try:
        receipt = json.loads(read_plain_file(f"{result}{RECEIPT}"))
        return receipt["input"]["sha256"] == hashes.file_sha256(photo)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False


class _Masks:
    """The masks of a folder, by the names of photos."""

    def __init__(self, photo: Path, masks: Path) -> None:
        """photo: the photo, or the folder of photos that `masks` is laid out like."""
        from overpaint.data.finding import find_photos

        self._masks, self._top = masks, photo if os.path.isdir(photo) else photo.parent
        self._found: dict[Path, list[Path]] = {}
        # What `detect` finds may be filled, and several photos may share a mask by links to it.
        search = find_photos([masks], results=True, every_name=True)
        if search.words:
            say(f"{masks}: {search.words}", err=True)
        self.problems = search.problems
        if self.problems and not search.photos:
            raise self.problems[0][1]
        for path in search.photos:
            self._found.setdefault(path.relative_to(masks).with_suffix(""), []).append(path)

    def find(self, photo: Path) -> Path:
        """The mask of one photo; `ImageError` when there is none, or more than one of a name."""
        from overpaint.errors import ImageError

        place = photo.relative_to(self._top)
        for name in MASK_NAMES:
            found = self._found.get(place.with_name(name.format(photo.stem)), [])
            if len(found) > 1:
                raise ImageError(f"{photo}: has more than one mask: {', '.join(map(str, found))}")
            if found:
                return found[0]
        wanted = self._masks / place.with_suffix(".png")
        raise ImageError(f"{photo}: has no mask; save it as {wanted}, or as NAME_mask.png there")


def _run(
    jobs: list[tuple[Path, Path]], mask: Path | None, masks: _Masks | None, how: dict[str, Any]
) -> Iterator[Record]:
    """Fill one photo after the other; one that fails gives a record with `error`."""
    from overpaint.errors import OverpaintError
    from overpaint.inpainting.api import inpaint

    for photo, out in jobs:
        its_mask = mask
        try:
            its_mask = masks.find(photo) if masks else mask
            assert its_mask is not None  # settled by `_check_use`
            record = _make_record(inpaint(photo, its_mask, out=out, **how))
        # RuntimeError: what torch raises when memory runs out.
        except (OverpaintError, OSError, MemoryError, RuntimeError) as error:
            record = {"error": str(error) or type(error).__name__, "model": how["model"]}
        yield {"file": str(photo), "mask": str(its_mask) if its_mask else None, **record}


def _make_record(done: "Inpainted") -> Record:
    from overpaint import __version__

    height, width = done.mask.shape
    return {
        "out": str(done.path),
        "receipt": str(done.receipt),
        "words": done.words,
        "width": width,
        "height": height,
        "num_holes": done.num_holes,
        "num_windows": done.num_windows,
        "dilate": done.radius,
        "fraction": done.fraction,
        "notes": list(done.notes),
        "model": done.model,
        "weights_sha256": done.weights_sha256,
        "version": __version__,
        "seconds": round(done.seconds, 3),
    }


def _print(record: Record) -> None:
    if "error" in record:
        say(f"overpaint inpaint: {record['error']}", err=True)
        return
    lines = [f"{record['file']}: {record['words']}"]
    lines += [f"  note: {note}" for note in record["notes"]]
    lines += [f"  {record['out']}: marked as edited; receipt: {record['receipt']}"]
    say(*lines)
