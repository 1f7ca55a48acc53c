"""What a user should know of how long training is: too few steps, and early stopping."""

from __future__ import annotations

import logging
import math

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

FEW_STEPS = 300
"""A run of fewer optimiser steps than this likely ends before the network has learned what the data allow."""

log = logging.getLogger(__name__)


class LengthNotices(Callback):
    """Warns before a run of few optimiser steps, and says when a run was stopped early.

    Args:
        batch_size: Crystals in a batch, for the advice.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the length of the whole run with what learning needs."""
        steps = trainer.estimated_stepping_batches
        trial = trainer.limit_train_batches != 1.0
        if steps == math.inf or trial or not trainer.is_global_zero:
            return
        advice = few_steps(int(steps), int(trainer.max_epochs or 0), self.batch_size)
        if advice:
            log.warning("%s", advice)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that training ended before its last epoch, and why."""
        for callback in trainer.early_stopping_callbacks:
            if callback.stopped_epoch and trainer.is_global_zero:
                log.info("%s", stopped_early(callback, int(trainer.max_epochs or 0)))


def few_steps(steps: int, epochs: int, batch_size: int) -> str | None:
    """A warning about a run of so few steps that little is learned; None if there are enough.

    Args:
        steps: Of the whole run.
        epochs: Of the whole run.
        batch_size: Crystals in a batch.
    """
    if steps >= FEW_STEPS:
        return None
    factor = FEW_STEPS / steps
    smaller = max(1, int(batch_size / factor))
    return (
        f"few steps: this run has {steps} step{'' if steps == 1 else 's'} of the optimizer, and fewer than "
        f"{FEW_STEPS} learn little. "
        f"Give more epochs (trainer.max_epochs={math.ceil(epochs * factor)})"
        + (f" or smaller batches (data.batch_size={smaller})" if 4 <= smaller < batch_size else "")
    )


def stopped_early(callback: EarlyStopping, max_epochs: int) -> str:
    """Why training ended before its last epoch."""
    return (
        f"stopped early after epoch {callback.stopped_epoch + 1} of {max_epochs}: {callback.monitor} has not "
        f"improved for {callback.patience} epochs; callbacks.early_stopping=null goes on to the end"
    )
