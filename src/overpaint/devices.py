"""Where networks compute: the processor, or a graphics card that is asked for and there.

A graphics card rounds otherwise than the processor, so its heatmaps and fills differ in the last
digits. In `use_exact_float32` its convolutions take whole float32 numbers: by default torch lets
them round to TF32, of 10 bits, which moves logits in the third digit.
"""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from overpaint.errors import InputError

if TYPE_CHECKING:
    import torch

DEVICE_HELP = "cpu or cuda: where the network computes."
RUNTIME_HELP = (
    "What runs the network: torch, onnx or openvino (extras of these names), or auto, the fastest "
    "that is installed and says the same as torch on this machine."
)
MEMORY_HELP = "Gigabytes that a process may take: tiles become smaller where they have to."


def find_device(name: str) -> "torch.device":
    """The device of a name: cpu, cuda or cuda:1. Raises InputError where there is none such."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device {name}: not a device; give cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: not supported; give cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"--device {name}: this torch finds no CUDA device; check driver and build of torch, "
            "or give --device cpu"
        )
    if device.type == "cuda" and (device.index or 0) >= (num := torch.cuda.device_count()):
        raise InputError(f"--device {name}: there are {num} CUDA devices, the first is cuda:0")
    return device


def use_exact_float32() -> AbstractContextManager[None]:
    """Context in which cuDNN neither rounds float32 to TF32 nor sums in a changing order."""
    import torch

    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
