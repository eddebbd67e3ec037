"""Where the sets that a recipe takes by name are from; docs/data.md is made from it.

`named_sets.yaml` beside this module is the only place that describes them. Unlike the sets of
`datasets.yaml`, no list of their files is known here, so that nothing can be checked by hash.
"""

from functools import lru_cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

MANIFEST = Path(__file__).with_name("named_sets.yaml")


class NamedSet(BaseModel):
    """One set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: str
    """As a recipe names it, ROOT for the user's folder."""
    kind: Literal["photos", "masks", "pairs"]
    title: str
    address: str
    licence: str
    size: str
    layout: str
    split: str
    """The official one, in words."""
    unchecked: str
    """What could not be seen, or compared with the files."""

    @property
    def name(self) -> str:
        return self.spec.partition(":")[0]


@lru_cache(maxsize=1)
def list_named_sets() -> tuple[NamedSet, ...]:
    """All of them, in the order of the manifest."""
    return tuple(NamedSet(**each) for each in yaml.safe_load(MANIFEST.read_text(encoding="utf-8")))
