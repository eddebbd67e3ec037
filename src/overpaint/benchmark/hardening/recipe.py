"""A recipe of `overpaint harden`: who is in the loop, what is held out, and how a round goes.

One round: the inpainters of the loop, the adversary among them, fill holes in training photos; of
the fills, those that the detector does worst on are mined; the detector is trained further on
universal data and all that was mined so far; its threshold is fitted anew at the same false-alarm
rate; the adversary is trained further against it.

- `scales`, and whence paths are relative, are as in recipes of tables (`benchmark.recipe`).
- What is held out is never in the loop: a recipe where it is, is refused (`find_overlap`).
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from overpaint.benchmark.recipe import ModelSource, PhotoSet, Recipe, read_scale
from overpaint.benchmark.stages import FOUND
from overpaint.errors import ConfigError
from overpaint.named_metrics import METRICS
from overpaint.training.config import Section, hash_config, load_section

PHOTOS = "photos"
"""The name of the one photo set."""
OF_DETECTOR = ("auc", "f1@default", FOUND)
OF_FILLS = ("psnr", "ssim", "vgg-distilled")


class Hardened(Section):
    """The detector: where it starts, and how it is trained in each round."""

    name: str
    weights: str = Field(description="name or file of the weights before the first round")
    recipe: str = Field(description="file of `overpaint train detector`; each round goes on")
    set: dict[str, Any] = Field(default={}, description="as --set of `overpaint train`")
    share: float = Field(default=0.5, gt=0, lt=1, description="of the samples that are fills")


class Adversary(Section):
    """The inpainter that is trained against the detector."""

    name: str
    weights: str = Field(description="name or file of the weights before the first round")
    recipe: str = Field(
        description="file of `overpaint train inpainter`, for a SafePaint; it is given the detector"
    )
    set: dict[str, Any] = Field(default={}, description="as --set of `overpaint train`")


class Mining(Section):
    """What is kept of the fills that are made in a round."""

    num: int = Field(ge=2, description="fills by each inpainter in each round")
    by: str = Field(
        default="auc", description="metric of a picture; those with the lowest are mined"
    )
    share: float = Field(default=0.5, gt=0, le=1, description="of all fills of training photos")

    @model_validator(mode="after")
    def _check_metric(self) -> Self:
        if self.by not in METRICS or METRICS[self.by].level != "picture":
            raise ValueError(f"by {self.by!r}: give a metric of one picture, for instance auc")
        return self


class HeldOut(Section):
    """What is measured in every round and never in the loop."""

    inpainters: dict[str, ModelSource] = Field(default={})
    fills: str | None = Field(
        default=None,
        description="folder of real fills below --data; its pool dev is measured",
    )
    triplets: bool = Field(default=False, description="those of --data/triplets, of four networks")


class Hardening(Section):
    """One arms race at one scale."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str
    scale: str = ""
    seed: int = Field(default=0, ge=0, description="of photos, pieces, masks and trainings")
    size: int = Field(default=256, ge=64, description="side of the pictures, pixels")
    rounds: int = Field(default=2, ge=1)
    photos: PhotoSet
    masks: dict[str, str] = Field(default={"brush": "brush"}, description="kinds by name")
    false_alarm_rate: float = Field(
        default=0.01, gt=0, le=0.5, description="at which the threshold is fitted in every round"
    )
    untouched: int = Field(ge=2, description="pieces to fit it on, and to measure it on")
    detector: Hardened
    adversary: Adversary
    inpainters: dict[str, ModelSource] = Field(description="in the loop, beside the adversary")
    mining: Mining
    held_out: HeldOut = HeldOut()
    notes: tuple[str, ...] = Field(default=(), description="to be read with the table")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        for name, source in (self.inpainters | self.held_out.inpainters).items():
            if source.recipe is not None:
                raise ValueError(f"inpainters.{name}: give weights or a method; it is not trained")
        if self.photos.fit != "native":
            raise ValueError("photos.fit: pieces are cut from photos as they are; give native")
        loop = {n: _list_names(n, s) for n, s in self.inpainters.items()}
        loop[self.adversary.name] = {self.adversary.name, Path(self.adversary.weights).stem}
        held_out = {n: _list_names(n, s) for n, s in self.held_out.inpainters.items()}
        if problem := find_overlap(loop, held_out):
            raise ValueError(problem)
        return self

    @property
    def hash(self) -> str:
        """`hash_config` of all but the notes, which change no figure."""
        return hash_config(self.model_copy(update={"notes": ()}))

    def name_adversary(self, after: int) -> str:
        """The adversary's name after a number of rounds."""
        return f"{self.adversary.name}, round {after}"

    def make_table_recipe(self) -> Recipe:
        """What the planner of tables has to know."""
        return Recipe(
            name=self.name,
            title=self.title,
            scale=self.scale,
            seed=self.seed,
            size=self.size,
            photos={PHOTOS: self.photos},
            masks=self.masks,
            inpainters=self.inpainters | self.held_out.inpainters,
            metrics=(*OF_DETECTOR, *OF_FILLS),
            keep_heatmaps=False,
        )


def _list_names(name: str, source: ModelSource) -> set[str]:
    return {name, Path(source.weights).stem if source.weights else str(source.method)}


def find_overlap(
    loop: Mapping[str, Iterable[str]], held_out: Mapping[str, Iterable[str]]
) -> str | None:
    """Why nothing is held out, in words; None where loop and held out share no name.

    loop, held_out: all names of each generator (of weights, network, family, their hashes), by the
    name in the recipe. Capitals, dots and dashes make no difference.
    """
    known = {_normalise(n): name for name, names in loop.items() for n in (name, *names)}
    for name, names in held_out.items():
        for each in (name, *names):
            if _normalise(each) in known:
                other = known[_normalise(each)]
                return (
                    f"held_out: {name} is in the loop, as {other} ({each}); hold out a generator "
                    "that is not in the loop, or take it out of the loop"
                )
    return None


def _normalise(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def load_hardening(path: Path, scale: str | None = None) -> Hardening:
    """Read and check a recipe at one of its scales; as `benchmark.recipe.load_recipe`."""
    values = read_scale(path, scale)
    try:
        return load_section(Hardening, values, "recipe")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
