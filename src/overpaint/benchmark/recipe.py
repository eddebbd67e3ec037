"""A recipe of a table: its trainings, inpainters and detectors, and how the rows are shown.

- One YAML file is one table. `scales` holds what differs between its sizes, each a JSON Merge Patch
  of the rest: `smoke` (a test that it runs), `lite` (a table on two cores), `paper` (its setting).
- Axes: detector x training data x inpainter x photo set x mask kind x bin x processing x seed.
  A model is given (`weights`), trained in the run (`recipe`, for each photo set on its own
  photos), or, of inpainters, a `method` without weights. Paths of models are relative to the
  recipe's folder, those of photos, masks and pairs to `--data`.
- Training data: `UT` universal data alone; with `inpainters`, a `share` of fills by these, of
  photos that are trained on.
"""

from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from overpaint.data.degrade import Step
from overpaint.errors import ConfigError
from overpaint.training.config import Section, hash_config, load_section, merge, read_recipe

Axis = Literal[
    "detector", "training", "inpainter", "photos", "mask", "bin", "processing", "seed", "metric"
]
AXES: tuple[Axis, ...] = get_args(Axis)
ANY = "any"
"""As a bin: holes of any size."""
UNIVERSAL = "UT"
"""Name of the training data without fills."""
FRECHET = "fid-vgg-distilled"
QUALITY = ("psnr", "ssim", "l1", "vgg-distilled", "lpips-alex", FRECHET)
"""Metrics of a fill against its photo, the last one of all against all; others are of a
detector."""


class PhotoSet(Section):
    """Photos of one data set, split by their names: 80 % train, 10 % validation, 10 % test."""

    source: str = Field(description="folder below --data, or LAYOUT:FOLDER")
    fit: Literal["native", "crop", "resize"] = Field(
        default="native",
        description="native: pieces of the photos as they are; crop or resize: the photos are "
        "brought to `size` first, see `photo_sets.Fit`",
    )
    stands_for: str = Field(default="", description="the paper's set whose figures stand beside")
    train: int | None = Field(default=None, ge=1, description="most photos of a part")
    validation: int | None = Field(default=None, ge=1)
    test: int | None = Field(default=None, ge=1)


class ModelSource(Section):
    """Where a model comes from; exactly one of the three."""

    weights: str | None = Field(default=None, description="name or file")
    recipe: str | None = Field(default=None, description="file of `overpaint train`")
    method: str | None = Field(default=None, description="inpainter without weights")
    set: dict[str, Any] = Field(default={}, description="as --set of `overpaint train`")
    trained_on: tuple[str, ...] = Field(default=(UNIVERSAL,), description="of a detector")

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        given = [n for n in ("weights", "recipe", "method") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError("give one of weights, recipe and method")
        if self.set and self.recipe is None:
            raise ValueError("set is for a recipe; these weights are as they are")
        return self


class TrainingData(Section):
    """What detectors are trained on beside universal data."""

    inpainters: tuple[str, ...] = Field(default=(), description="whose fills")
    share: float = Field(default=1.0, gt=0, le=1, description="of the samples that are fills")
    num: int | None = Field(default=None, ge=1, description="fills by each; None: one per photo")


class View(Section):
    """A table of the rows."""

    title: str
    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]
    where: dict[Axis, tuple[str, ...]] = Field(default={}, description="values to show, in order")
    interval: bool = Field(default=False, description="show the 95 % interval")


