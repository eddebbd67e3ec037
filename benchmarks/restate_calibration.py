"""Rows of results after a calibration was rewritten with the same thresholds.

    git show HEAD:src/overpaint/pretrained/nixnet-s.calibration.json > before.json
    overpaint calibrate nixnet-s --photos DATA/photos --only-edits --overwrite-shipped
    python benchmarks/restate_calibration.py before.json \\
        src/overpaint/pretrained/nixnet-s.calibration.json

The rows name the calibration by its hash, which changes with the counts of ordinary edits, too. If
a threshold differs, this is refused: then the rows have to be measured again.
"""

from pathlib import Path
from typing import Annotated

import typer

from overpaint.errors import OverpaintError

ROOT = Path(__file__).parents[1]


def main(
    before: Annotated[Path, typer.Argument(help="Calibration that the rows name.")],
    after: Annotated[Path, typer.Argument(help="Calibration that they are to name.")],
    results: Annotated[Path, typer.Option(help="Folder of the CSV files.")] = ROOT / "results",
) -> None:
    """Replace a calibration's hash in all rows, where the thresholds are the same."""
    from overpaint.benchmark.restating import restate_calibration

    changed = restate_calibration(results, before, after)
    typer.echo("\n".join(map(str, changed)) or "no row names that calibration")


if __name__ == "__main__":
    try:
        typer.run(main)
    except OverpaintError as error:
        raise SystemExit(str(error)) from error
