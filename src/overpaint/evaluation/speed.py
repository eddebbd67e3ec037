"""Time and memory of what a user waits for, each measured in a process of its own."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from overpaint.errors import OverpaintError
from overpaint.evaluation.rows import Row, Source
from overpaint.images import write_jpeg

WIDTH, HEIGHT = 4000, 3000
THREADS = 2
STARTS = 5

# Runs in the other process. On Linux, getrusage's peak holds that of the process which started this
# one, too, so the kernel's own figure is read; elsewhere ru_maxrss does (macOS counts in bytes).
_DETECT = """
import json, pathlib, resource, sys
from overpaint.images import read_image
from overpaint.inference.detect import DetectorRunner
found = DetectorRunner(sys.argv[1]).run(read_image(sys.argv[2]))
status = pathlib.Path("/proc/self/status")
if status.exists():
    (line,) = [x for x in status.read_text().splitlines() if x.startswith("VmHWM:")]
    peak = int(line.split()[1]) / 2**10
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = peak / 2**20 if sys.platform == "darwin" else peak / 2**10
print(json.dumps({"seconds": found.seconds, "peak_mib": peak}))
"""


def measure_speed(
    source: Source,
    weights: str | Path,
    pixels: np.ndarray,
    runs: int = 3,
    report: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Rows for a photo of 12 megapixels (`pixels` enlarged), the import, and `--help`.

    Raises OverpaintError with what a process said when it failed.
    """
    report(f"speed: {runs} runs with {WIDTH} x {HEIGHT} pixels")
    found = [detect_once(weights, pixels) for _ in range(runs)]
    rows = [
        _median(source, "detect in 12 megapixels", metric, [f[metric] for f in found])
        for metric in ("seconds", "peak_mib")
    ]
    report("speed: starting")
    for name, arguments in (
        ("import overpaint", ["-c", "import overpaint"]),
        ("overpaint --help", ["-m", "overpaint", "--help"]),
    ):
        seconds = [_run(arguments)[0] for _ in range(STARTS)]
        rows.append(_median(source, name, "seconds", seconds))
    return rows


def detect_once(
    weights: str | Path, pixels: np.ndarray, size: tuple[int, int] = (WIDTH, HEIGHT)
) -> dict[str, float]:
    """ "seconds" in the detector and "peak_mib" of its process for a photo of (width, height)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        large = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        write_jpeg(path, np.asarray(large), quality=95)
        return json.loads(_run(["-c", _DETECT, str(weights), str(path)])[1])


def _run(arguments: Sequence[str]) -> tuple[float, str]:
    """(seconds, standard output) of a Python process."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise OverpaintError(f"a measured process failed: {said}")
    return seconds, done.stdout


def _median(source: Source, method: str, metric: str, values: Sequence[float]) -> Row:
    """The interval of a handful of runs is from the lowest to the highest."""
    return Row(
        method=method,
        metric=metric,
        value=statistics.median(values),
        n=len(values),
        ci_low=min(values),
        ci_high=max(values),
        **asdict(source),
    )
