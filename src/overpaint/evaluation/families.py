"""The part "families": is real inpainting found, whichever generator made it?

- Pictures: the real fills of both pools (`data.real_fills`) and the triplets, by *family*: the
  generator, whatever program ran it. Every family has the same weight, and in it every photo
  (source).
- The headline is the mean over the families that the weights were not trained on, which their
  record states. Of the others, the pictures that no training may use are shown beside it.
- "trained on: FAMILY": the very pictures that the weights were trained on, those of the pool
  "train". Their figures show how well the training was learned, and of no other picture.
- Several weights, each trained without some families, give leave-one-family-out figures: each
  family is measured by the weights that were not trained on it.
- The interval resamples families and photos, a photo that several families filled for all of them
  together: it estimates how the figure would differ with other generators and other photos.
- "originals of FAMILY": untouched originals, scored with the masks of their fills. An AUC above 0.5
  there shows only where people make holes, so a family's AUC counts only as far as it exceeds it.
- "4:2:0": photo and fill both get colours at half of the resolution, so that the finer colours of a
  fill do not give it away; otherwise the pictures are unchanged and stored without loss.
- Source of the protocol: this project; leave-one-out over generators is usual for detectors of
  generated pictures (Wang et al., CVPR 2020, "CNN-generated images are surprisingly easy to spot").
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from overpaint.data.degrade import Step
from overpaint.data.real_fills import POOLS, RealFill, read_fills
from overpaint.detection.calibration import LOSSLESS, find_quality, find_quality_band
from overpaint.detection.runner import DetectorRunner
from overpaint.errors import ConfigError
from overpaint.evaluation.measurement import Measurement, Result, make_rows_by_method
from overpaint.evaluation.robustness import (
    AS_IS,
    CONDITIONS,
    Condition,
    Exhibit,
    score_exhibit,
    write_sheets,
)
from overpaint.evaluation.rows import Picture, Row, Source, average_by_photo, make_mean_row
from overpaint.evaluation.sheets import Album
from overpaint.evaluation.triplets import HEADLINE, Triplet, find_source, read_triplets
from overpaint.images import read_image, read_mask
from overpaint.metrics import mean
from overpaint.run_identity import hash_config
from overpaint.weights import read_record

SET = "families"
UNSEEN, SEEN = "families not trained on", "other pictures of families trained on"
FITTED = "trained on: "
"""Before the family of a picture on which the weights were trained."""
FITTED_MEAN = "pictures trained on"

OF_TRIPLETS = {"madf": "madf", "crfill256": "crfill", "deepfillv1": "deepfillv1", "sd2_fill": "sd2"}
"""Families of the groups of triplets; those left out are classical, or photos seen already."""

FAMILY_CONDITIONS: Mapping[str, Condition] = {
    AS_IS: CONDITIONS[AS_IS],
    "4:2:0": Condition((Step("halved_colours"),)),
    "JPEG 85": CONDITIONS["JPEG 85"],
    "resize 0.75 and JPEG 80": Condition(
        (Step("resize", {"scale": 0.75}), Step("jpeg", {"quality": 80})),
        find_quality_band(80, True),
    ),
}
METRICS = ("auc", "f1@default")
ORIGINALS = "originals of "


def list_fills(
    fills: Iterable[RealFill], trained: Collection[str] = ()
) -> Iterator[tuple[Exhibit, str]]:
    """(picture, source) of each fill; the picture's set is its family.

    trained: the families that the weights were trained on; see `FITTED`.
    """
    for fill in fills:
        pixels, mask = fill.read()
        name = f"{FITTED}{fill.family}" if is_fitted(fill, trained) else fill.family
        yield Exhibit(name, fill.id, pixels, mask, LOSSLESS), fill.source


def is_fitted(fill: RealFill, trained: Collection[str]) -> bool:
    """Whether weights trained on some families were trained on this fill."""
    return fill.pool == "train" and fill.family in trained


def list_triplets(triplets: Iterable[Triplet]) -> Iterator[tuple[Exhibit, str]]:
    """As `list_fills`, for the triplets; an original of the same size follows its triplet."""
    for triplet in triplets:
        photo = read_image(triplet.inpainted)
        mask = read_mask(triplet.mask, size=(photo.height, photo.width))
        family, source = OF_TRIPLETS[triplet.group], find_source(triplet.id)
        yield Exhibit(family, triplet.id, photo.pixels, mask, find_quality(photo)), source
        original = None if triplet.original is None else read_image(triplet.original)
        if original is not None and original.pixels.shape == photo.pixels.shape:
            name, quality = f"{ORIGINALS}{family}", find_quality(original)
            yield Exhibit(name, triplet.id, original.pixels, mask, quality), source


def measure_families(job: Measurement) -> Result:
    """Every picture under every condition: rows by family and condition, and the headlines."""
    conditions = choose_conditions(job.robustness.conditions)
    fills = read_fills(job.data / "fills", job.robustness.pools or POOLS)
    triplets = read_triplets(job.data, HEADLINE)
    families = sorted({f.family for f in fills} | {OF_TRIPLETS[t.group] for t in triplets})
    only = job.robustness.families or tuple(families)
    if unknown := sorted(set(only) - set(families)):
        raise ConfigError(f"no family is called {unknown[0]!r}; there are {', '.join(families)}")
    trained = set(read_record(job.weights, kind="detector").families)
    kinds = {
        "real fills": list_fills((f for f in fills if f.family in only), trained),
        "triplets": list_triplets(t for t in triplets if OF_TRIPLETS[t.group] in only),
    }
    runner, pictures, sources = job.make_runner(), [], {}
    album = Album() if job.robustness.sheets else None
    num: dict[str, int] = defaultdict(int)
    for kind, exhibits in kinds.items():
        job.report(f"families: {kind}")
        for exhibit, source in exhibits:
            num[exhibit.set] += 1
            if job.settings.limit is not None and num[exhibit.set] > job.settings.limit:
                continue
            sources[exhibit.id] = source
            seen = score_exhibit(runner, exhibit, conditions, job.name, album)
            pictures += [replace(picture, set=SET) for picture in seen]
    if job.robustness.sheets and album:
        write_sheets(job.robustness.sheets / job.name, album)
    source = _make_source(job, runner, conditions, only)
    groups = {
        UNSEEN: [family for family in only if family not in trained],
        SEEN: [family for family in only if family in trained],
        FITTED_MEAN: [f"{FITTED}{family}" for family in only if family in trained],
    }
    rows = make_rows_by_method(source, pictures, sources)
    if job.robustness.chooses_families:  # a mean over some would have the name of that over all
        return rows, pictures
    for name, members in groups.items():
        rows += compute_headlines(source, pictures, sources, conditions, members, name)
    return rows, pictures


def choose_conditions(names: Sequence[str]) -> dict[str, Condition]:
    """The named conditions, or all; raises ConfigError for an unknown name."""
    for name in names:
        if name not in FAMILY_CONDITIONS:
            known = ", ".join(map(repr, FAMILY_CONDITIONS))
            raise ConfigError(f"families have no condition {name!r}; there are {known}")
    return {name: FAMILY_CONDITIONS[name] for name in names or FAMILY_CONDITIONS}


def compute_headlines(
    source: Source,
    pictures: Sequence[Picture],
    sources: Mapping[str, str],
    conditions: Iterable[str],
    families: Sequence[str],
    name: str = UNSEEN,
) -> list[Row]:
    """Means over families of means over photos, and the worst family, for each condition.

    sources: the pictures' sources by the pictures' ids. Without families there are no rows.
    """
    by_method: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        by_method[picture.method].append(picture)
    rows = []
    for condition in conditions:
        for metric in METRICS:
            groups = [
                average_by_photo(by_method[f"{family}, {condition}"], sources, metric)
                for family in families
            ]
            groups = [group for group in groups if group]
            if groups:
                rows += _make_mean_and_worst(source, f"{name}, {condition}", metric, groups)
    return rows


def _make_mean_and_worst(
    source: Source, method: str, metric: str, groups: Sequence[Mapping[str, float]]
) -> list[Row]:
    row = replace(make_mean_row(source, method, metric, groups), n=len(groups))
    worst, nan = min(mean(group.values()) for group in groups), math.nan
    return [row, replace(row, metric=f"worst {metric}", value=worst, ci_low=nan, ci_high=nan)]


def _make_source(
    job: Measurement,
    runner: DetectorRunner,
    conditions: Mapping[str, Condition],
    families: Sequence[str],
) -> Source:
    about: dict[str, object] = {
        "settings": asdict(job.settings),
        "conditions": {name: asdict(condition) for name, condition in conditions.items()},
        "families": list(families),
        "pools": list(job.robustness.pools),
    }
    protocol = (
        "real fills and triplets, whole pictures; headline: mean over families of means over "
        "photos, n families; interval: families and photos"
    )
    return replace(job.make_source(SET, protocol, runner), config_hash=hash_config(about))


def find_sources(data: Path) -> dict[str, str]:
    """The source of every picture, by its id."""
    fills = {f.id: f.source for f in read_fills(data / "fills")}
    return fills | {t.id: find_source(t.id) for t in read_triplets(data, HEADLINE)}


def compute_left_out(
    rows: Sequence[Row],
    pictures: Sequence[Picture],
    data: Path,
    weights: Mapping[str, str | Path],
) -> list[Row]:
    """Headlines of several weights together: each family by those that were not trained on it.

    rows, pictures: of the part "families", for all `weights`. The result's rows have the names of
    all weights, joined with "+".
    """
    trained = {
        name: set(read_record(path, kind="detector").families) for name, path in weights.items()
    }
    mine = [
        replace(p, weights="+".join(weights))
        for p in pictures
        if p.set == SET
        and not p.method.startswith(ORIGINALS)
        and p.method.removeprefix(FITTED).partition(", ")[0] not in trained[p.weights]
    ]
    names = [p.method.partition(", ") for p in mine]
    conditions = list(dict.fromkeys(condition for _, _, condition in names))
    families = sorted({family for family, _, _ in names})
    first = next(r for r in rows if r.set == SET)
    source = Source(
        SET,
        "+".join(weights),
        first.commit,
        first.config_hash,
        "+".join(dict.fromkeys(r.weights_sha256[:12] for r in rows if r.set == SET)),
        f"{first.protocol}; each family by weights that were not trained on it",
        "+".join(dict.fromkeys(r.calibration_sha256[:12] for r in rows if r.set == SET)),
    )
    return compute_headlines(source, mine, find_sources(data), conditions, families)
