"""Tables of the rows: Markdown, LaTeX and CSV, the paper's figure beside ours.

- A view groups the rows by its axes. Rows that differ on another axis than the seed never share a
  place: that is an error of the recipe.
- Several seeds are shown as their mean and half of their range; a failed cell as "failed", with the
  reason below the table.
"""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from overpaint.benchmark.papers import REFERENCES, find_paper_figure, has_figures
from overpaint.benchmark.recipe import AXES, Axis, Recipe, View
from overpaint.benchmark.rows import ALL, UNSEEN, BenchmarkRow
from overpaint.errors import ConfigError
from overpaint.images import write_bytes

NOTHING = "n/a"
FAILED = "failed"
PAPER = "paper"

HEADINGS: dict[str, str] = {"training": "trained on", "mask": "masks", "bin": "hole, %"}
WORDS: dict[str, str] = {
    "iou@0.5": "mIoU",
    "f1@0.5": "F1",
    "f1@default": "F1, default threshold",
    "auc": "pixel AUC",
    "detected@0.5": "detected",
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "l1": "L1",
    "vgg-distilled": "distance by the distilled VGG",
    "lpips-alex": "LPIPS (AlexNet)",
    "fid-vgg-distilled": "FID by the distilled VGG",
    ALL: "all inpainters",
    UNSEEN: "unseen inpainters",
    "any": "any",
    "": "-",
}


@dataclass(frozen=True, slots=True)
class Table:
    """What is shown of one view."""

    title: str
    header: list[str]
    lines: list[list[str]]
    num_labels: int
    """How many columns name a line."""
    failures: list[str]

    @property
    def is_measured(self) -> bool:
        """Whether any cell is not empty."""
        return any(cell != NOTHING for line in self.lines for cell in line[self.num_labels :])


def tabulate(recipe: Recipe, rows: Sequence[BenchmarkRow], view: View) -> Table:
    """The cells of a view. Raises ConfigError for one that would mix rows."""
    shown = [row for row in rows if _is_shown(row, view)]
    line_keys, column_keys = (_list_keys(shown, axes, view) for axes in (view.rows, view.columns))
    places: dict[tuple[tuple[str, ...], tuple[str, ...]], list[BenchmarkRow]] = {}
    for row in shown:
        place = _make_key(row, view.rows), _make_key(row, view.columns)
        places.setdefault(place, []).append(row)
    for group in places.values():
        _check_alike(group, view)
    header = [_name_axis(axis) for axis in view.rows]
    header += [
        ", ".join(_name_value(recipe, a, v) for a, v in _pair_axes(view, key))
        for key in column_keys
    ]
    lines = [
        [_name_value(recipe, a, v) for a, v in zip(view.rows, line, strict=True)]
        + [_format_cell(recipe, places.get((line, column), []), view) for column in column_keys]
        for line in line_keys
    ]
    failures = list(dict.fromkeys(row.error for row in shown if row.error))
    return Table(view.title, header, lines, len(view.rows), failures)


def _pair_axes(view: View, key: tuple[str, ...]) -> Iterable[tuple[Axis, str]]:
    return zip(view.columns, key, strict=True)


def _is_shown(row: BenchmarkRow, view: View) -> bool:
    if row.inpainter in (ALL, UNSEEN) and "inpainter" not in view.where:
        return False
    return all(row.get_coordinate(axis) in values for axis, values in view.where.items())


def _make_key(row: BenchmarkRow, axes: Sequence[Axis]) -> tuple[str, ...]:
    return tuple(row.get_coordinate(axis) for axis in axes)


def _list_keys(
    rows: Sequence[BenchmarkRow], axes: Sequence[Axis], view: View
) -> list[tuple[str, ...]]:
    """The combinations that there are, ordered axis by axis as in `where`, or as they came."""
    order = {
        axis: view.where.get(axis) or list(dict.fromkeys(r.get_coordinate(axis) for r in rows))
        for axis in axes
    }
    found = dict.fromkeys(_make_key(row, axes) for row in rows)

    def find_places(key: tuple[str, ...]) -> list[int]:
        return [order[axis].index(value) for axis, value in zip(axes, key, strict=True)]

    return sorted(found, key=find_places)


def _check_alike(group: Sequence[BenchmarkRow], view: View) -> None:
    for axis in AXES:
        values = list(dict.fromkeys(row.get_coordinate(axis) for row in group))
        if axis != "seed" and len(values) > 1:
            raise ConfigError(
                f"view {view.title!r}: {values[0]!r} and {values[1]!r} ({axis}) would share a "
                f"place; add {axis} to its rows, columns or where"
            )


def _format_cell(recipe: Recipe, group: Sequence[BenchmarkRow], view: View) -> str:
    if not group:
        return NOTHING
    if any(row.error for row in group):
        return FAILED
    numbers = [row.value for row in group if not math.isnan(row.value)]
    if not numbers:
        return NOTHING
    digits = 2 if group[0].metric == "psnr" else 3
    text = f"{sum(numbers) / len(numbers):.{digits}f}"
    if len(numbers) > 1:
        text += f" ± {(max(numbers) - min(numbers)) / 2:.{digits}f}"
    if view.interval and len(group) == 1 and not math.isnan(group[0].ci_low):
        text += f" ({group[0].ci_low:.{digits}f} to {group[0].ci_high:.{digits}f})"
    published = find_paper_figure(recipe, group[0])
    return text if published is None else f"{text} [{published:.{digits}f}]"


