"""A model without epochs goes through the same commands."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from potnet.config import ConfigError
from potnet.crystals import Crystal
from potnet.evaluate import evaluate_checkpoint
from potnet.inference.predictor import Predictor
from potnet.runs.checkpoint import CheckpointError
from potnet.train import resumed
from potnet.training.closed_form import fit_progress

# Its fixtures take seconds: one process of pytest-xdist makes them, not each.
pytestmark = pytest.mark.xdist_group("closed_form")

Run = Any  # conftest.Run
TINY = ["model=mbtr_krr", "model.folds=3", "data.limit=120", "trainer.accelerator=cpu"]


@pytest.fixture(scope="module")
def fitted(run_training: Callable[..., Run]) -> Run:
    return run_training(tiny=TINY)


def test_a_fit_leaves_everything_in_its_folder(fitted: Run) -> None:
    folder = fitted.folder
    metrics = json.loads((folder / "metrics.json").read_text())
    for part in ("val", "test"):
        assert set(metrics[part]["k_vrh"]) == {"mae", "rmse", "r2", "n", "unit"}
        assert metrics[part]["k_vrh"]["unit"] == "log10(GPa)"
        assert 0 < metrics[part]["k_vrh"]["mae"] < 0.5
    assert fitted.result == metrics["val"]["k_vrh"]["mae"]
    assert metrics["epochs"] == 0
    split = json.loads((folder / "split.json").read_text())
    assert metrics["parameters"] == len(split["train"])
    assert set(metrics["seconds"]) >= {"featurize", "train", "test", "total"}
    for name in ("config.yaml", "predictions.csv", "parity.png", "data.txt"):
        assert (folder / name).is_file()
    with (folder / "cross_validation.csv").open(newline="") as file:
        trials = list(csv.DictReader(file))
    assert len(trials) == 16
    assert all(0 < float(trial["mae"]) < 1 for trial in trials)
    assert not list(folder.rglob("*.part"))


def test_it_has_learned_something(fitted: Run) -> None:
    with (fitted.folder / "predictions.csv").open(newline="") as file:
        values = torch.tensor([float(row["value"]) for row in csv.DictReader(file)]).log10()
    assert fitted.result < 0.8 * float((values - values.mean()).abs().mean())


def test_evaluate_repeats_the_figures_exactly(fitted: Run, cache_dir: Path) -> None:
    metrics = json.loads((fitted.folder / "metrics.json").read_text())
    for evaluation in evaluate_checkpoint(fitted.folder, ["val", "test"], str(cache_dir)):
        assert evaluation.metrics == metrics[evaluation.part][evaluation.key]


def test_predict_gives_what_the_run_gave(fitted: Run, embedded: Any) -> None:
    with (fitted.folder / "predictions.csv").open(newline="") as file:
        expected = {row["id"]: float(row["prediction"]) for row in csv.DictReader(file)}
    chosen = [crystal for crystal in embedded.crystals if crystal.id in expected][:5]
    predictor = Predictor.from_checkpoint(fitted.folder, device="cpu")
    found = predictor.predict(chosen)
    for id, value in zip(found.ids, found.values, strict=True):
        assert value == pytest.approx(expected[id], rel=1e-4)
    copper = Crystal(chosen[0].cell, chosen[0].positions, chosen[0].z % 90 + 1, "other elements")
    (value,) = predictor.predict(copper).values
    assert 0 < value < 1000


def test_the_checkpoint_holds_plain_data_and_tensors_only(fitted: Run) -> None:
    checkpoint = torch.load(fitted.folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["potnet"]["features"]["descriptor"]["_target_"] == "potnet.descriptors.mbtr.MBTR"
    assert checkpoint["hyper_parameters"]["model"]["kernel"] == "gaussian"


def test_the_same_seed_gives_the_same_fit(fitted: Run, run_training: Callable[..., Run]) -> None:
    assert run_training(tiny=TINY).result == fitted.result


def test_there_is_nothing_to_resume(fitted: Run) -> None:
    with pytest.raises(CheckpointError, match="or was fitted in closed form"):
        resumed(fitted.folder, [])


def test_too_many_crystals_are_refused_by_name(run_training: Callable[..., Run]) -> None:
    with pytest.raises((ConfigError, ValueError), match=r"model\.memory_gib"):
        run_training("model.memory_gib=1e-6", tiny=TINY)


def test_progress_is_a_bar_or_lines() -> None:
    for terminal in (False, True):
        console = Console(record=True, force_terminal=terminal, width=90, file=io.StringIO())
        with fit_progress(console) as report:
            report("kernel", 0, 1)
            report("cross-validation", 0, 16)
            report("cross-validation", 16, 16)
        text = console.export_text()
        assert "cross-validation" in text
        assert ("16/16" if terminal else "16 steps") in text
