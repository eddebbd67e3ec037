"""Universal samples as files: pictures, masks, and a manifest that says how each was made.

    images/000123.png  the picture, RGB
    masks/000123.png   255 = redrawn, 0 = untouched
    manifest.jsonl     one `Row` a line, in the order of the numbers
    about.json         what every sample depends on: settings, weights, photos, seed

- PNG is lossless: with degradations off, a picture equals its photo outside the mask, bit for bit.
- A sample depends on the settings, the seed and its number alone, and every process computes on
  one thread, so that the bytes are the same whatever the number of workers.
- A file appears whole or not at all, and a row after its files: an interrupted folder is filled
  up by the same call, a larger `num` adds to it, and other settings are refused.
- A photo that cannot be read is passed over for another one; its row says so.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch.utils.data import DataLoader, Dataset

from overpaint import __version__
from overpaint.data.bank import bank_sha256, load_bank
from overpaint.data.degrade import Step
from overpaint.data.masks import hole_ratio
from overpaint.data.sources import PhotoSource
from overpaint.data.universal import (
    LivePairs,
    Sample,
    UniversalConfig,
    UniversalDataset,
    mask_mixture,
)
from overpaint.errors import ConfigError, ImageError, OverpaintError
from overpaint.images import write_bytes, write_png
from overpaint.origin import config_hash

ABOUT, MANIFEST = "about.json", "manifest.jsonl"
RETRY = 10**9
"""What is added to a sample's index to draw it again, from another photo."""
MAX_TRIES = 100


