"""Jobs for a worker's process, which imports this file by its name."""

import os
import time
from typing import Any

from overpaint.errors import ImageError


def do(job: Any) -> Any:
    """What the job says: ("crash",), ("sleep", seconds), ("refuse", words), ("fill memory",),
    ("fail", words), or an answer that names the process."""
    match job:
        case ("crash",):
            os._exit(3)
        case ("sleep", seconds):
            time.sleep(seconds)
        case ("refuse", words):
            raise ImageError(words)
        case ("fill memory",):
            raise MemoryError
        case ("fail", words):
            raise KeyError(words)
    return job, os.getpid()
