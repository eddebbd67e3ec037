"""The device of networks: the processor, or a graphics card that the user names.

A graphics card rounds differently from the processor, so its heatmaps and fills differ in the last
digits. In `use_exact_float32` its convolutions use full float32: by default torch lets them round
to TF32, of 10 bits, which changes logits in the third digit.
"""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal

from overpaint.errors import InputError

if TYPE_CHECKING:
    import torch

RuntimeName = Literal["torch", "torch-bf16", "onnx", "openvino", "auto"]
"""See `overpaint.detection.runtimes`."""

DEVICE_HELP = "Device of the network: cpu or cuda."
RUNTIME_HELP = (
    "Program that runs the network: torch, onnx or openvino (extras of these names); auto, the "
    "fastest that is installed and agrees with torch on this machine; or torch-bf16, torch in "
    "bfloat16, which is faster on some processors and gives slightly different figures."
)
MEMORY_HELP = "Memory limit of a process, gigabytes: if needed, tiles are made smaller."


def find_device(name: str) -> "torch.device":
    """The device of a name: cpu, cuda or cuda:1. Raises InputError if it does not exist."""
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
    """Context in which cuDNN neither rounds float32 to TF32 nor changes the order of sums."""
    import torch

    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
