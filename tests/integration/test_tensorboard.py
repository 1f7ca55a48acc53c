"""A run with logger=tensorboard, read back with TensorBoard's own reader."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from typing import Any

import pytest

Run = Any  # conftest.Run


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_figures_and_pictures_are_in_tensorboard(run_training: Callable[..., Run]) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = run_training("logger=tensorboard", "trainer.max_epochs=2", "data.batch_size=32", pictures=True)
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    with (run.folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for key in ("train/loss", "train/k_vrh/mae", "val/k_vrh/mae", "val/k_vrh/rmse", "lr", "train/grad_norm"):
        logged = events.Scalars(key)
        assert [entry.step for entry in logged] == [int(row["step"]) - 1 for row in rows]
        values = [float(row[key]) for row in rows]
        assert [entry.value for entry in logged] == pytest.approx(values, rel=1e-4, abs=1e-9)
    metrics = json.loads((run.folder / "metrics.json").read_text())
    (final,) = events.Scalars("final/test/k_vrh/mae")
    assert final.value == pytest.approx(metrics["test"]["k_vrh"]["mae"])
    assert {"parity", "error_by_element", "learning_curve"} <= set(events.Tags()["images"])
    assert (run.folder / "tensorboard" / "hparams.yaml").is_file()
