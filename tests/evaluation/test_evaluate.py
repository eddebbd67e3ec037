"""The benchmark from pictures to rows, its files, and the README's tables."""

import importlib
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import overpaint.evaluation.benchmark as benchmark
from helpers.bright_detectors import calibration
from overpaint.data.autoencoder import conv_autoencoder
from overpaint.detection.calibration import HIGH, LOSSLESS
from overpaint.detection.runner import DetectorRunner
from overpaint.detectors.nixnet import nixnet
from overpaint.errors import ConfigError, ImageError, WeightsError
from overpaint.evaluation import family_table, speed, tables, timed_job
from overpaint.evaluation import measurement as parts
from overpaint.evaluation.rows import (
    Picture,
    Row,
    Source,
    find_pictures_file,
    make_mean_row,
    make_row,
    read_pictures,
    read_rows,
    read_sources,
    write_results,
)
from overpaint.evaluation.speed import Kind, detect_once, measure_inpaint, measure_network
from overpaint.evaluation.triplets import (
    GROUPS,
    HALVES,
    HEADLINE,
    SOURCES,
    assign_halves,
    read_triplets,
)
from overpaint.images import write_jpeg, write_png
from overpaint.run_identity import hash_config
from overpaint.weights import save_weights

ROOT = Path(__file__).parents[2]
SOURCE = Source("triplets", "net", "c0ffee", "abc", "5ha", "as in the test")