class Row(BaseModel):
    """One sample; a line of the manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: str
    """Path in the folder, as is `mask`."""
    mask: str
    image_sha256: str
    mask_sha256: str
    source: str
    """The photo."""
    redrawn_by: str
    """The autoencoder or trace; "" for an untouched photo."""
    history: tuple[Step, ...]
    """What happened to the photo before the blend, for `degrade.replay`."""
    degradations: tuple[Step, ...]
    """What happened to the picture after the blend, for `degrade.replay`."""
    seed: int
    index: int
    """`UniversalDataset.sample(index)` with this seed and the settings of about.json is the
    sample: the number in its name, plus a multiple of `RETRY` where photos were passed over."""
    mask_ratio: float
    """Share of the pixels that are redrawn, 0..1."""
    width: int
    height: int
    passed_over: tuple[str, ...] = ()
    """Photos that could not be read, and why."""

    @property
    def number(self) -> int:
        return self.index % RETRY


def synthesize(
    folder: Path,
    photos: PhotoSource,
    config: UniversalConfig,
    *,
    num: int,
    seed: int = 0,
    assets: Path = Path(),
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Fill `folder` with the samples 0 to num - 1, or go on filling it; -> all of its rows.

    assets: where the taef2:, objects: and keep: folders of `config` lie. workers: processes
    beside this one. progress: called with the number of samples done and `num`.

    Raises ConfigError when the folder holds anything else, WeightsError and InputError for what
    `config` names and is not there, ImageError when too few photos can be read.
    """
    dataset = _dataset(photos, config, seed, assets)
    _claim(folder, _about(photos, config, seed, assets))
    rows = {row.number: row for row in read_manifest(folder) if _complete(folder, row)}
    _write_manifest(folder, rows)
    missing = [number for number in range(num) if number not in rows]
    files = _Files(dataset, folder)
    loader = DataLoader(
        files, sampler=missing, batch_size=None, num_workers=workers, collate_fn=_as_it_is
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the workers: sums in another order round differently
    try:
        with (folder / MANIFEST).open("a", encoding="utf-8") as manifest:
            for done, row in enumerate(loader, num - len(missing) + 1):
                if isinstance(row, OverpaintError):
                    raise row
                rows[row.number] = row
                manifest.write(row.model_dump_json() + "\n")
                manifest.flush()
                progress(done, num)
    finally:
        torch.set_num_threads(threads)
    return _write_manifest(folder, rows)


def read_manifest(folder: Path) -> list[Row]:
    """The rows of a folder, without a line that an interruption cut short."""
    path = folder / MANIFEST
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(Row.model_validate_json(line))
        except ValidationError:
            continue
    return rows


def passed_over(rows: Iterable[Row]) -> list[str]:
    """What could not be read, each photo once."""
    return sorted({text for row in rows for text in row.passed_over})


class _Files(Dataset["Row | OverpaintError"]):
    """Makes sample `number`, writes its files, returns its row.

    Errors are returned: raised in a worker, they would come with its traceback as their text.
    """

    def __init__(self, samples: UniversalDataset, folder: Path) -> None:
        self.samples, self.folder = samples, folder

    def __getitem__(self, number: int) -> "Row | OverpaintError":
        try:
            index, sample, errors = self._draw(number)
            return self._write(number, index, sample, errors)
        except OverpaintError as error:
            return error

    def _draw(self, number: int) -> tuple[int, Sample, list[str]]:
        errors: list[str] = []
        for attempt in range(MAX_TRIES):
            index = number + attempt * RETRY
            try:
                return index, self.samples.sample(index), errors
            except ImageError as error:
                errors.append(_printable(str(error)))
        raise ImageError(
            f"{errors[-1]} (and {MAX_TRIES - 1} draws before it failed, too); give other photos"
        )

    def _write(self, number: int, index: int, sample: Sample, errors: list[str]) -> Row:
        names = [f"{kind}/{number:06d}.png" for kind in ("images", "masks")]
        paths = [self.folder / name for name in names]
        for path, pixels in zip(paths, (sample.pixels, sample.mask * 255), strict=True):
            write_png(path, pixels)
        hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
        return Row(
            image=names[0],
            mask=names[1],
            image_sha256=hashes[0],
            mask_sha256=hashes[1],
            source=_printable(sample.source),
            redrawn_by=sample.redrawn_by,
            history=sample.history,
            degradations=sample.degradations,
            seed=self.samples.seed,
            index=index,
            mask_ratio=hole_ratio(sample.mask),
            width=sample.pixels.shape[1],
            height=sample.pixels.shape[0],
            passed_over=tuple(dict.fromkeys(errors)),
        )


def _as_it_is(item: Any) -> Any:
    return item


def _dataset(
    photos: PhotoSource, config: UniversalConfig, seed: int, assets: Path
) -> UniversalDataset:
    bank = load_bank(config.bank, assets)
    crop = config.degrade.margin(config.size)
    pairs = LivePairs(photos, bank, config.bank, config.history, crop)
    return UniversalDataset(config, pairs, mask_mixture(config.masks, assets), seed)


def _about(photos: PhotoSource, config: UniversalConfig, seed: int, assets: Path) -> dict[str, Any]:
    names = [PurePosixPath(name.replace("\\", "/")).name for name in photos.names]
    values = config.model_dump(mode="json")
    return {
        "version": __version__,
        "config": values,
        "config_hash": config_hash(values),
        "bank_sha256": bank_sha256(config.bank, assets),
        "photos": {"number": len(names), "names_sha256": _sha256(names)},
        "seed": seed,
    }


def _claim(folder: Path, about: Mapping[str, Any]) -> None:
    """Make the folder ours, or see that it is already: raises ConfigError."""
    path = folder / ABOUT
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        other = [key for key, value in about.items() if found.get(key) != value]
        if other:
            raise ConfigError(
                f"{folder}: holds samples made otherwise (not the same: {', '.join(other)}); "
                "choose another folder, or delete this one to make it anew"
            )
    elif taken := [n for n in ("images", "masks", MANIFEST) if (folder / n).exists()]:
        raise ConfigError(
            f"{folder}: holds {', '.join(taken)} but no {ABOUT}, so it was not made here; "
            "choose another folder"
        )
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(about, indent=2) + "\n").encode())


def _complete(folder: Path, row: Row) -> bool:
    return (folder / row.image).is_file() and (folder / row.mask).is_file()


def _write_manifest(folder: Path, rows: Mapping[int, Row]) -> list[Row]:
    ordered = [rows[number] for number in sorted(rows)]
    lines = "".join(row.model_dump_json() + "\n" for row in ordered)
    write_bytes(folder / MANIFEST, lines.encode())
    return ordered


def _sha256(values: Any) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _printable(text: str) -> str:
    """File names need not be valid Unicode; JSON must be."""
    return text.encode("utf-8", "replace").decode("utf-8")
