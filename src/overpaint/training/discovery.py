"""Which task trains a network: the one in the module that is named as the network's own.

`detectors/nixnet.py` is trained by the task in `training/detection/nixnet.py`, so that a new model
brings its loss by a file of its own and no list has to be edited.
"""

import importlib
import importlib.util
import inspect
import pkgutil
from typing import TypeVar

from torch import nn

from overpaint.errors import ConfigError

T = TypeVar("T")


def find_task(model: nn.Module, base: type[T]) -> type[T]:
    """The subclass of `base` that trains `model`, from the package in which `base` stands.

    Raises ConfigError for a network whose module has no counterpart there.
    """
    package = base.__module__.rpartition(".")[0]
    name = type(model).__module__.rpartition(".")[2]
    if not importlib.util.find_spec(f"{package}.{name}") or not (
        tasks := _list_tasks(f"{package}.{name}", base)
    ):
        known = ", ".join(
            module for module in _list_modules(package) if _list_tasks(module, base, package)
        )
        raise ConfigError(
            f"{type(model).__name__}: nothing to train, as there is no {package}.{name} with its "
            f"losses; there are losses of {known}"
        )
    return tasks[0]


def _list_modules(package: str) -> list[str]:
    path = importlib.import_module(package).__path__
    return sorted(module.name for module in pkgutil.iter_modules(path))


def _list_tasks(module: str, base: type[T], package: str = "") -> list[type[T]]:
    """The subclasses of `base` that a module defines; at most one in every module of ours."""
    found = importlib.import_module(f"{package}.{module}" if package else module)
    members = vars(found).values()
    return [
        member
        for member in members
        if inspect.isclass(member) and issubclass(member, base) and member is not base
        if member.__module__ == found.__name__
    ]