class Bright(torch.nn.Module):
    """A detector whose logit is the red channel, from -1 to 1."""

    stride = 1

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 2 * image[:, :1] - 1


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Triplets of two groups (mask = bright square), and photos of all parts."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / "triplets"
    folder.mkdir(parents=True)
    lines = []
    for method, name, suffix in (
        ("madf", "a", "png"),
        ("madf", "b", "png"),
        ("crfill", "c", "png"),
        ("crfill", "d", "jpg"),
    ):
        pixels = rng.integers(0, 100, (64, 80, 3)).astype(np.uint8)
        mask = np.zeros((64, 80), np.uint8)
        mask[8:32, 8:40] = 255
        if name != "b":  # b is a fill that cannot be found
            pixels[mask > 0] += 150
        write = write_png if suffix == "png" else lambda p, x: write_jpeg(p, x, 92)
        write(folder / f"{name}.{suffix}", pixels)
        write_png(folder / f"{name}_mask.png", mask)
        lines.append(f"{method},{name},,triplets/{name}_mask.png,triplets/{name}.{suffix}")
    header = "method,id,original,mask,inpainted"
    (folder / "index.csv").write_text("\n".join([header, *lines]) + "\n")
    photos = tmp_path / "data" / "photos" / "noise"
    photos.mkdir(parents=True)
    for i in range(30):
        write_png(photos / f"{i}.png", rng.integers(0, 100, (72, 96, 3)).astype(np.uint8))
    return tmp_path / "data"


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder with a detector and two autoencoders, none of them trained."""
    torch.manual_seed(0)
    about: dict[str, Any] = {"data": "", "recipe": "", "commit": "", "licence": "Apache-2.0"}
    widths: dict[str, Any] = {"widths": [4, 4, 4]}
    save_weights(
        tmp_path / "w", nixnet(**widths), name="net", kind="detector", architecture="nixnet",
        config=widths, **about,
    )  # fmt: skip
    size: dict[str, Any] = {"width": 4, "depth": 1}
    for name in ("ae-one", "ae-heldout"):
        save_weights(
            tmp_path / "w", conv_autoencoder(**size), name=name, kind="autoencoder",
            architecture="conv-autoencoder", config=size, **about,
        )  # fmt: skip
    return tmp_path / "w"


def test_triplets_are_grouped(data: Path):
    assert [t.group for t in read_triplets(data)] == ["madf", "madf", "crfill256", "crfill_jpeg"]
    assert [t.id for t in read_triplets(data, ["crfill_jpeg"])] == ["d"]
    with pytest.raises(ImageError, match=r"index\.csv"):
        read_triplets(data / "photos")


def test_the_real_triplets_have_the_stated_groups(shared_data: Path):
    groups = [t.group for t in read_triplets(shared_data)]
    expected = {"madf": 12, "crfill256": 19, "deepfillv1": 5, "sd2_fill": 5, "crfill_jpeg": 7}
    assert {g: groups.count(g) for g in GROUPS} == expected | {
        "sd2_replace": 2,
        "patchmatch_misc": 4,
    }
    assert set(HEADLINE) == {"madf", "crfill256", "deepfillv1", "sd2_fill"}


def test_halves_are_even_and_never_divide_a_source():
    sizes = {"a": 12, "b": 19, "c": 5, "d": 5, "e": 7, "g": 4}
    pictures = [(group, f"{group}{i}") for group, n in sizes.items() for i in range(n)]
    pictures += [("pair", "c0"), ("pair", "c1")]  # of pictures that another group has, too
    half_of = assign_halves(pictures)
    for group, n in (sizes | {"pair": 2}).items():
        reported = [s for g, s in pictures if g == group and half_of[s] == "report"]
        assert len(reported) == math.ceil(n / 2)
    assert half_of == assign_halves(pictures[::-1])
    assert assign_halves([*pictures, ("new", "x")]) == half_of | {"x": "report"}


def test_the_halves_of_the_real_triplets(shared_data: Path):
    found = read_triplets(shared_data)
    numbers = {g: [t.half for t in found if t.group == g].count("report") for g in GROUPS}
    assert [numbers[g] for g in GROUPS] == [6, 10, 3, 3, 4, 1, 2]
    originals = {t.id: t.original.read_bytes() for t in found if t.original}
    equal = {a: b for a, x in originals.items() for b, y in originals.items() if x == y and a > b}
    assert equal == SOURCES
    half_of = {t.id: t.half for t in found}
    assert all(half_of[a] == half_of[b] for a, b in equal.items())


def with_thresholds(lossless: float, high: float = 0.0) -> DetectorRunner:
    runner = DetectorRunner(Bright())
    runner.calibration = calibration(lossless)
    bands = runner.calibration.bands | {HIGH: calibration(high).bands[HIGH]}
    runner.calibration = runner.calibration.model_copy(update={"bands": bands})
    return runner


def test_score_picture_uses_both_thresholds():
    runner = with_thresholds(lossless=0.5, high=-2)
    pixels = np.zeros((10, 10, 3), np.uint8)
    pixels[:5], pixels[:2] = 140, 250
    mask = np.zeros((10, 10), np.uint8)
    mask[:2] = 1
    numbers = parts.score_picture(runner, pixels, LOSSLESS, mask)
    assert numbers["iou@0.5"] == 0.4  # half of the picture found, a fifth is true
    assert numbers["iou@default"] == 0.4  # the whole region, as the photo reaches the threshold
    assert numbers["fraction"] == 0.5
    assert numbers["auc"] == 1.0
    assert parts.score_picture(runner, pixels, HIGH)["fraction"] == 1.0


def test_score_picture_marks_little_where_the_threshold_is_not_reached():
    pixels = np.full((20, 20, 3), 140, np.uint8)
    pixels[3, 3] = 250  # 1 of 400 pixels
    assert parts.score_picture(with_thresholds(0.4), pixels, LOSSLESS)["fraction"] == 1 / 400


def test_flagged_is_more_than_one_percent():
    shares = [0.0, 0.01, 0.0101, 1.0]
    pictures = [Picture("untouched", "a", "net", str(s), {"fraction": s}) for s in shares]
    assert parts.flag_pictures(pictures) == [0.0, 0.0, 1.0, 1.0]


def test_no_mean_and_no_interval_where_a_generator_has_no_number() -> None:
    groups = [{"a": 0.5, "b": 0.6}, {"c": math.nan}, {"a": 0.7, "b": math.nan}]
    row = make_mean_row(SOURCE, "headline", "auc", groups)
    assert all(math.isnan(value) for value in (row.value, row.ci_low, row.ci_high))
    assert row.n == 3
    assert make_mean_row(SOURCE, "headline", "auc", groups[::2]).value == pytest.approx(0.625)


def test_row_is_a_mean_over_the_pictures_with_a_number():
    found = make_row(SOURCE, "madf", "auc", [0.5, math.nan, 1.0])
    assert (found.value, found.n) == (0.75, 2)
    assert found.ci_low == 0.5
    assert found.ci_high == 1.0
    headline = make_mean_row(SOURCE, "headline", "auc", [{"a": 0.2}, dict.fromkeys("abc", 0.8)])
    assert headline.value == pytest.approx(0.5)  # of groups, not of pictures
    assert math.isnan(make_row(SOURCE, "x", "auc", [0.7]).ci_low)


def test_config_hash_depends_on_values_and_not_on_order():
    assert hash_config({"a": 1, "b": 2}) == hash_config({"b": 2, "a": 1}) != hash_config({"a": 1})


def test_results_replace_the_rows_of_the_same_weights(tmp_path: Path):
    def measured(weights: str, value: float) -> list[Row]:
        source = Source("triplets", weights, "c", "h", "s", "p")
        return [make_row(source, "madf", "auc", [value, value])]

    for weights, value in (("one", 0.1), ("two", 0.2), ("one", 0.3)):
        pictures = [Picture("triplets", "madf", weights, "a", {"auc": value})]
        write_results(tmp_path, measured(weights, value), pictures)
    rows = {r.weights: r for r in read_rows(tmp_path / "triplets.csv")}
    assert {name: r.value for name, r in rows.items()} == {"one": 0.3, "two": 0.2}
    assert rows["one"] == measured("one", 0.3)[0]
    pictures = read_pictures(find_pictures_file(tmp_path, "triplets"))
    found = {p.weights: p.numbers["auc"] for p in pictures}
    assert found == pytest.approx({"one": 0.3, "two": 0.2})
    assert {s.weights for s in read_sources(tmp_path / "sources.csv").values()} == {"one", "two"}


def test_rows_come_back_as_they_were_written(tmp_path: Path):
    bare = replace(SOURCE, set="speed", weights="", weights_sha256="")
    full = replace(SOURCE, calibration_sha256="ca1", seen_by="net 123 -", historical="not kept")
    rows = [
        make_row(full, "madf, as is", "auc", [0.5, 0.75]),
        make_row(full, "madf, as is", "miou@0.5", [0.25]),  # of fewer pictures
        make_row(replace(full, weights="two"), "madf", "auc", [0.125, 0.125]),
        make_row(bare, "start", "seconds", [1.5]),
    ]
    write_results(tmp_path, rows, [])
    read = [*read_rows(tmp_path / "triplets.csv"), *read_rows(tmp_path / "speed.csv")]
    assert list(map(repr, read)) == list(map(repr, rows))


def test_a_number_that_is_not_there_is_told_from_one_that_is_not_measured(tmp_path: Path):
    missing = replace(make_row(SOURCE, "madf", "auc", [0.5]), value=math.nan)
    write_results(tmp_path, [missing, make_row(SOURCE, "other", "f1@0.5", [0.5])], [])
    first, second = read_rows(tmp_path / "triplets.csv")
    assert math.isnan(first.value)
    assert (second.method, second.metric) == ("other", "f1@0.5")


def test_no_row_stands_under_the_source_of_another(tmp_path: Path):
    write_results(tmp_path, [make_row(SOURCE, "madf", "auc", [0.1])], [])
    sources = tmp_path / "sources.csv"
    before = sources.read_text()
    remeasured = [make_row(replace(SOURCE, commit="later"), "madf", "auc", [0.2])]
    write_results(tmp_path, remeasured, [])
    sources.write_text(before)  # as if the other file had not been written
    with pytest.raises(ConfigError, match=r"triplets\.csv: .*measure again"):
        read_rows(tmp_path / "triplets.csv")
    write_results(tmp_path, remeasured, [])  # which helps
    assert read_rows(tmp_path / "triplets.csv")[0].commit == "later"


def test_pictures_without_pyarrow_are_refused_before_anything_is_measured(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"overpaint\[results\]"):
        benchmark.evaluate({"net": "not read"}, data, tmp_path / "r", ["triplets"])
    with pytest.raises(ConfigError, match=r"overpaint\[results\]"):
        write_results(tmp_path / "r", [], [Picture("triplets", "madf", "net", "a", {"auc": 1})])
    assert not (tmp_path / "r").exists()


def test_f1_is_not_stored_where_it_follows_from_iou(tmp_path: Path):
    hits = {"iou@0.5": 3 / 6, "f1@0.5": 6 / 9, "f1@default": 0.25}
    none = {"iou@0.5": 0.0, "f1@0.5": 0.0, "f1@default": 0.5}
    pictures = [Picture("triplets", "madf", "net", n, f) for n, f in {"a": hits, "b": none}.items()]
    write_results(tmp_path, [make_row(SOURCE, "madf", "auc", [0.5])], pictures)
    path = find_pictures_file(tmp_path, "triplets")
    assert [p.numbers for p in read_pictures(path)] == [pytest.approx(hits), none]
    columns = importlib.import_module("pyarrow.parquet").read_schema(path).names
    assert columns == ["weights", "method", "picture", "iou@0.5", "f1@default"]


def test_a_damaged_file_of_pictures_is_named(tmp_path: Path):
    path = tmp_path / "triplets.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match=r"triplets\.parquet: cannot be read"):
        read_pictures(path)


def test_evaluate_writes_every_part_but_speed(data: Path, trained: Path, tmp_path: Path):
    out = tmp_path / "results"
    rows = benchmark.evaluate(
        {"net": trained / "net.json"},
        data,
        out,
        ["universal", "triplets", "untouched", "autoencoders"],
        bank=trained,
        settings=benchmark.Settings(size=64),
    )
    sets = {"universal", "triplets", "untouched", "autoencoders"}
    assert {p.stem for p in out.glob("*.csv")} == {*sets, "sources"}
    assert {p.stem for p in out.glob("pictures/*")} == sets
    assert sum(len(read_rows(out / f"{name}.csv")) for name in sets) == len(rows)
    values = {(r.set, r.method, r.metric): r for r in rows}
    stored = ("lossless", "JPEG 90", "JPEG 75")
    kinds = {m for s, m, _ in values if s == "universal"}
    assert kinds == {f"{kind}, {how}" for kind in ("bank", "held-out") for how in stored}
    in_all, in_folder = (values["untouched", m, "flagged@jpeg85"] for m in ("all photos", "noise"))
    assert in_all.n == in_folder.n == values["universal", "bank, lossless", "auc"].n > 0
    assert values["autoencoders", "ae-heldout", "psnr"].value > 0
    assert all(len(r.weights_sha256) == 64 and r.config_hash for r in rows)


def test_universal_data_without_jpeg_versions(data: Path, trained: Path, tmp_path: Path):
    settings = benchmark.Settings(size=64, qualities=())
    named = {"net": trained / "net.json"}
    rows = benchmark.evaluate(named, data, tmp_path, ["universal"], bank=trained, settings=settings)
    assert {r.method for r in rows} == {"bank, lossless", "held-out, lossless"}


def test_means_can_be_worked_out_again_from_the_pictures(data: Path, trained: Path, tmp_path: Path):
    benchmark.evaluate({"net": trained / "net.json"}, data, tmp_path / "r", ["triplets"])
    pictures = read_pictures(find_pictures_file(tmp_path / "r", "triplets"))
    aucs = [p.numbers["auc"] for p in pictures if p.method == "madf"]
    found = {(r.method, r.metric): r for r in read_rows(tmp_path / "r" / "triplets.csv")}
    assert len(aucs) == found["madf", "auc"].n == 2
    whole, *parted = (
        found[f"headline{h}", "auc"].n for h in ("", *(f", {h} half" for h in HALVES))
    )
    assert whole == sum(parted) == 3
    assert min(parted) > 0
    assert found["madf", "auc"].value == pytest.approx(np.mean(aucs), rel=1e-5)


def test_evaluate_refuses_what_it_does_not_know(data: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="no part is called 'triplet'"):
        benchmark.evaluate({"net": "x"}, data, tmp_path, ["triplet"])
    with pytest.raises(WeightsError, match="holds no autoencoder"):
        parts.load_banks(tmp_path)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Timed jobs run here; that they run in a process is the test of `detect_once`."""

    def run(arguments: list[str]) -> tuple[float, str]:
        assert arguments[:2] == ["-m", timed_job.__name__]
        timed_job.main(arguments[2:])
        return 0.0, capsys.readouterr().out

    monkeypatch.setattr(speed, "_run", run)


