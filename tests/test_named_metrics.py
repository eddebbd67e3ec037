"""Figures by name against scikit-learn, torchmetrics and the peers' definitions."""

import math

import numpy as np
import pytest
import torch

from overpaint.errors import InputError, UnknownNameError
from overpaint.metrics import Counts
from overpaint.named_metrics import (
    METRICS,
    Photos,
    Pooled,
    Scored,
    compute_figures,
    find_border_band,
    list_names,
    matthews,
)
from overpaint.ranks import Pool, Ranks, area_under_roc, calibration_error, rank

sklearn = pytest.importorskip("sklearn.metrics")


def picture(seed: int = 0, *, ties: bool = True, side: int = 40, hole: int = 20) -> Scored:
    """A heatmap that knows something of a square hole; with ties, of eleven values."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((side, side), np.uint8)
    mask[8 : 8 + hole, 5 : 5 + hole] = 1
    scores = np.clip(0.35 * mask + rng.normal(0.35, 0.25, mask.shape), 0, 1)
    if ties:
        scores = np.round(scores, 1)
    return Scored(scores.astype(np.float32), mask, default=scores >= 0.7)


@pytest.mark.parametrize("ties", [True, False])
class TestOnePictureAgainstScikitLearn:
    def test_ranking(self, ties: bool) -> None:
        seen = picture(ties=ties)
        truth, scores = seen.mask.ravel(), seen.scores.ravel()
        found = compute_figures(seen)
        assert found["auc"] == pytest.approx(sklearn.roc_auc_score(truth, scores), abs=1e-12)
        wanted = sklearn.average_precision_score(truth, scores)
        assert found["ap"] == pytest.approx(wanted, abs=1e-12)
        precision, recall, _ = sklearn.precision_recall_curve(truth, scores)
        best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
        assert found["f1@best"] == pytest.approx(best, abs=1e-12)

    @pytest.mark.parametrize(("at", "threshold"), [("0.5", 0.5), ("default", 0.7)])
    def test_at_a_threshold(self, ties: bool, at: str, threshold: float) -> None:
        seen = picture(ties=ties)
        truth, found = seen.mask.ravel(), seen.scores.ravel() >= np.float32(threshold)
        wanted = {
            "iou": sklearn.jaccard_score(truth, found),
            "f1": sklearn.f1_score(truth, found),
            "mcc": sklearn.matthews_corrcoef(truth, found),
            "accuracy": sklearn.accuracy_score(truth, found),
        }
        given = Scored(seen.scores, seen.mask, default=found.reshape(seen.mask.shape))
        for name, value in wanted.items():
            assert compute_figures(given)[f"{name}@{at}"] == pytest.approx(value, abs=1e-12)


def test_logits_give_the_figures_of_their_heatmap() -> None:
    seen = picture(ties=False)
    p = np.clip(seen.scores.astype(float), 1e-6, 1 - 1e-6)
    logits = Scored(np.log(p / (1 - p)), seen.mask, half=0.0)
    for name in ("iou@0.5", "mcc@0.5", "auc", "ap", "f1@best", "imdl-benco:f1@0.5"):
        wanted = METRICS[name].compute(seen)
        assert METRICS[name].compute(logits) == pytest.approx(wanted, abs=1e-9)


def test_torchmetrics_agrees() -> None:
    of = pytest.importorskip("torchmetrics.functional.classification")
    seen = picture()
    scores = torch.from_numpy(seen.scores).ravel()
    truth = torch.from_numpy(seen.mask).ravel().long()
    found = compute_figures(seen)
    assert found["auc"] == pytest.approx(float(of.binary_auroc(scores, truth)), abs=1e-6)
    wanted = float(of.binary_average_precision(scores, truth))
    assert found["ap"] == pytest.approx(wanted, abs=1e-6)
    photos = Photos(seen.scores.ravel(), seen.mask.ravel())
    value, _ = of.binary_sensitivity_at_specificity(scores, truth, min_specificity=0.99)
    wanted = compute_figures(photos, ["image:tpr@fpr1%"])["image:tpr@fpr1%"]
    assert wanted == pytest.approx(float(value), abs=1e-6)


class TestPhotos:
    def photos(self, num: int = 400) -> Photos:
        rng = np.random.default_rng(3)
        labels = rng.integers(2, size=num)
        scores = np.round(np.clip(0.3 * labels + rng.normal(0.4, 0.2, num), 0, 1), 2)
        return Photos(scores, labels, default=0.6)

    def test_against_scikit_learn(self) -> None:
        photos = self.photos()
        found = compute_figures(photos)
        y, s = photos.labels, photos.scores
        assert found["image:auc"] == pytest.approx(sklearn.roc_auc_score(y, s))
        assert found["image:ap"] == pytest.approx(sklearn.average_precision_score(y, s))
        for at, threshold in (("0.5", 0.5), ("default", 0.6)):
            wanted = sklearn.balanced_accuracy_score(y, s >= threshold)
            assert found[f"image:balanced-accuracy@{at}"] == pytest.approx(wanted)
        fpr, tpr, _ = sklearn.roc_curve(y, s, drop_intermediate=False)
        assert found["image:tpr@fpr1%"] == pytest.approx(tpr[fpr <= 0.01].max())
        assert found["image:tpr@fpr1%"] > 0

    def test_calibration_error_against_torchmetrics(self) -> None:
        of = pytest.importorskip("torchmetrics.functional.classification")
        rng = np.random.default_rng(1)
        p, y = rng.random(500), rng.integers(2, size=500)
        wanted = of.binary_calibration_error(
            torch.from_numpy(p), torch.from_numpy(y), n_bins=15, norm="l1"
        )
        assert calibration_error(p, y) == pytest.approx(float(wanted), abs=1e-6)
        assert calibration_error(np.array([1.0, 0.0]), np.array([1, 0])) == 0
        assert calibration_error(np.array([0.9, 0.9]), np.array([1, 0])) == pytest.approx(0.4)

    def test_few_untouched_photos_allow_no_false_alarm(self) -> None:
        photos = Photos(np.array([0.9, 0.8, 0.7, 0.1]), np.array([1, 0, 1, 0]))
        assert compute_figures(photos, ["image:tpr@fpr1%"]) == {"image:tpr@fpr1%": 0.5}

    def test_scores_that_are_no_probabilities_have_no_calibration_error(self) -> None:
        with pytest.raises(InputError, match="calibrate the scores"):
            compute_figures(Photos(np.array([1.5, -2]), np.array([1, 0])), ["image:ece"])


class TestPooled:
    def test_pixels_of_all_pictures_count_as_one(self) -> None:
        seen = [picture(i, hole=5 + 5 * i) for i in range(4)]
        pooled = Pooled()
        for one in seen:
            pooled.add(one)
        scores = np.concatenate([s.scores.ravel() for s in seen])
        truth = np.concatenate([s.mask.ravel() for s in seen])
        found = compute_figures(pooled)
        assert set(found) == set(list_names("pooled"))
        assert found["pooled:auc"] == pytest.approx(sklearn.roc_auc_score(truth, scores))
        wanted = sklearn.average_precision_score(truth, scores)
        assert found["pooled:ap"] == pytest.approx(wanted)
        assert found["pooled:iou@0.5"] == sklearn.jaccard_score(truth, scores >= 0.5)
        mean = np.mean([compute_figures(s)["iou@0.5"] for s in seen])
        assert abs(found["pooled:iou@0.5"] - mean) > 0.02, "the two levels are two figures"

    def test_scores_that_nearly_tie_move_it_little(self) -> None:
        rng = np.random.default_rng(0)
        truth = rng.integers(2, size=200_000)
        scores = (rng.normal(0, 3, truth.size) + truth).astype(np.float32)
        pool = Pool()
        pool.add(scores, truth)
        exact = area_under_roc(rank(scores, truth))
        assert area_under_roc(pool.compute_ranks()) == pytest.approx(exact, abs=1e-5)

    def test_steps_keep_the_order_of_all_scores(self) -> None:
        scores = np.array([-np.inf, -9.5, -1e-30, -0.0, 0.0, 1e-30, 0.25, 7.0, np.inf], "f4")
        pool = Pool()
        pool.add(scores, np.arange(scores.size) % 2)
        ranks = pool.compute_ranks()
        assert (np.diff(ranks.scores) > 0).all()
        assert ranks.positives.sum() + ranks.negatives.sum() == scores.size
        assert np.isin(np.array([0.0, 0.25, 7.0], "f4"), ranks.scores).all()
        assert np.abs(ranks.scores + 9.5).min() < 9.5 / 2048

    def test_one_picture_without_a_calibration_leaves_it_undefined(self) -> None:
        pooled = Pooled()
        pooled.add(picture())
        pooled.add(Scored(picture().scores, picture().mask))
        pooled.add(picture())
        found = compute_figures(pooled)
        assert math.isnan(found["pooled:f1@default"])
        assert not math.isnan(found["pooled:f1@0.5"])

    def test_ranks_of_parts_add_up(self) -> None:
        seen = picture()
        parts = [rank(seen.scores[i : i + 13], seen.mask[i : i + 13]) for i in (0, 13, 26, 39)]
        whole, total = rank(seen.scores, seen.mask), parts[0]
        for part in parts[1:]:
            total = total + part
        assert all(np.array_equal(a, b) for a, b in zip(total, whole, strict=True))
        assert isinstance(total, Ranks)


# Peers, as their public descriptions say, written the slow way


def trufor_best(seen: Scored) -> tuple[float, float]:
    """(best F1, F1 at 0.5) by trying each threshold and both polarities."""
    filters = pytest.importorskip("scipy.ndimage")
    truth = seen.mask.astype(bool)
    inside = filters.minimum_filter(truth, 15)
    outside = ~filters.maximum_filter(truth, 11)
    kept = inside | outside
    scores, truth = seen.scores[kept], truth[kept]
    both = []
    for threshold in [-1.0, *np.unique(scores)]:
        found = scores > threshold
        both += [sklearn.f1_score(truth, m, zero_division=0) for m in (found, ~found)]
    found = scores > 0.5
    fixed = max(sklearn.f1_score(truth, m, zero_division=0) for m in (found, ~found))
    return max(both), fixed


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("inverted", [False, True])
def test_trufor(seed: int, inverted: bool) -> None:
    seen = picture(seed)
    if inverted:
        seen = Scored(1 - seen.scores, seen.mask)
    wanted = trufor_best(seen)
    found = compute_figures(seen, ["trufor:f1@best", "trufor:f1@0.5"])
    assert tuple(found.values()) == pytest.approx(wanted, abs=1e-12)
    of_map = compute_figures(picture(seed), ["trufor:f1@best"])["trufor:f1@best"]
    assert found["trufor:f1@best"] == pytest.approx(of_map), "a map and its inverse are alike"


def test_the_border_band_is_that_of_the_windows() -> None:
    filters = pytest.importorskip("scipy.ndimage")
    for seed in range(3):
        truth = np.random.default_rng(seed).random((60, 45)) > 0.995
        truth = filters.binary_dilation(truth, iterations=9)
        inside = filters.minimum_filter(truth, 15)
        outside = ~filters.maximum_filter(truth, 11)
        assert np.array_equal(find_border_band(truth), ~(inside | outside))


def test_trufor_of_a_hole_narrower_than_the_band() -> None:
    seen = picture(hole=6)
    assert compute_figures(seen, ["trufor:f1@best"])["trufor:f1@best"] == 0
    nothing = Scored(np.zeros_like(seen.scores), seen.mask)
    assert math.isnan(compute_figures(nothing, ["trufor:f1@0.5"])["trufor:f1@0.5"])


def test_imdl_benco() -> None:
    seen = picture()
    truth, found = seen.mask.ravel(), seen.scores.ravel() > 0.5
    got = compute_figures(seen, list_names("picture", "imdl-benco"))
    assert got["imdl-benco:f1@0.5"] == pytest.approx(sklearn.f1_score(truth, found))
    assert got["imdl-benco:iou@0.5"] == pytest.approx(sklearn.jaccard_score(truth, found))
    assert got["imdl-benco:f1@0.5"] != compute_figures(seen)["f1@0.5"], (
        "0.5 itself is not above 0.5"
    )
    inverted = Scored(1 - seen.scores, seen.mask)
    doubled = compute_figures(inverted, ["imdl-benco-double:iou@0.5", "imdl-benco-double:auc"])
    wanted = sklearn.jaccard_score(truth, ~(1 - seen.scores.ravel() > 0.5))
    assert doubled["imdl-benco-double:iou@0.5"] == pytest.approx(wanted)
    assert doubled["imdl-benco-double:auc"] == pytest.approx(got["imdl-benco:auc"])


def test_imdl_benco_counts_an_empty_mask_as_0_and_this_project_as_1() -> None:
    empty = Scored(np.zeros((20, 20), np.float32), np.zeros((20, 20), np.uint8))
    assert compute_figures(empty, ["imdl-benco:f1@0.5"])["imdl-benco:f1@0.5"] == 0
    assert compute_figures(empty)["f1@0.5"] == 1
    undefined = {name for name, value in compute_figures(empty).items() if math.isnan(value)}
    assert undefined == {
        "auc",
        "ap",
        "f1@best",
        *(n for n in list_names("picture") if "default" in n),
    }


# Names


def test_a_name_says_level_and_protocol() -> None:
    for name, metric in METRICS.items():
        assert name.startswith("pooled:") == (metric.level == "pooled")
        assert name.startswith("image:") == (metric.level == "image")
        assert name.startswith(("trufor", "imdl-benco")) == (metric.protocol != "overpaint")
        assert metric.name == name
        assert metric.what
    assert [n for n, m in METRICS.items() if not m.higher_is_better] == ["image:ece"]


def test_a_wrong_name_or_level_is_told() -> None:
    with pytest.raises(UnknownNameError, match="f1@best"):
        compute_figures(picture(), ["f2"])
    with pytest.raises(InputError, match="level image"):
        compute_figures(picture(), ["image:auc"])


def test_nan_is_refused() -> None:
    with pytest.raises(InputError, match="NaN"):
        compute_figures(Scored(np.array([[np.nan, 1.0]]), np.array([[1, 0]])), ["auc"])


def test_matthews_by_hand() -> None:
    assert matthews(Counts(6, 1, 2, 3)) == pytest.approx(16 / math.sqrt(7 * 8 * 4 * 5))
    assert matthews(Counts(0, 0, 0, 9)) == 0
