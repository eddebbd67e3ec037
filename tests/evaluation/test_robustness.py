"""The part "robustness": which pictures are looked at, under what, and what is made of it."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import overpaint.evaluation.benchmark as benchmark
from helpers.bright_detectors import Bright, calibration, registered, save
from overpaint.cli import build
from overpaint.data.autoencoder import conv_autoencoder
from overpaint.data.degrade import jpeg, webp
from overpaint.data.sources import Part, split
from overpaint.detection.calibration import HIGH, LOSSLESS, LOW, MEDIUM
from overpaint.detection.runner import DetectorRunner
from overpaint.errors import ConfigError
from overpaint.evaluation.measurement import RobustnessSettings, Settings
from overpaint.evaluation.robustness import (
    AS_IS,
    CONDITIONS,
    Exhibit,
    apply_condition,
    choose_conditions,
    compute_headlines,
    find_forged_folders,
    limit_exhibits,
    make_composite,
    read_forged,
    read_triplet_exhibits,
    score_exhibit,
)
from overpaint.evaluation.rows import Picture, Source, find_pictures_file, read_pictures
from overpaint.evaluation.triplets import HEADLINE, Triplet, read_triplets
from overpaint.images import read_image, write_jpeg, write_png
from overpaint.weights import save_weights

SOURCE = Source("robustness", "net", "c", "h", "s", "p")
SHAPE = (64, 96)
DARK, LIGHT = 40, 220
HOLE = np.zeros(SHAPE, np.uint8)
HOLE[16:48, 32:64] = 1  # on the grid of JPEG's blocks, so that a file blurs nothing over its edge


def filled(dark: int = DARK) -> np.ndarray:
    """What `Bright` finds exactly: the hole is light, all else dark."""
    return np.repeat(np.where(HOLE == 1, LIGHT, dark)[..., None], 3, axis=2).astype(np.uint8)


def plain(level: int = DARK) -> np.ndarray:
    return np.full((*SHAPE, 3), level, np.uint8)


def photos_of(part: Part, num: int, suffix: str = "png") -> list[str]:
    return split((f"plain/{i}.{suffix}" for i in range(500)), part)[:num]


def forgeries(folder: Path, photos: list[str], inpainter: str) -> Path:
    """A folder as of `overpaint forge`."""
    lines = []
    for i, photo in enumerate(photos):
        row: dict[str, Any] = {"index": i, "photo": photo, "inpainter": inpainter}
        kinds = {"original": plain(), "mask": HOLE * np.uint8(255), "inpainted": filled()}
        for kind, pixels in kinds.items():
            row[kind] = f"{kind}/{i:06d}.png"
            (folder / kind).mkdir(parents=True, exist_ok=True)
            write_png(folder / row[kind], pixels)
        lines.append(json.dumps(row) + "\n")
    (folder / "manifest.jsonl").write_text("".join(lines))
    return folder


def triplets(folder: Path) -> None:
    """One of each group of the headline, and two more; "shifted" has other known pixels."""
    folder.mkdir(parents=True)
    write_png(folder / "mask.png", HOLE * np.uint8(255))
    write_png(folder / "original.png", plain())
    write_png(folder / "intact.png", filled())
    write_png(folder / "shifted.png", filled(DARK + 9))
    lines = ["method,id,original,mask,inpainted"]
    for method, name, original, inpainted in (
        ("madf", "a", "triplets/original.png", "intact"),
        ("madf", "b", "triplets/original.png", "shifted"),
        ("crfill", "c", "triplets/original.png", "intact"),
        ("deepfillv1", "d", "", "shifted"),
        ("sd2_inpaint", "IA_fill_sample1", "triplets/original.png", "intact"),
    ):
        lines.append(f"{method},{name},{original},triplets/mask.png,triplets/{inpainted}.png")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Triplets, and test photos of three qualities."""
    triplets(tmp_path / "data" / "triplets")
    folder = tmp_path / "data" / "photos"
    (folder / "plain").mkdir(parents=True)
    for name in photos_of("test", 3):
        write_png(folder / name, plain())
    for name, quality in zip(photos_of("test", 2, "jpg"), (95, 60), strict=True):
        write_jpeg(folder / name, plain(), quality)
    return tmp_path / "data"


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Path]:
    """Weights of `Bright`, and beside them autoencoders that make all white."""
    with registered(tmp_path), torch.no_grad():
        white = conv_autoencoder(width=4, depth=1)
        for parameter in white.parameters():
            parameter.zero_()
        list(white.parameters())[-1].fill_(0.5)
        for name in ("ae-one", "ae-heldout"):
            save_weights(
                tmp_path / "w", white, name=name, kind="autoencoder", data="", recipe="", commit="",
                architecture="conv-autoencoder", config={"width": 4, "depth": 1}, licence="-",
            )  # fmt: skip
        yield save(tmp_path / "w", "net", fitted=calibration()).path


