"""Time of a frame of the page while a slider moves; run it on an idle machine.

    python benchmarks/measure_page.py

- A synthetic photo of 2 megapixels (1632 x 1224), in a window of 1440 x 900, with the photo
  and the heatmap side by side, then with all six views.
- A frame is the wall time of the script for the browser's next frame. Also printed is the processor
  time of the page's thread for a frame, including the browser's drawing, which is valid on a busy
  machine, too. No request may be made during the measurement.
- It needs chromium, playwright, and the extra `web`. Printed and not kept.
"""

import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import typer
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import CDPSession

STEPS = 40
MOVE = """async ([name, steps]) => {
  const slider = document.getElementById(name), low = Number(slider.min), high = Number(slider.max);
  const frame = () => new Promise(requestAnimationFrame), took = [];
  for (let i = 0; i < steps; i++) {
    await frame();
    let start;
    requestAnimationFrame(() => { start = performance.now(); });
    slider.value = low + (high - low) * i / (steps - 1);
    const before = performance.now();
    slider.dispatchEvent(new Event("input"));
    const handled = performance.now() - before;
    await frame();
    took.push(handled + performance.now() - start);
  }
  return took;
}"""


def main(width: int = 1632, height: int = 1224) -> None:
    """Measure and print."""
    import uvicorn
    from playwright.sync_api import sync_playwright

    from overpaint.app.server import create_app

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    server = uvicorn.Server(uvicorn.Config(create_app(), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        photo = Path(folder) / "photo.png"
        Image.fromarray(draw_photo(height, width)).save(photo)
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        tools = page.context.new_cdp_session(page)
        tools.send("Performance.enable", {"timeDomain": "threadTicks"})
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        for what in ("cold", "warm"):
            start = time.perf_counter()
            page.set_input_files("#files", [photo])
            page.locator(".strip li").last.locator(".pick-photo").click()
            page.locator("#threshold:not([disabled])").wait_for(timeout=600_000)
            typer.echo(f"first result, {what}: {time.perf_counter() - start:.1f} s")
            page.locator(".item progress").last.wait_for(state="hidden", timeout=600_000)
        for layout in ("Two", "All"):
            page.get_by_role("radio", name=layout).check(force=True)
            page.wait_for_load_state("networkidle")
            for name in ("threshold", "opacity"):
                asked, before = len(requests), read_processor_time(tools)
                took = page.evaluate(MOVE, [name, STEPS])
                each = 1000 * (read_processor_time(tools) - before) / STEPS
                if len(requests) != asked:
                    raise SystemExit(f"{name}: the server was asked: {requests[asked:]}")
                typer.echo(
                    f"{name}, views: {layout}: median {statistics.median(took):.1f} ms, "
                    f"longest {max(took):.1f} ms of {STEPS} frames; processor {each:.1f} ms each"
                )
        browser.close()
    server.should_exit = True
    thread.join()


def read_processor_time(tools: "CDPSession") -> float:
    """Processor time of the page's thread so far, seconds."""
    metrics = tools.send("Performance.getMetrics")["metrics"]
    return next(one["value"] for one in metrics if one["name"] == "TaskDuration")


def draw_photo(height: int, width: int) -> np.ndarray:
    """Waves and noise: uint8 (h, w, 3)."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    waves = 128 + 40 * np.sin(rows / 17 + columns / 29) + 30 * np.sin(columns / 7)
    pixels = waves[..., None] * (1, 0.9, 0.8) + rng.normal(0, 4, (height, width, 3))
    pixels[height // 3 : height // 2, width // 3 : width // 2] = (120, 130, 140)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    typer.run(main)
