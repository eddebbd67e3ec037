"""The largest tile that a memory limit allows, from the network's measured memory.

- The rise of the process's peak memory is measured at the start on a small tile and divided by its
  number of pixels. Feature maps grow in proportion to the pixels, so the quotient holds for a tile
  of any size.
- Tiles are smaller than the detector's default only if the user gives a limit. Some layers depend
  on the whole tile, so another size gives other results, and without a limit the same command has
  to give the same result on every machine.
- The peak is VmHWM of Linux, which a process may reset (`clear_refs`, proc(5)).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import torch

from overpaint.detectors.base import Findings
from overpaint.errors import InputError
from overpaint.process import release_memory

LEAST = 256
"""Side of the smallest tile, pixels: smaller tiles are too small for statistics over a tile."""

PHOTO_BYTES = 32
"""For each pixel of the photo, in addition to the network: pixels, maps and masks at full size."""

SLACK = 1.15
"""Factor on the measured memory, because allocations differ from run to run."""

_SIDE = 512

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Budget:
    """A memory limit, and the memory that a network needs."""

    limit: float
    """Of the process, bytes."""
    base: int
    """Memory of the process with the network loaded and no photo, bytes."""
    bytes_per_pixel: float
    """Memory of the network for each pixel of a tile."""
    stride: int
    """A tile's side is a multiple of it, pixels."""
    photo_bytes: int = PHOTO_BYTES
    """For each pixel of the photo."""

    @classmethod
    def measure(
        cls,
        examine: Callable[[torch.Tensor], Findings],
        limit: float,
        stride: int,
        device: torch.device,
        kept: int = 0,
    ) -> Budget:
        """Measured by running the network; raises `InputError` where memory cannot be measured.

        kept: bytes for each pixel of the photo in addition to `PHOTO_BYTES`.
        """
        if device.type != "cpu":
            raise InputError(f"a memory limit is for the processor, not for the device {device}")
        image = torch.full((1, 3, _SIDE, _SIDE), 0.5, device=device)
        image = image.contiguous(memory_format=torch.channels_last)
        release_memory()
        base = _read_status("VmRSS")
        try:
            _RESET.write_text("5")
        except OSError as error:
            raise _make_error() from error
        with torch.inference_mode():
            for _ in range(2):  # some runtimes keep their maps after a run; these count, too
                examine(image)
        rise = _read_status("VmHWM") - base
        release_memory()
        return cls(limit, base, SLACK * max(rise, 0) / _SIDE**2, stride, PHOTO_BYTES + kept)

    def find_tile(self, height: int, width: int, largest: int) -> int:
        """Side of the tiles of a photo, at most `largest`, pixels; `InputError` where even the
        smallest tile needs too much memory."""
        left = self.limit - self.base - self.photo_bytes * height * width
        side = int((max(left, 0) / max(self.bytes_per_pixel, 1e-9)) ** 0.5)
        if side >= min(largest, max(height, width)):
            return largest
        if side < min(LEAST, largest):
            needed = self.limit - left + self.bytes_per_pixel * min(LEAST, largest) ** 2
            raise InputError(
                f"a memory limit of {self.limit / 1e9:g} GB is too low: a photo of {width} x "
                f"{height} pixels needs {needed / 1e9:.2f} GB"
            )
        return max(self.stride, side // self.stride * self.stride)


def check_memory(memory: object) -> None:
    """Raise `InputError` for what is no memory limit; None is for no limit."""
    if memory is None:
        return
    if not isinstance(memory, Real) or not math.isfinite(memory) or memory <= 0:
        raise InputError(f"memory {memory!r}: give a finite number above 0")


def _read_status(name: str) -> int:
    try:
        lines = _STATUS.read_text().splitlines()
        (line,) = (x for x in lines if x.startswith(f"{name}:"))
    except (OSError, ValueError) as error:
        raise _make_error() from error
    return int(line.split()[1]) * 2**10


def _make_error() -> InputError:
    return InputError("a memory limit needs Linux, where memory can be measured; set none")
