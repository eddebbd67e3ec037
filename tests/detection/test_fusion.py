"""Several detectors on one photo: the mean, the disagreement, and what is said of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import overpaint
from helpers.bright_detectors import Bright, Fails, calibration, registered, save, two_tone
from overpaint.detection import runner as runner_module
from overpaint.detection.api import make_runner
from overpaint.detection.calibration import LOSSLESS, Calibration
from overpaint.detection.fusion import Failure, FusedDetection, FusedRunner, Moments
from overpaint.detection.memory import PHOTO_BYTES, Budget
from overpaint.detection.result import Detection
from overpaint.detection.runner import DetectorRunner
from overpaint.errors import InputError, OverpaintError, WeightsError
from overpaint.images import Photo, write_png

STEEP = calibration(threshold=1, slope=2, intercept=-2)
HEAT = {"left": (0.880797, 0.982014), "right": (4.539787e-5, 3.353501e-4)}
"""Of `pair` on the two tones: sigmoid(6 - 4), sigmoid(2 (3 - 1)); sigmoid(-10), sigmoid(-8)."""


@pytest.fixture
def imported(tmp_path: Path) -> Iterator[Path]:
    with registered(tmp_path) as folder:
        yield folder


def runner(gain: float = 20, fitted: Calibration | None = None, name: str = "a") -> DetectorRunner:
    out = DetectorRunner(Bright(gain))
    out.calibration, out.name = fitted, name
    return out


def pair() -> list[DetectorRunner]:
    """Logits 6 and -6 with the threshold 4, and 3 and -3 with 1."""
    return [runner(20, calibration(), "a"), runner(10, STEEP, "b")]


def fuse(
    runners: list[DetectorRunner],
    pixels: np.ndarray | None = None,
    threshold: float | None = None,
) -> FusedDetection:
    pixels = two_tone() if pixels is None else pixels
    photo = Photo(pixels, Path("p.png"), "0" * 64, "PNG", None, False)
    return FusedRunner(runners, threshold=threshold).run(photo)


def test_mean_and_deviation_by_hand() -> None:
    found = fuse(pair())
    for column, (a, b) in zip((0, -1), HEAT.values(), strict=True):
        np.testing.assert_allclose(found.heatmap[:, column], (a + b) / 2, rtol=1e-4)
        np.testing.assert_allclose(found.disagreement[:, column], (b - a) / 2, rtol=1e-3)
    assert found.heatmap.dtype == found.disagreement.dtype == np.float32
    assert found.score == pytest.approx((0.952574 + 0.982014) / 2, abs=1e-6)  # sigmoid of 3, 4
    assert (found.fraction, found.num_regions, found.fused) == (0.5, 1, ("a", "b"))
    assert [d.model for d in found.detectors if isinstance(d, Detection)] == ["a", "b"]
    assert found.disagreement_q99 == pytest.approx((0.982014 - 0.880797) / 2, abs=1e-5)


def test_three_maps_by_their_textbook_moments() -> None:
    maps = np.random.default_rng(0).random((5, 7, 9), np.float32)
    moments = Moments()
    for values in maps:
        moments.add(values)
    np.testing.assert_allclose(moments.mean, maps.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(moments.compute_deviation(), maps.std(axis=0), rtol=1e-4)


def test_a_half_of_the_fused_heatmap_is_the_default_threshold_of_one_detector() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    alone = runner(50, calibration())
    found = fuse([runner(50, calibration())], pixels)
    expected = alone.logits(pixels) >= calibration().bands[LOSSLESS].threshold_logit
    assert 0.01 < expected.mean() < 0.99
    np.testing.assert_array_equal(found.mask, expected)


def test_equal_detectors_do_not_disagree() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    found = fuse([runner(20, calibration(), name) for name in "abc"], pixels)
    assert found.heatmap.std() > 0.01
    assert not found.disagreement.any()
    alone = fuse([runner(20, calibration())], pixels)
    np.testing.assert_allclose(found.heatmap, alone.heatmap, atol=1e-6)


def test_a_detector_that_could_not_tell_moves_nothing_over_the_threshold() -> None:
    blind = runner(50, calibration(slope=1e-6), "blind")
    found = fuse([pair()[0], blind])
    np.testing.assert_allclose(found.heatmap[0, [0, -1]], [0.690398, 0.250023], atol=1e-4)


def test_one_that_fails_leaves_the_others_alone() -> None:
    broken = DetectorRunner(Fails())
    found = fuse([broken, *pair()])
    np.testing.assert_array_equal(found.heatmap, fuse(pair()).heatmap)
    assert found.fused == ("a", "b")
    failure = found.detectors[0]
    assert isinstance(failure, Failure)
    assert "allocate 9 GB" in failure.error
    assert found.words.startswith("3 detectors: 2 strong trace, 1 failed; fused: 50 % of")
    with pytest.raises(OverpaintError, match=r"no detector .* Fails: .* 9 GB"):
        fuse([DetectorRunner(Fails())])


def test_uncalibrated_detectors_are_left_out_and_named() -> None:
    found = fuse([runner(200, None, "wild"), *pair()])
    np.testing.assert_array_equal(found.heatmap, fuse(pair()).heatmap)
    assert found.fused == ("a", "b")
    assert found.fusion_words == (
        "fused: mean of a, b, each calibrated so that 0.5 is its own default threshold; "
        "left out, as uncalibrated: wild"
    )
    only_low = calibration(bands=("jpeg<75",))  # the photo is lossless
    assert fuse([runner(200, only_low, "low"), *pair()]).fused == ("a", "b")


def test_where_none_is_calibrated_the_plain_heatmaps_are_fused_and_that_is_said() -> None:
    found = fuse([runner(20, None, "a"), runner(10, None, "b")])
    # sigmoid of 6 and 3, and of -6 and -3
    np.testing.assert_allclose(found.heatmap[0, 0], (0.997527 + 0.952574) / 2, rtol=1e-5)
    np.testing.assert_allclose(found.heatmap[0, -1], (0.002473 + 0.047426) / 2, rtol=1e-3)
    np.testing.assert_allclose(found.disagreement[0, 0], (0.997527 - 0.952574) / 2, rtol=1e-3)
    assert not found.calibrated
    assert "none is calibrated" in found.fusion_words


def test_the_mean_claims_no_verdict_and_no_false_alarm_rate() -> None:
    for runners in (pair(), [runner()]):
        found = fuse(runners)
        assert (found.band, found.false_alarm_rate) == ("no verdict of its own", None)
        assert "false-alarm rate" not in found.threshold_words
        assert "calibrat" in found.threshold_words
    quiet = fuse(pair(), np.zeros((160, 200, 3), np.uint8))
    assert quiet.words == (
        "2 detectors: 2 no trace found; fused: 0 % of the photo, no regions; disagreement 0.00; "
        "this does not show that the photo is authentic"
    )


def test_a_threshold_is_that_of_the_fused_heatmap() -> None:
    found = fuse(pair(), threshold=0.95)
    assert (found.threshold, found.fraction) == (0.95, 0.0)
    assert [d.fraction for d in found.detectors if isinstance(d, Detection)] == [0.5, 0.5]
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="from 0 to 1"):
            fuse(pair(), threshold=wrong)
    with pytest.raises(InputError, match="at least one"):
        FusedRunner([])


def test_names_that_collide_get_digits_of_their_weights(imported: Path, tmp_path: Path) -> None:
    one = save(tmp_path / "one", "net", gain=20, fitted=calibration())
    other = save(tmp_path / "other", "net", gain=10, fitted=STEEP)
    called = save(tmp_path, "fused", gain=5)
    fused = make_runner([one.path, other.path, called.path])
    assert isinstance(fused, FusedRunner)
    names = [r.name for r in fused.runners]
    assert names == [
        f"net-{one.sha256[:8]}",
        f"net-{other.sha256[:8]}",
        f"fused-{called.sha256[:8]}",
    ]


def test_detect_all(imported: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="overpaint models"):
        overpaint.detect(two_tone(), model="all")
    save(imported, "a", gain=20, fitted=calibration())
    save(imported, "b", gain=10, fitted=STEEP)
    write_png(tmp_path / "p.png", two_tone())
    found = overpaint.detect(tmp_path / "p.png", model="all")
    assert isinstance(found, FusedDetection)
    np.testing.assert_array_equal(found.heatmap, fuse(pair()).heatmap)
    assert (found.path, found.model) == (tmp_path / "p.png", "fused")
    of_list = overpaint.detect(two_tone(), model=["a", imported / "b.json"])
    np.testing.assert_array_equal(of_list.heatmap, found.heatmap)
    one = overpaint.detect(two_tone(), model="a")
    assert not isinstance(one, FusedDetection)
    assert not isinstance(overpaint.detect(two_tone(), model=["a", "a"]), FusedDetection)
    save(imported, "b", gain=20, fitted=calibration())  # replaced, so loaded anew
    assert overpaint.detect(two_tone(), model="all").fused == ("a",)


def test_a_memory_limit_counts_all_detectors_and_what_is_kept_of_each(
    imported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    load = runner_module.load

    def measure(*args: Any) -> Budget:
        done.append("measured")
        return Budget(args[1], 0, 1.0, 1, PHOTO_BYTES + args[-1])

    monkeypatch.setattr(
        runner_module, "load", lambda *args: (done.append("loaded"), load(*args))[1]
    )
    monkeypatch.setattr(Budget, "measure", measure)
    save(imported, "one", "bright")
    save(imported, "two", "bright", gain=10)
    fused = make_runner(["one", "two"], memory=1e9)
    assert isinstance(fused, FusedRunner)
    assert done == ["loaded", "loaded", "measured", "measured"]
    assert [r.budget and r.budget.photo_bytes for r in fused.runners] == [32 + 9 + 8] * 2
    assert make_runner(["one"], memory=1e9).budget.photo_bytes == 32  # type: ignore[union-attr]