class Recipe(Section):
    """One table at one scale."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str
    scale: str = ""
    seed: int = Field(default=0, ge=0, description="of photos, pieces and masks")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1, description="of the trainings")
    seeds_of: Literal["detectors", "inpainters"] = Field(
        default="detectors", description="which are trained with each of the seeds"
    )
    size: int = Field(default=256, ge=32, description="side of the pictures, pixels")
    photos: dict[str, PhotoSet] = Field(default={})
    pairs: dict[str, str] = Field(
        default={}, description="sets of pictures and masks, LAYOUT:FOLDER, as photo sets"
    )
    masks: dict[str, str] = Field(default={"brush": "brush"}, description="kinds by name")
    bins: tuple[str, ...] = (ANY,)
    inpainters: dict[str, ModelSource] = Field(default={})
    inpainters_from: tuple[str, ...] = Field(
        default=(), description="folders of weights, all of which take part; shipped: the package's"
    )
    methods: bool = Field(default=False, description="inpainters without weights take part, too")
    inpainter_set: dict[str, Any] = Field(default={}, description="`set` of all that are trained")
    training: dict[str, TrainingData] = Field(default={UNIVERSAL: TrainingData()})
    detectors: dict[str, ModelSource] = Field(default={})
    detectors_from: tuple[str, ...] = ()
    detector_set: dict[str, Any] = Field(default={})
    processing: dict[str, list[dict[str, dict[str, Any]]]] = Field(
        default={"as is": []}, description="steps of data.degrade by their parameters"
    )
    metrics: tuple[str, ...] = Field(min_length=1)
    keep_heatmaps: bool = Field(
        default=True, description="in the cache, 0.3 MB each at 256 px, to score again without"
    )
    views: tuple[View, ...] = ()
    plots: bool = False
    paper: str = Field(default="", description="table of papers.csv that is shown beside")
    differs: tuple[str, ...] = Field(default=(), description="from the paper, a sentence each")

    @field_validator("bins")
    @classmethod
    def _check_bins(cls, bins: tuple[str, ...]) -> tuple[str, ...]:
        for name in bins:
            parse_bin(name)
        return bins

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for name, data in self.training.items():
            if unknown := sorted(set(data.inpainters) - set(self.inpainters)):
                raise ValueError(f"training.{name}: no inpainter {unknown[0]!r}")
        for name, source in self.detectors.items():
            if unknown := sorted(set(source.trained_on) - set(self.training)):
                raise ValueError(f"detectors.{name}: no training data {unknown[0]!r}")
            if source.method is not None:
                raise ValueError(f"detectors.{name}: a method is an inpainter; give weights")
        if not self.photos and not self.pairs:
            raise ValueError("photos: give at least one set, or pairs")
        return self

    @property
    def hash(self) -> str:
        """`hash_config` of all but what is only shown, which changes no figure."""
        shown = {"title": "", "views": (), "plots": False, "differs": ()}
        return hash_config(self.model_copy(update=shown))

    def list_steps(self, processing: str) -> list[Step]:
        """The steps of one kind of processing."""
        return [Step(n, p) for step in self.processing[processing] for n, p in step.items()]


def parse_bin(name: str) -> tuple[float, float] | None:
    """ "10-20", percent, as shares (0.1, 0.2); None for `ANY`. Raises ValueError."""
    if name == ANY:
        return None
    low, dash, high = name.partition("-")
    if not dash or not (low.isdigit() and high.isdigit()) or not int(low) < int(high) <= 100:
        raise ValueError(f"bin {name!r}: write LOW-HIGH in percent, for instance 10-20, or {ANY}")
    return int(low) / 100, int(high) / 100


def load_recipe(path: Path, scale: str | None = None) -> Recipe:
    """Read and check the recipe of a table at one of its scales; see `read_scale`.

    Raises ConfigError naming the file.
    """
    values = read_scale(path, scale)
    try:
        return load_section(Recipe, values, "recipe")
    except (ConfigError, ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error


def read_scale(path: Path, scale: str | None = None) -> dict[str, Any]:
    """The values of a recipe at one of its scales, not yet checked.

    scale: None is "lite" where there is one, otherwise the recipe without a scale. Raises
    ConfigError naming the file.
    """
    values = read_recipe(path)
    scales = values.pop("scales", {})
    if scale is None:
        scale = "lite" if "lite" in scales else ""
    if scale and scale not in scales:
        known = ", ".join(scales) or "none"
        raise ConfigError(f"{path}: no scale {scale!r}; there are {known}")
    return merge(values, scales[scale] or {}) | {"scale": scale} if scale else values
