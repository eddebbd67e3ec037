"""`overpaint evaluate`: measure weights on universal data, triplets and untouched photos."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from overpaint.defaults import DEFAULT_DETECTOR
from overpaint.devices import DEVICE_HELP
from overpaint.terminal import say

if TYPE_CHECKING:
    from overpaint.data.real_fills import Pool as PoolName

Data = Annotated[Path, typer.Option("--data", help="Folder with photos, faces and triplets.")]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        help="Shipped name, weights file, or NAME=FILE to name it in the tables; repeatable. "
        f"Default: {DEFAULT_DETECTOR}.",
    ),
]
Only = Annotated[
    str,
    typer.Option(
        "--only",
        help="Parts, with commas between. Default: all but edits, forged and families; robustness "
        "only with --forged.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Number of pictures of a kind, for a quick run."),
]
Lossless = Annotated[
    bool,
    typer.Option(
        "--lossless", help="Universal data without its JPEG versions: a third of the time."
    ),
]
Bank = Annotated[
    Path | None, typer.Option("--bank", help="Folder of autoencoders. Default: the shipped ones.")
]
Forged = Annotated[
    list[Path] | None,
    typer.Option(
        "--forged",
        help="Folder of `overpaint forge`, or of such folders, for robustness and forged; "
        "repeatable.",
    ),
]
Conditions = Annotated[
    str,
    typer.Option(
        "--conditions",
        help='For robustness and families: "as is,JPEG 85". Default: all.',
    ),
]
Sheets = Annotated[
    Path | None,
    typer.Option(
        "--sheets", help="For robustness and families: folder of contact sheets, best and worst."
    ),
]
Families = Annotated[
    str,
    typer.Option(
        "--families", help="For families: those to measure, with commas between. Default: all."
    ),
]
Pool = Annotated[
    str,
    typer.Option(
        "--pool", help='For families: "train" or "dev", of the real fills. Default: both.'
    ),
]


def evaluate(
    data: Data,
    weights: Weights = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the results.")] = Path("results"),
    only: Only = "",
    limit: Limit = None,
    lossless: Lossless = False,
    bank: Bank = None,
    device: Annotated[str, typer.Option("--device", help=DEVICE_HELP)] = "cpu",
    forged: Forged = None,
    conditions: Conditions = "",
    sheets: Sheets = None,
    families: Families = "",
    pool: Pool = "",
) -> None:
    """Measure detectors and write results/*.csv, and where each number comes from.

    Parts: universal, triplets, untouched, edits, autoencoders, speed, robustness, forged, families.
    Rows of the same weights and part are replaced, others are left; sources.csv holds commit,
    weights and calibration of each row, pictures/*.parquet the numbers of each picture (which needs
    pyarrow: pip install "overpaint[results]"). A quick look with --limit belongs in a folder of its
    own.

    Edits looks at photos that were edited and not inpainted (blur, rotation, montage and others),
    and has to be named. Forged looks at forgeries of test photos, and has to be named. Robustness
    looks at these and all other pictures, as is and after JPEG, WebP and resizing. That takes an
    hour or more: it has to be named, or given forgeries.

    Families looks at real fills and triplets by the generator that made them, and has to be named,
    too. With several weights, each family is also judged by those that were not trained on it.
    """
    from overpaint.evaluation.benchmark import evaluate as measure
    from overpaint.evaluation.measurement import RobustnessSettings, Settings

    named = dict(_parse_weights(text) for text in weights or [DEFAULT_DETECTOR])
    special = RobustnessSettings(
        tuple(forged or ()),
        tuple(_split_list(conditions)),
        sheets,
        tuple(_split_list(families)),
        _select_pools(pool),
    )
    rows = measure(
        named,
        data,
        out,
        _split_list(only),
        settings=Settings(limit=limit, qualities=() if lossless else Settings().qualities),
        bank=bank,
        robustness=special,
        device=device,
        report=lambda line: say(line, err=True),
    )
    width = max((len(row.method) for row in rows), default=0)
    for row in rows:
        known = not math.isnan(row.ci_low)
        interval = f" ({row.ci_low:.4g} to {row.ci_high:.4g})" if known else ""
        place = f"{row.weights or '-':<14} {row.set:<13} {row.method:<{width}} {row.metric:<16}"
        say(f"{place} {row.value:.4g}{interval} n={row.n}")


def _split_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _select_pools(text: str) -> tuple["PoolName", ...]:
    from overpaint.data.real_fills import POOLS

    if text and text not in POOLS:
        raise typer.BadParameter(f"no pool is called {text!r}; there are {' and '.join(POOLS)}")
    return tuple(pool for pool in POOLS if pool == text)


def _parse_weights(text: str) -> tuple[str, str]:
    """(name in the tables, name or path of the weights)."""
    name, equals, path = text.partition("=")
    if equals:
        return name, path
    return Path(text).stem if "/" in text or "." in text else text, text
