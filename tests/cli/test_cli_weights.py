"""`overpaint weights import`: published weights become ours, bit for bit, and are found by name."""

import collections
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner, Result

import overpaint
from overpaint import weights
from overpaint.cli import build, main
from overpaint.detection.runner import DetectorRunner
from overpaint.detectors.nixnet import nixnet
from overpaint.errors import UnknownNameError, WeightsError
from overpaint.inpainters import Inpainter
from overpaint.inpainting.inpainter_runner import InpainterRunner
from overpaint.registry import Entry, Official, detectors, inpainters
from overpaint.weights import find_imported_folder, list_records, read_record
from overpaint.weights.official_weights import import_weights
from overpaint.weights.rename_keys import rename_keys

REPOSITORY = "someone/inpainting@0123456"


class Tiny(Inpainter):
    """One convolution, or two."""

    def __init__(self, num: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(num)))

    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.layers(image).sigmoid()


def one(state: Mapping[str, Any]) -> dict[str, Any]:
    return rename_keys(state, [(r"(?:state_dict\.)?conv\.(\w+)", r"layers.0.\1")])


def one_nested(state: Mapping[str, Any]) -> dict[str, Any]:
    return rename_keys(state.get("model", state), [(r"conv\.(\w+)", r"layers.0.\1")], drop=["step"])


def two(state: Mapping[str, Any]) -> dict[str, Any]:
    rules = [(r"Edge_gen\.g\.(\w+)", r"layers.0.\1"), (r"Fill_gen\.g\.(\w+)", r"layers.1.\1")]
    return rename_keys(state, rules)


def official(remap: Any, files: tuple[str, ...] = ("net.pth",), **config: Any) -> Official:
    return Official(REPOSITORY, "CC BY-NC 4.0", remap, config, files)


