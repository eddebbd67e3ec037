"""The detector of a scan, in whatever process: its settings, and the rows that it makes.

Every engine starts the same `DetectorSettings` in each process that has a network, so that all give
the same rows. This module does not import torch before that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overpaint.errors import ScanError
from overpaint.scan.rows import PhotoRow, make_row

if TYPE_CHECKING:
    from overpaint.detection.runner import DetectorRunner
    from overpaint.images import Photo


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """Arguments of a `DetectorRunner`, which can be sent to other processes."""

    model: str
    threshold: float | None = None
    runtime: str = "torch"
    device: str = "cpu"
    memory: float | None = None
    """Bytes that one process may take."""

    def start(self, threads: int) -> LoadedDetector:
        """Load the network, in this process; raises `ScanError`."""
        import torch

        from overpaint.detection.result import FAILURES
        from overpaint.detection.runner import DetectorRunner

        torch.set_num_threads(threads)
        try:
            runner = DetectorRunner(
                self.model,
                threshold=self.threshold,
                device=self.device,
                runtime=self.runtime,
                memory=self.memory,
            )
        except FAILURES as error:
            raise ScanError(str(error) or type(error).__name__) from error
        return LoadedDetector(runner)


class LoadedDetector:
    """A detector that is loaded in this process."""

    def __init__(self, runner: DetectorRunner) -> None:
        self._runner = runner
        self.about: PhotoRow = {
            "model": runner.name,
            "weights_sha256": runner.weights_sha256,
            "calibration_sha256": runner.calibration_sha256,
            "runtime": runner.runtime,
        }
        """What all rows have in common."""

    @property
    def runtime(self) -> str:
        """The name for `--runtime` of the runtime that was chosen."""
        from overpaint.detection.runtimes import name_runtime

        return name_runtime(self._runner.module)

    def make_row(self, photo: Photo) -> PhotoRow:
        """The row of a photo, without its place; for a failure only `sha256` and `error`."""
        from overpaint.detection.result import FAILURES

        try:
            return make_row(self._runner.run(photo), photo, self.about)
        except FAILURES as error:
            return {"sha256": photo.sha256, "error": str(error) or type(error).__name__}
