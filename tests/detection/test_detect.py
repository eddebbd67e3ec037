"""Verdicts and the Python API."""

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import overpaint
from helpers.bright_detectors import Bright, calibration
from helpers.deep_pictures import png as make_png
from helpers.random_weights import save_random, save_small_detector
from overpaint.defaults import DEFAULT_DETECTOR
from overpaint.detection.api import load_detector
from overpaint.detection.calibration import (
    QUALITY_BANDS,
    EditCount,
    sigmoid,
)
from overpaint.detection.fusion import FusedRunner
from overpaint.detection.result import (
    AS_AFTER_EDITS,
    BELOW,
    ONE_REGION,
    SMOOTH,
    format_percent,
    format_probability,
)
from overpaint.detection.runner import DetectorRunner
from overpaint.errors import ImageError, InputError, WeightsError
from overpaint.hashes import file_sha256
from overpaint.images import Photo, read_image, write_jpeg, write_png
from overpaint.images.from_arrays import as_photo
from overpaint.images.regions import Region


def runner(threshold: float | None = None, **changes: Any) -> DetectorRunner:
    """Its thresholds are at logit 4 (grey 178.5) and 2 (grey 153)."""
    out = DetectorRunner(Bright(), threshold=threshold)
    out.calibration = calibration().model_copy(update=changes)
    return out


def photo(pixels: np.ndarray, quality: int | None = None) -> Photo:
    return Photo(pixels, Path("p.png"), "0" * 64, "PNG", quality, quality is not None)


def grey(value: int, size: tuple[int, int] = (160, 200)) -> np.ndarray:
    return np.full((*size, 3), value, np.uint8)


def with_square(side: int, value: int = 255) -> np.ndarray:
    pixels = grey(0, (1000, 1000))
    pixels[100 : 100 + side, 200 : 200 + side] = value
    return pixels


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A NIX-Net with random weights, without calibration."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    return save_random(folder, "detector", "nixnet", {"widths": [4, 4, 4]}).path


@pytest.mark.parametrize(
    ("value", "band"),
    [(0, "no trace found"), (152, "no trace found"), (154, "inconclusive"), (180, "strong trace")],
)
def test_bands_follow_q99(value: int, band: str) -> None:
    found = runner().run(photo(grey(value)))
    assert found.band == band
    assert found.reason is None
    assert found.threshold == pytest.approx(1 / (1 + np.exp(-4)))
    assert found.false_alarm_rate == 0.01
    assert found.verdict.statistic == pytest.approx(20 * (value / 255 - 0.5), abs=1e-4)
    assert found.score == pytest.approx(1 / (1 + np.exp(-found.verdict.statistic + 3)), abs=1e-6)
    assert found.heatmap.shape == found.mask.shape == (160, 200)
    assert found.fraction == (1.0 if band == "strong trace" else 0.0)


def test_a_region_below_one_percent_is_inconclusive_when_it_is_large() -> None:
    small, large = runner().run(photo(with_square(31))), runner().run(photo(with_square(32)))
    assert (small.band, large.band) == ("no trace found", "inconclusive")
    assert large.regions == (Region(200, 100, 32, 32, 1024, large.regions[0].mean),)
    assert large.regions[0].mean == pytest.approx(1, abs=1e-4)
    assert large.words == "inconclusive: 0.1 % of the photo, 1 region"


def test_words() -> None:
    found = runner().run(photo(with_square(200)))
    assert found.words == "strong trace of inpainting: 4 % of the photo, 1 region"
    assert found.threshold_words.startswith("threshold 0.982 for lossless: false-alarm rate 1 %")
    nothing = runner().run(photo(grey(0))).words
    assert nothing == "no trace found; this does not show that the photo is authentic"
    speck = runner().run(photo(with_square(20))).words
    assert speck.startswith("no trace found (under 0.1 % of the photo, 1 region above the thre")


