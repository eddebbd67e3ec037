"""The part "edits": verdicts on photos that were edited and not inpainted."""

from pathlib import Path

import numpy as np
import pytest

from helpers.bright_detectors import calibration, registered, save
from overpaint.data.ordinary_edits import WORDS
from overpaint.errors import ConfigError
from overpaint.evaluation.benchmark import evaluate
from overpaint.evaluation.measurement import Settings
from overpaint.evaluation.tables import render
from overpaint.images import write_png


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Dim noise: only what an edit makes bright can reach the threshold (grey 178)."""
    folder, rng = tmp_path / "data" / "photos" / "noise", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(30):
        write_png(folder / f"{i}.png", rng.integers(40, 80, (72, 96, 3)).astype(np.uint8))
    return tmp_path / "data"


def test_each_kind_has_its_rates_and_the_table_shows_them(data: Path, tmp_path: Path) -> None:
    with registered(tmp_path / "imported"):
        weights = save(tmp_path / "w", "b", fitted=calibration()).path
        limit = Settings(limit=2)
        rows = evaluate({"b": weights}, data, tmp_path / "out", ["edits"], settings=limit)
        plain = save(tmp_path / "w", "plain").path
        with pytest.raises(ConfigError, match="no calibration, so no verdicts"):
            evaluate({"p": plain}, data, tmp_path / "out", ["edits"], settings=limit)
    strong = {row.method: row.value for row in rows if row.metric == "strong@lossless"}
    assert list(strong) == ["unedited", *WORDS.values()]
    assert {row.n for row in rows} == {2}
    assert {row.metric for row in rows} == {
        f"{verdict}@{stored}"
        for verdict in ("strong", "inconclusive")
        for stored in ("lossless", "jpeg90")
    }
    for quiet in ("unedited", "median filter", "blur", "resizing"):
        assert strong[quiet] == 0
    lines = render("edits", tmp_path / "out").splitlines()
    assert "| photos after | n | strong trace, lossless | inconclusive |" in lines[0]
    assert sum(line.startswith("| ") for line in lines) == 2 + len(strong)
    assert "| median filter | 2 | 0.0 % |" in lines[3]


def test_a_bright_edit_is_a_strong_trace(data: Path, tmp_path: Path) -> None:
    with registered(tmp_path / "imported"):
        # The threshold lies below what every photo reaches.
        weights = save(tmp_path / "w", "b", fitted=calibration(threshold=-19)).path
        rows = evaluate(
            {"b": weights}, data, tmp_path / "out", ["edits"], settings=Settings(limit=1)
        )
    assert {row.value for row in rows if row.metric.startswith("strong")} == {1.0}
    assert {row.value for row in rows if row.metric.startswith("inconclusive")} == {0.0}
