"""Time and peak memory of the commands that users run, each measured in a separate process."""

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
from typing import Literal

import numpy as np
from PIL import Image

from overpaint.errors import OverpaintError
from overpaint.evaluation.rows import Row, Source
from overpaint.evaluation.timed_job import find_network
from overpaint.images import write_jpeg, write_png
from overpaint.registry import count_parameters

Kind = Literal["detector", "inpainter"]

WIDTH, HEIGHT = 4000, 3000
HOLE = 300
THREADS = 2
STARTS = 5


def measure_speed(
    source: Source,
    weights: str | Path,
    pixels: np.ndarray,
    runs: int = 3,
    report: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Rows for a photo of 12 megapixels (`pixels` enlarged), the import, and `--help`.

    Raises OverpaintError with the last line of a failed process's standard error.
    """
    report(f"speed: {runs} runs with {WIDTH} x {HEIGHT} pixels")
    found = [detect_once(weights, pixels) for _ in range(runs)]
    rows = [
        _make_median_row(source, "detect in 12 megapixels", metric, [f[metric] for f in found])
        for metric in ("seconds", "peak_mib")
    ]
    report("speed: starting")
    for name, arguments in (
        ("import overpaint", ["-c", "import overpaint"]),
        ("overpaint --help", ["-m", "overpaint", "--help"]),
    ):
        seconds = [_run(arguments)[0] for _ in range(STARTS)]
        rows.append(_make_median_row(source, name, "seconds", seconds))
    return rows


def detect_once(
    weights: str | Path, pixels: np.ndarray, size: tuple[int, int] = (WIDTH, HEIGHT)
) -> dict[str, float]:
    """ "seconds" in the detector and "peak_mib" of its process for a photo of (width, height)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        large = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        write_jpeg(path, np.asarray(large), quality=95)
        return _time_job("detect", str(weights), str(path))


def measure_inpaint(source: Source, model: str, pixels: np.ndarray, runs: int = 3) -> list[Row]:
    """Rows for a hole of 300 x 300 pixels in a photo of 12 megapixels (`pixels` enlarged)."""
    with tempfile.TemporaryDirectory() as folder:
        photo, mask = Path(folder) / "photo.png", Path(folder) / "mask.png"
        large = Image.fromarray(pixels).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        hole = np.zeros((HEIGHT, WIDTH), np.uint8)
        hole[HEIGHT // 2 :, WIDTH // 2 :][:HOLE, :HOLE] = 255
        write_png(photo, np.asarray(large))
        write_png(mask, hole)
        found = [_time_job("inpaint", model, str(photo), str(mask)) for _ in range(runs)]
    return [
        _make_median_row(
            source, "inpaint 300x300 in 12 megapixels", metric, [f[metric] for f in found]
        )
        for metric in ("seconds", "peak_mib")
    ]


def measure_network(
    source: Source, kind: Kind, name: str, sides: Sequence[int] = (256, 512), runs: int = 5
) -> list[Row]:
    """Rows for a network: its parameters, and time and memory by side in pixels.

    name: see `timed_job.find_network`. Raises UnknownNameError.
    """
    entry, config = find_network(kind, name)
    rows = [_make_median_row(source, "network", "parameters", [count_parameters(entry, config)])]
    for side in sides:
        seconds, peak = _make_job("network", kind, name, str(side), str(runs))
        rows.append(_make_median_row(source, f"{side} px", "seconds", seconds))
        rows.append(_make_median_row(source, f"{side} px", "peak_mib", [peak]))
    return rows


def _time_job(*arguments: str) -> dict[str, float]:
    """ "seconds" and "peak_mib" of a job that is run once."""
    (seconds,), peak = _make_job(*arguments)
    return {"seconds": seconds, "peak_mib": peak}


def _make_job(*arguments: str) -> tuple[list[float], float]:
    """Seconds of each run of a job of `evaluation.timed_job`, and its process's peak in MiB."""
    found = json.loads(_run(["-m", "overpaint.evaluation.timed_job", *arguments])[1])
    return found["seconds"], found["peak_mib"]


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


def _make_median_row(source: Source, method: str, metric: str, values: Sequence[float]) -> Row:
    """The median; runs are few, so the interval is from the lowest to the highest value."""
    return Row(
        method=method,
        metric=metric,
        value=statistics.median(values),
        n=len(values),
        ci_low=min(values),
        ci_high=max(values),
        **asdict(source),
    )
