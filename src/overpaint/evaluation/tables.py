"""Tables of a Markdown file, rendered from `results/*.csv` between markers.

- The text between `<!-- table:NAME -->` and `<!-- /table -->` is replaced by a table.
  NAME is a key of `LAYOUTS`; a second word picks the weights where a file holds several, in their
  order: `<!-- table:triplets nixnet -->`, `<!-- table:inpainting telea,lama-s -->`. Without it, a
  table of one set of weights shows the first in the file, and one of many shows all.
- `python -m overpaint.evaluation.tables README.md docs/benchmarks*.md` rewrites files; with
  `--check` it changes nothing and exits with 1 when a table is out of date.
"""

import argparse
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from overpaint.errors import ConfigError, OverpaintError
from overpaint.evaluation.family_table import TRAINED_ON, TRAINING, list_families
from overpaint.evaluation.fillers import BINS, SIDES, name_method
from overpaint.evaluation.rows import Row, read_rows
from overpaint.images import write_bytes
from overpaint.metrics import EQUAL_PSNR
from overpaint.terminal import say

MARKER = re.compile(r"(<!-- table:(\S+)(?: (\S+))? -->\n)(.*?)(<!-- /table -->)", re.DOTALL)
NOTHING = "n/a"


@dataclass(frozen=True, slots=True)
class Layout:
    """What a table shows of one file of results."""

    file: str
    first: str
    """Heading of the first column."""
    columns: dict[str, str]
    """Metric (or, with `metric` given, method) -> heading."""
    metric: str | None = None
    """When given, a table line is one set of weights, its columns are methods in this metric, or
    "METHOD:METRIC" in another one. Weights without any of them have no line, unless no weights have
    any: then the metric could not be measured, and each line says so."""
    interval: bool = False
    """Show the 95 % interval."""
    split: Literal["set", "condition"] | None = None
    """When given, methods are "SET, CONDITION", a table line is one set (or one condition) of one
    set of weights, and its columns are "CONDITION:METRIC" (or "SET:METRIC"). Lines with nothing to
    show are left out."""


_MEASURES = {
    "auc": "pixel AUC",
    "miou@0.5": "mIoU",
    "f1@0.5": "F1",
    "miou@default": "mIoU, default threshold",
    "f1@default": "F1, default threshold",
    "flagged@default": "flagged",
}
_FOUR = {
    "madf": "MADF",
    "crfill256": "CR-Fill",
    "deepfillv1": "DeepFill v1",
    "sd2_fill": "Stable Diffusion 2",
}
_GROUPS = {"headline": "mean of the four", **_FOUR}
_METHODS = {
    **_GROUPS,
    "headline, choice half": "mean of the four, choice half",
    "headline, report half": "mean of the four, report half",
    "crfill_jpeg": "CR-Fill, large JPEG",
    "sd2_replace": "Stable Diffusion 2, background",
    "patchmatch_misc": "classical",
}
_COMPARED = {
    f"{kind}, lossless:{metric}": f"{bank}, {_MEASURES[metric]}"
    for kind, bank in (("bank", "bank"), ("held-out", "held-out AE"))
    for metric in ("miou@0.5", "f1@0.5", "auc")
}
_TABLE_1 = {
    f"{name}:{metric}": f"{short}, {_MEASURES[metric]}"
    for name, short in (("glcic-s", "GL"), ("deepfill_v1-s", "CA"), ("deepfill_v2-s", "GC"))
    for metric in ("miou@0.5", "f1@0.5", "auc")
}
_EXPERIMENT = {
    "triplets of the choice half, as is:auc": "triplets, choice half",
    "triplets of the report half, as is:auc": "report half",
    **{f"triplets:{group}, as is:auc": name for group, name in _FOUR.items()},
    "forged, as is:auc": "forged",
    "forged, JPEG 85:auc": "forged, JPEG 85",
    "forged, as is:miou@0.5": "forged, mIoU",
    "universal:held-out, as is:miou@0.5": "held-out AE, mIoU",
    "untouched, as is:flagged@default": "untouched flagged",
}
_RATIOS = ("10-20", "20-30", "30-40", "40-50", "50-60")
_HOLES = {**{ratio: f"{ratio} %" for ratio in _RATIOS}, "all": "all"}
_FILLED = {name_method(share, side): name_method(share, side) for side in SIDES for share in BINS}
_SEEN = {f"{ratio}, nixnet-s": heading for ratio, heading in _HOLES.items()}


def _make_columns(method: str, of: str = "") -> dict[str, str]:
    """Columns for time and peak memory of a method."""
    return {
        f"{method}:seconds": f"{of} time".strip(),
        f"{method}:peak_mib": f"{of} peak memory".strip(),
    }


