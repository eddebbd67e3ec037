"""The front door: README, documentation, tutorial, and the files about the project."""

import ast
import importlib
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import overpaint
from overpaint.cli import build

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
GENERATED = {"reference/api.md", "reference/command-line.md"}
GENERATED_FILES = {ROOT / "docs" / name for name in GENERATED}
GUIDES = ["start", "guides/analyst", "guides/platform", "guides/researcher"]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """docs/hooks.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(page: Path) -> set[str]:
    """Of the headings, as both GitHub and MkDocs make them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t.lower()).strip().replace(" ", "-") for t in titles}


def test_the_readme_is_short_and_its_picture_small() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert text.count("<!-- table:") == 1
    (picture,) = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert (ROOT / picture).stat().st_size <= 150_000


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if path in GENERATED_FILES:
            continue
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def test_the_page_on_data_is_that_of_the_manifest(hooks: ModuleType) -> None:
    text = hooks.DATA_PAGE.read_text(encoding="utf-8")
    assert hooks.fill_data_page(text) == text, "run python docs/hooks.py"
    assert hooks.fill_data_page("<!-- datasets -->\n<!-- /datasets -->") in text


def test_every_weights_file_has_a_card(hooks: ModuleType) -> None:
    cards = {n: t for n, t in hooks.build_pages().items() if n.startswith("models/")}
    weights = [*ROOT.glob("src/overpaint/pretrained/*.safetensors")]
    weights += ROOT.glob("benchmarks/weights/*.safetensors")
    assert {f"models/{path.stem}.md" for path in weights} == set(cards)
    for record in hooks.list_all_records():
        text = cards[f"models/{record.name}.md"]
        assert all(str(x) in text for x in (record.sha256, record.commit, record.licence))
    assert "| lossless |" in cards["models/nixnet-s.md"]


def test_reference_pages_hold_what_is_public(hooks: ModuleType) -> None:
    pages = hooks.build_pages()
    assert set(pages) >= GENERATED
    for name in overpaint.__all__:
        assert name.startswith("_") or f".{name}\n" in pages["reference/api.md"]
    commands = pages["reference/command-line.md"]
    for name in ("detect", "inpaint", "data check", "train detector", "weights import"):
        assert f"## overpaint {name}\n" in commands
    assert "`--out <path>`" in commands


def test_a_page_that_loads_from_elsewhere_is_known(hooks: ModuleType) -> None:
    for text in (
        '<script async src="https://example.org/a.js">',
        "<img alt=x src=//example.org/a.png>",
        '<link rel="stylesheet" href="https://example.org/a.css">',
        '<link href="https://fonts.example.org" rel="preconnect">',
    ):
        assert hooks.LOADED.search(text), text
    for text in ('<a href="https://example.org">', '<script src="../assets/a.js">', "<img src=a>"):
        assert not hooks.LOADED.search(text), text


def commands_of(block: str) -> Iterator[list[str]]:
    for line in block.splitlines():
        words = line.partition("#")[0].split()
        assert words[:2] == ["$", "overpaint"], line
        yield words[2:]


@pytest.mark.slow
def test_the_tutorial_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"))
    languages = [language for language, _ in blocks]
    assert set(languages) == {"python", "console"}
    assert languages.count("python") > 6
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for language, text in blocks:
        if language == "python":
            exec(compile(text, "docs/tutorial.md", "exec"), names)
            continue
        for arguments in commands_of(text):
            result = CliRunner().invoke(build(), arguments)
            assert result.exit_code == 0, result.output
    assert Path("found/photo.overlay.png").exists()


@pytest.mark.parametrize(
    "name", ["start", "guides/analyst", "guides/platform", "guides/researcher", "scale"]
)
def test_commands_in_the_guides_exist(name: str) -> None:
    import typer

    root = typer.main.get_command(build())
    found = 0
    for language, text in BLOCK.findall((ROOT / "docs" / f"{name}.md").read_text()):
        lines = re.sub(r"\\\n\s*", "", text).splitlines()
        for line in lines if language == "console" else []:
            _, said, after = line.partition("overpaint ")
            if not said or "pip install" in line or line.startswith("overpaint "):  # printed
                continue
            words, command = after.partition("#")[0].split(), root
            while hasattr(command, "commands"):
                is_default = words[0] not in command.commands and hasattr(command, "default")
                word = command.default if is_default else words.pop(0)
                command = command.commands[word]  # a KeyError names what is missing
            options = {o for p in command.params for o in p.opts}
            used = {w for w in words if w.startswith("-")}
            assert used <= options, line
            found += 1
    assert found


def test_imports_in_examples_exist() -> None:
    found = 0
    for page in PAGES:
        for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            tree = ast.parse(text) if language == "python" else ast.Module([], [])
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("overpaint"):
                    module = importlib.import_module(str(node.module))
                    for alias in node.names:
                        assert hasattr(module, alias.name), f"{page}: {alias.name}"
                        found += 1
    assert found > 5


def test_the_job_for_a_cluster_is_a_scan_with_the_versions_of_this_checkout() -> None:
    import typer

    from overpaint.cli import build

    folder = ROOT / "docs" / "scale"
    job = yaml.safe_load((folder / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster, words = job["spec"]["rayClusterSpec"], job["spec"]["entrypoint"].split()
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().split()
    assert words[:4] == ["python", "-m", "overpaint", "scan"]
    command: Any = typer.main.get_command(build())
    scan = command.commands["scan"].commands["photos"]
    used = scan.make_context("scan", words[4:]).params
    assert (used["engine"], used["out"]) == ("ray", Path("/results/photos"))
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    parts = [part for group in groups for part in group["template"]["spec"]["containers"]]
    assert {part["image"] for part in parts} == {"REGISTRY/overpaint-scan:1"}
    assert parts[0]["volumeMounts"][0]["mountPath"] == "/results"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r'"\.\[(.*?)\]"', (folder / "Dockerfile").read_text())
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


class TestAboutTheProject:
    def test_there_is_one_version(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        assert project["project"]["dynamic"] == ["version"]
        attribute = project["tool"]["setuptools"]["dynamic"]["version"]["attr"]
        module, _, name = attribute.rpartition(".")
        found = getattr(importlib.import_module(module), name)
        citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
        assert found == overpaint.__version__ == citation["version"]

    def test_both_papers_are_cited(self) -> None:
        citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
        assert [r["year"] for r in citation["references"]] == [2021, 2024]
        assert citation["license"] == "Apache-2.0"

    def test_tools_have_one_version(self) -> None:
        lines = (ROOT / "constraints.txt").read_text().splitlines()
        pinned = dict(x.split("==") for x in lines if not x.startswith("#"))
        hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
        wanted = {d for hook in hooks for d in hook["additional_dependencies"]}
        assert wanted == {f"{name}=={pinned[name]}" for name in ("ruff", "pyright")}
        assert all(name == name.lower() and version for name, version in pinned.items())
        assert "torch" in pinned

    def test_templates_are_readable(self) -> None:
        forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
        assert len(forms) > 2
        for path in forms:
            form = yaml.safe_load(path.read_text())
            assert path.stem == "config" or {"name", "description", "body"} <= form.keys()