def test_the_bound_stands_beside_the_rate() -> None:
    found = runner().run(photo(with_square(200)))
    assert "rate 1 % (at most 3.1 % with 95 % confidence, 201 photos; " in found.threshold_words
    own = runner(0.3).run(photo(with_square(200)))
    assert own.false_alarm_rate is not None
    assert own.mask_threshold.bound is not None
    assert own.mask_threshold.bound > own.false_alarm_rate
    assert runner(1).run(photo(grey(0))).mask_threshold.bound is None


def edited_runner(strong: float | None = None, **counts: tuple[int, int, int]) -> DetectorRunner:
    """A runner whose calibration knows of so many (strong, reached, of) edits of a kind."""
    edits = {
        kind: EditCount(num=of, num_reached=reached, num_strong=most)
        for kind, (most, reached, of) in counts.items()
    }
    update = {"edits": edits, "strong_logit": strong}
    band = calibration().bands["lossless"].model_copy(update=update)
    return runner(bands=dict.fromkeys(QUALITY_BANDS, band))


def test_a_trace_comes_with_the_rates_of_ordinary_edits() -> None:
    of_edits = edited_runner(median=(4, 9, 20), rotation=(2, 10, 20), vignette=(0, 0, 20))
    for value, said in (
        (180, "a strong trace after ordinary edits, too: median filter 4 of 20, rotation 2 of 20"),
        (154, "the default threshold alone, which this photo does not reach"),
    ):
        assert said in of_edits.run(photo(grey(value))).notes[-1]
    found = of_edits.run(photo(grey(0)))
    assert not any("edit" in note for note in found.notes)
    counts = {kind: (count.num_reached, count.num) for kind, count in found.edits.items()}
    assert counts == {"median filter": (9, 20), "rotation": (10, 20), "vignette": (0, 20)}
    (note,) = edited_runner(vignette=(0, 0, 20)).run(photo(grey(180))).notes
    assert note == (
        "no kind of ordinary edit makes 5 % of untouched photos or more give a strong trace "
        "(20 photos of each kind were tested)"
    )
    (note,) = runner().run(photo(grey(180))).notes
    assert "was not measured for this detector" in note


def test_a_strong_trace_is_above_what_edited_photos_reach() -> None:
    rough = np.random.default_rng(0).integers(-9, 10, (160, 200, 1))
    pixels = (grey(180).astype(int) + rough).astype(np.uint8)
    limit = calibration().bands["lossless"].threshold_logit
    seen = {
        strong: edited_runner(strong, blur=(0, 3, 20)).run(photo(pixels))
        for strong in (None, limit, limit + 9)
    }
    assert [found.band for found in seen.values()] == [*["strong trace"] * 2, "inconclusive"]
    doubt, rates = seen[limit + 9].notes
    assert doubt == AS_AFTER_EDITS.format(rate="1 %")
    assert rates == "untouched photos reach the threshold after ordinary edits, too: blur 3 of 20"
    for found in seen.values():  # the mask and its threshold do not depend on it
        assert found.threshold == seen[None].threshold
        assert np.array_equal(found.mask, seen[None].mask)


def test_a_smooth_region_is_no_strong_trace_where_edits_were_measured() -> None:
    limit = calibration().bands["lossless"].threshold_logit
    assert runner().run(photo(grey(180))).band == "strong trace"
    found = edited_runner(limit, blur=(0, 3, 20)).run(photo(grey(180)))
    assert found.band == "inconclusive"
    assert SMOOTH.format(rate="1 %") in found.notes


@pytest.mark.parametrize(("rate", "lower"), [(0.01, "10 %"), (0.05, "50 %"), (0.2, "50 %")])
def test_every_inconclusive_verdict_says_why_with_the_rates_of_its_calibration(
    rate: float, lower: str
) -> None:
    band = calibration().bands["lossless"].model_copy(update={"false_alarm_rate": rate})
    fitted = runner(bands=dict.fromkeys(QUALITY_BANDS, band))
    said = {"rate": f"{100 * rate:g} %", "lower_rate": lower}
    for value, doubt in ((grey(154), BELOW), (with_square(32), ONE_REGION)):
        found = fitted.run(photo(value))
        assert found.band == "inconclusive"
        assert found.verdict.doubt == doubt.format(**said)
        assert found.verdict.doubt in found.notes
        assert found.meaning == f"I{found.verdict.doubt[1:]}."
    assert f"that {said['rate']} of untouched" in fitted.run(photo(grey(180))).meaning
    assert fitted.run(photo(grey(0))).verdict.doubt is None


