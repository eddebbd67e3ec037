"""The data sets of recipes and tables: where they are from, and whether a folder holds them.

- `datasets.yaml` is the only place that describes them; docs/data.md and `overpaint data check`
  are made from it.
- A data set is known by the SHA-256 of the list of its files (as `sha256sum` prints it, sorted by
  path), so that one number tells whether somebody has the same pictures.
"""

import csv
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from overpaint import hashes
from overpaint.data.finding import list_below
from overpaint.errors import ConfigError

MANIFEST = Path(__file__).with_name("datasets.yaml")
State = Literal["complete", "missing", "incomplete", "different"]
SHOWN = 3
"""How many missing files a report names."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Index(_Frozen):
    """A CSV file of a data set that names its other files."""

    file: str
    paths: tuple[str, ...]
    """Columns that hold paths."""
    relative_to: Literal["data folder"]
    columns: dict[str, str]
    """Column -> what it holds."""
    made: str
    """How the file was made."""
    sources: tuple[str, ...]
    """Where the pictures are from."""


class Dataset(_Frozen):
    """One folder below the data folder."""

    folder: str
    title: str
    address: str | None
    """Home page; None where there is none, or several (`index.sources`)."""
    licence: str
    what: str
    used_for: str
    files: int = Field(ge=1)
    bytes: int = Field(ge=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """See `hash_files`."""
    index: Index | None = None

    @property
    def where(self) -> str:
        """Where to get it, in words."""
        if self.address is not None:
            return self.address
        if self.index is not None:
            return ", ".join(self.index.sources)
        return "no public address is known"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a folder holds of one data set."""

    dataset: Dataset
    state: State
    details: str = ""
    """What is missing or different, in words; "" when complete."""


@lru_cache(maxsize=1)
def list_datasets() -> tuple[Dataset, ...]:
    """All data sets, in the order of the manifest."""
    return tuple(Dataset(**each) for each in yaml.safe_load(MANIFEST.read_text(encoding="utf-8")))


def list_files(folder: Path) -> list[Path]:
    """The files of a folder, to the bottom, sorted by path (as bytes), without hidden ones.

    Raises OSError for a folder that cannot be read.
    """
    found = (p for p in list_below(folder) if p.is_file() and not p.name.startswith("."))
    return sorted(found, key=lambda p: p.relative_to(folder).as_posix().encode())


def hash_files(folder: Path) -> str:
    """The SHA-256 of the lines "SHA256  PATH\\n" of `list_files`, PATH relative to the folder."""
    total = hashlib.sha256()
    for path in list_files(folder):
        name = path.relative_to(folder).as_posix()
        total.update(f"{hashes.file_sha256(path)}  {name}\n".encode())
    return total.hexdigest()


def check_datasets(data: str | Path, only: tuple[str, ...] = ()) -> list[Finding]:
    """What a data folder holds of each data set; every file is read.

    only: folders of data sets, or what they start with ("photos"); all when empty. Raises
    ConfigError for a data folder that is none, an unknown name, and a file that cannot be read.
    """
    root = Path(data)
    if not root.is_dir():
        raise ConfigError(f"{root}: no such folder; name the one that holds photos/ and faces/")
    for name in only:
        if not any(_is_named(d, name) for d in list_datasets()):
            known = ", ".join(d.folder for d in list_datasets())
            raise ConfigError(f"no data set is called {name!r}; there are {known}")
    wanted = [d for d in list_datasets() if not only or any(_is_named(d, name) for name in only)]
    try:
        return [_check_dataset(root, dataset) for dataset in wanted]
    except OSError as error:
        raise ConfigError(
            f"{error.filename}: cannot be read ({error.strerror}); make it readable"
        ) from error


def _is_named(dataset: Dataset, name: str) -> bool:
    name = name.rstrip("/")
    return dataset.folder == name or dataset.folder.startswith(f"{name}/")


def _check_dataset(root: Path, dataset: Dataset) -> Finding:
    folder = root / dataset.folder
    num = len(list_files(folder)) if folder.is_dir() else 0
    if num == 0:
        return Finding(dataset, "missing", f"no files in {folder}")
    lost = _list_missing(root, dataset)
    if lost:
        names = ", ".join(lost[:SHOWN]) + (", ..." if len(lost) > SHOWN else "")
        return Finding(dataset, "incomplete", f"{len(lost)} files missing: {names}")
    if num < dataset.files:
        return Finding(dataset, "incomplete", f"{num} of {dataset.files} files")
    if hash_files(folder) != dataset.sha256:
        more = f"{num} files, {num - dataset.files} too many" if num > dataset.files else "files"
        return Finding(dataset, "different", f"{more} of other names or content")
    return Finding(dataset, "complete")


def _list_missing(root: Path, dataset: Dataset) -> list[str]:
    """Files that the index names, and the index itself, as far as they are not there."""
    if dataset.index is None:
        return []
    index = root / dataset.folder / dataset.index.file
    if not index.is_file():
        return [f"{dataset.folder}/{dataset.index.file}"]
    with index.open(newline="", encoding="utf-8", errors="replace") as file:
        lines = list(csv.DictReader(file))
    named = (line.get(column) for line in lines for column in dataset.index.paths)
    return [path for path in named if path and not (root / path).is_file()]
