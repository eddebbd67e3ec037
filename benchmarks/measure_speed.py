"""Rows of results/speed.csv for networks and inpainters; run it on an idle machine.

    python benchmarks/measure_speed.py --data DATA

- Every network of the registry with trainable weights: its parameters, and time and memory for a
  picture of 256 and of 512 pixels. Speed does not depend on the weights, so they are random.
- `overpaint inpaint` of a hole of 300x300 pixels in a photo of 12 megapixels, with a method without
  weights and with the shipped weights.
- Each figure is from a separate process. The detector's time for 12 megapixels is measured by
  measure.py.
- The time of a mask of 128x128 pixels of each kind is only printed.
"""

import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from overpaint.errors import OverpaintError

ROOT = Path(__file__).parents[1]
INPAINT = ("telea", "safepaint-s")


def main(
    data: Annotated[Path, typer.Option("--data", help="Folder with photos/.")],
    network: Annotated[
        list[str] | None,
        typer.Option(help="NAME or NAME:KEY=VALUE;KEY=VALUE; repeatable. Default: all by NAME."),
    ] = None,
    inpaint: Annotated[
        list[str] | None, typer.Option(help="Name or weights; repeatable. Default: two.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the CSV files.")] = ROOT / "results",
) -> None:
    """Measure, write the rows, then render the published tables."""
    from overpaint.evaluation import tables
    from overpaint.evaluation.measurement import find_test_photos
    from overpaint.evaluation.rows import Source, write_results
    from overpaint.evaluation.speed import THREADS, Kind, measure_inpaint, measure_network
    from overpaint.registry import Registry, detectors, inpainters
    from overpaint.run_identity import find_commit, hash_config
    from overpaint.weights import has_weights, read_record

    protocol = (
        f"{THREADS} threads, fp32, own process; median of 5 runs of a network, of 3 of inpaint"
    )
    for name, milliseconds in time_masks().items():
        typer.echo(f"mask {name}: {milliseconds:.2f} ms")
    commit, hashed = find_commit(), hash_config({"threads": THREADS, "runs": [5, 3]})
    kinds: list[tuple[Kind, Registry[Any]]] = [("detector", detectors), ("inpainter", inpainters)]
    for kind, registry in kinds:
        trainable = [name for name in registry.list_names() if registry.get(name).trainable]
        for name in network or trainable:
            if name.partition(":")[0] in registry:
                typer.echo(f"{kind} {name}")
                source = Source("speed", name, commit, hashed, "", protocol)
                write_results(out, measure_network(source, kind, name), [])
    photo = find_test_photos(data, 0).read(0)
    for name in INPAINT if inpaint is None else inpaint:
        typer.echo(f"inpaint with {name}")
        sha256 = read_record(name).sha256 if has_weights(name) else ""
        source = Source("speed", name, commit, hashed, sha256, protocol)
        write_results(out, measure_inpaint(source, name, photo), [])
    if out.resolve() == ROOT / "results":
        raise typer.Exit(tables.main(tables.list_published_pages(ROOT)))


def time_masks(size: int = 128, runs: int = 40) -> dict[str, float]:
    """Median CPU time of one mask of each kind, in milliseconds."""
    import numpy as np

    from overpaint.data import masks

    medians = {}
    for name in sorted(masks.MASKS):
        fn, seconds = masks.get(name), []
        for seed in range(runs):
            rng = np.random.default_rng(seed)
            start = time.thread_time()
            fn(size, size, rng)
            seconds.append(time.thread_time() - start)
        medians[name] = 1000 * statistics.median(seconds)
    return medians


if __name__ == "__main__":
    try:
        typer.run(main)
    except OverpaintError as error:
        raise SystemExit(str(error)) from error
