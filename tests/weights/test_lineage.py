"""Lineage: the tree of a record, of the shipped weights too; `weights show`, `weights average`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from typer.testing import CliRunner, Result

from overpaint.cli import build
from overpaint.detectors.nixnet import nixnet
from overpaint.weights import (
    Lineage,
    Parent,
    WeightsRecord,
    list_records,
    read_record,
    render_tree,
    save_weights,
)
from overpaint.weights.averaging import average_weights

CONFIG = {"widths": [4, 4, 4]}


def saved(folder: Path, name: str, seed: int = 0, **about: Any) -> WeightsRecord:
    torch.manual_seed(seed)
    values: dict[str, Any] = {
        "kind": "detector",
        "architecture": "nixnet",
        "config": CONFIG,
        "data": "2 photos: a 2",
        "recipe": f"recipes/{name}.yaml",
        "commit": "c",
        "licence": "MIT",
    }
    return save_weights(folder, nixnet(**CONFIG), name=name, **{**values, **about})


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build(), ["weights", *map(str, arguments)])


class TestTree:
    def test_of_a_mean_whose_parents_have_a_common_parent(self, tmp_path: Path) -> None:
        base = saved(tmp_path, "base", 0, config_hash="0" * 12, step=5)
        one, two = (
            saved(tmp_path, n, s, parents=[(base, 1)], overrides=["x=1"], new_parts=["context"])
            for s, n in enumerate(("one", "two"), 1)
        )
        mean = average_weights({str(one.path): 0.25, str(two.path): 0.75}, "mean", tmp_path)
        assert [entry.name for entry in mean.ancestors] == ["base", "one", "two"]
        digits = {r.name: r.sha256[:12] for r in (base, one, two, mean)}
        new = "--set x=1  new parts: context"
        assert list(render_tree(mean.lineage, mean.ancestors)) == [
            f"mean  {digits['mean']}  mean",
            f"  0.25 of one  {digits['one']}  recipes/one.yaml {new}",
            f"    from base  {digits['base']}  recipes/base.yaml  (config {'0' * 12}, step 5)",
            f"  0.75 of two  {digits['two']}  recipes/two.yaml {new}",
            f"    from base  {digits['base']}  see above",
        ]

    def test_a_parent_without_a_record_is_its_sha256(self) -> None:
        parent = Parent(name="gone", sha256="ab" * 32, share=1)
        child = Lineage(name="child", sha256="c" * 12, parents=(parent,))
        assert list(render_tree(child, ())) == [
            "child  cccccccccccc",
            f"  from gone  sha256 {'ab' * 32}",
        ]

    @pytest.mark.parametrize("changes", [{"sha256": "abc"}, {"share": 0}, {"share": 1.1}])
    def test_impossible_parents_are_refused(self, changes: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            Parent.model_validate({"name": "a", "sha256": "a" * 64, "share": 1, **changes})


@pytest.mark.parametrize("record", list_records(), ids=lambda record: record.name)
def test_every_parent_of_shipped_weights_is_described(record: WeightsRecord) -> None:
    assert all("sha256" not in line for line in render_tree(record.lineage, record.ancestors))
    for entry in (record, *record.ancestors):
        assert entry.recipe or len(entry.parents) > 1
        assert not entry.parents or sum(p.share for p in entry.parents) == pytest.approx(1)


class TestShow:
    def test_the_stages_of_the_shipped_detector(self) -> None:
        result = run("show", "nixnet-s")
        assert result.exit_code == 0, result.output
        tree = result.stdout.partition("lineage\n")[2].splitlines()
        names = [line.replace("from ", "of ").partition("of ")[2].split()[0] for line in tree[1:]]
        assert names == [
            "nixnet-s-2-colour",
            "nixnet-s-1-base",
            "nixnet-s-5-last",
            "nixnet-s-4-mean",
            "nixnet-s-2-colour",
            "nixnet-s-3-forged-one",
            "nixnet-s-2-colour",
            "nixnet-s-3-forged-other",
            "nixnet-s-2-colour",
        ]

    def test_json_is_the_record(self, tmp_path: Path) -> None:
        record = saved(tmp_path, "a", data_sha256="d" * 64)
        shown = json.loads(run("show", record.path, "--json").stdout)
        assert shown == json.loads((tmp_path / "a.json").read_text())
        assert shown["sha256"] == record.sha256

    def test_weights_that_are_not_there(self) -> None:
        result = run("show", "nothing")
        assert result.exit_code == 1
        assert "nothing: cannot read" in str(result.exception)


class TestAverage:
    def test_a_mean_and_its_record(self, tmp_path: Path) -> None:
        a, b = (saved(tmp_path, name, seed) for seed, name in enumerate("ab"))
        out = tmp_path / "out" / "m.safetensors"
        result = run("average", out, f"0.5={a.path}", f"0.5={b.path}")
        assert result.exit_code == 0, result.output
        record = read_record(out)
        assert record.sha256 in result.stdout
        assert record.parents == (a.as_parent(0.5), b.as_parent(0.5))
        parts = f"0.2={a.path}", f"0.8={b.path}"
        again = run("average", out, *parts)
        assert again.exit_code == 2
        assert "exists" in again.stderr
        assert read_record(out) == record
        assert run("average", out, *parts, "--overwrite").exit_code == 0
        assert read_record(out).parents == (a.as_parent(0.2), b.as_parent(0.8))

    @pytest.mark.parametrize("part", ["a", "=a", "x=a", "0.5=", "-1=a", "nan=a"])
    def test_what_is_no_share_of_a_file(self, tmp_path: Path, part: str) -> None:
        result = run("average", tmp_path / "m.safetensors", "--", part)
        assert result.exit_code == 2
        assert "give SHARE=FILE" in " ".join(result.stderr.split())

    def test_a_file_named_twice(self, tmp_path: Path) -> None:
        assert run("average", tmp_path / "m.safetensors", "0.5=a", "0.5=a").exit_code == 2

    @pytest.mark.parametrize("name", ["a", "w/../a", "link", "hard"])
    def test_an_input_is_not_written_over(self, tmp_path: Path, name: str) -> None:
        a, b = (saved(tmp_path, name, seed) for seed, name in enumerate("ab"))
        (tmp_path / "w").mkdir()
        (tmp_path / "link.safetensors").symlink_to(a.path)
        (tmp_path / "hard.safetensors").hardlink_to(a.path)
        before = a.path.read_bytes(), a.path.with_suffix(".json").read_bytes()
        out = f"{tmp_path}/{name}.safetensors"
        result = run("average", out, f"0.5={a.path}", f"0.5={b.path}", "--overwrite")
        assert result.exit_code == 1
        assert "write to another name" in str(result.exception)
        assert (a.path.read_bytes(), a.path.with_suffix(".json").read_bytes()) == before
        assert not (tmp_path / "link.json").exists()