@pytest.mark.slow
def test_speed_is_measured_in_a_process_of_its_own(trained: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(speed, "THREADS", 1)
    pixels = np.zeros((30, 40, 3), np.uint8)
    found = detect_once(trained / "net.json", pixels, size=(200, 150))
    assert found["seconds"] > 0
    assert 50 < found["peak_mib"] < 4000


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("kind", "name"),
    [("detector", "nixnet:widths=[16,32,64]"), ("inpainter", "aotgan:width=16;rwsa=true")],
)
def test_networks_of_the_registry_are_timed(kind: Kind, name: str):
    rows = measure_network(SOURCE, kind, name, sides=(64,), runs=2)
    found = {(r.method, r.metric): r for r in rows}
    (parameters,) = (r.value for r in rows if r.metric == "parameters")
    assert parameters > 1000
    assert found["64 px", "seconds"].n == 2
    assert found["64 px", "seconds"].value > 0
    assert 50 < found["64 px", "peak_mib"].value < 4000


@pytest.mark.usefixtures("in_this_process")
def test_a_hole_in_a_large_photo_is_timed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(speed, "WIDTH", 640)
    monkeypatch.setattr(speed, "HEIGHT", 620)
    pixels = np.zeros((31, 32, 3), np.uint8)
    (seconds, peak) = measure_inpaint(SOURCE, "mean", pixels, runs=1)
    assert (seconds.metric, peak.metric) == ("seconds", "peak_mib")
    assert seconds.value > 0


