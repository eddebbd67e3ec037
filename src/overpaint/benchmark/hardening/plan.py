"""From a recipe of hardening to the graph of its stages, and to the cells that are measured.

    weights -> threshold -> [ fills -> mined -> training -> threshold -> adversary's training ] ...

- Every round's detector is measured on the same pictures: test photos filled by inpainters of the
  loop, by the adversary after every round and by the held-out inpainters; held-out real fills by
  family; untouched pieces of test photos.
- Held-out generators are used in no other stage than these measurements.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from overpaint import hashes
from overpaint.benchmark.hardening.recipe import PHOTOS, Hardening, find_overlap
from overpaint.benchmark.hardening.stages import RealPicture, cut
from overpaint.benchmark.photos import choose, hash_contents
from overpaint.benchmark.plan import GIVEN, Cell, Model, Planner, make_overrides
from overpaint.benchmark.recipe import ANY, ModelSource
from overpaint.benchmark.store import Stage
from overpaint.data.pair_sets import Pair
from overpaint.data.real_fills import read_fills
from overpaint.data.sources import Part, Place
from overpaint.detection.calibration import LOSSLESS, find_quality
from overpaint.errors import ConfigError, OverpaintError
from overpaint.evaluation.families import OF_TRIPLETS
from overpaint.evaluation.triplets import HEADLINE, read_triplets
from overpaint.images import read_image
from overpaint.training.config import load_config
from overpaint.training.detection.base import DetectorRun
from overpaint.training.inpainting.base import InpainterRun
from overpaint.weights.store import Kind, WeightsRecord

Group = Literal[
    "in the loop", "adversary", "held-out inpainter", "held-out real fills", "untouched"
]
UNTOUCHED = "untouched test photos"
AS_IS = "as is"
SAFEPAINT = "safepaint"
"""The network that can be trained against a detector."""
SEEDS_OF_A_ROUND = 1000
"""How far the seeds of two rounds lie apart; those of a round's inpainters are in between."""


@dataclass(frozen=True)
class Look:
    """One cell, and its place in the race."""

    cell: Cell
    round: int
    """Of the detector, or, without one, of the adversary."""
    generator: str
    group: Group


@dataclass(frozen=True)
class Race:
    """All that is planned."""

    looks: list[Look]
    detectors: list[Model]
    """With a fitted threshold, before the first round and after each one."""
    trained: list[Stage]
    """The trainings of the detector, round by round."""
    adversaries: list[Model]
    mined: list[Stage]

    @property
    def cells(self) -> list[Cell]:
        """Of all looks."""
        return [look.cell for look in self.looks]


