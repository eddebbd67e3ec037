"""A test set for detectors: photos filled in by one inpainter, their masks and their originals.

    originals/000123.png   the photo, or a piece of it at its own resolution
    masks/000123.png       255 = filled in, 0 = untouched
    inpainted/000123.png   the original with its hole filled in, marked as edited
    manifest.jsonl         one `Forgery` a line: how each sample was made, the pictures' receipt
    about.json             inputs of all samples: inpainter, weights, masks, photos, seed

- Nothing is scaled: a piece is cut out along JPEG's block grid. Outside the mask the inpainted
  picture equals the original bit for bit.
- Sample i is a function of the seed and i. It uses photo i of a shuffled order, which is repeated
  when all photos are used. Position, kind of mask and mask come from a generator seeded by both.
- The rules of `overpaint.data.samples` hold. The mark states no time, so that a second run writes
  the same bytes.
- A photo that cannot be read, or that is smaller than the piece, is left out and reported.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from overpaint import __version__, hashes
from overpaint.data.forgeries import ForgedRow, has_folder
from overpaint.data.masks import MaskFn, hole_ratio, limit_ratio
from overpaint.data.samples import MANIFEST, SampleRow, claim, fill, make_printable
from overpaint.data.sources import Part, PhotoSource, find_part, shorten_name
from overpaint.data.universal import make_mask_mixture
from overpaint.devices import find_device
from overpaint.errors import ImageError, InputError, OverpaintError
from overpaint.images import Photo, write_bytes, write_png
from overpaint.inpainting.holes import MAX_SHARE
from overpaint.inpainting.inpainter_runner import InpainterRunner
from overpaint.provenance.marking import TOOL
from overpaint.provenance.xmp import add_mark, choose_source_type

KINDS = ("originals", "masks", "inpainted")
NATIVE = 0
"""As `size`: whole photos."""

_MIN_SHARE = 1e-9  # less than one pixel of any photo
_BLOCK = 8  # pixels; JPEG's blocks


class Forgery(ForgedRow):
    """One sample; a line of the manifest."""

    model_config = SampleRow.model_config

    seed: int
    original_sha256: str
    mask_sha256: str
    inpainted_sha256: str
    photo_sha256: str
    top: int
    """Position of the piece in the upright photo, pixels."""
    left: int
    width: int
    """Size of the piece, pixels."""
    height: int
    mask_kind: str
    mask_ratio: float
    """Share of the pixels that are filled in, 0..1."""
    weights_sha256: str | None
    """None for a method without weights."""
    working_size: int
    """Longest side that the inpainter takes unscaled, pixels."""
    version: str


@dataclass(frozen=True, slots=True)
class Forged:
    """The samples in a folder, and the errors."""

    rows: list[Forgery]
    problems: list[str]
    """One message for each photo that was left out; it names the photo."""


def forge(
    folder: Path,
    photos: PhotoSource,
    inpainter: str | Path,
    masks: Sequence[str] | Mapping[str, MaskFn],
    *,
    num: int | None = None,
    seed: int = 0,
    size: int = 256,
    assets: Path = Path(),
    workers: int = 0,
    device: str = "cpu",
    part_of: Callable[[str], Part | None] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Forged:
    """Write the samples 0 to num - 1 to `folder`; samples that it already holds are kept.

    inpainter: see `InpainterRunner`. masks: kinds as for `universal.make_mask_mixture`, with their
    folders below `assets`, or generators by their names in the manifest; each kind has the same
    probability. num: None makes one sample of each photo. size: side of the square pieces in
    pixels, or `NATIVE`. workers: additional processes; 0 with cuda, where processes cannot share
    the memory. device: cpu or cuda. part_of: gives a photo's part by its name, where photos were
    not divided by their names. progress: called with the number of samples tried and `num`.

    Raises ConfigError when the folder holds anything else, WeightsError and UnknownNameError for
    an inpainter that cannot be used, and InputError for other arguments that cannot be used.
    """
    if not masks or size < 0 or (num is not None and num < 1):
        given = f"masks {list(masks)}, size {size}, num {num}"
        raise InputError(
            f"{given}: give a kind of mask, a size of 0 or more, and 1 or more samples"
        )
    if workers and find_device(device).type == "cuda":
        raise InputError(f"--workers {workers}: a graphics card is used by one process; give 0")
    runner = InpainterRunner(inpainter, device=device)
    if isinstance(masks, Mapping):
        fns = dict(masks)
    else:
        fns = {kind: _make_mask_fn(kind, assets) for kind in dict.fromkeys(masks)}
    claim(folder, _describe(photos, runner, fns, seed, size), KINDS)
    make = _Forger(folder, photos, runner, fns, seed, size, part_of)
    num = len(photos) if num is None else num
    how: dict[str, Any] = {"num": num, "workers": workers, "progress": progress}
    rows, failed = fill(folder, Forgery, make, go_on=True, **how)
    return Forged(rows, sorted({str(error) for error in failed}))


@dataclass(frozen=True, slots=True)
class _Forger:
    """Makes sample `index`, writes its files and returns its line of the manifest."""

    folder: Path
    photos: PhotoSource
    runner: InpainterRunner
    masks: Mapping[str, MaskFn]
    seed: int
    size: int
    part_of: Callable[[str], Part | None] | None

    def __call__(self, index: int) -> Forgery:
        chosen = np.random.default_rng(self.seed).permutation(len(self.photos))
        number = int(chosen[index % len(chosen)])
        photo, found = self.photos.read_photo(number), self.photos.names[number]
        name = _name_photo(found)
        try:
            part = (self.part_of(found) if self.part_of else None) or _find_part_if_lost(found)
            return self._make(index, photo, name, part)
        except OverpaintError as error:
            message = str(error)
            raise type(error)(message if name in message else f"{name}: {message}") from error
        # RuntimeError: what torch raises when memory runs out.
        except (MemoryError, RuntimeError) as error:
            raise OverpaintError(f"{name}: {error or type(error).__name__}") from error

    def _make(self, index: int, photo: Photo, name: str, part: Part | None) -> Forgery:
        rng = np.random.default_rng([self.seed, index])
        pixels, top, left = self._cut_piece(photo.pixels, name, rng)
        kind = list(self.masks)[rng.integers(len(self.masks))]
        mask = self.masks[kind](pixels.shape[0], pixels.shape[1], rng)
        filled, _ = self.runner.run(pixels, mask)
        paths = [f"{folder}/{index:06d}.png" for folder in KINDS]
        write_png(self.folder / paths[0], pixels)
        write_png(self.folder / paths[1], mask * np.uint8(255))
        write_bytes(self.folder / paths[2], _mark(filled, self.runner))
        digests = [hashes.file_sha256(self.folder / path) for path in paths]
        return Forgery(
            index=index,
            seed=self.seed,
            original=paths[0],
            mask=paths[1],
            inpainted=paths[2],
            original_sha256=digests[0],
            mask_sha256=digests[1],
            inpainted_sha256=digests[2],
            photo=name,
            part=part,
            photo_sha256=photo.sha256,
            top=top,
            left=left,
            width=pixels.shape[1],
            height=pixels.shape[0],
            mask_kind=kind,
            mask_ratio=hole_ratio(mask),
            inpainter=self.runner.name,
            weights_sha256=self.runner.weights_sha256,
            working_size=self.runner.working_size,
            version=__version__,
        )

    def _cut_piece(
        self, pixels: np.ndarray, name: str, rng: np.random.Generator
    ) -> tuple[np.ndarray, int, int]:
        """The piece, uint8 (h, w, 3), and its position: top, left."""
        if self.size == NATIVE:
            return pixels, 0, 0
        height, width = pixels.shape[:2]
        if min(height, width) < self.size:
            raise ImageError(
                f"{name}: {width} x {height} pixels are too few for pieces of {self.size}; give a "
                f"smaller --size, or {NATIVE} for whole photos"
            )
        top, left = (
            _BLOCK * int(rng.integers((side - self.size) // _BLOCK + 1)) for side in (height, width)
        )
        return pixels[top : top + self.size, left : left + self.size].copy(), top, left


def _name_photo(name: str) -> str:
    """As it was found, and with its folder, by which its part is known wherever it is read."""
    is_path = "://" not in name and "::" not in name
    depends = is_path and not has_folder(name)
    return make_printable(shorten_name(name) if depends else name)


def _find_part_if_lost(name: str) -> Part | None:
    """The part of a photo whose name is no valid Unicode and cannot be written as it is."""
    return None if make_printable(name) == name else find_part(name)


def _make_mask_fn(kind: str, assets: Path) -> MaskFn:
    """Masks that are not empty and whose hole is not too large to fill (`MAX_SHARE`)."""
    return limit_ratio(make_mask_mixture({kind: 1.0}, assets), _MIN_SHARE, MAX_SHARE)


def _mark(pixels: np.ndarray, inpainter: InpainterRunner) -> bytes:
    """A PNG file's bytes, with the mark of an edited picture."""
    details = f"filled in by {inpainter.name}; receipt: {MANIFEST}"
    kind = choose_source_type(trained=inpainter.trained)
    packet, _ = add_mark(None, source_type=kind, tool=TOOL, when=None, details=details)
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", packet.decode())
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def _describe(
    photos: PhotoSource, runner: InpainterRunner, masks: Mapping[str, MaskFn], seed: int, size: int
) -> dict[str, Any]:
    names = [PurePosixPath(make_printable(n).replace("\\", "/")).name for n in photos.names]
    return {
        "version": __version__,
        "inpainter": runner.name,
        "weights_sha256": runner.weights_sha256,
        "working_size": runner.working_size,
        "masks": list(masks),
        "size": size,
        "photos": {
            "number": len(names),
            "names_sha256": hashes.sha256(json.dumps(names).encode()),
        },
        "seed": seed,
        # A graphics card rounds differently, so a folder may not mix kinds of device.
        **({} if runner.device.type == "cpu" else {"device": runner.device.type}),
    }