@pytest.fixture
def results(tmp_path: Path) -> Path:
    rows = [
        make_row(SOURCE, "madf", "auc", [0.9, 0.95]),
        make_row(SOURCE, "madf", "miou@0.5", [0.5]),
    ]
    other = Source("triplets", "other", "c", "h", "s", "p")
    write_results(
        tmp_path, [*rows, make_mean_row(other, "headline", "auc", [{"a": 0.8}, {"a": 0.6}])], []
    )
    return tmp_path


def test_a_table_of_networks_has_metrics_side_by_side_and_leaves_out_what_has_none(tmp_path: Path):
    net = Source("speed", "net", "c", "h", "", "p")
    values = [
        ("network", "parameters", 2.5e6),
        ("256 px", "seconds", 0.5),
        ("256 px", "peak_mib", 9),
    ]
    rows = [make_row(net, method, metric, [value]) for method, metric, value in values]
    starting = make_row(
        Source("speed", "", "c", "h", "", "p"), "overpaint --help", "seconds", [1.0]
    )
    write_results(tmp_path, [*rows, starting], [])
    lines = tables.render("networks", tmp_path).splitlines()
    assert lines[0].startswith("| network | parameters | 256 px time | 256 px peak memory |")
    assert lines[2:] == ["| net | 2.5 M | 0.50 s | 9 MiB | n/a | n/a |"]


