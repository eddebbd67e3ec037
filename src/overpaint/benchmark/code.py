"""The code that a result depends on, as a hash: of a function that makes it, and of models.

- A function counts with all that it uses: functions, classes and constants of this package by their
  names, other modules of overpaint as a whole, with all that they import.
- Models are imported by name and not by an import statement; their modules are given beside
  (`list_modules`).
- Comments, docstrings and layout have no part in it, so that rewording makes nothing old.
"""

import ast
import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from overpaint import hashes

PACKAGE = Path(__file__).parents[1]
BY_NAME = "overpaint.benchmark."
"""Modules of which only what is used counts."""


def hash_code(function: Callable[..., Any], modules: Iterable[str] = ()) -> str:
    """Of a function, and of modules ("overpaint.metrics") with all that they import."""
    names, used = _follow_names(function.__module__, function.__name__)
    found: set[str] = set()
    waiting = [*modules, *used]
    while waiting:
        name = waiting.pop()
        if name not in found and _find_file(name) is not None:
            found.add(name)
            waiting += _list_imports(name)
    parts = [f"{name} {_hash_module(name)}" for name in sorted(found)]
    parts += [f"{m}.{name} {_hash_name(m, name)}" for m, name in sorted(names)]
    return hashes.sha256("\n".join(parts).encode())[:16]


def list_modules(*objects: Any) -> list[str]:
    """The modules of overpaint in which classes or functions are defined."""
    names = (inspect.getmodule(o) for o in objects)
    return [m.__name__ for m in names if m is not None and m.__name__.startswith("overpaint.")]


@cache
def _find_file(name: str) -> Path | None:
    """Of a module; None of what is no module of overpaint."""
    first, *rest = name.split(".")
    if first != "overpaint" or not rest:  # the package itself only offers shortcuts
        return None
    base = PACKAGE.joinpath(*rest)
    places = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in places if path.is_file()), None)


@cache
def _parse_module(name: str) -> ast.Module:
    path = _find_file(name)
    return ast.parse("" if path is None else path.read_text(encoding="utf-8"))


def _follow_names(module: str, name: str) -> tuple[set[tuple[str, str]], set[str]]:
    """From a name of a module: the names that it uses, as (module, name), and the modules."""
    names: set[tuple[str, str]] = set()
    modules: set[str] = set()
    waiting = [(module, name)]
    while waiting:
        place = waiting.pop()
        if place in names:
            continue
        names.add(place)
        here = place[0]
        node = _list_definitions(here)[place[1]]
        imported = dict(_list_imported(_parse_module(here))) | dict(_list_imported(node))
        for used in {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}:
            there, what = imported.get(used, (here, used))
            if there.startswith(BY_NAME) and what in _list_definitions(there):
                waiting.append((there, what))
            elif used in imported:
                modules |= {there, f"{there}.{what}"}
    return names, modules


@cache
def _list_definitions(module: str) -> dict[str, ast.AST]:
    """What stands at the top of a module, by name."""
    found: dict[str, ast.AST] = {}
    for node in _parse_module(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: node for target in targets if isinstance(target, ast.Name)}
    return found


def _list_imported(tree: ast.AST) -> Iterator[tuple[str, tuple[str, str]]]:
    """Names that import statements give to things of overpaint: module, and name there."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").partition(".")[0] == "overpaint"
        ):
            for alias in node.names:
                yield alias.asname or alias.name, (str(node.module), alias.name)


@cache
def _list_imports(name: str) -> tuple[str, ...]:
    """Absolute imports anywhere in a module; `from a import b` may mean the module a.b."""
    names: list[str] = []
    for node in ast.walk(_parse_module(name)):
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
    return tuple(n for n in names if n.startswith("overpaint."))


@cache
def _hash_module(name: str) -> str:
    return _hash_tree(_parse_module(name))


@cache
def _hash_name(module: str, name: str) -> str:
    return _hash_tree(_list_definitions(module)[name])


def _hash_tree(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):  # a docstring, and those that follow a field
            node.body = [x for x in body if not _is_text(x)]  # type: ignore[attr-defined]
    return hashes.sha256(ast.dump(tree).encode())


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
