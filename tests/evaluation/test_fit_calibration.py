"""Calibration: the rank convention, the score's fit, and the variants it is made of."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from typer.testing import CliRunner

from overpaint.cli import build
from overpaint.data.ordinary_edits import ORDINARY_EDITS
from overpaint.data.photo_sets import collect_photos
from overpaint.data.sources import PhotoSource
from overpaint.detection.calibration import (
    HIGH,
    LOSSLESS,
    LOW,
    MEDIUM,
    QUALITY_BANDS,
    Calibration,
    QualityBand,
)
from overpaint.errors import InputError, WeightsError
from overpaint.evaluation import fit_calibration as module
from overpaint.evaluation.fit_calibration import (
    Edited,
    add_edits,
    add_strong_threshold,
    calibrate,
    calibrate_weights,
    fit_band,
    fit_platt,
    fit_threshold,
    make_untouched_variants,
    measure_edits,
    vary,
)
from overpaint.images import write_png
from overpaint.images.decoding import Photo
from overpaint.weights import read_record, save_weights, store


@pytest.mark.parametrize(("n", "rate", "allowed"), [(200, 0.01, 2), (100, 0.29, 29), (50, 0.01, 0)])
def test_threshold_lets_exactly_so_many_reach_it(n, rate, allowed):
    values = np.random.default_rng(n).permutation(np.arange(n, dtype=np.float32) / 7)
    threshold = fit_threshold(values, rate)
    assert np.count_nonzero(values >= threshold) == allowed
    lower = np.nextafter(np.float32(threshold), np.float32(-np.inf))
    assert np.count_nonzero(values >= lower) == allowed + 1  # it is the smallest such logit


def test_threshold_counts_all_of_a_tie():
    values = np.array([0.0] * 95 + [1.0] * 5, dtype=np.float32)
    assert fit_threshold(values, 0.01) > 1  # one may reach it, but the five cannot be told apart
    assert 0 < fit_threshold(values, 0.05) < 1


def test_threshold_needs_finite_values():
    for values in ([], [0.0, np.nan], [np.inf]):
        with pytest.raises(InputError):
            fit_threshold(np.array(values), 0.01)


def test_platt_finds_the_known_line():
    # Gaussians of one width at -1 and +1: the log odds are 2 x / variance = 2 x.
    rng = np.random.default_rng(0)
    slope, intercept = fit_platt(rng.normal(-1, 1, 20_000), rng.normal(1, 1, 20_000))
    assert slope == pytest.approx(2.0, abs=0.06)
    assert intercept == pytest.approx(0.0, abs=0.04)


def test_platt_weighs_classes_alike():
    rng = np.random.default_rng(1)
    slope, intercept = fit_platt(rng.normal(-1, 1, 40_000), rng.normal(1, 1, 4_000))
    assert -intercept / slope == pytest.approx(0.0, abs=0.05)  # an even bet half way


def test_platt_stays_finite_when_all_are_told_apart():
    slope, intercept = fit_platt(np.linspace(-9, -8, 30), np.linspace(8, 9, 30))
    assert np.isfinite([slope, intercept]).all()
    scores = 1 / (1 + np.exp(-(slope * np.array([-8.5, 8.5]) + intercept)))
    # The smoothed targets of 30 against 30 are 1 / 32 and 31 / 32.
    assert scores == pytest.approx([1 / 32, 31 / 32], abs=5e-3)


def test_a_detector_that_cannot_tell_scores_a_half():
    band = fit_band(np.linspace(0, 2, 100), np.linspace(-2, 0, 50))
    assert band.score(-5.0) == pytest.approx(0.5, abs=1e-4)


def test_band_holds_its_own_false_alarm_rate():
    untouched = np.random.default_rng(2).normal(size=1000).astype(np.float32)
    band = fit_band(untouched, untouched + 3)
    assert np.mean(untouched >= band.threshold_logit) == 0.01
    assert np.mean(untouched >= band.inconclusive_logit) == 0.1
    assert (band.num_untouched, band.num_inpainted) == (1000, 1000)


@pytest.mark.slow
def test_every_fitted_band_is_valid():
    rng = np.random.default_rng(4)
    for _ in range(300):
        num_photos = int(rng.integers(2, 200))
        num = num_photos * int(rng.integers(1, 4))
        rate = float(rng.choice([1 / num_photos, rng.uniform(1 / num_photos, 0.999), 0.5]))
        values = rng.normal(rng.normal(0, 20), rng.choice([1e-6, 1, 300]), num)
        if rng.random() < 0.5:  # ties
            values = np.round(values, int(rng.integers(-2, 3)))
        band = fit_band(values.astype(rng.choice(["f4", "f8"])), None, num_photos, rate)
        assert np.mean(values.astype("f4") >= band.threshold_logit) <= rate + 1e-9
        assert QualityBand.model_validate_json(band.model_dump_json()) == band


def test_a_rate_that_the_photos_cannot_carry_is_refused():
    values = np.linspace(0, 1, 297)
    with pytest.raises(InputError, match=r"99 untouched .* 1\.00% needs 100: give about 1000"):
        fit_band(values, values + 1, num_photos=99)  # three variants of each make no more photos
    with pytest.raises(InputError, match="5 untouched photos"):
        fit_band(values[:5], values[:5])
    assert fit_band(values, values + 1, num_photos=99, rate=0.02).false_alarm_rate == 0.02


def test_a_band_states_the_binomial_bound_of_its_photos():
    values = np.random.default_rng(2).normal(size=495)
    # 4 of 495 variants may reach it, 1.3 of 165 photos, so two: cdf(2; 165, p) = 0.05.
    assert fit_band(values, values, num_photos=165).false_alarm_bound == pytest.approx(
        0.037663, abs=1e-6
    )
    assert fit_band(values[:165], values).false_alarm_bound == pytest.approx(0.028427, abs=1e-6)
    band = fit_band(values[:100], values)
    assert band.false_alarm_bound == band.bound(0.01) == pytest.approx(0.046560, abs=1e-6)


PHOTO = np.random.default_rng(0).integers(256, size=(400, 600, 3), dtype=np.uint8)


def test_variants_keep_their_size_limits():
    rng = np.random.default_rng(3)
    for band in QUALITY_BANDS:
        for _ in range(10):
            height, width = vary(PHOTO, band, rng, lossy=True).shape[:2]
            assert 256 <= max(height, width) <= 600
            assert min(height, width) >= module.MIN_SIDE


def test_a_lossless_variant_of_a_jpeg_is_always_smaller():
    rng = np.random.default_rng(4)
    sizes = [vary(PHOTO, LOSSLESS, rng, lossy=True).shape[1] for _ in range(20)]
    assert max(sizes) <= 600 * module.LOSSY_SCALE


def test_jpeg_variants_use_the_qualities_of_their_band(monkeypatch):
    used: list[int] = []
    monkeypatch.setattr(
        module, "jpeg", lambda pixels, quality, _: (used.append(quality), pixels)[1]
    )
    rng = np.random.default_rng(5)
    for band, low, high in ((HIGH, 90, 100), (MEDIUM, 75, 89), (LOW, 50, 74)):
        used.clear()
        for _ in range(20):
            vary(PHOTO, band, rng, lossy=True)
        assert low <= min(used) <= max(used) <= high


def test_the_photo_itself_stands_in_its_own_band():
    photo = Photo(PHOTO, Path("a.png"), "", "PNG", None, False)
    found = list(make_untouched_variants(photo, 2, 0, 0))
    assert [band for band, _ in found] == [b for b in QUALITY_BANDS for _ in range(2)]
    whole = [band for band, pixels in found if pixels is photo.pixels]
    assert whole == [LOSSLESS]


def test_photos_under_the_tested_size_are_left_out():
    photo = Photo(PHOTO[:100], Path("a.png"), "", "PNG", None, False)
    assert not list(make_untouched_variants(photo, 2, 0, 0))


class Dimmer(nn.Module):
    """An "autoencoder" that a mean can give away."""

    stride = 1

    def forward(self, image: Tensor) -> Tensor:
        return image * 0.2


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(6)
    for i in range(40):
        write_png(tmp_path / f"{i}.png", rng.integers(100, 156, (140, 140, 3)).astype(np.uint8))
    return tmp_path


def darkness(pixels: np.ndarray) -> np.ndarray:
    """Logits."""
    level = float(110 - np.quantile(pixels, 0.01)) / 10
    return np.full(pixels.shape[:2], level, np.float32)


@pytest.mark.slow
def test_calibrate_from_photos_to_verdict(photos: Path):
    source = PhotoSource.from_paths([photos], "validation")
    calibration = calibrate(
        darkness,
        source,
        {"dimmer": Dimmer()},
        data="noise",
        variants=2,
        rate=0.4,
    )
    assert tuple(calibration.bands) == QUALITY_BANDS
    assert calibration.max_pixels_tested == 140 * 140
    for band in calibration.bands.values():
        assert band.num_untouched == band.num_inpainted == 2 * len(source)
        assert band.score(8.0) > 0.7 > 0.5 > band.score(0.0)
    assert calibration == calibrate(
        darkness,
        source,
        {"dimmer": Dimmer()},
        data="noise",
        variants=2,
        rate=0.4,
    )


def test_too_few_photos_are_refused_before_one_is_looked_at(photos: Path):
    def never(pixels: np.ndarray) -> np.ndarray:
        raise AssertionError("looked at")

    source = PhotoSource.from_paths([photos], "validation")
    with pytest.raises(InputError, match="needs 100"):
        calibrate(never, source, {"dimmer": Dimmer()}, data="noise")


def test_each_photo_is_seen_after_each_edit_in_one_band(photos: Path):
    source = PhotoSource.from_paths([photos], "validation")
    band = fit_band(np.linspace(0, 1, 100), np.linspace(0, 9, 100))
    bands = {LOSSLESS: band, LOW: band}

    def five(pixels: np.ndarray) -> np.ndarray:
        return np.full(pixels.shape[:2], 5.0, np.float32)

    seen = measure_edits(five, source, bands)
    both = [sum(len(kinds.get(kind, [])) for kinds in seen.values()) for kind in ORDINARY_EDITS]
    assert both == [len(source)] * len(ORDINARY_EDITS)
    few = measure_edits(five, source, bands, num=1)
    assert {len(values) for kinds in few.values() for values in kinds.values()} == {1}
    assert {edited.statistic for kinds in few.values() for (edited,) in kinds.values()} == {5.0}
    assert measure_edits(five, source, {LOSSLESS: band}, num=0) == {LOSSLESS: {}}


def rough(values: Iterable[float]) -> list[Edited]:
    return [Edited(value, smooth=False) for value in values]


def test_the_threshold_of_a_strong_trace_is_one_that_few_of_each_edit_reach():
    band = fit_band(np.linspace(0, 1, 100), np.linspace(0, 9, 100))
    edits = {"blur": rough(np.linspace(0, 2, 40)), "median": rough(np.linspace(0, 0.9, 40))}
    raised = add_strong_threshold(band, edits, 0.05)
    blur = raised.edits["blur"]
    assert (blur.num_strong, blur.num) == (2, 40)
    assert blur.num_reached == sum(v >= band.threshold_logit for v in np.linspace(0, 2, 40)) > 10
    assert raised.edits["median"].num_strong == raised.edits["median"].num_reached == 0
    assert raised.strong_logit is not None
    assert 1.8 < raised.strong_logit < 2
    same = raised.model_copy(update={"strong_logit": None, "edits": {}})
    assert same == band  # neither the mask nor the false-alarm rate depends on it
    assert QualityBand.model_validate(raised.model_dump()) == raised


def test_a_threshold_that_edits_do_not_reach_stays():
    band = fit_band(np.linspace(0, 1, 100), np.linspace(0, 9, 100))
    same = add_strong_threshold(band, {"blur": rough([0.5] * 20)}, 0.05)
    assert same.strong_logit == band.threshold_logit
    assert add_strong_threshold(band, {}, 0.05) == band
    left = add_strong_threshold(band, {"blur": rough([5.0] * 20)}, 1)
    assert left.strong_logit == band.threshold_logit
    assert left.edits["blur"].num_strong == 20
    with pytest.raises(ValidationError, match="strong_logit is below"):
        QualityBand.model_validate(band.model_dump() | {"strong_logit": -1.0})


def test_smooth_regions_are_no_strong_traces_and_raise_nothing():
    band = fit_band(np.linspace(0, 1, 100), np.linspace(0, 9, 100))
    blurred = [Edited(9.0, smooth=True)] * 20
    raised = add_strong_threshold(band, {"blur": blurred}, 0.05)
    assert raised.strong_logit == band.threshold_logit
    assert (raised.edits["blur"].num_strong, raised.edits["blur"].num_reached) == (0, 20)


@pytest.fixture
def small_weights(tmp_path: Path) -> Path:
    """A folder with an uncalibrated detector, net, and an autoencoder, ae."""
    from overpaint.data.autoencoder import conv_autoencoder
    from overpaint.detectors.nixnet import nixnet

    about: dict[str, Any] = {"data": "", "recipe": "", "commit": "", "licence": "Apache-2.0"}
    torch.manual_seed(0)
    small: dict[str, Any] = {"widths": [4, 4, 4]}
    save_weights(
        tmp_path / "w", nixnet(**small), name="net", kind="detector", architecture="nixnet",
        config=small, **about,
    )  # fmt: skip
    small = {"width": 4, "depth": 1}
    save_weights(
        tmp_path / "w", conv_autoencoder(**small), name="ae", kind="autoencoder",
        architecture="conv-autoencoder", config=small, **about,
    )  # fmt: skip
    return tmp_path / "w"


@pytest.mark.slow
def test_a_copy_of_weights_gets_a_calibration_of_its_own(
    photos: Path, tmp_path: Path, small_weights: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store, "PRETRAINED", small_weights)
    shipped, mine = small_weights / "net.safetensors", tmp_path / "mine.safetensors"
    bank, about = [str(small_weights / "ae.safetensors")], shipped.with_suffix(".json").read_text()
    for wanted in ("net", shipped):
        with pytest.raises(WeightsError, match=r"net\.json to a folder of yours and calibrate the"):
            calibrate_weights(wanted, [photos], bank)
        with pytest.raises(WeightsError, match="copy it with net"):
            add_edits(wanted, [photos])
    few: dict[str, Any] = {"variants": 1, "rate": 0.4, "edits": 1}
    calibrate_weights("net", [photos], bank, **few, overwrite_shipped=True)
    files = {path: path.read_bytes() for path in small_weights.iterdir()}
    assert small_weights / "net.calibration.json" in files

    mine.write_bytes(shipped.read_bytes())
    mine.with_suffix(".json").write_text(about.replace("net.safetensors", "mine.safetensors"))
    (tmp_path / "net.calibration.json").write_text("of another detector")
    record, fitted = calibrate_weights(mine, [photos], bank, **few)
    assert (record.name, record.calibration) == ("net", "mine.calibration.json")
    assert read_record(mine) == record
    assert Calibration.load(tmp_path / "mine.calibration.json") == fitted

    (tmp_path / "mine.calibration.json").rename(tmp_path / "other.calibration.json")
    shared = (tmp_path / "other.calibration.json").read_bytes()
    about = mine.with_suffix(".json").read_text().replace("mine.calibration", "other.calibration")
    mine.with_suffix(".json").write_text(about)
    record, fitted = add_edits(mine, [photos], num=1, seed=1)
    assert read_record(mine).calibration == "mine.calibration.json"
    assert (tmp_path / "other.calibration.json").read_bytes() == shared
    assert (tmp_path / "net.calibration.json").read_text() == "of another detector"
    assert files == {path: path.read_bytes() for path in small_weights.iterdir()}


@pytest.mark.slow
def test_calibrate_weights_writes_beside_them(photos: Path, tmp_path: Path, small_weights: Path):
    path, bank = small_weights / "net.safetensors", small_weights / "ae.safetensors"
    before = json.loads(path.with_suffix(".json").read_text())
    record, calibration = calibrate_weights(
        path, [photos], [str(bank)], variants=1, rate=0.4, edits=1
    )
    assert read_record(path) == record
    assert json.loads(path.with_suffix(".json").read_text()) == before | {
        "calibration": "net.calibration.json"
    }
    assert Calibration.load(tmp_path / "w" / "net.calibration.json") == calibration
    assert calibration.window == module.WINDOW > 1
    for window in (0, 16):  # before any photo is looked at
        with pytest.raises(InputError, match="odd number of pixels"):
            calibrate_weights(path, [], [], window=window)
    _, plain = calibrate_weights(
        path, [photos], [str(bank)], variants=1, rate=0.4, edits=0, window=1
    )
    assert plain.window == 1
    highest = [c.bands[LOSSLESS].untouched_quantiles[-1] for c in (calibration, plain)]
    assert highest[0] < highest[1]  # averages are less extreme
    assert str(tmp_path) not in calibration.data
    assert not plain.bands[LOSSLESS].edits
    _, more = add_edits(path, [photos], num=1, rate=1)
    assert more.bands[LOSSLESS].edits
    assert more.bands[LOSSLESS].threshold_logit == plain.bands[LOSSLESS].threshold_logit
    assert Calibration.load(tmp_path / "w" / "net.calibration.json") == more

    fitted = path.with_name("net.calibration.json").read_bytes()
    for option, value in (("--window", "13"), ("--variants", "3"), ("--rate", "0.4"),
                          ("--autoencoder", "ae-nearest")):  # fmt: skip
        arguments = ["calibrate", str(path), "--photos", str(photos), "--only-edits", option, value]
        result = CliRunner().invoke(build(), arguments)
        assert result.exit_code == 2
        assert option in result.stderr
        assert "has no effect with --only-edits" in result.stderr
    assert path.with_name("net.calibration.json").read_bytes() == fitted

    for how in (["--only-edits"], ["--autoencoder", bank, "--variants", 1, "--rate", 0.4]):
        arguments = ["calibrate", path, "--photos", photos, "--photos", tmp_path / "gone", *how]
        result = CliRunner().invoke(build(), [*map(str, arguments), "--edits", "1"])
        assert result.exit_code == 1, result.output
        assert result.stderr.count("gone: no such file, folder or match") == 1
        assert result.stderr.endswith("1 could not be used; the rest is done\n")
        assert "net.calibration.json" in result.stdout


@pytest.mark.slow
def test_photos_can_be_left_out(photos: Path, small_weights: Path):
    path, bank = small_weights / "net.safetensors", [str(small_weights / "ae.safetensors")]
    few: dict[str, Any] = {"variants": 1, "rate": 0.5, "edits": 1}
    used = collect_photos([photos], "validation", seed=0).names
    problems: list[str] = []
    left_out: list[str] = [Path(used[0]).name, "gone.jpg"]
    _, fitted = calibrate_weights(
        path, [photos], bank, **few, exclude=left_out, problem=problems.append
    )
    assert fitted.data.startswith(f"{len(used) - 1} photos")
    assert problems == ["gone.jpg: to be excluded, but none of the photos has this name"]
    arguments = ["calibrate", path, "--photos", photos, "--only-edits", "--exclude", "gone.jpg"]
    result = CliRunner().invoke(build(), [*map(str, arguments), "--edits", "1"])
    assert result.exit_code == 1
    assert "gone.jpg: to be excluded" in result.stderr
