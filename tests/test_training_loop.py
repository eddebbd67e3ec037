"""The loop itself: resuming, several optimisers, stopping, logging. Photos are made by code."""

import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from overpaint.data.autoencoder import Autoencoder, AutoencoderConfig
from overpaint.data.universal import LivePairs
from overpaint.errors import ImageError, TrainingError
from overpaint.training import checkpoint, loop
from overpaint.training.autoencoder import AutoencoderRun, AutoencoderTask
from overpaint.training.checkpoint import load_checkpoint, save_checkpoint
from overpaint.training.config import LoopConfig
from overpaint.training.detector import DetectorRun, DetectorTask
from overpaint.training.distributed import Processes
from overpaint.training.loop import InterruptedRunError, fit, learning_rate

HASH = "0123456789ab"


class Photos:
    """Stands for a `PhotoSource`."""

    names = ("a", "b", "c")

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> np.ndarray:
        """Waves and noise: uint8 (40, 48, 3)."""
        rows, columns = np.mgrid[:40, :48]
        waves = [np.sin(rows / (3 + index) + columns / (4 + i) + i) for i in range(3)]
        noise = np.random.default_rng(index).normal(0, 6, (40, 48, 3))
        return (128 + 80 * np.dstack(waves) + noise).round().clip(0, 255).astype(np.uint8)


PHOTOS: Any = Photos()


def loop_config(**changes: Any) -> LoopConfig:
    values: dict[str, Any] = {
        "steps": 7,
        "batch_size": 4,
        "bf16": False,
        "workers": 0,
        "log_every": 1,
        "validate_every": 3,
        "checkpoint_every": 2,
        "optimizer": {"learning_rate": 2e-3, "warmup_steps": 2, "schedule": "cosine"},
    }
    return LoopConfig.model_validate(values | changes)


def gan(config: LoopConfig) -> AutoencoderTask:
    """An autoencoder whose GAN term joins at step 2: two optimisers, spectral norm."""
    run = AutoencoderRun.model_validate(
        {
            "name": "tiny",
            "model": {"width": 4, "depth": 1, "latent_channels": 4, "num_blocks": 1},
            "loss": {"adversarial_from": 2, "discriminator_width": 2},
            "loop": config,
            "crop": 24,
            "validation_crop": 24,
            "validation_photos": 2,
        }
    )
    return AutoencoderTask(run, PHOTOS, PHOTOS)


