"""The processes of a run: one by default, several when started by torchrun."""

import os
from collections.abc import Iterable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from overpaint.devices import find_device
from overpaint.errors import InputError, TrainingError

PATIENCE = timedelta(hours=24)
"""How long the others wait while the first process fills a cache or validates. A process that
fails does not make them wait: torchrun then ends them all."""


class Processes:
    """Context of a run's processes. Outside torchrun every method is a no-op for one process.

    Raises TrainingError for a device that torch does not know or does not find.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self.is_main = self.rank == 0
        self.device = _choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))

    def __enter__(self) -> "Processes":
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if self.world_size > 1:
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        if self.world_size > 1:
            dist.destroy_process_group()

    @torch.no_grad()
    def average_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes, in one transfer."""
        if self.world_size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.world_size
        for gradient, part in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))

    @torch.no_grad()
    def broadcast(self, modules: Iterable[nn.Module]) -> None:
        """Give every process the parameters and buffers of the first one."""
        if self.world_size == 1:
            return
        for module in modules:
            for value in module.state_dict().values():
                dist.broadcast(value, src=0)

    def mean(self, value: Tensor) -> float:
        """Mean of a scalar over the processes; not finite where one of them is not."""
        value = value.detach()
        if self.world_size > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.world_size
        return float(value)

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set in at least one process."""
        if self.world_size == 1:
            return flag
        value = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return bool(value.item())

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()


def _choose_device(name: str, local_rank: int) -> torch.device:
    try:
        device = find_device(name)
    except InputError as error:
        raise TrainingError(str(error)) from error
    return torch.device("cuda", local_rank) if name == "cuda" else device
