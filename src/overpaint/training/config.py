"""A run's configuration: YAML, overridden by `--set a.b=c`, checked before anything starts.

Every section is a frozen pydantic model that refuses unknown keys; the error names the nearest
known key. `config_hash` goes into every checkpoint, record and results row.
"""

import difflib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from overpaint.errors import ConfigError


class Section(BaseModel):
    """Base of every section: frozen, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OptimizerConfig(Section):
    learning_rate: float = Field(default=1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    clip_norm: float = Field(default=1.0, gt=0, description="largest norm of all gradients")


class LoopConfig(Section):
    """What the loop needs to know of a run; the same for every task."""

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0, description="over all processes")
    seed: int = 0
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


def load_config(kind: type[ConfigT], path: Path, overrides: Sequence[str] = ()) -> ConfigT:
    """Read `path` as YAML, apply `overrides` ("a.b=c", value in YAML), and check the whole.

    Raises ConfigError naming the file, the key and, for an unknown key, the nearest known one.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: the top level must be a mapping of keys to values")
    for override in overrides:
        _apply(values, override)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error, kind)}") from error


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


def _explain(error: ValidationError, kind: type[BaseModel]) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        text = f"{key}: {item['msg']}"
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(item["loc"][-1]), sorted(_all_keys(kind)), n=1)
            text = f"unknown key {key!r}" + (f", did you mean {near[0]!r}?" if near else "")
        lines.append(text)
    return "; ".join(lines)


def _all_keys(kind: type[BaseModel]) -> set[str]:
    """Field names of `kind` and of every section inside it."""
    keys: set[str] = set()
    for name, field in kind.model_fields.items():
        keys.add(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys |= _all_keys(field.annotation)
    return keys


def config_hash(config: BaseModel) -> str:
    """First 12 hex digits of the sha256 of the configuration's canonical JSON."""
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
