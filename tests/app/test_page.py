"""The page in a browser: detect, remove, report; what it loads, weighs, and says aloud."""

import io
import json
import re
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from conftest import textured
from helpers.worker_jobs import Doer
from overpaint import detect
from overpaint.app import jobs
from overpaint.app.guard import Limits
from overpaint.app.server import create_app
from overpaint.app.worker import JobError
from overpaint.detection.calibration import QUANTILE_LEVELS, Calibration, average_logits, judge
from overpaint.images.regions import find_regions
from overpaint.provenance.checking import is_edited

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Request, Route

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
STATIC = Path(__file__).parents[2] / "src" / "overpaint" / "app" / "static"
SLOW = 60_000  # milliseconds, for what waits on a detector on a busy machine

browser_only = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: install the package chromium"),
]


class Holding(Doer):
    """Does jobs in this process; while `hold` is set, a job only waits for its cancelling."""

    hold = False

    def call(self, job: Any, take: Any, tell: Any, cancelled: threading.Event) -> None:
        if self.hold:
            tell(0.3)
            assert cancelled.wait(60)
            raise JobError("cancelled", "the job was cancelled")
        super().call(job, take, tell, cancelled)


@pytest.fixture(scope="module")
def detecting() -> Holding:
    return Holding(jobs.detect)


@pytest.fixture(scope="module")
def inpainting() -> Holding:
    return Holding(jobs.inpaint)


@pytest.fixture(scope="module")
def address(detecting: Holding, inpainting: Doer) -> Iterator[str]:
    """Of a server with the shipped models, which work in this process."""
    import uvicorn

    workers = {"detect": detecting, "inpaint": inpainting, "report": Doer(jobs.report)}
    app = create_app(Limits(max_bytes=2**20), workers=workers)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    until = time.monotonic() + 60
    while not server.started and time.monotonic() < until:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@dataclass
class Seen:
    """A page, and what it asked for and complained of."""

    page: "Page"
    requests: "list[Request]" = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, *paths: Path) -> None:
        """Photos, and wait for their results."""
        self.page.set_input_files("#files", [*paths])
        self.page.locator("#threshold:not([disabled])").wait_for(timeout=SLOW)
        self.page.locator(".item progress").last.wait_for(state="hidden", timeout=SLOW)

    def canvas(self, number: int = 0) -> str:
        """What a view that is not hidden shows, once it has settled."""
        frames = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        self.page.evaluate(frames)
        return self.page.evaluate(
            "n => [...document.querySelectorAll('.view canvas')].filter(one => one.offsetParent)"
            "[n].toDataURL()",
            number,
        )

    def script(self, code: str, about: Any = None) -> Any:
        """The value of an async function's body, which may import the page's modules."""
        return self.page.evaluate(f"async (about) => {{ {code} }}", about)


Open = Callable[..., Seen]


@pytest.fixture
def open_page(browser: "Browser", address: str) -> Iterator[Open]:
    """Opens the page; at the end it has asked no other host and complained of nothing."""
    opened: list[Seen] = []

    def start(**how: Any) -> Seen:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **how})
        seen = Seen(context.new_page())
        seen.page.set_default_timeout(20_000)
        context.on("request", lambda request: seen.requests.append(request))
        seen.page.on("pageerror", lambda error: seen.faults.append(str(error)))
        seen.page.on("console", lambda said: said.type == "error" and seen.faults.append(said.text))
        seen.page.goto(address)
        seen.page.locator("#limits, .alert").first.wait_for(state="attached")
        opened.append(seen)
        return seen

    yield start
    for seen in opened:
        outside = [
            r.url for r in seen.requests if not r.url.startswith((address, "blob:", "data:"))
        ]
        seen.page.context.close()
        assert not outside
        assert not seen.faults


