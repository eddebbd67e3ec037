"""The processes of a run: one by default, several when started by torchrun."""

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn


class Processes:
    """Context of a run's processes. Outside torchrun every method is a no-op for one process."""

    def __init__(self, device: str = "cpu") -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        self.device = torch.device(device, local) if device == "cuda" else torch.device(device)
        self.is_main = self.rank == 0

    def __enter__(self) -> "Processes":
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if self.world_size > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
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
