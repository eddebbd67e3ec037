"""Photos per second of `overpaint scan`, compared with `overpaint detect` on one photo at a time.

    python benchmarks/scan_speed.py --photos FOLDER

- The same photos and weights on one machine, first `overpaint detect PHOTO` in a loop (of `--loop`
  photos, because it is slow), then `overpaint scan`, both with `--runtime`. Times are of whole
  commands, including the start of Python and the loading of the weights.
- Wall time, and processor time of all processes of a command, which other work on the machine
  changes much less.
- The network's share is the time of all network processes in the detector, divided by the time of
  the scan after its processes have started and by their number.
- The memory slope is of the memory that stays between photos: a line through the lowest resident
  memory of all processes of the scan (Pss of each) in each of 20 parts of the run, over the number
  of examined photos, without the first fifth. In between, memory follows the size of the photos in
  work.
- Rows are written to results/scan.csv. Use photos like yours: the figures depend on them.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from overpaint.errors import OverpaintError

ROOT = Path(__file__).parents[1]
CROP = (128, 201)
"""Sides of crops, pixels: from, and below."""
PARTS = 20


def make_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "overpaint", *map(str, arguments)]


def time_command(*arguments: object) -> tuple[float, float]:
    """Wall and processor time of a command, seconds; photos may fail (exit code 1)."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(make_command(*arguments), capture_output=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr.decode())
    return time.perf_counter() - started, _measure_processor(before)


def _measure_processor(before: resource.struct_rusage) -> float:
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime


