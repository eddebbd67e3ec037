"""From the bytes of a file to a `Photo`: the inner part of `overpaint.images`.

- Pixels come upright, as RGB, 8 bit. What had to be converted for that is said in `Photo.notes`,
  because for evidence it matters.
- Orientation: EXIF alone turns a photo, the `irot` and `imir` boxes alone an AVIF or a HEIC (whose
  EXIF must not turn it again, ISO/IEC 23008-12), and XMP never. For JPEG, AVIF and XMP the browsers
  do the same (seen in Chromium 150 and Firefox 140 ESR). They differ where EXIF stands in another
  file: Chromium turns a PNG whose eXIf chunk comes before the pixels, Firefox none, and neither
  turns a WebP. EXIF turns these here as in image editors, and the note says so.
- Alpha is kept apart (`Photo.alpha`), as is the colour stored beneath: compositing would invent
  pixels.
- 16 bit samples keep their high byte (value // 256), in colour and in grey alike. Pillow does so
  for colour; it is exact wherever 8 bit were widened to 16, and at most one level off otherwise.
- 8, 10, 12 or 14 bit that lie low in 16 would come out nearly black. White is what the file states
  (TIFF MaxSampleValue, PNG sBIT), unless a sample is above it; where nothing is stated and no
  sample is above 255, 1023 or 4095, it is the least of these. A note tells.
- Float, signed and 32 bit samples are refused, because their range is a guess.
- CMYK is converted without its colour profile; a CMYK JPEG is taken as inverted (Adobe), as
  Pillow and the browsers do. RGB profiles are left alone: pixels are as stored. Lab is refused.
- TIFF is read by libtiff alone: Pillow's own reader of uncompressed ones takes planes of 16 bit
  for planes of 8.
- A JPEG whose coded data libjpeg calls corrupt is refused, as one that is cut short is: pixels are
  missing or displaced. Left-over bytes before a marker, which some cameras write, are a note.
  Pillow drops these warnings, so simplejpeg decodes once more, at an eighth of the size and in grey
  (0.07 s for 12 megapixels). Six of seven flips of one bit leave data that mean another picture,
  and nothing to be warned of.
- The size is checked from the header, before any pixel is decoded.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import simplejpeg
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from overpaint import hashes
from overpaint.errors import ConfigError, ImageError, InputError, TooLargeError

MAX_PIXELS = 200_000_000
"""Largest photo that is decoded, unless OVERPAINT_MAX_PIXELS or `max_pixels` says otherwise."""

# Pillow's decoders to try: no others, as some of them run external programs.
_FORMATS = ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "BMP", "GIF"]
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC, _SUBFILE_TYPE, _DNG = 274, 258, 262, 254, 50706
_PLANAR, _EXTRA_SAMPLES, _ASSOCIATED = 284, 338, 1
_SAMPLE_FORMAT, _MAX_SAMPLE_VALUE, _UNSIGNED, _UNDEFINED = 339, 281, 1, 4
_NARROW = (255, 1023, 4095)
"""White of samples that are stored in 16 bit and use no more than a sixteenth of their range."""
_DARK = "no sample is above a quarter of the 16 bit range: taken for a dark picture"
_MAX_COUNTED = 1000  # pictures of a TIFF
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# What libtiff prints: the name that Pillow gives a file, or that of the function.
_LIBTIFF = re.compile(rb"(tempfile\.tif|_?TIFF\w*|JPEG\w*|\w*(Decode|Setup)\w*): [^\n]*\n?")
# Pillow's size limit and Python's warning filters are global, so one thread decodes at a time.
_decoding = threading.Lock()


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded photo and what is known of its file.

    pixels: uint8 (h, w, 3), RGB, upright. path: empty where there is no file, but bytes, an array
    or a Pillow image. sha256: of the file's bytes, hexadecimal; empty for the last two.
    format: Pillow's name, with MPO counted as "JPEG". jpeg_quality: 1..100, None when not a JPEG.
    lossy: the format discards detail (GIF counts as lossy for its 256 colours).
    notes: what was converted, in words. alpha: uint8 (h, w), upright, 255 = opaque; None where
    every pixel is. The pixels beneath are as stored.
    """

    pixels: np.ndarray = field(repr=False)
    path: Path
    sha256: str
    format: str
    jpeg_quality: int | None
    lossy: bool
    notes: tuple[str, ...] = ()
    alpha: np.ndarray | None = field(default=None, repr=False)

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.shape[0]


