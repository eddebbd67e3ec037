"""Damaged files as input of `overpaint detect` and `overpaint inpaint`: is each one reported?

    python benchmarks/fuzz_files.py --seed 0 --num 200 [--data DATA]

- Small pictures (64 to 160 pixels) of every readable format, made here and, with --data, cut
  from photos, are damaged: bits are flipped, the end is cut off, or two of their chunks (JPEG
  segments, PNG and RIFF chunks, TIFF entries, ISO boxes; parts of GIF and BMP) are exchanged.
  Half of the PNG files get valid checksums, because otherwise hardly any would be decoded.
- Three runs, each in one process: `detect` on the damaged files, `inpaint` on them, and `inpaint`
  on the intact pictures with the damaged files as masks.
- A fault is: a traceback, a signal, more time than the limit, a file without exactly one record, an
  error that does not name its file, an exit status other than 1 with errors and 0 without, an
  unknown line on stderr, a changed input, and a filled picture whose size or whose pixels far
  from the hole differ from the photo.
- Files of one seed are the same in every run with the same libraries (encoders differ).
- Prints the number of files by result. The exit status is 1 if there is a fault.
"""

import io
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tifffile
import typer
from PIL import Image

from overpaint.images import read_image, read_mask

Spans = list[tuple[int, int]]

LOW, HIGH = 64, 160  # sides, pixels
MAX_PIXELS = 4_000_000
"""Limit for decoding: a flipped bit in a header can give a picture of millions of pixels."""
SECONDS_A_FILE, SECONDS_TO_START = 5, 120
SHOWN = 40  # faults
FAR = 24  # pixels from the hole, beyond its growth
_OURS = re.compile(r"\d+ of \d+ could not be (examined|filled)")


# Intact pictures


def draw_scene(rng: np.random.Generator) -> np.ndarray:
    """uint8 (h, w, 3): smooth colours, discs with edges, noise."""
    height, width = rng.integers(LOW, HIGH, size=2, endpoint=True)
    y, x = np.mgrid[:height, :width]
    out = np.empty((height, width, 3))
    for c in range(3):
        out[..., c] = 120 + 70 * np.sin(x / rng.uniform(9, 40) + y / rng.uniform(9, 40))
    for _ in range(6):
        inside = (x - rng.uniform(0, width)) ** 2 + (y - rng.uniform(0, height)) ** 2
        out[inside < rng.uniform(5, 25) ** 2] = rng.uniform(0, 255, size=3)
    return np.clip(out + rng.normal(0, 4, out.shape), 0, 255).astype(np.uint8)


def crop(rng: np.random.Generator, path: Path) -> np.ndarray:
    """uint8 (h, w, 3): a piece of a photo, as large as `draw_scene`."""
    with Image.open(path) as image:
        height, width = (int(n) for n in rng.integers(LOW, HIGH, size=2, endpoint=True))
        left = int(rng.integers(0, max(image.width - width, 0) + 1))
        top = int(rng.integers(0, max(image.height - height, 0) + 1))
        return np.asarray(image.convert("RGB").crop((left, top, left + width, top + height)))


def _encode_pillow(pixels: np.ndarray, kind: str, mode: str = "RGB", **how: Any) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    if "A" in mode:
        y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
        image.putalpha(Image.fromarray(((x + y) % 256).astype(np.uint8)))
    (image if mode in (image.mode, "PA") else image.convert(mode)).save(buffer, kind, **how)
    return buffer.getvalue()


def _encode_heic(pixels: np.ndarray) -> bytes:
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(buffer, quality=80)
    return buffer.getvalue()


def _encode_tiff(pixels: np.ndarray, **how: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, photometric="rgb", **how)
    return buffer.getvalue()


def _split_planes(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels.astype(np.uint16).transpose(2, 0, 1)) * 257


def _make_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


