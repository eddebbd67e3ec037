"""The training loop, for detectors, autoencoders and inpainters alike.

- A `Task` says what is trained and what a step's losses are; everything else is here, flat.
- Sample i of a run is a function of (seed, i), so a resumed run needs no data state and any
  number of workers or processes sees the same samples.
- Several optimisers (GANs): `Task.losses` is a generator; each loss that it yields is minimised
  before it goes on, by the optimiser of the module that it names.
- Several processes (torchrun): gradients are averaged by one all-reduce per loss. That is what
  DistributedDataParallel does without its overlap, and it has no trouble with frozen modules.
- SIGTERM and Ctrl-C save a checkpoint first; the same command then resumes.
"""

import math
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from overpaint.errors import TrainingError
from overpaint.training.checkpoint import load_checkpoint, save_checkpoint
from overpaint.training.config import LoopConfig
from overpaint.training.distributed import Processes
from overpaint.training.logging import RunLog

Batch = Mapping[str, Any]


class Task(Protocol):
    """What the loop needs of a run."""

    modules: dict[str, nn.Module]
    """What is trained, by name. "model" is the one that is averaged, validated and exported."""

    def dataset(self) -> Dataset[Batch]:
        """Samples by running number; any non-negative index is valid."""
        ...

    def losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Tensor]]:
        """Yield (module name, loss) pairs; each is minimised before the next is asked for."""
        ...

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures on the validation data; "figure" is the one to maximise."""
        ...

    def pictures(self, model: nn.Module) -> dict[str, Tensor]:
        """Pictures (3, h, w) in [0, 1] for the log."""
        ...


class RunningNumbers(Sampler[int]):
    """The running sample numbers of this process, from a step to the end of the run."""

    def __init__(self, first_step: int, loop: LoopConfig, rank: int, world_size: int) -> None:
        start, stop = first_step * loop.batch_size, loop.steps * loop.batch_size
        self.numbers = range(start + rank, stop, world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)


def learning_rate(loop: LoopConfig, step: int) -> float:
    """Linear warm-up, then constant or a half cosine down to 1 % of the full rate."""
    optimizer = loop.optimizer
    if step < optimizer.warmup_steps:
        return optimizer.learning_rate * (step + 1) / optimizer.warmup_steps
    if optimizer.schedule == "constant":
        return optimizer.learning_rate
    progress = (step - optimizer.warmup_steps) / max(1, loop.steps - optimizer.warmup_steps)
    return optimizer.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)


class Average:
    """Exponential moving average of a module (EMA): parameters averaged, buffers copied."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        # The cap lets the average forget the random start of a short run.
        decay = min(self.decay, (1 + step) / (10 + step))
        trained = {name for name, _ in module.named_parameters()}
        for name, value in module.state_dict().items():
            if name in trained:
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)


