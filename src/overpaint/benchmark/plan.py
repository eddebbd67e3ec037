"""From a recipe to the graph of its stages, and to its cells: one for each combination of the axes.

Stages are shared: a detector is trained once for all pictures that it is measured on, a fill is
made once for all detectors. What is missing (weights, photos, a recipe of a training) becomes a
stage that fails, so that the other cells are measured.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from overpaint import hashes
from overpaint.benchmark.code import hash_code, list_modules
from overpaint.benchmark.photos import choose, hash_contents, resolve_below
from overpaint.benchmark.recipe import ANY, FRECHET, QUALITY, ModelSource, Recipe
from overpaint.benchmark.stages import DETECTED, FOUND
from overpaint.benchmark.store import Stage
from overpaint.benchmark.work import WORK
from overpaint.data.assets import find_asset
from overpaint.data.pair_sets import SETS, Pair, read_pairs
from overpaint.data.sources import Part, Place
from overpaint.errors import ConfigError, OverpaintError, WeightsError
from overpaint.named_metrics import METRICS
from overpaint.registry import detectors, inpainters
from overpaint.training.config import load_config
from overpaint.training.detection.base import DetectorRun, DetectorTask
from overpaint.training.inpainting.base import InpainterRun, InpaintingTask
from overpaint.weights import list_records, read_record
from overpaint.weights.resolve import find, is_method
from overpaint.weights.store import Kind, WeightsRecord

SHIPPED = "shipped"
GIVEN = "as given"
"""Training data of weights that were not trained for the table."""


@dataclass(frozen=True)
class Cell:
    """One combination of the axes, and where its figures come from."""

    axes: Mapping[str, str]
    """By axis, without "metric"."""
    scores: Stage
    originals: Stage | None = None
    """Scores of the untouched pictures, for figures of whole photos."""
    models: Mapping[str, Stage | Mapping[str, Any]] = field(default_factory=dict)
    """By role: what trains it, or hashes of what is given."""
    data_hash: Stage | str = ""

    def list_stages(self) -> Iterator[Stage]:
        """All that it needs, what is needed first."""
        seen: dict[Stage, None] = {}

        def visit(stage: Stage) -> None:
            for needed in stage.needs.values():
                visit(needed)
            seen.setdefault(stage)

        for stage in (self.scores, self.originals):
            if stage is not None:
                visit(stage)
        yield from seen


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the recipe, for one photo set."""

    settings: Mapping[str, Any]
    """What it is, where it was given."""
    place: str | None
    """Name or path, where it was given."""
    stage: Stage | None
    """What trains it, or fails because it is missing."""
    architecture: str

    @property
    def key(self) -> dict[str, Any]:
        return {} if self.stage else dict(self.settings)


