"""`overpaint demo`: replace a region of a bundled photo in two ways, and look for it.

The emblem and the name tag are removed by `overpaint inpaint`, and redrawn by an autoencoder that
was held out from the detector's training. What is printed is what was measured on this one photo,
good or bad.

Every picture that is written carries a mark; a file of the same name without it is never replaced.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from overpaint.defaults import DEFAULT_DETECTOR
from overpaint.terminal import say

if TYPE_CHECKING:
    import numpy as np

    from overpaint.detection.report import Record

MARK = "overpaint demo"
"""Keyword of the PNG text chunk in what only the demo writes. These are photos, and no findings."""

PHOTO = Path(__file__).parents[1] / "demo" / "astronaut.png"

# x0, y0, x1, y1 in pixels. Of eight regions tried with earlier weights, these two objects came out
# best, which the output says; their outlines are only as large as the objects need.
_EMBLEM, _NAME_TAG = (122, 336, 222, 434), (269, 330, 336, 388)


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for all that is written.")] = Path(
        "demo-output"
    ),
    model: Annotated[
        str, typer.Option("--model", help="Detector: name or weights.")
    ] = DEFAULT_DETECTOR,
    inpainter: Annotated[
        str,
        typer.Option("--inpainter", help="Inpainter that fills the region: as inpaint's --model."),
    ] = "auto",
    autoencoder: Annotated[
        str,
        typer.Option("--autoencoder", help="Autoencoder that redraws the region: name or weights."),
    ] = "ae-heldout",
) -> None:
    """Removal of an emblem from a bundled photo, and search for its trace."""
    from overpaint.detection.report import CAVEAT, Writer, detect_files
    from overpaint.detection.runner import DetectorRunner
    from overpaint.images import read_mask

    writer = Writer(out, [PHOTO])
    files, mask = _make(out, inpainter, autoencoder)
    records = list(detect_files(list(files), DetectorRunner(model), writer))
    _stop_at_error(*records)
    share = f"{100 * mask.mean():.1f} %"
    say(f"{PHOTO.name} (NASA, public domain), {share} of it replaced: {out / 'truth.png'}", "")
    for (file, made), record in zip(files.items(), records, strict=True):
        say(f"{made}: {file}")
        say(f"  {record['words']} (score {record['score']:.2f})")
        say(*(f"  note: {note}" for note in record["notes"]))
        if file.name != "untouched.png":
            say(f"  {_describe_agreement(read_mask(record['mask']), mask)}")
        say(f"  heatmap: {record['heatmap']}; overlay: {record['overlay']}", "")
    lines = (
        f"At {records[0]['threshold_words']}.",
        "Of eight regions tried with earlier weights, emblem and name tag were found best, and one",
        "before a smooth wall was missed. The README says how often the detector is right.",
        CAVEAT,
    )
    say(*lines)


def make_region(height: int, width: int) -> "np.ndarray":
    """The region that is replaced: uint8 (h, w), 1 = replaced."""
    import numpy as np
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (width, height))
    draw = ImageDraw.Draw(canvas)
    draw.ellipse(_EMBLEM, fill=1)
    draw.rectangle(_NAME_TAG, fill=1)
    return np.array(canvas)


def _make(out: Path, inpainter: str, autoencoder: str) -> tuple[dict[Path, str], "np.ndarray"]:
    """Write truth.png and three photos; returns these, how each was made, and the mask."""
    from overpaint.data.autoencoder import reconstruct
    from overpaint.data.universal import blend
    from overpaint.images import read_image
    from overpaint.inpainting.api import inpaint
    from overpaint.weights import build, load_weights

    photo = read_image(PHOTO).pixels
    mask = make_region(*photo.shape[:2])
    truth = out / "truth.png"
    filled, redrawn, untouched = (out / f"{n}.png" for n in ("filled", "redrawn", "untouched"))
    _check_free(truth, redrawn, untouched)
    _write(truth, mask * 255)
    # Not grown, so that truth.png is what was filled.
    removed = inpaint(PHOTO, truth, out=filled, model=inpainter, dilate=0, overwrite=True)
    module = build(*load_weights(autoencoder, kind="autoencoder"))
    _write(redrawn, blend(photo, reconstruct(module, photo), mask))
    _write(untouched, photo)
    made = {
        filled: f"Removed by overpaint inpaint --model {inpainter} ({removed.model})",
        redrawn: f"Redrawn by the autoencoder {autoencoder}",
        untouched: "Untouched",
    }
    return made, mask


def _check_free(*paths: Path) -> None:
    """Raise `ImageError` where one of them is there and is not of an earlier demo."""
    from overpaint.data.finding import read_head
    from overpaint.errors import ImageError

    mark = f"tEXt{MARK}\0".encode()
    for path in paths:
        if path.is_symlink() or (path.exists() and mark not in read_head(path)):
            raise ImageError(
                f"{path}: is not of an earlier demo and would be written over; use another --out"
            )


def _write(path: Path, array: "np.ndarray") -> None:
    """Write uint8 (h, w) or (h, w, 3) as PNG with the mark."""
    import io

    from PIL import Image, PngImagePlugin

    from overpaint import __version__
    from overpaint.images import write_bytes

    text, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    text.add_text(MARK, f"written by overpaint {__version__}")
    Image.fromarray(array).save(buffer, "PNG", pnginfo=text)
    write_bytes(path, buffer.getvalue())


def _describe_agreement(found: "np.ndarray", true: "np.ndarray") -> str:
    from overpaint.metrics import count, overlap

    scores = overlap(count(found, true))
    return f"IoU {scores['iou']:.2f}, F1 {scores['f1']:.2f} with the true region"


def _stop_at_error(*records: "Record") -> None:
    from overpaint.errors import OverpaintError

    for record in records:
        if "error" in record:
            raise OverpaintError(record["error"])