FORMATS: Mapping[str, list[Callable[[np.ndarray], bytes]]] = {
    "jpg": [
        lambda p: _encode_pillow(p, "JPEG", quality=90),
        lambda p: _encode_pillow(p, "JPEG", quality=75, progressive=True, exif=_make_exif(6)),
        lambda p: _encode_pillow(p, "JPEG", "L", quality=80, restart_marker_blocks=4),
        lambda p: _encode_pillow(p, "JPEG", "CMYK", quality=85),
    ],
    "png": [
        lambda p: _encode_pillow(p, "PNG"),
        lambda p: _encode_pillow(p, "PNG", "RGBA"),
        lambda p: _encode_pillow(p, "PNG", "P"),
        lambda p: _encode_pillow(p[..., 0].astype(np.uint16) * 257, "PNG", "I;16"),
    ],
    "webp": [
        lambda p: _encode_pillow(p, "WEBP", quality=80),
        lambda p: _encode_pillow(p, "WEBP", lossless=True, exif=_make_exif(3)),
        lambda p: _encode_pillow(p, "WEBP", "RGBA", quality=70),
    ],
    "tif": [
        lambda p: _encode_tiff(_split_planes(p), planarconfig="separate"),
        lambda p: _encode_tiff(_split_planes(p), planarconfig="separate", byteorder=">"),
        lambda p: _encode_tiff(p, bigtiff=True),
        lambda p: _encode_pillow(p, "TIFF", compression="tiff_lzw"),
        lambda p: _encode_pillow(p, "TIFF", compression="jpeg"),
        lambda p: _encode_pillow(p, "TIFF", "RGBA", compression="tiff_adobe_deflate"),
    ],
    "gif": [
        lambda p: _encode_pillow(p, "GIF", "P"),
        lambda p: _encode_pillow(
            p, "GIF", "P", save_all=True, append_images=[Image.fromarray(p[::-1])]
        ),
    ],
    "bmp": [lambda p: _encode_pillow(p, "BMP"), lambda p: _encode_pillow(p, "BMP", "P")],
    "avif": [
        lambda p: _encode_pillow(p, "AVIF", quality=70),
        lambda p: _encode_pillow(p, "AVIF", "RGBA"),
    ],
    "heic": [_encode_heic],
}
"""Encoders by suffix, each from uint8 (h, w, 3)."""


# Damage


def flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip 1 to 64 bits, in half of the files only near the start, where the headers are."""
    out = bytearray(data)
    end = min(len(out), 256) if rng.random() < 0.5 else len(out)
    for _ in range(int(2 ** rng.uniform(0, 6))):
        out[int(rng.integers(end))] ^= 1 << int(rng.integers(8))
    return bytes(out)


def truncate(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut off the end: any number of bytes; for a fifth of the files less than 16."""
    few = rng.random() < 0.2
    return data[: max(1, len(data) - int(rng.integers(1, 16 if few else len(data))))]


def swap_chunks(data: bytes, rng: np.random.Generator) -> bytes:
    """Exchange two chunks of the file."""
    spans = list_chunks(data)
    if len(spans) < 2:
        spans = _divide(data)
    one, other = sorted(rng.choice(len(spans), size=2, replace=False))
    (a, b), (c, d) = spans[one], spans[other]
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def repair_checksums(data: bytes) -> bytes:
    """A damaged PNG with the checksums of its damaged chunks, so that it is decoded."""
    out = bytearray(data)
    for start, end in _list_by_length(data, 8, lambda at: _read_int(data, at, ">I") + 12):
        if end - start >= 12:
            struct.pack_into(">I", out, end - 4, zlib.crc32(data[start + 4 : end - 4]))
    return bytes(out)


DAMAGES = {"bits": flip_bits, "cut": truncate, "swap": swap_chunks}


def list_chunks(data: bytes) -> Spans:
    """Start and end of each chunk of a file, by its format; equal parts if it has no chunks."""
    if data.startswith(b"\xff\xd8"):
        return list(_list_jpeg_segments(data))
    if data.startswith(b"\x89PNG"):
        return list(_list_by_length(data, 8, lambda at: _read_int(data, at, ">I") + 12))
    if data.startswith(b"RIFF"):
        return list(_list_by_length(data, 12, lambda at: _read_int(data, at + 4, "<I") + 9 & ~1))
    if data[4:8] == b"ftyp":
        return list(_list_boxes(data))
    if data[:4] in (b"II*\0", b"MM\0*"):
        order = "<" if data[:2] == b"II" else ">"
        first = _read_int(data, 4, order + "I")
        num = _read_int(data, first, order + "H")
        return [(first + 2 + 12 * i, first + 14 + 12 * i) for i in range(num)]
    return _divide(data)


def _read_int(data: bytes, at: int, kind: str) -> int:
    return struct.unpack_from(kind, data, at)[0]


def _list_by_length(
    data: bytes, start: int, length: Callable[[int], int]
) -> Iterator[tuple[int, int]]:
    while start + 8 <= len(data):
        end = min(start + length(start), len(data))
        yield start, end
        start = end


