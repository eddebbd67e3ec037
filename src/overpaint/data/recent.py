"""Arrays that were read last, up to a number of bytes.

A number of photos is no limit: a thousand of the web are 0.6 GB, of a camera 36 GB.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import numpy as np

Arrays = TypeVar("Arrays", bound=tuple[np.ndarray, ...])

LIMIT = 2**30
"""Bytes in each process."""


class RecentArrays(Generic[Arrays]):
    """Keeps what was asked for last; `limit` bytes at most, so none that is larger."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._kept: OrderedDict[Hashable, Arrays] = OrderedDict()
        self._num_bytes = 0

    def get(self, key: Hashable, read: Callable[[], Arrays]) -> Arrays:
        """What `read` returned for this key, now or before; raises what it raises."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        found = self._kept[key] = read()
        self._num_bytes += _count_bytes(found)
        while self._num_bytes > self.limit:
            self._num_bytes -= _count_bytes(self._kept.popitem(last=False)[1])
        return found


def _count_bytes(arrays: tuple[np.ndarray, ...]) -> int:
    return sum(array.nbytes for array in arrays)
