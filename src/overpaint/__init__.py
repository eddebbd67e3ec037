"""overpaint finds regions filled in by inpainting networks, and fills holes in photos.

    import overpaint

    found = overpaint.detect("photo.jpg")
    print(found.words, found.threshold, found.false_alarm_rate)
    found.heatmap  # float32 (h, w) in [0, 1]

    done = overpaint.inpaint("photo.jpg", "mask.png", out="without.png")
    done.pixels  # uint8 (h, w, 3); the written file is marked as edited

The names below are loaded at first use (PEP 562), so that `import overpaint` does not import torch.
The import limits torch's caches, and sets forked children to one thread (`overpaint.process`).
"""

import importlib
from typing import TYPE_CHECKING, Any

from overpaint._version import __version__
from overpaint.process import bound_caches, use_one_thread_in_forked_children

if TYPE_CHECKING:
    from overpaint.detection.api import detect, load_detector
    from overpaint.detection.result import Detection
    from overpaint.inpainting.api import Inpainted, inpaint
    from overpaint.inpainting.inpainter_runner import load_inpainter

__all__ = [
    "Detection",
    "Inpainted",
    "__version__",
    "detect",
    "inpaint",
    "load_detector",
    "load_inpainter",
]

bound_caches()
use_one_thread_in_forked_children()

_HOMES = {
    "Detection": "detection.result",
    "Inpainted": "inpainting.api",
    "detect": "detection.api",
    "inpaint": "inpainting.api",
    "load_detector": "detection.api",
    "load_inpainter": "inpainting.inpainter_runner",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'overpaint' has no attribute {name!r}")
    return getattr(importlib.import_module(f"overpaint.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
