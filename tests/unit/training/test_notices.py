"""Runs that are too short, and runs that were stopped early, say so."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import EarlyStopping

from potnet.training.notices import FEW_STEPS, LengthNotices, few_steps


def test_a_run_of_few_steps_says_what_to_set() -> None:
    said = few_steps(60, 60, 64)
    assert said is not None
    assert "this run has 60 steps" in said
    assert "trainer.max_epochs=300" in said
    assert "data.batch_size=12" in said
    assert few_steps(FEW_STEPS, 60, 64) is None
    assert "batch_size" not in str(few_steps(10, 10, 8))  # which would not suffice


def test_the_end_of_a_run_that_was_stopped_names_the_setting(caplog: pytest.LogCaptureFixture) -> None:
    callback = EarlyStopping(monitor="val/gap/mae", patience=5)
    trainer: Any = SimpleNamespace(
        early_stopping_callbacks=[callback], is_global_zero=True, max_epochs=60, limit_train_batches=1.0
    )
    caplog.set_level(logging.INFO)
    LengthNotices(64).on_train_end(trainer, None)  # type: ignore[arg-type]
    assert caplog.text == ""
    callback.stopped_epoch = 11
    LengthNotices(64).on_train_end(trainer, None)  # type: ignore[arg-type]
    assert "stopped early after epoch 12 of 60: val/gap/mae has not improved for 5 epochs" in caplog.text


@pytest.mark.parametrize(("steps", "limit", "warns"), [(60, 1.0, True), (3000, 1.0, False), (60, 3, False)])
def test_a_short_run_warns_unless_it_is_a_trial(
    steps: int, limit: float, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    trainer: Any = SimpleNamespace(
        estimated_stepping_batches=steps, limit_train_batches=limit, is_global_zero=True, max_epochs=60
    )
    LengthNotices(64).on_train_start(trainer, None)  # type: ignore[arg-type]
    assert ("few steps" in caplog.text) == warns