def decode_image(data: bytes, name: str | Path, *, max_pixels: int | None = None) -> Photo:
    """Decode a photo that is already in memory; `name` is what errors and `Photo.path` call it."""
    limit = find_pixel_limit(max_pixels)
    if not data:
        raise ImageError(f"{name}: the file is empty; get it again from where it came")
    formats = choose_formats(data, name)
    with limit_pillow(limit):
        try:
            photo = _decode(data, Path(name), formats)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            remedy = "if you trust it, raise OVERPAINT_MAX_PIXELS or max_pixels"
            raise TooLargeError(f"{name}: {error}; {remedy}") from error
        except ImageError as error:
            reason = str(error)
        except UnidentifiedImageError:
            reason = "not a photo that can be read, or its header is damaged; give JPEG, PNG, "
            reason += "WebP, TIFF, HEIC, AVIF, BMP or GIF (the content counts, not the name)"
            reason = _find_kind(data) or reason
        except Exception as error:  # damaged bytes may raise any exception
            refuse_lack_of_memory(error, name)
            reason = f"cut short or damaged ({error}); get the file again from where it came"
        else:
            return photo
    raise ImageError(f"{name}: {reason}")


def refuse_lack_of_memory(error: Exception, name: object) -> None:
    """Raise `ImageError` where a reader failed for lack of memory, which is no damage to a file."""
    # Pillow's decoders give an OSError of that text, Python and numpy a MemoryError.
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        remedy = "free memory, for instance with fewer processes, or give a smaller photo"
        raise ImageError(f"{name}: there is too little memory to read it; {remedy}") from error


def find_pixel_limit(max_pixels: int | None) -> int:
    """The argument if given, otherwise the environment's OVERPAINT_MAX_PIXELS or MAX_PIXELS."""
    text = os.environ.get("OVERPAINT_MAX_PIXELS", str(MAX_PIXELS))
    if max_pixels is None and not (text.isdecimal() and int(text) > 0):
        raise ConfigError(f"OVERPAINT_MAX_PIXELS={text!r}: give a whole number above 0, or unset")
    return int(text) if max_pixels is None else max_pixels


def check_num_bytes(name: str | Path, num_bytes: int, limit: int) -> None:
    """Raise `ImageError` for a file of more bytes than `limit` pixels can need."""
    if num_bytes > 8 * limit + 2**26:  # 16 bit RGBA without compression, and 64 MiB of metadata
        found = f"{num_bytes:,} bytes, too many for {limit:,} pixels"
        raise TooLargeError(f"{name}: {found}; raise OVERPAINT_MAX_PIXELS or max_pixels")


def choose_formats(data: bytes, name: str | Path) -> list[str]:
    """Pillow's decoders to try on a file; `ImageError` where HEIC lacks its package."""
    if data[4:8] != b"ftyp" or data[8:12] not in _HEIC_BRANDS or b"avif" in data[8:40]:
        return _FORMATS
    try:
        import pillow_heif
    except ImportError as error:
        remedy = "pip install 'overpaint[heic]'"
        raise ImageError(f"{name}: HEIC needs one more package; run: {remedy}") from error
    pillow_heif.register_heif_opener()
    return ["HEIF"]


@contextlib.contextmanager
def limit_pillow(limit: int) -> Iterator[None]:
    """Pillow with our size limit as an error, libtiff for every TIFF, and no other warnings."""
    with _decoding, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        before = Image.MAX_IMAGE_PIXELS, TiffImagePlugin.READ_LIBTIFF
        Image.MAX_IMAGE_PIXELS, TiffImagePlugin.READ_LIBTIFF = limit, True
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, TiffImagePlugin.READ_LIBTIFF = before