def time_scan(out: Path, *arguments: object) -> tuple[float, float, list[tuple[int, float]]]:
    """Wall and processor time, and (photos done, MB of all its processes) over the run."""
    from overpaint.scan.results import open_dataset

    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    found = []
    with subprocess.Popen(
        make_command("scan", *arguments, "-o", out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        while process.poll() is None:
            time.sleep(1)
            if (out / "scan.json").exists():
                with suppress(OverpaintError):  # it is being written
                    found.append((open_dataset(out).count_rows(), _measure_megabytes(process.pid)))
        said = process.stderr.read().decode() if process.stderr else ""
    if process.returncode not in (0, 1):
        raise SystemExit(said)
    return time.perf_counter() - started, _measure_processor(before), found


def _measure_megabytes(pid: int) -> float:
    return sum(_read_resident_bytes(one) for one in (pid, *_list_descendants(pid))) / 1e6


def _list_descendants(pid: int) -> Iterator[int]:
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield int(child)
                yield from _list_descendants(int(child))


def _read_resident_bytes(pid: int) -> int:
    """Resident bytes of a process, shared pages divided by their users; 0 if it has ended."""
    with suppress(OSError, ValueError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return next(int(x.split()[1]) for x in text.splitlines() if x.startswith("Pss:")) * 1024
    return 0


def cut_crops(photos: list[Path], folder: Path, num: int) -> None:
    """Write `num` crops with sides in `CROP` from the photos in turn to `folder`, as JPEG files."""
    rng, each = np.random.default_rng(0), -(-num // len(photos))
    for i, path in enumerate(photos):
        image = Image.open(path).convert("RGB")
        for j in range(each):
            if (number := i + j * len(photos)) < num:
                width, height = (min(int(rng.integers(*CROP)), side) for side in image.size)
                left = int(rng.integers(image.width - width + 1))
                top = int(rng.integers(image.height - height + 1))
                crop = image.crop((left, top, left + width, top + height))
                crop.save(folder / f"{number:05}.jpg", quality=95)


def fit_slope(found: list[tuple[int, float]]) -> float:
    """MB per 1,000 photos; NaN for fewer than 200."""
    total = found[-1][0] if found else 0
    late = [(num, size) for num, size in found if num > total / 5]
    if total < 200:  # memory still grows at the start
        return float("nan")
    lowest: dict[int, tuple[int, float]] = {}
    for num, size in late:
        part = num * PARTS // total
        lowest[part] = min(lowest.get(part, (num, size)), (num, size), key=lambda one: one[1])
    num, size = np.array(list(lowest.values())).T
    return 1000 * float(np.polyfit(num, size, 1)[0])


def measure_both(
    folder: Path, taken: list[Path], loop: int, workers: int, model: str, runtime: str
) -> tuple[dict[str, float], str]:
    """Figures of both ways, and the runtime in words."""
    looped = taken[:: max(1, len(taken) // loop)][:loop]
    given = ["--model", model, "--runtime", runtime]
    # A runtime is exported and measured once on a machine; that time is not counted.
    time_command("detect", taken[0], "--out", folder / "first", *given)
    spent = [time_command("detect", one, "--out", folder / "loop", *given) for one in looped]
    each = np.array(spent).sum(axis=0) / len(looped)
    out = folder / f"scan-{runtime}"
    wall, processor, sizes = time_scan(out, folder / "in", "--workers", workers, *given)
    said = subprocess.run(
        make_command("scan", "summary", out, "--json"), capture_output=True, check=True
    ).stdout
    summary = json.loads(said)
    of_scan = np.array([wall, processor]) / len(taken)
    values = {
        "loop seconds": each[0],
        "loop processor seconds": each[1],
        "scan seconds": of_scan[0],
        "scan processor seconds": of_scan[1],
        "times as fast": each[0] / of_scan[0],
        "times less processor time": each[1] / of_scan[1],
        "network share": summary["seconds"] / wall / workers,
        "megapixels": summary["megapixels"] / max(1, summary["looked_at"]),
        "MB per 1000 photos": fit_slope(sizes),
        "peak MB": max((size for _, size in sizes), default=float("nan")),
    }
    return {name: float(value) for name, value in values.items()}, summary["made_with"]["runtime"][
        0
    ]


def main(
    photos: Annotated[Path, typer.Option(help="Folder of photos.")],
    num: Annotated[int, typer.Option(min=1, help="Photos to take from it, at random.")] = 60,
    loop: Annotated[int, typer.Option(min=1, help="Of them, for the loop.")] = 6,
    workers: Annotated[int, typer.Option(min=1, help="Network processes.")] = 2,
    model: Annotated[str, typer.Option(help="Name or weights file.")] = "nixnet-s",
    runtime: Annotated[
        list[str] | None, typer.Option(help="As of `overpaint scan`; repeatable. Default: torch.")
    ] = None,
    crops: Annotated[
        bool, typer.Option(help="Small crops instead of photos: memory over many of them.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of the CSV files.")] = ROOT / "results",
) -> None:
    """Measure both ways, print the figures, and write the rows."""
    from overpaint.evaluation.rows import Row, Source, write_results
    from overpaint.run_identity import find_commit, hash_config
    from overpaint.weights.resolve import find

    record, commit, rows = find(model, "detector"), find_commit(), []
    settings = {"num": num, "loop": loop, "workers": workers, "runtime": runtime}
    hashed = hash_config(settings)
    allowed = f"{len(os.sched_getaffinity(0))} processors allowed"
    nan = float("nan")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        found = sorted(path for path in photos.rglob("*.*") if path.is_file())
        np.random.default_rng(0).shuffle(found)  # sizes differ from folder to folder
        if crops:
            cut_crops(found, folder / "in", num)
        else:
            for i, path in enumerate(found[:num]):
                shutil.copy(path, folder / "in" / f"{i:05}{path.suffix}")
        taken = sorted((folder / "in").iterdir())
        for one in runtime or ["torch"]:
            values, words = measure_both(folder, taken, loop, workers, model, one)
            what = f"crops of {CROP[0]} to {CROP[1]} pixels" if crops else "photos"
            protocol = f"{len(taken)} {what}, {workers} network processes, {words}, {allowed}"
            source = Source("scan", record.name, commit, hashed, record.sha256, protocol)
            method = f"{one}, crops" if crops else one
            for metric, value in values.items():
                typer.echo(f"{one}: {metric:<26} {value:.4g}")
                rows.append(
                    Row(method=method, metric=metric, value=value, n=len(taken), ci_low=nan,
                        ci_high=nan, **asdict(source))
                )  # fmt: skip
    write_results(out, rows, [])


if __name__ == "__main__":
    typer.run(main)
