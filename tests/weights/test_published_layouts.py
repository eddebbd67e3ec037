"""Checkpoints in the layout of the published files, through `overpaint weights import`.

Names and shapes are those of the files, the values random; what a file holds beside its tensors
(counters, the optimiser, other networks) is there as well.
"""

import importlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner, Result

from overpaint.cli import build
from overpaint.detectors.psccnet import PSCCNet
from overpaint.detectors.trufor import TruForConfig, noiseprint
from overpaint.errors import ConfigError, WeightsError
from overpaint.registry import detectors, parts
from overpaint.training.detection.base import DetectorRun, start
from overpaint.training.detection.psccnet import PSCCNetTask
from overpaint.weights import read_record, save_weights
from overpaint.weights.official_weights import import_weights
from overpaint.weights.resolve import find

Shapes = Mapping[str, tuple[int, ...]]

NARROW_TRUFOR: dict[str, Any] = {
    "widths": [16, 32, 64, 80],
    "heads": [1, 2, 4, 5],
    "depths": [2, 2, 2, 1],
    "head_width": 64,
}


@pytest.fixture(autouse=True)
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OVERPAINT_WEIGHTS", str(tmp_path / "imported"))
    torch.manual_seed(0)
    return tmp_path / "imported"


def shapes_of(module: str, *arguments: Any) -> Shapes:
    """The names and shapes that a model's own test holds for its published file."""
    return importlib.import_module(module).official_shapes(*arguments)


def values(shapes: Shapes) -> dict[str, Tensor]:
    """Random values; counters are whole numbers, and variances positive."""
    state: dict[str, Tensor] = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
        else:
            # One random number seen under the whole shape: the large networks stay small files.
            number = torch.rand(()) if key.endswith("running_var") else torch.randn(())
            state[key] = number.expand(shape)
    return state


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build(), ["weights", "import", *map(str, arguments)])


