"""A folder of numbered samples: files, a manifest, and the settings that all of them depend on.

    KIND/000123.png    one file for each kind of content
    manifest.jsonl     one row a line, in the order of the numbers
    about.json         what every sample depends on besides its number

- A sample depends on about.json and its number alone, and every process computes on one thread, so
  that the bytes are the same whatever the number of workers.
- A file appears whole or not at all, and a row after its files: an interrupted folder is filled
  up by the same call, a larger number adds to it, and another about.json is refused.
"""

import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch.utils.data import DataLoader, Dataset

from overpaint.errors import ConfigError, OverpaintError
from overpaint.images import write_bytes

ABOUT, MANIFEST = "about.json", "manifest.jsonl"


class SampleRow(BaseModel):
    """One sample; a line of the manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    @abstractmethod
    def number(self) -> int:
        """Its number."""

    @property
    @abstractmethod
    def files(self) -> tuple[str, ...]:
        """Paths in the folder."""


R = TypeVar("R", bound=SampleRow)


def claim(folder: Path, about: Mapping[str, Any], kinds: Iterable[str]) -> None:
    """Make the folder ours, or see that it is already: raises ConfigError.

    about: what JSON can hold. kinds: names of the folders for the files.
    """
    path, kinds = folder / ABOUT, tuple(kinds)
    if path.exists():
        found = _read_about(path)
        other = [key for key in {**about, **found} if found.get(key) != about.get(key)]
        if other:
            raise ConfigError(
                f"{folder}: holds samples made otherwise (not the same: {', '.join(other)}); "
                "choose another folder, or delete this one to make it anew"
            )
    elif taken := [name for name in (*kinds, MANIFEST) if (folder / name).exists()]:
        raise ConfigError(
            f"{folder}: holds {', '.join(taken)} but no {ABOUT}, so it was not made here; "
            "choose another folder"
        )
    try:
        for kind in kinds:
            (folder / kind).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"cannot be made ({error.strerror})"
        raise ConfigError(f"{error.filename}: {reason}; choose another folder") from error
    write_bytes(path, (json.dumps(about, indent=2) + "\n").encode())


def _read_about(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); choose another folder") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: holds no settings of samples; choose another folder")
    return found


def read_rows(folder: Path, kind: type[R]) -> list[R]:
    """The rows of a folder, without a line that an interruption cut short."""
    path = folder / MANIFEST
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(kind.model_validate_json(line))
        except ValidationError:
            continue
    return rows


def fill(
    folder: Path,
    kind: type[R],
    make: Callable[[int], R],
    *,
    num: int,
    workers: int = 0,
    go_on: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[R], list[OverpaintError]]:
    """Make what is missing of the samples 0 to num - 1; -> all rows, and what failed.

    make: writes the files of one sample and returns its row. workers: processes beside this one,
    to which `make` is sent. go_on: past a sample that raises OverpaintError, which is raised here
    otherwise. progress: called with the number of samples done and `num`.
    """
    rows = {row.number: row for row in read_rows(folder, kind) if _is_complete(folder, row)}
    _write_rows(folder, rows)
    missing = [number for number in range(num) if number not in rows]
    failed: list[OverpaintError] = []
    loader = DataLoader(
        _Made(make), sampler=missing, batch_size=None, num_workers=workers, collate_fn=_pass_through
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the workers: sums in another order round differently
    try:
        with (folder / MANIFEST).open("a", encoding="utf-8") as manifest:
            for done, made in enumerate(loader, num - len(missing) + 1):
                if not isinstance(made, OverpaintError):
                    rows[made.number] = made
                    manifest.write(made.model_dump_json() + "\n")
                    manifest.flush()
                elif go_on:
                    failed.append(made)
                else:
                    raise made
                progress(done, num)
    finally:
        torch.set_num_threads(threads)
    return _write_rows(folder, rows), failed


def make_printable(text: str) -> str:
    """File names need not be valid Unicode; JSON must be."""
    return text.encode("utf-8", "replace").decode("utf-8")


class _Made(Dataset["SampleRow | OverpaintError"]):
    """Errors are returned: raised in a worker, they would come with its traceback as their text."""

    def __init__(self, make: Callable[[int], SampleRow]) -> None:
        self.make = make

    def __getitem__(self, number: int) -> "SampleRow | OverpaintError":
        try:
            return self.make(number)
        except OverpaintError as error:
            return error


def _pass_through(item: Any) -> Any:
    return item


def _is_complete(folder: Path, row: SampleRow) -> bool:
    return all((folder / file).is_file() for file in row.files)


def _write_rows(folder: Path, rows: Mapping[int, R]) -> list[R]:
    ordered = [rows[number] for number in sorted(rows)]
    lines = "".join(row.model_dump_json() + "\n" for row in ordered)
    write_bytes(folder / MANIFEST, lines.encode())
    return ordered