def _name_axis(axis: Axis) -> str:
    return HEADINGS.get(axis, axis)


def _name_value(recipe: Recipe, axis: Axis, value: str) -> str:
    if axis == "photos" and value in recipe.photos and recipe.photos[value].stands_for:
        set_of_paper = recipe.photos[value].stands_for
        return value if set_of_paper == value else f"{value} ({PAPER}: {set_of_paper})"
    if axis == "bin":
        return value if value == "any" else f"{value} %"
    return WORDS.get(value, value)


# Texts


def render_markdown(recipe: Recipe, rows: Sequence[BenchmarkRow]) -> str:
    """All views, and what they rest on."""
    parts = [f"# {recipe.title}", "", *_describe_rows(recipe, rows), ""]
    for view in recipe.views:
        table = tabulate(recipe, rows, view)
        shown = render_markdown_lines(table) if table.is_measured else ["Not measured in any cell."]
        parts += [f"## {table.title}", "", *shown, ""]
        if table.failures:
            parts += ["Failed:", "", *(f"- {_escape(error)}" for error in table.failures), ""]
    return "\n".join(parts)


def render_markdown_lines(table: Table) -> list[str]:
    """A table in GitHub's Markdown."""
    num_numbers = len(table.header) - table.num_labels
    rule = ["---"] * table.num_labels + ["---:"] * num_numbers
    lines = [table.header, rule, *table.lines]
    return ["| " + " | ".join(_escape(cell) for cell in line) + " |" for line in lines]


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _describe_rows(recipe: Recipe, rows: Sequence[BenchmarkRow]) -> list[str]:
    """What all rows have in common, and what differs from the paper."""
    commits = sorted({row.commit for row in rows if row.commit})
    pictures = sorted({row.n for row in rows if row.n and row.inpainter not in (ALL, UNSEEN)})
    steps = sorted({row.steps for row in rows if row.steps}, key=int)
    facts = [
        f"Scale `{recipe.scale or 'none'}`, configuration `{recipe.hash}`, commits "
        f"{', '.join(f'`{c[:12]}`' for c in commits) or 'none'}.",
        f"Pictures a cell: {_format_span(pictures)}, {recipe.size} px. "
        f"Seed of pictures: {recipe.seed}.",
    ]
    if steps:
        seeds = ", ".join(map(str, recipe.seeds))
        facts.append(f"Detectors trained here: {' or '.join(steps)} steps each, seeds {seeds}.")
    elif len(recipe.seeds) > 1:
        seeds = ", ".join(map(str, recipe.seeds))
        facts.append(f"Seeds of the trainings of {recipe.seeds_of}: {seeds}.")
    failed = sum(1 for row in rows if row.error)
    facts.append(f"Failed rows: {failed} of {len(rows)}.")
    if recipe.paper:
        facts.append(_describe_paper(recipe))
    if recipe.differs:
        facts += ["", "What differs from the paper:", "", *(f"- {line}" for line in recipe.differs)]
    return facts


def _describe_paper(recipe: Recipe) -> str:
    reference = REFERENCES.get(recipe.paper, recipe.paper)
    if has_figures(recipe.paper):
        return f"In brackets: {reference}."
    return f"{reference}: we had its caption and not its figures, so that none stand beside."


def _format_span(numbers: Sequence[int]) -> str:
    if not numbers:
        return "none"
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


_LATEX = str.maketrans(
    {
        "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
        "±": r"$\pm$",
    }
)  # fmt: skip


def render_latex(recipe: Recipe, rows: Sequence[BenchmarkRow]) -> str:
    """All views as tables of the package booktabs."""
    return (
        "\n\n".join(_render_latex_table(tabulate(recipe, rows, view)) for view in recipe.views)
        + "\n"
    )


def _render_latex_table(table: Table) -> str:
    columns = "l" * table.num_labels + "r" * (len(table.header) - table.num_labels)
    header, *lines = (
        " & ".join(cell.translate(_LATEX) for cell in line) + r" \\"
        for line in (table.header, *table.lines)
    )
    parts = [
        r"\begin{table}",
        rf"\caption{{{table.title.translate(_LATEX)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        header,
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(parts)


def render_csv(recipe: Recipe, rows: Sequence[BenchmarkRow]) -> str:
    """All views, each under a line with its title; the rows themselves are in rows.csv."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for view in recipe.views:
        table = tabulate(recipe, rows, view)
        writer.writerows([[table.title], table.header, *table.lines])
    return buffer.getvalue()


RENDERED = {"table.md": render_markdown, "table.tex": render_latex, "table.csv": render_csv}


def write_tables(recipe: Recipe, rows: Sequence[BenchmarkRow], out: Path) -> list[Path]:
    """table.md, table.tex and table.csv; -> their paths."""
    texts = {name: render(recipe, rows) for name, render in RENDERED.items()}
    for name, text in texts.items():
        write_bytes(out / name, text.encode())
    return [out / name for name in texts]
