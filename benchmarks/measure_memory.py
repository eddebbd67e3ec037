"""Resident memory of one detector over photos of many sizes.

    python benchmarks/measure_memory.py --data DATA

- Crops of the test photos, of sizes drawn once with a fixed seed: by default 500 crops of 200 sizes
  from 200 to 900 pixels. Crops larger than a photo are joined from several pieces.
- Prints the memory after each twenty photos, and the ratio of the last twenty to the first. The
  exit status is 1 if it is more than 1.3.
- Smaller sizes (`--low 130 --high 260`) take a tenth of the time, and the memory kept for each
  shape is a larger part of the total.
"""

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from overpaint.errors import OverpaintError

LIMIT = 1.3
STEP = 20


def measure_resident_mib() -> float:
    """Resident memory of this process (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (x for x in lines if x.startswith("VmRSS:"))
    return int(line.split()[1]) / 2**10


def main(
    data: Annotated[Path, typer.Option(help="Folder with photos/.")],
    model: Annotated[str, typer.Option(help="Shipped name or weights file.")] = "nixnet-s",
    photos: Annotated[int, typer.Option(min=2 * STEP, help="Number of crops.")] = 500,
    sizes: Annotated[int, typer.Option(min=1, help="Different sizes.")] = 200,
    low: Annotated[int, typer.Option(min=16, help="Shortest side, pixels.")] = 200,
    high: Annotated[int, typer.Option(min=16, help="Longest side, pixels.")] = 900,
) -> None:
    """Detect in crops of many sizes, and print the resident memory."""
    from overpaint.detection.runner import DetectorRunner
    from overpaint.evaluation.measurement import find_test_photos

    rng = np.random.default_rng(0)
    source, runner = find_test_photos(data), DetectorRunner(model)
    shapes = rng.integers(low, high, size=(sizes, 2), endpoint=True)
    started, found = time.perf_counter(), []
    for i in range(photos):
        height, width = shapes[i % sizes] if i < sizes else shapes[rng.integers(sizes)]
        pixels = source.read(int(rng.integers(len(source))))
        pixels = np.pad(
            pixels,
            [(0, max(0, n - m)) for n, m in zip((height, width), pixels.shape, strict=False)]
            + [(0, 0)],
            mode="symmetric",
        )
        runner.logits(np.ascontiguousarray(pixels[:height, :width]))
        found.append(measure_resident_mib())
        if (i + 1) % STEP == 0:
            seconds = time.perf_counter() - started
            typer.echo(f"{i + 1} photos: {max(found[-STEP:]):.0f} MiB, {seconds:.0f} s")
    first, last = max(found[:STEP]), max(found[-STEP:])
    typer.echo(f"first {STEP}: {first:.0f} MiB, last {STEP}: {last:.0f} MiB, {last / first:.2f} x")
    raise typer.Exit(int(last > LIMIT * first))


if __name__ == "__main__":
    try:
        typer.run(main)
    except OverpaintError as error:
        raise SystemExit(str(error)) from error
