"""Calibration: the statistic, the quality bands, the false-alarm curve, the file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from overpaint.detection.calibration import (
    AREA,
    QUALITY_BANDS,
    Calibration,
    QualityBand,
    average_logits,
    bound_rate,
    compute_untouched_quantiles,
    find_quality_band,
    judge,
    logit_of,
    q99,
    sigmoid,
)
from overpaint.errors import WeightsError

UNTOUCHED = np.random.default_rng(0).normal(-4, 1.5, 400)


def band(**changes: Any) -> QualityBand:
    fields: dict[str, Any] = {
        "threshold_logit": float(np.quantile(UNTOUCHED, 0.99)),
        "inconclusive_logit": float(np.quantile(UNTOUCHED, 0.9)),
        "slope": 1.2,
        "intercept": 0.5,
        "num_untouched": 400,
        "num_photos": 400,
        "false_alarm_bound": bound_rate(4, 400),
        "num_inpainted": 300,
        "untouched_quantiles": compute_untouched_quantiles(UNTOUCHED),
    }
    return QualityBand(**{**fields, **changes})


def calibration(**changes: Any) -> Calibration:
    fields: dict[str, Any] = {
        "bands": dict.fromkeys(QUALITY_BANDS, band()),
        "window": 1,
        "max_pixels_tested": 1_000_000,
        "data": "made up",
    }
    return Calibration(**{**fields, **changes})


def test_q99_is_the_value_that_one_percent_exceed() -> None:
    values = np.random.default_rng(0).permutation(200).astype(np.float32).reshape(10, 20)
    assert q99(values) == 197  # 198 and 199 are above it: 2 of 200
    assert q99(np.array([[3.5]], np.float32)) == 3.5
    assert q99(np.arange(99.0).reshape(9, 11)) == 98  # not a whole pixel is one percent


def two_regions(core: float) -> np.ndarray:
    """Logits of 40 x 40 pixels: two regions of 300 at 0.5, with 19 and 3 pixels at `core`."""
    logits = np.full((40, 40), -3.0, np.float32)
    logits[2:32, 2:12] = logits[2:32, 22:32] = 0.5
    logits[4, 3:10] = logits[6:8, 3:9] = logits[4, 23:26] = core
    return logits


def test_a_photo_that_reaches_the_threshold_shows_the_whole_region() -> None:
    logits = two_regions(core=6)
    found = judge(logits, 5).mask
    assert found[2:32, 2:12].all()
    assert found.sum() == 300 + 3  # 3 of 300 are not more than one in a hundred
    np.testing.assert_array_equal(judge(logits, 7).mask, np.zeros((40, 40), bool))


def test_a_threshold_below_even_odds_is_the_mask() -> None:
    logits = two_regions(core=6)
    np.testing.assert_array_equal(judge(logits, -4).mask, np.ones((40, 40), bool))
    np.testing.assert_array_equal(judge(logits, 0).mask, logits >= 0)


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("threshold", [-1.0, 0.3, 1.0, 2.0, 2.4, 3.5])
def test_the_default_mask_flags_the_same_photos_as_the_threshold(
    threshold: float, window: int
) -> None:
    rng = np.random.default_rng(0)
    for spread in window * np.linspace(0.2, 1.6, 30):
        logits = rng.normal(0, spread, (30, 40)).astype(np.float32)
        judged = judge(logits, threshold, window)
        reached = (average_logits(logits, window) >= threshold).mean() > AREA
        assert (judged.mask.mean() > AREA) == reached == (judged.statistic >= threshold)


def test_logits_are_averaged_over_what_there_is_of_the_window() -> None:
    logits = np.random.default_rng(1).normal(size=(7, 9)).astype(np.float32)
    expected = [
        [logits[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].mean() for x in range(9)]
        for y in range(7)
    ]
    np.testing.assert_allclose(average_logits(logits, 5), expected, atol=1e-6)
    np.testing.assert_allclose(
        average_logits(logits, 17), np.full((7, 9), logits.mean()), atol=1e-6
    )
    assert average_logits(logits, 1) is logits


def test_specks_are_averaged_away_and_a_region_is_shown_with_its_own_edge() -> None:
    logits = np.full((100, 100), -1.0, np.float32)
    logits[5:13, 10:18] = logits[5:13, 80:88] = 6  # two specks, 1.3 %
    assert judge(logits, 2.5, window=1).statistic == 6
    assert judge(logits, 2.5, window=17).statistic < 1
    logits[40:80, 40:80] = 3
    assert judge(logits, 2.5, window=1).mask.sum() == 1600 + 128
    judged = judge(logits, 2.5, window=17)
    np.testing.assert_array_equal(judged.mask, logits == 3)
    assert judged.logits is logits


@pytest.mark.parametrize(
    ("quality", "lossy", "expected"),
    [
        (None, False, "lossless"),
        (None, True, "jpeg75-90"),
        (100, True, "jpeg>=90"),
        (90, True, "jpeg>=90"),
        (89, True, "jpeg75-90"),
        (75, True, "jpeg75-90"),
        (74, True, "jpeg<75"),
        (1, True, "jpeg<75"),
    ],
)
def test_quality_bands(quality: int | None, lossy: bool, expected: str) -> None:
    assert find_quality_band(quality, lossy) == expected


def test_the_false_alarm_rate_of_the_default_threshold_is_the_stated_one() -> None:
    assert band().find_false_alarm_rate(band().threshold_logit) == (0.01, None)


@pytest.mark.parametrize("logit", np.quantile(UNTOUCHED, [0.13, 0.5, 0.77, 0.9, 0.97]))
def test_other_false_alarm_rates_are_near_the_measured_ones(logit: float) -> None:
    rate, reason = band().find_false_alarm_rate(logit)
    assert reason is None
    assert rate == pytest.approx((logit <= UNTOUCHED).mean(), abs=0.012)


def test_the_binomial_bound_where_it_has_a_closed_form() -> None:
    for num in (1, 5, 59, 165, 5000):
        assert bound_rate(0, num) == pytest.approx(1 - 0.05 ** (1 / num), abs=1e-9)
        assert bound_rate(num - 1, num) == pytest.approx(0.95 ** (1 / num), abs=1e-9)
        assert bound_rate(num, num) == 1
    assert bound_rate(5, 100, 0.5) == pytest.approx(0.056512, abs=1e-6)  # beta.ppf(0.5, 6, 95)


def test_a_band_whose_bound_is_not_that_of_its_photos_is_refused() -> None:
    with pytest.raises(ValidationError, match="200 photos bound a rate"):
        band(num_photos=200)
    with pytest.raises(ValidationError, match="400 variants of 500 photos"):
        band(num_photos=500)


def test_other_rates_have_wider_bounds() -> None:
    bounds = [band().bound(rate) for rate in (0.0, 0.01, 0.05, 0.5, 1.0)]
    assert bounds == sorted(bounds)
    assert all(b > r for b, r in zip(bounds[:-1], (0.0, 0.01, 0.05, 0.5), strict=True))


def test_beyond_the_curve_a_rate_is_one_or_unknown() -> None:
    assert band().find_false_alarm_rate(-np.inf) == (1.0, None)
    for logit in (UNTOUCHED.max() + 0.01, np.inf):
        rate, reason = band().find_false_alarm_rate(logit)
        assert rate is None
        assert "none of the 400" in str(reason)


def test_the_rate_never_rises_with_the_threshold() -> None:
    rates = [band().find_false_alarm_rate(x)[0] for x in np.linspace(-9, UNTOUCHED.max(), 300)]
    assert None not in rates
    assert (np.diff(np.array(rates, float)) <= 0).all()


def test_the_score_is_monotone_and_stays_in_range() -> None:
    scores = [band().score(x) for x in (-1e6, -9.0, -4.0, 0.0, 3.0, 1e6)]
    assert scores == sorted(scores)
    assert scores[0] == 0
    assert scores[-1] == 1
    assert band().score(0.0) == pytest.approx(1 / (1 + np.exp(-0.5)))


def test_logit_and_sigmoid_are_inverse() -> None:
    for p in (1e-9, 0.2, 0.5, 0.99999):
        assert sigmoid(logit_of(p)) == pytest.approx(p, rel=1e-6)
    assert (logit_of(0), logit_of(1)) == (-np.inf, np.inf)


@pytest.mark.parametrize(
    "changes",
    [
        {"slope": 0.0},
        {"slope": -1.0},
        {"threshold_logit": float("nan")},
        {"untouched_quantiles": (1.0, 2.0)},
        {"untouched_quantiles": compute_untouched_quantiles(UNTOUCHED)[::-1]},
        {"unknown": 1},
    ],
)
def test_a_band_refuses_nonsense(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        band(**changes)


def test_a_threshold_that_does_not_have_the_stated_rate_is_refused(tmp_path: Path) -> None:
    low, high = (float(np.quantile(UNTOUCHED, level)) for level in (0.985, 0.99))
    for right in (low, high):
        band(threshold_logit=right)
    for wrong in (low - 0.1, high + 0.1, float(UNTOUCHED.min()) - 5, float(UNTOUCHED.max()) + 1):
        with pytest.raises(ValidationError, match=r"a false-alarm rate of 0\.01 is from"):
            band(threshold_logit=wrong, inconclusive_logit=float(UNTOUCHED.min()) - 9)
    with pytest.raises(ValidationError, match=r"a false-alarm rate of 0\.2 is from"):
        band(false_alarm_rate=0.2, false_alarm_bound=bound_rate(80, 400))
    with pytest.raises(ValidationError, match="inconclusive_logit is above threshold_logit"):
        band(inconclusive_logit=band().threshold_logit + 0.01)

    path = tmp_path / "net.calibration.json"
    calibration().save(path)
    content = json.loads(path.read_text())
    lossless = content["bands"]["lossless"]
    lossless["threshold_logit"] = lossless["untouched_quantiles"][0] - 5
    lossless["inconclusive_logit"] = lossless["threshold_logit"]
    path.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=r"net\.calibration\.json: (.|\n)*threshold_logit is"):
        Calibration.load(path)


def test_an_unknown_quality_is_refused() -> None:
    with pytest.raises(ValidationError, match="jpeg>=95"):
        calibration(bands={"jpeg>=95": band()})


def test_a_window_is_stated_and_has_a_middle() -> None:
    with pytest.raises(ValidationError, match="must be odd"):
        calibration(window=16)
    values = calibration().model_dump(exclude={"window"})
    with pytest.raises(ValidationError, match="window\n  Field required"):
        Calibration.model_validate(values)


def test_outside_the_tested_range() -> None:
    fitted = calibration()
    assert fitted.explain_outside(128, 4000, 50, True) == ()
    assert "127 px is under 128" in fitted.explain_outside(4000, 127, None, False)[0]
    assert "quality 49 is under 50" in fitted.explain_outside(500, 500, 49, True)[0]
    assert fitted.explain_outside(1000, 2000, 95, True) == ()
    assert fitted.list_caveats(1000, 1000) == ()
    assert "2.0 megapixels, calibrated on photos of up to 1.0" in fitted.list_caveats(1000, 2000)[0]
    only = calibration(bands={"lossless": band()})
    assert "no calibration for the quality jpeg>=90" in only.explain_outside(500, 500, 95, True)[0]


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "net.calibration.json"
    calibration().save(path)
    assert Calibration.load(path) == calibration()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("text", ["", "{", '{"bands": {}, "extra": 1}', "\udcff"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "net.calibration.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(WeightsError, match=r"net\.calibration\.json"):
        Calibration.load(path)
