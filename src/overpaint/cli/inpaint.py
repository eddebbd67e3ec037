"""`overpaint inpaint`: fill what a mask marks, in one photo or in a folder of them.

- Everything that is written is marked as edited, in the file and in a receipt beside it. There is
  no switch that leaves the mark out.
- A folder's results are named as those of `overpaint detect`: by the photo, and where two names
  would collide, with 8 digits of its path's hash.
- No file is replaced without --overwrite, and with it only what has a receipt of an earlier run.

Exit codes: 0 every photo was filled; 1 some could not be; 2 the command was used wrongly, or the
model could not be loaded.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from overpaint.inference.inpaint import Inpainted

Record = dict[str, Any]

MASK_NAMES = ("{}", "{}_mask", "{}.mask")
"""What the mask of a photo NAME is called, without its suffix; the first that is there counts."""


Photo = Annotated[Path, typer.Argument(metavar="PHOTO", help="A photo, or a folder of them.")]
Out = Annotated[
    Path,
    typer.Option("--out", "-o", help="File to write, .png or .jpg; for a folder, a folder."),
]
Mask = Annotated[
    Path | None,
    typer.Argument(metavar="MASK", help="White is removed. One mask serves a whole folder."),
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
InvertMask = Annotated[bool, typer.Option("--invert-mask", help="Remove what is black instead.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results of an earlier run.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object a line instead of words.")
]
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
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    c2pa_cert: C2paCert = None,
    c2pa_key: C2paKey = None,
) -> None:
    """Remove what a mask covers from a photo of any size, and fill the hole.

    White in the mask is the hole. All other pixels keep their values, and the file its EXIF data
    and colour profile. It is marked as edited, and OUT.receipt.json says by what. A .jpg gets the
    photo's own compression; only a .png keeps the known pixels exact.

    A folder is searched to the bottom; its results are PNG files in the folder OUT. With --masks,
    the mask of REL/NAME.jpg is MASKS/REL/NAME.png, NAME_mask.png or NAME.mask.png.

    Exit code 0: all filled. 1: some failed, the rest is done. 2: wrong use.
    """
    from overpaint.errors import OverpaintError
    from overpaint.inference.choice import choose
    from overpaint.inference.provenance import signer_from

    _check_use(photo, mask, masks, out)
    try:
        how = {"model": model, "size": size, "invert_mask": invert_mask, "overwrite": overwrite}
        how["signer"] = signer_from(c2pa_cert, c2pa_key)
        choose(model, size, share=0)
        jobs = _jobs(photo, mask, masks, out)
    except OverpaintError as error:
        typer.echo(f"overpaint inpaint: {error}", err=True)
        raise typer.Exit(2) from error
    records = _run(jobs, mask, masks and _Masks(photo, masks), how)
    _report(records, len(jobs), as_json=as_json, batch=photo.is_dir())


def _report(records: Iterator[Record], num_jobs: int, *, as_json: bool, batch: bool) -> None:
    """Print each record as it comes; ends with exit code 1 when one of them failed."""
    num_failed = 0
    for record in records:
        num_failed += "error" in record
        if as_json:
            typer.echo(json.dumps(record, allow_nan=False))
        else:
            _print(record)
    if num_failed:
        if batch:
            typer.echo(f"{num_failed} of {num_jobs} could not be filled", err=True)
        raise typer.Exit(1)


def _check_use(photo: Path, mask: Path | None, masks: Path | None, out: Path) -> None:
    if (mask is None) == (masks is None):
        raise typer.BadParameter("give a mask, or --masks with a folder of them", param_hint="MASK")
    if mask is not None and mask.is_dir():
        raise typer.BadParameter("this is a folder; give it as --masks", param_hint="MASK")
    if masks is not None and not masks.is_dir():
        raise typer.BadParameter(f"{masks}: there is no such folder", param_hint="--masks")
    if photo.is_dir() and out.exists() and not out.is_dir():
        raise typer.BadParameter(f"{out}: give a folder for those of a folder", param_hint="--out")
    if not photo.is_dir() and out.is_dir():
        raise typer.BadParameter(f"{out} is a folder; name a file in it", param_hint="--out")
    folders = [folder.resolve() for folder in (photo, masks, out) if folder]
    if photo.is_dir() and len(set(folders)) < len(folders):
        raise typer.BadParameter("keep photos, masks and results in folders of their own")


def _jobs(photo: Path, mask: Path | None, masks: Path | None, out: Path) -> list[tuple[Path, Path]]:
    """Photo and file to write. Masks and earlier results in the folder of photos are no photos."""
    from overpaint.data.sources import find_images
    from overpaint.errors import ImageError
    from overpaint.inference.report import names

    if not photo.is_dir():
        return [(photo, out)]
    top = photo.resolve()
    others = [p.resolve() for p in (mask, masks, out) if p and p.resolve().is_relative_to(top)]
    found = find_images([photo])
    photos = [p for p in found if not any(p.resolve().is_relative_to(o) for o in others)]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"{out}: cannot be made ({error.strerror}); choose another") from error
    return [(p, out / f"{name}.png") for p, name in zip(photos, names(photos), strict=True)]


class _Masks:
    """The masks of a folder, by the names of photos."""

    def __init__(self, photo: Path, masks: Path) -> None:
        """photo: the photo, or the folder of photos that `masks` is laid out like."""
        from overpaint.data.sources import find_images

        self._masks, self._top = masks, photo if photo.is_dir() else photo.parent
        self._found: dict[Path, list[Path]] = {}
        for path in find_images([masks]):
            self._found.setdefault(path.relative_to(masks).with_suffix(""), []).append(path)

    def of(self, photo: Path) -> Path:
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
    from overpaint.inference.inpaint import inpaint

    for photo, out in jobs:
        its_mask = mask
        try:
            its_mask = masks.of(photo) if masks else mask
            assert its_mask is not None  # settled by `_check_use`
            record = _record(inpaint(photo, its_mask, out=out, **how))
        # RuntimeError: what torch raises when memory runs out.
        except (OverpaintError, OSError, MemoryError, RuntimeError) as error:
            record = {"error": str(error) or type(error).__name__, "model": how["model"]}
        yield {"file": str(photo), "mask": str(its_mask) if its_mask else None, **record}


def _record(done: "Inpainted") -> Record:
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
        "fraction": done.fraction,
        "notes": list(done.notes),
        "model": done.model,
        "weights_sha256": done.weights_sha256,
        "version": __version__,
        "seconds": round(done.seconds, 3),
    }


def _print(record: Record) -> None:
    if "error" in record:
        typer.echo(f"overpaint inpaint: {_printable(record['error'])}", err=True)
        return
    lines = [f"{record['file']}: {record['words']}"]
    lines += [f"  note: {note}" for note in record["notes"]]
    lines += [f"  {record['out']}: marked as edited; receipt: {record['receipt']}"]
    typer.echo(_printable("\n".join(lines)))


def _printable(text: str) -> str:
    """File names need not be valid Unicode; stdout must be."""
    return text.encode("utf-8", "replace").decode("utf-8")
