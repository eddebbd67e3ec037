"""The cache: a folder for each result, by the hash of all that it depends on.

    CACHE/KIND/KEY/         what a stage wrote
    CACHE/KIND/KEY/made.json    written last: how it was made; without it the folder is unfinished
    CACHE/cuda/KIND/KEY/        the same of a graphics card, which rounds differently

- `Stage.key` is the hash of a stage's settings and of the keys of what it needs; `Stage.code` that
  of its code and of theirs. A result of other code is made anew, unless an old run is resumed.
- A folder that the same code left unfinished is gone on with (a training from its checkpoint, fills
  from the last one); what other code left is deleted first.
- `made.json` states settings, commit and time; the time a run still takes is told from these.
- One command at a time works in a cache: it holds a lock, which ends with it.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from overpaint import hashes
from overpaint.errors import ConfigError
from overpaint.images import write_bytes

ABOUT, BEGUN, FAILED = "made.json", "begun.json", "failed.json"
"""No stage writes files of these names: a folder of fills has an about.json of its own."""


@dataclass(frozen=True, eq=False)
class Stage:
    """One thing to make: a node of the graph."""

    kind: str
    label: str
    """What it is, for people; no part of the key."""
    settings: Mapping[str, Any]
    """All that it depends on beside `needs`, as JSON."""
    needs: Mapping[str, "Stage"] = field(default_factory=dict)
    """By the role that they have for it."""
    places: Mapping[str, Any] = field(default_factory=dict)
    """Paths on this machine, whose content `settings` names."""
    own_code: str = ""
    units: int = 1
    """How much work it is: steps or pictures."""
    pace: str = ""
    """What a unit's time depends on."""

    @cached_property
    def key(self) -> str:
        needs = {role: stage.key for role, stage in self.needs.items()}
        values = {"kind": self.kind, "settings": self.settings, "needs": needs}
        return hashes.sha256(json.dumps(values, sort_keys=True).encode())[:24]

    @cached_property
    def code(self) -> str:
        parts = [self.own_code, *(s.code for _, s in sorted(self.needs.items()))]
        return hashes.sha256(" ".join(parts).encode())[:16]

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stage) and other.key == self.key


@dataclass(frozen=True, slots=True)
class Store:
    """The folders of a cache."""

    root: Path
    resume: bool = False
    """Whether results of other code count, and failures are not tried again."""
    device: str = "cpu"
    """Of the networks."""

    @property
    def device_kind(self) -> str:
        """As `device`, without a number."""
        return self.device.partition(":")[0]

    @property
    def _folder(self) -> Path:
        """Of the device's results."""
        return self.root if self.device_kind == "cpu" else self.root / self.device_kind

    def find_folder(self, stage: Stage) -> Path:
        """Where a stage's result is, or will be."""
        return self._folder / stage.kind / stage.key

    def read_about(self, stage: Stage) -> dict[str, Any] | None:
        """How a result was made; None where there is none that counts."""
        found = _read(self.find_folder(stage) / ABOUT)
        return found if found and (self.resume or found["code"] == stage.code) else None

    def read_failure(self, stage: Stage) -> str | None:
        """Why it failed before, where that counts."""
        found = _read(self.find_folder(stage) / FAILED) if self.resume else None
        return found["error"] if found else None

    def begin(self, stage: Stage) -> Path:
        """Its folder, emptied where other code began it."""
        folder = self.find_folder(stage)
        begun = _read(folder / BEGUN)
        if folder.exists() and (begun is None or begun["code"] != stage.code):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ABOUT).unlink(missing_ok=True)
        (folder / FAILED).unlink(missing_ok=True)
        _write(folder / BEGUN, {"code": stage.code})
        return folder

    def finish(self, stage: Stage, commit: str, seconds: float, info: Mapping[str, Any]) -> None:
        """Say that the result is whole."""
        about = {
            "label": stage.label,
            "settings": stage.settings,
            "needs": {role: s.key for role, s in stage.needs.items()},
            "code": stage.code,
            "commit": commit,
            "seconds": round(seconds, 3),
            "units": stage.units,
            "pace": stage.pace,
            "info": info,
        }
        _write(self.find_folder(stage) / ABOUT, about)

    def fail(self, stage: Stage, error: str) -> None:
        """Note why it failed; what it wrote stays, to go on with."""
        self.find_folder(stage).mkdir(parents=True, exist_ok=True)
        _write(self.find_folder(stage) / FAILED, {"error": error})

    def measure_paces(self) -> dict[str, float]:
        """Seconds a unit takes, by kind and pace, from all results of the device."""
        totals: dict[str, tuple[float, int]] = {}
        for path in self._folder.glob(f"*/*/{ABOUT}"):
            if about := _read(path):
                pace = about["pace"]
                seconds, units = totals.get(pace, (0.0, 0))
                totals[pace] = (seconds + about["seconds"], units + about["units"])
        return {pace: seconds / max(units, 1) for pace, (seconds, units) in totals.items()}

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Context in which no other command works here; raises ConfigError where one does."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("ab") as file:
            try:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:  # Windows
                pass
            except OSError as error:
                raise ConfigError(
                    f"{self.root}: another `overpaint benchmark` or `harden` works in this cache; "
                    "wait for it, or give another --cache"
                ) from error
            yield


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write(path: Path, values: Mapping[str, Any]) -> None:
    write_bytes(path, (json.dumps(values, indent=1) + "\n").encode())