def test_tables_of_robustness_have_a_line_for_each_condition_or_set(tmp_path: Path):
    net = Source("robustness", "net", "c", "h", "", "p")
    values = [
        ("forged:lama-s, as is", "auc", 0.9),
        ("forged:lama-s, JPEG 85", "auc", 0.7),
        ("triplets, as is", "auc", 0.8),
        ("triplets, JPEG 85", "auc", 0.6),
        ("untouched, JPEG 85", "flagged@default", 0.01),
    ]
    write_results(tmp_path, [make_row(net, m, metric, [value]) for m, metric, value in values], [])
    lines = tables.render("robustness", tmp_path).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| as is", "| JPEG 85"]
    assert lines[3] == "| JPEG 85 | 0.600 | 1.0 % |"
    sets = tables.render("robustness-sets", tmp_path).splitlines()
    assert sets[0] == "| set | pixel AUC | pixel AUC after JPEG 85 |"
    assert sets[2:] == ["| forged:lama-s | 0.900 | 0.700 |", "| triplets | 0.800 | 0.600 |"]


def test_tables_are_rendered_between_their_markers(results: Path):
    text = "before\n<!-- table:triplets -->\nold\n<!-- /table -->\nafter\n"
    assert tables.fill(text, results).splitlines() == [
        "before",
        "<!-- table:triplets -->",
        "| pictures filled in by | n | pixel AUC | mIoU |",
        "| --- | ---: | ---: | ---: |",
        "| MADF | 2 | 0.925 | 0.500 |",
        "<!-- /table -->",
        "after",
    ]
    by_weights = tables.render("headline", results).splitlines()
    assert by_weights[2].startswith("| net | n/a | 0.925 (0.900 to 0.950) |")
    assert by_weights[3].startswith("| other | 0.700 (0.600 to 0.800) | n/a |")
    assert "MADF" not in tables.render("triplets", results, "other")


