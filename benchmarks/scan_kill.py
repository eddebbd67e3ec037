"""A scan that is killed at random points and resumed: is every photo there exactly once?

    python benchmarks/scan_kill.py

- Small photos of noise and shapes, some of them identical and some damaged.
- `overpaint scan` is killed (SIGKILL) after a random number of new rows and a random time, also
  during its start, and run again; the last run is not killed.
- After each kill the results have to be readable. At the end each photo must have one row, and each
  shard must be complete. Otherwise the exit status is 1.
"""

import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image


def make_photos(folder: Path, num: int, seed: int) -> None:
    """Photos of 128 to 200 pixels; each tenth is a copy, each fifteenth is damaged."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for i in range(num):
        path = folder / f"{i:04}.png"
        if i % 10 == 9:
            shutil.copy(folder / f"{i - 1:04}.png", path)
            continue
        height, width = rng.integers(128, 200, 2)
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((int(width), int(height)), Image.Resampling.BICUBIC)
        noisy = np.asarray(smooth) + rng.normal(0, 3, (height, width, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)
        if i % 15 == 14:
            path.write_bytes(path.read_bytes()[:-500])


def count_rows(out: Path) -> int:
    """Number of rows in the results; 0 before there are any."""
    from overpaint.scan.results import open_dataset

    return open_dataset(out).count_rows() if (out / "scan.json").exists() else 0


def main(
    photos: Annotated[int, typer.Option(min=10, help="Number of photos.")] = 120,
    kills: Annotated[int, typer.Option(min=1, help="Times that the scan is killed.")] = 10,
    seed: Annotated[int, typer.Option(help="Of photos and points.")] = 0,
) -> None:
    """Kill and resume a scan, and count the rows."""
    import pyarrow.parquet

    from overpaint.scan.reading import run_query

    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "photos", Path(folder) / "results"
        make_photos(source, photos, seed)
        command = [*(sys.executable, "-m", "overpaint", "scan", source, "-o", out)]
        for kill in range(kills):
            before = count_rows(out)
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            more = rng.randint(0, max(1, photos // kills))
            while count_rows(out) < before + more and process.poll() is None:
                time.sleep(0.05)
            time.sleep(rng.uniform(0, 1))
            process.kill()
            process.wait()
            print(f"kill {kill + 1}: {before} rows before, {count_rows(out)} after", flush=True)
        code = subprocess.run(command, check=False).returncode
        ((failed,),) = run_query(out, "SELECT count(error) FROM rows").rows
        counts = Counter(path for (path,) in run_query(out, "SELECT path FROM rows").rows)
        expected = {str(path) for path in source.iterdir()}
        shards = sorted(out.glob("part-*.parquet"))
        whole = sum(pyarrow.parquet.read_table(shard).num_rows for shard in shards)
    twice = sum(num > 1 for num in counts.values())
    missing, others = len(expected - set(counts)), len(set(counts) - expected)
    print(
        f"{len(expected)} photos: {missing} missing, {twice} more than once, {others} others; "
        f"{len(shards)} shards with {whole} rows, {failed} of them errors; "
        f"last exit code {code}"
    )
    if missing or twice or others or whole != len(expected) or code not in (0, 1):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
