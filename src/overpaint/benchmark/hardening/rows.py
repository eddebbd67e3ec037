"""The rows of a race: those of its cells, means over groups of generators, and what was gained.

- `round` counts the trainings of the detector, or, in rows without one, of the adversary; 0 is
  before the first.
- `side`: "detector" for what the detector finds, "inpainter" for the quality of the adversary's
  fills.
- Generators that are means: `GROUPS`. Each generator counts alike; the interval draws generators
  and photos anew. The adversary counts as it was before the first round, so that
  all rounds are measured on the same pictures.
- "gain:METRIC": the change since round 0 on the same pictures, with an interval over these pairs.
- "mined": the share of a generator's fills that a round mined, of `n` that it made.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from overpaint.benchmark.hardening.plan import Group, Look, Race
from overpaint.benchmark.hardening.recipe import OF_DETECTOR, Hardening
from overpaint.benchmark.rows import (
    OVER_BOTH,
    OVER_PICTURES,
    BenchmarkRow,
    Measured,
    mark_incomplete,
    measure,
)
from overpaint.benchmark.store import Stage, Store
from overpaint.metrics import bootstrap, bootstrap_levels, mean

DETECTOR, INPAINTER = "detector", "inpainter"
GAIN = "gain:"
MINED = "mined"
LOOP, APART, REAL = "all in the loop", "all held-out inpainters", "all held-out real fills"
GROUPS: Mapping[str, tuple[Group, ...]] = {
    LOOP: ("in the loop", "adversary"),
    APART: ("held-out inpainter",),
    REAL: ("held-out real fills",),
}


@dataclass(frozen=True, slots=True)
class HardeningRow(BenchmarkRow):
    """One figure of one round."""

    round: int = 0
    side: str = ""
    group: str = ""
    """Of the generator: see `plan.Group`; "" of a mean."""
    held_out: str = ""
    """yes or no: whether the generator is never in the loop; "" of untouched photos."""


def make_rows_of_race(
    recipe: Hardening, race: Race, store: Store, errors: Mapping[Stage, str]
) -> list[HardeningRow]:
    """All rows: of cells, of groups, of gains, and of what was mined."""
    table, rows = recipe.make_table_recipe(), []
    measured: dict[tuple[int, str], tuple[Look, Measured, HardeningRow]] = {}
    for look in race.looks:
        found, numbers = measure(table, look.cell, store, errors)
        placed = [_make_row(recipe, look, row) for row in found]
        rows += [row for row in placed if row.error or row.n]
        if numbers is not None and look.cell.axes["detector"]:
            base = _make_row(recipe, look, numbers.row)
            measured[look.round, look.generator] = look, numbers, base
    everyone = {name: _list_members(recipe, race.looks, name) for name in GROUPS}
    rows += _make_means(recipe, measured.values(), everyone)
    rows += _make_gains(recipe, measured, everyone)
    rows += _make_mined_rows(recipe, race, store, errors)
    steps = [""] + [str(stage.units) for stage in race.trained]
    return [replace(r, steps=steps[r.round] if r.side == DETECTOR else r.steps) for r in rows]


def _make_row(recipe: Hardening, look: Look, row: BenchmarkRow) -> HardeningRow:
    held_out = "" if look.group == "untouched" else "no"
    if look.group.startswith("held-out"):
        held_out = "yes"
    values: dict[str, Any] = asdict(row) | {"config_hash": recipe.hash}
    return HardeningRow(
        **values,
        round=look.round,
        side=DETECTOR if look.cell.axes["detector"] else INPAINTER,
        group=look.group,
        held_out=held_out,
    )


def _list_members(recipe: Hardening, looks: Iterable[Look], name: str) -> list[str]:
    """The generators of a group, in their order."""
    start = recipe.name_adversary(0)
    return list(
        dict.fromkeys(
            look.generator
            for look in looks
            if look.group in GROUPS[name] and (look.group != "adversary" or look.generator == start)
        )
    )


def _make_mean_row(
    base: HardeningRow, name: str, metric: str, values: Sequence[Mapping[Hashable, float]]
) -> HardeningRow:
    """Over generators; base: of one of them."""
    low, high = bootstrap_levels(values)
    return replace(
        base,
        inpainter=name,
        inpainter_sha256="",
        data_hash="",
        group="",
        metric=metric,
        value=mean(mean(numbers.values()) for numbers in values),
        n=_count_numbers(numbers.values() for numbers in values),
        ci_low=low,
        ci_high=high,
        interval=OVER_BOTH,
    )


def _count_numbers(values: Iterable[Iterable[float]]) -> int:
    return sum(not math.isnan(v) for numbers in values for v in numbers)


def _make_means(
    recipe: Hardening,
    measured: Iterable[tuple[Look, Measured, HardeningRow]],
    everyone: Mapping[str, Sequence[str]],
) -> list[HardeningRow]:
    """everyone: the generators of each group; without one of them in a round, it has no mean."""
    by_round: dict[int, dict[str, tuple[Look, Measured, HardeningRow]]] = {}
    for each in measured:
        by_round.setdefault(each[0].round, {})[each[0].generator] = each
    rows = []
    for found in by_round.values():
        for name in GROUPS:
            members = _list_members(recipe, (look for look, *_ in found.values()), name)
            if len(members) < 2:
                continue
            base = found[members[0]][2]
            lost = [m for m in everyone[name] if m not in members]
            for metric in OF_DETECTOR:
                values = [_name_photos(found[m][1], metric) for m in members]
                row = _make_mean_row(base, name, metric, values)
                rows.append(mark_incomplete(row, lost) if lost else row)
    return rows


def _make_gains(
    recipe: Hardening,
    measured: Mapping[tuple[int, str], tuple[Look, Measured, HardeningRow]],
    everyone: Mapping[str, Sequence[str]],
) -> list[HardeningRow]:
    rows = []
    for number in range(1, recipe.rounds + 1):
        later = {name: each for (r, name), each in measured.items() if r == number}
        pairs = {n: (measured[0, n], each) for n, each in later.items() if (0, n) in measured}
        for metric in OF_DETECTOR:
            changes = {
                name: _subtract(_name_photos(last[1], metric), _name_photos(first[1], metric))
                for name, (first, last) in pairs.items()
            }
            changes = {
                name: found for name, found in changes.items() if _count_numbers([found.values()])
            }
            for name, found in changes.items():
                values = list(found.values())
                base = pairs[name][1][2]
                low, high = bootstrap(values)
                row = replace(
                    base, metric=f"{GAIN}{metric}", value=mean(values), n=_count_numbers([values])
                )
                over = OVER_PICTURES if len(values) > 1 else ""
                rows.append(replace(row, ci_low=low, ci_high=high, interval=over))
            for name in GROUPS:
                looks = (each[0] for each in later.values())
                members = [m for m in _list_members(recipe, looks, name) if m in changes]
                if len(members) > 1:
                    base = pairs[members[0]][1][2]
                    values = [changes[m] for m in members]
                    row = _make_mean_row(base, name, f"{GAIN}{metric}", values)
                    lost = [m for m in everyone[name] if m not in members]
                    rows.append(mark_incomplete(row, lost) if lost else row)
    return rows


def _name_photos(measured: Measured, metric: str) -> dict[Hashable, float]:
    """The numbers by set and picture; fills of one photo have one name, but for real fills."""
    photos = measured.row.photos
    return {(photos, name): x for name, x in measured.values.get(metric, {}).items()}


def _subtract(
    last: Mapping[Hashable, float], first: Mapping[Hashable, float]
) -> dict[Hashable, float]:
    """Differences by photo; both have the same photos."""
    if last.keys() != first.keys():
        raise ValueError("the pictures of two rounds differ")
    return {photo: x - first[photo] for photo, x in last.items()}


def _make_mined_rows(
    recipe: Hardening, race: Race, store: Store, errors: Mapping[Stage, str]
) -> list[HardeningRow]:
    rows = []
    for number, stage in enumerate(race.mined, 1):
        about = store.read_about(stage)
        if stage in errors or about is None:
            continue
        for name, (taken, made) in about["info"]["mined"].items():
            rows.append(
                HardeningRow(
                    table=recipe.name,
                    scale=recipe.scale,
                    detector=recipe.detector.name,
                    training=f"round {number}",
                    inpainter=name,
                    photos="photos",
                    mask=" + ".join(recipe.masks),
                    bin="any",
                    processing="",
                    seed=str(recipe.seed),
                    metric=MINED,
                    value=taken / made,
                    n=made,
                    picture_seed=recipe.seed,
                    config_hash=recipe.hash,
                    commit=about["commit"],
                    round=number,
                    side=DETECTOR,
                    group="in the loop" if name in recipe.inpainters else "adversary",
                    held_out="no",
                )
            )
    return rows
