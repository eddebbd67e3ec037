"""Recipes: YAML, `--set`, and errors that name the key and the remedy."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import nn

from helpers.recipes import recipes
from overpaint.errors import ConfigError, UnknownNameError
from overpaint.registry import Registry, autoencoders, detectors, inpainters
from overpaint.training.autoencoder import AutoencoderRun
from overpaint.training.config import (
    LoopConfig,
    create_model,
    hash_config,
    load_config,
    read_recipe,
)
from overpaint.training.detection.base import DetectorRun
from overpaint.training.inpainting.base import InpainterRun

MINIMAL = {"name": "x", "loop": {"steps": 10, "batch_size": 2}}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    return path


def refusal(path: Path, *overrides: str, kind: Any = AutoencoderRun) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(kind, path, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_recipe_with_defaults(recipe: Path) -> None:
    run = load_config(AutoencoderRun, recipe)
    assert (run.name, run.loop.steps, run.loop.batch_size) == ("x", 10, 2)
    assert run.loss.reconstruction_weight == 0.1
    assert run.loop.optimizer.clip_norm == 1.0


def test_values_are_set_at_any_depth_and_read_as_yaml(recipe: Path) -> None:
    run = load_config(
        AutoencoderRun,
        recipe,
        [
            "loop.steps=7",
            "loop.optimizer.betas=[0.5, 0.9]",
            "loop.optimizer.learning_rate=1e-3",  # YAML 1.1 reads it as text
            "loop.bf16=no",
            "loop.patience=3",
            "loss.reconstruction=l1",
            "model.depth=3",
            "name=a=b",
        ],
    )
    assert run.loop.steps == 7
    assert run.loop.optimizer.betas == (0.5, 0.9)
    assert run.loop.optimizer.learning_rate == 0.001
    assert run.loop.bf16 is False
    assert run.loop.patience == 3
    assert run.loss.reconstruction == "l1"
    assert run.model == {"depth": 3}
    assert run.name == "a=b"


def test_a_later_override_wins(recipe: Path) -> None:
    assert load_config(AutoencoderRun, recipe, ["crop=32", "crop=64"]).crop == 64


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("crap=64", "unknown key 'crap', did you mean 'crop'?"),
        ("loop.step=1", "unknown key 'loop.step', did you mean 'loop.steps'?"),
        ("loop.optimizer.weigth_decay=0", "did you mean 'loop.optimizer.weight_decay'?"),
        # A known name at the wrong place is found where it belongs.
        ("learning_rate=1", "did you mean 'loop.optimizer.learning_rate'?"),
        ("loss.batch_size=1", "did you mean 'loop.batch_size'?"),
        ("loop.optimizer.lr=1", "known here: algorithm, learning_rate, betas, weight_decay"),
    ],
)
def test_an_unknown_key_is_refused_with_a_suggestion(
    recipe: Path, override: str, suggestion: str
) -> None:
    text = refusal(recipe, override)
    assert suggestion in text
    assert text.startswith(str(recipe))


def test_sections_of_the_data_are_known_too(recipe: Path) -> None:
    text = refusal(recipe, "data.bank={a: 1}", "data.history.resise=1", kind=DetectorRun)
    assert "unknown key 'data.history.resise', did you mean 'data.history.resize'?" in text


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("loop.steps=ten", "loop.steps: Input should be a valid integer"),
        ("loop.steps=ten", "not 'ten'"),
        ("loop.steps=0", "loop.steps: Input should be greater than 0, not 0"),
        ("loop.seed=-1", "loop.seed"),
        ("loop.ema_decay=1", "loop.ema_decay: Input should be less than 1"),
        ("loop.optimizer.betas=[0.9]", "loop.optimizer.betas"),
        ("loop.optimizer.schedule=linear", "'constant' or 'cosine', not 'linear'"),
        ("loss=l1", "loss: Input should be a valid dictionary"),
        ("validation_photos=0", "validation_photos"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(recipe: Path, override: str, words: str) -> None:
    assert words in refusal(recipe, override)


def test_everything_that_is_wrong_is_said_at_once(recipe: Path) -> None:
    text = refusal(recipe, "crap=1", "loop.steps=x", "loop.batch_size=null")
    assert all(key in text for key in ("crap", "loop.steps", "loop.batch_size"))


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: x\nloop: {steps: 3}\n")
    assert "loop.batch_size: Field required" in refusal(path)
    path.write_text("")
    assert "name: Field required; loop: Field required" in refusal(path)


def test_a_rule_over_several_keys_reads_as_a_sentence(recipe: Path) -> None:
    text = refusal(recipe, "data.bank={a: 0}", kind=DetectorRun)
    assert "bank: give at least one autoencoder a weight above 0" in text


@pytest.mark.parametrize("override", ["loop.steps", "=1", "loop.steps=[1"])
def test_a_malformed_override_is_quoted(recipe: Path, override: str) -> None:
    assert f"--set {override}" in refusal(recipe, override)


def test_a_value_has_no_keys_below_it(recipe: Path) -> None:
    assert "loop.steps.x=1: steps is a value" in refusal(recipe, "loop.steps.x=1")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name: [", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"- 1\n- 2\n", "top level must be a mapping"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    text = refusal(path)
    assert words in text
    assert "broken.yaml" in text


def test_a_missing_file(tmp_path: Path) -> None:
    text = refusal(tmp_path / "none.yaml")
    assert "none.yaml: cannot read the configuration: No such file" in text


def test_a_config_cannot_be_changed(recipe: Path) -> None:
    run = load_config(AutoencoderRun, recipe)
    with pytest.raises(ValueError, match="frozen"):
        run.loop.steps = 3  # type: ignore[misc]


def test_the_hash_depends_on_values_and_not_on_their_order_or_place() -> None:
    config = LoopConfig(steps=5, batch_size=2)
    assert hash_config(config) == hash_config(LoopConfig(batch_size=2, steps=5, seed=0))
    assert hash_config(config) != hash_config(LoopConfig(steps=5, batch_size=2, seed=1))
    # Checkpoints and records carry it: a new default must not orphan runs unnoticed.
    assert hash_config(config) == "99a76ac22998"


class TestModelSection:
    """`model` is a free mapping to the recipe and is checked by what it builds."""

    def test_it_builds(self) -> None:
        model = create_model(detectors, "nixnet", {"widths": [2, 3, 4]})
        assert model.config.widths == (2, 3, 4)

    @pytest.mark.parametrize(
        ("registry", "name", "key", "words"),
        [
            (autoencoders, "conv-autoencoder", "dept", "did you mean 'model.depth'?"),
            (autoencoders, "conv-autoencoder", "zzz", "known here: width, depth, latent_channels"),
            (detectors, "nixnet", "noise_steam", "did you mean 'model.noise_stream'?"),
        ],
    )
    def test_an_unknown_key(self, registry: Any, name: str, key: str, words: str) -> None:
        with pytest.raises(ConfigError, match=f"unknown key 'model.{key}'") as caught:
            create_model(registry, name, {key: 1})
        assert words in str(caught.value)

    @pytest.mark.parametrize(
        ("config", "words"),
        [
            ({"depth": "two"}, "conv-autoencoder cannot be built from {'depth': 'two'}"),
            ({"depth": 9}, "choose 1, 2 or 3"),
            ({"width": -8}, "cannot be built"),
        ],
    )
    def test_a_wrong_value(self, config: dict[str, Any], words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            create_model(autoencoders, "conv-autoencoder", config)

    def test_a_wrong_value_that_builds_all_the_same(self) -> None:
        with pytest.raises(ConfigError, match=r"model: fusion_3: .*boolean.*, not 'never'"):
            create_model(detectors, "nixnet", {"widths": [2, 2, 2], "fusion_3": "never"})

    def test_an_unknown_model(self) -> None:
        with pytest.raises(UnknownNameError, match="did you mean nixnet"):
            create_model(detectors, "nixnett", {})

    def test_a_model_without_a_config_of_its_own(self) -> None:
        registry: Registry[nn.Module] = Registry("thing")
        registry.register("plain", nn.ReLU, paper="", licence="")
        assert isinstance(create_model(registry, "plain", {"inplace": True}), nn.ReLU)
        with pytest.raises(ConfigError, match=r"plain cannot be built from {'width': 3}"):
            create_model(registry, "plain", {"width": 3})


@pytest.mark.parametrize("path", recipes(), ids=lambda p: p.stem)
def test_every_recipe_in_the_repository_is_valid(path: Path) -> None:
    keys = read_recipe(path)
    if "detector" in keys:
        detector = load_config(DetectorRun, path)
        create_model(detectors, detector.detector, detector.model)
    elif "inpainter" in keys:
        inpainter = load_config(InpainterRun, path)
        create_model(inpainters, inpainter.inpainter, inpainter.model)
    else:
        create_model(autoencoders, "conv-autoencoder", load_config(AutoencoderRun, path).model)


class TestExtends:
    def test_sections_merge_lists_are_replaced_and_null_takes_away(self, tmp_path: Path) -> None:
        parent, child = tmp_path / "parent.yaml", tmp_path / "below" / "child.yaml"
        child.parent.mkdir()
        parent.write_text(
            "name: parent\nloop: {steps: 9, batch_size: 2, optimizer: {betas: [0.1, 0.2]}}\n"
            "loss: {reconstruction: l1}\n"
        )
        child.write_text(
            "extends: ../parent.yaml\nname: child\n"
            "loop: {steps: 3, optimizer: {betas: [0.5, 0.6]}}\nloss: {reconstruction: null}\n"
        )
        run = load_config(AutoencoderRun, child, ["loop.seed=4"])
        assert (run.name, run.loop.steps, run.loop.batch_size, run.loop.seed) == ("child", 3, 2, 4)
        assert run.loop.optimizer.betas == (0.5, 0.6)
        assert run.loss == AutoencoderRun.model_validate(MINIMAL).loss

    def test_over_two_recipes(self, tmp_path: Path) -> None:
        for name, text in {
            "a": "loop: {steps: 1, batch_size: 1}\nname: a",
            "b": "extends: a.yaml\nloop: {steps: 2}",
            "c": "extends: b.yaml\nname: c",
        }.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        run = load_config(AutoencoderRun, tmp_path / "c.yaml")
        assert (run.name, run.loop.steps, run.loop.batch_size) == ("c", 2, 1)

    def test_recipes_in_a_circle(self, tmp_path: Path) -> None:
        for name, other in (("a", "b"), ("b", "a")):
            (tmp_path / f"{name}.yaml").write_text(f"extends: {other}.yaml")
        text = refusal(tmp_path / "a.yaml")
        assert "in a circle" in text
        a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
        assert f"{a} extends {b} extends {a}" in text

    def test_a_parent_that_is_missing_names_both_files(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text("extends: gone.yaml")
        text = refusal(tmp_path / "a.yaml")
        assert f"{tmp_path / 'a.yaml'}: extends {tmp_path / 'gone.yaml'}: cannot read" in text

    @pytest.mark.parametrize("value", ["[a.yaml, b.yaml]", "3", "{a: b}"])
    def test_one_parent_at_most(self, tmp_path: Path, value: str) -> None:
        (tmp_path / "a.yaml").write_text(f"extends: {value}")
        assert "give the path of one recipe" in refusal(tmp_path / "a.yaml")
