"""A run's configuration: YAML, overridden by `--set a.b=c`, checked before anything starts.

- A recipe may state only what differs from another one: `extends: FILE`, relative to itself. The
  two are merged as JSON Merge Patch has it (RFC 7396): section into section; null takes a key away;
  every other value, lists too, replaces the one before.
- Every section is a frozen pydantic model that refuses unknown keys; the error names the nearest
  known key. `hash_config` goes into every checkpoint, record and results row.
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from overpaint import run_identity
from overpaint.errors import ConfigError
from overpaint.registry import Registry


class Section(BaseModel):
    """Base of every section: frozen, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OptimizerConfig(Section):
    algorithm: Literal["adam", "adadelta"] = Field(
        default="adam",
        description="adam decays weights apart from the gradient (AdamW)",
    )
    learning_rate: float = Field(default=1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    clip_norm: float = Field(default=1.0, gt=0, description="largest norm of all gradients")


class AdversarialLoss(Section):
    """What all losses with a discriminator share."""

    adversarial_from: int = Field(
        default=0, ge=0, description="step at which the discriminator's losses join"
    )
    discriminator_width: int = Field(default=64, gt=0)


class LoopConfig(Section):
    """What the loop needs to know of a run; the same for every task."""

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0, description="over all processes")
    # The largest seed of 32 bit is kept for validation samples.
    seed: int = Field(default=0, ge=0, lt=2**32 - 1)
    optimizer: OptimizerConfig = OptimizerConfig()
    bf16: bool = True
    ema_decay: float = Field(default=0.999, ge=0, lt=1, description="0 switches the average off")
    workers: int = Field(default=1, ge=0, description="data processes per training process")
    validate_every: int = Field(default=500, gt=0)
    checkpoint_every: int = Field(default=500, gt=0)
    log_every: int = Field(default=20, gt=0)
    keep: Literal["best", "last"] = Field(
        default="best",
        description="which validated state is exported; a GAN term lowers PSNR on purpose: last",
    )
    patience: int | None = Field(
        default=None, gt=0, description="validations without a better figure before the run stops"
    )


ConfigT = TypeVar("ConfigT", bound=Section)
ModelT = TypeVar("ModelT")

# That of libyaml is ten times faster; it is there in all wheels of PyYAML.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_config(kind: type[ConfigT], path: Path, overrides: Sequence[str] = ()) -> ConfigT:
    """Read `path` and what it extends, apply `overrides` ("a.b=c", value in YAML), check the whole.

    Raises ConfigError naming the file, the key and, for an unknown key, the nearest known one.
    """
    values = read_recipe(Path(path))
    for override in overrides:
        _apply(values, override)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error, _list_sections(kind))}") from error


def read_recipe(path: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The values of a recipe, merged into those of the recipe that it extends; not yet checked.

    extended_by: recipes that led here. Raises ConfigError for a file that cannot be read, and for
    recipes that extend each other.
    """
    whence = f"{extended_by[-1]}: extends " if extended_by else ""
    if path.resolve() in {other.resolve() for other in extended_by}:
        circle = " extends ".join(map(str, (*extended_by, path)))
        raise ConfigError(f"recipes extend each other in a circle: {circle}")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER) or {}
    except OSError as error:
        reason = f"cannot read the configuration: {error.strerror}"
        raise ConfigError(f"{whence}{path}: {reason}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{whence}{path}: not valid YAML: {_join_lines(error)}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{whence}{path}: the top level must be a mapping of keys to values")
    if (parent := values.pop("extends", None)) is None:
        return values
    if not isinstance(parent, str):
        raise ConfigError(f"{whence}{path}: extends: give the path of one recipe, not {parent!r}")
    return merge(read_recipe(path.parent / parent, (*extended_by, path)), values)


def load_section(kind: type[ConfigT], values: Mapping[str, Any], key: str) -> ConfigT:
    """`values`, which stand at `key` of a recipe, as a section; ConfigError as `load_config`."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{key}: {_explain(error, _list_sections(kind))}") from error


def create_model(registry: Registry[ModelT], name: str, config: Mapping[str, Any]) -> ModelT:
    """The model `name` with a recipe's `model` section, checked like the other sections.

    Raises ConfigError for an unknown key or a wrong value, UnknownNameError for an unknown name.
    """
    entry = registry.get(name)
    try:
        model = entry.factory(**config)
    except (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        default = getattr(entry.factory(), "config", None)
        known = [f.name for f in dataclasses.fields(default)] if default is not None else []
        if known and (unknown := sorted(config.keys() - set(known))):
            raise ConfigError(_describe_unknown(f"model.{unknown[0]}", {"model": known})) from error
        raise ConfigError(f"model: {name} cannot be built from {dict(config)}: {error}") from error
    built_from = getattr(model, "config", None)
    if dataclasses.is_dataclass(built_from) and not isinstance(built_from, type):
        try:
            TypeAdapter(type(built_from)).validate_python(dataclasses.asdict(built_from))
        except ValidationError as error:
            raise ConfigError(f"model: {_explain(error, {})}") from error
    return model


def hash_config(config: BaseModel) -> str:
    """`run_identity.hash_config` of a section's values."""
    return run_identity.hash_config(config.model_dump(mode="json"))


def merge(values: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`values` after a JSON Merge Patch (RFC 7396)."""
    merged = dict(values)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            old = merged.get(key)
            merged[key] = merge(old if isinstance(old, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {override}: write it as key.subkey=value")
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override}: {parent} is a value and has no keys below it")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML") from error


def _explain(error: ValidationError, sections: Mapping[str, list[str]]) -> str:
    """All that is wrong, in one line."""
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(_describe_unknown(key, sections))
            continue
        given = item["input"]
        is_short = item["type"] != "missing" and isinstance(given, str | int | float | None)
        words = _join_lines(item["msg"]) + (f", not {given!r}" if is_short else "")
        lines.append(f"{key}: {words}" if key else words)
    return "; ".join(lines)


def _describe_unknown(key: str, sections: Mapping[str, list[str]]) -> str:
    """What is known instead of `key`: in its own section first, then anywhere."""
    section, _, name = key.rpartition(".")
    here = sections.get(section, [])
    near = [_join(section, n) for n in difflib.get_close_matches(name, here, n=1)]
    if not near:
        places = {n: _join(s, n) for s, names in sections.items() for n in names}
        near = [places[n] for n in difflib.get_close_matches(name, places, n=1)]
    if near:
        return f"unknown key {key!r}, did you mean {near[0]!r}?"
    return f"unknown key {key!r}" + (f"; known here: {', '.join(here)}" if here else "")


def _list_sections(kind: type[BaseModel], place: str = "") -> dict[str, list[str]]:
    """Field names of `kind` and of every section inside it, by the section's dotted place."""
    sections = {place: list(kind.model_fields)}
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            sections |= _list_sections(field.annotation, _join(place, name))
    return sections


def _join(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def _join_lines(text: object) -> str:
    return " ".join(str(text).split())
