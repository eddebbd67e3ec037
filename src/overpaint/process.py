"""What has to be set for a process that runs networks on photos of many sizes, and forks.

- oneDNN keeps a compiled convolution for every shape that it has seen, 1024 of them, and so does
  torch's layer above it: a run over photos of many sizes grew by gigabytes. `CACHED` of each are
  kept, enough for one size in a network of ours; to compile one takes about a millisecond.
  Both read their limit at the first convolution, so it is set when `overpaint` is imported, unless
  the user has set it. Where torch has already run a convolution, it comes too late.
- What glibc's malloc keeps of freed tensors of many sizes is given back after each photo.
- A forked child has none of its parent's threads. torch's pool does not know, and the first
  parallel loop in the child waits for them for ever. So a forked child runs on one thread; to start
  processes by "spawn" or "forkserver" instead leaves all threads.

No code of others was taken.
"""

import os
import sys

CACHED = 256


def bound_caches() -> None:
    """Limit the caches of compiled convolutions, where the environment does not."""
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


def release_memory() -> None:
    """Give freed memory back to the system, where the C library is glibc."""
    if sys.platform != "linux":
        return
    import ctypes  # here, as the command line has to start at once

    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
