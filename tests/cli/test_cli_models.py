"""`overpaint models`: what is here, what could be, and how to get it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from overpaint import weights
from overpaint.cli import build
from overpaint.errors import OverpaintError
from overpaint.registry import Official, Registry, count_parameters, detectors, inpainters
from overpaint.weights import Published, save_weights

REPOSITORY = "someone/inpainting@0123456"
OFFICIAL = Official(REPOSITORY, "CC BY-NC 4.0", dict, files=("a.pth", "b.pth"))


def lacking() -> nn.Module:
    raise OverpaintError('cv2 cannot be imported; pip install "overpaint[classical]"')


def save(folder: Path, name: str, architecture: str, published: Published | None = None) -> None:
    about: dict[str, Any] = {"data": "photos", "recipe": "r", "commit": "c", "licence": "MIT"}
    module = nn.Linear(3, 2)
    kind: Any = "inpainter"
    about |= {"kind": kind, "architecture": architecture, "config": {}, "published": published}
    save_weights(folder, module, name=name, **about)


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One detector without weights; inpainters of every kind; shipped and imported weights."""
    finders: Registry[Any] = Registry("detector")
    finders.register("finder", lambda: nn.Linear(10, 10), paper="F, 2021", licence="Apache-2.0")
    fillers: Registry[Any] = Registry("inpainter")
    for name, factory, official in (
        ("filler", lambda: nn.Linear(3, 2), OFFICIAL),
        ("other", lambda: nn.Linear(1000, 1000), OFFICIAL),
        ("smooth", nn.Identity, None),
        ("lacking", lacking, None),
    ):
        fillers.register(
            name, factory, paper="P, 2020", licence="Apache-2.0", summary="S", official=official
        )
    monkeypatch.setattr(weights.store, "REGISTRIES", {"detector": finders, "inpainter": fillers})
    monkeypatch.setattr(weights.store, "PRETRAINED", tmp_path / "shipped")
    monkeypatch.setenv("OVERPAINT_WEIGHTS", str(tmp_path / "imported"))
    save(tmp_path / "shipped", "filler-s", "filler")
    published = Published(repository=REPOSITORY, files={"a.pth": "0" * 64})
    save(tmp_path / "imported", "filler", "filler", published)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(build(), ["models", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def blocks(text: str) -> dict[str, dict[str, str]]:
    """Title -> key -> value."""
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if line.startswith("  "):
            key, _, value = line.strip().partition(" ")
            found[list(found)[-1]][key] = value.strip()
        else:
            found[line] = {}
    return found


class TestWords:
    def test_weights_come_first_then_every_model(self) -> None:
        assert list(blocks(run())) == [
            *("filler-s", "filler", "finder: detector"),
            *("filler: S", "lacking: S", "other: S", "smooth: S"),
        ]

    def test_weights_say_where_they_come_from_and_lie(self, tmp_path: Path) -> None:
        found = blocks(run())
        assert found["filler-s"]["data"] == "photos"
        assert found["filler-s"]["where"] == str(tmp_path / "shipped" / "filler-s.safetensors")
        assert found["filler"]["published"] == REPOSITORY
        assert found["filler"]["where"] == str(tmp_path / "imported" / "filler.safetensors")

    def test_models_say_paper_size_licences_and_how_to_get_weights(self) -> None:
        found = blocks(run())
        assert found["filler: S"] == {
            "kind": "inpainter",
            "paper": "P, 2020",
            "parameters": "8",
            "licence": "Apache-2.0; published weights: CC BY-NC 4.0",
            "weights": "filler-s, filler",
        }
        assert found["other: S"]["parameters"] == "1,001,000"
        wanted = f"overpaint weights import other a.pth b.pth (of {REPOSITORY})"
        assert found["other: S"]["weights"] == wanted
        assert found["smooth: S"]["parameters"] == "none"
        assert found["smooth: S"]["weights"] == "needs none"
        assert found["finder: detector"]["weights"] == "none here; overpaint train detector"

    def test_a_missing_package_is_said_and_stops_nothing(self) -> None:
        assert "overpaint[classical]" in blocks(run())["lacking: S"]["parameters"]

    def test_a_folder_is_listed_alone(self, tmp_path: Path) -> None:
        assert list(blocks(run(tmp_path / "imported"))) == ["filler"]


class TestJson:
    def test_one_object_a_line_of_either_kind(self, tmp_path: Path) -> None:
        lines = [json.loads(line) for line in run("--json").splitlines()]
        assert [(line["entry"], line["name"]) for line in lines] == [
            ("weights", "filler-s"),
            ("weights", "filler"),
            *(("model", n) for n in ("finder", "filler", "lacking", "other", "smooth")),
        ]
        by_name = {line["name"]: line for line in lines if line["entry"] == "model"}
        assert by_name["filler"]["weights"] == {
            "filler-s": str(tmp_path / "shipped" / "filler-s.safetensors"),
            "filler": str(tmp_path / "imported" / "filler.safetensors"),
        }
        assert by_name["other"]["official"] == {
            "repository": REPOSITORY,
            "licence": "CC BY-NC 4.0",
            "files": ["a.pth", "b.pth"],
        }
        assert by_name["finder"]["official"] is None
        assert (by_name["finder"]["parameters"], by_name["smooth"]["parameters"]) == (110, 0)
        assert by_name["lacking"]["parameters"] is None


class TestCounting:
    def test_no_memory_is_taken_and_no_random_number_is_drawn(self) -> None:
        fillers: Registry[Any] = Registry("inpainter")
        fillers.register("vast", lambda: nn.Linear(10**6, 10**6), paper="", licence="")
        before = torch.get_rng_state()
        assert count_parameters(fillers.get("vast")) == 10**12 + 10**6  # 4 TB
        assert torch.equal(torch.get_rng_state(), before)

    def test_of_a_real_network_it_is_what_the_built_one_has(self) -> None:
        built = detectors.create("nixnet").num_parameters
        assert count_parameters(detectors.get("nixnet")) == built


def test_no_name_stands_for_a_detector_and_an_inpainter() -> None:
    assert not set(detectors.list_names()) & set(inpainters.list_names())
