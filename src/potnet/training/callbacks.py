"""What happens around training: averaged weights, checkpoints, the table by epoch, seeds."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from potnet.files import csv_text, write_whole
from potnet.runs.checkpoint import BEST, LAST

FIRST, LAST_COLUMNS = ("epoch", "step"), ("lr", "train/grad_norm", "crystals_per_second", "seconds")
"""Columns of metrics.csv before and after those of the losses and errors."""


class WeightEMA(WeightAveraging):
    """Exponential moving average of the weights: ema <- d ema + (1 - d) weights, after each step n.

    d = min(decay, (1 + n) / (10 + n)), so that the average of a short run does not hang on its first weights.
    Validation, the checkpoint and so every later prediction use the average; training goes on with the
    weights themselves, which the checkpoint keeps as well.

    Args:
        decay: Between 0 and 1.

    Raises:
        ValueError: If it is not.
    """

    def __init__(self, decay: float = 0.995) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"callbacks.ema.decay={decay}: give a number from 0 to below 1, such as 0.995")

        def average(averaged: Sequence[Tensor], current: Sequence[Tensor], n: Tensor | int) -> None:
            if averaged[0].is_floating_point():
                d = min(decay, (1 + int(n)) / (10 + int(n)))
                get_ema_multi_avg_fn(d)(averaged, current, n)
            else:  # counters of BatchNorm
                for old, new in zip(averaged, current, strict=True):
                    old.copy_(new)

        super().__init__(multi_avg_fn=average)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep the average where and in what precision the weights will be; so far they are on the CPU."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            trainer.precision_plugin.convert_module(self._average_model)


class RunCheckpoint(ModelCheckpoint):
    """A checkpoint of a run that goes on to count in a folder that was moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Read the state as if it had been written where the run lies now."""
        state = dict(state_dict)
        old, new = state["dirpath"], str(self.dirpath)

        def moved(path: str) -> str:
            return str(Path(new) / Path(path).name) if path else path

        state["dirpath"] = new
        if old != new:
            for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
                state[key] = moved(state[key])
            state["best_k_models"] = {moved(path): score for path, score in state["best_k_models"].items()}
        super().load_state_dict(state)


def mode_of(monitor: str) -> str:
    """Whether a metric is best at its "min" or "max"."""
    return "max" if monitor.rpartition("/")[2] in ("accuracy", "f1", "roc_auc", "r2") else "min"


def checkpoints(folder: Path, validates: bool, monitor: str) -> list[Callback]:
    """Keep the last epoch in last.ckpt and, where there is a validation part, the best one in best.ckpt.

    Both are written at the end of an epoch, after validation, and in this order: so the last one knows of the
    best, and resuming begins with a whole epoch.
    """
    common: dict[str, Any] = {
        "dirpath": str(folder.resolve()),
        "save_on_train_epoch_end": True,
        "enable_version_counter": False,
        "auto_insert_metric_name": False,
    }
    last = RunCheckpoint(filename=Path(LAST).stem, every_n_epochs=1, **common)
    if not validates:
        return [last]
    return [RunCheckpoint(filename=Path(BEST).stem, monitor=monitor, mode=mode_of(monitor), **common), last]


class SeedEachBatch(Callback):
    """Seed torch before each batch, so that a resumed run draws the same random numbers.

    Args:
        seed: Of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """A seed of its own for each epoch, batch and process."""
        place = (self.seed * 1_000_003 + trainer.current_epoch) * 1_000_003 + batch_idx
        torch.manual_seed((place * 1_009 + trainer.global_rank) % 2**63)


class MetricsTable(Callback):
    """Writes metrics.csv, one row an epoch, while training goes on.

    A resumed run keeps the rows of the epochs that it does not repeat.

    Args:
        path: The CSV file.

    Attributes:
        rows: All rows so far.
        devices: How many train together.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="") as file:
                self.rows = list(csv.DictReader(file))
        self.devices = 1
        self._started = 0.0
        self._crystals = 0
        self._trained: float | None = None

    @property
    def seconds(self) -> float:
        """Time of all epochs so far, validation included."""
        return sum(float(row["seconds"]) for row in self.rows)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget rows of epochs that are going to be repeated."""
        self.rows = [row for row in self.rows if int(row["epoch"]) < trainer.current_epoch]
        self.devices = trainer.world_size
        # A run that resumes mid-epoch does not begin an epoch.
        self._started, self._crystals = time.perf_counter(), 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started, self._crystals, self._trained = time.perf_counter(), 0, None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count crystals."""
        self._crystals += batch.num_crystals

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock: speed is that of training alone."""
        self._trained = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add a row and rewrite the table, so that the file is complete at any time."""
        now = time.perf_counter()
        trained, validated = self._trained or now, self._trained is not None
        found = {
            key: float(value)
            for key, value in trainer.callback_metrics.items()
            if validated or not key.startswith("val/")  # those of an earlier epoch
        }
        found |= {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "crystals_per_second": self._crystals * trainer.world_size / max(trained - self._started, 1e-9),
            "seconds": now - self._started,
        }
        for key in ("crystals_per_second", "seconds"):
            pl_module.log(key, found[key], rank_zero_only=True)
        pl_module.log("memory_gib", peak_memory(pl_module.device), rank_zero_only=True)
        self.rows.append(
            {name: _short(value) for name, value in found.items() if name in self._columns(found)}
        )
        columns = self._columns(*self.rows)
        if trainer.is_global_zero:
            rows = [[row.get(column, "") for column in columns] for row in self.rows]
            write_whole(self.path, csv_text(columns, rows))

    @staticmethod
    def _columns(*rows: Mapping[str, Any]) -> list[str]:
        """Losses and errors of all rows, those of training before those of validation."""
        names = dict.fromkeys(name for row in rows for name in row if name.startswith(("train/", "val/")))
        train = [name for name in names if name.startswith("train/") and name != "train/grad_norm"]
        return [*FIRST, *train, *(name for name in names if name.startswith("val/")), *LAST_COLUMNS]


def peak_memory(device: torch.device) -> float:
    """The most memory that was in use so far, GiB: of the GPU, or of this process where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def _short(value: Any) -> Any:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value