def check(result: Result, folder: Path, name: str, expected: Mapping[str, Tensor]) -> None:
    """The import has written these values under our names."""
    assert result.exit_code == 0, result.output
    found = load_file(folder / f"{name}.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def of_one_file(name: str, module: str, wrapped: Any, imported: Path, tmp_path: Path) -> None:
    from overpaint.registry import inpainters

    registry = detectors if name in detectors else inpainters
    official = registry.get(name).official
    assert official is not None
    state = values(shapes_of(module))
    path = save(tmp_path / (official.files or ("checkpoint.pth",))[0], wrapped(state))
    check(run(name, path), imported, name, official.remap(wrapped(state)))


class TestTruFor:
    config = TruForConfig()

    @pytest.mark.slow
    @pytest.mark.parametrize("prefix", ["", "network.", "module."])
    def test_the_whole_file(self, prefix: str, imported: Path, tmp_path: Path) -> None:
        state = values(shapes_of("detectors.test_trufor", self.config))
        content = {
            "state_dict": {f"{prefix}{key}": value for key, value in state.items()},
            "epoch": 99,
            "best_mIoU": 0.5,
            "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []},
        }
        path = save(tmp_path / "trufor.pth.tar", content)
        official = detectors.get("trufor").official
        assert official is not None
        check(run("trufor", path), imported, "trufor", official.remap(state))

    def noiseprint_file(self, tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
        state = {k: torch.rand_like(v.float()) for k, v in noiseprint().state_dict().items()}
        for key in state:
            if key.endswith("num_batches_tracked"):
                state[key] = torch.tensor(3)
        return save(tmp_path / "noiseprint++.th", {"network": state, "global_step": 39}), state

    def test_noiseprint_alone(self, imported: Path, tmp_path: Path) -> None:
        path, state = self.noiseprint_file(tmp_path)
        result = run("noiseprint", path)
        expected = {f"noiseprint.{key}": value for key, value in state.items()}
        check(result, imported, "noiseprint", expected)
        record = read_record("noiseprint")
        assert record.kind == "part"
        assert "left out what is no tensor: global_step" in result.output

    def test_a_training_starts_with_it(self, imported: Path, tmp_path: Path) -> None:
        path, state = self.noiseprint_file(tmp_path)
        import_weights("noiseprint", [path])
        begun = start(recipe("trufor", parts_from=["noiseprint"], model=NARROW_TRUFOR))
        own = begun.model.state_dict()
        assert all(torch.equal(own[f"noiseprint.{k}"], v) for k, v in state.items())
        assert [record.name for record in begun.parts] == ["noiseprint"]

    def test_at_another_width_it_does_not_fit(self, imported: Path, tmp_path: Path) -> None:
        import_weights("noiseprint", [self.noiseprint_file(tmp_path)[0]])
        narrow = recipe(
            "trufor", parts_from=["noiseprint"], model=NARROW_TRUFOR | {"noise_width": 16}
        )
        with pytest.raises(WeightsError, match="the part noiseprint does not fit trufor"):
            start(narrow)

    def test_it_is_stored_as_exactly_as_it_came(self, imported: Path, tmp_path: Path) -> None:
        path, state = self.noiseprint_file(tmp_path)
        import_weights("noiseprint", [path])
        config = NARROW_TRUFOR
        model = start(recipe("trufor", parts_from=["noiseprint"], model=config)).model
        about: dict[str, Any] = dict.fromkeys(("data", "commit", "licence"), "x")
        save_weights(
            tmp_path / "out", model, name="t", kind="detector", architecture="trufor",
            config=config, recipe=None, **about,
        )  # fmt: skip
        stored = load_file(tmp_path / "out" / "t.safetensors")
        assert all(torch.equal(stored[f"noiseprint.{k}"], v) for k, v in state.items())
        assert stored["head.fuse.weight"].dtype == torch.float16

    def test_a_part_is_no_detector(self, imported: Path, tmp_path: Path) -> None:
        import_weights("noiseprint", [self.noiseprint_file(tmp_path)[0]])
        with pytest.raises(WeightsError, match="'part', not 'detector'"):
            find("noiseprint", "detector")


def recipe(detector: str, **changes: Any) -> DetectorRun:
    from helpers.tiny_runs import loop_config

    content: dict[str, Any] = {
        "name": "tiny",
        "detector": detector,
        "loop": loop_config().model_dump(),
        "data": {"size": 32, "bank": {"ae-nearest": 1.0}, "masks": {"brush": 1.0}},
    }
    return DetectorRun.model_validate(content | changes)


class TestPSCCNet:
    files = ("HRNet", "NLCDetection", "DetectionHead")

    def published(self, tmp_path: Path) -> dict[str, Path]:
        """The three files, each a bare state dict with the prefix module."""
        state = values(shapes_of("detectors.test_psccnet"))
        by_file: dict[str, dict[str, Tensor]] = {name: {} for name in self.files}
        for key, value in state.items():
            name, _, rest = key.partition(".")
            by_file[name][rest] = value
        assert all(key.startswith("module.") for keys in by_file.values() for key in keys)
        return {name: save(tmp_path / f"{name}.pth", keys) for name, keys in by_file.items()}

    def test_three_files_in_one_call_and_in_any_order(self, imported: Path, tmp_path: Path) -> None:
        files = self.published(tmp_path)
        result = run("psccnet", *reversed(files.values()))
        assert result.exit_code == 0, result.output
        record = read_record("psccnet")
        assert record.config == {"faithful": True}
        assert record.published is not None
        assert len(record.published.files) == 3

    def test_two_files_give_a_detector_without_a_score(
        self, imported: Path, tmp_path: Path
    ) -> None:
        from overpaint.weights import build as built

        files = self.published(tmp_path)
        result = run("psccnet", files["NLCDetection"], files["HRNet"])
        assert result.exit_code == 0, result.output
        record = read_record("psccnet")
        assert record.config == {"faithful": True, "image_head": False}
        module = built(record)
        assert isinstance(module, PSCCNet)
        assert module.image_head is None
        shapes = {k: v.shape for k, v in module.state_dict().items()}
        whole = detectors.create("psccnet").state_dict()
        assert shapes == {k: v.shape for k, v in whole.items() if not k.startswith("image_head")}

    def test_without_the_backbone_it_is_told_what_lacks(
        self, imported: Path, tmp_path: Path
    ) -> None:
        files = self.published(tmp_path)
        heads = [files["NLCDetection"], files["DetectionHead"]]
        with pytest.raises(WeightsError, match=r"needs HRNet; it takes HRNet\.pth"):
            import_weights("psccnet", heads)
        import_weights("psccnet-heads", heads)
        begun = start(recipe("psccnet", parts_from=["psccnet-heads"], model={"stem": 16}))
        own = begun.model.state_dict()
        gamma = torch.load(files["NLCDetection"])["module.getmask2.gamma_s"]
        assert torch.equal(own["correlations.1.weight_places"], gamma)

    def test_a_training_needs_the_head(self) -> None:
        narrow = {"stem": 16, "widths": [8, 16, 32, 64], "image_head": False}
        run = recipe("psccnet", model=narrow)
        with pytest.raises(ConfigError, match=r"model\.image_head"):
            PSCCNetTask.load_terms(run)
        found = PSCCNet(start(run).model.config).eval().examine(torch.rand(1, 3, 64, 64))  # type: ignore
        assert found.score is None
        assert found.logits.shape == (1, 1, 64, 64)


def test_iidnet(imported: Path, tmp_path: Path) -> None:
    of_one_file("iidnet", "detectors.test_iidnet", dict, imported, tmp_path)


def test_aotgan(imported: Path, tmp_path: Path) -> None:
    of_one_file("aotgan", "inpainters.test_aotgan", dict, imported, tmp_path)


@pytest.mark.slow
def test_ctsdg(imported: Path, tmp_path: Path) -> None:
    def wrapped(state: dict[str, Tensor]) -> dict[str, Any]:
        return {"n_iter": 700_000, "generator": state, "discriminator": {"a": torch.zeros(2)}}

    of_one_file("ctsdg", "inpainters.test_ctsdg", wrapped, imported, tmp_path)


@pytest.mark.slow
def test_madf(imported: Path, tmp_path: Path) -> None:
    def wrapped(state: dict[str, Tensor]) -> dict[str, Any]:
        return {"model": state, "n_iter": 350_000}

    of_one_file("madf", "inpainters.test_madf", wrapped, imported, tmp_path)


def test_edgeconnect(imported: Path, tmp_path: Path) -> None:
    from overpaint.registry import inpainters

    state = values(shapes_of("inpainters.test_edgeconnect"))
    files: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        name, _, rest = key.partition(".")
        files.setdefault(name, {})[rest.removeprefix("generator.")] = value
    assert files.keys() == {"EdgeModel_gen", "InpaintingModel_gen"}
    paths = [
        save(tmp_path / f"{name}.pth", {"iteration": 2_000_000, "generator": keys})
        for name, keys in files.items()
    ]
    official = inpainters.get("edgeconnect").official
    assert official is not None
    check(run("edgeconnect", *paths), imported, "edgeconnect", official.remap(state))


@pytest.mark.slow
def test_fcf_after_its_conversion(imported: Path, tmp_path: Path) -> None:
    from overpaint.registry import inpainters

    state = values(shapes_of("inpainters.test_fcf", 512, 64, 512))
    path = save(tmp_path / "places_512_G.pth", state)
    official = inpainters.get("fcf").official
    assert official is not None
    check(run("fcf", path), imported, "fcf", official.remap(state))


class _Persistent:
    """Stands for a class that the authors' pickles bring along."""


def test_fcf_pickles_are_refused_with_the_way_to_convert_them(tmp_path: Path) -> None:
    path = tmp_path / "places_512.pkl"
    path.write_bytes(pickle.dumps({"G_ema": _Persistent(), "D": _Persistent()}))
    with pytest.raises(WeightsError, match=r'"Published weights" in docs/guides/researcher\.md'):
        import_weights("fcf", [path])
    guide = Path(__file__).parents[2] / "docs" / "guides" / "researcher.md"
    assert "## Published weights" in guide.read_text()


def test_parts_are_registered_with_what_their_authors_published() -> None:
    assert parts.list_names() == ["noiseprint", "psccnet-heads"]
    for name in parts.list_names():
        assert parts.get(name).official is not None
