"""The registry: lookups, suggestions, and its lazy home."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from overpaint.errors import OverpaintError, UnknownNameError
from overpaint.registry import Registry, count_parameters, detectors, inpainters


@pytest.fixture
def things() -> Registry[dict[str, int]]:
    things: Registry[dict[str, int]] = Registry("thing")
    things.register("large", lambda **c: {"size": 9} | c, paper="P", licence="MIT", summary="S")
    things.register("small", lambda **c: {"size": 1} | c, paper="Q", licence="MIT")
    return things


def test_what_was_registered_is_found_and_built(things: Registry[dict[str, int]]) -> None:
    assert things.list_names() == ["large", "small"]
    assert "small" in things
    assert "tiny" not in things
    assert things.create("small", depth=2) == {"size": 1, "depth": 2}
    entry = things.get("large")
    assert (entry.name, entry.paper, entry.licence, entry.summary) == ("large", "P", "MIT", "S")


def test_an_unknown_name_suggests_the_nearest(things: Registry[dict[str, int]]) -> None:
    with pytest.raises(UnknownNameError, match="no thing is called 'smal'; did you mean small"):
        things.get("smal")
    with pytest.raises(UnknownNameError, match="Known: large, small") as caught:
        things.create("zzz")
    assert "did you mean" not in str(caught.value)


def test_an_empty_registry_says_so() -> None:
    with pytest.raises(UnknownNameError, match="Known: none"):
        Registry("thing").get("any")


def test_a_name_is_given_once(things: Registry[dict[str, int]]) -> None:
    with pytest.raises(ValueError, match="'small' is already registered"):
        things.register("small", dict, paper="", licence="")


def test_home_is_imported_at_the_first_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home_of_things.py").write_text("LOADED = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    things: Registry[object] = Registry("thing", home="home_of_things")
    assert "home_of_things" not in sys.modules
    assert things.list_names() == []
    assert sys.modules.pop("home_of_things").LOADED


def test_importing_the_registry_does_not_import_torch() -> None:
    code = "import overpaint.registry, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_detector_states_its_paper_and_licence() -> None:
    assert "nixnet" in detectors.list_names()
    for name in detectors.list_names():
        entry = detectors.get(name)
        assert entry.paper
        assert entry.licence
        assert entry.summary


@pytest.mark.slow
@pytest.mark.parametrize("registry", [detectors, inpainters], ids=lambda r: r.kind)
def test_an_entry_is_trainable_if_its_model_has_parameters(registry: Registry[Any]) -> None:
    for name in registry.list_names():
        entry = registry.get(name)
        try:
            assert (count_parameters(entry) > 0) is entry.trainable, name
        except OverpaintError:  # a method's package is not here
            assert not entry.trainable, name
