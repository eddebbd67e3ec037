"""overpaint finds the regions of a photo that an inpainting network filled in.

    import overpaint

    found = overpaint.detect("photo.jpg")
    print(found.words, found.threshold, found.false_alarm_rate)
    found.heatmap  # float32 (h, w) in [0, 1]

The names below are loaded at first use (PEP 562), so that `import overpaint` does not import torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from overpaint.inference.detect import Detection, detect, load_detector

__version__ = "0.1.0"

__all__ = ["Detection", "__version__", "detect", "load_detector"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'overpaint' has no attribute {name!r}")
    from overpaint.inference import detect as module

    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
