"""The page of a report on paper, by a browser."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers.bright_detectors import calibration, registered, save
from overpaint.cli import build
from overpaint.images import write_jpeg

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
MARGINS = {"A4": (595, 842), "Letter": (612, 792)}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: install the package chromium"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A report on a photo with several regions."""
    from typer.testing import CliRunner

    folder = tmp_path_factory.mktemp("printed")
    pixels = np.full((400, 600, 3), 30, np.uint8)
    for left in range(20, 600, 150):
        pixels[40:120, left : left + 60] = 220
    write_jpeg(folder / "p.jpg", pixels, 92)
    with registered(folder) as weights:
        save(weights, "a", fitted=calibration())
        arguments = ["report", str(folder / "p.jpg"), "--model", "a", "-o", str(folder / "r.html")]
        result = CliRunner().invoke(build(), arguments)
    assert result.exit_code == 0, result.output
    return folder / "r.html"


@pytest.mark.slow
@pytest.mark.parametrize("paper", list(MARGINS))
def test_on_paper(page: Path, paper: str) -> None:
    text = page.read_text().replace("@page {", f"@page {{ size: {paper};", 1)
    copy = page.with_name(f"{paper}.html")
    copy.write_text(text)
    out = copy.with_suffix(".pdf")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu"]
    command += ["--no-pdf-header-footer", f"--user-data-dir={page.parent / paper}"]
    command += [f"--print-to-pdf={out}", copy.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    data = out.read_bytes()
    sizes = re.findall(rb"/MediaBox ?\[0 0 ([\d.]+) ([\d.]+)\]", data)
    assert 4 <= len(sizes) <= 12
    assert {(round(float(w)), round(float(h))) for w, h in sizes} == {MARGINS[paper]}
    assert data.count(b"/Subtype /Image") >= 6 + 3 * 4  # the views, and three of each region
