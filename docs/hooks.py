"""What the documentation takes from the code: model cards, API, command line, data sets.

- As a hook of MkDocs (`mkdocs build --strict`) it adds the pages of the first three, so that they
  need no upkeep, and refuses a page that would load anything from another host.
- `python docs/hooks.py` writes the table of data sets into docs/data.md (`--check` only compares):
  this page is read in the repository, too.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

    from overpaint.data.datasets import Dataset
    from overpaint.data.named_sets import NamedSet
    from overpaint.weights import WeightsRecord

ROOT = Path(__file__).parents[1]
BENCHMARKED = ROOT / "benchmarks" / "weights"
DATA_PAGE = ROOT / "docs" / "data.md"
MARKED = re.compile(r"(<!-- datasets -->\n)(.*?)(<!-- /datasets -->)", re.DOTALL)
NAMED = re.compile(r"(<!-- named sets -->\n)(.*?)(<!-- /named sets -->)", re.DOTALL)
LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^\"'> ]+"
    r"|<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preconnect|preload|icon))[^>]*"
    r"\bhref=[\"']?(?:https?:)?//[^\"'> ]+"
)
"""What a browser fetches by itself; links that a reader follows are not meant."""


# Hooks


def on_config(config: "MkDocsConfig") -> "MkDocsConfig":
    """Put the generated model cards into the navigation."""
    for entry in config.nav or []:
        if isinstance(entry, dict) and "Models" in entry:
            entry["Models"] += [{r.name: f"models/{r.name}.md"} for r in list_all_records()]
    return config


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the generated pages."""
    from mkdocs.structure.files import File

    for name, text in build_pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_post_page(output: str, page: "Page", config: "MkDocsConfig") -> str:
    """Refuse what would be fetched from another host when the page is opened."""
    if found := LOADED.search(output):
        from mkdocs.exceptions import PluginError

        raise PluginError(f"{page.file.src_uri}: loads from another host: {found[0]}")
    return output


# Pages


def build_pages() -> dict[str, str]:
    """Path below docs/ -> Markdown."""
    cards = {f"models/{record.name}.md": render_card(record) for record in list_all_records()}
    return {
        **cards,
        "reference/api.md": render_api(),
        "reference/command-line.md": render_command_line(),
    }


def list_all_records() -> list["WeightsRecord"]:
    """Of the shipped weights, then of those of the benchmark."""
    from overpaint.weights import list_records

    return [*list_records(), *list_records(BENCHMARKED)]


def render_card(record: "WeightsRecord") -> str:
    """A model card, from the record alone."""
    from overpaint.weights import render_tree

    shipped = record.folder.resolve() != BENCHMARKED
    place = "shipped with the package" if shipped else "`benchmarks/weights/`, not in the package"
    rows = {
        "Kind": record.kind,
        "Network": f"`{record.architecture}`",
        "Parameters": f"{record.parameters:,}",
        "File": f"`{record.file}`, {record.bytes:,} bytes; {place}",
        "SHA-256": f"`{record.sha256}`",
        "Licence": record.licence,
        "Trained on": record.data,
        "List of photos": f"SHA-256 `{record.data_sha256}`" if record.data_sha256 else "not known",
        "Commit": f"`{record.commit}`",
        "Calibration": f"`{record.calibration}`" if record.calibration else "none",
    }
    lines = [f"# {record.name}", "", "| | |", "| --- | --- |"]
    lines += [f"| {key} | {_format_cell(str(value))} |" for key, value in rows.items()]
    lines += ["", "## Configuration", "", *_fence(json.dumps(record.config, indent=2), "json")]
    tree = "\n".join(render_tree(record.lineage, record.ancestors))
    lines += ["", "## Lineage", "", *_fence(tree, "text")]
    if record.validation:
        lines += ["", "## Validation", "", "| measure | value |", "| --- | ---: |"]
        lines += [
            f"| {_format_cell(name)} | {value:.4g} |" for name, value in record.validation.items()
        ]
    if record.calibration:
        lines += ["", "## Calibration", "", *_render_calibration(record)]
    more = "use, data, figures and failures are in [the model card](../model-card.md)"
    lines += ["", f"This page is made from the weights' record; {more}."]
    return "\n".join(lines) + "\n"


def _render_calibration(record: "WeightsRecord") -> Iterator[str]:
    from overpaint.detection.calibration import Calibration

    assert record.calibration is not None, "of a calibrated record"
    fitted = Calibration.load(record.folder / record.calibration)
    yield "| quality | threshold (logit) | false-alarm rate | untouched photos | inpainted photos |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name, band in fitted.bands.items():
        rate = f"{100 * band.false_alarm_rate:g} %"
        yield (
            f"| {name} | {band.threshold_logit:.2f} | {rate} | {band.num_untouched} "
            f"| {band.num_inpainted} |"
        )