LAYOUTS = {
    "headline": Layout("triplets", "weights", _GROUPS, metric="auc", interval=True),
    "ablation": Layout("triplets", "weights", _GROUPS, metric="auc"),
    "triplets": Layout("triplets", "pictures filled in by", _MEASURES),
    "universal": Layout("universal", "universal test data", _MEASURES),
    "detectors": Layout("universal", "weights", _COMPARED, metric="miou@0.5"),
    "detectors-forged": Layout("forged", "weights", _TABLE_1, metric="miou@0.5"),
    "detectors-triplets": Layout(
        "triplets",
        "weights",
        {**_GROUPS, **{f"{group}:f1@0.5": f"{name}, F1" for group, name in _FOUR.items()}},
        metric="auc",
    ),
    "robustness": Layout(
        "robustness",
        "pictures",
        {
            "triplets:auc": "triplets, AUC",
            "triplets of the report half:auc": "report half, AUC",
            "triplets of the report half:f1@default": "report half, F1",
            "forged:auc": "forged, AUC",
            "forged:miou@0.5": "forged, mIoU",
            "universal:held-out:auc": "held-out AE, AUC",
            "universal:held-out:miou@0.5": "held-out AE, mIoU",
            "untouched:flagged@default": "untouched flagged",
        },
        split="condition",
    ),
    "robustness-sets": Layout(
        "robustness",
        "set",
        {
            "as is:auc": "pixel AUC",
            "as is:miou@0.5": "mIoU",
            "as is:f1@default": "F1, default threshold",
            "JPEG 85:auc": "pixel AUC after JPEG 85",
            "resize 0.75:auc": "after resizing to 0.75",
        },
        split="set",
    ),
    "families-each": Layout(
        "families",
        "generator",
        {
            "as is:auc": "pixel AUC",
            "4:2:0:auc": "both at 4:2:0",
            "JPEG 85:auc": "JPEG 85",
            "resize 0.75 and JPEG 80:auc": "resize 0.75, JPEG 80",
            "as is:f1@default": "F1, default threshold",
            "JPEG 85:f1@default": "F1, JPEG 85",
        },
        split="set",
        interval=True,
    ),
    "experiments": Layout("robustness", "pixel AUC, or as named", _EXPERIMENT, metric="auc"),
    "untouched": Layout(
        "untouched",
        "untouched photos",
        {
            "flagged@as-is": "as they are",
            "flagged@jpeg95": "JPEG 95",
            "flagged@jpeg85": "JPEG 85",
            "flagged@jpeg60": "JPEG 60",
        },
    ),
    "edits": Layout(
        "edits",
        "photos after",
        {
            "strong@lossless": "strong trace, lossless",
            "inconclusive@lossless": "inconclusive",
            "strong@jpeg90": "strong trace, JPEG 90",
            "inconclusive@jpeg90": "inconclusive, JPEG 90",
        },
    ),
    "autoencoders": Layout("autoencoders", "autoencoder", {"psnr": "PSNR, unseen photos"}),
    "inpainting": Layout("inpainting", "PSNR by hole", _HOLES, metric="psnr"),
    "inpainting-ssim": Layout("inpainting", "SSIM by hole", _HOLES, metric="ssim"),
    "inpainting-l1": Layout("inpainting", "L1 by hole", _HOLES, metric="l1"),
    "inpainting-vgg": Layout(
        "inpainting", "distance by the distilled VGG, by hole", _HOLES, metric="vgg-distilled"
    ),
    "inpainting-lpips": Layout("inpainting", "LPIPS by hole", _HOLES, metric="lpips-alex"),
    "inpainting-auc": Layout("inpainting", "pixel AUC of nixnet-s by hole", _SEEN, metric="auc"),
    "safepaint-ablation": Layout(
        "inpainting",
        "all holes",
        {
            "all:psnr": "PSNR",
            "all:vgg-distilled": "distance by the distilled VGG",
            "all, nixnet-s:auc": "pixel AUC of nixnet-s",
            "all, nixnet-s:f1@0.5": "its F1 at 0.5",
        },
        metric="psnr",
    ),
    "fillers": Layout(
        "fillers", "distance by the distilled VGG, by hole", _FILLED, metric="vgg-distilled"
    ),
    "fillers-seconds": Layout("fillers", "time of a fill, by hole", _FILLED, metric="seconds"),
    "known_pixels": Layout(
        "known_pixels", "inpainter", {"written PNG": "changed known pixels"}, metric="changed"
    ),
    "speed": Layout("speed", "what", {"seconds": "time", "peak_mib": "peak memory"}),
    "runtimes": Layout(
        "runtimes",
        "runtime",
        {
            "seconds": "time",
            "seconds, ratio": "of plain",
            "processor seconds": "processor time, s",
            "processor seconds, ratio": "of plain, processor",
            "peak_mib": "peak memory",
        },
    ),
    "peers": Layout(
        "peers",
        "detector",
        {
            "seconds": "time",
            "seconds, ratio": "times as long",
            "processor seconds": "processor time, s",
            "processor seconds, ratio": "times as long, processor",
            "peak_mib": "peak memory",
        },
    ),
    "precision": Layout(
        "precision",
        "pictures",
        {
            "logit, mean": "difference of a logit, mean",
            "logit, largest": "largest in a picture, mean",
            "statistic": "difference of the statistic, mean",
            "statistic, largest": "largest",
            "other verdict": "share with another verdict",
            "auc, fp32": "pixel AUC, fp32",
            "auc, bf16": "bf16",
        },
    ),
    "scan": Layout(
        "scan",
        "runtime",
        {
            "megapixels": "megapixels a photo",
            "loop processor seconds": "detect in a loop, processor seconds a photo",
            "scan processor seconds": "scan",
            "times less processor time": "times less",
            "times as fast": "times as fast by the clock",
            "network share": "network's share of the time",
            "MB per 1000 photos": "MB more for each 1,000 photos",
        },
    ),
    "detect-large": Layout(
        "speed",
        "12 megapixels",
        _make_columns("detect in 12 megapixels"),
        metric="seconds",
    ),
    "inpaint-large": Layout(
        "speed",
        "a hole of 300x300 in 12 megapixels",
        _make_columns("inpaint 300x300 in 12 megapixels"),
        metric="seconds",
    ),
    "networks": Layout(
        "speed",
        "network",
        {
            "network:parameters": "parameters",
            **_make_columns("256 px", "256 px"),
            **_make_columns("512 px", "512 px"),
        },
        metric="seconds",
    ),
}