def test_the_meaning_of_a_strong_trace_says_what_was_measured_of_edits() -> None:
    limit = calibration().bands["lossless"].threshold_logit
    rough = np.random.default_rng(0).integers(-9, 10, (160, 200, 1))
    pixels = (grey(180).astype(int) + rough).astype(np.uint8)
    lower = edited_runner(None, blur=(14, 14, 20)).run(photo(pixels))
    assert "no higher threshold for edited photos" in lower.meaning  # as of nixnet-s
    higher = edited_runner(limit, blur=(2, 3, 20)).run(photo(pixels))
    assert "at most 10 % of the calibration photos" in higher.meaning
    assert lower.band == higher.band == "strong trace"


def test_a_trace_over_most_of_the_photo_may_be_an_edit_of_the_whole() -> None:
    assert "may be an edit of the whole photo" in runner().run(photo(grey(180))).words
    assert "edit" not in runner().run(photo(with_square(600))).words


def test_no_words_call_a_photo_authentic() -> None:
    photos = [photo(grey(v, s)) for v in (0, 154, 255) for s in ((160, 200), (9, 9))]
    uncalibrated = DetectorRunner(Bright())
    for found in [r.run(p) for p in photos for r in (runner(), runner(0.3), uncalibrated)]:
        rest = re.sub("does not show that the photo is authentic", "", found.words)
        assert not re.search("authentic|genuine|real|untouched|original", rest)


@pytest.mark.parametrize(
    ("pixels", "quality", "changes", "why"),
    [
        (grey(255, (127, 500)), None, {}, "shorter side 127 px is under 128 px"),
        (grey(255), 40, {}, "JPEG quality 40 is under 50"),
        (grey(255), 95, {"bands": {"lossless": calibration().bands["lossless"]}}, "jpeg>=90"),
    ],
)
def test_outside_the_tested_range(
    pixels: np.ndarray, quality: int | None, changes: dict[str, Any], why: str
) -> None:
    found = runner(**changes).run(photo(pixels, quality))
    assert found.band == "outside the tested range"
    assert why in str(found.reason)
    assert why in found.words
    assert (found.false_alarm_rate, found.mask_threshold.note) == (None, found.reason)


def test_a_large_photo_keeps_its_verdict_and_gets_a_note() -> None:
    found = runner(max_pixels_tested=100).run(photo(grey(255)))
    assert found.band == "strong trace"
    assert "calibrated on photos of up to" in found.notes[0]


def test_a_threshold_of_ones_own_changes_the_mask_and_not_the_verdict() -> None:
    pixels = with_square(200, value=160)  # logit 2.55
    usual, own = runner().run(photo(pixels)), runner(threshold=0.9).run(photo(pixels))
    assert usual.band == own.band == "inconclusive"
    assert (usual.fraction, own.fraction) == (0.0, 0.04)
    assert own.threshold == 0.9
    # Two of 201 untouched photos are above 4, the others evenly from -10; logit(0.9) is 2.197.
    assert own.false_alarm_rate == pytest.approx(1 - 199 / 200 * (2.197 + 10) / 14, abs=1e-3)
    assert "false-alarm rate 13.3 %" in own.threshold_words
    assert runner(threshold=0.0).run(photo(pixels)).fraction == 1
    extreme = runner(threshold=0.9999).run(photo(pixels))
    assert extreme.false_alarm_rate is None
    assert "none of the 201 untouched photos" in str(extreme.mask_threshold.note)


