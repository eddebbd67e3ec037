"""The code that a result depends on, as a hash: a module, and all of overpaint that it imports.

Comments, docstrings and layout have no part in it, so that rewording makes nothing old. Models are
imported by name and not by an import statement; their modules are given beside (`list_modules`).
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from overpaint import hashes

PACKAGE = Path(__file__).parents[1]


def hash_code(modules: Iterable[str], functions: Iterable[Callable[..., Any]] = ()) -> str:
    """Of modules ("overpaint.metrics") with all that they import, and of single functions."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found and _find_file(name) is not None:
            found.add(name)
            waiting += _list_imports(name)
    parts = [f"{name} {_hash_module(name)}" for name in sorted(found)]
    parts += [_hash_tree(ast.parse(textwrap.dedent(inspect.getsource(f)))) for f in functions]
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


def _hash_tree(tree: ast.Module) -> str:
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
