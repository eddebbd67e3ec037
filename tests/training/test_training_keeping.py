"""What a run keeps and says: best and last states, errors, checkpoints, logs, devices."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from torch import Tensor

from helpers.tiny_runs import (
    HASH,
    Tiny,
    assert_same,
    crash,
    gan,
    loop_config,
    make,
    nixnet,
    rows,
    stop_at,
    train,
)
from overpaint.errors import TrainingError
from overpaint.training import checkpoint
from overpaint.training.checkpoint import load_checkpoint, save_checkpoint
from overpaint.training.distributed import Processes
from overpaint.training.loop import fit


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

        def compute_loss(self, x: Tensor, step: int) -> Tensor:
            loss = super().compute_loss(x, step)
            return loss * self.value if step == 5 else loss

    class Steep(Tiny):
        """A finite loss whose gradient is not: the root at 0."""

        def compute_loss(self, x: Tensor, step: int) -> Tensor:
            loss = super().compute_loss(x, step)
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

        def half(state: Any, to: BinaryIO) -> None:
            to.write(b"half")
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

    @pytest.mark.slow
    def test_tensorboard_has_curves_and_heatmaps(self, tmp_path: Path) -> None:
        accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        config = loop_config(checkpoint_every=3)
        with pytest.raises(MemoryError):
            train(stop_at(make(nixnet, config), 4, crash), config, tmp_path)
        # Files of events are read in the order of their names: the second, then a number without
        # leading zeros that counts the files of this process.
        time.sleep(1)
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