class Planner:
    """Makes the stages of one recipe; see `plan`."""

    def __init__(self, recipe: Recipe, folder: Path, data: Path, cache: Path) -> None:
        self.recipe, self.folder, self.data, self.cache = recipe, folder, data, cache
        self.detectors = _list_sources(recipe.detectors, recipe.detectors_from, folder, "detector")
        self.inpainters = _list_sources(
            recipe.inpainters, recipe.inpainters_from, folder, "inpainter"
        )
        if recipe.methods:
            names = [n for n in inpainters.list_names() if not inpainters.get(n).trainable]
            methods = {n: ModelSource(method=n) for n in names}
            self.inpainters = methods | self.inpainters
        if unknown := [m for m in recipe.metrics if not _is_metric(m)]:
            known = ", ".join([DETECTED, FOUND, *QUALITY, *METRICS])
            raise ConfigError(f"metrics: no metric is called {unknown[0]!r}; there are {known}")
        self.of_fills = tuple(m for m in recipe.metrics if m in QUALITY)
        self.of_detectors = tuple(m for m in recipe.metrics if m not in QUALITY)
        self.of_photos = any(m in METRICS and METRICS[m].level == "image" for m in recipe.metrics)
        self._photos: dict[tuple[str, Part], Stage] = {}
        self._models: dict[tuple[Any, ...], Model] = {}
        self._hashes: dict[str, str | None] = {}
        self._codes: dict[tuple[str, str], str] = {}

    # Stages

    def make_stage(self, kind: str, label: str, settings: Mapping[str, Any], **how: Any) -> Stage:
        architecture = how.pop("architecture", "")
        code = self._hash_code(kind, architecture)
        places = how.get("places", {})
        model = places.get("detector") or places.get("inpainter") or architecture
        how.setdefault("pace", f"{kind} {Path(model).stem} {self.recipe.size}")
        return Stage(kind, label, settings, own_code=code, **how)

    def make_missing(self, label: str, error: Exception) -> Stage:
        return self.make_stage("missing", label, {"error": f"{label}: {error}"})

    def _hash_code(self, kind: str, architecture: str) -> str:
        if (kind, architecture) not in self._codes:
            modules = _list_model_modules(kind, architecture)
            self._codes[kind, architecture] = hash_code(WORK[kind], modules)
        return self._codes[kind, architecture]

    def plan_photos(self, name: str, part: Part) -> Stage:
        """The photos of one part of a set, by their content."""
        if (name, part) not in self._photos:
            label = f"{part} photos of {name}"
            try:
                self._photos[name, part] = self._plan_chosen(name, part, label)
            except OverpaintError as error:
                self._photos[name, part] = self.make_missing(label, error)
        return self._photos[name, part]

    def _plan_chosen(self, name: str, part: Part, label: str) -> Stage:
        if name not in self.recipe.photos:
            raise ConfigError("a training needs a photo set; give one in photos")
        chosen = self.recipe.photos[name]
        places = choose(chosen, self.data, part, self.recipe.seed)
        settings = {
            "content": hash_contents(places, self._contents),
            "fit": chosen.fit,
            **({} if chosen.fit == "native" else {"size": self.recipe.size}),
        }
        how = {"places": {"photos": [tuple(p) for p in places]}, "units": len(places)}
        return self.make_stage("photos", label, settings, **how)

    def _hash_files(self, *specs: str) -> dict[str, str]:
        """The content of the files and folders that "KIND:PLACE" name (`find_asset`)."""
        for spec in specs:
            if spec not in self._hashes:
                self._hashes[spec] = self._hash_place(spec)
        return {spec: found for spec in specs if (found := self._hashes[spec]) is not None}

    def _hash_place(self, spec: str) -> str | None:
        _, colon, name = spec.partition(":")
        place = find_asset(name, self.data)
        if not colon or not place.exists():
            return None
        files = [place] if place.is_file() else sorted(place.rglob("*"))
        places = [Place(str(f), "", str(f)) for f in files if f.is_file()]
        return hash_contents(places, self._contents)

    def plan_model(
        self, kind: Kind, name: str, photos: str, training: str = "", seed: int | None = None
    ) -> Model:
        """A detector or an inpainter; one with a recipe is trained on the photos of a set.

        seed: of the training; None for the first one.
        """
        key = kind, name, photos, training, seed
        if key not in self._models:
            self._models[key] = self._plan_model(*key)
        return self._models[key]

    def _plan_model(
        self, kind: Kind, name: str, photos: str, training: str, seed: int | None
    ) -> Model:
        source = (self.detectors if kind == "detector" else self.inpainters)[name]
        label = " ".join(part for part in (name, training and f"trained on {training}") if part)
        try:
            if source.recipe is None:
                return self._find_given(kind, source)
            if kind == "detector":
                return self._plan_detector(label, source, photos, training, seed)
            return self._plan_inpainter(label, source, photos, seed)
        except (OverpaintError, OSError) as error:
            return Model({}, None, self.make_missing(label, error), "")

    def _find_given(self, kind: Kind, source: ModelSource) -> Model:
        if source.method is not None:
            if not is_method(source.method, "inpainter"):
                raise ConfigError(f"method {source.method!r} needs weights; give weights")
            inpainters.create(source.method)  # raises, naming the extra, where a package is missing
            return Model({"method": source.method}, source.method, None, source.method)
        record = self._find(kind, str(source.weights))
        settings = {"weights_sha256": record.sha256, **_hash_calibration(record)}
        return Model(settings, str(record.path), None, record.architecture)

    def _find(self, kind: Kind, name: str) -> WeightsRecord:
        path = self.folder / name
        return find(str(path) if path.suffix and path.is_file() else name, kind)

    def _plan_detector(
        self, label: str, source: ModelSource, photos: str, training: str, seed: int | None
    ) -> Model:
        data = self.recipe.training[training]
        own = {**self.recipe.detector_set, **source.set, "loop.seed": self._choose_seed(seed)}
        if data.inpainters:
            own |= {"forged.share": data.share}
        if data.inpainters and data.share == 1:  # of universal samples, none is drawn
            own["cache.num"] = 0
        fills = {f"fills {i}": self.plan_fills(i, photos, data.num) for i in data.inpainters}
        return self.plan_detector_training(
            label, self.folder / str(source.recipe), own, photos, fills
        )

    def plan_detector_training(
        self,
        label: str,
        recipe: Path,
        own: Mapping[str, Any],
        photos: str,
        others: Mapping[str, Stage],
    ) -> Model:
        """A training of a detector on the photos of a set.

        own: what is set beside the recipe. others: by role, "start" for the weights that it goes on
        from, "fills ..." for folders of fills.
        """
        fills = any(role.startswith("fills") for role in others)
        stand_in = {"forged.folders": {"fills": 1}} if fills else {}  # known once they are made
        run = load_config(DetectorRun, recipe, make_overrides({**own, **stand_in}))
        settings = run.model_dump(mode="json", exclude={"name"})
        drawn = self._hash_files(*settings["data"]["masks"], *settings["data"]["bank"])
        forged = () if fills else run.forged.folders  # of fills, their stages are needed
        settings["files"] = drawn | self._hash_files(*_list_read(run, forged))
        settings["shipped"] = _hash_bank(run)
        if run.start_from is not None:
            settings["start_from"] = find(run.start_from, "detector").sha256
        if run.parts_from:
            settings["parts_from"] = [find(name, "part").sha256 for name in run.parts_from]
        if run.content_from is not None:
            settings["content_from"] = hashes.file_sha256(run.content_from)
        places = {"recipe": recipe, "assets": self.data}
        needs = {part: self.plan_photos(photos, part) for part in ("train", "validation")}
        if run.cache.num:
            seed = run.loop.seed if run.cache.seed is None else run.cache.seed
            what = {"cache": settings["cache"], "seed": seed, "files": drawn}
            what |= {"bank": settings["data"]["bank"], "history": settings["data"]["history"]}
            what |= {"shipped": _hash_bank(run)}
            what |= {"margin": run.data.degrade.find_margin(run.data.size)}
            shared = {k: v for k, v in own.items() if not k.startswith("forged.")}
            needs["reconstructions"] = self.make_stage(
                "reconstructions",
                f"reconstructions of {photos}",
                what,
                needs={"train": needs["train"]},
                places={**places, "set": make_overrides(shared)},
                units=run.cache.num,
            )
        needs |= others
        return self._plan_training(
            "detector", label, run, run.detector, settings, needs, places, own
        )

    def _choose_seed(self, seed: int | None) -> int:
        return self.recipe.seeds[0] if seed is None else seed

    def _plan_inpainter(
        self, label: str, source: ModelSource, photos: str, seed: int | None
    ) -> Model:
        own = {**self.recipe.inpainter_set, **source.set, "loop.seed": self._choose_seed(seed)}
        return self.plan_inpainter_training(
            label, self.folder / str(source.recipe), own, photos, {}
        )

    def plan_inpainter_training(
        self,
        label: str,
        recipe: Path,
        own: Mapping[str, Any],
        photos: str,
        others: Mapping[str, Stage],
    ) -> Model:
        """A training of an inpainter on the photos of a set.

        own: what is set beside the recipe. others: by role, "start" for the weights that it goes on
        from, "detector" for its adversary.
        """
        run = load_config(InpainterRun, recipe, make_overrides(own))
        settings = run.model_dump(mode="json", exclude={"name"})
        settings["files"] = self._hash_files(*settings["data"]["masks"], run.backbone)
        if run.start_from is not None:
            settings["start_from"] = find(run.start_from, "inpainter").sha256
        if run.loss.get("detector") is not None and "detector" not in others:
            settings["loss"]["detector"] = find(run.loss["detector"], "detector").sha256
        places = {"recipe": recipe, "assets": self.data}
        needs = {part: self.plan_photos(photos, part) for part in ("train", "validation")}
        needs |= others
        return self._plan_training(
            "inpainter", label, run, run.inpainter, settings, needs, places, own
        )

    def _plan_training(
        self,
        kind: Kind,
        label: str,
        run: DetectorRun | InpainterRun,
        architecture: str,
        settings: Mapping[str, Any],
        needs: Mapping[str, Stage],
        places: Mapping[str, Any],
        own: Mapping[str, Any],
    ) -> Model:
        stage = self.make_stage(
            kind,
            f"training of {label}",
            settings,
            needs=needs,
            places={**places, "set": make_overrides(own)},
            architecture=architecture,
            units=run.loop.steps,
            pace=f"{kind} {architecture} {run.model} {run.data.size} {run.loop.batch_size}",
        )
        return Model({}, None, stage, architecture)

    def plan_fills(
        self,
        inpainter: str,
        photos: str,
        num: int | None,
        mask: str = "",
        hole: str = ANY,
        seed: int | None = None,
        *,
        parts: tuple[Part, ...] | None = None,
        picture_seed: int | None = None,
    ) -> Stage:
        """Fills of test photos with masks of one kind and bin; without `mask`, of all kinds and to
        train on.

        seed: of the training of the inpainter. parts: of the photos, where they are others.
        picture_seed: of photos, pieces and masks; None for the recipe's.
        """
        recipe, model = self.recipe, self.plan_model("inpainter", inpainter, photos, seed=seed)
        masks = {mask: recipe.masks[mask]} if mask else recipe.masks
        if parts is None:
            parts = ("test",) if mask else ("train", "validation")
        needs = {part: self.plan_photos(photos, part) for part in parts}
        settings = {
            "inpainter": model.key,
            "mask_files": self._hash_files(*masks.values()),
            "masks": {_name_bin(n, hole): [spec, hole] for n, spec in masks.items()},
            "num": num,
            "seed": recipe.seed if picture_seed is None else picture_seed,
            "size": recipe.size,
        }
        units = num or sum(stage.units for stage in needs.values())
        which = (f"({_name_bin(mask, hole)} %)",) if mask and hole != ANY else ()
        return self.make_stage(
            "fills",
            " ".join((*parts, "photos of", photos, "filled in by", inpainter, *which)),
            settings,
            needs=needs | ({"inpainter": model.stage} if model.stage else {}),
            places={"inpainter": model.place, "assets": self.data},
            architecture=model.architecture,
            units=units,
        )

    def plan_scores(
        self, detector: Model, fills: Stage | None, processing: str, label: str, **how: Any
    ) -> Stage:
        """Figures of a detector on fills, or on the pairs in `how`."""
        steps = [{"name": s.name, "params": s.params} for s in self.recipe.list_steps(processing)]
        looked = {"detector": detector.key, "processing": steps, "of": how.pop("of", "inpainted")}
        looked |= how.pop("settings", {})
        needs = {"detector": detector.stage} if detector.stage else {}
        needs |= {"fills": fills} if fills is not None else {}
        places = {"detector": detector.place, **how.pop("places", {})}
        units = how.pop("units", fills.units if fills is not None else 1)
        shared = {"architecture": detector.architecture, "units": units}
        figured = {"metrics": sorted(self.of_detectors), "of": looked["of"]}
        if not self.recipe.keep_heatmaps:
            settings = {**looked, **figured}
            return self.make_stage("scores", label, settings, needs=needs, places=places, **shared)
        heatmaps = self.make_stage(
            "heatmaps", f"heatmaps of {label}", looked, needs=needs, places=places, **shared
        )
        return self.make_stage("scores", label, figured, needs={"heatmaps": heatmaps}, units=units)

    # Cells

    def plan_cells(self) -> Iterator[Cell]:
        """All cells, in the order of the recipe."""
        recipe = self.recipe
        for photos, mask, hole in product(recipe.photos, recipe.masks, recipe.bins):
            for inpainter, seed in self.list_inpainter_runs():
                fills = self.plan_fills(inpainter, photos, None, mask, hole, seed)
                axes = {"photos": photos, "mask": mask, "bin": hole, "inpainter": inpainter}
                axes |= {"seed": _format_seed(seed)}
                if self.of_fills:
                    yield self._plan_quality(axes, fills, seed)
                if self.of_detectors:
                    yield from self._plan_looks(axes, fills, seed)
        for name, spec in recipe.pairs.items():
            yield from self._plan_pairs(name, spec)

    def _plan_quality(self, axes: Mapping[str, str], fills: Stage, seed: int | None) -> Cell:
        label = f"quality of {fills.label}"
        settings: dict[str, Any] = {"metrics": sorted(self.of_fills)}
        if {"vgg-distilled", "lpips-alex", FRECHET} & set(self.of_fills):
            settings["files"] = self._hash_files("networks:weights")
        needs, places = {"fills": fills}, {"assets": self.data}
        how = {"needs": needs, "places": places, "units": fills.units}
        scores = self.make_stage("quality", label, settings, **how)
        empty = {"detector": "", "training": "", "processing": ""}
        return Cell(
            {**axes, **empty}, scores, None, self._describe_models(axes, seed), fills.needs["test"]
        )

    def _plan_looks(
        self, axes: Mapping[str, str], fills: Stage, fill_seed: int | None
    ) -> Iterator[Cell]:
        recipe, photos = self.recipe, axes["photos"]
        for name, training, seed in self.list_detector_runs():
            model = self.plan_model("detector", name, photos, training, seed)
            for processing in recipe.processing:
                label = f"{name} on {fills.label}"
                scores = self.plan_scores(model, fills, processing, label)
                originals = None
                if self.of_photos:
                    # Photos, pieces and their places are the same for all inpainters, masks, bins.
                    which = photos, None, next(iter(recipe.masks)), recipe.bins[0]
                    several = [self.plan_fills(name, *which) for name in self.inpainters]
                    untouched = next((s for s in several if not _is_broken(s)), several[0])
                    label = f"{name} on untouched photos of {photos}"
                    originals = self.plan_scores(
                        model, untouched, processing, label, of="originals"
                    )
                own = {"detector": name, "training": training or GIVEN, "processing": processing}
                own |= {"seed": _format_seed(fill_seed if seed is None else seed)}
                models = {**self._describe_models(axes, fill_seed)}
                models |= {"detector": model.stage or model.settings}
                yield Cell({**axes, **own}, scores, originals, models, fills.needs["test"])

    def list_detector_runs(self) -> Iterator[tuple[str, str, int | None]]:
        """(name, training data, seed); "" of given weights, None without a choice of seeds."""
        recipe = self.recipe
        for name, source in self.detectors.items():
            if source.recipe is None:
                yield name, "", None
            else:
                seeds = recipe.seeds if recipe.seeds_of == "detectors" else (None,)
                yield from product([name], source.trained_on, seeds)

    def list_inpainter_runs(self) -> Iterator[tuple[str, int | None]]:
        """(name, seed); None without a choice of seeds."""
        recipe = self.recipe
        for name, source in self.inpainters.items():
            several = source.recipe is not None and recipe.seeds_of == "inpainters"
            yield from product([name], recipe.seeds if several else (None,))

    def _describe_models(
        self, axes: Mapping[str, str], seed: int | None
    ) -> dict[str, Stage | Mapping[str, Any]]:
        model = self.plan_model("inpainter", axes["inpainter"], axes["photos"], seed=seed)
        return {"inpainter": model.stage or model.settings}

    def _plan_pairs(self, name: str, spec: str) -> Iterator[Cell]:
        """The detectors on a set that comes with its masks."""
        broken, settings, places, units = None, {}, {}, 1
        try:
            pairs = read_pairs(resolve_below(self.data, spec, SETS))
            files = dict.fromkeys(f for p in pairs for f in (p.image, p.mask) if f is not None)
            content = hash_contents([Place(str(f), "", str(f)) for f in files], self._contents)
            settings = {"pairs": content, "truth": hash_truth(pairs, list(files))}
            places = {"pairs": list(pairs), "problems": pairs.problems}
            units = len(pairs)
        except (OverpaintError, OSError) as error:
            broken = self.make_missing(f"the pairs of {name}", error)
        for detector, training, seed in self.list_detector_runs():
            trained_on = next(iter(self.recipe.photos), "")
            model = self.plan_model("detector", detector, trained_on, training, seed)
            for processing in self.recipe.processing:
                how = {"settings": settings, "places": places, "units": units}
                scores = broken or self.plan_scores(
                    model, None, processing, f"{detector} on {name}", **how
                )
                axes = {"photos": name, "mask": "", "bin": ANY, "inpainter": ""}
                axes |= {"detector": detector, "training": training or GIVEN}
                axes |= {"processing": processing, "seed": _format_seed(seed)}
                models = {"detector": model.stage or model.settings}
                yield Cell(axes, scores, None, models, settings.get("pairs", ""))

    @property
    def _contents(self) -> Path:
        return self.cache / "contents"