def test_a_found_region_is_marked_as_a_whole() -> None:
    pixels = grey(0, (1000, 1000))
    pixels[100:300, 200:400] = 140  # logit 0.98, below both thresholds
    pixels[150:290, 250:390] = 255
    found = runner().run(photo(pixels))
    assert (found.band, found.fraction, found.num_regions) == ("strong trace", 0.04, 1)
    own = runner(threshold=found.threshold).run(photo(pixels))
    assert own.fraction == 0.0196


def test_a_calibration_with_a_window_judges_averages_and_leaves_the_heatmap() -> None:
    pixels = with_square(200, value=200)  # logit 5.7 before -10
    pixels[600:700, 600:720:2] = 255  # of its columns every other one: 6,000 pixels at logit 10
    plain, wide = runner().run(photo(pixels)), runner(window=17).run(photo(pixels))
    assert (plain.band, wide.band) == ("strong trace", "strong trace")
    np.testing.assert_array_equal(plain.heatmap, wide.heatmap)
    assert plain.mask[600:700, 600:720:2].all()
    np.testing.assert_array_equal(wide.mask, pixels[..., 0] == 200)
    specks = pixels.copy()
    specks[100:300, 200:400] = 0
    assert runner().run(photo(specks[500:800, 500:900])).band == "strong trace"
    calm = runner(window=17).run(photo(specks[500:800, 500:900]))
    assert (calm.band, calm.fraction) == ("no trace found", 0.0)
    assert "on averages over 17 pixels square: false-alarm rate 1 %" in calm.threshold_words
    plainly = runner().run(photo(pixels))
    assert (calm.mask_threshold.window, plainly.mask_threshold.window) == (17, 1)
    own = runner(window=17, threshold=0.9).run(photo(pixels))
    assert not own.mask[600:700, 600:720].any()
    assert own.mask[108:292, 208:392].all()


def test_without_calibration() -> None:
    found = DetectorRunner(Bright()).run(photo(grey(200)))
    assert (found.band, found.threshold, found.false_alarm_rate) == ("uncalibrated", 0.5, None)
    assert found.score == pytest.approx(float(found.heatmap.flat[0]))
    assert "no calibration" in found.words


def test_one_pixel() -> None:
    found = runner().run(photo(grey(255, (1, 1))))
    assert found.heatmap.shape == (1, 1)
    assert found.band == "outside the tested range"