def _list_jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """The segments up to the start of scan, and the rest as one."""
    at = 2
    while data[at + 1] != 0xDA:
        end = at + 2 + _read_int(data, at + 2, ">H")
        yield at, end
        at = end
    yield at, len(data)


def _list_boxes(data: bytes) -> Iterator[tuple[int, int]]:
    """The boxes of the file, and those inside `meta`, which describe the relation of its parts."""
    for start, end in _list_by_length(data, 0, lambda at: _read_int(data, at, ">I")):
        if data[start + 4 : start + 8] == b"meta":
            inside = data[:end]
            yield from _list_by_length(inside, start + 12, lambda at: _read_int(data, at, ">I"))
        else:
            yield start, end


def _divide(data: bytes) -> Spans:
    step = max(len(data) // 16, 1)
    return [(at, min(at + step, len(data))) for at in range(0, len(data), step)]


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders of files that were made."""

    damaged: Path
    sound: Path
    masks: Path
    """By the stems of both."""


def make(folder: Path, num: int, seed: int, data: Path | None = None) -> Folders:
    """Write `num` damaged files, the intact files from which they are made, and a mask for each."""
    made = Folders(*(folder / name for name in ("damaged", "sound", "masks")))
    for place in (made.damaged, made.sound, made.masks):
        place.mkdir(parents=True)
    photos = sorted((data / "photos").rglob("*.jpg")) if data else []
    suffixes, damages = list(FORMATS), list(DAMAGES)
    for number in range(num):
        rng = np.random.default_rng([seed, number])
        suffix, turn = suffixes[number % len(suffixes)], number // len(suffixes)
        damage = damages[turn % len(damages)]
        encode = FORMATS[suffix][turn // len(damages) % len(FORMATS[suffix])]
        from_photo = photos and rng.random() < 0.3
        pixels = crop(rng, photos[rng.integers(len(photos))]) if from_photo else draw_scene(rng)
        sound = encode(pixels)
        stem = f"{number:04}-{damage}"
        (made.sound / f"{stem}.{suffix}").write_bytes(sound)
        damaged = DAMAGES[damage](sound, rng)
        if suffix == "png" and rng.random() < 0.5:
            damaged = repair_checksums(damaged)
        (made.damaged / f"{stem}.{suffix}").write_bytes(damaged)
        height, width = read_image(sound).pixels.shape[:2]
        hole = np.zeros((height, width), np.uint8)
        hole[height // 3 : height // 2, width // 3 : width // 2] = 255
        Image.fromarray(hole).save(made.masks / f"{stem}.png")
    return made


# Runs


@dataclass(slots=True)
class Outcome:
    """The result of one run."""

    done: Counter[str] = field(default_factory=Counter)
    """Files that were examined or filled, by suffix."""
    refused: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def execute(
    command: list[str], environment: Mapping[str, str], seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run a command; raises `subprocess.TimeoutExpired` when it takes longer."""
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=seconds,
        env=environment, check=False,
    )  # fmt: skip


def run(arguments: list[str], photos: Path, of: Path) -> Outcome:
    """Run `overpaint` over `photos`, and compare its records with the files.

    of: the folder of the files that errors may name in addition to the photos (the masks).
    """
    files = sorted(photos.iterdir())
    before = {path: path.read_bytes() for path in (*files, *of.iterdir())}
    out = Outcome()
    limit = SECONDS_TO_START + SECONDS_A_FILE * len(files)
    environment = os.environ | {"OVERPAINT_MAX_PIXELS": str(MAX_PIXELS), "PYTHONFAULTHANDLER": "1"}
    command = [sys.executable, "-m", "overpaint", *arguments, "--json"]
    try:
        ended = execute(command, environment, limit)
    except subprocess.TimeoutExpired:
        out.faults.append(f"no end after {limit} s")
        return out
    records = _read_records(ended.stdout, out)
    for path in files:
        _check_records(path, records.pop(str(path), []), of, out)
    out.faults += [f"{name}: a record of no file" for name in records]
    wanted = int(out.refused.total() > 0)
    if ended.returncode != wanted:
        out.faults.append(f"exit status {ended.returncode}, not {wanted}")
    stray = [line for line in ended.stderr.splitlines() if not _OURS.fullmatch(line)]
    out.faults += [f"on stderr: {line}" for line in stray]
    changed = [path for path, data in before.items() if path.read_bytes() != data]
    out.faults += [f"{path}: the input was changed" for path in changed]
    return out


