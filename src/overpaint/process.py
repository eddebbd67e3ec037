"""Settings of a process that runs networks on photos of many sizes, forks, and has children.

- oneDNN and torch's layer above it each cache up to 1024 compiled convolutions, one for every
  shape: the memory of a run over photos of many sizes grew by gigabytes. The limit here is `CACHED`
  of each, enough for one size in a network of this project; compiling one takes about a
  millisecond. Both read their limit at the first convolution, so it is set when `overpaint` is
  imported, unless the user has set it. After torch has run a convolution, it has no effect.
- Memory that glibc's malloc keeps after tensors of many sizes were freed is returned to the system
  after each photo. Within a photo, the commands let malloc keep it: by default each large map gets
  new pages, which the system fills with zeros, a tenth of the time of a detection.
- A forked child has none of its parent's threads, but torch's pool does not know this, and the
  first parallel loop in the child waits for them forever. So a forked child runs on one thread;
  processes started by "spawn" or "forkserver" have all threads.
- A process that is killed cannot end its children. A child that only looks for its parent when its
  work is done would go on for hours, beside the next run; so a thread of it waits for that end.

No code of others was taken.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # of malloc.h

CACHED = 256
GRACE = 60
"""Seconds in which a child may save its state after the end of its parent."""


def bound_caches() -> None:
    """Limit the caches of compiled convolutions, unless the environment does."""
    if "DNNL_PRIMITIVE_CACHE_CAPACITY" not in os.environ:  # the older name of the same limit
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(CACHED))
    os.environ.setdefault("LRU_CACHE_CAPACITY", str(CACHED))


def use_one_thread_in_forked_children() -> None:
    """Let every child that is forked from now on run torch on one thread."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_use_one_thread)


def _use_one_thread() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):  # it may be half imported
        torch.set_num_threads(1)


def end_with_parent() -> None:
    """End this process when the process that started it by `multiprocessing` has ended.

    It gets SIGTERM, for which a training saves its state, and is ended `GRACE` seconds later if it
    is still there.
    """
    import multiprocessing  # here, so that the command line starts quickly

    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=wait, name="waits for the parent's end", daemon=True).start()


def keep_freed_memory() -> None:
    """Let malloc use freed memory again, until `release_memory`, if the C library is glibc.

    It holds for the whole process, so it is for commands and their children, not for the library.
    """
    if change := _find_in_glibc("mallopt"):
        change(_M_MMAP_MAX, 0)
        change(_M_TRIM_THRESHOLD, -1)  # never
        change(_M_ARENA_MAX, 1)  # those of other threads return memory all the same


def release_memory() -> None:
    """Return freed memory to the system, if the C library is glibc."""
    if trim := _find_in_glibc("malloc_trim"):
        trim(0)


def _find_in_glibc(name: str) -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None
    import ctypes  # here, so that the command line starts quickly

    return getattr(ctypes.CDLL(None), name, None)
