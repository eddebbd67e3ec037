"""A process of many sizes stays small, and a forked child answers."""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src"

MANY_SIZES = """
import overpaint.process, torch
torch.set_num_threads(1)
conv = torch.nn.Conv2d(16, 16, 3)

def resident():
    overpaint.process.release_memory()
    (line,) = (x for x in open("/proc/self/status") if x.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024

with torch.inference_mode():
    before = {}
    for i in range(700):
        if i in (300, 699):
            before[i] = resident()
        conv(torch.zeros(1, 16, 40 + i % 40, 40 + i // 40))
print(before[699] - before[300])
"""

NEW_PAGES = """
import ctypes, mmap, resource, torch
import overpaint.process

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE
LENGTH = 9 * 2**20  # 36 MiB: by default, malloc may keep maps of up to 32

def count_new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(LENGTH)  # freed at once
    new = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return new * mmap.PAGESIZE / (4 * LENGTH)

before = count_new_pages()
overpaint.process.keep_freed_memory()
count_new_pages()  # malloc keeps seven small parts between the maps; then it has room for all
after = count_new_pages()
overpaint.process.release_memory()
print(before, after, count_new_pages())
"""

FORK = """
import os, sys, torch
import overpaint
torch.set_num_threads(2)
net = torch.nn.Conv2d(3, 64, 5)
image = torch.rand(1, 3, 400, 400)
with torch.inference_mode():
    expected = net(image)  # starts the pool of threads
    child = os.fork()
    if child == 0:
        same = torch.allclose(net(image), expected, atol=1e-4)
        (image.sort(dim=-1).values * 2).sum()
        os._exit(0 if same and torch.get_num_threads() == 1 else 3)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), torch.get_num_threads())
"""

BUSY_CHILD = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from overpaint.benchmark.running import start_process
context = multiprocessing.get_context("spawn")
with ProcessPoolExecutor(1, mp_context=context, initializer=start_process) as pool:
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 600).result()
"""


def run(code: str, **environment: str) -> str:
    """Standard output of a Python process, which has five minutes: a hang has more."""
    kept = {k: v for k, v in os.environ.items() if not k.endswith("CACHE_CAPACITY")}
    kept |= {"PYTHONPATH": str(SOURCES)} | environment
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc: Linux alone has it")
def test_memory_does_not_grow_with_the_number_of_sizes() -> None:
    # 400 sizes after the first 300 take about 25 MiB with torch's own limits, under 1 with ours.
    assert float(run(MANY_SIZES)) < 12


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="its C library is not glibc")
def test_freed_memory_is_used_again_until_it_is_released() -> None:
    before, after, released = map(float, run(NEW_PAGES).split())
    assert before > 9  # ten maps, each on new pages
    assert after < 0.5
    assert released > 0.9  # the pages had been returned


def test_limits_of_the_user_stay() -> None:
    code = "import os, overpaint; print(*(os.environ.get(n) for n in {0}))"
    names = ["ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"]
    code = code.replace("{0}", repr(names))
    assert run(code) == "256 256"
    assert run(code, **dict.fromkeys(names, "7")) == "7 7"
    assert run(code, DNNL_PRIMITIVE_CACHE_CAPACITY="7") == "None 256"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_forked_after_torch_used_its_threads_does_not_hang() -> None:
    assert run(FORK, OMP_NUM_THREADS="2") == "0 2"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc: Linux alone has it")
def test_a_child_at_work_ends_with_its_parent() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", BUSY_CHILD],
        env=os.environ | {"PYTHONPATH": str(SOURCES)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        place = Path("/proc", parent.stdout.readline().strip(), "stat")
        assert is_running(place)
        parent.kill()
        parent.wait(60)
    until = time.monotonic() + 60
    while is_running(place) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(place)


def is_running(place: Path) -> bool:
    try:
        return place.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
