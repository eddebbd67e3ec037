"""The folders that `overpaint forge` writes, as training and evaluation read them.

A forgery belongs to the part (train, validation, test) of the photo that it was made from; what was
left out of the photos by its name is left out here, too.
"""

from collections.abc import Collection
from pathlib import Path

from pydantic import ConfigDict

from overpaint.data.samples import SampleRow, read_rows
from overpaint.data.sources import Part, split
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

    Raises ConfigError when there is none.
    """
    rows = read_rows(folder, ForgedRow)
    if not rows:
        raise ConfigError(f"{folder} holds no forgeries; see `overpaint forge`")
    photos = set(split((row.photo for row in rows if row.part is None), part, seed))
    unwanted = {_find_file_name(path) for path in exclude}
    of_part = [r for r in rows if (r.photo in photos if r.part is None else r.part == part)]
    kept = [r for r in of_part if _find_file_name(r.photo) not in unwanted]
    if not kept:
        raise ConfigError(
            f"none of the {len(rows)} forgeries in {folder} is of a photo of the {part} part; "
            "forge more photos"
        )
    return kept


def _find_file_name(path: str) -> str:
    return path.replace("\\", "/").replace("::", "/").rsplit("/", 1)[-1]
