"""Runs that a scheduler ends: everything is kept, and the run goes on as if nothing had happened."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer

from potnet.train import resumed, train
from potnet.training.preemption import StopOnSignal

Run = Any  # conftest.Run
BATCHES = 3  # of an epoch: 96 training crystals in batches of 32


ALLOWED = f"allow=[{__name__}.Signalled]"
"""The callback of these tests is none of potnet's own."""


class Signalled(Callback):
    """Sends this process a signal before a batch, once."""

    armed: tuple[int, int] | None = None  # epoch and batch
    number = signal.SIGTERM

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if Signalled.armed == (trainer.current_epoch, batch_idx):
            Signalled.armed = None
            os.kill(os.getpid(), self.number)


SIGNALLED = f"+callbacks.signalled._target_={__name__}.Signalled"


def rows(folder: Path) -> list[dict[str, str]]:
    """Of metrics.csv, without times."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {key: value for key, value in row.items() if key not in ("seconds", "crystals_per_second")}
            for row in csv.DictReader(file)
        ]


@pytest.fixture(scope="module")
def settings() -> list[str]:
    return ["trainer.max_epochs=3", "data.batch_size=32", "model=potnet", "model.dropout=0.2", SIGNALLED]


@pytest.fixture(scope="module")
def whole(run_training: Callable[..., Run], settings: list[str]) -> Run:
    return run_training(*settings)


@pytest.mark.parametrize(
    ("place", "kept"),
    [
        pytest.param((0, 0), "1 of 3 batches of epoch 1", id="within the first epoch"),
        pytest.param((1, 1), "2 of 3 batches of epoch 2", id="within an epoch"),
        pytest.param((1, BATCHES - 1), "2 epochs", id="at the end of an epoch"),
    ],
)
def test_a_run_that_was_taken_away_gives_the_result_of_the_whole(
    place: tuple[int, int],
    kept: str,
    whole: Run,
    settings: list[str],
    run_training: Callable[..., Run],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Signalled.armed = place
    with pytest.raises(SystemExit) as stopped:
        run_training(*settings, folder=tmp_path)
    assert stopped.value.code == 128 + signal.SIGTERM
    said = capsys.readouterr().err
    assert f"stopped by SIGTERM; kept: {kept}" in said
    assert re.search(r"^continue: potnet train resume=\S+$", said, re.MULTILINE)
    assert not (tmp_path / "metrics.json").exists()

    train(resumed(tmp_path, [f"resume={tmp_path}", ALLOWED]), tmp_path, resume=True)
    assert rows(tmp_path) == rows(whole.folder)
    assert (tmp_path / "predictions.csv").read_text() == (whole.folder / "predictions.csv").read_text()


@pytest.mark.slow
def test_two_interruptions_of_one_epoch(
    whole: Run, settings: list[str], run_training: Callable[..., Run], tmp_path: Path
) -> None:
    Signalled.armed = (1, 0)
    with pytest.raises(SystemExit):
        run_training(*settings, folder=tmp_path)
    Signalled.armed = (1, 1)
    with pytest.raises(SystemExit):
        train(resumed(tmp_path, [ALLOWED]), tmp_path, resume=True)
    train(resumed(tmp_path, [ALLOWED]), tmp_path, resume=True)
    assert rows(tmp_path) == rows(whole.folder)


@pytest.mark.slow
def test_a_run_whose_batches_are_loaded_ahead(
    whole: Run, settings: list[str], run_training: Callable[..., Run], tmp_path: Path
) -> None:
    for place in ((1, 0), (1, 2)):
        folder = tmp_path / str(place[1])
        folder.mkdir()
        Signalled.armed = place
        with pytest.raises(SystemExit):
            run_training(*settings, "data.num_workers=1", "trainer.max_epochs=3", folder=folder)
        train(resumed(folder, ["data.num_workers=1", ALLOWED]), folder, resume=True)
        assert rows(folder) == rows(whole.folder)


@pytest.mark.slow
def test_gradients_that_are_being_collected_are_not_lost(
    run_training: Callable[..., Run], settings: list[str], tmp_path: Path
) -> None:
    settings = [*settings, "data.batch_size=16", "trainer.accumulate_grad_batches=2", "trainer.max_epochs=1"]
    whole = run_training(*settings)
    Signalled.armed = (0, 2)
    with pytest.raises(SystemExit):
        run_training(*settings, folder=tmp_path)
    kept = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["callbacks"]["StopOnSignal"]["batches"] == 4
    train(resumed(tmp_path, [ALLOWED]), tmp_path, resume=True)
    assert rows(tmp_path) == rows(whole.folder)


def test_ctrl_c_keeps_the_batch_and_evaluates(
    run_training: Callable[..., Run],
    settings: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: Run,
) -> None:
    monkeypatch.setattr(Signalled, "number", signal.SIGINT)
    Signalled.armed = (1, 0)
    with pytest.raises(SystemExit) as stopped:
        run_training(*settings, folder=tmp_path)
    assert stopped.value.code == 130
    assert json.loads((tmp_path / "metrics.json").read_text())["interrupted"] is True
    train(resumed(tmp_path, [ALLOWED]), tmp_path, resume=True)
    assert rows(tmp_path) == rows(whole.folder)


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    stop = StopOnSignal(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    try:
        stop._receive(signal.SIGINT, None)
        with pytest.raises(KeyboardInterrupt):
            stop._receive(signal.SIGINT, None)
    finally:
        signal.signal(signal.SIGINT, before)