FAMILIES = "families"
"""The table of generator families, which joins two files: see `family_table`."""
UNSEEN_FAMILIES = "families-unseen"
"""The same without those that the weights were trained on."""
_FAMILY_COLUMNS = {
    "as is:auc": "pixel AUC",
    "as is:f1@default": "F1, default threshold",
    "JPEG 85:auc": "pixel AUC after JPEG 85",
    "JPEG 85:f1@default": "F1 after JPEG 85",
}


def format_cell(row: Row | None, interval: bool = False) -> str:
    """A number in the units of its metric."""
    if row is None or math.isnan(row.value):
        return NOTHING
    kind = row.metric.partition("@")[0]
    if kind in ("flagged", "strong", "inconclusive"):
        return f"{100 * row.value:.1f} %"
    if kind == "psnr":
        if row.value >= EQUAL_PSNR:
            return "equal"
        return f"{row.value:.1f} dB"
    if kind == "seconds":
        return f"{row.value:.2f} s" if row.value < 10 else f"{row.value:.0f} s"
    if kind == "parameters":
        return f"{row.value / 1e6:.1f} M"
    if kind == "changed":
        return f"{row.value:.0f} in {row.n} photos"
    if kind == "peak_mib":
        return f"{row.value:.0f} MiB"
    text = f"{row.value:.3f}"
    if interval and not math.isnan(row.ci_low):
        text += f" ({row.ci_low:.3f} to {row.ci_high:.3f})"
    return text


def render(name: str, results: Path, weights: str | None = None) -> str:
    """The Markdown of one table; raises ConfigError for an unknown name or a missing file."""
    if name in (FAMILIES, UNSEEN_FAMILIES):
        return _render_markdown(_render_families(results, str(weights), name == FAMILIES))
    if name not in LAYOUTS:
        known = ", ".join([*LAYOUTS, FAMILIES, UNSEEN_FAMILIES])
        raise ConfigError(f"no table is called {name!r}; there are {known}")
    layout = LAYOUTS[name]
    path = results / f"{layout.file}.csv"
    rows = read_rows(path)
    known = list(dict.fromkeys(r.weights for r in rows))
    wanted = weights.split(",") if weights else known
    missing = [each for each in wanted if each not in known] or ([] if rows else [""])
    if missing:
        raise ConfigError(f"{path}: no row for the table {name} {', '.join(missing)}; measure it")
    if layout.metric is None:
        wanted = wanted[:1]
    rows = [r for each in wanted for r in rows if r.weights == each]
    if layout.split is not None:
        lines = _group_by_part(rows, layout)
    else:
        lines = (
            _group_by_method(rows, layout)
            if layout.metric is None
            else _group_by_weights(rows, layout)
        )
    return _render_markdown(lines)