@pytest.fixture(autouse=True)
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models to import, nothing shipped, and the folder of imported weights."""
    entries = {
        "tiny": official(one),
        "tiny-nested": official(one_nested),
        "tiny-two": official(two, ("Edge_gen.pth", "Fill_gen.pth"), num=2),
        "tiny-none": None,
    }
    inpainters.list_names(), detectors.list_names()
    for name, found in entries.items():
        entry = Entry(name, Tiny, "A paper", "Apache-2.0", "small", found)
        monkeypatch.setitem(inpainters._entries, name, entry)
    published = official(lambda state: dict(state), widths=(4, 6, 8))
    found = Entry("nix-tiny", nixnet, "A paper", "Apache-2.0", "small", published)
    monkeypatch.setitem(detectors._entries, "nix-tiny", found)
    monkeypatch.setattr(weights.store, "PRETRAINED", tmp_path / "pretrained")
    monkeypatch.setenv("OVERPAINT_WEIGHTS", str(tmp_path / "imported"))
    return tmp_path / "imported"


def layer(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return dict(nn.Conv2d(3, 3, 3).state_dict())


def published_file(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.fixture
def net(tmp_path: Path) -> Path:
    state = {f"conv.{key}": value for key, value in layer(1).items()}
    return published_file(tmp_path / "net.pth", {"state_dict": state, "epoch": 7})


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build(), ["weights", "import", *map(str, arguments)])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


class TestImport:
    def test_the_weights_are_those_of_the_file(self, net: Path, imported: Path) -> None:
        result = run("tiny", net)
        assert result.exit_code == 0, result.output
        assert names(imported) == ["tiny.json", "tiny.safetensors"]
        module = overpaint.load_inpainter("tiny")
        state = module.state_dict()
        assert all(torch.equal(state[f"layers.0.{key}"], v) for key, v in layer(1).items())
        assert not module.training

    def test_the_record_and_the_command_say_where_they_come_from(self, net: Path) -> None:
        output = run("tiny", net).stdout
        record = read_record("tiny")
        assert record.published is not None
        assert record.published.repository == REPOSITORY
        assert record.published.files == {"net.pth": sha256(net)}
        assert (record.licence, record.kind) == ("CC BY-NC 4.0", "inpainter")
        assert (record.architecture, record.parameters) == ("tiny", 84)
        for part in (REPOSITORY, sha256(net), "CC BY-NC 4.0", record.sha256, str(record.path)):
            assert part in output
        assert "left out what is no tensor: epoch" in output

    def test_the_name_is_enough_afterwards(self, net: Path, imported: Path) -> None:
        with pytest.raises(WeightsError, match=r"overpaint weights import tiny net\.pth"):
            InpainterRunner("tiny")
        run("tiny", net)
        runner = InpainterRunner("tiny")
        assert runner.weights_sha256 == sha256(imported / "tiny.safetensors")
        assert [r.name for r in list_records(imported=True)] == ["tiny"]
        assert list_records() == []  # these are the shipped ones
        with pytest.raises(WeightsError, match=r"weights that are here \(tiny\)"):
            InpainterRunner("tony")
        with pytest.raises(WeightsError, match="imported ones: tiny"):
            read_record("tony")

    def test_detectors_as_well(self, tmp_path: Path) -> None:
        model = nixnet(widths=(4, 6, 8))
        path = published_file(tmp_path / "net.pth", model.state_dict())
        assert run("nix-tiny", path).exit_code == 0
        runner = DetectorRunner("nix-tiny")
        state = runner.module.state_dict()
        assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
        assert read_record("nix-tiny", kind="detector").config == {"widths": [4, 6, 8]}

    def test_to_a_folder_of_ones_own(self, net: Path, tmp_path: Path, imported: Path) -> None:
        assert run("tiny", net, "--out", tmp_path / "mine").exit_code == 0
        assert names(tmp_path / "mine") == ["tiny.json", "tiny.safetensors"]
        assert not imported.exists()
        overpaint.load_inpainter(tmp_path / "mine" / "tiny.safetensors")

    def test_again_replaces_what_was_imported(self, net: Path) -> None:
        first = import_weights("tiny", [net]).record
        published_file(net, {f"conv.{key}": value for key, value in layer(2).items()})
        second = import_weights("tiny", [net]).record
        assert first.sha256 != second.sha256
        assert read_record("tiny").sha256 == second.sha256

    def test_rules_that_take_the_content_as_it_is_nested(self, tmp_path: Path) -> None:
        state = collections.OrderedDict((f"conv.{k}", v) for k, v in layer(1).items())
        content = {"model": state, "step": torch.tensor(3)}
        path = published_file(tmp_path / "net.pth", content)
        assert import_weights("tiny-nested", [path]).record.parameters == 84


class TestSeveralFiles:
    @pytest.fixture
    def files(self, tmp_path: Path) -> list[Path]:
        found = ("Edge_gen", layer(1)), ("Fill_gen", layer(2))
        return [published_file(tmp_path / f"{name}.pth", {"g": state}) for name, state in found]

    def weights_of(self, files: list[Path]) -> list[bool]:
        """Whether each of both layers has the weights of its file."""
        record = import_weights("tiny-two", files).record
        state = weights.load_weights(record.path)[1]
        return [torch.equal(state[f"layers.{i}.weight"], layer(i + 1)["weight"]) for i in range(2)]

    def test_published_names_tell_them_apart(self, files: list[Path]) -> None:
        assert self.weights_of(files) == [True, True]
        assert self.weights_of(files[::-1]) == [True, True]
        record = read_record("tiny-two")
        assert record.published is not None
        assert record.published.files == {path.name: sha256(path) for path in files}
        assert record.config == {"num": 2}

    def test_under_other_names_the_order_counts(self, files: list[Path]) -> None:
        renamed_files = [path.rename(path.with_name(f"{i}.bin")) for i, path in enumerate(files)]
        assert self.weights_of(renamed_files) == [True, True]
        assert self.weights_of(renamed_files[::-1]) == [False, False]

    def test_too_few_or_one_twice_is_an_error(self, files: list[Path], tmp_path: Path) -> None:
        message = r"1 files given, but it takes Edge_gen\.pth, Fill_gen\.pth of someone"
        for given in (files[:1], [files[0], files[0]]):
            with pytest.raises(WeightsError, match=message):
                import_weights("tiny-two", given)
        (tmp_path / "copy").mkdir()
        copy = tmp_path / "copy" / files[0].name
        copy.write_bytes(files[0].read_bytes())
        with pytest.raises(WeightsError, match="two files of one name"):
            import_weights("tiny-two", [files[0], copy])


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"other.weight": torch.ones(1)}, r"unknown keys: other\.weight"),
            ({"conv.weight": torch.ones(3, 3, 3, 3)}, r"it lacks layers\.0\.bias"),
            ({"conv.weight": torch.ones(3, 3, 1, 1), "conv.bias": torch.ones(3)}, "other shapes"),
        ],
    )
    def test_what_does_not_fit_names_the_files_that_would(
        self, tmp_path: Path, imported: Path, content: Any, message: str
    ) -> None:
        path = published_file(tmp_path / "wrong.pth", content)
        with pytest.raises(WeightsError, match=message) as error:
            import_weights("tiny", [path])
        assert str(error.value).startswith(f"{path}: ")
        assert f"tiny takes net.pth of {REPOSITORY}" in str(error.value)
        assert not imported.exists()

    def test_of_nested_content_the_dotted_names_are_told(self, tmp_path: Path) -> None:
        content = {"model": {"odd.weight": torch.ones(1)}}
        path = published_file(tmp_path / "wrong.pth", content)
        with pytest.raises(WeightsError, match=r"unknown keys: model\.odd\.weight;"):
            import_weights("tiny-nested", [path])

    def test_a_model_without_published_weights_and_an_unknown_one(self, net: Path) -> None:
        with pytest.raises(WeightsError, match="tiny-none: no weights were published"):
            import_weights("tiny-none", [net])
        with pytest.raises(UnknownNameError, match=r"'tony'; known: .*nixnet.*tiny-two"):
            import_weights("tony", [net])

    def test_shipped_names_win(self, net: Path, tmp_path: Path) -> None:
        import_weights("tiny", [net])
        import_weights("tiny", [net], tmp_path / "pretrained")
        found = read_record("tiny")
        assert found.folder == tmp_path / "pretrained"
        assert [r.folder for r in list_records(imported=True)] == [tmp_path / "pretrained"]
        with pytest.raises(WeightsError, match="shipped and win; give --out"):
            import_weights("tiny", [net])

    def test_weights_that_were_trained_are_not_replaced(self, net: Path, imported: Path) -> None:
        about = {"data": "", "recipe": "", "commit": "", "licence": "", "config": {}}
        weights.save_weights(
            imported, Tiny(), name="tiny", kind="inpainter", architecture="tiny", **about
        )
        before = (imported / "tiny.safetensors").read_bytes()
        with pytest.raises(WeightsError, match=r"tiny\.safetensors: is there, and no import"):
            import_weights("tiny", [net])
        assert (imported / "tiny.safetensors").read_bytes() == before

    def test_a_json_file_of_ones_own_is_not_replaced(self, net: Path, tmp_path: Path) -> None:
        own = tmp_path / "out" / "tiny.json"
        own.parent.mkdir()
        own.write_text('{"my": "notes"}')
        result = run("tiny", net, "--out", own.parent)
        assert isinstance(result.exception, WeightsError)
        assert f"{own}: is there, and no import wrote it; give --out" in str(result.exception)
        assert (own.read_text(), names(own.parent)) == ('{"my": "notes"}', ["tiny.json"])
        own.unlink()
        for _ in range(2):  # an import is replaced by the next, also where only its record is left
            import_weights("tiny", [net], own.parent).record.path.unlink()

    def test_an_input_is_not_written_over(self, net: Path) -> None:
        record = import_weights("tiny", [net]).record
        before = record.path.read_bytes()
        with pytest.raises(WeightsError, match="this is an input"):
            import_weights("tiny", [record.path])
        assert record.path.read_bytes() == before

    def test_a_file_that_holds_code_is_one_line_and_exit_code_1(
        self,
        tmp_path: Path,
        imported: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.system, (f"echo run > {tmp_path / 'trace'}",)

        path = published_file(tmp_path / "evil.pth", {"generator": Evil()})
        monkeypatch.setattr(sys, "argv", ["overpaint", "weights", "import", "tiny", str(path)])
        with pytest.raises(SystemExit) as stopped:
            main()
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert stopped.value.code == 1
        assert line.startswith(f"overpaint: {path}: refused: ")
        assert f"{os.system.__module__}.system" in line
        assert not (tmp_path / "trace").exists()
        assert not imported.exists()

    def test_wrong_use_is_exit_code_2(self, net: Path) -> None:
        assert run().exit_code == 2
        assert run("tiny").exit_code == 2
        assert run("tiny", net, "--trust").exit_code == 2


class TestFolder:
    def test_the_variable_comes_first_then_the_users_data(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert find_imported_folder() == tmp_path / "imported"
        monkeypatch.delenv("OVERPAINT_WEIGHTS")
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        assert find_imported_folder() == tmp_path / "data" / "overpaint" / "weights"
        monkeypatch.delenv("XDG_DATA_HOME")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert find_imported_folder().is_relative_to(tmp_path / "home")

    def test_without_a_home_directory_there_are_no_imported_weights(
        self, imported: Path, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
        for name in ("OVERPAINT_WEIGHTS", "XDG_DATA_HOME", "HOME"):
            monkeypatch.delenv(name, raising=False)
        assert list_records(imported=True) == []  # nothing is shipped here
        assert not weights.has_weights("tiny")
        with pytest.raises(WeightsError, match=r"tiny: cannot read .*shipped names: none$"):
            read_record("tiny")
        with pytest.raises(WeightsError, match=r"no home directory.* set OVERPAINT_WEIGHTS"):
            import_weights("tiny", [net])
        record = import_weights("tiny", [net], tmp_path / "out").record
        assert read_record(record.path) == record

    def test_records_of_older_versions_are_read(self, net: Path, imported: Path) -> None:
        run("tiny", net)
        path = imported / "tiny.json"
        content = json.loads(path.read_text())
        del content["published"]
        path.write_text(json.dumps(content))
        assert read_record("tiny").published is None
