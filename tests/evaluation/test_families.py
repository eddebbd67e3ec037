"""The part "families": every generator counts alike, and unseen ones are told from others."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_robustness import triplets

from helpers.bright_detectors import registered, save
from helpers.real_fills import write_fills
from overpaint.errors import ConfigError
from overpaint.evaluation import benchmark
from overpaint.evaluation.families import (
    FAMILY_CONDITIONS,
    FITTED,
    FITTED_MEAN,
    SEEN,
    UNSEEN,
)
from overpaint.evaluation.measurement import RobustnessSettings, make_rows_by_method
from overpaint.evaluation.robustness import AS_IS
from overpaint.evaluation.rows import Picture, Row, Source, average_by_photo, read_rows
from overpaint.metrics import bootstrap, bootstrap_levels

AS_IS_ONLY = RobustnessSettings(conditions=(AS_IS,))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_fills(
        tmp_path / "data" / "fills",
        ("a", "train", "one", "s"),
        ("b", "train", "one", "s"),
        ("c", "dev", "other", "st"),
        ("d", "dev", "one", "u"),
    )
    triplets(tmp_path / "data" / "triplets")
    return tmp_path / "data"


def measured(
    data: Path, weights: dict[str, Path], how: RobustnessSettings = AS_IS_ONLY
) -> list[Row]:
    out = data.parent / "out"
    rows = benchmark.evaluate(weights, data, out, ["families"], robustness=how)
    kept = {(r.weights, r.method, r.metric) for r in read_rows(out / "families.csv")}
    assert {(r.weights, r.method, r.metric) for r in rows} <= kept
    return rows


def values(rows: list[Row], weights: str, metric: str = "auc") -> dict[str, float]:
    return {r.method: r.value for r in rows if r.weights == weights and r.metric == metric}


def test_every_family_by_itself_and_together(data: Path, tmp_path: Path) -> None:
    with registered(tmp_path):
        rows = measured(data, {"net": save(tmp_path / "w", "net", families=("one",)).path})
    found = values(rows, "net")
    families = ("one", "other", "madf", "crfill", "deepfillv1", "sd2")
    assert {f"{family}, {AS_IS}" for family in families} < found.keys()
    assert found[f"one, {AS_IS}"] == 1.0  # `Bright` finds what is light
    unseen = [found[f"{family}, {AS_IS}"] for family in families[1:]]
    assert found[f"{UNSEEN}, {AS_IS}"] == pytest.approx(np.mean(unseen))
    assert found[f"{SEEN}, {AS_IS}"] == found[f"one, {AS_IS}"]
    (held_out, fitted) = (
        next(r for r in rows if r.method == f"{name}, {AS_IS}" and r.metric == "f1@default")
        for name in ("one", f"{FITTED}one")
    )
    assert (held_out.n, fitted.n) == (1, 2)  # the pool "dev", and "train"
    assert found[f"{FITTED_MEAN}, {AS_IS}"] == found[f"{FITTED}one, {AS_IS}"]
    assert found[f"originals of madf, {AS_IS}"] == 0.5  # they are plain
    assert f"originals of deepfillv1, {AS_IS}" not in found  # there is none
    worst = values(rows, "net", "worst auc")
    assert worst[f"{UNSEEN}, {AS_IS}"] == min(unseen)
    (headline,) = [r for r in rows if r.method == f"{UNSEEN}, {AS_IS}" and r.metric == "auc"]
    assert headline.n == 5


def test_each_family_by_the_weights_that_have_not_seen_it(data: Path, tmp_path: Path) -> None:
    with registered(tmp_path):
        weights = {
            name: save(tmp_path / "w", name, families=families).path
            for name, families in (("a", ("one",)), ("b", ("other",)))
        }
        rows = measured(data, weights)
        seen_by_all = {"c": save(tmp_path / "w", "c", families=("one",)).path, "a": weights["a"]}
        less = measured(data, seen_by_all)
    together = [r for r in rows if r.weights == "a+b" and r.metric == "auc"]
    assert [(r.method, r.n) for r in together] == [(f"{UNSEEN}, {AS_IS}", 6)]
    assert [r.n for r in less if r.weights == "c+a" and r.metric == "auc"] == [5]


def test_a_choice_of_families_pools_and_conditions(data: Path, tmp_path: Path) -> None:
    with registered(tmp_path):
        net = {"net": save(tmp_path / "w", "net").path}
        how = RobustnessSettings(families=("other", "madf"), pools=("dev",))
        found = values(measured(data, net, how), "net")
        assert found.keys() == {  # without a headline: a mean over some is not that over all
            f"{family}, {condition}"
            for family in ("other", "madf", "originals of madf")
            for condition in FAMILY_CONDITIONS
        }
        assert measured(data, net, how)  # again
        every = measured(data, net)
        assert f"{UNSEEN}, {AS_IS}" in values(every, "net")
        with pytest.raises(ConfigError, match="has rows of net for all families, which those of a"):
            measured(data, net, how)
        with pytest.raises(ConfigError, match="no family is called 'x'; there are crfill, "):
            benchmark.evaluate(
                net,
                data,
                tmp_path / "x",
                ["families"],
                robustness=RobustnessSettings(families=("x",)),
            )
        with pytest.raises(ConfigError, match="families have no condition 'JPEG 20'"):
            measured(data, net, RobustnessSettings(conditions=("JPEG 20",)))
        with pytest.raises(ConfigError, match="families and pools are for the part families"):
            benchmark.evaluate(net, data, tmp_path, ["triplets"], robustness=how)


def test_photos_count_alike_in_a_family() -> None:
    def picture(name: str, auc: float) -> Picture:
        return Picture("families", "f, as is", "net", name, {"auc": auc})

    source = Source("families", "net", "c", "h", "s", "p")
    pictures = [picture("a", 0.2), picture("b", 0.4), picture("c", 0.9)]
    sources = {"a": "s", "b": "s", "c": "t"}
    assert average_by_photo(pictures, sources, "auc") == pytest.approx({"s": 0.3, "t": 0.9})
    assert average_by_photo(pictures, sources, "f1@default") == {}
    assert average_by_photo(pictures, {}, "auc") == {"a": 0.2, "b": 0.4, "c": 0.9}
    row = next(r for r in make_rows_by_method(source, pictures, sources) if r.metric == "auc")
    assert (row.value, row.n) == (pytest.approx(0.6), 2)
    # Twenty fills of two photos are two observations: the interval reaches from one to the other.
    many = [
        picture(f"{photo}{i}", auc) for photo, auc in (("s", 0.2), ("t", 0.8)) for i in range(10)
    ]
    of_two = {p.picture: p.picture[0] for p in many}
    row = next(r for r in make_rows_by_method(source, many, of_two) if r.metric == "auc")
    assert (row.ci_low, row.ci_high) == pytest.approx((0.2, 0.8))


def test_the_interval_is_over_families() -> None:
    apart: Any = [{(x, i): x for i in range(50)} for x in (0.5, 0.7, 0.9)]
    low, high = bootstrap_levels(apart)
    assert bootstrap(apart[0].values()) == pytest.approx((0.5, 0.5))  # photos: nothing
    assert low < 0.57
    assert high > 0.83
    assert bootstrap_levels(apart) == (low, high)
    assert all(math.isnan(value) for value in bootstrap_levels([{0: 0.5, 1: 0.6}, {}]))

    def measure_width(values: Any) -> float:
        low, high = bootstrap_levels(values)
        return high - low

    # Ten generators have filled the same twenty photos, which are easy or hard for all of them.
    shared: Any = [{i: float(i % 2) for i in range(20)} for _ in range(10)]
    alone: Any = [{(k, i): x for i, x in group.items()} for k, group in enumerate(shared)]
    normal = 2 * 1.96 * math.sqrt(0.25 / 20)  # that of one generator: the others add nothing
    assert measure_width(shared) == pytest.approx(normal, rel=0.1)
    assert measure_width(alone) < 0.5 * measure_width(shared)