def plan(recipe: Recipe, folder: Path, data: Path, cache: Path) -> list[Cell]:
    """The cells of a recipe. folder: where models are relative to. data: below which photos lie.

    Raises ConfigError for an unknown metric, and where nothing is to be measured.
    """
    cells = list(Planner(recipe, folder, data, cache).plan_cells())
    if not cells:
        raise ConfigError("the recipe has no cell; give photos, inpainters and detectors")
    return cells


def _is_broken(stage: Stage) -> bool:
    """Whether it is known before the run that a stage fails."""
    return stage.kind == "missing" or any(map(_is_broken, stage.needs.values()))


def hash_truth(pairs: Iterable[Pair], files: Iterable[Path]) -> str:
    """Of how the files of a set belong together, and of what is forged in each picture.

    The same files are other pairs in another layout, for instance with inverted masks.
    """
    places = {file: number for number, file in enumerate(files)}
    truth = [
        [p.name, p.row, p.whole, asdict(p.rule), places[p.image], p.mask and places[p.mask]]
        for p in pairs
    ]
    return hashes.sha256(json.dumps(truth).encode())


def _is_metric(name: str) -> bool:
    return name in METRICS or name in QUALITY or name in (DETECTED, FOUND)


def _format_seed(seed: int | None) -> str:
    return "" if seed is None else str(seed)