class Run:
    """One run's state: what a checkpoint holds and a step changes."""

    def __init__(self, task: Task, loop: LoopConfig, device: torch.device) -> None:
        self.task, self.loop, self.device = task, loop, device
        self.step = 0
        self.best = -math.inf
        self.validations_since_best = 0
        self.modules = task.modules
        for module in self.modules.values():
            module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizers = {
            name: torch.optim.AdamW(
                module.parameters(),
                lr=loop.optimizer.learning_rate,
                betas=loop.optimizer.betas,
                weight_decay=loop.optimizer.weight_decay,
            )
            for name, module in self.modules.items()
        }
        self.average = Average(self.modules["model"], loop.ema_decay)

    def state(self, config_hash: str) -> dict[str, Any]:
        return {
            "config_hash": config_hash,
            "step": self.step,
            "best": self.best,
            "validations_since_best": self.validations_since_best,
            "modules": {k: m.state_dict() for k, m in self.modules.items()},
            "optimizers": {k: o.state_dict() for k, o in self.optimizers.items()},
            "average": self.average.state,
            "torch_rng": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.step, self.best = state["step"], state["best"]
        self.validations_since_best = state["validations_since_best"]
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
            self.optimizers[name].load_state_dict(state["optimizers"][name])
        for name, value in state["average"].items():
            self.average.state[name].copy_(value)
        torch.set_rng_state(state["torch_rng"])

    def train_step(self, batch: Batch, processes: Processes) -> dict[str, float]:
        """One step of every optimiser; -> the losses by module name."""
        rate = learning_rate(self.loop, self.step)
        batch = {k: self._to_device(v) for k, v in batch.items()}
        values: dict[str, float] = {}
        for module in self.modules.values():
            module.train()
        losses = self.task.losses(batch, self.step)
        while True:
            with self.autocast():
                item = next(losses, None)
            if item is None:
                break
            name, loss = item
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingError(
                    f"step {self.step}: the loss of {name!r} is {value}; the last good checkpoint "
                    "is kept. Lower optimizer.learning_rate or set bf16=false, and resume"
                )
            optimizer, parameters = self.optimizers[name], list(self.modules[name].parameters())
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            processes.average_gradients(parameters)
            nn.utils.clip_grad_norm_(parameters, self.loop.optimizer.clip_norm)
            optimizer.step()
            values[name] = value
        self.step += 1
        if self.loop.ema_decay:
            self.average.update(self.modules["model"], self.step)
        return values

    def autocast(self) -> Any:
        if not self.loop.bf16:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def averaged(self) -> "_Swapped":
        """Context in which "model" holds the averaged parameters, in eval mode."""
        state = self.average.state if self.loop.ema_decay else None
        return _Swapped(self.modules["model"], state)

    def _to_device(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = value.to(self.device, non_blocking=True)
        return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value


class _Swapped:
    """Context manager: lend a module another state, and give it its own back."""

    def __init__(self, module: nn.Module, state: dict[str, Tensor] | None) -> None:
        self.module, self.state = module, state

    def __enter__(self) -> nn.Module:
        if self.state is not None:
            self.own = {k: v.detach().clone() for k, v in self.module.state_dict().items()}
            self.module.load_state_dict(self.state)
        return self.module.eval()

    def __exit__(self, *_: object) -> None:
        if self.state is not None:
            self.module.load_state_dict(self.own)


def fit(task: Task, loop: LoopConfig, out: Path, config_hash: str, device: str = "cpu") -> Path:
    """Train until the last step, or until `patience` validations brought nothing better.

    Writes `last.pt` (to resume) and `best.pt` (the averaged model of the best (or last) validation:
    {"model", "step", "figures", "config_hash"}) into `out`; -> the path of `best.pt`.
    Resumes by itself from `out/last.pt`. Raises TrainingError on a non-finite loss, and
    `InterruptedRunError` after SIGTERM or Ctrl-C, with everything saved.
    """
    with Processes(device) as processes, RunLog(out, enabled=processes.is_main) as log:
        run = Run(task, loop, processes.device)
        last, best = out / "last.pt", out / "best.pt"
        torch.manual_seed(loop.seed + 1000 * processes.rank)
        if last.exists():
            run.restore(load_checkpoint(last, config_hash))
            log.say(f"resuming at step {run.step} of {loop.steps}")
        processes.broadcast(run.modules.values())
        with _Stop() as stop, log.progress(run.step, loop.steps) as progress:
            for batch in _batches(task, run, processes):
                started = time.perf_counter()
                losses = run.train_step(batch, processes)
                progress(losses, loop.batch_size)
                if run.step % loop.log_every == 0 or run.step == loop.steps:
                    seconds = time.perf_counter() - started
                    log.scalars(run.step, {**losses, "step_seconds": seconds})
                ended = run.step == loop.steps
                if run.step % loop.validate_every == 0 or ended:
                    ended |= _validate(run, log, best, config_hash, processes)
                stopping = processes.any(stop.requested)
                if run.step % loop.checkpoint_every == 0 or ended or stopping:
                    if processes.is_main:
                        save_checkpoint(last, run.state(config_hash))
                    processes.barrier()
                if ended:
                    break
                if stopping:
                    raise InterruptedRunError(
                        f"stopped at step {run.step}; run the same command to resume"
                    )
    return best


class InterruptedRunError(TrainingError):
    """The run was asked to stop and has saved its state."""


def _batches(task: Task, run: Run, processes: Processes) -> Iterable[Batch]:
    per_process, rest = divmod(run.loop.batch_size, processes.world_size)
    if rest or not per_process:
        raise TrainingError(
            f"batch_size {run.loop.batch_size} cannot be shared by {processes.world_size} "
            "processes; make it a multiple"
        )
    return DataLoader(
        task.dataset(),
        batch_size=per_process,
        sampler=RunningNumbers(run.step, run.loop, processes.rank, processes.world_size),
        num_workers=run.loop.workers,
        # A worker shares its core with the network; a second thread would only fight for it.
        worker_init_fn=_one_thread if run.loop.workers else None,
    )


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def _validate(run: Run, log: RunLog, best: Path, config_hash: str, processes: Processes) -> bool:
    """Validate the average, keep it if it is the best so far; -> whether patience has run out."""
    if processes.is_main:
        with run.averaged() as model:
            figures = run.task.validate(model)
            log.scalars(run.step, {f"validation/{k}": v for k, v in figures.items()}, show=True)
            log.pictures(run.step, run.task.pictures(model))
            better = figures["figure"] > run.best
            run.validations_since_best = 0 if better else run.validations_since_best + 1
            run.best = max(run.best, figures["figure"])
            if better or run.loop.keep == "last":
                state = {k: v.detach().clone() for k, v in model.state_dict().items()}
                save_checkpoint(
                    best,
                    {
                        "config_hash": config_hash,
                        "step": run.step,
                        "figures": figures,
                        "model": state,
                    },
                )
    patience = run.loop.patience
    return processes.any(patience is not None and run.validations_since_best >= patience)


class _Stop:
    """Context in which SIGTERM and SIGINT only set a flag, which the loop reads after a step."""

    def __enter__(self) -> "_Stop":
        self.requested = False
        self.previous = {
            s: signal.signal(s, self._request) for s in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def _request(self, *_: object) -> None:
        self.requested = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
