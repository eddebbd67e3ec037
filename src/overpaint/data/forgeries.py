"""The folders that `overpaint forge` writes, as training and evaluation read them.

A forgery belongs to the part (train, validation, test) of the photo that it was made from; what was
left out of the photos by its name is left out here, too.
"""

from collections.abc import Collection
from pathlib import Path

from pydantic import ConfigDict

from overpaint.data.samples import SampleRow, read_rows
from overpaint.data.sources import Part, find_file_name, split
from overpaint.errors import ConfigError


class ForgedRow(SampleRow):
    """What is needed of a line of the manifest; see `evaluation.forge.Forgery`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    index: int
    original: str
    """Path in the folder, as are `mask` and `inpainted`."""
    mask: str
    inpainted: str
    photo: str
    part: Part | None = None
    """Of the photo, where it was not divided by its name."""
    inpainter: str

    @property
    def number(self) -> int:
        return self.index

    @property
    def files(self) -> tuple[str, ...]:
        return self.original, self.mask, self.inpainted


def read_forgeries(
    folder: Path, part: Part, exclude: Collection[str] = (), seed: int = 0
) -> list[ForgedRow]:
    """The forgeries of one part's photos; exclude: file names of photos. seed: see `split`.

    Raises ConfigError when there is none, and where the part of a photo cannot be told.
    """
    rows = read_rows(folder, ForgedRow)
    if not rows:
        raise ConfigError(f"{folder} holds no forgeries; see `overpaint forge`")
    if unknown := [r.photo for r in rows if r.part is None and not has_folder(r.photo)]:
        raise ConfigError(
            f"{folder}: the manifest names {len(unknown)} photos without their folder, as "
            f"{unknown[0]}, so that it cannot be told whether they are test photos; forge them "
            "again"
        )
    photos = set(split((row.photo for row in rows if row.part is None), part, seed))
    unwanted = {find_file_name(path) for path in exclude}
    of_part = [r for r in rows if (r.photo in photos if r.part is None else r.part == part)]
    kept = [r for r in of_part if find_file_name(r.photo) not in unwanted]
    if not kept:
        raise ConfigError(
            f"none of the {len(rows)} forgeries in {folder} is of a photo of the {part} part; "
            "forge more photos"
        )
    return kept


def has_folder(name: str) -> bool:
    """Whether a photo's name says in which folder it lies, whatever the current folder is."""
    parts = name.replace("\\", "/").replace("::", "/").split("/")
    return len(parts) > 1 and parts[-2] not in (".", "..")
