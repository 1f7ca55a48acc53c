"""The progress of training on the console: epoch, losses, error, time left."""

from __future__ import annotations

import time
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from potnet.data.targets import Targets
from potnet.training.callbacks import mode_of


class TrainingProgress(Callback):
    """One bar for the whole run; a line an epoch where the output is not a terminal.

    Args:
        targets: What is learned.
        monitor: Name of the metric that judges the run.
        console: Where to write; stdout by default.
    """

    def __init__(self, targets: Targets, monitor: str, console: Console | None = None) -> None:
        self.targets, self.monitor = targets, monitor
        self.largest = mode_of(monitor) == "max"
        self.console = console or Console(soft_wrap=True)
        self.best = float("-inf" if self.largest else "inf")
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._began = 0.0
        self._first_step = 0
        self._validated = False

    def state_dict(self) -> dict[str, Any]:
        """The best error so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The best error so far."""
        self.best = state_dict["best"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        self._began = time.monotonic()
        self._first_step = self._step(trainer, 0)
        if not (self.console.is_terminal and trainer.is_global_zero):
            return
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[left]}", style="cyan", table_column=Column(no_wrap=True)),
            console=self.console,
            expand=True,
        )
        self._task = self._bar.add_task(
            "", total=self._total(trainer), completed=self._first_step,
            epoch=trainer.current_epoch + 1, epochs=trainer.max_epochs, text="", left="",
        )  # fmt: skip
        self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance by one batch."""
        if self._bar is not None and self._task is not None:
            done = self._step(trainer, batch_idx + 1)
            self._bar.update(
                self._task,
                completed=done,
                epoch=trainer.current_epoch + 1,
                left=f"{self._left(trainer, done)} left",
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember that there is an error to show."""
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the losses and errors of the epoch."""
        if not trainer.is_global_zero:
            return
        found = {key: float(value) for key, value in trainer.callback_metrics.items()}
        validated, self._validated = self._validated, False
        if validated:
            self.best = (max if self.largest else min)(self.best, found[self.monitor])
        text = self._text(found, validated)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, text=text)
        else:
            left = self._left(trainer, self._step(trainer, 0) + int(trainer.num_training_batches))
            self.console.print(
                f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {text}  {left} left",
                highlight=False,
            )

    def _text(self, found: dict[str, float], validated: bool) -> str:
        """Losses and error of an epoch; shorter where the terminal is narrow."""
        if not validated:
            return f"loss {found['train/loss']:.4f} {self._errors(found, 'train')}".rstrip()
        error = f"{self._errors(found, 'val')} best {self.best:.4f}"
        if self._bar is not None and self.console.width < 100:
            return f"loss {found['train/loss']:.4f}/{found['val/loss']:.4f} {error}"
        return f"loss: train {found['train/loss']:.4f} val {found['val/loss']:.4f}  {error}"

    def _errors(self, found: dict[str, float], part: str) -> str:
        """The error of each target, "MAE 0.0462 log10(GPa)"."""
        shown = []
        for key, target in self.targets.items():
            name = "mae" if not target.is_class else "error" if part == "train" else "accuracy"
            label = {"mae": "MAE", "error": "wrong", "accuracy": "accuracy"}[name]
            value = found.get(f"{part}/{key}/{name}", float("nan"))
            prefix = f"{key} " if len(self.targets) > 1 else ""
            shown.append(f"{prefix}{label} {value:.4f} {target.metric_unit}".rstrip())
        return ", ".join(shown)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the bar as it is."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the terminal back."""
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _step(self, trainer: Trainer, batches: int) -> int:
        return trainer.current_epoch * int(trainer.num_training_batches) + batches

    def _total(self, trainer: Trainer) -> int:
        return int(trainer.max_epochs or 0) * int(trainer.num_training_batches)

    def _left(self, trainer: Trainer, done: int) -> str:
        """Time left by the pace so far, or by the limit on time if that comes first."""
        elapsed = time.monotonic() - self._began
        seconds = elapsed / max(done - self._first_step, 1) * (self._total(trainer) - done)
        for timer in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(timer, Timer):
                remaining = timer.time_remaining()
                seconds = seconds if remaining is None else min(seconds, remaining)
        minutes, seconds = divmod(round(max(0.0, seconds)), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
