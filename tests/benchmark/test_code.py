"""What a result's code hash depends on."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from overpaint.benchmark import code

MAKING = '''
from overpaint.benchmark.lists import join as put_together
from overpaint.numbers import add

LIMIT = 3
UNUSED = 4


def _help(x):
    return min(add(x), LIMIT)


def make(x):
    """A docstring."""
    return put_together(_help(x))


def make_other(x):
    return x
'''
LISTS = """
SEPARATOR = ","


def join(x):
    return SEPARATOR.join(x)


def split(x):
    return x
"""
NUMBERS = """
from overpaint import deep


def add(x):
    return deep.one(x)
"""
DEEP = "def one(x): return x + 1\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that stands for overpaint."""
    monkeypatch.setattr(code, "PACKAGE", tmp_path)
    (tmp_path / "benchmark").mkdir()
    for name, text in {
        "benchmark/making.py": MAKING,
        "benchmark/lists.py": LISTS,
        "numbers.py": NUMBERS,
        "deep.py": DEEP,
    }.items():
        (tmp_path / name).write_text(text)
    yield tmp_path
    forget()


def forget() -> None:
    for cached in (
        code._find_file,
        code._parse_module,
        code._list_imports,
        code._list_definitions,
        code._hash_module,
        code._hash_name,
    ):
        cached.cache_clear()


def hash_of(name: str = "make") -> str:
    forget()
    function = SimpleNamespace(__module__="overpaint.benchmark.making", __name__=name)
    return code.hash_code(function)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        pytest.param("benchmark/making.py", "LIMIT = 3", "LIMIT = 2", id="a constant"),
        pytest.param("benchmark/making.py", "min(", "max(", id="a helper"),
        pytest.param("benchmark/lists.py", '","', '";"', id="a constant of a helper elsewhere"),
        pytest.param("numbers.py", "deep.one(x)", "deep.one(x) + 1", id="another module"),
        pytest.param("deep.py", "x + 1", "x + 2", id="what another module imports"),
    ],
)
def test_a_change_of_what_is_used_changes_the_hash(
    package: Path, file: str, old: str, new: str
) -> None:
    before, other = hash_of(), hash_of("make_other")
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new))
    assert hash_of() != before
    assert hash_of("make_other") == other


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        pytest.param("benchmark/making.py", "A docstring", "Another", id="a docstring"),
        pytest.param("benchmark/making.py", "UNUSED = 4", "UNUSED = 5", id="what is not used"),
        pytest.param("benchmark/lists.py", "return x\n", "return [x]\n", id="its neighbour"),
    ],
)
def test_a_change_of_anything_else_does_not(package: Path, file: str, old: str, new: str) -> None:
    before = hash_of()
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new))
    assert hash_of() == before


def test_modules_of_models_count(package: Path) -> None:
    (package / "model.py").write_text("WIDTH = 1\n")
    forget()
    function = SimpleNamespace(__module__="overpaint.benchmark.making", __name__="make_other")
    before = code.hash_code(function, ["overpaint.model"])  # type: ignore[arg-type]
    (package / "model.py").write_text("WIDTH = 2\n")
    forget()
    assert code.hash_code(function, ["overpaint.model"]) != before  # type: ignore[arg-type]