class RacePlanner(Planner):
    """Makes the stages of one recipe; see `plan_race`."""

    def __init__(self, recipe: Hardening, folder: Path, data: Path, cache: Path) -> None:
        super().__init__(recipe.make_table_recipe(), folder, data, cache)
        self.race = recipe
        self.adversaries: dict[str, Model] = {}

    def plan_model(
        self, kind: Kind, name: str, photos: str, training: str = "", seed: int | None = None
    ) -> Model:
        known = self.adversaries.get(name) if kind == "inpainter" else None
        return super().plan_model(kind, name, photos, training, seed) if known is None else known

    def plan(self) -> Race:
        """Raises ConfigError where what is held out is in the loop."""
        race = self.race
        self.check_adversary()
        self.check_held_out()
        detectors = [self.plan_start("detector", race.detector.name, race.detector.weights)]
        fitted = [self.plan_fit(detectors[0], 0)]
        adversary = self.plan_start("inpainter", race.adversary.name, race.adversary.weights)
        self.adversaries[race.name_adversary(0)] = adversary
        mined: list[Stage] = []
        for number in range(1, race.rounds + 1):
            mined.append(self.plan_mining(number, fitted[-1]))
            detectors.append(self.plan_detector_round(number, detectors[-1], mined))
            fitted.append(self.plan_fit(detectors[-1], number))
            adversary = self.plan_adversary_round(number, adversary, detectors[-1])
            self.adversaries[race.name_adversary(number)] = adversary
        looks = [*self.plan_looks(fitted), *self.plan_qualities()]
        trained = [model.stage for model in detectors[1:] if model.stage is not None]
        return Race(looks, fitted, trained, list(self.adversaries.values()), mined)

    def check_adversary(self) -> None:
        """Raises ConfigError where the inpainter cannot be trained against a detector."""
        own = self.race.adversary
        run = load_config(InpainterRun, self.folder / own.recipe, make_overrides(own.set))
        if run.inpainter != SAFEPAINT or not run.loss.get("detector_weight"):
            raise ConfigError(
                f"adversary: {own.recipe} trains {run.inpainter} with loss.detector_weight "
                f"{run.loss.get('detector_weight', 0)}; give a recipe of {SAFEPAINT}, and set that "
                "weight above 0"
            )

    # Who is held out

    def check_held_out(self) -> None:
        """Raises ConfigError where loop and held out have weights, a network or a family in common,
        and where the detector was trained on what is held out."""
        race, held_out = self.race, self.race.held_out
        loop = {name: self._list_names(s) for name, s in race.inpainters.items()}
        adversary = ModelSource(weights=race.adversary.weights)
        loop[race.adversary.name] = self._list_names(adversary)
        apart = {name: self._list_names(s) for name, s in held_out.inpainters.items()}
        apart |= {f"the real fills of {family}": {family} for family in self._list_families()}
        record = self._find_record("detector", race.detector.weights)
        if record is not None:
            seen = {*record.families, *re.findall(r"[\w.-]+", record.data)}
            loop[f"training data of {record.name}"] = seen
        if problem := find_overlap(loop, apart):
            raise ConfigError(problem)
        own = race.detector
        run = load_config(DetectorRun, self.folder / own.recipe, make_overrides(own.set))
        if run.fills.share and (held_out.fills or held_out.triplets):
            raise ConfigError(
                f"{race.detector.recipe}: fills.share {run.fills.share:g} trains on real fills and "
                "validates by the pool that is held out; set it to 0, or hold out no real fills"
            )

    def _list_names(self, source: ModelSource) -> set[str]:
        """Names of an inpainter: of its weights and their content, and of its network."""
        if source.method is not None:
            return {source.method}
        record = self._find_record("inpainter", str(source.weights))
        names = {Path(str(source.weights)).stem}
        if record is None:
            return names
        return names | {record.name, record.sha256, record.architecture}

    def _find_record(self, kind: Kind, weights: str) -> WeightsRecord | None:
        try:
            return self._find(kind, weights)
        except (OverpaintError, OSError):  # reported where it is needed
            return None

    def _list_families(self) -> set[str]:
        """Of the real fills that are held out."""
        families: set[str] = set()
        if self.race.held_out.fills is not None:
            folder = self.data / self.race.held_out.fills
            families |= {fill.family for fill in read_fills(folder, ("dev",))}
        if self.race.held_out.triplets:
            families |= set(OF_TRIPLETS.values())
        return families

    # The loop

    def plan_start(self, kind: Kind, name: str, weights: str) -> Model:
        """What a race starts from."""
        try:
            return self._find_given(kind, ModelSource(weights=weights))
        except (OverpaintError, OSError) as error:
            return Model({}, None, self.make_missing(name, error), "")

    def plan_fit(self, detector: Model, number: int) -> Model:
        """The detector with its threshold fitted on untouched validation photos."""
        race, name = self.race, self.race.detector.name
        label = f"threshold of {name}, round {number}"
        try:
            places = self._choose_untouched("validation")
            pieces = cut(places, race.untouched, race.size, race.seed)
            settings = {
                "detector": {k: v for k, v in detector.key.items() if k != "calibration_sha256"},
                "content": hash_contents(places, self._contents),
                "num": race.untouched,
                "size": race.size,
                "seed": race.seed,
                "rate": race.false_alarm_rate,
            }
            stage = self.make_stage(
                "calibrated",
                label,
                settings,
                needs={"detector": detector.stage} if detector.stage else {},
                places={"detector": detector.place, "pieces": pieces},
                architecture=detector.architecture,
                units=len(pieces),
                pace=f"calibrated {detector.architecture} {race.size}",
            )
        except (OverpaintError, OSError) as error:
            stage = self.make_missing(label, error)
        return Model({}, None, stage, detector.architecture)

    def plan_mining(self, number: int, detector: Model) -> Stage:
        """What the detector of the round before misses of this round's fills."""
        race, mining = self.race, self.race.mining
        names = [*race.inpainters, race.name_adversary(number - 1)]
        fills = {}
        for place, name in enumerate(names):  # other photos, pieces and holes for each, every round
            seed = race.seed + SEEDS_OF_A_ROUND * number + place
            fills[name] = self.plan_fills(name, PHOTOS, mining.num, picture_seed=seed)
        settings = {"by": mining.by, "share": mining.share, "processing": [], "of": "inpainted"}
        needs = {f"fills {name}": stage for name, stage in fills.items()}
        assert detector.stage is not None
        return self.make_stage(
            "mined",
            f"what {race.detector.name} misses in round {number}",
            settings,
            needs={**needs, "detector": detector.stage},
            architecture=detector.architecture,
            units=sum(stage.units for stage in fills.values()),
            pace=f"mined {detector.architecture} {race.size}",
        )

    def plan_detector_round(self, number: int, before: Model, mined: list[Stage]) -> Model:
        """The detector, trained further on universal data and all that was mined."""
        own = self.race.detector
        values: dict[str, Any] = {**own.set, "forged.share": own.share}
        values["cache.seed"] = self.race.seed  # one cache for all rounds
        others = {f"fills mined {i}": stage for i, stage in enumerate(mined, 1)}
        return self._plan_further_training("detector", own, values, number, before, others)

    def plan_adversary_round(self, number: int, before: Model, detector: Model) -> Model:
        """The adversary, trained further against the detector."""
        own = self.race.adversary
        others = {"detector": detector.stage} if detector.stage else {}
        return self._plan_further_training("inpainter", own, dict(own.set), number, before, others)

    def _plan_further_training(
        self,
        kind: Kind,
        own: Any,
        values: dict[str, Any],
        number: int,
        before: Model,
        others: Mapping[str, Stage],
    ) -> Model:
        label = f"{own.name}, round {number}"
        recipe = self.folder / own.recipe
        try:
            run_kind = DetectorRun if kind == "detector" else InpainterRun
            base = load_config(run_kind, recipe, make_overrides(own.set))
            values["name"] = f"{base.name}-round-{number}"
            values["loop.seed"] = self.race.seed + number
            if before.stage is None:
                values["start_from"] = before.place
            else:
                others = {**others, "start": before.stage}
            train = (
                self.plan_detector_training if kind == "detector" else self.plan_inpainter_training
            )
            return train(label, recipe, values, PHOTOS, others)
        except (OverpaintError, OSError) as error:
            return Model({}, None, self.make_missing(label, error), before.architecture)

    # The looks

    def _choose_untouched(self, part: Part) -> list[Place]:
        """All photos of a part: a false-alarm rate needs more than fills do."""
        everything = self.race.photos.model_copy(update={part: None})
        return choose(everything, self.data, part, self.race.seed)

    def plan_looks(self, detectors: list[Model]) -> Iterator[Look]:
        """Every detector at every set of pictures."""
        race = self.race
        groups: dict[str, Group] = dict.fromkeys(race.inpainters, "in the loop")
        groups |= dict.fromkeys(self.adversaries, "adversary")
        groups |= dict.fromkeys(race.held_out.inpainters, "held-out inpainter")
        sets = list(self._list_real_sets())
        for number, detector in enumerate(detectors):
            for name, group in groups.items():
                fills = self.plan_fills(name, PHOTOS, None, parts=("test",))
                label = f"{race.detector.name}, round {number}, on {fills.label}"
                scores = self.plan_scores(detector, fills, AS_IS, label)
                axes = self._make_axes(number, name)
                model = self.plan_model("inpainter", name, PHOTOS)
                models = {"detector": detector.stage, "inpainter": model.stage or model.settings}
                cell = Cell(axes, scores, None, models, fills.needs["test"])  # type: ignore[arg-type]
                yield Look(cell, number, name, group)
            for name, pictures, content, kind in sets:
                yield self._make_look(number, detector, name, pictures, content, kind)

    def _make_look(
        self,
        number: int,
        detector: Model,
        name: str,
        pictures: list[Any],
        content: str | Stage,
        group: Group,
    ) -> Look:
        label = f"{self.race.detector.name}, round {number}, on {name}"
        assert detector.stage is not None
        if isinstance(content, Stage):
            scores, data = content, ""
        else:
            how = {"settings": {"pairs": content}, "places": {"pairs": pictures}}
            scores = self.plan_scores(detector, None, AS_IS, label, units=len(pictures), **how)
            data = content
        cell = Cell(self._make_axes(number, name), scores, None, {"detector": detector.stage}, data)
        return Look(cell, number, name, group)

    def _list_real_sets(self) -> Iterator[tuple[str, list[Any], str | Stage, Group]]:
        """Name, pictures, their hash (or what fails), and group of all sets but fills made here."""
        race = self.race
        try:
            places = self._choose_untouched("test")
            pieces = cut(places, race.untouched, race.size, race.seed)
            how = f"{race.untouched} {race.size} {race.seed}"
            content = f"{hash_contents(places, self._contents)} {how}"
            yield UNTOUCHED, pieces, content, "untouched"
        except (OverpaintError, OSError) as error:
            yield UNTOUCHED, [], self.make_missing(UNTOUCHED, error), "untouched"
        if race.held_out.fills is not None:
            by_family: dict[str, list[Any]] = {}
            for fill in read_fills(self.data / race.held_out.fills, ("dev",)):
                by_family.setdefault(fill.family, []).append(RealPicture(fill))
            for family, pictures in sorted(by_family.items()):
                files = [f for p in pictures for f in (p.fill.known, p.fill.fill, p.fill.mask)]
                at = " ".join(f"{p.fill.x},{p.fill.y}" for p in pictures)
                content = hashes.sha256(f"{self._hash_contents(files)} {at}".encode())
                yield f"real fills: {family}", pictures, content, "held-out real fills"
        if race.held_out.triplets:
            yield from self._list_triplets()

    def _list_triplets(self) -> Iterator[tuple[str, list[Any], str | Stage, Group]]:
        """By network, and their untouched originals; those that the threshold is fitted for."""
        groups: dict[str, list[Any]] = {}
        originals: list[Any] = []
        for triplet in read_triplets(self.data, HEADLINE):
            if not _is_lossless(triplet.inpainted):
                continue
            pair = Pair(triplet.id, triplet.inpainted, triplet.mask)
            groups.setdefault(triplet.group, []).append(pair)
            if triplet.original is not None and _is_lossless(triplet.original):
                originals.append(Pair(triplet.id, triplet.original))
        for group, pictures in groups.items():
            files = [f for p in pictures for f in (p.image, p.mask)]
            yield f"triplets: {group}", pictures, self._hash_contents(files), "held-out real fills"
        if originals:
            content = self._hash_contents([p.image for p in originals])
            yield "originals of the triplets", originals, content, "untouched"

    def _hash_contents(self, files: list[Path]) -> str:
        places = [Place(str(f), "", str(f)) for f in dict.fromkeys(files)]
        return hash_contents(places, self._contents)

    def plan_qualities(self) -> Iterator[Look]:
        """The adversary's fills against their photos, after every round."""
        for number, name in enumerate(self.adversaries):
            fills = self.plan_fills(name, PHOTOS, None, parts=("test",))
            cell = self._plan_quality(self._make_axes(None, name), fills, None)
            yield Look(cell, number, name, "adversary")

    def _make_axes(self, number: int | None, generator: str) -> dict[str, str]:
        """number: of the detector's round; None without a detector."""
        race = self.race
        axes = {
            "photos": PHOTOS,
            "mask": " + ".join(race.masks),
            "bin": ANY,
            "seed": str(race.seed),
        }
        axes["inpainter"] = generator
        if number is None:
            return axes | {"detector": "", "training": "", "processing": ""}
        training = f"round {number}" if number else GIVEN
        return axes | {"detector": race.detector.name, "training": training, "processing": AS_IS}


def _is_lossless(path: Path) -> bool:
    photo = read_image(path)
    return find_quality(photo) == LOSSLESS


def plan_race(recipe: Hardening, folder: Path, data: Path, cache: Path) -> Race:
    """The stages and cells of a recipe. folder: whence models are named. data: below which photos
    lie.

    Raises ConfigError where what is held out is in the loop, ImageError for held-out sets that are
    not there.
    """
    return RacePlanner(recipe, folder, data, cache).plan()
