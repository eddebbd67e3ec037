"""Lineage: which weights a file of weights was made from, with which recipe, code and photos.

- A record names its parents: the weights that its training went on from (share 1), or those that it
  is the mean of.
- It also repeats the records of all earlier generations (`ancestors`), because intermediate weights
  are rarely kept. One record therefore holds the whole history.
- What is not known is None.
"""

from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict, Field

DIGITS = 12
"""Hexadecimal digits of a sha256 that tell weights apart, in print and in early records."""


class Parent(BaseModel):
    """Weights that others were made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str = Field(pattern="^[0-9a-f]{12,64}$")
    """Of its file; only the first 12 digits where no more were recorded."""
    share: float = Field(gt=0, le=1)
    """Of the mean; 1 for a training that went on from this parent."""


class Lineage(BaseModel):
    """How one file of weights was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str = Field(pattern="^[0-9a-f]{12,64}$")
    """As of `Parent`."""
    parents: tuple[Parent, ...] = ()
    """Empty for a training that started from random weights, and for imported weights."""
    new_parts: tuple[str, ...] = ()
    """Parts of the network that its parent does not have."""
    recipe: str | None = None
    """Path of the recipe that trained it; None where nothing was trained (means, imports)."""
    overrides: tuple[str, ...] = ()
    """Changes to the recipe, "key.subkey=value" each."""
    config_hash: str | None = None
    """`training.config.hash_config` of recipe and overrides."""
    step: int | None = None
    """Training steps after which the weights were taken."""
    data_sha256: str | None = None
    """`data.sources.hash_data_list` of the training photos."""
    commit: str | None = None
    """Commit of this project that made or imported it."""

    def as_parent(self, share: float = 1) -> Parent:
        """This file as the parent of another one."""
        return Parent(name=self.name, sha256=self.sha256, share=share)

    def describe(self) -> str:
        """In a line: name, sha256, and how it was made."""
        words = [self.name, self.sha256[:DIGITS]]
        if self.recipe:
            words.append(" --set ".join([self.recipe, *self.overrides]))
        elif len(self.parents) > 1:
            words.append("mean")
        if self.new_parts:
            words.append(f"new parts: {', '.join(self.new_parts)}")
        facts = [f"config {self.config_hash}"] if self.config_hash else []
        facts += [f"step {self.step}"] if self.step is not None else []
        if facts:
            words.append(f"({', '.join(facts)})")
        return "  ".join(words)


def merge_ancestors(generations: Iterable[Iterable[Lineage]]) -> tuple[Lineage, ...]:
    """All entries, each once by its sha256, in their order: the oldest of each history first."""
    found: dict[str, Lineage] = {}
    for entry in (entry for entries in generations for entry in entries):
        found.setdefault(entry.sha256[:DIGITS], entry)
    return tuple(found.values())


def render_tree(root: Lineage, ancestors: Iterable[Lineage]) -> Iterator[str]:
    """Lines: `root`, its parents below it, theirs below them, each level two spaces further in.

    A parent that no ancestor describes is a line with all that is known of its sha256. What stands
    in the tree a second time has "see above" instead of its parents.
    """
    known = {entry.sha256[:DIGITS]: entry for entry in ancestors}
    shown: set[str] = set()

    def render_below(entry: Lineage, indent: str) -> Iterator[str]:
        for parent in entry.parents:
            key = parent.sha256[:DIGITS]
            share = f"{indent}{parent.share:g} of " if parent.share < 1 else f"{indent}from "
            if key not in known:
                yield f"{share}{parent.name}  sha256 {parent.sha256}"
            elif key in shown:
                yield f"{share}{parent.name}  {key}  see above"
            else:
                shown.add(key)
                yield f"{share}{known[key].describe()}"
                yield from render_below(known[key], indent + "  ")

    yield root.describe()
    yield from render_below(root, "  ")
