"""What the workers do with a photo: results of the library, in bytes that a browser can show."""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import overpaint
from conftest import textured
from helpers.bright_detectors import calibration, registered, save, two_tone
from overpaint import progress
from overpaint.app import jobs
from overpaint.app.jobs import DetectJob, InpaintJob, ReportJob
from overpaint.app.models import list_names
from overpaint.app.schemas import DetectResult, InpaintResult, ReportResult
from overpaint.app.server import create_app
from overpaint.app.table import Found, FoundFile
from overpaint.defaults import DEFAULT_DETECTOR
from overpaint.detection.calibration import logit_of, sigmoid
from overpaint.errors import ImageError, InputError, TooLargeError
from overpaint.provenance.checking import check_file
from overpaint.provenance.metadata import read_xmp
from overpaint.provenance.xmp import HUMAN_EDITS, read_mark
from overpaint.report.contents import make_schema
from overpaint.weights import find_imported_folder


def encoded(pixels: np.ndarray, kind: str = "PNG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **how)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return exif.tobytes()


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def all_of(parts: Iterable[Found]) -> tuple[dict[str, Any], dict[str, FoundFile]]:
    """The last result, and all files by name."""
    result, files = {}, {}
    for part in parts:
        result = dict(part.result or result)
        files |= {file.name: file for file in part.files}
    return result, files


def hole(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[20:40, 30:60] = 255
    return mask


@pytest.fixture
def bright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A calibrated detector that takes a moment, by name."""
    with registered(tmp_path) as folder:
        save(folder, "bright", fitted=calibration())
        monkeypatch.setattr(jobs, "make_runner", _make_runner_in(folder))
        jobs._make_runner.cache_clear()
        yield "bright"
        jobs._make_runner.cache_clear()


def _make_runner_in(folder: Path) -> Any:
    return partial(jobs.make_runner, folders=[folder])


class TestDetect:
    def test_it_finds_what_the_library_finds(self) -> None:
        data = encoded(textured(140, 150, seed=0))
        shares: list[float] = []
        with progress.send_to(shares.append):
            parts = list(jobs.detect(DetectJob("a.png", data)))
        result, files = all_of(parts)
        said, found = DetectResult.model_validate(result), overpaint.detect(data)
        assert (said.words, said.band, said.file) == (found.words, found.band, "a.png")
        assert said.sha256 == hashlib.sha256(data).hexdigest()
        heat = opened(files["heatmap.png"].data)
        assert (heat.dtype, heat.shape) == (np.uint16, (140, 150))
        assert said.false_alarm_curve is not None
        curve = said.false_alarm_curve
        assert len(curve.logits) == len(curve.levels)
        at = np.interp(logit_of(said.threshold), curve.logits, curve.levels)
        assert at == pytest.approx(1 - found.false_alarm_rate, abs=0.01)  # type: ignore[operator]
        assert np.abs(heat / 65535 - found.heatmap).max() < 1e-4
        assert np.array_equal(opened(files["mask.png"].data) == 255, found.mask)
        assert shares == sorted(shares)
        assert shares[-1] <= 1

    def test_a_replaced_calibration_is_used(self, bright: str) -> None:
        job, place = DetectJob("a.png", encoded(two_tone()), bright), find_imported_folder()
        said = []
        for threshold in (1, 2):
            calibration(threshold=threshold).save(place / "bright.calibration.json")
            said.append(DetectResult.model_validate(all_of(list(jobs.detect(job)))[0]))
        assert [one.threshold for one in said] == pytest.approx([sigmoid(1), sigmoid(2)])
        assert said[0].calibration_sha256 != said[1].calibration_sha256

    def test_weights_without_a_record_are_left_out_of_the_list_and_logged_once(
        self, bright: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        (find_imported_folder() / "foreign.safetensors").write_bytes(b"")
        for _ in range(2):
            assert list_names("detector") == [bright]
        (line,) = caplog.messages
        assert "foreign.safetensors: cannot read" in line

    def test_the_verdict_comes_before_the_views(self, bright: str) -> None:
        parts = list(jobs.detect(DetectJob("a.png", encoded(two_tone()), bright)))
        first, last = parts[0], parts[-1]
        assert first.result is not None
        assert last.result is not None
        assert [f.name for f in first.files] == ["photo.png", "heatmap.png", "mask.png"]
        assert (first.result["views"], last.files) == ([], ())
        names = [view["name"] for view in last.result["views"]]
        assert names == ["photo", "heatmap", "noise", "colour", "error_level", "jpeg_grid"]
        _, files = all_of(parts)
        assert set(files) == {f"{name}.png" for name in (*names, "mask")}
        size = two_tone().shape[:2]
        assert {opened(file.data).shape[:2] for file in files.values()} == {size}
        assert files["noise.png"].shown_name == "a.noise.png"

    def test_a_photo_that_is_too_small_for_a_view(self, bright: str) -> None:
        result, files = all_of(
            jobs.detect(DetectJob("a.png", encoded(textured(40, 50, 0)), bright))
        )
        assert "jpeg_grid.png" not in files
        assert "outside the tested range" in result["words"]
        assert result["meaning"].startswith("There is no verdict: shorter side 40 px")

    def test_the_photo_as_a_browser_shows_it(self, bright: str) -> None:
        pixels = textured(64, 80, seed=1)

        def shown(data: bytes) -> FoundFile:
            return next(iter(jobs.detect(DetectJob("a.x", data, bright)))).files[0]

        jpeg = encoded(pixels, "JPEG", exif=turned(6))
        assert shown(jpeg).data == jpeg
        assert (shown(jpeg).name, shown(jpeg).media_type) == ("photo.jpg", "image/jpeg")
        cmyk = io.BytesIO()
        Image.fromarray(pixels).convert("CMYK").save(cmyk, "JPEG")
        assert shown(cmyk.getvalue()).name == "photo.png"
        upright = opened(shown(encoded(pixels, "PNG", exif=turned(6))).data)
        assert np.array_equal(upright, np.rot90(pixels, -1))
        clear = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
        clear[:9, :9, 3] = 0
        assert np.array_equal(opened(shown(encoded(clear)).data), clear)
        assert np.array_equal(opened(shown(encoded(pixels, "TIFF")).data), pixels)

    def test_every_verdict_has_its_meaning(self, bright: str) -> None:
        found = {}
        for level in (0, 40, 90, 128, 160, 200, 255):
            data = encoded(np.full((160, 160, 3), level, np.uint8))
            result, _ = all_of(jobs.detect(DetectJob("a.png", data, bright)))
            found[result["band"]] = result["meaning"]
        assert len(set(found.values())) == len(found) > 1

    @pytest.mark.parametrize(
        "data", [b"", b"no photo", b"\x89PNG\r\n\x1a\n" + b"\0" * 99, b"\xff\xd8\xff"]
    )
    def test_what_is_no_photo(self, data: bytes) -> None:
        for job in (DetectJob("a.png", data), ReportJob("a.png", data)):
            work = jobs.detect(job) if isinstance(job, DetectJob) else jobs.report(job)
            with pytest.raises(ImageError, match=r"^a\.png: .*; "):
                list(work)

    @pytest.mark.slow
    def test_a_bomb(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OVERPAINT_MAX_PIXELS", "2000000")
        jobs.limit_pixels(1_000_000)
        buffer = io.BytesIO()
        Image.new("1", (30_000, 30_000)).save(buffer, "PNG")
        with pytest.raises(TooLargeError, match="more than 1,000,000 pixels; give a smaller one"):
            list(jobs.detect(DetectJob("a.png", buffer.getvalue())))
        jobs.limit_pixels(5_000_000)
        assert jobs.find_pixel_limit(None) == 1_000_000  # it is never raised


class TestInpaint:
    @pytest.mark.parametrize(
        ("name", "kind", "result"),
        [
            ("a.png", "PNG", "a.overpaint.png"),
            ("a.JPEG", "JPEG", "a.overpaint.jpeg"),
            ("a", "JPEG", "a.overpaint.jpg"),
            ("a.png", "WEBP", "a.overpaint.webp"),
            ("a.tiff", "TIFF", "a.overpaint.tiff"),
            ("a.gif", "GIF", "a.overpaint.png"),
            ("a.b.bmp", "BMP", "a.b.overpaint.png"),
        ],
    )
    def test_the_result_is_marked_and_has_a_receipt(
        self, tmp_path: Path, name: str, kind: str, result: str
    ) -> None:
        pixels = textured(80, 90, seed=2)
        job = InpaintJob(name, encoded(pixels, kind), encoded(hole(80, 90)), "mean")
        said, files = all_of(jobs.inpaint(job))
        about = InpaintResult.model_validate(said)
        picture = files[about.picture]
        assert picture.shown_name == result
        (tmp_path / result).write_bytes(picture.data)
        receipt = files["receipt.json"]
        (tmp_path / receipt.shown_name).write_bytes(receipt.data)
        marks = check_file(tmp_path / result)
        assert marks["xmp"]["source_type"] == HUMAN_EDITS
        assert marks["receipt"]["state"] == "matches"
        assert marks["failed"] == []
        assert about.sha256 == marks["sha256"]
        assert json.loads(receipt.data)["input"]["file"] == name

    def test_known_pixels_stay_and_the_hole_is_filled(self) -> None:
        pixels, mask = textured(80, 90, seed=2), hole(80, 90)
        job = InpaintJob("a.png", encoded(pixels), encoded(mask), "mean")
        said, files = all_of(jobs.inpaint(job))
        after = opened(files["result.png"].data)
        away = np.ones(mask.shape, bool)
        away[
            20 - said["radius"] : 40 + said["radius"], 30 - said["radius"] : 60 + said["radius"]
        ] = 0
        assert np.array_equal(after[away], pixels[away])
        assert (after[25:35, 35:55] != pixels[25:35, 35:55]).any()
        assert said["shown"] == said["picture"] == "result.png"
        assert (said["inpainter"], said["num_holes"]) == ("mean", 1)

    @pytest.mark.parametrize(("kind", "orientation"), [("TIFF", 1), ("PNG", 6), ("PNG", 3)])
    def test_a_preview_where_browsers_would_not_show_it_upright(
        self, kind: str, orientation: int
    ) -> None:
        pixels = textured(80, 90, seed=2)
        data = encoded(pixels, kind, exif=turned(orientation))
        height, width = (90, 80) if orientation == 6 else (80, 90)
        job = InpaintJob("a.tif", data, encoded(hole(height, width)), "mean")
        said, files = all_of(jobs.inpaint(job))
        assert said["shown"] == "after.png"
        preview = files["after.png"].data
        mark = read_mark(read_xmp(preview, "after.png")[1])
        assert mark.source_type == HUMAN_EDITS
        turns = {1: 0, 3: 2, 6: -1}[orientation]
        upright = np.rot90(pixels, turns)
        assert np.array_equal(opened(preview)[50:], upright[50:])

    def test_a_preview_of_16_bit_has_the_upper_8(self, tmp_path: Path) -> None:
        deep = (textured(80, 90, seed=2)[..., 0].astype(np.uint16) << 8) | 7
        job = InpaintJob("a.tif", encoded(deep, "TIFF"), encoded(hole(80, 90)), "mean")
        said, files = all_of(jobs.inpaint(job))
        assert opened(files[said["picture"]].data).dtype == np.uint16
        preview = opened(files["after.png"].data)
        assert np.array_equal(preview[50:], (deep >> 8).astype(np.uint8)[50:])

    def test_a_jpeg_that_is_turned_by_exif_is_shown_itself(self) -> None:
        data = encoded(textured(80, 90, seed=2), "JPEG", exif=turned(6))
        said, _ = all_of(jobs.inpaint(InpaintJob("a.jpg", data, encoded(hole(90, 80)), "mean")))
        assert said["shown"] == "result.jpg"
        assert (said["width"], said["height"]) == (80, 90)

    @pytest.mark.parametrize(
        ("mask", "said"),
        [
            (np.zeros((80, 90), np.uint8), "the mask is empty; paint what is to be removed"),
            (np.full((80, 90), 255, np.uint8), "paint less of it"),
            (hole(90, 80), "save the mask at the size of the upright photo"),
            (np.ones((80, 90), np.uint8), "store it as 0 and 255"),
            (None, "^the mask: not a photo"),
        ],
    )
    def test_masks_that_are_refused(self, mask: np.ndarray | None, said: str) -> None:
        data = b"no picture" if mask is None else encoded(mask)
        job = InpaintJob("a.png", encoded(textured(80, 90, seed=2)), data, "mean")
        with pytest.raises((ImageError, InputError), match=said) as caught:
            list(jobs.inpaint(job))
        assert "--" not in str(caught.value)


class TestReport:
    def test_a_page_and_its_twin(self, bright: str) -> None:
        data = encoded(two_tone())
        said, files = all_of(jobs.report(ReportJob("a b.png", data, bright)))
        about = ReportResult.model_validate(said)
        assert (about.grade, about.verdict) == ("moderate support", "strong trace")
        whole = json.loads(files["report.json"].data)
        jsonschema.validate(whole, make_schema())
        assert whole["photos"][0]["file"]["sha256"] == hashlib.sha256(data).hexdigest()
        assert whole["photos"][0]["file"]["name"] == "a b.png"
        assert whole["command"] == (
            "overpaint report --out 'a b.report.html' --model bright 'a b.png'"
        )
        page = files["report.html"]
        assert (page.shown_name, page.media_type) == ("a b.report.html", "text/html; charset=utf-8")
        assert hashlib.sha256(files["report.json"].data).hexdigest() in page.data.decode()
        assert "a b.report.json" in page.data.decode()
        assert str(Path.cwd()) not in page.data.decode() + json.dumps(whole)

    def test_it_is_that_of_the_command(self, bright: str, tmp_path: Path) -> None:
        """But for what depends on the folder: times, and the receipt that lies beside."""
        from overpaint.report.api import make_chapters as examine_files

        path = tmp_path / "a.png"
        path.write_bytes(encoded(two_tone()))
        chapter = next(iter(examine_files([path], jobs._load_runner(bright, None, "torch"))))
        _, files = all_of(jobs.report(ReportJob("a.png", path.read_bytes(), bright)))
        whole = json.loads(files["report.json"].data)["photos"][0]
        from dataclasses import asdict

        about = json.loads(json.dumps(asdict(chapter.about)))
        for one in (whole, about):
            del one["file"]["name"], one["file"]["marks"]["receipt"]
        assert whole == about

    def test_its_command_names_the_runtime_that_was_taken(self) -> None:
        pytest.importorskip("onnx")
        pytest.importorskip("openvino")
        job = ReportJob("a.png", encoded(textured(64, 64, seed=2)))
        _, files = all_of(jobs.report(job, runtime="openvino"))
        whole = json.loads(files["report.json"].data)
        assert whole["command"].endswith(f"--model {DEFAULT_DETECTOR} --runtime openvino a.png")
        assert whole["models"][0]["runtime"].startswith("openvino ")

    def test_progress_goes_on_to_the_end(self, bright: str) -> None:
        shares: list[float] = []
        with progress.send_to(shares.append):
            list(jobs.report(ReportJob("a.png", encoded(two_tone()), bright)))
        assert shares == sorted(shares)
        assert len(set(shares)) == 5  # the photo and four changes of it
        assert shares[-1] == pytest.approx(0.98)


@pytest.mark.slow
def test_all_kinds_of_jobs_with_their_processes() -> None:
    pixels = textured(160, 180, seed=0)
    photo, mask = ("p.png", encoded(pixels)), ("m.png", encoded(hole(160, 180)))
    with TestClient(create_app(), base_url="http://127.0.0.1") as to:
        found = to.post("/api/detect", files={"file": photo}).json()
        assert found["state"] == "done", found
        DetectResult.model_validate(found["result"])
        filled = to.post("/api/inpaint", files={"file": photo, "mask": mask}).json()
        assert filled["state"] == "done", filled
        result = to.get(filled["files"][filled["result"]["picture"]]).content
        mark = read_mark(read_xmp(result, "result.png")[1])
        assert mark.source_type == HUMAN_EDITS
        report = to.post("/api/report", files={"file": photo}).json()
        assert report["state"] == "done", report
        assert to.get(report["files"]["report.html"]).text.startswith("<!doctype html>")
        refused = to.post("/api/detect", files={"file": ("p.png", b"no photo")})
        assert refused.status_code == 400
        assert refused.json()["remedy"].startswith("give JPEG")
