"""The largest tile that a limit of memory allows, from what the network was measured to take.

- Measured at the start on a small tile: the rise of the process's peak, for each pixel. Maps grow
  with the pixels, so a tile of any size takes as much for each.
- Only a limit that the user gives makes tiles smaller than the detector's own. What a network
  compares over a whole tile depends on its size, and the same command has to say the same on every
  machine.
- The peak is Linux's own figure, which a process may reset (`clear_refs`, proc(5)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from overpaint.detectors.base import Findings
from overpaint.errors import InputError
from overpaint.process import release_memory

LEAST = 256
"""Side of the smallest tile, pixels: over less, statistics say little."""

PHOTO_BYTES = 32
"""For each pixel of the photo, beside the network: its pixels, its maps and masks at full size."""

SLACK = 1.15
"""On what was measured, as malloc's pieces differ."""

_SIDE = 512

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit, and what a network takes."""

    limit: float
    """Bytes that the process may take."""
    base: int
    """Bytes that it takes with the network loaded and no photo."""
    bytes_per_pixel: float
    """Of a tile, in the network."""
    stride: int

    @classmethod
    def measured(
        cls,
        examine: Callable[[torch.Tensor], Findings],
        limit: float,
        stride: int,
        device: torch.device,
    ) -> Budget:
        """With a run of the network; raises `InputError` where memory cannot be measured."""
        if device.type != "cpu":
            raise InputError(f"--memory is for the processor's memory, not for --device {device}")
        image = torch.full((1, 3, _SIDE, _SIDE), 0.5, device=device)
        image = image.contiguous(memory_format=torch.channels_last)
        release_memory()
        base = _read_status("VmRSS")
        try:
            _RESET.write_text("5")
        except OSError as error:
            raise _make_error() from error
        with torch.inference_mode():
            for _ in range(2):  # some runtimes keep their maps, which is then a part of the rise
                examine(image)
        rise = _read_status("VmHWM") - base
        release_memory()
        return cls(limit, base, SLACK * max(rise, 0) / _SIDE**2, stride)

    def tile(self, height: int, width: int, largest: int) -> int:
        """Side of the tiles of a photo, at most `largest`; `InputError` where none is small
        enough."""
        left = self.limit - self.base - PHOTO_BYTES * height * width
        side = int((max(left, 0) / max(self.bytes_per_pixel, 1e-9)) ** 0.5)
        if side >= min(largest, max(height, width)):
            return largest
        if side < min(LEAST, largest):
            needed = self.limit - left + self.bytes_per_pixel * min(LEAST, largest) ** 2
            raise InputError(
                f"--memory {self.limit / 1e9:g}: a photo of {width} x {height} pixels needs "
                f"{needed / 1e9:.2f} GB"
            )
        return max(self.stride, side // self.stride * self.stride)


def _read_status(name: str) -> int:
    try:
        lines = _STATUS.read_text().splitlines()
        (line,) = (x for x in lines if x.startswith(f"{name}:"))
    except (OSError, ValueError) as error:
        raise _make_error() from error
    return int(line.split()[1]) * 2**10


def _make_error() -> InputError:
    return InputError("--memory: memory can be measured on Linux alone; leave it out")
