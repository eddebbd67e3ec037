"""Whole runs by the command line: from a folder of photos and a recipe to weights with a record."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from overpaint.cli.train import app
from overpaint.data.sources import PhotoSource, hash_data_list
from overpaint.errors import ConfigError
from overpaint.evaluation.forge import forge
from overpaint.training.autoencoder import AutoencoderRun, AutoencoderTask
from overpaint.training.config import hash_config
from overpaint.weights import WeightsRecord, build, load_weights

Train = Callable[..., Result]

AUTOENCODER: dict[str, Any] = {
    "name": "ae-tiny",
    "model": {"width": 4, "depth": 1, "latent_channels": 4, "num_blocks": 1},
    "loss": {"adversarial_from": 1, "discriminator_width": 2},
    "crop": 24,
    "validation_crop": 24,
    "validation_photos": 1,
    "loop": {
        "steps": 4,
        "batch_size": 4,
        "bf16": False,
        "workers": 0,
        "log_every": 1,
        "optimizer": {"learning_rate": 1e-3},
    },
}
DETECTOR: dict[str, Any] = {
    "name": "nixnet-tiny",
    "detector": "nixnet",
    "model": {"widths": [4, 4, 4]},
    "data": {
        "size": 24,
        "bank": {},
        "untouched": 0,
        "traces": {"denoised": 0.3},
        "degrade": {"scale": [1.0, 1.5]},
    },
    "cache": {"num": 10, "side": 32},
    "validation_samples": 2,
    "loop": {"steps": 2, "batch_size": 2, "bf16": False, "workers": 0},
}
EXPORTED = "runs/nixnet-tiny/nixnet-tiny"
START = f"start_from={EXPORTED}.safetensors"


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Waves with noise: by their names, 22 photos are trained on and 2 validate."""
    folder = tmp_path_factory.mktemp("data") / "waves"
    folder.mkdir()
    rows, columns = np.mgrid[:40, :48]
    for i in range(24):
        waves = [np.sin(rows / (3 + i) + columns / (4 + c) + c) for c in range(3)]
        noise = np.random.default_rng(i).normal(0, 6, (40, 48, 3))
        pixels = (128 + 80 * np.dstack(waves) + noise).round().clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with the two recipes."""
    monkeypatch.chdir(tmp_path)
    for name, recipe in (("autoencoder", AUTOENCODER), ("detector", DETECTOR)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path


@pytest.fixture
def train(here: Path, photos: Path) -> Train:
    def run(kind: str, *arguments: str, photos: Path = photos) -> Result:
        command = [kind, "--config", f"{kind}.yaml", "--photos", str(photos), *arguments]
        return CliRunner().invoke(app, command)

    return run


def trained(result: Result, record: Path) -> tuple[WeightsRecord, torch.nn.Module]:
    assert result.exit_code == 0, result.output
    found, state = load_weights(record, kind=None)
    return found, build(found, state)


def one_line(result: Result, code: int) -> str:
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.stderr
    lines = [x for x in result.stderr.splitlines() if not x.startswith("reconstructions")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("overpaint train: ")
    return lines[0]


class TestAutoencoder:
    def test_end_to_end(self, train: Train, here: Path, photos: Path) -> None:
        result = train("autoencoder", "--set", "loop.steps=3", "--exclude", "0.png")
        out = here / "runs" / "ae-tiny"
        record, model = trained(result, out / "ae-tiny.json")
        assert record.architecture == "conv-autoencoder"
        assert record.config == AUTOENCODER["model"]
        values = {**AUTOENCODER, "loop": {**AUTOENCODER["loop"], "steps": 3}}
        wanted = hash_config(AutoencoderRun.model_validate(values))
        assert (record.recipe, record.overrides) == ("autoencoder.yaml", ("loop.steps=3",))
        assert (record.config_hash, record.step, record.parents) == (wanted, 3, ())
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", str(record.commit))
        source = PhotoSource.from_paths([photos], part="train", exclude=["0.png"])
        assert record.data == f"{len(source)} photos: waves {len(source)}"
        assert record.data_sha256 == hash_data_list(source.names)
        assert set(record.validation) == {"psnr"}
        best = torch.load(out / "best.pt", weights_only=True)["model"]
        for key, value in model.state_dict().items():
            assert torch.equal(value, best[key].half().float()), key
        assert "ae-tiny.safetensors" in result.stdout
        assert {p.name for p in out.iterdir()} >= {"last.pt", "best.pt", "log.jsonl"}

    def test_a_run_is_not_resumed_with_other_photos(self, train: Train, here: Path) -> None:
        assert train("autoencoder").exit_code == 0
        assert train("autoencoder").exit_code == 0
        line = one_line(train("autoencoder", "--exclude", "0.png"), 1)
        assert "last.pt: was trained on other photos" in line

    def test_an_excluded_photo_that_is_none_costs_the_exit_code(
        self, train: Train, here: Path
    ) -> None:
        result = train("autoencoder", "--exclude", "0.png", "--exclude", "waves/0.jpg")
        assert result.exit_code == 1, result.output
        assert "waves/0.jpg: to be excluded, but none of the photos has this name" in result.stderr
        assert "0.png:" not in result.stderr

    def test_photos_that_are_missing_cost_the_exit_code_and_not_the_run(
        self, train: Train, here: Path, photos: Path
    ) -> None:
        listing = photos.parent / "list.txt"
        names = [f"{photos.name}/{path.name}" for path in photos.iterdir()]
        listing.write_text("\n".join([*names, "gone.png"]))
        result = train("autoencoder", photos=listing)
        assert result.exit_code == 1, result.output
        assert result.stderr.count("gone.png: no such file, folder or match") == 1
        assert result.stderr.endswith("1 could not be used; the rest is done\n")
        assert (here / "runs" / "ae-tiny" / "ae-tiny.safetensors").exists()

    def test_folders_of_run_and_export(self, train: Train, here: Path) -> None:
        trained(
            train("autoencoder", "--out", "here/run", "--export", "there"),
            here / "there" / "ae-tiny.json",
        )
        assert (here / "here" / "run" / "last.pt").exists()
        assert not (here / "runs").exists()

    def test_the_same_command_again_exports_again(self, train: Train, here: Path) -> None:
        train("autoencoder")
        weights = here / "runs" / "ae-tiny" / "ae-tiny.safetensors"
        before = weights.read_bytes()
        weights.unlink()
        assert train("autoencoder").exit_code == 0
        assert weights.read_bytes() == before

    def test_two_runs_are_equal_bit_for_bit(self, train: Train, here: Path) -> None:
        for name in ("a", "b"):
            assert train("autoencoder", "--out", name).exit_code == 0
        a, b = ((here / n / "ae-tiny.safetensors").read_bytes() for n in ("a", "b"))
        assert a == b

    def test_a_figure_without_a_value_is_left_out_of_the_record(
        self, train: Train, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        figures = {"figure": 2.0, "psnr": float("inf"), "auc": float("nan"), "miou": 0.123456}
        monkeypatch.setattr(AutoencoderTask, "validate", lambda self, model: figures)
        record, _ = trained(train("autoencoder"), here / "runs" / "ae-tiny" / "ae-tiny.json")
        assert record.validation == {"miou": 0.1235}

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"crop": 25}, "crop: 25 is not a multiple of the stride 2"),
            ({"crop": 16}, "crop: the discriminator needs 24 or more"),
            ({"model": {"widht": 8}}, "unknown key 'model.widht', did you mean 'model.width'?"),
        ],
    )
    def test_what_does_not_fit(self, changes: dict[str, Any], words: str, photos: Path) -> None:
        source = PhotoSource.from_paths([photos])
        with pytest.raises(ConfigError) as error:
            AutoencoderTask(AutoencoderRun.model_validate(AUTOENCODER | changes), source, source)
        assert words in str(error.value)

    def test_the_smallest_crop_for_the_discriminator(self, train: Train) -> None:
        assert train("autoencoder", "--set", "crop=24").exit_code == 0
        result = train("autoencoder", "--set", "crop=16", "--set", "loss.adversarial_weight=0")
        assert "another configuration" in one_line(result, 1)
        result = train(
            "autoencoder", "--set", "crop=16", "--set", "loss.adversarial_weight=0", "--out", "x"
        )
        assert result.exit_code == 0


class TestDetector:
    @pytest.fixture
    def bank(self, train: Train, here: Path) -> str:
        """The bank of one trained autoencoder, as --set takes it."""
        assert train("autoencoder", "--out", "bank").exit_code == 0
        return "data.bank={bank/ae-tiny.json: 1}"

    def test_end_to_end(self, train: Train, here: Path, bank: str) -> None:
        result = train("detector", "--set", bank)
        out = here / "runs" / "nixnet-tiny"
        record, model = trained(result, out / "nixnet-tiny.json")
        assert record.kind == "detector"
        assert record.architecture == "nixnet"
        assert record.config == {"widths": [4, 4, 4]}
        # No sample is untouched, and a record of "not a number" could not be read back.
        assert set(record.validation) == {"miou", "auc"}
        assert model(torch.rand(1, 3, 24, 31)).shape == (1, 1, 24, 31)
        assert json.loads((out / "cache" / "cache.json").read_text())["done"] == 10
        (losses, validation) = map(json.loads, (out / "log.jsonl").read_text().splitlines())
        assert losses["step"] == validation["step"] == 2

    def test_weights_of_an_unfinished_run(self, train: Train, here: Path, bank: str) -> None:
        settings = ["--set", bank, "--set", "loop.checkpoint_every=1"]
        finished, model = trained(train("detector", *settings), here / f"{EXPORTED}.json")
        (here / "runs" / "nixnet-tiny" / "best.pt").unlink()  # as before the first validation
        export = ["--export-only", "--export", "as-it-is"]
        record, same = trained(
            train("detector", *settings, *export), here / "as-it-is" / "nixnet-tiny.json"
        )
        assert record.validation == {}
        assert record.recipe == finished.recipe
        for key, value in model.state_dict().items():
            assert torch.equal(value, same.state_dict()[key])
        text = one_line(train("detector", *settings, *export, "--out", "elsewhere"), 1)
        assert "last.pt: missing" in text

    def test_a_cache_serves_another_run(self, train: Train, here: Path, bank: str) -> None:
        shared = ["--set", bank, "--cache", "cache"]
        assert train("detector", *shared).exit_code == 0
        before = (here / "cache" / "reconstructions.npy").stat().st_mtime_ns
        for i, own in enumerate((["data.traces={}"], ["loop.seed=1", "cache.seed=0"])):
            settings = [x for s in own for x in ("--set", s)]
            result = train("detector", *shared, *settings, "--out", str(i))
            assert result.exit_code == 0, result.output
        assert (here / "cache" / "reconstructions.npy").stat().st_mtime_ns == before

    def test_without_a_cache(self, train: Train, here: Path, bank: str) -> None:
        assert train("detector", "--set", bank, "--set", "cache.num=0").exit_code == 0
        assert not (here / "runs" / "nixnet-tiny" / "cache").exists()

    def test_going_on_from_weights(self, train: Train, here: Path, bank: str) -> None:
        shared = ["--set", bank, "--set", "cache.num=0"]
        first, model = trained(train("detector", *shared), here / f"{EXPORTED}.json")
        # At a rate of next to nothing, the weights stay what they were at the start.
        slow = ["--set", START, "--set", "loop.optimizer.learning_rate=1e-12"]
        result = train("detector", *shared, *slow, "--out", "second")
        record, going_on = trained(result, here / "second" / "nixnet-tiny.json")
        assert record.parents == (first.as_parent(),)
        assert record.ancestors == (first.lineage,)
        assert record.new_parts == ()
        for one, other in zip(model.parameters(), going_on.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
        new = ["--set", START, "--set", "model.context=statistics", "--out", "third"]
        record, _ = trained(train("detector", *shared, *new), here / "third" / "nixnet-tiny.json")
        assert record.new_parts == ("context",)

    def test_weights_to_go_on_from_that_do_not_fit(self, train: Train, bank: str) -> None:
        assert train("detector", "--set", bank).exit_code == 0
        wider = ["--set", "model={widths: [6, 4, 4]}", "--out", "second"]
        result = train("detector", "--set", bank, "--set", START, *wider)
        assert result.exit_code == 2
        assert "does not fit the network" in result.stderr

    def test_the_record_tells_of_forgeries(
        self, train: Train, here: Path, photos: Path, bank: str
    ) -> None:
        forge(here / "set", PhotoSource.from_paths([photos]), "mean", ["boxes"], size=32)
        forged = "forged={folders: {set: 1}, share: 0.5}"
        settings = ["--set", bank, "--set", forged, "--set", "cache.num=0"]
        record, _ = trained(train("detector", *settings), here / f"{EXPORTED}.json")
        assert record.data.endswith("; 0.5 of the samples from forgeries by mean")

    def test_a_photo_that_only_the_forgeries_have_can_be_excluded(
        self, train: Train, here: Path, photos: Path, bank: str
    ) -> None:
        other = here / "photos" / "other.png"
        other.parent.mkdir()
        other.write_bytes((photos / "0.png").read_bytes())
        forge(here / "set", PhotoSource.from_paths([photos, other]), "mean", ["boxes"], size=32)
        settings = ["--set", bank, "--set", "forged={folders: {set: 1}, share: 0.5}"]
        excluded = ["--exclude", "other.png", "--exclude", "unknown.png"]
        result = train("detector", *settings, "--set", "cache.num=0", *excluded)
        assert "unknown.png: to be excluded, but none of the photos" in result.stderr
        assert "other.png: " not in result.stderr

    def test_the_untouched_have_a_figure_of_their_own(self, train: Train, bank: str) -> None:
        settings = ["--set", bank, "--set", "data.untouched=0.5", "--set", "validation_samples=8"]
        result = train("detector", *settings)
        assert "flagged_untouched" in result.stdout

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            (["data.size=40"], "cache.side 32 is too small: data.size and data.degrade need 40"),
            (["data.untouched=1"], "none of the 2 validation samples is inpainted"),
            (["detector=nixxnet"], "did you mean nixnet"),
            (["model={width: 3}"], "unknown key 'model.width', did you mean 'model.widths'?"),
            (["data.bank={nothing: 1}"], "nothing"),
            (["data.masks={brush: 1, brsh: 1}"], "did you mean brush"),
        ],
        ids=lambda value: value[0] if isinstance(value, list) else "",
    )
    def test_what_does_not_fit(
        self, settings: list[str], words: str, train: Train, bank: str
    ) -> None:
        flags = [x for s in [bank, *settings] for x in ("--set", s)]
        assert words in one_line(train("detector", *flags), 2)

    @pytest.mark.parametrize(
        "setting", ["detector=nixxnet", "model={width: 3}", "data.masks={x: 1}"]
    )
    def test_a_wrong_name_is_told_before_the_reconstructions(
        self, setting: str, train: Train, here: Path, bank: str
    ) -> None:
        assert train("detector", "--set", bank, "--set", setting).exit_code == 2
        assert not (here / "runs" / "nixnet-tiny").exists()


class TestErrors:
    def test_a_missing_recipe(self, here: Path, photos: Path) -> None:
        command = ["autoencoder", "--config", "missing.yaml", "--photos", str(photos)]
        text = one_line(CliRunner().invoke(app, command), 2)
        assert "missing.yaml: cannot read the configuration: No such file" in text

    def test_an_unknown_key(self, train: Train) -> None:
        text = one_line(train("autoencoder", "--set", "loop.step=4"), 2)
        assert "did you mean 'loop.steps'?" in text

    def test_no_photos(self, train: Train, here: Path) -> None:
        text = one_line(train("autoencoder", photos=here / "nowhere"), 2)
        assert "nowhere: no such file, folder or match" in text

    def test_a_device_that_is_not_there(self, train: Train) -> None:
        assert "give cpu or cuda" in one_line(train("autoencoder", "--device", "gpu"), 1)

    def test_a_finished_run_without_its_best_state(self, train: Train, here: Path) -> None:
        train("autoencoder")
        (here / "runs" / "ae-tiny" / "best.pt").unlink()
        text = one_line(train("autoencoder"), 1)
        assert "best.pt: missing; delete the folder and train again" in text

    @pytest.mark.slow
    def test_of_the_installed_command(self, here: Path) -> None:
        command = [sys.executable, "-m", "overpaint", "train", "autoencoder"]
        command += ["--config", "missing.yaml", "--photos", "x"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        assert found.returncode == 2
        assert found.stdout == ""
        (line,) = found.stderr.splitlines()
        assert "missing.yaml" in line


def command(photos: Path, out: str, *settings: str) -> list[str]:
    flags = [x for s in settings for x in ("--set", s)]
    named = ["--config", "autoencoder.yaml", "--photos", str(photos), "--out", out]
    return ["autoencoder", *named, *flags]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_saves_and_the_same_command_resumes(
    number: signal.Signals, here: Path, photos: Path
) -> None:
    settings = ["loop.steps=300", "loop.workers=1", "loop.validate_every=1000"]
    arguments = command(photos, "run", *settings)
    script = "from overpaint.cli.train import app; app()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log = here / "run" / "log.jsonl"
    deadline = time.monotonic() + 300
    while process.poll() is None and not (log.exists() and log.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    # As systemd and Slurm do: to each process, its workers included, wherever they are.
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = [int(pid) for pid in children.read_text().split()] if children.exists() else []
    for pid in (*workers, process.pid):
        os.kill(pid, number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    (message,) = [line for line in errors.splitlines() if line.startswith("overpaint train")]
    found = re.search(r"stopped at step (\d+) of 300, everything is saved", message)
    assert found, message
    assert "Traceback" not in errors
    state = torch.load(here / "run" / "last.pt", weights_only=True)
    assert state["step"] == int(found[1])
    assert not (here / "run" / "best.pt").exists()

    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert f"resuming at step {found[1]} of 300" in result.stderr
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == [*range(1, 301), 300]


@pytest.mark.slow
def test_two_processes_equal_one(here: Path, photos: Path) -> None:
    """torchrun on the CPU, a GAN: the same samples, shared, give the same parameters."""
    script = here / "train.py"
    script.write_text("from overpaint.cli.train import app; app()\n")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    # Not the exit code: a process of two may abort at its end, in the library's own clean-up.
    subprocess.run(
        [*launch, str(script), *command(photos, "two")],
        check=False,
        capture_output=True,
        timeout=600,
    )
    assert CliRunner().invoke(app, command(photos, "one")).exit_code == 0
    one, two = (torch.load(here / n / "last.pt", weights_only=True) for n in ("one", "two"))
    assert one["step"] == two["step"] == 4
    before = AutoencoderTask(
        AutoencoderRun.model_validate(AUTOENCODER),
        *[PhotoSource.from_paths([photos])] * 2,
    )
    for name, module in before.modules.items():
        moved = 0.0
        for key, start in module.state_dict().items():
            trained = one["modules"][name][key]
            torch.testing.assert_close(two["modules"][name][key], trained, atol=1e-5, rtol=0)
            moved = max(moved, float((trained - start).abs().max()))
        assert moved > 1e-3, "nothing was trained, so nothing was compared"
    for key, value in one["average"].items():
        torch.testing.assert_close(two["average"][key], value, atol=1e-5, rtol=0)
    logs = [(here / name / "log.jsonl").read_text() for name in ("one", "two")]
    rows = [[json.loads(line) for line in log.splitlines()] for log in logs]
    for a, b in zip(*rows, strict=True):  # one log, and the loss is that of the whole batch
        same = a.keys() - {"time", "step_seconds"}
        assert {key: a[key] for key in same} == pytest.approx({k: b[k] for k in same}, rel=1e-4)
    assert (here / "two" / "ae-tiny.json").exists()
