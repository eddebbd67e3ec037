"""The job that `evaluation.speed` runs in a separate process: timed, with its peak memory.

    python -m overpaint.evaluation.timed_job detect WEIGHTS PHOTO
    python -m overpaint.evaluation.timed_job inpaint MODEL PHOTO MASK
    python -m overpaint.evaluation.timed_job network detector|inpainter NETWORK SIDE RUNS

"network" runs a network, with random weights, on noise of SIDE x SIDE pixels; its first run is not
counted. NETWORK: see `find_network`. Prints JSON: {"seconds": [...], "peak_mib": ...}.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from overpaint.process import keep_freed_memory
from overpaint.registry import Entry, detectors, inpainters
from overpaint.terminal import say_json


def read_peak_mib() -> float:
    """Largest resident memory of this process so far.

    On Linux, getrusage's peak includes that of the parent process, so VmHWM is read instead.
    Elsewhere ru_maxrss is used (macOS counts it in bytes).
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def detect(weights: str, photo: str) -> list[float]:
    """Seconds from decoded pixels to a heatmap."""
    from overpaint.detection.runner import DetectorRunner
    from overpaint.images import read_image

    runner, pixels = DetectorRunner(weights), read_image(photo)
    return [runner.run(pixels).seconds]


def inpaint(model: str, photo: str, mask: str) -> list[float]:
    """Seconds of `overpaint.inpaint` from two files to a written and marked PNG."""
    from overpaint.inpainting.api import inpaint as run
    from overpaint.inpainting.inpainter_runner import make_runner

    make_runner(model)
    out = Path(photo).with_name("filled.png")
    return [_time(lambda: run(photo, mask, model=model, out=out, overwrite=True))]


def find_network(kind: str, name: str) -> tuple[Entry[Any], dict[str, Any]]:
    """The entry and the configuration that "NAME" or "NAME:KEY=VALUE;KEY=VALUE" stands for.

    kind: "detector" or "inpainter". The values are JSON. Raises UnknownNameError.
    """
    name, _, settings = name.partition(":")
    pairs = (pair.partition("=") for pair in settings.split(";") if pair)
    config = {key: json.loads(value) for key, _, value in pairs}
    return (detectors if kind == "detector" else inpainters).get(name), config


def time_network(kind: str, name: str, side: str, runs: str) -> list[float]:
    """Seconds of each forward pass of a network."""
    import torch

    torch.manual_seed(0)
    entry, config = find_network(kind, name)
    model = entry.factory(**config).eval()
    image, mask = torch.rand(1, 3, int(side), int(side)), torch.zeros(1, 1, int(side), int(side))
    mask[..., int(side) // 4 : int(side) // 2, int(side) // 4 : int(side) // 2] = 1
    inputs = (image,) if kind == "detector" else (image, mask)
    with torch.inference_mode():
        return [_time(lambda: model(*inputs)) for _ in range(int(runs) + 1)][1:]


def _time(job: Callable[[], object]) -> float:
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def main(arguments: Sequence[str]) -> None:
    """Run the job that the first argument names, and print its time and peak memory."""
    keep_freed_memory()  # as the commands do
    jobs = {"detect": detect, "inpaint": inpaint, "network": time_network}
    seconds = jobs[arguments[0]](*arguments[1:])
    say_json({"seconds": seconds, "peak_mib": read_peak_mib()})


if __name__ == "__main__":
    main(sys.argv[1:])