def _decode(data: bytes, path: Path, formats: list[str]) -> Photo:
    image: Any = Image.open(io.BytesIO(data), formats=formats)  # header and size only
    _refuse_unknown(image)
    notes = []
    if getattr(image, "is_animated", False):
        notes.append(f"first of {_count_pictures(data, formats)} pictures in it, the only one read")
    stored = read_orientation(image)
    _load(image, notes)
    turn = read_orientation(image)  # Pillow has already turned a TIFF while loading it
    kind = "JPEG" if image.format == "MPO" else str(image.format)
    if kind == "JPEG":
        notes += _check_jpeg(data)
    rgb, alpha = _to_rgb(image, _File(data, formats), _find_bits(image, data), notes)
    if alpha is not None:
        alpha = np.ascontiguousarray(turn_upright(alpha, turn))
        share = 100 * np.count_nonzero(alpha != 255) / alpha.size
        notes.append(f"alpha kept apart: {max(share, 0.1):.1f} % of the pixels are not opaque")
    if stored != 1 or turn != 1:
        aside = f" (browsers may show a {kind} unturned)" if kind in ("PNG", "WEBP") else ""
        notes.append(
            f"turned upright by {'its irot and imir boxes' if kind == 'AVIF' else 'EXIF'}{aside}"
        )
    return Photo(
        pixels=np.require(turn_upright(rgb, turn), requirements=["C", "W"]),
        path=path,
        sha256=hashes.sha256(data),
        format=kind,
        jpeg_quality=_estimate_jpeg_quality(image) if kind == "JPEG" else None,
        lossy=_is_lossy(image, kind, data),
        notes=tuple(notes),
        alpha=alpha,
    )


def from_pillow(image: Image.Image) -> Photo:
    """What a Pillow image holds, by the rules for files as far as they can still be kept.

    Its file's bytes are gone, and with them the JPEG quality. Pillow takes 8 bit of 16 bit colour,
    so that is refused where the image still tells (a TIFF, and a PNG that was not yet loaded), as
    are floats; 32 bit integers within 0..65535 count as 16 bit. Raises `InputError`, also for a
    file that turns out to be damaged.
    """
    source: Any = image
    kinds = [_name_kind(tile.args) for tile in getattr(source, "tile", ())]
    is_deep = any(re.fullmatch(r"(LA|RGB[AX]?);16[BLN]", kind) for kind in kinds)
    bits = next((int(kind[2:]) for kind in kinds if kind in ("L;2", "L;4")), 8)
    try:
        source.load()  # only now are the pixels of a file read
    except Exception as error:  # damaged bytes may raise any exception, a closed file ValueError
        refuse_lack_of_memory(error, "PIL image")
        raise InputError(f"PIL image: cannot be read ({error}); give its path") from error
    if not source.width or not source.height:
        raise InputError(f"PIL image of {source.width} x {source.height} pixels; give at least one")
    notes: list[str] = []
    if source.mode == "I" and 0 <= source.getextrema()[0] <= source.getextrema()[1] <= 65535:
        grey = Image.fromarray(np.asarray(source).astype(np.uint16))
        grey.info |= {key: source.info[key] for key in ("exif",) if key in source.info}
        source = grey
    if source.mode in ("I", "F", "LAB", "HSV", "RGBX"):
        remedy = "scale np.asarray(image) to uint8 (h, w, 3), RGB, and give that, or give its path"
        raise InputError(f"PIL image of mode {source.mode}: of unknown range or meaning; {remedy}")
    is_grey = source.mode.startswith("I;16")
    is_deep |= max(getattr(source, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))) > 8
    if is_deep and not is_grey:
        raise InputError("PIL image of 16 bit colour, of which Pillow takes 8; give its path")
    if bits == 8 and _may_have_unscaled_key(source):
        reason = "a transparent grey, perhaps of 2 or 4 bit, which it no longer tells"
        raise InputError(f"PIL image with {reason}; give its path")
    turn = read_orientation(source)
    rgb, alpha = _to_rgb(source, _File(b"", []), 16 if is_grey else bits, notes)
    kind = "JPEG" if image.format == "MPO" else image.format or "PIL image"
    lossy = _is_lossy(image, kind, b"")
    about = f"{kind}: quality unknown, give the path" if lossy else f"{kind}: taken as lossless"
    return Photo(
        pixels=np.require(turn_upright(rgb, turn), requirements=["C", "W"]),
        path=Path(),
        sha256="",
        format=kind,
        jpeg_quality=None,
        lossy=lossy,
        notes=(about, *notes),
        alpha=None if alpha is None else np.ascontiguousarray(turn_upright(alpha, turn)),
    )