def test_a_network_that_gives_nan_is_an_error() -> None:
    class Broken(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image[:, :1] * float("nan")

    with pytest.raises(WeightsError, match="NaN"):
        DetectorRunner(Broken()).run(photo(grey(3)))


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_is_a_probability(threshold: float) -> None:
    with pytest.raises(InputError, match="from 0 to 1"):
        DetectorRunner(Bright(), threshold=threshold)


def test_detect_takes_path_array_and_pil_image(weights: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    path = tmp_path / "p.png"
    write_png(path, pixels)
    of_path = overpaint.detect(path, model=weights)
    assert "array(" not in repr(of_path)
    of_array = overpaint.detect(pixels, model=weights)
    of_pil = overpaint.detect(Image.open(path), model=str(weights))
    np.testing.assert_array_equal(of_path.heatmap, of_array.heatmap)
    np.testing.assert_array_equal(of_path.heatmap, of_pil.heatmap)
    assert of_path.source.sha256 == read_image(path).sha256
    assert of_path.model == "random"
    assert (of_array.path, of_array.source.sha256) == (None, None)
    assert of_path.weights_sha256 == of_array.weights_sha256
    assert (of_path.width, of_path.height) == (90, 70)


def test_a_pil_image_keeps_orientation_and_says_what_is_unknown(
    weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "p.jpg"
    write_jpeg(path, np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8), 95)
    image = Image.open(path)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif, quality=95, subsampling=0)
    found = overpaint.detect(Image.open(path), model=weights)
    assert (found.width, found.height) == (40, 60)
    assert found.quality == "jpeg75-90"
    assert "give the path" in found.notes[0]
    np.testing.assert_array_equal(found.heatmap, overpaint.detect(path, model=weights).heatmap)


@pytest.mark.parametrize(
    ("image", "remedy"),
    [
        (np.zeros((4, 4, 3)), "give uint8"),
        (np.zeros((4, 4), np.uint8), "give uint8"),
        (Image.new("F", (4, 4)), "scale np.asarray"),
        (Image.fromarray(np.full((4, 4), -1, np.int32)), "scale np.asarray"),
        (torch.zeros(1, 3, 4, 4), "to_pixels"),
        (None, "a photo is no NoneType; give a path, bytes"),
        ([np.zeros((4, 4, 3), np.uint8)], "a photo is no list"),
        (io.StringIO("text"), "binary mode"),
    ],
)
def test_detect_refuses_what_it_would_have_to_guess(weights: Path, image: Any, remedy: str) -> None:
    with pytest.raises(InputError, match=remedy):
        overpaint.detect(image, model=weights)


def test_a_file_in_memory_is_a_file_and_has_no_path(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.jpg"
    write_jpeg(path, np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8), 95)
    on_disk = overpaint.detect(path, model=weights)
    for image in (path.read_bytes(), io.BytesIO(path.read_bytes())):
        found = overpaint.detect(image, model=weights)
        assert (found.path, found.source.sha256) == (None, on_disk.source.sha256)
        assert found.quality == "jpeg>=90"
        np.testing.assert_array_equal(found.heatmap, on_disk.heatmap)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_a_pil_image_of_more_bits_is_scaled_as_a_file_is(dtype: Any) -> None:
    values = np.linspace(0, 4095, 600).reshape(20, 30).astype(dtype)
    taken = as_photo(Image.fromarray(values))
    np.testing.assert_array_equal(taken.pixels[..., 1], values >> 4)
    assert "sample value 4095 of 65535 taken for white, as no sample is above 4095" in taken.notes
    full = np.linspace(0, 65535, 600).reshape(20, 30).astype(dtype)
    np.testing.assert_array_equal(as_photo(Image.fromarray(full)).pixels[..., 2], full >> 8)


def test_a_pil_image_keeps_its_alpha_and_xmp_turns_it_not(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    taken = as_photo(Image.fromarray(pixels))
    np.testing.assert_array_equal(taken.pixels, pixels[..., :3])
    np.testing.assert_array_equal(taken.alpha, pixels[..., 3])
    image = Image.fromarray(pixels[..., :3])
    image.info["xmp"] = b'<rdf:Description tiff:Orientation="6"/>'
    np.testing.assert_array_equal(as_photo(image).pixels, pixels[..., :3])


def test_a_pil_image_whose_pixels_cannot_be_had_is_a_typed_error(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(grey(3)).save(path)
    closed = Image.open(path)
    closed.close()
    deep = tmp_path / "deep.png"
    deep.write_bytes(make_png(np.full((8, 8, 3), 700, np.uint16)))
    odd = {"cannot be read": closed, "0 x 5 pixels": Image.new("RGB", (0, 5))}
    odd["16 bit colour, of which Pillow takes 8"] = Image.open(deep)
    for reason, image in odd.items():
        with pytest.raises(InputError, match=reason):
            as_photo(image)


def test_a_pil_image_of_multiplied_alpha_and_one_of_an_mpo() -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (20, 30, 4), dtype=np.uint8)
    taken = as_photo(Image.fromarray(pixels).convert("RGBa"))
    np.testing.assert_array_equal(taken.alpha, pixels[..., 3])
    buffer = io.BytesIO()
    one, two = (Image.fromarray(np.ascontiguousarray(pixels[..., :3])) for _ in range(2))
    one.save(buffer, "MPO", save_all=True, append_images=[two])
    taken = as_photo(Image.open(buffer))
    assert (taken.format, taken.lossy) == ("JPEG", True)


def test_missing_file_and_missing_weights(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.png"):
        overpaint.detect(tmp_path / "none.png", model=weights)
    with pytest.raises(WeightsError, match="no-such-model"):
        overpaint.detect(grey(3), model="no-such-model")


def test_replaced_weights_are_loaded_anew(weights: Path, tmp_path: Path) -> None:
    config = {"widths": [4, 4, 4]}
    sha256 = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        save_random(tmp_path, "detector", "nixnet", config, "again")
        sha256.add(overpaint.detect(grey(3), model=tmp_path / "again.json").weights_sha256)
    assert len(sha256) == 2


def test_a_replaced_calibration_is_used(tmp_path: Path) -> None:
    path = save_small_detector(tmp_path)
    place = tmp_path / "net.calibration.json"
    thresholds, sha256 = [], []
    for threshold in (1, 2):
        calibration(threshold=threshold).save(place)
        found = overpaint.detect(grey(3), model=path)
        thresholds.append(found.threshold)
        sha256.append(found.examiner.calibration_sha256)
    assert thresholds == pytest.approx([sigmoid(1), sigmoid(2)])
    assert sha256[0] != sha256[1] == file_sha256(place)
    place.unlink()
    with pytest.raises(WeightsError, match=r"net\.calibration\.json"):
        overpaint.detect(grey(3), model=path)


def test_load_detector_gives_a_module_in_eval_mode(weights: Path) -> None:
    module = load_detector(weights)
    assert not module.training
    with torch.inference_mode():
        assert module(torch.zeros(1, 3, 17, 23)).shape == (1, 1, 17, 23)


def test_numbers_in_words() -> None:
    assert [format_percent(x) for x in (0, 0.0004, 0.031, 0.01, 1)] == [
        "0 %",
        "under 0.1 %",
        "3.1 %",
        "1 %",
        "100 %",
    ]
    assert [format_probability(x) for x in (0.5, 0.93, 0.99987, 0.0001, 1.0)] == [
        "0.50",
        "0.93",
        "0.99987",
        "0.0001",
        "1.00",
    ]


@pytest.mark.slow
def test_the_package_offers_its_api_lazily() -> None:
    code = (
        "import sys, overpaint; assert 'torch' not in sys.modules; overpaint.detect; "
        "assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert set(overpaint.__all__) <= set(dir(overpaint))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        overpaint.nothing  # noqa: B018


@pytest.mark.slow
def test_the_shipped_detector_is_calibrated_and_looks_at_a_photo() -> None:
    found = overpaint.detect(Path(overpaint.__file__).parent / "demo" / "astronaut.png")
    assert found.model == DEFAULT_DETECTOR
    assert found.band != "uncalibrated"
    assert found.false_alarm_rate is not None
    assert 0 <= found.false_alarm_rate <= 0.01
    assert found.heatmap.shape == (512, 512)


@pytest.mark.parametrize("threshold", ["0.5", [0.5], float("nan"), 1.5, -1, 1j])
def test_what_is_no_threshold_is_an_error_that_says_what_to_give(threshold: Any) -> None:
    makers = (
        lambda: overpaint.detect(np.zeros((9, 9, 3), np.uint8), threshold=threshold),
        lambda: DetectorRunner(Bright(), threshold=threshold),
        lambda: FusedRunner([runner()], threshold=threshold),
    )
    for make in makers:
        with pytest.raises(InputError, match=r"threshold .*: give a probability from 0 to 1"):
            make()


@pytest.mark.parametrize("memory", ["1e9", [1e9], float("nan"), float("inf"), 0, -1])
def test_what_is_no_memory_limit_is_an_error_that_says_what_to_give(memory: Any) -> None:
    makers = (
        lambda: overpaint.detect(np.zeros((9, 9, 3), np.uint8), memory=memory),
        lambda: DetectorRunner(Bright(), memory=memory),
    )
    for make in makers:
        with pytest.raises(InputError, match=r"memory .*: give a finite number above 0"):
            make()
