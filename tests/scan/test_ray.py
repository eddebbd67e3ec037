"""The Ray engine on a cluster of three nodes, one of which is killed in the middle."""

import contextlib
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.random_weights import save_small_detector
from helpers.scans import fill, rows
from overpaint.scan import ray_engine
from overpaint.scan.detector import DetectorSettings
from overpaint.scan.local_engine import LocalEngine
from overpaint.scan.scanning import Progress, scan

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")

NOT_COMPARED = ("seconds", "examined")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without processors, and two nodes of one each."""
    # By default 15: beside other work an actor would hardly start.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": 80 * 2**20}
    cluster = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False, **store})
    try:
        cluster.add_node(num_cpus=1, **store)
        cluster.add_node(num_cpus=1, **store)
        ray.init(address=cluster.address, log_to_driver=False)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def descendants(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield int(child)
                yield from descendants(int(child))


def holds_a_network(node: Any) -> bool:
    """Whether a process of the node has loaded torch."""
    raylet = node.all_processes["raylet"][0].process.pid
    for pid in descendants(raylet):
        with contextlib.suppress(OSError):
            if "libtorch" in Path(f"/proc/{pid}/maps").read_text():
                return True
    return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_a_node_that_is_killed_costs_no_photo(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "BLOCK", 2)
    model = save_small_detector(tmp_path / "weights")
    photos = tmp_path / "photos"
    paths = fill(photos, 60)
    shutil.copy(paths[3], photos / "copy.png")
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff" + b"no photo" * 40)
    killed: list[int] = []

    def kill_one(done: Progress) -> None:
        node = next(filter(holds_a_network, cluster.worker_nodes), None)
        if done.done >= 10 and not killed and node is not None:
            killed.append(done.done)
            cluster.remove_node(node, allow_graceful=False)

    detector = DetectorSettings(str(model))
    engine = ray_engine.RayEngine(detector, networks=2)
    done = scan([photos], tmp_path / "ray", engine, report=kill_one)
    assert killed
    assert killed[0] < done.done == done.total == 62
    found = rows(tmp_path / "ray")
    counts = Counter(row["path"] for row in found)
    assert counts == Counter(str(path) for path in photos.iterdir())
    scan([photos], tmp_path / "local", LocalEngine(detector, networks=1, threads=1))
    for ours, local in zip(found, rows(tmp_path / "local"), strict=True):
        if ours["same_as"] or local["same_as"]:  # which of the two was read first
            pair = {str(paths[3]), str(photos / "copy.png")}
            assert {ours["path"], ours["same_as"] or local["same_as"]} == pair
        for name in ours.keys() - {*NOT_COMPARED, "same_as"}:
            assert ours[name] == local[name], (ours["path"], name)
    # Given again, it has nothing to do.
    engine = ray_engine.RayEngine(detector, networks=1)
    assert scan([photos], tmp_path / "ray", engine).done == 0
    assert len(rows(tmp_path / "ray")) == 62
