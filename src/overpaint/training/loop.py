"""The training loop, for detectors, autoencoders and inpainters alike.

- A `Task` defines the networks and the losses of a step; everything else is in this file.
- Sample i of a run is a function of (seed, i), and so are the random numbers of a step, so a
  resumed run needs no state of either, and any number of workers or processes sees the same
  samples.
- Several optimisers (GANs): `Task.compute_losses` is a generator; each loss that it yields is
  minimised before it continues, by the optimiser of the module that it names.
- Several processes (torchrun): gradients are averaged by one all-reduce per loss. This is
  DistributedDataParallel without its overlap, and it also works with frozen modules.
- SIGTERM and Ctrl-C save a checkpoint first; the same command then resumes.
"""

import math
import signal
import sys
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from overpaint.errors import OverpaintError, TrainingError
from overpaint.training.checkpoint import load_checkpoint, save_checkpoint
from overpaint.training.config import LoopConfig
from overpaint.training.distributed import Processes
from overpaint.training.logging import RunLog

Batch = Mapping[str, Any]


class Task(Protocol):
    """What the loop needs of a run."""

    modules: dict[str, nn.Module]
    """What is trained, by name. "model" is the one that is averaged, validated and exported."""
    rates: Mapping[str, float]
    """Factor of the learning rate by a module's name; 1 for those not named."""
    loss_terms: Mapping[str, Tensor]
    """The weighted terms of the last step's losses by name, for the log; may be empty."""

    def make_dataset(self) -> Dataset[Batch]:
        """Samples by running number; any non-negative index is valid."""
        ...

    def compute_losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Tensor]]:
        """Yield (module name, loss) pairs; each is minimised before the next is asked for."""
        ...

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures on the validation data; "figure" is the one to maximise."""
        ...

    def draw_pictures(self, model: nn.Module) -> dict[str, Tensor]:
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


def compute_learning_rate(loop: LoopConfig, step: int) -> float:
    """Linear warm-up, then constant or a half cosine down to 1 % of the full rate."""
    optimizer = loop.optimizer
    if step < optimizer.warmup_steps:
        return optimizer.learning_rate * (step + 1) / optimizer.warmup_steps
    if optimizer.schedule == "constant":
        return optimizer.learning_rate
    progress = (step - optimizer.warmup_steps) / max(1, loop.steps - optimizer.warmup_steps)
    return optimizer.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)


def make_optimizer(module: nn.Module, loop: LoopConfig) -> torch.optim.Optimizer:
    """AdamW or Adadelta for all parameters of a module."""
    config, parameters = loop.optimizer, module.parameters()
    if config.algorithm == "adadelta":
        return torch.optim.Adadelta(
            parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )


class Average:
    """Exponential moving average of a module (EMA), its statistics of batch norm included.

    Those follow a handful of batches, so a copy of the last ones would not fit averaged weights.
    Whole numbers (counts) are copied.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        # The cap lets the average forget the random start of a short run.
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
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
        self.optimizers = {k: make_optimizer(m, loop) for k, m in self.modules.items()}
        self.average = Average(self.modules["model"], loop.ema_decay)

    @property
    def ended(self) -> bool:
        """Whether the last step is done or patience has run out."""
        patience = self.loop.patience
        out_of_patience = patience is not None and self.validations_since_best >= patience
        return self.step >= self.loop.steps or out_of_patience

    def make_state(self, config_hash: str, data_hash: str = "") -> dict[str, Any]:
        return {
            "config_hash": config_hash,
            "data_hash": data_hash,
            "step": self.step,
            "best": self.best,
            "validations_since_best": self.validations_since_best,
            "modules": {k: m.state_dict() for k, m in self.modules.items()},
            "optimizers": {k: o.state_dict() for k, o in self.optimizers.items()},
            "average": self.average.state,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.step, self.best = state["step"], state["best"]
        self.validations_since_best = state["validations_since_best"]
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
            self.optimizers[name].load_state_dict(state["optimizers"][name])
        for name, value in state["average"].items():
            self.average.state[name].copy_(value)

    def train_step(self, batch: Batch, processes: Processes) -> dict[str, float]:
        """One step of every optimiser; -> the losses by module name, means over the processes.

        Raises TrainingError when a loss or a gradient is not finite.
        """
        rate = compute_learning_rate(self.loop, self.step)
        for name, module in self.modules.items():
            module.train()
            self.optimizers[name].param_groups[0]["lr"] = rate * self.task.rates.get(name, 1.0)
        torch.manual_seed(_make_step_seed(self.loop.seed, self.step, processes.rank))
        losses = self.task.compute_losses(
            {k: self._to_device(v) for k, v in batch.items()}, self.step
        )
        values: dict[str, float] = {}
        while True:
            with self.autocast():  # for the task's code alone: backward and optimiser run outside
                item = next(losses, None)
            if item is None:
                break
            values[item[0]] = self._minimise(*item, processes)
        self.step += 1
        if self.loop.ema_decay:
            self.average.update(self.modules["model"], self.step)
        return values

    def _minimise(self, name: str, loss: Tensor, processes: Processes) -> float:
        value = processes.mean(loss)
        self._check(value, f"the loss of {name!r}")
        parameters = list(self.modules[name].parameters())
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        processes.average_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, self.loop.optimizer.clip_norm)
        self._check(float(norm), f"the gradient of {name!r}")
        self.optimizers[name].step()
        return value

    def _check(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"step {self.step}: {what} is {value}; the last checkpoint is left as it was. "
                "Start again in another --out with a lower loop.optimizer.learning_rate"
                + (" or with loop.bf16=false" if self.loop.bf16 else "")
            )

    def autocast(self) -> AbstractContextManager[Any]:
        if not self.loop.bf16:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def use_average(self) -> "_Swapped":
        """Context in which "model" holds the averaged parameters, in eval mode."""
        state = self.average.state if self.loop.ema_decay else None
        return _Swapped(self.modules["model"], state)

    def _to_device(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = value.to(self.device)
        return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value


class _Swapped:
    """Context manager in which a module has another state; afterwards it has its own again."""

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


def fit(
    task: Task,
    loop: LoopConfig,
    out: Path,
    config_hash: str,
    processes: Processes | None = None,
    data_hash: str = "",
) -> Path:
    """Train until the last step, or until `patience` validations brought nothing better.

    Writes `last.pt` (to resume) and `best.pt` (the averaged model of the best (or last) validation:
    {"model", "step", "figures", "config_hash"}) into `out`; -> the path of `best.pt`. Resumes by
    itself from `out/last.pt`. Raises TrainingError on a loss, gradient or figure that is not
    finite; with everything saved, `DataError` for a sample that cannot be made and
    `InterruptedRunError` after SIGTERM or Ctrl-C.

    processes: those of torchrun, or one on the CPU, when None; all must see the same `out`.
    data_hash: of what the samples are made from; a run with another one is not resumed. "" for
    data that are not compared.
    """
    if processes is None:
        with Processes() as processes:
            return fit(task, loop, out, config_hash, processes, data_hash)
    if loop.batch_size % processes.world_size:
        raise TrainingError(
            f"loop.batch_size {loop.batch_size} cannot be shared by {processes.world_size} "
            "processes; make it a multiple"
        )
    last, best = out / "last.pt", out / "best.pt"
    run = Run(task, loop, processes.device)
    if last.exists():
        run.restore(load_checkpoint(last, config_hash, data_hash))
    processes.broadcast(run.modules.values())
    if run.ended:
        return best
    with RunLog(out, run.step, enabled=processes.is_main) as log, _Stop() as stop:
        if run.step:
            log.say(f"resuming at step {run.step} of {loop.steps}")
        # Closed here, or a traceback would keep the data processes alive.
        with (
            log.show_progress(loop.steps) as progress,
            closing(_load_batches(run, processes)) as batches,
            _saving_on_data_error(run, processes, last, config_hash, data_hash),
        ):
            for batch in batches:
                started = time.perf_counter()
                losses = run.train_step(batch, processes)
                progress(losses, loop.batch_size)
                if run.step % loop.log_every == 0 or run.step == loop.steps:
                    seconds = time.perf_counter() - started
                    terms = {f"term/{k}": float(v) for k, v in task.loss_terms.items()}
                    log.add_scalars(run.step, {**losses, **terms, "step_seconds": seconds})
                if processes.is_main and (run.step % loop.validate_every == 0 or run.ended):
                    _validate(run, log, best, config_hash)
                ended, stopping = processes.any(run.ended), processes.any(stop.requested)
                if run.step % loop.checkpoint_every == 0 or ended or stopping:
                    if processes.is_main:
                        save_checkpoint(last, run.make_state(config_hash, data_hash))
                    processes.barrier()
                if ended:
                    break
                if stopping:
                    raise InterruptedRunError(
                        f"stopped at step {run.step} of {loop.steps}, everything is saved; "
                        "run the same command to resume"
                    )
    return best


@contextmanager
def _saving_on_data_error(
    run: Run, processes: Processes, last: Path, config_hash: str, data_hash: str
) -> Iterator[None]:
    """Context that keeps the steps since the last checkpoint: the sample is needed again."""
    try:
        yield
    except DataError:
        if processes.is_main:
            save_checkpoint(last, run.make_state(config_hash, data_hash))
        raise


class DataError(TrainingError):
    """A sample cannot be made."""


class InterruptedRunError(TrainingError):
    """The run was asked to stop and has saved its state."""


def _make_step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of torch's generators (dropout and the like) for one step of one process."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])


def _load_batches(run: Run, processes: Processes) -> Generator[Batch, None, None]:
    """The batches of this process from the run's step on."""
    forked = run.loop.workers > 0 and sys.platform == "linux"
    loader = DataLoader(
        run.task.make_dataset(),
        batch_size=run.loop.batch_size // processes.world_size,
        sampler=RunningNumbers(run.step, run.loop, processes.rank, processes.world_size),
        num_workers=run.loop.workers,
        # Networks and memory maps are shared by a fork, and copied where a data set is pickled.
        multiprocessing_context="fork" if forked else None,
        worker_init_fn=_ignore_signals,
    )
    try:
        yield from loader
    except OverpaintError as error:
        *_, last = str(error).strip().splitlines()  # a worker's error comes with its traceback
        # Its frames here would hold the workers until the program ends.
        cause = error.with_traceback(None)
        raise DataError(
            f"step {run.step}: the data cannot be made: {last}. The state is saved: repair the "
            "file under its name, and run the same command to resume"
        ) from cause


def _ignore_signals(_: int) -> None:
    """Ctrl-C is sent to the whole group, and SIGTERM of systemd and Slurm to every process. If it
    ended a worker, the run would fail before its checkpoint. A worker ends with its parent."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _validate(run: Run, log: RunLog, best: Path, config_hash: str) -> None:
    """Validate the average; keep it if it is the best so far, or if the last is to be kept."""
    with run.use_average() as model:
        figures = run.task.validate(model)
        log.add_scalars(run.step, {f"validation/{k}": v for k, v in figures.items()}, show=True)
        log.add_pictures(run.step, run.task.draw_pictures(model))
        if math.isnan(figures["figure"]):
            raise TrainingError(f"step {run.step}: the validation figure is not a number")
        better = figures["figure"] > run.best
        run.validations_since_best = 0 if better else run.validations_since_best + 1
        run.best = max(run.best, figures["figure"])
        if better or run.loop.keep == "last":
            about = {"config_hash": config_hash, "step": run.step, "figures": figures}
            save_checkpoint(best, {**about, "model": model.state_dict()})


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
