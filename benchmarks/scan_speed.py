"""Photos per second of `overpaint scan`, against `overpaint detect` given one photo at a time.

    python benchmarks/scan_speed.py --photos FOLDER

- The same photos, the same weights, one after the other on one machine: `overpaint detect PHOTO`
  in a loop (of `--loop` photos, as it is slow), `overpaint detect FOLDER`, `overpaint scan FOLDER`.
  All times are of whole commands, with the start of Python and the loading of the weights.
- The share of the network is the time in the detector of all network processes, against the time of
  the run times their number.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer


def seconds(*arguments: object) -> float:
    """Of a command; its exit code may say that photos failed."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "overpaint", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr.decode())
    return time.perf_counter() - started


def main(
    photos: Annotated[Path, typer.Option(help="Folder of photos.")],
    num: Annotated[int, typer.Option(min=1, help="Photos to take from it.")] = 60,
    loop: Annotated[int, typer.Option(min=1, help="Of them, for the loop.")] = 6,
    workers: Annotated[int, typer.Option(min=1, help="Network processes.")] = 2,
) -> None:
    """Measure the three ways, and print photos per second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        found = sorted(path for path in photos.rglob("*.*") if path.is_file())[:num]
        for i, path in enumerate(found):
            shutil.copy(path, folder / "in" / f"{i:04}{path.suffix}")
        taken = sorted((folder / "in").iterdir())
        rates = {}
        spent = sum(seconds("detect", path, "--out", folder / "loop") for path in taken[:loop])
        rates["detect in a loop"] = len(taken[:loop]) / spent
        rates["detect FOLDER"] = len(taken) / seconds(
            "detect", folder / "in", "--out", folder / "at-once"
        )
        spent = seconds("scan", folder / "in", "-o", folder / "scan", "--workers", workers)
        rates["scan FOLDER"] = len(taken) / spent
        command = [sys.executable, "-m", "overpaint", "scan", "summary", folder / "scan", "--json"]
        summary = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    for what, rate in rates.items():
        print(f"{what:<17} {rate:6.3f} photos/s")
    print(f"{rates['scan FOLDER'] / rates['detect in a loop']:.2f} x the loop, ", end="")
    print(f"{rates['scan FOLDER'] / rates['detect FOLDER']:.2f} x the folder")
    share = summary["seconds"] / spent / workers
    print(f"network: {100 * share:.0f} % of {workers} processes' time, with their start")


if __name__ == "__main__":
    typer.run(main)
