"""The tables of recipes in Markdown files, rendered from committed rows between markers.

- A table stands between `<!-- benchmark:NAME -->` and `<!-- /benchmark -->`; what stood there is
  replaced. Its rows are `results/tables/NAME.csv`, made from a `rows.csv` of `overpaint benchmark`
  by `--rows rows.csv`, its recipe `recipes/tables/NAME.yaml`, at the scale of the rows.
- `hardening` in the place of `benchmark` is a `rows.csv` of `overpaint harden`, its recipe
  `recipes/NAME.yaml`.
- Rows of another configuration than the recipe's are an error: then measure anew.
- `python -m overpaint.benchmark.pages docs/*.md` rewrites files; with `--check` it changes nothing
  and exits with 1 when a table is out of date.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from overpaint.benchmark.hardening.recipe import load_hardening
from overpaint.benchmark.hardening.rows import HardeningRow
from overpaint.benchmark.hardening.tables import render_markdown as hardening_markdown
from overpaint.benchmark.recipe import load_recipe
from overpaint.benchmark.rendering import render_markdown
from overpaint.benchmark.rows import BenchmarkRow, publish_rows, read_rows
from overpaint.errors import ConfigError
from overpaint.evaluation.tables import update_page
from overpaint.terminal import say

MARKER = re.compile(
    r"(<!-- (benchmark|hardening):(\S+) -->\n)(.*?)(<!-- /\2 -->)",
    re.DOTALL,
)


def render(name: str, root: Path, kind: str = "benchmark") -> str:
    """The Markdown of one table, its headings one level down.

    root: of the checkout. kind: benchmark or hardening. Raises ConfigError for a missing recipe,
    and for rows that are missing or of another configuration.
    """
    path = root / "results" / "tables" / f"{name}.csv"
    if kind == "hardening":
        rows = read_rows(path, HardeningRow)
        recipe = load_hardening(root / "recipes" / f"{name}.yaml", _read_scale(path, rows))
        text = hardening_markdown(recipe, rows)
    else:
        rows = read_rows(path)
        recipe = load_recipe(root / "recipes" / "tables" / f"{name}.yaml", _read_scale(path, rows))
        text = render_markdown(recipe, rows)
    if {row.config_hash for row in rows} != {recipe.hash}:
        raise ConfigError(
            f"{path}: rows of another configuration than the recipe's {recipe.hash}; measure it"
        )
    return re.sub(r"^#", "##", text, flags=re.MULTILINE)


def _read_scale(path: Path, rows: Sequence[BenchmarkRow]) -> str | None:
    if not rows:
        raise ConfigError(f"{path}: holds no row; measure it")
    return rows[0].scale or None


def fill(text: str, root: Path) -> str:
    """A Markdown text with every marked table rendered anew."""
    return MARKER.sub(lambda m: f"{m[1]}{render(m[3], root, m[2])}{m[5]}", text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; -> exit status."""
    parser = argparse.ArgumentParser(prog="python -m overpaint.benchmark.pages")
    parser.add_argument("files", type=Path, nargs="+", help="Markdown files with markers")
    parser.add_argument("--root", type=Path, default=Path(), help="Checkout. Default: here.")
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    parser.add_argument(
        "--rows", type=Path, action="append", default=[], help="rows.csv to commit; repeatable"
    )
    options = parser.parse_args(arguments)
    for rows in options.rows:
        say(publish_rows(rows, options.root / "results" / "tables"))
    done = [
        update_page(path, lambda text: fill(text, options.root), only_check=options.check)
        for path in options.files
    ]
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
