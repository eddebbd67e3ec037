"""Universal samples as files: pictures, masks, and a manifest with the steps that made each one.

    images/000123.png  the picture, RGB
    masks/000123.png   255 = redrawn, 0 = untouched
    manifest.jsonl     one `UniversalRow` a line, in the order of the numbers
    about.json         what every sample depends on: settings, weights, photos, seed

- PNG is lossless: with degradations off, a picture equals its photo outside the mask, bit for bit.
- The rules of `overpaint.data.samples` hold: the same bytes whatever the number of workers, an
  interrupted folder is filled up by the same call, and other settings are refused.
- A photo that cannot be read is passed over for another one; its row says so.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from overpaint import __version__, hashes
from overpaint.data.bank import hash_bank, load_bank
from overpaint.data.degrade import Step
from overpaint.data.masks import hole_ratio
from overpaint.data.samples import SampleRow, claim, fill, make_printable, read_rows
from overpaint.data.sources import PhotoSource
from overpaint.data.universal import (
    LivePairs,
    Sample,
    UniversalConfig,
    UniversalDataset,
    make_mask_mixture,
)
from overpaint.errors import ImageError
from overpaint.images import write_png
from overpaint.run_identity import hash_config

RETRY = 10**9
"""What is added to a sample's index to draw it again, from another photo."""
MAX_TRIES = 100


class UniversalRow(SampleRow):
    """One sample; a line of the manifest."""

    image: str
    """Path in the folder, as is `mask`."""
    mask: str
    image_sha256: str
    mask_sha256: str
    source: str
    """The photo."""
    redrawn_by: str
    """As of `universal.Sample`: the autoencoder or trace, "" for an untouched photo."""
    history: tuple[Step, ...]
    """What happened to the photo before the blend, as of `degrade.replay`."""
    degradations: tuple[Step, ...]
    """What happened to the picture after the blend, as of `degrade.replay`. Where pieces were cut
    from, and a last turn or mirroring, are no steps: `index` gives the whole sample."""
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

    @property
    def files(self) -> tuple[str, ...]:
        return self.image, self.mask


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
) -> list[UniversalRow]:
    """Fill `folder` with the samples 0 to num - 1, or go on filling it; -> all of its rows.

    assets: where the taef2:, objects: and keep: folders of `config` lie. workers: processes
    beside this one. progress: called with the number of samples done and `num`.

    Raises ConfigError when the folder holds anything else, WeightsError and InputError for what
    `config` names and is not there, ImageError when too few photos can be read.
    """
    dataset = _make_dataset(photos, config, seed, assets)
    claim(folder, _describe(photos, config, seed, assets), ("images", "masks"))
    make = _Files(dataset, folder)
    return fill(folder, UniversalRow, make, num=num, workers=workers, progress=progress)[0]


def read_manifest(folder: Path) -> list[UniversalRow]:
    """The rows of a folder, without a line that an interruption cut short."""
    return read_rows(folder, UniversalRow)


def list_passed_over(rows: Iterable[UniversalRow]) -> list[str]:
    """What could not be read, each photo once."""
    return sorted({text for row in rows for text in row.passed_over})


class _Files:
    """Makes sample `number`, writes its files, returns its row."""

    def __init__(self, samples: UniversalDataset, folder: Path) -> None:
        self.samples, self.folder = samples, folder

    def __call__(self, number: int) -> UniversalRow:
        index, sample, errors = self._draw(number)
        return self._write(number, index, sample, errors)

    def _draw(self, number: int) -> tuple[int, Sample, list[str]]:
        errors: list[str] = []
        for attempt in range(MAX_TRIES):
            index = number + attempt * RETRY
            try:
                return index, self.samples.sample(index), errors
            except ImageError as error:
                errors.append(make_printable(str(error)))
        raise ImageError(
            f"{errors[-1]} (and {MAX_TRIES - 1} draws before it failed, too); give other photos"
        )

    def _write(self, number: int, index: int, sample: Sample, errors: list[str]) -> UniversalRow:
        names = [f"{kind}/{number:06d}.png" for kind in ("images", "masks")]
        paths = [self.folder / name for name in names]
        for path, pixels in zip(paths, (sample.pixels, sample.mask * 255), strict=True):
            write_png(path, pixels)
        digests = [hashes.file_sha256(path) for path in paths]
        return UniversalRow(
            image=names[0],
            mask=names[1],
            image_sha256=digests[0],
            mask_sha256=digests[1],
            source=make_printable(sample.source),
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


def _make_dataset(
    photos: PhotoSource, config: UniversalConfig, seed: int, assets: Path
) -> UniversalDataset:
    bank = load_bank(config.bank, assets)
    crop = config.degrade.find_margin(config.size)
    pairs = LivePairs(photos, bank, config.bank, config.history, crop)
    return UniversalDataset(config, pairs, make_mask_mixture(config.masks, assets), seed)


def _describe(
    photos: PhotoSource, config: UniversalConfig, seed: int, assets: Path
) -> dict[str, Any]:
    names = [PurePosixPath(name.replace("\\", "/")).name for name in photos.names]
    values = config.model_dump(mode="json")
    return {
        "version": __version__,
        "config": values,
        "config_hash": hash_config(values),
        "bank_sha256": hash_bank(config.bank, assets),
        "photos": {"number": len(names), "names_sha256": _hash_values(names)},
        "seed": seed,
    }


def _hash_values(values: Any) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashes.sha256(text.encode())
