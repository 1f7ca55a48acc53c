"""Runs that are too short, and runs that were stopped early, say so."""

from __future__ import annotations

from lightning.pytorch.callbacks import EarlyStopping

from potnet.training.notices import FEW_STEPS, few_steps, stopped_early


def test_a_run_of_few_steps_says_what_to_set() -> None:
    said = few_steps(60, 60, 64)
    assert said is not None
    assert "this run has 60 steps" in said
    assert "trainer.max_epochs=300" in said
    assert "data.batch_size=12" in said
    assert few_steps(FEW_STEPS, 60, 64) is None
    assert "batch_size" not in str(few_steps(10, 10, 8))  # which would not suffice


def test_the_end_of_a_run_that_was_stopped_names_the_setting() -> None:
    callback = EarlyStopping(monitor="val/gap/mae", patience=5)
    callback.stopped_epoch = 11
    said = stopped_early(callback, 60)
    assert said.startswith("stopped early after epoch 12 of 60: val/gap/mae has not improved for 5 epochs")
