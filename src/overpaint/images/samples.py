"""The samples of a photo as its file stores them: grey or colour, with alpha, of 8 or 16 bit.

`overpaint.images.decoding` gives what a network sees: RGB of 8 bit. What is written again must not
lose what that leaves out, so this module reads the same bytes once more and keeps it.

- Grey stays one channel, alpha stays, 16 bit stay 16 bit. A palette becomes RGB, a colour that is
  marked as transparent becomes alpha, black and white becomes 8 bit grey.
- Pillow has no mode for 16 bit colour: it unpacks the high byte of each sample. The low bytes are
  unpacked in a second pass, by the name of the other byte order.
- What has no counterpart here (CMYK, Lab, 10 bit HEIC and AVIF) is taken as `decode_image` gave it.
- Where a palette or one colour stands for transparency, alpha is that of `decode_image`, which
  knows how the file's key is scaled: Pillow does not, for grey of 2 and 4 bit.
- The samples must show the photo that `decode_image` gave, alpha included, otherwise the file is
  refused: two readers that disagree would put the wrong pixels into a result, or show hidden ones.
"""

import io
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from overpaint.errors import ImageError
from overpaint.images.decoding import (
    Photo,
    choose_formats,
    find_pixel_limit,
    limit_pillow,
    read_orientation,
    refuse_lack_of_memory,
    turn_upright,
)

