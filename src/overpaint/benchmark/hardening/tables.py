"""The tables of a race, in Markdown, and its plot, from the rows alone."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from overpaint.benchmark.hardening.plan import UNTOUCHED
from overpaint.benchmark.hardening.recipe import OF_FILLS, Hardening
from overpaint.benchmark.hardening.rows import (
    APART,
    DETECTOR,
    GAIN,
    INPAINTER,
    LOOP,
    MINED,
    REAL,
    HardeningRow,
)
from overpaint.benchmark.plots import require_matplotlib
from overpaint.benchmark.rendering import FAILED, NOTHING, WORDS, Table, render_markdown_lines
from overpaint.benchmark.stages import FOUND
from overpaint.images import write_bytes

SHOWN = {
    "auc": "Pixel AUC",
    "f1@default": "F1 at the threshold of the round",
    FOUND: "Share of pictures found",
}
MEANS = (LOOP, APART, REAL)
TABLE, PLOT = "table.md", "rounds.png"
BELOW: dict[str, Any] = {
    "fontsize": "small",
    "loc": "upper center",
    "bbox_to_anchor": (0.5, -0.16),
    "ncols": 2,
}
"""Where a legend hides no line."""


def tabulate(recipe: Hardening, rows: Sequence[HardeningRow]) -> list[Table]:
    """All tables of a race."""
    found = {(r.side, r.inpainter, r.round, r.metric): r for r in rows}
    rounds = range(recipe.rounds + 1)
    headings = [f"round {number}" if number else "before" for number in rounds]

    def make_cell(
        side: str, generator: str, number: int, metric: str, interval: bool = False
    ) -> str:
        return _format_cell(found.get((side, generator, number, metric)), interval)

    last = recipe.rounds
    tables = [
        Table(
            f"What was gained in {last} rounds, at the same false-alarm rate",
            ["generators", *(f"{SHOWN[m]}, change" for m in SHOWN)],
            [
                [name, *(make_cell(DETECTOR, name, last, f"{GAIN}{m}", True) for m in SHOWN)]
                for name in (*MEANS, *_list_single(rows))
            ],
            1,
            [],
        ),
        Table(
            "Untouched pictures that reach the threshold (false alarms)",
            ["pictures", "n", *headings],
            [
                [
                    name,
                    str(_count_pictures(rows, name)),
                    *(make_cell(DETECTOR, name, k, FOUND, True) for k in rounds),
                ]
                for name in _list_generators(rows, "untouched")
            ],
            1,
            [],
        ),
    ]
    names = [*MEANS, *_list_generators(rows, "in the loop"), *_list_generators(rows, "adversary")]
    names += [
        *_list_generators(rows, "held-out inpainter"),
        *_list_generators(rows, "held-out real fills"),
    ]
    held_out = {r.inpainter for r in rows if r.held_out == "yes"}
    for metric, title in SHOWN.items():
        lines = [
            [
                name,
                "yes" if name in held_out or name in MEANS[1:] else "no",
                str(_count_pictures(rows, name)),
            ]
            + [make_cell(DETECTOR, name, k, metric, name in MEANS) for k in rounds]
            for name in names
        ]
        tables.append(Table(title, ["generator", "held out", "n", *headings], lines, 2, []))
    tables.append(
        Table(
            f"{recipe.adversary.name} after each round",
            ["", *(f"AUC of the detector, {h}" for h in headings), *(WORDS[m] for m in OF_FILLS)],
            [
                [h]
                + [make_cell(DETECTOR, recipe.name_adversary(k), j, "auc") for j in rounds]
                + [make_cell(INPAINTER, recipe.name_adversary(k), k, m) for m in OF_FILLS]
                for k, h in zip(rounds, headings, strict=True)
            ],
            1,
            [],
        )
    )
    mined = [r for r in rows if r.metric == MINED]
    tables.append(
        Table(
            f"Share of the fills that was mined (the lowest {recipe.mining.by})",
            ["inpainter", *headings[1:]],
            [
                [name, *(make_cell(DETECTOR, name, k, MINED) for k in rounds[1:])]
                for name in dict.fromkeys(r.inpainter for r in mined)
            ],
            1,
            [],
        )
    )
    return tables


def _format_cell(row: HardeningRow | None, interval: bool) -> str:
    if row is None:
        return NOTHING
    if row.error:
        return FAILED
    if math.isnan(row.value):
        return NOTHING
    digits, sign = (2, "") if row.metric == "psnr" else (3, "+" if row.metric[:5] == GAIN else "")
    text = f"{row.value:{sign}.{digits}f}"
    if interval and not math.isnan(row.ci_low):
        text += f" ({row.ci_low:{sign}.{digits}f} to {row.ci_high:{sign}.{digits}f})"
    return text


def _list_generators(rows: Iterable[HardeningRow], group: str) -> list[str]:
    return list(dict.fromkeys(r.inpainter for r in rows if r.group == group))


def _list_single(rows: Sequence[HardeningRow]) -> list[str]:
    """Held-out generators where there is only one of a kind, so that it has no mean."""
    kinds = (
        _list_generators(rows, group) for group in ("held-out inpainter", "held-out real fills")
    )
    return [names[0] for names in kinds if len(names) == 1]


def _count_pictures(rows: Iterable[HardeningRow], name: str) -> int:
    return max((r.n for r in rows if r.inpainter == name and r.metric != MINED), default=0)


def render_markdown(recipe: Hardening, rows: Sequence[HardeningRow]) -> str:
    """All tables, and what they rest on."""
    commits = sorted({row.commit for row in rows if row.commit})
    steps = sorted({row.steps for row in rows if row.steps}, key=int)
    facts = [
        f"Scale `{recipe.scale or 'none'}`, configuration `{recipe.hash}`, commits "
        f"{', '.join(f'`{c[:12]}`' for c in commits) or 'none'}, seed {recipe.seed}, "
        f"{recipe.size} px.",
        f"{recipe.detector.name} goes on for {' or '.join(steps) or 'no'} steps a round, with a "
        f"share of {recipe.detector.share:g} mined fills; its threshold is fitted after each round "
        f"at {recipe.false_alarm_rate:.2%} of {recipe.untouched} untouched pieces.",
        f"Failed rows: {sum(1 for row in rows if row.error)} of {len(rows)}.",
    ]
    if recipe.notes:
        facts += ["", *(f"- {line}" for line in recipe.notes)]
    parts = [f"# {recipe.title}", "", *facts, ""]
    for table in tabulate(recipe, rows):
        parts += [f"## {table.title}", "", *render_markdown_lines(table), ""]
    if failures := list(dict.fromkeys(row.error for row in rows if row.error)):
        parts += ["## Failed", "", *(f"- {' '.join(error.split())}" for error in failures), ""]
    return "\n".join(parts)


def write_tables(recipe: Hardening, rows: Sequence[HardeningRow], out: Path) -> list[Path]:
    """table.md; -> its path."""
    write_bytes(out / TABLE, render_markdown(recipe, rows).encode())
    return [out / TABLE]


# The plot


def write_plot(recipe: Hardening, rows: Sequence[HardeningRow], path: Path) -> Path:
    """Left, what the detector finds by round; right, both sides move by move. PNG; -> its path."""
    figure = require_matplotlib().Figure(figsize=(11, 5.2), layout="constrained", dpi=120)
    left, right = figure.subplots(1, 2)
    found = {(r.side, r.inpainter, r.round, r.metric): r for r in rows if not r.error}
    _draw_detector(left, recipe, rows, found)
    _draw_moves(right, recipe, found)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the version of matplotlib, so that the same rows give the same file.
    figure.savefig(path, metadata={"Software": None})
    return path


def _draw_detector(
    axes: Any, recipe: Hardening, rows: Sequence[HardeningRow], found: dict[Any, HardeningRow]
) -> None:
    names = [n for n in (*MEANS, *_list_single(rows)) if (DETECTOR, n, 0, "auc") in found]
    for place, name in enumerate(names):
        points = [found.get((DETECTOR, name, k, "auc")) for k in range(recipe.rounds + 1)]
        shown = [p for p in points if p is not None]
        places = [p.round + 0.04 * (place - (len(names) - 1) / 2) for p in shown]  # side by side
        ends = [[p.value - p.ci_low for p in shown], [p.ci_high - p.value for p in shown]]
        axes.errorbar(places, [p.value for p in shown], ends, marker="o", capsize=3, label=name)
    alarms = [found.get((DETECTOR, UNTOUCHED, k, FOUND)) for k in range(recipe.rounds + 1)]
    axes.plot(
        [r.round for r in alarms if r],
        [r.value for r in alarms if r],
        color="grey",
        linestyle="--",
        marker="x",
        label=f"false alarms (fitted at {recipe.false_alarm_rate:.0%})",
    )
    axes.set(
        title=f"{recipe.detector.name}: pixel AUC and false alarms by round",
        xlabel="round",
        ylim=(0, 1),
    )
    axes.set_xticks(range(recipe.rounds + 1))
    axes.legend(**BELOW)
    axes.grid(alpha=0.3)


def _draw_moves(axes: Any, recipe: Hardening, found: dict[Any, HardeningRow]) -> None:
    """The detector against the adversary after each training of either."""
    moves = [(0, 0)]
    for number in range(1, recipe.rounds + 1):
        moves += [(number, number - 1), (number, number)]
    labels = ["before"]
    for number in range(1, recipe.rounds + 1):
        labels += [f"detector\nround {number}", f"{recipe.adversary.name}\nround {number}"]
    for metric, title in SHOWN.items():
        points = [
            found.get((DETECTOR, recipe.name_adversary(adversary), detector, metric))
            for detector, adversary in moves
        ]
        values = [math.nan if p is None else p.value for p in points]
        axes.plot(range(len(moves)), values, marker="o", label=title)
    axes.set(title=f"{recipe.adversary.name}'s fills, after each side's training", ylim=(0, 1))
    axes.set_xticks(range(len(moves)), labels, fontsize="small")
    axes.grid(alpha=0.3)
    quality = [
        found.get((INPAINTER, recipe.name_adversary(adversary), adversary, "psnr"))
        for _, adversary in moves
    ]
    other = axes.twinx()
    other.set_ylabel("PSNR, dB")
    values = [math.nan if p is None else p.value for p in quality]
    other.plot(range(len(moves)), values, color="grey", linestyle="--", label="PSNR, dB (right)")
    finite = [v for v in values if not math.isnan(v)]
    if finite:
        other.set_ylim(min(finite) - 5, max(finite) + 5)
    lines, names = axes.get_legend_handles_labels()
    more, more_names = other.get_legend_handles_labels()
    axes.legend(lines + more, names + more_names, **BELOW)