def measured(
    data: Path, net: Path, out: Path, limit: int | None = None, **special: Any
) -> dict[tuple[str, str], float]:
    rows = benchmark.evaluate(
        {"net": net}, data, out, ["robustness"],
        settings=Settings(size=64, limit=limit), bank=net.parent,
        robustness=RobustnessSettings(**special),
    )  # fmt: skip
    assert {(r.set, r.weights) for r in rows} == {("robustness", "net")}
    return {(r.method, r.metric): r.value for r in rows}


INPAINTED = (
    *("universal:bank", "universal:held-out", "forged:mean-s", "forged:other"),
    *(f"triplets:{group}" for group in HEADLINE),
    "composited:madf",
)
UNTOUCHED = (f"untouched:{LOSSLESS}", f"untouched:{HIGH}", f"untouched:{LOW}")


def test_a_detector_that_says_the_truth_is_right_everywhere(data: Path, net: Path, tmp_path: Path):
    forgeries(tmp_path / "forged" / "one", photos_of("test", 2), "mean-s")
    forgeries(tmp_path / "forged" / "two", photos_of("test", 1) + photos_of("train", 3), "other")
    found = measured(data, net, tmp_path / "out", forged=(tmp_path / "forged",))
    untouched = (*UNTOUCHED, "untouched:originals of the triplets")
    for condition in CONDITIONS:
        for name in INPAINTED:
            # A brush's strokes are thinner than a pixel of the smaller picture.
            exact = not name.startswith("universal") or condition == AS_IS
            assert found[f"{name}, {condition}", "auc"] == 1 or not exact, (name, condition)
            assert found[f"{name}, {condition}", "flagged@default"] == 1
        for name in untouched:
            assert found[f"{name}, {condition}", "flagged@default"] == 0
            assert (f"{name}, {condition}", "auc") not in found
        assert found[f"forged, {condition}", "auc"] == 1
        assert found[f"triplets, {condition}", "auc"] == 1
    assert found["forged, as is", "miou@default"] == found["triplets, as is", "f1@default"] == 1
    sets = {method.removesuffix(", as is") for method, _ in found if method.endswith("as is")}
    halves = (f"triplets of the {half} half" for half in ("choice", "report"))
    means = {"forged", "triplets", "untouched", *halves}
    assert sets == {*INPAINTED, *untouched, *means}
    pictures = read_pictures(find_pictures_file(tmp_path / "out", "robustness"))
    ids = [p.picture for p in pictures if p.method.startswith("forged") and "75" in p.method]
    assert ids == [n for n in ("one/000000", "one/000001", "two/000000") for _ in range(2)]


def test_the_forgeries_alone(data: Path, net: Path, tmp_path: Path):
    forgeries(tmp_path / "forged" / "one", photos_of("test", 2), "mean-s")
    forgeries(tmp_path / "forged" / "two", photos_of("test", 1) + photos_of("train", 3), "other")
    special = RobustnessSettings(forged=(tmp_path / "forged",))
    how: dict[str, Any] = {"bank": net.parent, "robustness": special}
    rows = benchmark.evaluate({"net": net}, data, tmp_path / "out", ["forged"], **how)
    assert {(r.set, r.method, r.n) for r in rows} == {
        ("forged", "mean-s", 2),
        ("forged", "other", 1),
    }
    assert {r.value for r in rows if r.metric in ("auc", "flagged@default")} == {1}
    with pytest.raises(ConfigError, match="name it"):
        benchmark.evaluate({"net": net}, data, tmp_path / "out", ["forged"], bank=net.parent)


