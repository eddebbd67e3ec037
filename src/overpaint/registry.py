"""Models by name: each model file registers its factory.

- A registry is filled by importing its `home` package at the first use, so that importing a
  registry does not import torch.
- `home` is a string and imported by name, so this module depends on none of the models.
- An unknown name raises an error that suggests the nearest known ones.
"""

import contextlib
import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from overpaint.errors import UnknownNameError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Official:
    """The weights that a paper's authors published; they are not part of overpaint."""

    repository: str
    """owner/name at a commit."""
    licence: str
    """Of the weights."""
    remap: Callable[[Mapping[str, Any]], dict[str, Any]]
    """Published state dict to ours, strict (`weights.rename_keys`); raises WeightsError."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the model's configuration with which these weights fit."""
    files: tuple[str, ...] = ()
    """Names of the published files, in the order for the import."""
    without: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Files that may be missing -> fields of the configuration that the model then has."""
    note: str = ""
    """How to get these files, if they cannot be imported as published."""


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """One registered model: its factory and its origin."""

    name: str
    factory: Callable[..., T]
    """Builds the model from its configuration's fields, given as keyword arguments."""
    paper: str
    """Title, venue or arXiv id."""
    licence: str
    """Licence of the code and of the ideas' official code, if any."""
    summary: str = ""
    """A few words for a list."""
    official: Official | None = None
    """None where no weights were published."""
    trainable: bool = True
    """Whether it needs trained weights; a classical method does not."""


class Registry(Generic[T]):
    """Models of one kind by name."""

    def __init__(self, kind: str, home: str | None = None) -> None:
        """kind: the word used in messages. home: module whose import registers the models."""
        self.kind = kind
        self._home = home
        self._entries: dict[str, Entry[T]] = {}

    def register(
        self,
        name: str,
        factory: Callable[..., T],
        *,
        paper: str,
        licence: str,
        summary: str = "",
        official: Official | None = None,
        trainable: bool = True,
    ) -> None:
        """Add a model. Raises ValueError when the name is taken by another factory."""
        if name in self._entries:
            raise ValueError(f"the {self.kind} name {name!r} is already registered")
        self._entries[name] = Entry(name, factory, paper, licence, summary, official, trainable)

    def get(self, name: str) -> Entry[T]:
        """Return the entry of `name`. Raises UnknownNameError with the nearest names."""
        self._load()
        if name not in self._entries:
            raise UnknownNameError(self._describe_unknown(name))
        return self._entries[name]

    def create(self, name: str, **config: Any) -> T:
        """Build the model `name` with its configuration's fields."""
        return self.get(name).factory(**config)

    def list_names(self) -> list[str]:
        """All names, sorted."""
        self._load()
        return sorted(self._entries)

    def __contains__(self, name: str) -> bool:
        self._load()
        return name in self._entries

    def _load(self) -> None:
        if self._home is not None:
            importlib.import_module(self._home)

    def _describe_unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._entries, n=3)
        known = ", ".join(sorted(self._entries)) or "none"
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        return f"no {self.kind} is called {name!r}{hint} Known: {known}"


def import_modules(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that each registers its models.

    package, path: `__name__` and `__path__` of the package.
    """
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")


def count_parameters(entry: Entry[Any], config: Mapping[str, Any] = MappingProxyType({})) -> int:
    """The number of parameters of a model, without allocating them.

    config: fields that differ from its default configuration.

    Raises OverpaintError when an optional package that it needs is missing.
    """
    with build_on_meta():
        return sum(parameter.numel() for parameter in entry.factory(**config).parameters())


@contextlib.contextmanager
def build_on_meta() -> Iterator[None]:
    """Build networks on torch's meta device, without memory and values, for parameter sizes.

    Random initialisation and spectral norm's first power iterations are skipped, because they take
    nearly all of the time. No random number is drawn.
    """
    import torch
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    random = (torch.Tensor.normal_, torch.Tensor.uniform_)

    class WithoutValues(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            if args and isinstance(args[0], torch.Tensor) and args[0].is_meta:
                if func in random:
                    return args[0]
                if func is torch.mv:
                    return args[0].new_empty(args[0].shape[0])
                if func is functional.normalize and kwargs.get("out") is not None:
                    return kwargs["out"]
            return func(*args, **kwargs)

    with torch.device("meta"), WithoutValues(), torch.random.fork_rng(devices=[]):
        yield


# `Any` keeps torch out of this module: entries build nn.Module subclasses of the named kind.
detectors: Registry[Any] = Registry("detector", home="overpaint.detectors")
inpainters: Registry[Any] = Registry("inpainter", home="overpaint.inpainters")
autoencoders: Registry[Any] = Registry("autoencoder", home="overpaint.data.bank")
parts: Registry[Any] = Registry("part of a detector", home="overpaint.detectors")
"""Networks that are a part of a detector and were published separately. Each is a module whose
children have the same names as in the detector."""