@pytest.fixture(scope="module")
def photo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo with a smooth patch that the detector marks some of."""
    pixels = textured(150, 180, seed=4)
    pixels[40:100, 60:130] = (120, 130, 140)
    path = tmp_path_factory.mktemp("photo") / "bridge.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def other_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "other.png"
    Image.fromarray(textured(120, 160, seed=5)).save(path)
    return path


# Files


def test_the_page_is_small_and_asks_nobody() -> None:
    files = [path for path in STATIC.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 250_000
    for path in files:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text, path
        assert "https:" not in text, path
        assert not re.search(r"[\"'(]//", text), path
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    assert "style=" not in page
    assert "<style" not in page
    assert "onclick" not in page
    assert page.count("<script") == page.count('<script type="module" src="/static/') == 1


# Modules


def grey_png(values: np.ndarray, filters: list[int]) -> bytes:
    """16-bit PNG of uint16 (h, w) with a filter for each row, as the standard defines them."""
    rows = values.astype(">u2").view(np.uint8).reshape(values.shape[0], -1).astype(int)
    out = b""
    for y, row in enumerate(rows):
        up = rows[y - 1] if y else np.zeros_like(row)
        left, corner = (np.concatenate([[0, 0], line[:-2]]) for line in (row, up))
        guess = left + up - corner
        apart = np.abs([guess - left, guess - up, guess - corner])
        paeth = np.choose(apart.argmin(axis=0), [left, up, corner])
        taken = [0, left, up, (left + up) // 2, paeth][filters[y]]
        out += bytes([filters[y]]) + ((row - taken) % 256).astype(np.uint8).tobytes()
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 0, 0, 0, 0)
    packed = zlib.compress(out)
    chunks = [(b"IHDR", head), (b"IDAT", packed[:40]), (b"IDAT", packed[40:]), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


class TestModules:
    pytestmark = browser_only

    def test_png_of_16_bit_with_every_filter(self, open_page: Open) -> None:
        values = np.random.default_rng(0).integers(0, 65536, (10, 7)).astype(np.uint16)
        data = grey_png(values, [0, 1, 2, 3, 4, 4, 3, 2, 1, 0])
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), values)
        code = """const { decodeGrey } = await import("/static/png.js");
            const { width, height, values } = await decodeGrey(new Uint8Array(about).buffer);
            return [width, height, [...values]];"""
        assert open_page().script(code, list(data)) == [7, 10, values.ravel().tolist()]

    def test_png_written(self, open_page: Open) -> None:
        values = np.random.default_rng(1).integers(0, 256, (5, 9)).astype(np.uint8)
        code = """const { encodeGrey } = await import("/static/png.js");
            const blob = await encodeGrey(new Uint8Array(about), 9, 5);
            return [...new Uint8Array(await blob.arrayBuffer())];"""
        made = bytes(open_page().script(code, values.ravel().tolist()))
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(made))), values)

    @pytest.mark.parametrize("hidden", [False, True])
    def test_evidence_is_that_of_the_library(self, open_page: Open, hidden: bool) -> None:
        rng = np.random.default_rng(2)
        logits = rng.normal(0, 3, (31, 23)).astype(np.float32)
        heat = np.rint(65535 / (1 + np.exp(-logits))).astype(np.uint16)
        counted = np.ones(heat.shape, bool)
        if hidden:
            counted[5:20, :9] = False
            heat[~counted] = 0
        code = """const { averageEvidence, toLogit } = await import("/static/heat.js");
            const map = { width: 23, height: 31, values: new Uint16Array(about) };
            return [...averageEvidence(map, 7).values].map((v) => v && toLogit(v));"""
        found = np.array(open_page().script(code, heat.ravel().tolist())).reshape(heat.shape)
        wanted = judge(logits, window=7, counted=counted if hidden else None).smoothed
        assert np.abs(found - wanted)[counted].max() < 2e-3
        assert not found[~counted].any()

    def test_false_alarm_rate_of_a_threshold(self, open_page: Open) -> None:
        path = next((STATIC.parents[1] / "pretrained").glob("nixnet-s.calibration.json"))
        band = Calibration.load(path).bands["jpeg>=90"]
        logits = [-9.0, -0.8, -0.31, 0.7, 2.1, band.untouched_quantiles[-1] + 0.01]
        code = """const { findFalseAlarmRate } = await import("/static/heat.js");
            return about[1].map((logit) => findFalseAlarmRate(about[0], logit));"""
        curve = {"logits": band.untouched_quantiles, "levels": QUANTILE_LEVELS}
        found = open_page().script(code, [curve, logits])
        wanted = [band.find_false_alarm_rate(logit)[0] for logit in logits]
        assert found[-1] is wanted[-1] is None
        assert found[:-1] == pytest.approx(wanted[:-1], abs=1e-6)

    def test_regions_are_those_of_the_library(self, open_page: Open) -> None:
        rng = np.random.default_rng(3)
        coarse = np.kron(rng.random((14, 18)), np.ones((4, 4)))
        evidence = np.rint(1 + coarse * 60000).astype(np.uint16)
        heat = rng.integers(1, 65536, evidence.shape).astype(np.uint16)
        regions, count = find_regions(evidence >= 40000, heat.astype(np.float32) / 65535)
        code = """const { findRegions } = await import("/static/heat.js");
            const map = (values) => ({ width: 72, height: 56, values: new Uint16Array(values) });
            return findRegions(map(about[0]), map(about[1]), 40000);"""
        maps = [evidence.ravel().tolist(), heat.ravel().tolist()]
        found = open_page().script(code, maps)
        assert found["count"] == count > 3
        for one, wanted in zip(found["regions"], regions, strict=True):
            assert one.pop("mean") == pytest.approx(wanted.mean, abs=1e-4)
            assert one == {k: v for k, v in wanted.to_dict().items() if k != "mean"}


class TestTasks:
    pytestmark = browser_only

    def test_only_the_last_progress_box_is_kept_up_to_date(self, open_page: Open) -> None:
        code = """const { Task, makeProgressBox } = await import("/static/tasks.js");
            const task = new Task("report"), other = new Task("detect");
            const kept = makeProgressBox(other, "Looking");
            const boxes = [1, 2, 3].map(() => makeProgressBox(task, "Making"));
            for (const each of [task, other]) {
              each.progress = { state: "running", share: 0.5 };
              each.dispatchEvent(new Event("progress"));
            }
            return [...boxes, kept].map((box) => box.textContent);"""
        told = open_page().script(code)
        assert told == ["Waiting \u2026", "Waiting \u2026", "Making \u2026", "Looking \u2026"]


# Detect


class TestDetect:
    pytestmark = browser_only

    def test_drop_look_and_move_the_threshold(self, open_page: Open, photo_file: Path) -> None:
        seen = open_page()
        page, data = seen.page, photo_file.read_bytes()
        drop = page.evaluate_handle(
            """bytes => { const all = new DataTransfer();
            all.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
            return all; }""",
            list(data),
        )
        page.dispatch_event("body", "dragenter", {"dataTransfer": drop})
        assert page.locator("#drop-cover").is_visible()
        page.dispatch_event("body", "drop", {"dataTransfer": drop})
        page.locator("#threshold:not([disabled])").wait_for(timeout=SLOW)
        page.get_by_role("option", name="JPEG grid").first.wait_for(state="attached", timeout=SLOW)
        found = detect(data)
        said = page.locator(".verdict").inner_text().lower()
        assert found.band in said
        assert found.quality in said
        assert "dropped.png" in said
        own, words = seen.canvas(1), page.locator("#threshold-words").inner_text()
        asked = len(seen.requests)
        page.locator("#threshold").fill("-1")
        assert seen.canvas(1) != own
        assert page.locator("#threshold-words").inner_text() != words
        marked = average_logits(np.log(found.heatmap / (1 - found.heatmap)), 13) >= -1
        share = page.locator("#threshold").get_attribute("aria-valuetext")
        assert share is not None
        assert float(share.split("marks ")[1].split(" %")[0]) == pytest.approx(
            100 * marked.mean(), abs=0.11
        )
        low = seen.canvas(1)
        page.locator("#opacity").fill("20")
        assert seen.canvas(1) != low
        page.locator("#opacity").fill("55")
        page.get_by_role("button", name="detector's own").click()
        assert seen.canvas(1) == own
        assert len(seen.requests) == asked, "a slider asked the server"

    def test_views_zoom_together(self, open_page: Open, photo_file: Path) -> None:
        seen = open_page()
        page = seen.page
        seen.add(photo_file)
        before = [seen.canvas(0), seen.canvas(1)]
        page.locator(".view").first.hover()
        page.mouse.wheel(0, -400)
        zoomed = [seen.canvas(0), seen.canvas(1)]
        assert zoomed[0] != before[0]
        assert zoomed[1] != before[1]
        page.locator(".view").last.press("ArrowRight")
        assert seen.canvas(0) != zoomed[0]
        page.locator(".view").last.press("0")
        assert [seen.canvas(0), seen.canvas(1)] == before
        page.get_by_role("radio", name="All").check(force=True)
        assert page.locator(".view").count() == 6
        for lines in page.locator(".panel").all():
            assert lines.locator("dt").all_inner_texts() == ["Shows", "Look for", "Ignore"]
            assert all(len(text) > 20 for text in lines.locator("dd").all_inner_texts())

    def test_loupe_boxes_and_blink(self, open_page: Open, photo_file: Path) -> None:
        seen = open_page()
        page = seen.page
        seen.add(photo_file)
        page.locator("#threshold").fill("-1")
        page.locator(".region-table tbody tr").first.wait_for()
        plain = seen.canvas(0)
        view = page.locator(".view").first
        view.press("x")
        assert page.get_by_role("button", name="Boxes").get_attribute("aria-pressed") == "false"
        without = seen.canvas(0)
        assert without != plain
        view.press("Alt+ArrowRight")
        assert page.get_by_role("button", name="Loupe").get_attribute("aria-pressed") == "true"
        assert seen.canvas(0) != without
        assert "compared with the threshold" in page.locator(".readout").inner_text()
        view.press("l")
        heat = seen.canvas(1)
        page.get_by_role("button", name="Blink").click()
        seen.page.wait_for_function(
            "was => document.querySelectorAll('.view canvas')[1].toDataURL() !== was", arg=heat
        )
        assert seen.canvas(0) == without, "the photo's own view stays"

    def test_several_photos_of_which_one_is_damaged(
        self, open_page: Open, photo_file: Path, tmp_path: Path
    ) -> None:
        broken = tmp_path / "torn.png"
        broken.write_bytes(photo_file.read_bytes()[:2000])
        large, text = tmp_path / "large.png", tmp_path / "notes.txt"
        large.write_bytes(b"\x89PNG" + bytes(3 * 2**20))
        text.write_text("no photo")
        seen = open_page()
        seen.add(photo_file, broken, large, text)
        rows = seen.page.locator(".strip li")
        rows.nth(1).locator(".item-said", has_text="not examined").wait_for(timeout=SLOW)
        assert "notes.txt is no photo" in seen.page.locator("#alerts").inner_text()
        rows.nth(1).locator(".pick-photo").click()
        said = seen.page.locator(".verdict.failed").inner_text()
        assert "Could not be examined" in said
        assert "torn.png" in said
        seen.faults.clear()  # the browser's own note of the refusal
        rows.nth(0).get_by_role("button", name="Take off").click()
        assert "torn.png" in rows.nth(0).inner_text()

    def test_what_is_taken_off_is_deleted(
        self, open_page: Open, photo_file: Path, address: str
    ) -> None:
        seen = open_page()
        seen.add(photo_file)
        with seen.page.expect_request(lambda r: r.method == "DELETE") as told:
            seen.page.get_by_role("button", name="Take off").click()
        answer = seen.page.context.request.get(told.value.url)
        assert answer.status == 404
        assert seen.page.locator("#empty").is_visible()

    def test_cancel_and_try_again(
        self, open_page: Open, photo_file: Path, detecting: Holding
    ) -> None:
        seen = open_page()
        detecting.hold = True
        seen.page.set_input_files("#files", [photo_file])
        panel = seen.page.locator("#panel-detect")
        panel.locator("progress[value='0.3']").wait_for()
        assert "Looking for traces" in panel.inner_text()
        with seen.page.expect_request(lambda r: r.method == "DELETE"):
            panel.get_by_role("button", name="Cancel").click()
        assert "cancelled" in panel.locator(".verdict.failed").inner_text()
        detecting.hold = False
        panel.get_by_role("button", name="Try again").click()
        panel.locator("#threshold:not([disabled])").wait_for(timeout=SLOW)

    def test_a_search_for_regions_that_fails(self, open_page: Open, photo_file: Path) -> None:
        seen = open_page()
        seen.add(photo_file)
        seen.script(
            """const send = Worker.prototype.postMessage;
            Worker.prototype.postMessage = function (said, given) {
              Worker.prototype.postMessage = send;
              send.call(this, { ...said, about: null }, given);
            };"""
        )
        regions, slider = seen.page.locator(".regions"), seen.page.locator("#threshold")
        slider.fill("-1")
        regions.get_by_role("alert").wait_for()
        assert "Regions not known" in regions.inner_text()
        assert not regions.locator("tbody tr").count()
        slider.fill("-1.1")
        regions.locator("tbody tr").first.wait_for()
        assert "not known" not in regions.inner_text()

    def test_a_worker_that_does_not_start(self, open_page: Open, photo_file: Path) -> None:
        seen = open_page()
        page = seen.page
        page.route("**/heat-worker.js", lambda route: route.abort())
        page.reload()
        page.set_input_files("#files", [photo_file])
        alert = page.get_by_role("alert").filter(has_text="The heatmap cannot be shown")
        alert.wait_for(timeout=SLOW)
        assert "Load the page again" in alert.inner_text()
        assert page.locator("#threshold").is_disabled()
        seen.faults.clear()  # the browser's own note of the file that did not come

    def test_taken_off_while_regions_are_searched(self, open_page: Open, photo_file: Path) -> None:
        seen = open_page()
        page = seen.page
        seen.add(photo_file)
        seen.script(
            """const send = Worker.prototype.postMessage;
            Worker.prototype.postMessage = function (...given) {
              window.sendNow = () => send.apply(this, given);
            };"""
        )
        for logit in ("-1", "-0.5"):
            page.locator("#threshold").fill(logit)
        page.get_by_role("button", name="detector's own").click()
        page.get_by_role("button", name="Take off").click()
        page.evaluate("sendNow()")
        page.wait_for_timeout(500)
        assert not seen.faults

    @pytest.mark.parametrize("end", ["taken off", "failed"])
    def test_maps_that_arrive_after_the_result_has_gone(
        self,
        open_page: Open,
        photo_file: Path,
        other_file: Path,
        detecting: Holding,
        monkeypatch: pytest.MonkeyPatch,
        end: str,
    ) -> None:
        def fail_late(job: Any) -> Iterator[Any]:
            yield next(iter(jobs.detect(job)))
            assert go_on.wait(60)
            raise JobError("failed", "the views failed")

        def hold(route: "Route") -> None:
            held.append((route, route.fetch()))

        seen, held, go_on = open_page(), [], threading.Event()
        page = seen.page
        page.route("**/heatmap.png", hold, times=1)
        if end == "failed":
            monkeypatch.setattr(detecting, "do", fail_late)
        page.set_input_files("#files", [photo_file])
        until = time.monotonic() + 60
        while not held and time.monotonic() < until:
            page.wait_for_timeout(20)
        page.get_by_role("tab", name="Remove").click()
        page.locator(".view.draws").wait_for()
        row = page.locator(".strip li").first
        if end == "failed":
            go_on.set()
            row.locator(".item-said", has_text="not examined").wait_for(timeout=SLOW)
        else:
            page.set_input_files("#files", [other_file])
            row.get_by_role("button", name="Take off").click()
            page.locator(".view.draws[aria-label*=other]").wait_for()
        route, answer = held[0]
        route.fulfill(response=answer)
        page.wait_for_timeout(500)
        assert not seen.faults
        page.get_by_role("tab", name="Detect").click()
        now = "Could not be examined" if end == "failed" else "other.png"
        page.locator(".verdict", has_text=now).wait_for(timeout=SLOW)

    def test_report(self, open_page: Open, photo_file: Path) -> None:
        seen = open_page()
        page = seen.page
        seen.add(photo_file)
        page.get_by_role("button", name="Make a report").click()
        link = page.get_by_role("link", name="Open the report")
        link.wait_for(timeout=2 * SLOW)
        with page.context.expect_page() as opened:
            link.click()
        assert "bridge.png" in opened.value.locator("h1").first.inner_text()
        with page.expect_download() as given:
            page.get_by_role("link", name="Report as JSON").click()
        assert json.loads(given.value.path().read_text())["photos"]


# Remove


def sent_mask(inpainting: Doer) -> np.ndarray:
    """The mask that came with the last removal: bool (h, w)."""
    return np.asarray(Image.open(io.BytesIO(inpainting.jobs[-1].mask))) > 127


def remove(page: "Page") -> None:
    """Press the button, and wait until the result is shown."""
    page.get_by_role("button", name="Remove", exact=True).click()
    page.locator("#wipe").wait_for(timeout=SLOW)


@pytest.fixture
def removing(open_page: Open, photo_file: Path) -> Seen:
    seen = open_page()
    seen.add(photo_file)
    seen.page.get_by_role("tab", name="Remove").click()
    seen.page.locator(".view.draws").wait_for()
    return seen


def drag(page: "Page", view: "Locator", *places: tuple[float, float]) -> None:
    """Over shares of the view's width and height."""
    view.scroll_into_view_if_needed()
    box = view.bounding_box()
    assert box is not None
    (x, y), *rest = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(x, y)
    page.mouse.down()
    for x, y in rest:
        page.mouse.move(x, y, steps=4)
    page.mouse.up()


