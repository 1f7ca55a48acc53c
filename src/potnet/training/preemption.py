"""Ending a run on a signal, without losing what it has done."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer

from potnet.data.features.sampling import CrystalBatchSampler
from potnet.runs.checkpoint import LAST
from potnet.training.epoch_metrics import WeightedMean

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C; what schedulers send before they take a machine away; what SLURM sends on `--signal=USR1@90`."""


class Stopped(Exception):
    """Training ended because of a signal, after everything was kept.

    Args:
        number: The signal.
        kept: Up to where, for people.
    """

    def __init__(self, number: signal.Signals, kept: str) -> None:
        super().__init__(f"stopped by {number.name}; {kept}")
        self.number = number


class StopOnSignal(Callback):
    """On SIGTERM, SIGUSR1 or Ctrl-C: finish the batch, keep everything in last.ckpt, raise `Stopped`.

    The signal may reach one rank only; all agree on it after each batch. A run that is resumed from there
    gives the result of an uninterrupted one: the rest of the epoch is done, with its sums so far. A second
    Ctrl-C ends the process at once. While an epoch is validated, the epoch is finished first.

    Args:
        folder: Of the checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._received: signal.Signals | None = None
        self._kept: dict[str, Any] = {}
        self._process = os.getpid()

    def state_dict(self) -> dict[str, Any]:
        """What a run that resumes mid-epoch needs; empty at the end of an epoch."""
        return self._kept

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Start from the sums of the epoch so far."""
        self._kept = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen, in place of Lightning, which would keep nothing; it restores what was there before."""
        if trainer.ckpt_path is not None:
            self._go_on(trainer, pl_module)
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._receive)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop here if a signal came, unless the epoch is done, or gradients are still being collected."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches or trainer.is_last_batch:
            return
        number = self._agreed(trainer)
        if number is not None:
            sums = {name: mean.sums() for name, mean in _means(pl_module).items()}
            self._kept = {"batches": batch_idx + 1, "sums": sums}
            trainer.save_checkpoint(self.folder / LAST)
            batches = f"{batch_idx + 1} of {trainer.num_training_batches} batches"
            raise Stopped(number, f"kept: {batches} of epoch {trainer.current_epoch + 1}")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop here if a signal came at the end of the last epoch, of which there is a checkpoint."""
        if trainer.current_epoch > 0:
            number = self._agreed(trainer)
            if number is not None:
                raise Stopped(number, f"kept: {trainer.current_epoch} epochs")

    def _go_on(self, trainer: Trainer, module: LightningModule) -> None:
        """Continue the epoch, or begin the next one."""
        kept, self._kept = self._kept, {}
        batches = trainer.train_dataloader.batch_sampler  # type: ignore[union-attr]
        assert isinstance(batches, CrystalBatchSampler)
        batches.start = kept.get("batches", 0)
        batches.sampler.set_epoch(trainer.current_epoch)
        # Lightning made this iterator before it read the checkpoint, and loading processes may have begun.
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        iter(fetcher)
        if trainer.is_global_zero:
            for name, sums in kept.get("sums", {}).items():
                _means(module)[name].start_from(sums)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a process that loads batches; its parent tells it when to end
            return
        if number == signal.SIGINT:
            if self._received == signal.SIGINT:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                raise KeyboardInterrupt
            print("stopping after this batch; Ctrl-C again ends at once", file=sys.stderr)
        self._received = signal.Signals(number)

    def _agreed(self, trainer: Trainer) -> signal.Signals | None:
        """The signal that any of the ranks received."""
        if trainer.world_size == 1:
            return self._received
        number = torch.tensor(int(self._received or 0), device=trainer.strategy.root_device)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return signal.Signals(int(number)) if number else None


def _means(module: LightningModule) -> dict[str, WeightedMean]:
    return {name: part for name, part in module.named_modules() if isinstance(part, WeightedMean)}