def render_api() -> str:
    """The public names, by where they are defined."""
    import overpaint

    lines = ["# Python API", "", "What `import overpaint` offers, and the errors it raises.", ""]
    for name in sorted(overpaint.__all__, key=str.lower):
        if not name.startswith("_"):
            lines += [f"::: {getattr(overpaint, name).__module__}.{name}", ""]
    return "\n".join([*lines, "## Errors", "", "::: overpaint.errors", ""])


def render_command_line() -> str:
    """Every command with its help text, arguments and options."""
    import typer

    from overpaint.cli import build

    lines = ["# Command line", ""]
    lines += _render_command(typer.main.get_command(build()), "overpaint")
    return "\n".join(lines) + "\n"


def _render_command(command: Any, path: str) -> Iterator[str]:
    import typer

    context = typer.Context(command, info_name=path.rpartition(" ")[2])
    yield f"## {path}"
    yield ""
    yield from _fence(" ".join([path, *command.collect_usage_pieces(context)]), "text")
    yield ""
    yield from (_escape_brackets(command.help or "")).splitlines()
    yield ""
    records = [p.get_help_record(context) for p in command.get_params(context)]
    shown = [record for record in records if record is not None]  # None for what is hidden
    if shown:
        yield "| | |"
        yield "| --- | --- |"
    for names, text in shown:
        yield f"| {_format_code(names)} | {_format_cell(_escape_brackets(text))} |"
    yield ""
    for name, child in getattr(command, "commands", {}).items():
        yield from _render_command(child, f"{path} {name}")


def render_dataset_table(found: tuple["Dataset", ...]) -> str:
    """The data sets in Markdown: a table, then their lists and indexes."""
    lines = ["| folder | what | used for | licence | files | size | from |"]
    lines += ["| --- | --- | --- | --- | ---: | ---: | --- |"]
    for d in found:
        size = f"{d.bytes / 1e6:.1f} MB"
        cells = (d.what, d.used_for, d.licence, f"{d.files:,}", size, _format_address(d))
        lines.append(f"| `{d.folder}` | " + " | ".join(map(_format_cell, cells)) + " |")
    lines += ["", "| folder | SHA-256 of the list of files |", "| --- | --- |"]
    lines += [f"| `{d.folder}` | `{d.sha256}` |" for d in found]
    for d in found:
        if d.index is not None:
            lines += ["", f"### {d.folder}/{d.index.file}", "", d.index.made, ""]
            lines += ["| column | |", "| --- | --- |"]
            lines += [
                f"| `{name}` | {_format_cell(text)} |" for name, text in d.index.columns.items()
            ]
            links = (re.sub(r"https?://\S+", r"<\g<0>>", source) for source in d.index.sources)
            lines += ["", "From:", "", *(f"- {link}" for link in links)]
    return "\n".join(lines) + "\n"


def _format_address(dataset: "Dataset") -> str:
    if dataset.address:
        return f"[{dataset.title}]({dataset.address})"
    return "see its index below" if dataset.index else "not known"


def _format_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _format_code(text: str) -> str:
    return f"`{_format_cell(text)}`"


def _escape_brackets(text: str) -> str:
    """Metavariables in angle brackets are no HTML."""
    return text.replace("<", "&lt;")


def _fence(text: str, language: str) -> list[str]:
    return [f"```{language}", text, "```"]


def fill_data_page(text: str) -> str:
    """The text of docs/data.md with the data sets of both manifests."""
    from overpaint.data.datasets import list_datasets
    from overpaint.data.named_sets import list_named_sets

    text = MARKED.sub(lambda m: m[1] + render_dataset_table(list_datasets()) + m[3], text)
    return NAMED.sub(lambda m: m[1] + render_named_sets(list_named_sets()) + m[3], text)


def render_named_sets(found: tuple["NamedSet", ...]) -> str:
    """The sets that a recipe takes by name, in Markdown: a table for each."""
    lines: list[str] = []
    for each in found:
        rows = {
            "from": f"<{each.address}>",
            "size": each.size,
            "licence": each.licence,
            "layout": each.layout,
            "official split": each.split,
            "not checked here": each.unchecked,
        }
        lines += [
            f"### `{each.spec}`",
            "",
            f"| {each.kind} | {_format_cell(each.title)} |",
            "| --- | --- |",
        ]
        lines += [*(f"| {key} | {_format_cell(value)} |" for key, value in rows.items()), ""]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Write docs/data.md, or with --check say whether it is up to date; -> exit status."""
    old = DATA_PAGE.read_text(encoding="utf-8")
    new = fill_data_page(old)
    if "--check" in arguments:
        return int(old != new)
    DATA_PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