def _render_markdown(lines: Iterable[Iterable[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _render_families(results: Path, weights: str, all_families: bool) -> list[list[str]]:
    """A line for each generator family (`family_table`)."""
    lines = [["filled in by", "photos", *_FAMILY_COLUMNS.values()]]
    lines.append(["---", *["---:"] * (len(lines[0]) - 1)])
    found = list_families(results, lambda row: row.weights == weights)
    if not found:
        raise ConfigError(f"{results}: no row for the table {FAMILIES} {weights}; measure it")
    for line in found:
        if line.title.startswith((TRAINED_ON, TRAINING)) and not all_families:
            continue
        shown = [format_cell(line.rows.get(c)) for c in _FAMILY_COLUMNS]
        lines.append([line.title, str(line.num_pictures or NOTHING), *shown])
    return lines


def _group_by_method(rows: Sequence[Row], layout: Layout) -> list[list[str]]:
    found = {(r.method, r.metric): r for r in rows}
    shown = {m: h for m, h in layout.columns.items() if any(r.metric == m for r in rows)}
    lines = [[layout.first, "n", *shown.values()], ["---", *["---:"] * (len(shown) + 1)]]
    for method in dict.fromkeys(r.method for r in rows):
        cells = [found.get((method, metric)) for metric in shown]
        n = max((c.n for c in cells if c), default=0)
        lines.append(
            [
                _METHODS.get(method, method),
                str(n),
                *(format_cell(c, layout.interval) for c in cells),
            ]
        )
    return lines


def _group_by_weights(rows: Sequence[Row], layout: Layout) -> list[list[str]]:
    found = {(r.weights, r.method, r.metric): r for r in rows}
    # The method may hold colons, the metric does not.
    columns = [column.rpartition(":") for column in layout.columns]
    named = [(m, metric) if m else (metric, str(layout.metric)) for m, _, metric in columns]
    cells = {
        weights: [found.get((weights, method, metric)) for method, metric in named]
        for weights in dict.fromkeys(r.weights for r in rows)
    }
    measured = {weights: row for weights, row in cells.items() if any(row)} or cells
    return [
        [layout.first, *layout.columns.values()],
        ["---", *["---:"] * len(layout.columns)],
        *(
            [weights, *(format_cell(c, layout.interval) for c in row)]
            for weights, row in measured.items()
        ),
    ]


def _group_by_part(rows: Sequence[Row], layout: Layout) -> list[list[str]]:
    found: dict[str, dict[str, Row]] = {}  # by line and column
    for r in rows:
        name, _, condition = r.method.rpartition(", ")
        line, column = (name, condition) if layout.split == "set" else (condition, name)
        if f"{column}:{r.metric}" in layout.columns:
            found.setdefault(line, {})[f"{column}:{r.metric}"] = r
    shown = {c: h for c, h in layout.columns.items() if any(c in cells for cells in found.values())}
    return [
        [layout.first, *shown.values()],
        ["---", *["---:"] * len(shown)],
        *(
            [line, *(format_cell(cells.get(c), layout.interval) for c in shown)]
            for line, cells in found.items()
        ),
    ]


def fill(text: str, results: Path) -> str:
    """A Markdown text with every marked table rendered anew."""
    opened, closed = text.count("<!-- table:"), len(MARKER.findall(text))
    if opened != closed:
        raise ConfigError(f"{opened} tables are opened, {closed} closed with <!-- /table -->")
    return MARKER.sub(lambda m: m[1] + render(m[2], results, m[3]) + m[5], text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; -> exit status."""
    parser = argparse.ArgumentParser(prog="python -m overpaint.evaluation.tables")
    parser.add_argument("files", type=Path, nargs="+", help="Markdown files with table markers")
    parser.add_argument(
        "--results", type=Path, help="default: results/ beside the file, or beside its folder"
    )
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    options = parser.parse_args(arguments)
    done = [_update(path, options.results, options.check) for path in options.files]
    return 0 if all(done) else 1


def _update(path: Path, results: Path | None, only_check: bool) -> bool:
    beside = [folder / "results" for folder in path.absolute().parents[:2]]
    found = results or next((b for b in beside if b.is_dir()), beside[0])
    return update_page(path, lambda text: fill(text, found), only_check=only_check)


def update_page(path: Path, render: Callable[[str], str], *, only_check: bool) -> bool:
    """Write a page with its tables as `render` makes them; -> whether it is up to date now.

    only_check: write nothing. Errors are printed on standard error.
    """
    try:
        old = path.read_text(encoding="utf-8")
        new = render(old)
        if old != new and not only_check:
            write_bytes(path, new.encode())
    except (OSError, OverpaintError) as error:
        say(f"{path}: {error}", err=True)
        return False
    if only_check and old != new:
        say(f"{path}: tables out of date; run without --check", err=True)
        return False
    return True


def list_published_pages(root: Path) -> list[str]:
    """The files of a checkout whose tables show `results/`."""
    docs = root / "docs"
    pages = (root / "README.md", docs / "model-card.md", *sorted(docs.glob("benchmarks*.md")))
    pages = (*pages, docs / "scale.md")
    return [str(path) for path in pages]


if __name__ == "__main__":
    sys.exit(main())