def _name_kind(args: Any) -> str:
    """The kind of samples that a tile's arguments name ("RGB;16B"), of which Pillow takes 8 bit."""
    name = args if isinstance(args, str) else next(iter(args or ()), "")
    return name if isinstance(name, str) else ""


def _may_have_unscaled_key(image: Any) -> bool:
    """Whether a loaded grey image may be of 2 or 4 bit, which Pillow has widened in the pixels and
    not in the transparent grey: it has no pixel of that grey, but of the one that it stands for."""
    key = image.info.get("transparency")
    if image.mode != "L" or not isinstance(key, int) or not 0 < key < 16:
        return False
    pixels = np.asarray(image)
    widened = [key * 17] + [key * 85] * (key < 4)
    return not (pixels % 17).any() and bool(np.isin(pixels, widened).any())


def _refuse_unknown(image: Any) -> None:
    """Raise `ImageError` for an opened file whose samples have no defined range."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(_SUBFILE_TYPE, 0) & 1 or _DNG in tags:
        raise ImageError("this holds a preview only (camera raw?); develop it to TIFF or JPEG")
    sample_formats = set(tags.get(_SAMPLE_FORMAT, (_UNSIGNED,)))
    if image.mode in ("I", "F") or not sample_formats <= {_UNSIGNED, _UNDEFINED}:
        raise ImageError("float, signed or 32 bit samples of unknown range; save as 8 or 16 bit")
    if image.mode == "LAB":
        raise ImageError("Lab colours, whose conversion is not settled; save it as RGB")


def _find_kind(data: bytes) -> str | None:
    """The kind of a file that no decoder accepts, as far as its first bytes show it."""
    if data[:4] in _TIFF_MAGIC:
        kind = "float, signed or Lab samples, or 10, 12 or 14 bit of them?"
        return f"a TIFF of a kind that cannot be read ({kind}); save it as 8 or 16 bit RGB"
    frame = re.search(
        rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]\0.([\x02-\x10])", data, re.DOTALL
    )
    if data[:2] == b"\xff\xd8" and frame and frame[1] != b"\x08":
        return f"a JPEG of {frame[1][0]} bit, which cannot be read; save it as 16 bit PNG or TIFF"
    return None


def _count_pictures(data: bytes, formats: list[str]) -> str:
    """The number of pictures in a file that has several, in words; none of them is decoded."""
    try:
        image: Any = Image.open(io.BytesIO(data), formats=formats)
        if image.format != "TIFF":
            return str(image.n_frames)
        for num in range(1, _MAX_COUNTED):  # each of them is looked for from the one before
            try:
                image.seek(num)
            except EOFError:
                return str(num)
    except Exception:  # damage to the others is no reason to refuse the first
        return "several"
    return f"{_MAX_COUNTED} or more"


def _load(image: Any, notes: list[str]) -> None:
    """Decode the pixels of an opened file; messages of libtiff become a note or an error."""
    image.info.pop("xmp", None)  # by which Pillow would turn a TIFF without EXIF
    if image.format != "TIFF":
        image.load()
        return
    said: list[str] = []
    try:
        with _collect_libtiff(said):
            image.load()
    except OSError as error:
        raise OSError("; ".join(said) or str(error)) from error
    notes += [f"libtiff: {line}" for line in said]


def _check_jpeg(data: bytes) -> list[str]:
    """Notes on the coded data of a decoded JPEG; `ImageError` where they are corrupt."""
    try:
        *_, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:  # of a chroma subsampling that TurboJPEG has no name for
        return [f"not checked for damage of its coded data ({error})"]
    wanted = "CMYK" if colours in ("CMYK", "YCCK") else "GRAY"
    try:
        simplejpeg.decode_jpeg(data, wanted, fastdct=True, min_height=1, min_width=1, strict=True)
    except ValueError as error:
        said = str(error).removeprefix("Corrupt JPEG data: ")
        if said != str(error) and "extraneous bytes" not in said:
            reason = f"damaged ({error}); get the file again from where it came"
            raise ImageError(reason) from error
        return [f"perhaps damaged, libjpeg says: {said}"]
    return []


@contextlib.contextmanager
def _collect_libtiff(said: list[str]) -> Iterator[None]:
    """Collect what libtiff prints on the standard error stream, its only output for messages.

    Whatever else is printed there meanwhile, by other threads, is passed on.
    """
    try:
        stream = os.dup(2)
    except OSError:  # a program without one
        yield
        return
    try:
        with _open_scratch_file() as file:
            try:
                os.dup2(file.fileno(), 2)
                yield
            finally:
                os.dup2(stream, 2)
                file.seek(0)
                for line in file:
                    if _LIBTIFF.fullmatch(line):
                        text = line.split(b": ", 1)[1].decode("ascii", "replace")
                        said.append(text.strip(" .\n"))
                    else:
                        os.write(stream, line)
    finally:
        os.close(stream)


def _open_scratch_file() -> IO[bytes]:
    """A file without a name: in memory where the system has such files, otherwise on the disk.

    Raises `ImageError` where none can be made.
    """
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):
            return os.fdopen(os.memfd_create("overpaint"), "w+b")
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        reason = f"reading a TIFF needs a temporary file, and none can be made ({error})"
        raise ImageError(f"{reason}; set TMPDIR to a folder that is writable") from error


@dataclass(frozen=True, slots=True)
class _File:
    """A file that may have to be opened again."""

    data: bytes
    formats: list[str]

    def read_low_bytes(self) -> np.ndarray | None:
        """Of 16 bit colour: uint8 (h, w, c), turned as by Pillow; None where Pillow cannot.

        Pillow has no mode for 16 bit colour, and its unpackers take the first or the second byte
        of each sample. So the decoder is told the other byte order.
        """
        image: Any = Image.open(io.BytesIO(self.data), formats=self.formats)
        tile = image.tile[0]
        args = (tile.args,) if isinstance(tile.args, str) else tuple(tile.args)
        mode, _, order = args[0].partition(";")
        planar = getattr(image, "tag_v2", {}).get(_PLANAR, 1) == 2
        if mode not in ("RGB", "RGBX", "RGBA") or planar:
            return None
        native = "16L" if sys.byteorder == "little" else "16B"
        other = {"16B": "16L", "16L": "16B"}[order.replace("16N", native)]
        swapped = (f"{mode};{other}", *args[1:])
        image.tile = [tile._replace(args=swapped if len(swapped) > 1 else swapped[0])]
        _load(image, [])
        return np.asarray(image)

    def read_significant_bits(self) -> int:
        """By the sBIT chunk of a PNG (the first channel's); 16 where there is none."""
        at = self.data.find(b"sBIT", 8, max(8, self.data.find(b"IDAT")))
        return min(self.data[at + 4], 16) if at > 0 else 16


def _to_rgb(
    image: Any, file: _File, bits: int, notes: list[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """The loaded image as uint8 (h, w, 3) and its alpha (h, w); says in `notes` what was done."""
    tags = getattr(image, "tag_v2", {})
    photometric = tags.get(_PHOTOMETRIC)
    is_bmp = image.format == "BMP"
    if bits > 8:
        notes.append(f"{bits} bit reduced to 8")
    alpha = _find_keyed(image, bits, file)
    if image.mode.startswith("I;16"):
        samples = np.asarray(image).astype(np.uint16)
        levels = _to_levels(samples, file, image, notes) if bits == 16 else samples >> (bits - 8)
        levels = levels.astype(np.uint8)
        # Pillow undoes "white is zero" for 8 bit only.
        image = Image.fromarray(255 - levels if photometric == 0 else levels)
    elif bits == 16 and image.mode in ("LA", "RGB", "RGBA"):
        image = _widen(image, file, notes)
    multiplied = image.mode in ("La", "RGBa")
    # Pillow divides those of a TIFF while it loads them.
    if multiplied or (image.mode == "RGBA" and _ASSOCIATED in tags.get(_EXTRA_SAMPLES, ())):
        notes.append("colours divided by alpha, by which they are stored multiplied")
    if multiplied:
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.mode in ("LA", "RGBA", "PA"):
        alpha = np.asarray(image.getchannel("A"))
    if image.mode in ("1", "L", "LA"):
        notes.append("grey copied to three channels")
    elif image.mode in ("P", "PA"):
        notes.append("palette expanded")
    elif image.mode not in ("RGB", "RGBA"):
        notes.append(f"{image.mode} converted without a colour profile")
    if alpha is not None and is_bmp and not alpha.any():
        alpha = None  # 32 bit without alpha, which the browsers show as well
    opaque = alpha is None or alpha.min() == 255
    return np.asarray(image.convert("RGB")), None if opaque else alpha  # composites nothing


def _find_bits(image: Any, data: bytes) -> int:
    """Bits per sample as stored."""
    if image.format == "PNG":
        return data[24]  # IHDR comes first: signature 8, length 4, name 4, size 8, depth 1
    if image.format == "AVIF":
        at = data.find(b"av1C")
        flags = data[at + 6] if at > 0 else 0  # AV1-ISOBMFF 2.3.3: high_bitdepth, twelve_bit
        return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    if image.format in ("TIFF", "HEIF"):
        tags = getattr(image, "tag_v2", {})
        return max(tags.get(_BITS_PER_SAMPLE, (image.info.get("bit_depth", 8),)))
    return 8


def _find_keyed(image: Any, bits: int, file: _File) -> np.ndarray | None:
    """The alpha, uint8 (h, w), of a palette's or a colour's transparency (GIF, tRNS of PNG)."""
    key = image.info.get("transparency")
    if key is None or image.mode in ("LA", "RGBA", "PA"):
        return None
    if image.mode == "P":
        return np.asarray(image.convert("RGBA").getchannel("A"))
    pixels, key = np.asarray(image), np.asarray(key)
    if bits == 16 and image.mode == "RGB":
        pixels = _join(pixels, file.read_low_bytes())
    elif image.mode == "1":
        pixels = pixels * 255
    elif bits < 8:
        key = key * 255 // (2**bits - 1)  # Pillow scales the pixels alone
    same = pixels == key
    return np.where(same.all(axis=2) if same.ndim == 3 else same, 0, 255).astype(np.uint8)


def _join(high: np.ndarray, low: np.ndarray | None) -> np.ndarray:
    return high.astype(np.uint16) << 8 | (0 if low is None else low)


def _widen(image: Any, file: _File, notes: list[str]) -> Any:
    """16 bit colour, or grey with alpha, of which Pillow keeps the high bytes, as 8 bit.

    The low ones are fetched where the samples may use a small part of their range.
    """
    high = np.asarray(image)
    most = high[..., : 1 if image.mode == "LA" else 3].max()
    stated = (_read_white(image), 2 ** file.read_significant_bits() - 1)
    if most > max([_NARROW[-1], *(white for white in stated if white < 65535)]) >> 8:
        notes += [_DARK] if most < 64 else []
        return image
    low = file.read_low_bytes()
    if low is not None:
        return Image.fromarray(_to_levels(_join(high, low), file, image, notes))
    if most:
        raise ImageError(
            f"none of its 16 bit samples is above {256 * int(most) + 255} of 65535, as if they "
            "held fewer bits, and this kind cannot be scaled here; save it as 8 bit RGB"
        )
    return image


def _to_levels(samples: np.ndarray, file: _File, image: Any, notes: list[str]) -> np.ndarray:
    """16 bit samples (h, w) or (h, w, c), the last of 2 or 4 being alpha, as uint8 levels."""
    has_alpha = samples.ndim == 3 and samples.shape[2] in (2, 4)
    colours = samples[..., :-1] if has_alpha else samples
    white, how = _find_white(colours, file, image)
    if white < 65535:
        notes.append(f"sample value {white} of 65535 taken for white, {how}")
    elif 0 < colours.max() < 2**14:
        notes.append(_DARK)
    levels = colours.astype(np.uint32) * 256 // (white + 1)
    if has_alpha:
        alpha = samples[..., -1:].astype(np.uint32)
        alpha = alpha * 256 // ((white if alpha.max() <= white else 65535) + 1)
        levels = np.concatenate([levels, alpha], axis=2)
    return levels.astype(np.uint8)


def _find_white(colours: np.ndarray, file: _File, image: Any) -> tuple[int, str]:
    """The sample value of white, and how it was found."""
    most, stated, bits = int(colours.max()), _read_white(image), file.read_significant_bits()
    if most <= stated < 65535:
        return stated, "as MaxSampleValue says"
    # By the standard the significant bits are the high ones (PNG, 11.3.2.4). Where lower ones are
    # in use and high ones are not, the file has them in the low ones.
    if 0 < bits < 16 and most < 2**bits and (colours & (2 ** (16 - bits) - 1)).any():
        return 2**bits - 1, "as sBIT says"
    white = next((top for top in _NARROW if 0 < most <= top), 65535)
    return white, f"as no sample is above {most}"


def _read_white(image: Any) -> int:
    """MaxSampleValue of a 16 bit TIFF; 65535 where there is none."""
    found = getattr(image, "tag_v2", {}).get(_MAX_SAMPLE_VALUE, 65535)
    white = min(found) if isinstance(found, tuple) else found
    return white if 0 < white <= 65535 else 65535


def read_orientation(image: Any) -> int:
    """The EXIF orientation of an open Pillow image, 1..8; 1 where there is none to be read.

    Pillow's own `getexif` falls back to XMP. In the EXIF of an AVIF it has put what the boxes say.
    """
    try:
        if hasattr(image, "tag_v2"):
            value = image.tag_v2.get(_ORIENTATION, 1)
        else:
            exif = Image.Exif()
            exif.load(image.info.get("exif") or b"")
            value = exif.get(_ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception:  # damaged EXIF is no reason to refuse the photo
        return 1
    return value if value in range(2, 9) else 1


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (CIPA DC-008, tag 274): transpose, then flip."""
    pixels = pixels.swapaxes(0, 1) if orientation >= 5 else pixels
    pixels = pixels[::-1] if orientation in (3, 4, 7, 8) else pixels
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels


# Luma table of the JPEG standard (ITU-T T.81, table K.1), which IJG's quality scales.
_LUMA = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 "
    "62 18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 "
    "98 112 100 103 99"
)


@cache
def _make_ijg_tables() -> np.ndarray:
    """The luma tables of qualities 1..100: int (100, 64)."""
    quality = np.arange(1, 101)[:, None]
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((np.array(_LUMA.split(), int) * scale + 50) // 100, 1, 255)


def _estimate_jpeg_quality(image: Any) -> int | None:
    """The IJG quality whose luma table is nearest: least sum of absolute differences.

    Exact for files written by libjpeg; for other encoders (Photoshop, cameras) an equivalent.
    """
    table = image.quantization.get(image.layer[0][3])  # the table of the first component
    if table is None:
        return None
    return int(np.abs(_make_ijg_tables() - np.array(table)).sum(axis=1).argmin()) + 1


def _find_webp_coding(data: bytes) -> bytes:
    """The name of the chunk that holds a WebP's first picture: "VP8 " lossy, "VP8L" lossless; b""
    where there is none (RIFF chunks: name, length, content, padded to even)."""
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name in (b"VP8 ", b"VP8L"):
            return name
        # A frame of an animation has 16 bytes of its own, and then chunks.
        at += 24 if name == b"ANMF" else 8 + size + size % 2
    return b""


def _is_lossy(image: Any, kind: str, data: bytes) -> bool:
    if kind == "WEBP":
        return _find_webp_coding(data) != b"VP8L"
    if kind == "TIFF":
        return image.info.get("compression") in ("jpeg", "tiff_jpeg", "webp")
    return kind in ("JPEG", "AVIF", "HEIF", "GIF")