def test_fills_of_one_photo_count_once(data: Path, net: Path, tmp_path: Path):
    one, other = photos_of("test", 2)
    forgeries(tmp_path / "one", [one] * 5 + [other], "mean-s")
    special = RobustnessSettings(forged=(tmp_path / "one",), conditions=(AS_IS,))
    how: dict[str, Any] = {"robustness": special, "bank": net.parent, "settings": Settings(size=64)}
    rows = benchmark.evaluate({"net": net}, data, tmp_path / "out", ["forged", "robustness"], **how)
    found = {(r.method, r.metric): r.n for r in rows}
    assert found["mean-s", "auc"] == found[f"forged:mean-s, {AS_IS}", "auc"] == 2
    forgeries(tmp_path / "more" / "one", [one], "other")
    special = RobustnessSettings(forged=(tmp_path / "one", tmp_path / "more" / "one"))
    with pytest.raises(ConfigError, match="more/one: rename one"):
        benchmark.evaluate(
            {"net": net}, data, tmp_path / "out", ["forged"], robustness=special, bank=net.parent
        )


def test_a_quick_look_and_its_sheets(data: Path, net: Path, tmp_path: Path):
    forgeries(tmp_path / "one", photos_of("test", 2), "mean-s")
    sheets = tmp_path / "sheets"
    how = {"conditions": ("JPEG 75", AS_IS), "sheets": sheets, "forged": (tmp_path / "one",)}
    found = measured(data, net, tmp_path / "out", limit=1, **how)
    assert {method.rpartition(", ")[2] for method, _ in found} == {"JPEG 75", AS_IS}
    pictures = read_pictures(find_pictures_file(tmp_path / "out", "robustness"))
    methods = [p.method for p in pictures]
    assert len(methods) == len(set(methods))
    files = {path.name for path in (sheets / "net").iterdir()}
    expected = {"forged-mean-s.png", "triplets-madf.png", "untouched-jpeg-90.png"}
    assert expected < files
    assert len(files) == len({p.method.rpartition(", ")[0] for p in pictures})
    assert read_image(sheets / "net" / "forged-mean-s.png").width > 4 * SHAPE[1]


def test_each_condition_has_the_threshold_of_its_quality():
    runner = DetectorRunner(Bright())
    missing, same = calibration(threshold=1000), calibration(threshold=0)
    bands = same.bands | {HIGH: missing.bands[HIGH]}
    runner.calibration = same.model_copy(update={"bands": bands})
    exhibit = Exhibit("triplets:madf", "a", filled(), HOLE, LOSSLESS)
    found = {
        p.method: p.numbers["f1@default"] for p in score_exhibit(runner, exhibit, CONDITIONS, "net")
    }
    assert found.pop("triplets:madf, JPEG 95") == 0
    assert min(found.values()) > 0.9
    of_jpeg = Exhibit("triplets:madf", "a", filled(), HOLE, HIGH)
    found = {
        p.method: p.numbers["f1@default"] for p in score_exhibit(runner, of_jpeg, CONDITIONS, "net")
    }
    assert found["triplets:madf, as is"] == 0
    assert found["triplets:madf, resize 0.75"] > 0.9


def test_conditions():
    noise = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), np.uint8)
    exhibit = Exhibit("s", "a", noise, HOLE, LOW)
    shown = {name: apply_condition(exhibit, condition) for name, condition in CONDITIONS.items()}
    assert {name: e.quality for name, e in shown.items()} == {
        AS_IS: LOW,
        "JPEG 95": HIGH,
        "JPEG 85": MEDIUM,
        "JPEG 75": MEDIUM,
        "WebP 85": MEDIUM,
        "resize 0.75": LOSSLESS,
        "resize 1.5": LOSSLESS,
    }
    sizes = {"resize 0.75": (48, 72), "resize 1.5": (96, 144)}
    for name, e in shown.items():
        assert e.mask is not None
        assert e.pixels.shape[:2] == e.mask.shape == sizes.get(name, SHAPE)
        assert set(np.unique(e.mask)) == {0, 1}
        assert e.mask.mean() == HOLE.mean()  # its sides are multiples of 4
        assert np.array_equal(e.pixels, noise) is (name == AS_IS)
    for quality in (95, 85, 75):
        np.testing.assert_array_equal(shown[f"JPEG {quality}"].pixels, jpeg(noise, quality))
    np.testing.assert_array_equal(shown["WebP 85"].pixels, webp(noise, 85))
    assert (
        apply_condition(Exhibit("s", "a", plain(), None, LOW), CONDITIONS["resize 1.5"]).mask
        is None
    )


def test_unknown_conditions_are_refused():
    with pytest.raises(
        ConfigError, match="no condition is called 'JPEG 20'; there are as is, JPEG"
    ):
        choose_conditions(RobustnessSettings(conditions=("JPEG 20",)))
    with pytest.raises(ConfigError, match="sheets show the pictures as is"):
        choose_conditions(RobustnessSettings(conditions=("JPEG 95",), sheets=Path("x")))


