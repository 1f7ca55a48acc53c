"""The report reads what training really writes."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path
from typing import Any

import pytest

from potnet.runs.report import collect
from potnet.runs.report.command import write_report

Run = Any  # conftest.Run


def test_report_of_a_trained_run(trained: Run, tmp_path: Path) -> None:
    (run,) = collect([trained.folder])
    assert run.status == "finished"
    assert run.metrics is not None
    for part in ("val", "test"):
        # predictions.csv has six digits.
        assert statistics.fmean(run.errors(part).values()) == pytest.approx(
            run.metrics[part]["k_vrh"]["mae"], rel=1e-3
        )
    assert len(run.epochs) == 3
    assert run.epoch_seconds is not None
    written = write_report([str(trained.folder)], tmp_path / "report")
    assert {path.name for path in written} == {
        "report.md", "report.csv", "parity_k_vrh.png", "elements_k_vrh.png", "learning_k_vrh.png",
    }  # fmt: skip
    text = (tmp_path / "report" / "report.md").read_text()
    assert "The largest errors of the test part" in text
    assert "| val | " in text
    with (tmp_path / "report" / "report.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["unit"], row["finished"]) == ("log10(GPa)", "1")
    assert float(row["test_mae"]) == run.metrics["test"]["k_vrh"]["mae"]
    assert int(row["parameters"]) == run.metrics["parameters"]
    assert float(row["seconds_total"]) == run.metrics["seconds"]["total"]
