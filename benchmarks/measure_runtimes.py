"""Time of a photo of 12 megapixels with every runtime, compared with plain torch.

    python benchmarks/measure_runtimes.py --data DATA
    python benchmarks/measure_runtimes.py --data DATA --peers

- The whole of `overpaint detect`: reading the JPEG, the detector, and writing pictures and record.
  Each run is a separate process, which loads the network before the time starts; the runtimes take
  turns, so that other work on the machine affects all of them.
- "plain" is the same command with unoptimised torch: eager, NCHW, separate batch norms and
  concatenated maps, in tiles of 1,024 pixels that overlap by 128. "plain, our tiles" has the tiles
  of all others, which are smaller and overlap less. The ratio to the first shows the saving of all
  changes together, the ratio to the second that of the runtime.
- `--peers` times PSCC-Net and ManTra-Net instead, at their published widths (random weights, as the
  time does not depend on them), with torch and our tiles, once each, compared with OpenVINO. These
  rows are written to results/peers.csv.
- Wall time, processor time of the process, its peak memory, and the largest difference of a logit
  from that of plain torch with our tiles. Rows are written to results/runtimes.csv.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from overpaint.defaults import DEFAULT_DETECTOR
from overpaint.errors import OverpaintError

ROOT = Path(__file__).parents[1]
PLAIN, PLAIN_OUR_TILES = "plain", "plain, our tiles"
RUNTIMES = (PLAIN, PLAIN_OUR_TILES, "torch", "onnx", "openvino")
PEERS = ("psccnet", "mantranet")
PLAIN_TILE, PLAIN_OVERLAP = 1024, 128


def run_job(model: str, photo: str, runtime: str, threads: int, out: str) -> None:
    """One measured run, in this process: prints JSON, and leaves the logits in `out`."""
    import torch

    from overpaint.detection import tiles
    from overpaint.detection.report import Writer
    from overpaint.detection.runner import DetectorRunner
    from overpaint.evaluation.timed_job import read_peak_mib
    from overpaint.images import read_image
    from overpaint.process import keep_freed_memory
    from overpaint.registry import detectors

    torch.set_num_threads(threads)
    if runtime not in (PLAIN, PLAIN_OUR_TILES):
        keep_freed_memory()  # as the commands do
    if runtime in PEERS:
        runner = DetectorRunner(detectors.create(runtime))
    elif runtime in (PLAIN, PLAIN_OUR_TILES):
        runner = DetectorRunner(model)
        make_plain(runner.module)
        if runtime == PLAIN:
            tiles.place_tiles = place_full_tiles
    else:
        runner = DetectorRunner(model, runtime=runtime)
    folder = Path(out)
    wall, processor = time.perf_counter(), time.process_time()
    read = read_image(photo)
    assessed = runner.assess(read)
    found = runner.conclude(read, assessed)
    Writer(folder, [read.path]).write(read, found)
    took = time.perf_counter() - wall, time.process_time() - processor
    np.save(folder / "logits.npy", assessed.seen.logits)
    print(
        json.dumps(
            {
                "seconds": took[0],
                "processor seconds": took[1],
                "detector seconds": found.seconds,
                "peak_mib": read_peak_mib(),
            }
        )
    )


def make_plain(module: "torch.nn.Module") -> None:  # type: ignore[name-defined]  # noqa: F821
    """Undo channels last, folded batch norms and two tiles at once of a NIX-Net in this process."""
    import torch

    from overpaint.detectors import nixnet

    def conv_norm(conv, norm, first, *others):
        return norm(conv(torch.cat([first, *others], dim=1) if others else first))

    nixnet.apply_conv_norm = conv_norm
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    module.tiles_at_once = 1  # type: ignore[assignment]
    logits = module._compute_logits
    module._compute_logits = lambda image: logits(image.contiguous())  # type: ignore[assignment]


def place_full_tiles(
    length: int, tile: int, overlap: int, stride: int
) -> list[tuple[int, np.ndarray]]:
    """As `tiles.place_tiles`, with tiles of the full size; the last ends where the photo ends."""
    tile, overlap = PLAIN_TILE, PLAIN_OVERLAP
    if length <= tile:
        return [(0, np.ones(length, dtype=np.float32))]
    starts = [*range(0, length - tile, tile - overlap), -(-(length - tile) // stride) * stride]
    total, placed = np.zeros(length, dtype=np.float32), []
    for start in starts:
        distance = np.arange(min(start + tile, length) - start) + 0.5
        weights = np.minimum(distance, distance[::-1]).clip(max=overlap).astype(np.float32)
        total[start : start + weights.size] += weights
        placed.append((start, weights))
    return [(start, weights / total[start : start + weights.size]) for start, weights in placed]


def main(
    data: Annotated[Path, typer.Option(help="Folder with photos/.")],
    runs: Annotated[int, typer.Option(min=1, help="Runs of each.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Of the network.")] = 2,
    model: Annotated[
        str, typer.Option(help="Name or weights file, of a NIX-Net.")
    ] = DEFAULT_DETECTOR,
    runtime: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {', '.join(RUNTIMES)}; repeatable. Default: all."),
    ] = None,
    peers: Annotated[bool, typer.Option(help="Other detectors instead of runtimes.")] = False,
    width: Annotated[int, typer.Option(min=256, help="Of the photo, pixels.")] = 4000,
    height: Annotated[int, typer.Option(min=256, help="Of the photo, pixels.")] = 3000,
    out: Annotated[Path, typer.Option(help="Folder of the CSV files.")] = ROOT / "results",
) -> None:
    """Measure, print figures and ratios to plain torch, and write the rows."""
    from PIL import Image

    from overpaint.evaluation.measurement import find_test_photos
    from overpaint.evaluation.rows import Row, Source, write_results
    from overpaint.images import write_jpeg
    from overpaint.run_identity import find_commit, hash_config
    from overpaint.weights.resolve import find

    runs = 1 if peers else runs
    wanted = ("openvino", *PEERS) if peers else tuple(runtime or RUNTIMES)
    found: dict[str, list[dict[str, float]]] = {one: [] for one in wanted}
    differences: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        photo = Path(name) / "photo.jpg"
        pixels = find_test_photos(data, 0).read(0)
        large = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
        write_jpeg(photo, np.asarray(large), quality=95)
        for _ in range(runs):
            for one in wanted:
                folder = Path(name) / one
                found[one].append(_run(model, photo, one, threads, folder))
                typer.echo(f"{one}: {found[one][-1]}")
        tiled = [one for one in wanted if one not in (PLAIN, *PEERS)]
        for one in tiled:
            first, other = (np.load(Path(name) / n / "logits.npy") for n in (tiled[0], one))
            differences[one] = float(np.abs(first - other).max())
    record, nan = find(model, "detector"), float("nan")
    settings = {"runs": runs, "threads": threads, "size": [width, height]}
    protocol = (
        f"{width} x {height} pixels, {threads} threads on {len(os.sched_getaffinity(0))} "
        "processors, fp32, own process, in turns; median of the runs, n of them"
    )
    name = "peers" if peers else "runtimes"
    source = Source(
        name, record.name, find_commit(), hash_config(settings), record.sha256, protocol
    )
    rows = []
    for one in wanted:
        label = f"{record.name}, {one}" if peers and one not in PEERS else one
        values = {key: [run[key] for run in found[one]] for key in found[one][0]}
        if one in differences:
            values[f"logit from {tiled[0]}"] = [differences[one]]
        first = found[wanted[0]]
        for key in ("seconds", "processor seconds"):
            # Ratios of consecutive runs, because other work on the machine changes with time.
            values[f"{key}, ratio"] = [
                mine[key] / theirs[key] for mine, theirs in zip(found[one], first, strict=True)
            ]
        for key, each in values.items():
            typer.echo(f"{one}: {key:<26} {statistics.median(each):.4g}")
            several = len(each) > 1
            rows.append(
                Row(method=label, metric=key, value=statistics.median(each), n=len(found[one]),
                    ci_low=min(each) if several else nan, ci_high=max(each) if several else nan,
                    **asdict(source))
            )  # fmt: skip
    write_results(out, rows, [])


def _run(model: str, photo: Path, runtime: str, threads: int, out: Path) -> dict[str, float]:
    arguments = [model, str(photo), runtime, str(threads), str(out)]
    done = subprocess.run(
        [sys.executable, __file__, "job", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    if sys.argv[1:2] == ["job"]:
        name, path, runtime, threads, folder = sys.argv[2:]
        run_job(name, path, runtime, int(threads), folder)
    else:
        try:
            typer.run(main)
        except OverpaintError as error:
            raise SystemExit(str(error)) from error