def nixnet(config: LoopConfig) -> DetectorTask:
    """NIX-Net on universal data of an untrained autoencoder: batch norm, masks, pictures."""
    run = DetectorRun.model_validate(
        {
            "name": "tiny",
            "model": {"widths": [4, 4, 4]},
            "loop": config,
            "data": {
                "size": 24,
                "bank": {"g": 1},
                "untouched": 0.25,
                # Files would tie the golden curve to a version of the JPEG library.
                "history": {"probability": 0},
                "degrade": {"probability": 0},
            },
            "validation_samples": 4,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        bank = {"g": Autoencoder(AutoencoderConfig(width=4, depth=1, num_blocks=1)).eval()}
    pairs = LivePairs(PHOTOS, bank, run.data.bank, run.data.history, 40)
    return DetectorTask(run, pairs, pairs, Path())


class Numbers(Dataset[dict[str, Any]]):
    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"number": index, "x": torch.full((3,), float(index))}


class Tiny:
    """A linear layer with dropout; notes what it sees, and follows a script of figures."""

    def __init__(self, figures: list[float] | None = None) -> None:
        self.modules: dict[str, nn.Module] = {
            "model": nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        }
        self.figures = figures or []
        self.numbers: list[int] = []

    def dataset(self) -> Dataset[Any]:
        return Numbers()

    def losses(self, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        self.numbers += batch["number"].tolist()
        yield "model", self.loss(batch["x"] / 100, step)

    def loss(self, x: Tensor, step: int) -> Tensor:
        return (self.modules["model"](x) - 1).square().mean()

    def validate(self, model: nn.Module) -> dict[str, float]:
        torch.rand(3)  # must not reach into the next step
        return {"figure": self.figures.pop(0) if self.figures else 1.0}

    def pictures(self, model: nn.Module) -> dict[str, Tensor]:
        return {}


def train(task: Any, config: LoopConfig, out: Path) -> Path:
    with Processes() as processes:
        return fit(task, config, out, HASH, processes)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def stop_at(task: Any, step: int, action: Callable[[], None]) -> Any:
    """The task, with something that happens in the middle of a step: after its first loss."""
    losses = task.losses

    def stopping(batch: Any, now: int) -> Iterator[tuple[str, Tensor]]:
        for item in losses(batch, now):
            yield item
            if now == step:
                action()

    task.losses = stopping
    return task


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def crash() -> None:
    raise MemoryError


def make(kind: Callable[..., Any], config: LoopConfig, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return kind() if kind is Tiny else kind(config)


def assert_same(one: Any, other: Any, place: str = "") -> None:
    """Equality bit for bit of nested containers of tensors."""
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_same(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, list | tuple):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{place}/{i}")
    elif isinstance(one, Tensor):
        assert torch.equal(one, other), place
    else:
        assert one == other, place


class TestResume:
    @pytest.mark.parametrize("workers", [0, 1])
    @pytest.mark.parametrize("kind", [gan, nixnet, Tiny])
    def test_equals_the_uninterrupted_run_bit_for_bit(
        self, kind: Callable[..., Any], workers: int, tmp_path: Path
    ) -> None:
        config = loop_config(workers=workers)
        train(make(kind, config), config, tmp_path / "whole")
        with pytest.raises(InterruptedRunError, match=r"stopped at step 4 of 7.*same command"):
            train(stop_at(make(kind, config), 3, terminate), config, tmp_path / "parts")
        # Another seed: nothing may be left of the new task's own parameters.
        train(make(kind, config, seed=1), config, tmp_path / "parts")
        for name in ("last.pt", "best.pt"):
            whole, parts = (load_checkpoint(tmp_path / d / name, HASH) for d in ("whole", "parts"))
            assert_same(whole, parts)
        for whole, parts in zip(rows(tmp_path / "whole"), rows(tmp_path / "parts"), strict=True):
            for key in whole.keys() - {"time", "step_seconds"}:
                assert whole[key] == parts[key]

    def test_training_changes_every_parameter(self, tmp_path: Path) -> None:
        # Otherwise the equality above would say nothing.
        config = loop_config()
        before = make(gan, config)
        train(make(gan, config), config, tmp_path)
        state = load_checkpoint(tmp_path / "last.pt", HASH)
        for name, module in before.modules.items():
            for key, value in module.named_parameters():
                assert not torch.equal(value, state["modules"][name][key]), key
        average, trained = state["average"], state["modules"]["model"]
        assert all(not torch.equal(average[key], trained[key]) for key in average)
        assert [len(o["state"]) > 0 for o in state["optimizers"].values()] == [True, True]

    def test_after_a_crash_no_row_is_logged_twice(self, tmp_path: Path) -> None:
        config = loop_config(checkpoint_every=3)
        with pytest.raises(MemoryError):
            train(stop_at(make(Tiny, config), 5, crash), config, tmp_path)
        assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 3, 4, 5]
        with (tmp_path / "log.jsonl").open("a") as file:
            file.write('{"step": 6, "mod')  # cut short
        train(make(Tiny, config), config, tmp_path)
        assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 3, 4, 5, 6, 6, 7, 7]

    def test_a_finished_run_is_left_alone(self, tmp_path: Path) -> None:
        config = loop_config()
        best = train(make(Tiny, config), config, tmp_path)
        before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
        task = make(Tiny, config)
        assert train(task, config, tmp_path) == best
        assert task.numbers == []
        assert before == {path: path.read_bytes() for path in tmp_path.glob("*.*")}

    def test_signal_handlers_are_given_back(self, tmp_path: Path) -> None:
        before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
        with pytest.raises(InterruptedRunError):
            train(stop_at(make(Tiny, loop_config()), 0, terminate), loop_config(), tmp_path)
        assert before == [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]


class TestSamples:
    def test_order_does_not_depend_on_the_number_of_workers(self, tmp_path: Path) -> None:
        seen = []
        for workers in (0, 1, 2):
            task = Tiny()
            train(task, loop_config(workers=workers), tmp_path / str(workers))
            seen.append(task.numbers)
        assert seen[0] == list(range(7 * 4))
        assert seen[1] == seen[0]
        assert seen[2] == seen[0]

    def test_processes_share_a_batch(self) -> None:
        config = loop_config()
        shares = [list(loop.RunningNumbers(2, config, rank, 2)) for rank in (0, 1)]
        assert shares[0][:2] + shares[1][:2] == [8, 10, 9, 11]  # step 2 has the numbers 8 to 11
        assert sorted(shares[0] + shares[1]) == list(range(8, 28))

    def test_a_batch_that_cannot_be_shared_is_an_error(self, tmp_path: Path) -> None:
        processes = Processes()
        processes.world_size = 3
        with pytest.raises(TrainingError, match=r"batch_size 4 .* by 3 .*make it a multiple"):
            fit(Tiny(), loop_config(), tmp_path, HASH, processes)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_broken_photo_is_named_in_one_line(self, workers: int, tmp_path: Path) -> None:
        class Broken(Numbers):
            def __getitem__(self, index: int) -> dict[str, Any]:
                if index == 5:
                    raise ImageError("x.jpg: truncated")
                return super().__getitem__(index)

        task = Tiny()
        task.dataset = Broken  # type: ignore[method-assign]
        with pytest.raises(TrainingError, match=r"x.jpg: truncated") as caught:
            train(task, loop_config(workers=workers), tmp_path)
        assert "\n" not in str(caught.value)


class TestLearningRate:
    @pytest.mark.parametrize(
        ("step", "expected"),
        [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (12, 0.505), (8, 0.01 + 0.99 * 0.853553)],
    )
    def test_warm_up_and_cosine_by_hand(self, step: int, expected: float) -> None:
        optimizer = {"learning_rate": 1.0, "warmup_steps": 4, "schedule": "cosine"}
        config = loop_config(steps=20, optimizer=optimizer)
        assert learning_rate(config, step) == pytest.approx(expected, rel=1e-5)

    def test_cosine_ends_at_one_percent(self) -> None:
        config = loop_config(steps=1000, optimizer={"learning_rate": 3.0, "schedule": "cosine"})
        assert learning_rate(config, 0) == 3.0
        assert learning_rate(config, 1000) == pytest.approx(0.03)

    def test_constant_after_the_warm_up(self) -> None:
        config = loop_config(optimizer={"learning_rate": 0.5, "warmup_steps": 2})
        assert [learning_rate(config, step) for step in range(4)] == [0.25, 0.5, 0.5, 0.5]

    def test_the_optimisers_use_it(self, tmp_path: Path) -> None:
        config = loop_config()
        train(make(gan, config), config, tmp_path)
        used = load_checkpoint(tmp_path / "last.pt", HASH)["optimizers"]
        rates = [state["param_groups"][0]["lr"] for state in used.values()]
        assert rates == [learning_rate(config, 6)] * 2


class TestGolden:
    """Fixed seed, tiny model: a change of the code must not change the curve.

    CPUs round differently in their vector kernels, hence the tolerance.
    """

    def test_autoencoder_with_gan(self, tmp_path: Path) -> None:
        config = loop_config()
        train(make(gan, config), config, tmp_path)
        found = rows(tmp_path)
        generator = [row["model"] for row in found if "model" in row]
        discriminator = [row["discriminator"] for row in found if "discriminator" in row]
        assert generator == pytest.approx(
            [1.128337, 1.130325, 1.778310, 1.776987, 1.752359, 1.751629, 1.769709], rel=1e-4
        )
        assert discriminator == pytest.approx(
            [1.387045, 1.386532, 1.385260, 1.384473, 1.383656], rel=1e-4
        )

    def test_detector(self, tmp_path: Path) -> None:
        config = loop_config()
        task = make(nixnet, config)
        assert {bool(sample["mask"].any()) for sample in task.validation} == {True, False}
        train(task, config, tmp_path)
        found = [row["model"] for row in rows(tmp_path) if "model" in row]
        assert found == pytest.approx(
            [0.189704, 0.205352, 0.119208, 0.140553, 0.110814, 0.120321, 0.208155], rel=1e-4
        )


class TestSeveralOptimisers:
    def test_the_generators_step_leaves_the_discriminator_alone(self) -> None:
        config = loop_config()
        run = loop.Run(make(gan, config), config, torch.device("cpu"))
        discriminator = run.modules["discriminator"]
        before = [p.detach().clone() for p in discriminator.parameters()]
        losses = run.task.losses({"image": torch.rand(2, 3, 24, 24)}, step=5)
        name, loss = next(losses)
        assert name == "model"
        loss.backward()
        assert all(p.grad is not None for p in run.modules["model"].parameters())
        assert all(p.grad is None for p in discriminator.parameters())
        generator = list(run.modules["model"].parameters())
        gradients = [p.grad.clone() for p in generator if p.grad is not None]

        name, loss = next(losses)
        assert name == "discriminator"
        loss.backward()
        assert all(p.grad is not None for p in discriminator.parameters())
        assert_same([p.grad for p in generator], gradients)
        assert_same([p.detach() for p in discriminator.parameters()], before)

    def test_without_an_adversarial_term_there_is_no_discriminator(self) -> None:
        task = make(gan, loop_config())
        names = [name for name, _ in task.losses({"image": torch.rand(2, 3, 24, 24)}, step=1)]
        assert names == ["model"]  # it joins at step 2
        run = task.run.model_copy(
            update={"loss": task.run.loss.model_copy(update={"adversarial_weight": 0.0})}
        )
        assert set(AutoencoderTask(run, PHOTOS, PHOTOS).modules) == {"model"}

    def test_each_loss_is_minimised_before_the_next_is_made(self, tmp_path: Path) -> None:
        class Two(Tiny):
            def __init__(self) -> None:
                super().__init__()
                self.modules = {"model": nn.Linear(1, 1), "other": nn.Linear(1, 1)}
                self.moved: list[bool] = []

            def losses(self, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
                for name, module in self.modules.items():
                    before = [p.detach().clone() for p in module.parameters()]
                    yield name, sum(p.square().sum() for p in module.parameters())  # type: ignore[misc]
                    now = [p.detach() for p in module.parameters()]
                    self.moved += [not torch.equal(a, b) for a, b in zip(before, now, strict=True)]

        task = Two()
        train(task, loop_config(steps=1), tmp_path)
        assert task.moved == [True] * 4

    def test_autocast_holds_in_the_task_and_not_in_backward(self, tmp_path: Path) -> None:
        class Spy(Tiny):
            def __init__(self) -> None:
                super().__init__()
                self.modules["other"] = nn.Linear(3, 1)
                self.inside: list[bool] = []
                self.outside: list[bool] = []

            def losses(self, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
                for name, module in self.modules.items():
                    out = module(batch["x"])
                    self.inside.append(out.dtype == torch.bfloat16)
                    out.register_hook(
                        lambda _: self.outside.append(torch.is_autocast_enabled("cpu"))
                    )
                    yield name, out.float().mean()

        task = Spy()
        train(task, loop_config(steps=2, bf16=True), tmp_path)
        assert task.inside == [True] * 4
        assert task.outside == [False] * 4
        assert all(p.dtype == torch.float32 for p in task.modules["model"].parameters())


class TestAverage:
    def test_by_hand(self) -> None:
        module = nn.BatchNorm1d(1)
        average = loop.Average(module, decay=0.75)
        with torch.no_grad():
            module.weight.fill_(9.0)
            module.running_mean.fill_(4.0)  # type: ignore[union-attr]
            module.num_batches_tracked.fill_(7)  # type: ignore[union-attr]
        average.update(module, step=1)  # decay 2/11: the start is soon forgotten
        assert average.state["weight"].item() == pytest.approx(1 * 2 / 11 + 9 * 9 / 11)
        average.update(module, step=1000)
        expected = 0.75 * (1 * 2 / 11 + 9 * 9 / 11) + 0.25 * 9
        assert average.state["weight"].item() == pytest.approx(expected)
        assert average.state["running_mean"].item() == 4
        assert average.state["num_batches_tracked"].item() == 7

    def test_it_is_validated_and_exported_and_training_goes_on_with_its_own(
        self, tmp_path: Path
    ) -> None:
        seen: list[dict[str, Tensor]] = []

        class Spy(Tiny):
            def validate(self, model: nn.Module) -> dict[str, float]:
                assert not model.training
                seen.append({k: v.clone() for k, v in model.state_dict().items()})
                return {"figure": 1.0}

        torch.manual_seed(0)
        best = train(Spy(), loop_config(keep="last"), tmp_path)
        state = load_checkpoint(tmp_path / "last.pt", HASH)
        assert_same(seen[-1], state["average"])
        assert_same(dict(load_checkpoint(best, HASH)["model"]), state["average"])
        assert not torch.equal(state["average"]["0.weight"], state["modules"]["model"]["0.weight"])

    def test_decay_0_switches_it_off(self, tmp_path: Path) -> None:
        best = train(make(Tiny, loop_config()), loop_config(ema_decay=0), tmp_path)
        state = load_checkpoint(tmp_path / "last.pt", HASH)
        assert_same(load_checkpoint(best, HASH)["model"].keys(), state["modules"]["model"].keys())


class TestKeeping:
    def kept(self, out: Path, **changes: Any) -> dict[str, Any]:
        config = loop_config(steps=4, validate_every=1, **changes)
        train(Tiny([0.2, 0.9, 0.4, 0.5]), config, out)
        return load_checkpoint(out / "best.pt", HASH)

    def test_the_best(self, tmp_path: Path) -> None:
        state = self.kept(tmp_path)
        assert (state["step"], state["figures"]) == (2, {"figure": 0.9})

    def test_the_last(self, tmp_path: Path) -> None:
        state = self.kept(tmp_path, keep="last")
        assert (state["step"], state["figures"]) == (4, {"figure": 0.5})
        assert load_checkpoint(tmp_path / "last.pt", HASH)["best"] == 0.9

    def test_the_last_step_is_always_validated(self, tmp_path: Path) -> None:
        train(Tiny(), loop_config(steps=4, validate_every=100), tmp_path)
        assert load_checkpoint(tmp_path / "best.pt", HASH)["step"] == 4

    def test_patience(self, tmp_path: Path) -> None:
        config = loop_config(steps=90, validate_every=2, patience=2)
        figures = [0.1, 0.5, 0.4, 0.6, 0.6, 0.3, 0.9]
        train(Tiny(list(figures)), config, tmp_path)
        assert load_checkpoint(tmp_path / "last.pt", HASH)["step"] == 12
        assert load_checkpoint(tmp_path / "best.pt", HASH)["step"] == 8
        again = Tiny(list(figures))
        train(again, config, tmp_path)
        assert again.numbers == [], "a run that ran out of patience must not go on"

    def test_a_figure_that_is_not_a_number_stops_the_run(self, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match="step 3: the validation figure is not a number"):
            train(Tiny([math.nan]), loop_config(), tmp_path)
        assert rows(tmp_path)[-1]["validation/figure"] is None


class TestNotFinite:
    class Diverging(Tiny):
        value = math.nan

        def loss(self, x: Tensor, step: int) -> Tensor:
            loss = super().loss(x, step)
            return loss * self.value if step == 5 else loss

    class Steep(Tiny):
        """A finite loss whose gradient is not: the root at 0."""

        def loss(self, x: Tensor, step: int) -> Tensor:
            loss = super().loss(x, step)
            return (loss * 0).sqrt() if step == 5 else loss

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_loss_stops_the_run_and_keeps_the_checkpoint(
        self, value: float, tmp_path: Path
    ) -> None:
        task = self.Diverging()
        task.value = value
        with pytest.raises(TrainingError, match=f"step 5: the loss of 'model' is {value}") as error:
            train(task, loop_config(), tmp_path)
        assert "loop.optimizer.learning_rate" in str(error.value)
        self.check_checkpoint(tmp_path)

    def test_a_gradient_does_too(self, tmp_path: Path) -> None:
        # checkpoint_every 2: without the check, that of step 6 would hold NaN.
        with pytest.raises(TrainingError, match="step 5: the gradient of 'model' is nan"):
            train(self.Steep(), loop_config(bf16=True), tmp_path)
        self.check_checkpoint(tmp_path)

    def test_the_remedy_fits_the_run(self, tmp_path: Path) -> None:
        for bf16 in (False, True):
            with pytest.raises(TrainingError) as error:
                train(self.Diverging(), loop_config(bf16=bf16), tmp_path / str(bf16))
            assert ("loop.bf16=false" in str(error.value)) is bf16

    def check_checkpoint(self, out: Path) -> None:
        state = load_checkpoint(out / "last.pt", HASH)
        assert state["step"] == 4
        assert all(v.isfinite().all() for v in state["modules"]["model"].values())
        assert rows(out)[-1]["step"] == 5


class TestCheckpoint:
    def test_round_trip(self, tmp_path: Path) -> None:
        state = {"config_hash": HASH, "step": 3, "best": -math.inf, "w": {"a": torch.rand(2, 3)}}
        save_checkpoint(tmp_path / "new" / "last.pt", state)
        assert_same(load_checkpoint(tmp_path / "new" / "last.pt", HASH), state)
        assert [p.name for p in (tmp_path / "new").iterdir()] == ["last.pt"]

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("x")])
    def test_a_failed_write_leaves_the_old_file(
        self, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "last.pt"
        save_checkpoint(path, {"config_hash": HASH, "step": 1})

        def half(state: Any, to: Path) -> None:
            Path(to).write_bytes(b"half")
            raise error

        monkeypatch.setattr(checkpoint.torch, "save", half)
        with pytest.raises(TrainingError, match=r"last.pt: cannot be written .*make room"):
            save_checkpoint(path, {"config_hash": HASH, "step": 2})
        assert load_checkpoint(path, HASH)["step"] == 1
        assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]

    def test_of_another_configuration(self, tmp_path: Path) -> None:
        train(Tiny(), loop_config(steps=2), tmp_path)
        with Processes() as processes, pytest.raises(TrainingError) as error:
            fit(Tiny(), loop_config(steps=2), tmp_path, "ffff", processes)
        assert "another configuration (0123456789ab, now ffff); choose another --out" in str(
            error.value
        )

    @pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
    def test_damaged(self, content: bytes | None, tmp_path: Path) -> None:
        path = tmp_path / "last.pt"
        save_checkpoint(path, {"config_hash": HASH, "x": torch.rand(1000)})
        path.write_bytes(path.read_bytes()[:-500] if content is None else content)
        with pytest.raises(TrainingError, match=r"last.pt: damaged checkpoint .*delete it"):
            train(Tiny(), loop_config(), tmp_path)

    def test_a_file_of_something_else_is_damaged_too(self, tmp_path: Path) -> None:
        torch.save(torch.rand(3), tmp_path / "last.pt")
        with pytest.raises(TrainingError, match="damaged checkpoint"):
            load_checkpoint(tmp_path / "last.pt", HASH)

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match=r"best.pt: missing.*train again"):
            load_checkpoint(tmp_path / "best.pt", HASH)


