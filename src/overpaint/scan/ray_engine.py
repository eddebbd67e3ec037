"""The Ray engine: the local engine's processes on every machine of a Ray cluster.

- Ray transports paths, not pixels. Each actor of a Ray Data pool is a small `LocalEngine` with one
  network: it reads, hashes and decodes in advance, and a photo that ends its process gets an error
  row. So the rows come from the same code as those of the local engine.
- Places are sent in blocks. When a machine or an actor ends, Ray sends its blocks to others; the
  caller gets each row once, and stores it at once. A caller that is killed loses only the blocks in
  work.
- Identical files in different blocks are examined by several actors; the first row counts, and the
  others become copies of it.
- The weights and calibrations of all rows are compared: a machine with others ends the scan.

Ray is at https://github.com/ray-project/ray (Apache-2.0); no code was taken from it.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from overpaint.data.sources import Place, Stamp
from overpaint.errors import ScanError
from overpaint.scan.detector import DetectorSettings
from overpaint.scan.engine import Known
from overpaint.scan.local_engine import LocalEngine
from overpaint.scan.rows import PhotoRow, copy_row, find_name

BLOCK = 64
"""Largest number of photos that an actor gets at a time, and loses when it ends."""

_SAME = ("model", "weights_sha256", "calibration_sha256")


class RayEngine:
    """Actors that examine photos, on the cluster that RAY_ADDRESS names, or on this machine."""

    def __init__(
        self,
        detector: DetectorSettings,
        *,
        networks: int | None = None,
        threads: int | None = None,
        gpus: float | None = None,
    ) -> None:
        """networks: number of actors; None takes as many as the cluster has processors for.
        threads: of each network, and the processors that Ray reserves for it; None takes one. gpus:
        what Ray reserves for each network, also a share of one; None takes one where
        `detector.device` is a GPU."""
        self._detector = detector
        self.threshold = detector.threshold
        self._networks = networks
        self._threads = threads or 1
        self._gpus = gpus if gpus is not None else float(detector.device != "cpu")
        self._started_ray = False
        self.about: PhotoRow = {}

    @property
    def words(self) -> str:
        """The actors and what each reserves, in one line."""
        num = self._networks or "as many as fit"
        return f"Ray: {num} actors of {self._threads} processors and {self._gpus:g} GPUs each"

    def __enter__(self) -> RayEngine:
        """Connect to the cluster and load the model there once; raises `ScanError`."""
        ray = _import_ray()
        if not ray.is_initialized():
            ray.init(log_to_driver=False, logging_level=logging.WARNING)
            self._started_ray = True
        try:
            task = ray.remote(**self._resources, max_calls=1)(_describe)
            self.about = ray.get(task.remote(self._detector, self._threads))
        except ray.exceptions.RayError as error:
            self.__exit__()
            raise ScanError(f"Ray: {_find_reason(error)}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._started_ray:
            _import_ray().shutdown()

    def run(
        self, places: Iterable[Place], results: Known, stopping: Callable[[], bool]
    ) -> Iterator[PhotoRow | None]:
        """As `Engine.run`; once `stopping` returns true, the blocks in work are abandoned."""
        left = dict(enumerate(places))
        if not left:
            return
        try:
            for index, row in self._receive_answers(left):
                if stopping():
                    return
                place = left.pop(index, None)
                if place is not None:
                    yield self._check(place, row, results)
        except _import_ray().exceptions.RayError as error:
            raise ScanError(f"Ray: {_find_reason(error)}") from error
        if left:
            raise ScanError(f"no machine returned rows of {len(left)} photos; scan again")

    def _receive_answers(self, places: dict[int, Place]) -> Iterator[tuple[int, PhotoRow]]:
        """Yield the number of a place and its row, in the order in which the rows arrive."""
        ray = _import_ray()
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        num = self._networks or self._count_fitting()
        blocks = max(-(-len(places) // BLOCK), min(len(places), 4 * num))
        sent = [{"place": pickle.dumps(numbered)} for numbered in places.items()]
        answers = ray.data.from_items(sent, override_num_blocks=blocks).map_batches(
            Actor,
            fn_constructor_args=(self._detector, self._threads),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=num),
            **self._resources,
        )
        for batch in answers.iter_batches(batch_size=None, batch_format="pyarrow"):
            for data in batch["row"].to_pylist():
                yield pickle.loads(data)

    def _check(self, place: Place, row: PhotoRow, results: Known) -> PhotoRow | None:
        """The row to store for a photo; None where its content is done."""
        sha256 = row.get("sha256")
        if row.get("error") is None:
            if other := [name for name in _SAME if row[name] != self.about[name]]:
                raise ScanError(
                    f"the machines of the cluster differ: {other[0]} is {self.about[other[0]]}, "
                    f"and {row[other[0]]} on another; give all the same weights"
                )
            if results.is_done_content(place, row["sha256"]):
                return None
            stamp = Stamp(row["bytes"], row["modified"] or "")
            if known := results.find_same(place, stamp, row["sha256"]):
                return known
        elif sha256 and results.is_done_content(place, sha256):
            return None
        return row

    @property
    def _resources(self) -> dict[str, float]:
        return {"num_cpus": self._threads, "num_gpus": self._gpus}

    def _count_fitting(self) -> int:
        there = _import_ray().cluster_resources()
        num = there.get("CPU", 1) // self._threads
        if self._gpus:
            num = min(num, there.get("GPU", 0) // self._gpus)
        return max(1, int(num))


class Actor:
    """One process of the pool, on any machine of the cluster."""

    def __init__(self, detector: DetectorSettings, threads: int) -> None:
        self._engine = LocalEngine(detector, networks=1, threads=threads, decoders=1)
        self._engine.__enter__()

    def __call__(self, batch: Any) -> Any:
        """From a table of pickled places to a table of pickled rows."""
        import pyarrow as pa

        numbered = [pickle.loads(data) for data in batch["place"].to_pylist()]
        numbers = {place.name: number for number, place in numbered}
        known = _Block()
        rows = []
        for row in self._engine.run([place for _, place in numbered], known, lambda: False):
            if row is not None:
                known.add(row)
                rows.append(pickle.dumps((numbers[find_name(row)], row)))
        return pa.table({"row": pa.array(rows, pa.binary())})


class _Block:
    """The rows of one block, so that identical files in it are examined once."""

    def __init__(self) -> None:
        self._rows: dict[str, PhotoRow] = {}

    def add(self, row: PhotoRow) -> None:
        if row.get("error") is None and row.get("same_as") is None:
            self._rows[row["sha256"]] = row

    def is_done_content(self, place: Place, sha256: str) -> bool:
        return False

    def find_same(self, place: Place, stamp: Stamp, sha256: str) -> PhotoRow | None:
        row = self._rows.get(sha256)
        return copy_row({"same_as": None, **row}, place, stamp) if row else None


def _describe(detector: DetectorSettings, threads: int) -> PhotoRow:
    return detector.start(threads).about


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ScanError("--engine ray needs Ray: pip install 'overpaint[ray]'") from error
    return ray


def _find_reason(error: BaseException) -> str:
    """The error on another machine, without the tracebacks of the processes between."""
    cause = getattr(error, "cause", None) or error.__cause__ or error
    lines = [line for line in str(cause).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
