"""A recipe of hardening in; its weights, rows, tables and plot out."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from overpaint.atomic import make_folder
from overpaint.benchmark.api import ROWS
from overpaint.benchmark.hardening.plan import Race, plan_race
from overpaint.benchmark.hardening.recipe import Hardening, load_hardening
from overpaint.benchmark.hardening.rows import HardeningRow, make_rows_of_race
from overpaint.benchmark.hardening.tables import PLOT, write_plot, write_tables
from overpaint.benchmark.plots import require_matplotlib
from overpaint.benchmark.rows import write_rows
from overpaint.benchmark.running import Outlook, Progress, Report, check_work, look_ahead, run
from overpaint.benchmark.store import Stage, Store
from overpaint.errors import ConfigError
from overpaint.weights import list_records

WEIGHTS = "weights"


@dataclass(frozen=True, slots=True)
class HardeningDone:
    """What a race gave."""

    recipe: Hardening
    rows: list[HardeningRow]
    files: list[Path]

    @property
    def num_failed(self) -> int:
        """Rows with an error."""
        return sum(1 for row in self.rows if row.error)


def harden(
    path: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    cache: str | Path = "cache/benchmark",
    scale: str | None = None,
    resume: bool = False,
    jobs: int = 1,
    device: str = "cpu",
    report: Report = lambda _: None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> HardeningDone:
    """Run what is missing of all rounds, and write the weights of each, rows, tables and the plot.

    Arguments as of `benchmark.api.benchmark`. What was finished before is not done anew, and a
    training that was interrupted goes on from its checkpoint. Raises ConfigError for the recipe and
    where what is held out is in the loop, InputError for `jobs` and `device`.
    """
    check_work(jobs, device)
    recipe = load_hardening(Path(path), scale)
    require_matplotlib()  # before anything is measured
    store, folder = Store(Path(cache), resume, device), Path(out)
    with store.lock():
        race = plan_race(recipe, Path(path).parent, Path(data), Path(cache))
        make_folder(folder, ConfigError, "choose another --out")  # before anything is measured
        how = {"report": report, "on_progress": on_progress}
        errors = run(race.cells, store, jobs=jobs, **how)  # type: ignore[arg-type]
        rows = make_rows_of_race(recipe, race, store, errors)
        write_rows(folder / ROWS, rows, HardeningRow)
        files = [folder / ROWS, *write_tables(recipe, rows, folder)]
        files.append(write_plot(recipe, rows, folder / PLOT))
        files += copy_weights(race, store, errors, folder / WEIGHTS)
    return HardeningDone(recipe, rows, files)


def copy_weights(race: Race, store: Store, errors: dict[Stage, str], out: Path) -> list[Path]:
    """The weights of every round with their records and thresholds; -> the weights' paths."""
    stages = [m.stage for m in (*race.detectors, *race.adversaries) if m.stage is not None]
    made = [
        stage for stage in stages if stage not in errors and store.read_about(stage) is not None
    ]
    written = []
    for stage in made:
        for record in list_records(store.find_folder(stage)):
            out.mkdir(parents=True, exist_ok=True)
            names = [record.file, record.calibration, f"{record.name}.json"]  # the record last
            for name in filter(None, names):
                shutil.copyfile(record.folder / name, out / name)
            written.append(out / record.file)
    return written


def estimate_run(
    path: str | Path,
    data: str | Path,
    *,
    cache: str | Path = "cache/benchmark",
    scale: str | None = None,
    resume: bool = False,
    device: str = "cpu",
) -> Outlook:
    """What a run would make, and how long that takes; nothing is made."""
    race = plan_race(load_hardening(Path(path), scale), Path(path).parent, Path(data), Path(cache))
    return look_ahead(race.cells, Store(Path(cache), resume, device))
