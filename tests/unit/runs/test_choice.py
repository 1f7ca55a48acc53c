"""Which run a folder of runs means, and what a user is told of the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from potnet.files import csv_text
from potnet.runs.checkpoint import CheckpointError
from potnet.runs.choice import choose_checkpoint
from potnet.runs.folder import RunFolder


def write(folder: Path, epochs: int, mae: float | None) -> RunFolder:
    run = RunFolder(folder)
    run.checkpoints.mkdir(parents=True)
    run.best.touch()
    run.config.write_text("target: {key: k}\nmodel: {}\n")
    rows = [(epoch, 1.0 - 0.01 * epoch) for epoch in range(epochs)]
    run.epochs.write_text(csv_text(("epoch", "val/k/mae"), rows))
    if mae is not None:
        run.write_results({"val": {"k": {"mae": mae}}, "monitor": "val/k/mae", "monitored": mae})
    return run


def test_the_newest_is_taken_and_the_better_one_is_named(tmp_path: Path) -> None:
    good = write(tmp_path / "2026-01-01_00-00-00", 40, 0.05)
    trial = write(tmp_path / "2026-02-01_00-00-00", 2, 0.4)
    stopped = write(tmp_path / "2026-01-15_00-00-00", 3, None)
    choice = choose_checkpoint(tmp_path)
    assert choice.file == trial.best
    assert choice.lines() == [
        f"checkpoint: the newest of 3 runs, {trial.path}: 2 epochs, val/k/mae 0.4",
        f"  not taken: {stopped.path}: 3 epochs, val/k/mae 0.98, unfinished",
        f"  not taken: {good.path}: 40 epochs, val/k/mae 0.05",
        f"  the best of them by val/k/mae: checkpoint={good.path}",
    ]
    assert choose_checkpoint(good.path).lines() == []
    assert choose_checkpoint(good.best).lines() == []


def test_runs_of_the_old_format_are_judged_too(tmp_path: Path) -> None:
    for name, mae in (("2026-01-01_00-00-00", 0.1), ("2026-01-02_00-00-00", 0.2)):
        run = write(tmp_path / name, 0, None)
        run.epochs.write_text(csv_text(("epoch", "val/mae"), [(0, mae)]))
        run.results.write_text(json.dumps({"val": {"mae": mae}, "interrupted": False}))
    lines = choose_checkpoint(tmp_path).lines()
    assert lines[-1].endswith("checkpoint=" + str(tmp_path / "2026-01-01_00-00-00"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (2024, "2024: no such checkpoint or folder"),
        (["a", "b"], "give one checkpoint or folder, got 2"),
        (None, "give a checkpoint file"),
        (True, "give a checkpoint file"),
    ],
)
def test_what_is_no_path(path: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        choose_checkpoint(path)