_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR = 258, 262, 284
_GREY, _GREY_ALPHA = 0, 4  # PNG's colour types
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_LUMA = np.array([19595, 38470, 7471])  # ITU-R BT.601, times 65536


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """A photo's samples, upright.

    values: uint8 or uint16 (h, w, c); c is 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
    bits: of which the values make use, 8, or 8 to 16 in uint16. notes: what was converted.
    """

    values: np.ndarray = field(repr=False)
    bits: int = 8
    notes: tuple[str, ...] = ()

    @property
    def num_colours(self) -> int:
        """1 for grey, 3 for RGB."""
        return 1 if self.values.shape[2] <= 2 else 3

    @property
    def colours(self) -> np.ndarray:
        """(h, w, 1 or 3), without alpha; a view."""
        return self.values[..., : self.num_colours]

    @property
    def alpha(self) -> np.ndarray | None:
        """(h, w), 0 is transparent; a view. None where there is none."""
        return self.values[..., -1] if self.values.shape[2] in (2, 4) else None

    @property
    def opaque(self) -> int:
        """The value of alpha that is opaque."""
        return 2**self.bits - 1

    @property
    def hidden(self) -> np.ndarray | None:
        """bool (h, w): wholly transparent, its colour not to be seen; None where nothing is."""
        alpha = self.alpha
        return None if alpha is None or alpha.all() else alpha == 0

    @property
    def pixels(self) -> np.ndarray:
        """uint8 (h, w, 3): the colours as a network sees them, of each sample the upper 8 bit."""
        eight = (self.colours >> (self.bits - 8)).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(eight, (*eight.shape[:2], 3)))

    def is_grey(self, of: np.ndarray) -> bool:
        """Whether all pixels that `of`, bool (h, w), selects are grey, also where stored as RGB."""
        if self.num_colours == 1:
            return True
        red, green, blue = (self.values[..., i] for i in range(3))
        return not (((red != green) | (red != blue)) & of).any()

    def flatten(self, colour: tuple[int, int, int]) -> "Samples":
        """Laid on a colour (8 bit RGB), without alpha; the same where there is none.

        The stored values are mixed, as browsers do, and not the light that they stand for. Grey
        stays grey on a grey colour and becomes RGB on another.
        """
        if self.alpha is None:
            return self
        top = self.opaque
        share = self.alpha[..., None].astype(np.uint64)
        grey = self.num_colours == 1 and len(set(colour)) == 1
        ground = widen(np.array(colour[:1] if grey else colour), self.bits)
        mixed = self.colours * share + ground.astype(np.uint64) * (top - share)
        values = ((mixed + top // 2) // top).astype(self.values.dtype)
        return replace(self, values=values)

    def remove_alpha(self) -> "Samples":
        return replace(self, values=np.ascontiguousarray(self.colours))

    def fill(self, fill: np.ndarray, weight: np.ndarray, *, grey: bool) -> "Samples":
        """With the colours of a fill, uint8 (h, w, 3) RGB, where its weight (h, w) is above 0.

        weight: of the fill, 0..1; the rest is the photo's own. grey: the fill becomes its luma, as
        it always does in a photo that is stored as grey. All other samples and all of alpha stay as
        they are, bit for bit.
        """
        hole = weight > 0
        new = fill[hole].astype(np.int64)
        if grey or self.num_colours == 1:
            new = (new @ _LUMA + 2**15 >> 16)[:, None]
        share, count = weight[hole][:, None].astype(np.float64), self.num_colours
        old = self.colours[hole].astype(np.float64)
        values = self.values.copy()
        values[hole, :count] = np.rint(old + (widen(new, self.bits) - old) * share)
        return replace(self, values=values)


def widen(values: np.ndarray, bits: int) -> np.ndarray:
    """Whole numbers of 8 bit, in so many bits (8..16): 0 stays 0, and 255 becomes the largest."""
    return values << (bits - 8) | values >> (16 - bits)


def from_pixels(pixels: np.ndarray, notes: tuple[str, ...] = ()) -> Samples:
    """Of uint8 (h, w, 3)."""
    return Samples(pixels, notes=notes)


def from_photo(photo: Photo) -> Samples:
    """Of 8 bit RGB, with the photo's alpha where it has one."""
    if photo.alpha is None:
        return from_pixels(photo.pixels, photo.notes)
    return Samples(np.dstack([photo.pixels, photo.alpha]), notes=photo.notes)


def decode_samples(data: bytes, photo: Photo) -> Samples:
    """The samples of the file that `decode_image` has decoded to `photo`; raises `ImageError`."""
    with limit_pillow(find_pixel_limit(None)):
        try:
            values = _read(data, photo)
        except ImageError:
            raise
        except Exception as error:  # damaged bytes may raise any exception
            refuse_lack_of_memory(error, photo.path)
            raise ImageError(f"{photo.path}: cut short or damaged ({error})") from error
    found = from_photo(photo)
    if values is not None:
        found = _set_bits(Samples(values, 16 if values.dtype == np.uint16 else 8), photo)
    return replace(found, notes=tuple(n for n in photo.notes if not _is_kept(n, found)))


def _set_bits(samples: Samples, photo: Photo) -> Samples:
    """With the number of bits by which the samples show the photo."""
    hidden, expected = samples.hidden, 255 if photo.alpha is None else photo.alpha
    for bits in range(16, 7, -1) if samples.bits == 16 else (8,):
        if samples.values.shape[:2] != photo.pixels.shape[:2] or samples.values.max() >> bits:
            continue
        found = replace(samples, bits=bits)
        apart = np.abs(found.pixels.astype(np.int16) - photo.pixels)
        if hidden is not None:
            apart = apart[~hidden]  # a reader may do with these what it likes
        alpha = 255 if found.alpha is None else (found.alpha >> (bits - 8)).astype(np.int16)
        most = max(apart.max(initial=0), np.abs(alpha - expected).max())
        if most <= (samples.bits > 8):  # by rounding
            return found
    remedy = "save it as PNG of 8 or 16 bit"
    raise ImageError(f"{photo.path}: its samples cannot be kept as they are stored; {remedy}")


def _is_kept(note: str, samples: Samples) -> bool:
    """Whether a note of the 8 bit reader tells of a loss that the samples do not have."""
    return (
        (note.startswith("alpha ") and samples.alpha is not None)
        or (note == "grey copied to three channels" and samples.num_colours == 1)
        or (re.fullmatch(r"\d+ bit reduced to 8", note) is not None and samples.bits > 8)
    )


def _read(data: bytes, photo: Photo) -> np.ndarray | None:
    """(h, w, c), upright; None where there is nothing to keep beyond 8 bit RGB and alpha."""
    path, keyed = photo.path, None
    image = _open(data, path)
    if image.format == "PNG" and data[24] == 16:
        values = _read_16_bit_png(data, path)
    elif image.format == "TIFF" and set(image.tag_v2.get(_BITS_PER_SAMPLE, ())) == {16}:
        values = _read_16_bit_tiff(data, path)
    else:
        values = _read_8_bit(image, keeps_alpha=photo.alpha is not None)
        if values is not None and values.shape[2] in (1, 3) and "transparency" in image.info:
            keyed = photo.alpha
    if values is None:
        return None
    image.load()  # a TIFF is turned by that, and then no longer says that it should be
    upright = turn_upright(values, read_orientation(image))
    return np.ascontiguousarray(upright) if keyed is None else np.dstack([upright, keyed])


def _open(data: bytes, path: Path) -> Any:
    return Image.open(io.BytesIO(data), formats=choose_formats(data, path))


def _read_8_bit(image: Any, *, keeps_alpha: bool) -> np.ndarray | None:
    """(h, w, c) as stored, without the alpha of a palette's or a colour's transparency.

    keeps_alpha: False where the photo is opaque, as is a BMP of 32 bit without alpha.
    """
    image.load()
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.mode == "PA" else "RGB")
    elif image.mode == "RGBA" and image.format == "BMP" and not keeps_alpha:
        image = image.convert("RGB")
    if image.mode not in _CHANNELS:
        return None
    return _add_channel(np.asarray(image))


def _read_16_bit_png(data: bytes, path: Path) -> np.ndarray:
    kind, image = data[25], _open(data, path)
    if kind == _GREY:
        values = _add_channel(np.asarray(image).astype(np.uint16))
    elif kind == _GREY_ALPHA:
        # Four bytes a pixel, as in RGBA of 8 bit; without a mode of its own in Pillow.
        image._mode, image.tile = "RGBA", [tile._replace(args="RGBA") for tile in image.tile]
        octets = np.asarray(image).astype(np.uint16)
        values = octets[..., ::2] << 8 | octets[..., 1::2]
    else:
        values = _read_both_bytes(data, path)
    key = image.info.get("transparency")
    if key is None:
        return values
    alpha = np.where((values == np.array(key)).all(axis=2), 0, 65535).astype(np.uint16)
    return np.concatenate([values, alpha[..., None]], axis=2)


def _read_16_bit_tiff(data: bytes, path: Path) -> np.ndarray | None:
    image = _open(data, path)
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16)
        return _add_channel(65535 - values if image.tag_v2.get(_PHOTOMETRIC) == 0 else values)
    if image.mode not in ("RGB", "RGBA"):
        return None
    if image.tag_v2.get(_PLANAR) == 2:
        reason = "a TIFF of 16 bit with a plane for each colour, of which 8 bit are read"
        raise ImageError(f"{path}: {reason}; save it interleaved")
    return _read_both_bytes(data, path)


def _read_both_bytes(data: bytes, path: Path) -> np.ndarray:
    """RGB or RGBA of 16 bit, from a file of which Pillow takes the high bytes."""
    high, low = _open(data, path), _open(data, path)
    low.tile = [tile._replace(args=_swap_byte_order(tile.args, path)) for tile in low.tile]
    return np.asarray(high).astype(np.uint16) << 8 | np.asarray(low)


def _swap_byte_order(args: Any, path: Path) -> Any:
    """A tile's arguments with the name of the other byte order in place of its own."""
    name = args if isinstance(args, str) else args[0]
    if not re.fullmatch(r"RGB[AX]?;16[BLN]", name):
        reason = f"16 bit samples of a kind that cannot be kept ({name})"
        raise ImageError(f"{path}: {reason}; save it as PNG of 16 bit")
    other = name[:-1] + _OTHER_ORDER[name[-1]]
    return other if isinstance(args, str) else (other, *args[1:])


def _add_channel(values: np.ndarray) -> np.ndarray:
    return values[..., None] if values.ndim == 2 else values