LATE_MASK = """const { Mask } = await import("/static/mask.js"), encode = Mask.prototype.encodePng;
Mask.prototype.encodePng = async function () {
  await new Promise((resolve) => { window.encodeNow = resolve; });
  return encode.call(this);
};"""
"""Masks are encoded when the page calls encodeNow()."""


class TestRemove:
    pytestmark = browser_only

    def test_draw_remove_compare_and_download(
        self, removing: Seen, inpainting: Doer, tmp_path: Path
    ) -> None:
        page = removing.page
        view = page.locator(".view.draws")
        page.get_by_role("radio", name="telea").check()
        assert page.get_by_role("button", name="Remove", exact=True).is_disabled()
        drag(page, view, (0.45, 0.5), (0.55, 0.55))
        remove(page)
        mask = sent_mask(inpainting)
        assert mask.shape == (150, 180)
        assert mask[79, 90]  # on the way, and the middle is that of the photo
        assert not mask[60, 90]
        assert 0 < mask.mean() < 0.1
        half = removing.canvas()
        page.locator("#wipe").fill("0")
        assert removing.canvas() != half
        with page.expect_download() as given:
            page.get_by_role("link", name="Download the picture").click()
        kept = tmp_path / given.value.suggested_filename
        given.value.save_as(kept)
        assert kept.name == "bridge.overpaint.png"
        assert is_edited(kept)
        with page.expect_download() as given:
            page.get_by_role("link", name="receipt").click()
        receipt = json.loads(given.value.path().read_text())
        assert receipt["model"] == "telea"
        page.get_by_role("button", name="Examine the result").click()
        page.locator(".verdict", has_text="bridge.overpaint.png").wait_for(timeout=SLOW)
        assert page.get_by_role("tab", name="Detect").get_attribute("aria-selected") == "true"
        assert page.locator(".strip li").count() == 2

    def test_tools_undo_and_redo(self, removing: Seen) -> None:
        page = removing.page
        view, marked = page.locator(".view.draws"), page.locator(".marked")
        page.mouse.move(5, 5)
        empty = removing.canvas()
        page.get_by_role("radio", name="Rectangle").check(force=True)
        drag(page, view, (0.45, 0.45), (0.55, 0.55))
        boxed = marked.inner_text()
        assert "Nothing" not in boxed
        assert removing.canvas() != empty
        page.get_by_role("radio", name="Lasso").check(force=True)
        drag(page, view, (0.3, 0.3), (0.4, 0.3), (0.4, 0.4))
        both = marked.inner_text()
        page.get_by_role("radio", name="Eraser").check(force=True)
        drag(page, view, (0.45, 0.5), (0.55, 0.5))
        assert len({boxed, both, marked.inner_text()}) == 3
        for wanted in (both, boxed):
            page.get_by_role("button", name="Undo").click()
            assert marked.inner_text() == wanted
        view.press("Control+z")
        assert "Nothing" in marked.inner_text()
        page.mouse.move(5, 5)
        assert removing.canvas() == empty
        page.get_by_role("button", name="Redo").click()
        assert marked.inner_text() == boxed
        page.get_by_role("button", name="Invert").click()
        assert "Nearly the whole photo" in page.locator("#why-not").inner_text()
        page.get_by_role("button", name="Clear").click()
        assert "Nothing" in marked.inner_text()

    def test_by_keys_alone(self, removing: Seen, inpainting: Doer) -> None:
        page = removing.page
        page.get_by_role("radio", name="telea").check()
        page.get_by_role("radio", name="Rectangle").focus()
        page.keyboard.press("Space")
        view = page.locator(".view.draws")
        for _ in range(40):
            if view.evaluate("view => view === document.activeElement"):
                break
            page.keyboard.press("Tab")
        for key in ("ArrowLeft", "ArrowUp", "Space", "ArrowRight", "ArrowRight", "ArrowDown"):
            page.keyboard.press(key)
        page.keyboard.press("Shift+ArrowDown")
        page.keyboard.press("Space")
        assert "Nothing" not in page.locator(".marked").inner_text()
        page.get_by_role("button", name="Remove", exact=True).focus()
        page.keyboard.press("Enter")
        page.locator("#wipe").wait_for(timeout=SLOW)
        rows, columns = np.nonzero(sent_mask(inpainting))
        scale = 3  # CSS pixels of a pixel of this photo in this window; the cross moves by 12
        assert columns.max() - columns.min() + 1 == 2 * 12 / scale
        assert rows.max() - rows.min() + 1 == 12 / scale + 1

    def test_masks_from_files(self, removing: Seen, inpainting: Doer, tmp_path: Path) -> None:
        page = removing.page
        small, right = tmp_path / "small.png", tmp_path / "right.png"
        Image.new("L", (90, 75)).save(small)
        values = np.zeros((150, 180), np.uint8)
        values[20:60, 30:70], values[100:, 100:] = 255, 100
        Image.fromarray(values).save(right)
        load = page.locator("input[aria-label=Mask]")
        load.set_input_files(small)
        page.locator(".fault", has_text="90 x 75 pixels, the photo 180 x 150").wait_for()
        load.set_input_files(right)
        page.locator(".marked", has_text="About").wait_for()
        page.get_by_role("radio", name="telea").check()
        remove(page)
        assert np.array_equal(sent_mask(inpainting), values > 127)

    def test_a_result_is_there_again_after_another_photo(
        self, removing: Seen, other_file: Path, tmp_path: Path
    ) -> None:
        page = removing.page
        unread = tmp_path / "unread.png"
        unread.write_bytes(b"\x89PNG" + bytes(100))
        page.set_input_files("#files", [unread, other_file])
        page.locator(".item-said", has_text="not examined").wait_for(timeout=SLOW)
        removing.faults.clear()  # the browser's own note of the refusal
        first, second, third = page.locator(".pick-photo").all()
        page.get_by_role("radio", name="telea").check()
        drag(page, page.locator(".view.draws"), (0.45, 0.5), (0.55, 0.55))
        remove(page)
        page.locator("#wipe").fill("20")
        page.mouse.move(5, 5)
        compared, result = removing.canvas(), page.locator(".result").inner_text()
        second.click()
        page.locator(".verdict.failed", has_text="cannot show this photo").wait_for()
        first.click()
        page.locator("#wipe").wait_for()
        assert removing.canvas() == compared
        assert page.locator("#wipe").input_value() == "20"
        assert page.locator(".result").inner_text() == result
        third.click()
        page.locator(".marked", has_text="Nothing is marked").wait_for()
        assert page.locator(".result").inner_text() == ""
        page.evaluate(  # before the second of them has been opened
            "() => { const all = document.querySelectorAll('.pick-photo'); "
            "for (const each of [all[0], all[2], all[0]]) each.click(); }"
        )
        page.locator("#wipe").wait_for()
        assert page.locator(".result").inner_text() == result
        second.focus()
        second.click()
        first.focus()
        page.keyboard.press("Enter")
        page.locator("#wipe").wait_for()
        assert first.evaluate("one => one === document.activeElement")

    def test_progress_and_cancel_are_there_again_after_another_photo(
        self,
        removing: Seen,
        other_file: Path,
        inpainting: Holding,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(inpainting, "hold", True)
        page = removing.page
        page.set_input_files("#files", [other_file])
        drag(page, page.locator(".view.draws"), (0.45, 0.5), (0.55, 0.55))
        page.get_by_role("button", name="Remove", exact=True).click()
        result = page.locator(".result")
        result.locator("progress[value='0.3']").wait_for()
        cancel = result.get_by_role("button", name="Cancel")
        assert cancel.evaluate("one => one === document.activeElement")
        first, second = page.locator(".pick-photo").all()
        second.click()
        page.locator(".marked", has_text="Nothing is marked").wait_for()
        assert result.inner_text() == ""
        first.focus()
        first.click()
        result.locator("progress[value='0.3']").wait_for()
        assert first.evaluate("one => one === document.activeElement"), "the focus was taken away"
        with page.expect_request(lambda r: r.method == "DELETE"):
            cancel.click()
        assert "Cancelled" in result.inner_text()

    def test_a_result_keeps_the_name_of_its_photo(self, removing: Seen, other_file: Path) -> None:
        page = removing.page
        page.set_input_files("#files", [other_file])
        page.get_by_role("radio", name="telea").check()
        drag(page, page.locator(".view.draws"), (0.45, 0.5), (0.55, 0.55))
        remove(page)
        held: list[Route] = []
        picture = page.get_by_role("link", name="Download the picture").get_attribute("href")
        page.route(f"**{picture}", lambda route: held.append(route))
        with page.expect_request(f"**{picture}"):
            page.get_by_role("button", name="Examine the result").click()
        page.locator(".pick-photo").last.click()
        page.locator(".marked", has_text="Nothing is marked").wait_for()
        held[0].continue_()
        page.locator(".item-name", has_text="overpaint").wait_for()
        names = page.locator(".item-name").all_inner_texts()
        assert names == ["bridge.png", "other.png", "bridge.overpaint.png"]

    def test_a_mask_that_cannot_be_made(self, removing: Seen) -> None:
        page = removing.page
        drag(page, page.locator(".view.draws"), (0.45, 0.5), (0.55, 0.55))
        removing.script(
            """const { Mask } = await import("/static/mask.js");
            Mask.prototype.encodePng = () => Promise.reject(new RangeError("too large"));"""
        )
        page.get_by_role("button", name="Remove", exact=True).click()
        page.locator(".result .fault", has_text="The mask cannot be sent: too large").wait_for()

    def test_a_mask_is_sent_once(self, removing: Seen) -> None:
        page = removing.page
        drag(page, page.locator(".view.draws"), (0.45, 0.5), (0.55, 0.55))
        removing.script(LATE_MASK)
        go = page.get_by_role("button", name="Remove", exact=True)
        go.click()
        assert go.is_disabled()  # while the mask is encoded
        page.evaluate("encodeNow()")
        page.get_by_role("link", name="Download the picture").wait_for(timeout=SLOW)
        assert sum("/api/inpaint" in one.url for one in removing.requests) == 1
        assert go.is_enabled()

    def test_a_photo_that_was_taken_off_is_not_sent(self, removing: Seen) -> None:
        page = removing.page
        drag(page, page.locator(".view.draws"), (0.45, 0.5), (0.55, 0.55))
        removing.script(LATE_MASK)
        page.get_by_role("button", name="Remove", exact=True).click()
        page.get_by_role("button", name="Take off").click()
        assert page.locator("#empty").is_visible()
        page.evaluate("encodeNow()")
        page.wait_for_timeout(500)
        assert not [one.url for one in removing.requests if "/api/inpaint" in one.url]


# For everybody


class TestAccess:
    pytestmark = browser_only

    @pytest.mark.parametrize(
        "how",
        [
            {"color_scheme": "light"},
            {"color_scheme": "dark"},
            {"color_scheme": "light", "viewport": {"width": 390, "height": 800}},
        ],
        ids=["light", "dark", "narrow"],
    )
    def test_axe_finds_no_serious_fault(
        self, open_page: Open, photo_file: Path, how: dict[str, Any]
    ) -> None:
        axe = pytest.importorskip(
            "axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python"
        ).Axe()

        def faults(what: str) -> list[str]:
            return [
                f"{what}: {one['id']}: {node['html']}"
                for one in axe.run(seen.page).response["violations"]
                if one["impact"] in ("serious", "critical")
                for node in one["nodes"]
            ]

        seen = open_page(**how)
        page = seen.page
        found = faults("start")
        seen.add(photo_file)
        page.locator("#threshold").fill("-1")
        page.locator(".region-table tbody tr").first.wait_for()
        page.locator("summary").click()
        found += faults("detect")
        page.get_by_role("radio", name="All").check(force=True)
        found += faults("all views")
        page.get_by_role("tab", name="Remove").click()
        page.get_by_role("radio", name="telea").check()
        drag(page, page.locator(".view.draws"), (0.45, 0.5), (0.55, 0.55))
        found += faults("remove")
        remove(page)
        found += faults("compare")
        page.get_by_role("button", name="Keys").click()
        found += faults("keys")
        assert not found
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0

    def test_dark_and_light_by_hand(self, open_page: Open) -> None:
        page = open_page(color_scheme="light").page
        colour = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(colour)
        page.get_by_label("Colours").select_option("dark")
        dark = page.evaluate(colour)
        assert dark != light
        page.reload()
        assert page.evaluate(colour) == dark, "the choice is kept"

    def test_paste(self, open_page: Open, photo_file: Path) -> None:
        page = open_page().page
        page.evaluate(
            """bytes => { const all = new DataTransfer();
            all.items.add(new File([new Uint8Array(bytes)], "image.png", {type: "image/png"}));
            dispatchEvent(new ClipboardEvent("paste", {clipboardData: all})); }""",
            list(photo_file.read_bytes()),
        )
        page.locator("#threshold:not([disabled])").wait_for(timeout=SLOW)
        assert "image.png" in page.locator(".strip").inner_text()

    def test_what_is_said_aloud(self, open_page: Open, photo_file: Path) -> None:
        seen = open_page()
        seen.add(photo_file)
        seen.page.get_by_role("status").filter(has_text="bridge.png:").wait_for(
            state="attached", timeout=SLOW
        )