def _name_bin(mask: str, hole: str) -> str:
    return mask if hole == ANY else f"{mask} {hole}"


def make_overrides(values: Mapping[str, Any]) -> list[str]:
    """As of --set; JSON is YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def _hash_calibration(record: WeightsRecord) -> dict[str, str]:
    if record.calibration is None:
        return {}
    return {"calibration_sha256": hashes.file_sha256(record.folder / record.calibration)}


def _list_read(run: DetectorRun, forged: Iterable[str]) -> Iterator[str]:
    """What a training reads beside photos and reconstructions, as "KIND:PLACE".

    forged: folders of forgeries.
    """
    if run.fills.share:
        yield f"fills:{run.fills.folder}"
    if run.untouched.share and run.untouched.often is not None:
        yield f"untouched:{run.untouched.often}"
    if run.forged.share:
        yield from (f"forged:{folder}" for folder in forged)


def _hash_bank(run: DetectorRun) -> dict[str, str]:
    """Hashes of the autoencoders that a run draws from: shipped, imported, or files of weights.

    "" for those that are none, such as "taef2:FOLDER" (`Planner._hash_files`).
    """
    return {name: _hash_autoencoder(name) for name in run.data.bank}


def _hash_autoencoder(name: str) -> str:
    try:
        return read_record(name, kind="autoencoder").sha256
    except WeightsError:  # the training says what is wrong
        return ""


def _list_sources(
    named: Mapping[str, ModelSource], folders: tuple[str, ...], base: Path, kind: Kind
) -> dict[str, ModelSource]:
    """Those of the recipe, and all weights of the kind in folders."""
    found = dict(named)
    for folder in folders:
        place = None if folder == SHIPPED else base / folder
        if place is not None and not place.is_dir():
            raise ConfigError(f"{kind}s_from: {place} is no folder of weights")
        for record in list_records(place):
            if record.kind == kind:
                path = record.path.resolve()
                found.setdefault(record.name, ModelSource(weights=str(path)))
    return found


@cache
def _list_model_modules(kind: str, architecture: str) -> tuple[str, ...]:
    """Modules of a network, and of its losses where it is trained."""
    registry = inpainters if kind in ("inpainter", "fills") else detectors
    if not architecture or architecture not in registry:
        return ()
    factory: Callable[..., Any] = registry.get(architecture).factory
    modules = list_modules(factory)
    if kind in ("detector", "inpainter"):
        base: Any = DetectorTask if kind == "detector" else InpaintingTask
        package = base.__module__.rpartition(".")[0]
        modules += [f"{package}.{m.rpartition('.')[2]}" for m in modules]
    return tuple(modules)