def test_check_tells_when_a_table_is_out_of_date(results: Path, capsys):
    readme = results / "README.md"
    readme.write_text("<!-- table:triplets -->\n<!-- /table -->\n")
    arguments = [str(readme), "--results", str(results)]
    assert tables.main([*arguments, "--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    assert tables.main(arguments) == 0
    assert tables.main([*arguments, "--check"]) == 0
    write_results(results, [make_row(SOURCE, "madf", "auc", [0.1, 0.2])], [])
    assert tables.main([*arguments, "--check"]) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table:nothing -->\n<!-- /table -->", "there are headline"),
        ("<!-- table:speed -->\n<!-- /table -->", "speed.csv"),
        ("<!-- table:triplets -->\nleft open", "1 tables are opened, 0 closed"),
        ("<!-- table:triplets unknown -->\n<!-- /table -->", "no row for the table"),
    ],
)
def test_tables_that_cannot_be_rendered(results: Path, text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        tables.fill(text, results)


def test_a_table_of_families_joins_the_independent_set_and_the_own_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    record = SimpleNamespace(sha256=SOURCE.weights_sha256, families=("lama",))
    monkeypatch.setattr(family_table, "list_records", lambda: [record])
    others = replace(SOURCE, set="independent")
    own = replace(SOURCE, set="families")
    values = [
        (others, "mean of all, as is", "auc", 0.6),
        (others, "mean of all, JPEG 85", "f1@default", 0.001),
        (others, "faces, as is", "auc", 0.5),
        *((own, f"{family}, JPEG 85", "auc", 0.7) for family in ("sd2", "lama", "madf", "new")),
        (own, "originals of sd2, JPEG 85", "auc", 0.7),
        (own, "families not trained on, as is", "auc", 0.9),
        (own, "other pictures of families trained on, as is", "auc", 0.95),
        (own, "trained on: lama, JPEG 85", "auc", 0.75),
        (own, "pictures trained on, as is", "auc", 0.98),
    ]
    rows = [make_row(source, method, metric, [value]) for source, method, metric, value in values]
    rows[2] = replace(rows[2], n=0)  # not stated
    write_results(tmp_path, rows, [])
    lines = tables.render("families", tmp_path, "net").splitlines()
    assert lines[2:] == [
        "| mean of all | 1 | 0.600 | n/a | n/a | 0.001 |",
        "| faces | n/a | 0.500 | n/a | n/a | n/a |",
        "| own pictures, not trained on: mean of 3 families | 3 | 0.900 | n/a | n/a | n/a |",
        "| own pictures, not trained on: MADF | 1 | n/a | n/a | 0.700 | n/a |",
        "| own pictures, not trained on: new | 1 | n/a | n/a | 0.700 | n/a |",
        "| own pictures, not trained on: Stable Diffusion 2 | 1 | n/a | n/a | 0.700 | n/a |",
        "| own pictures, generator trained on: mean of 1 families | 1 | 0.950 | n/a | n/a | n/a |",
        "| own pictures, generator trained on: LaMa | 1 | n/a | n/a | 0.700 | n/a |",
        "| the training's own pictures: mean of 1 families | 1 | 0.980 | n/a | n/a | n/a |",
        "| the training's own pictures: LaMa | 1 | n/a | n/a | 0.750 | n/a |",
    ]
    assert tables.render("families-unseen", tmp_path, "net").splitlines() == lines[:-4]
    with pytest.raises(ConfigError, match="measure it"):
        tables.render("families", tmp_path, "unknown")
    monkeypatch.setattr(family_table, "list_records", list)
    with pytest.raises(ConfigError, match="weights that are not shipped"):
        tables.render("families", tmp_path, "net")


def test_several_files_are_checked_and_each_is_named(results: Path, capsys):
    (results / "docs").mkdir()
    (results / "results").mkdir()
    for path in [*results.glob("*.csv")]:
        path.rename(results / "results" / path.name)
    text = "<!-- table:triplets -->\n<!-- /table -->\n"
    files = [results / "README.md", results / "docs" / "page.md"]
    for file in files:
        file.write_text(text)
    assert tables.main([*map(str, files), "--check"]) == 1
    said = capsys.readouterr().err
    assert all(f"{file}: tables out of date" in said for file in files)
    assert tables.main([*map(str, files)]) == 0
    assert tables.main([*map(str, files), "--check"]) == 0


@pytest.mark.slow
def test_the_pages_show_the_published_results():
    pages = tables.list_published_pages(ROOT)
    assert len(pages) > 3
    assert tables.main([*pages, "--check"]) == 0
    experiments = [str(ROOT / "docs" / "experiments.md"), "--results"]
    assert tables.main([*experiments, str(ROOT / "results" / "experiments"), "--check"]) == 0