class TestLog:
    def test_rows(self, tmp_path: Path) -> None:
        config = loop_config(log_every=3)
        train(make(gan, config), config, tmp_path)
        found = rows(tmp_path)
        assert [row["step"] for row in found] == [3, 3, 6, 6, 7, 7]  # losses, then validation
        assert {"model", "discriminator", "step_seconds", "time"} <= found[0].keys()
        assert {"validation/figure", "validation/psnr"} <= found[1].keys()
        text = (tmp_path / "log.jsonl").read_text()
        assert "NaN" not in text
        assert "Infinity" not in text

    def test_tensorboard_has_curves_and_heatmaps(self, tmp_path: Path) -> None:
        accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        config = loop_config(checkpoint_every=3)
        with pytest.raises(MemoryError):
            train(stop_at(make(nixnet, config), 4, crash), config, tmp_path)
        train(make(nixnet, config), config, tmp_path)
        events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
        events.Reload()
        assert [e.step for e in events.Scalars("model")] == list(range(1, 8))
        assert [e.step for e in events.Scalars("validation/miou")] == [3, 6, 7]
        (tag,) = events.Tags()["images"]
        pictures = events.Images(tag)
        assert [e.step for e in pictures] == [3, 6, 7]
        # Three samples below each other; photo, mask and heatmap beside each other.
        assert (pictures[0].height, pictures[0].width) == (3 * 24, 3 * 24)

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(TrainingError, match=r"cannot be written .*choose another --out"):
            train(Tiny(), loop_config(), tmp_path / "file" / "run")


class TestDevice:
    def test_unknown(self) -> None:
        with pytest.raises(TrainingError, match="--device gpu: not a device; give cpu or cuda"):
            Processes("gpu")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
    def test_missing(self) -> None:
        with pytest.raises(TrainingError, match=r"finds no CUDA device.*--device cpu"):
            Processes("cuda")

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    @pytest.mark.parametrize("kind", [gan, nixnet])
    def test_cuda(self, kind: Callable[..., Any], tmp_path: Path) -> None:
        config = loop_config(bf16=True)
        with Processes("cuda") as processes:
            fit(make(kind, config), config, tmp_path, HASH, processes)
        assert load_checkpoint(tmp_path / "best.pt", HASH)["step"] > 0