def test_a_composite_is_the_original_outside_of_the_mask():
    rng = np.random.default_rng(0)
    inpainted, original = rng.integers(0, 256, (2, *SHAPE, 3), np.uint8)
    whole = make_composite(inpainted, original, HOLE)
    assert whole is not None
    np.testing.assert_array_equal(whole[HOLE == 0], original[HOLE == 0])
    np.testing.assert_array_equal(whole[HOLE == 1], inpainted[HOLE == 1])
    assert make_composite(whole, original, HOLE) is None  # intact already
    assert make_composite(inpainted, original[:-1], HOLE) is None


def test_only_triplets_with_other_known_pixels_are_composited(data: Path):
    found = {(e.set, e.id): e for e in read_triplet_exhibits(read_triplets(data))}
    composites = {key: e for key, e in found.items() if key[0].startswith("composited")}
    assert list(composites) == [("composited:madf", "b")]
    np.testing.assert_array_equal(composites["composited:madf", "b"].pixels, filled())
    originals = [i for name, i in found if name == "untouched:originals of the triplets"]
    assert originals == ["a", "b", "c", "IA_fill_sample1"]


def test_a_composite_counts_as_lossless_whatever_the_files_were(tmp_path: Path):
    write_jpeg(tmp_path / "original.jpg", plain(), 60)
    write_jpeg(tmp_path / "inpainted.jpg", filled(99), 95)
    write_png(tmp_path / "mask.png", HOLE * np.uint8(255))
    files = (tmp_path / name for name in ("inpainted.jpg", "mask.png", "original.jpg"))
    found = read_triplet_exhibits([Triplet("madf", "a", *files, half="choice")])
    assert [e.quality for e in found] == [HIGH, LOSSLESS, LOW]


def test_forgeries_of_training_photos_are_refused(tmp_path: Path):
    folder = forgeries(tmp_path / "set", photos_of("train", 2), "lama-s")
    with pytest.raises(
        ConfigError, match=r"none of the 2 forgeries in .*set is of a photo of the t"
    ):
        read_forged([folder])
    with pytest.raises(ConfigError, match="nowhere holds no forgeries"):
        read_forged(find_forged_folders([tmp_path / "nowhere"]))
    mixed = forgeries(tmp_path / "mixed", photos_of("train", 2) + photos_of("test", 1), "lama-s")
    assert [row.index for _, row in read_forged([mixed])] == [2]


def test_folders_of_forgeries_are_found_in_a_folder(tmp_path: Path):
    for name in ("b", "a"):
        forgeries(tmp_path / name, photos_of("test", 1), name)
    (tmp_path / "notes").mkdir()
    folders = [tmp_path / "a", tmp_path / "b"]
    assert (
        find_forged_folders([tmp_path])
        == find_forged_folders([tmp_path, tmp_path / "a"])
        == folders
    )
    assert find_forged_folders([tmp_path / "b"]) == [tmp_path / "b"]


def test_a_limit_is_of_each_set():
    shown = [Exhibit(name, str(i), plain(), None, LOSSLESS) for i, name in enumerate("aabab")]
    assert [e.id for e in limit_exhibits(shown, 2)] == ["0", "1", "2", "4"]
    assert list(limit_exhibits(shown, None)) == shown


def test_headlines_are_means_of_means():
    def of(method: str, *aucs: float) -> list[Picture]:
        numbers = [
            {"auc": auc, "f1@default": auc / 2, "iou@0.5": 0, "iou@default": 1} for auc in aucs
        ]
        return [Picture("robustness", method, "net", str(i), n) for i, n in enumerate(numbers)]

    pictures = of("forged:one, as is", 0.2) + of("forged:two, as is", 0.8, 0.8, 0.8)
    pictures += of("forged:one, JPEG 75", 0.9)
    for group, aucs in zip(HEADLINE, ((1, 0), (0.6, 0.4), (0.8, 0.2), (0.4, 0.6)), strict=True):
        pictures += of(f"triplets:{group}, as is", *aucs)
    for band, shares in ((LOSSLESS, (0.02, 0)), (LOW, (0.5, 0.009, 0.011))):
        method = f"untouched:{band}, as is"
        pictures += [Picture("robustness", method, "net", "", {"fraction": s}) for s in shares]
    rows = compute_headlines(SOURCE, pictures, [AS_IS], {"0": "choice", "1": "report"}, {})
    found = {(r.method, r.metric): r.value for r in rows}
    assert found == pytest.approx({
        ("forged, as is", "auc"): 0.5,
        ("forged, as is", "miou@0.5"): 0,
        ("forged, as is", "miou@default"): 1,
        ("triplets, as is", "auc"): 0.5,
        ("triplets, as is", "f1@default"): 0.25,
        ("triplets of the choice half, as is", "auc"): 0.7,
        ("triplets of the choice half, as is", "f1@default"): 0.35,
        ("triplets of the report half, as is", "auc"): 0.3,
        ("triplets of the report half, as is", "f1@default"): 0.15,
        ("untouched, as is", "flagged@default"): 0.6,
    })  # fmt: skip
    counted = {r.method: r.n for r in rows if r.metric == "auc"}
    assert counted["forged, as is"] == 4
    assert counted["triplets of the report half, as is"] == 4
    assert all(not math.isnan(r.ci_low) for r in rows)