def _read_records(text: str, out: Outcome) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for line in text.splitlines():
        try:
            record = json.loads(line)
            found.setdefault(record["file"], []).append(record)
        except (ValueError, KeyError, TypeError):
            out.faults.append(f"no record: {line}")
    return found


def _check_records(path: Path, records: list[dict[str, Any]], of: Path, out: Outcome) -> None:
    suffix = path.suffix[1:]
    if len(records) != 1:
        out.faults.append(f"{path}: {len(records)} records")
        return
    (record,) = records
    if "error" in record:
        out.refused[suffix] += 1
        if not any(str(named) in record["error"] for named in (path, of / path.stem)):
            out.faults.append(f"{path}: the error does not name it: {record['error']}")
        return
    out.done[suffix] += 1
    if not record["words"]:
        out.faults.append(f"{path}: no words")
    if "out" in record:
        out.faults += _find_changed(path, record)


def _find_changed(path: Path, record: Mapping[str, Any]) -> Iterator[str]:
    """Faults of a filled picture: another size, or changed pixels far from the hole."""
    photo, filled = read_image(path), read_image(record["out"])
    if filled.pixels.shape != photo.pixels.shape:
        yield f"{path}: filled at another size, {filled.pixels.shape}"
        return
    hole = np.pad(read_mask(record["mask"]) == 1, FAR)
    height, width = photo.pixels.shape[:2]
    near = np.zeros((height, width), bool)
    rows, columns = np.nonzero(hole)
    if rows.size:
        top, left = (max(int(n.min()) - 2 * FAR, 0) for n in (rows, columns))
        near[top : rows.max() + 1, left : columns.max() + 1] = True
    if (filled.pixels[~near] != photo.pixels[~near]).any():
        yield f"{path}: pixels far from the hole were changed"


def fuzz(
    folder: Path, num: int, seed: int, data: Path | None = None, inpainter: str = "safepaint-s"
) -> dict[str, Outcome]:
    """Make the files in `folder`, and do all three runs; outcomes by the name of the run."""
    made = make(folder, num, seed, data)
    results = {name: str(folder / name) for name in ("found", "filled", "filled by mask")}
    fill = ["inpaint", "--model", inpainter, "--out"]
    return {
        "detect": run(
            ["detect", str(made.damaged), "--out", results["found"]], made.damaged, made.masks
        ),
        "inpaint": run(
            [*fill, results["filled"], str(made.damaged), "--masks", str(made.masks)],
            made.damaged,
            made.masks,
        ),
        "inpaint, as masks": run(
            # As masks, pictures have many specks; grown, they would cover the whole photo.
            [
                *(*fill, results["filled by mask"], "--dilate", "0"),
                *(str(made.sound), "--masks", str(made.damaged)),
            ],
            made.sound,
            made.damaged,
        ),
    }


def main(
    seed: Annotated[int, typer.Option(min=0, help="Of pictures and damage.")] = 0,
    num: Annotated[int, typer.Option(min=1, help="Damaged files.")] = 200,
    data: Annotated[
        Path | None, typer.Option(help="Folder with photos/, to cut pieces from.")
    ] = None,
    inpainter: Annotated[
        str, typer.Option(help="What fills: as inpaint's --model.")
    ] = "safepaint-s",
    keep: Annotated[
        Path | None, typer.Option(help="New folder for the files. Default: a temporary one.")
    ] = None,
) -> None:
    """Damage files, run the commands on them, and print the faults."""
    with tempfile.TemporaryDirectory() as temporary:
        outcomes = fuzz((keep or Path(temporary)).resolve(), num, seed, data, inpainter)
    typer.echo(f"{num} damaged files, seed {seed}: done + refused")
    typer.echo(f"{'':<18}" + "".join(f"{suffix:>9}" for suffix in FORMATS) + f"{'faults':>9}")
    for name, out in outcomes.items():
        cells = (f"{out.done[suffix]} + {out.refused[suffix]}" for suffix in FORMATS)
        typer.echo(f"{name:<18}" + "".join(f"{c:>9}" for c in cells) + f"{len(out.faults):>9}")
    faults = [f"{name}: {fault}" for name, out in outcomes.items() for fault in out.faults]
    for fault in faults[:SHOWN]:
        typer.echo(fault, err=True)
    if len(faults) > SHOWN:
        typer.echo(f"and {len(faults) - SHOWN} more", err=True)
    raise typer.Exit(int(bool(faults)))


if __name__ == "__main__":
    typer.run(main)
