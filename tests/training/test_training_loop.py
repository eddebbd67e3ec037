"""The loop itself: resuming, samples, several optimisers, averaging."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.tiny_runs import (
    HASH,
    PHOTOS,
    Numbers,
    Tiny,
    assert_same,
    crash,
    gan,
    loop_config,
    make,
    nixnet,
    rows,
    stop_at,
    terminate,
    train,
)
from overpaint.errors import ImageError, TrainingError
from overpaint.training import loop
from overpaint.training.autoencoder import AutoencoderTask
from overpaint.training.checkpoint import load_checkpoint
from overpaint.training.distributed import Processes
from overpaint.training.loop import InterruptedRunError, compute_learning_rate, fit


class TestResume:
    @pytest.mark.slow
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

    def test_other_data_are_refused(self, tmp_path: Path) -> None:
        config = loop_config()
        with pytest.raises(InterruptedRunError):
            fit(stop_at(Tiny(), 3, terminate), config, tmp_path, HASH, data_hash="a")
        with pytest.raises(TrainingError, match=r"last\.pt: was trained on other photos"):
            fit(Tiny(), config, tmp_path, HASH, data_hash="b")
        fit(Tiny(), config, tmp_path, HASH, data_hash="a")
        assert load_checkpoint(tmp_path / "last.pt", HASH, "a")["step"] == 7

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
        task.make_dataset = Broken  # type: ignore[method-assign]
        with pytest.raises(TrainingError, match=r"x.jpg: truncated") as caught:
            train(task, loop_config(workers=workers, checkpoint_every=99), tmp_path)
        assert "\n" not in str(caught.value)
        assert load_checkpoint(tmp_path / "last.pt", HASH)["step"] == 1  # of the batch before
        train(task := Tiny(), loop_config(workers=0), tmp_path)
        assert task.numbers == list(range(4, 7 * 4))


class TestLearningRate:
    @pytest.mark.parametrize(
        ("step", "expected"),
        [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (12, 0.505), (8, 0.01 + 0.99 * 0.853553)],
    )
    def test_warm_up_and_cosine_by_hand(self, step: int, expected: float) -> None:
        optimizer = {"learning_rate": 1.0, "warmup_steps": 4, "schedule": "cosine"}
        config = loop_config(steps=20, optimizer=optimizer)
        assert compute_learning_rate(config, step) == pytest.approx(expected, rel=1e-5)

    def test_cosine_ends_at_one_percent(self) -> None:
        config = loop_config(steps=1000, optimizer={"learning_rate": 3.0, "schedule": "cosine"})
        assert compute_learning_rate(config, 0) == 3.0
        assert compute_learning_rate(config, 1000) == pytest.approx(0.03)

    def test_constant_after_the_warm_up(self) -> None:
        config = loop_config(optimizer={"learning_rate": 0.5, "warmup_steps": 2})
        assert [compute_learning_rate(config, step) for step in range(4)] == [0.25, 0.5, 0.5, 0.5]

    def test_the_optimisers_use_it(self, tmp_path: Path) -> None:
        config = loop_config()
        train(make(gan, config), config, tmp_path)
        used = load_checkpoint(tmp_path / "last.pt", HASH)["optimizers"]
        rates = [state["param_groups"][0]["lr"] for state in used.values()]
        assert rates == [compute_learning_rate(config, 6)] * 2


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
        losses = run.task.compute_losses({"image": torch.rand(2, 3, 24, 24)}, step=5)
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
        names = [
            name for name, _ in task.compute_losses({"image": torch.rand(2, 3, 24, 24)}, step=1)
        ]
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

            def compute_losses(self, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
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

            def compute_losses(self, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
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
        assert average.state["running_mean"].item() == pytest.approx(0.75 * 4 * 9 / 11 + 0.25 * 4)
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