def test_a_photo_that_all_inpainters_filled_is_drawn_for_all_together():
    aucs = np.linspace(0.3, 0.7, 9)
    pictures = [
        Picture("robustness", f"forged:{name}, as is", "net", f"{name}/{i}", dict.fromkeys(
            ("auc", "iou@0.5", "iou@default", "f1@default"), auc))
        for name in ("one", "two", "three", "four")
        for i, auc in enumerate(aucs)
    ]  # fmt: skip
    pictures += [Picture("robustness", f"triplets:{g}, as is", "net", "t", {}) for g in HEADLINE]

    def measure_width(photos: dict[str, str]) -> float:
        rows = compute_headlines(SOURCE, pictures, [AS_IS], {"t": "choice"}, photos)
        row = next(r for r in rows if (r.method, r.metric) == ("forged, as is", "auc"))
        return row.ci_high - row.ci_low

    shared = {p.picture: p.picture.partition("/")[2] for p in pictures}
    # Nine photos have one interval, whether one inpainter filled them or four filled all of them.
    assert measure_width(shared) == pytest.approx(2 * 1.96 * np.std(aucs) / 10**0.5, abs=0.02)
    assert measure_width({}) < 0.75 * measure_width(shared)


class TestWhenItIsMeasured:
    @pytest.fixture
    def parts(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The names of the parts that were measured; nothing is."""
        done: list[str] = []
        fakes = {
            name: lambda task, name=name: (done.append(name), ([], []))[1]
            for name in benchmark.PARTS
        }
        monkeypatch.setattr(benchmark, "PARTS", fakes)
        return done

    def test_not_unless_it_is_named_or_given_forgeries(self, parts: list[str], tmp_path: Path):
        benchmark.evaluate({"net": "x"}, tmp_path, tmp_path)
        usual = [part for part in benchmark.PARTS if part not in benchmark.NAMED]
        assert parts == usual
        parts.clear()
        given = RobustnessSettings(forged=(tmp_path,))
        benchmark.evaluate({"net": "x"}, tmp_path, tmp_path, robustness=given)
        assert parts == [*usual, "robustness"]
        with pytest.raises(ConfigError, match="for the parts robustness and forged; name one"):
            benchmark.evaluate({"net": "x"}, tmp_path, tmp_path, ["triplets"], robustness=given)
        for special in (RobustnessSettings(sheets=tmp_path), RobustnessSettings(conditions=("x",))):
            with pytest.raises(ConfigError, match="are for the parts robustness"):
                benchmark.evaluate({"net": "x"}, tmp_path, tmp_path, ["forged"], robustness=special)

    def test_by_the_command(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        asked: dict[str, Any] = {}

        def evaluate(*arguments: Any, **how: Any) -> list[Any]:
            asked.update(how, only=arguments[3])
            return []

        monkeypatch.setattr(benchmark, "evaluate", evaluate)
        line = "evaluate --data d --only robustness --forged a --forged b --sheets s --conditions"
        assert CliRunner().invoke(build(), [*line.split(), "as is, JPEG 85"]).exit_code == 0
        assert asked["only"] == ["robustness"]
        folders = (Path("a"), Path("b"))
        assert asked["robustness"] == RobustnessSettings(folders, ("as is", "JPEG 85"), Path("s"))
        assert asked["settings"] == Settings()
        result = CliRunner().invoke(build(), ["evaluate", "--data", "d", "--lossless"])
        assert result.exit_code == 0, result.output
        assert asked["settings"] == Settings(qualities=())
        assert asked["robustness"] == RobustnessSettings()
