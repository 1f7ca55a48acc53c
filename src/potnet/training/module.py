"""`PropertyModule`: how a network learns its targets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from potnet.config import check_arguments
from potnet.crystals.batch import CrystalBatch
from potnet.data.targets import Target, Targets
from potnet.training.epoch_metrics import WeightedMean, epoch_metrics
from potnet.training.losses import Objective
from potnet.training.metrics import known
from potnet.training.networks import build_network
from potnet.training.optimization import build_optimizer
from potnet.training.outputs import labels_of, measured, values_of
from potnet.training.scaling import check_labels, fit_scalers, scalers_of

if TYPE_CHECKING:
    from potnet.data import CrystalDataModule


class TrainingError(ValueError):
    """Training that cannot start or go on. The message says what to change."""


class PropertyModule(LightningModule):
    """A network, the targets it learns and the way it is trained.

    The settings are kept as plain containers in the checkpoint, which loads with `weights_only=True` and
    alone suffices to predict (`potnet.load`). docs/experiments.md has a whole script ("With Lightning's
    Trainer").

    Args:
        model: Config of the network: `_target_` and its arguments.
        targets: One target or several, as `Targets.from_config` takes them.
        objective: Arguments of `Objective`: `loss` ("mse", "mae", "huber"), `huber_delta`, `scale_target`;
            those left out have the defaults of the command.
        optimizer: Arguments of `build_optimizer`, likewise.

    Attributes:
        model: The network; `model(batch)` is a dict of scaled outputs.
        scalers: Between outputs and the targets' learned units.
        record: Plain facts to keep in the checkpoint beside the weights, under the key "potnet".

    Raises:
        ConfigError: A setting that does not exist or cannot be used.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        targets: Targets | Target | Mapping[str, Any],
        objective: Mapping[str, Any] | None = None,
        optimizer: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.targets = Targets.from_config(targets)
        targets, objective, optimizer = self.targets.settings(), objective or {}, optimizer or {}
        self.save_hyperparameters("model", "objective", "optimizer", logger=False)
        self.save_hyperparameters({"targets": targets}, logger=False)
        self.model: nn.Module = build_network(model, self.targets)
        check_arguments(Objective, objective, "objective")
        self.objective = Objective(**objective)
        check_arguments(build_optimizer, {"module": None, "total_steps": 1, **optimizer}, "optimizer")
        # Made again when training starts; here it refuses bad values before any data are prepared.
        build_optimizer(self.model, 1, **optimizer)
        self.scalers = scalers_of(self.targets)
        self.record: dict[str, Any] = {}
        errors = [f"{key}/{'error' if target.is_class else 'mae'}" for key, target in self.targets.items()]
        self.training_means = nn.ModuleDict(
            {_name(name): WeightedMean() for name in ("loss", *errors, "grad_norm")}
        )
        self._announced: set[str] = set()
        self.epoch_losses = nn.ModuleDict({key: WeightedMean() for key in self.targets})
        self.epoch_metrics = nn.ModuleDict(
            {key: epoch_metrics(target) for key, target in self.targets.items()}
        )

    def prepare(self, data: CrystalDataModule, config: Mapping[str, Any] | None = None) -> None:
        """Set the scalers from the training part, and note what the checkpoint has to know of the data.

        `trainer.fit` does so by itself. Without `objective.scale_target` the scalers stay the identity.

        Args:
            data: Set up.
            config: Plain config of the run, where there is one: `potnet evaluate` finds the data by it.

        Raises:
            DataError: A label that is too large to compute with.
        """
        from potnet.runs.record import record_of

        check_labels(self.targets, data)
        if self.objective.scale_target:
            fit_scalers(self.scalers, self.targets, data)
        self.record = record_of(config or {}, data)

    def setup(self, stage: str) -> None:
        """Prepare for the data of the Trainer, unless that was done.

        Raises:
            TrainingError: Forces are to be derived where Lightning forbids derivatives.
        """
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and data is not None and not self.record:
            self.prepare(data)
        if self.targets.derived and self.trainer.validate_loop.inference_mode:
            raise TrainingError(
                f"{' and '.join(self.targets.derived)} are derivatives of the energy, also in validation: "
                "give Trainer(inference_mode=False)"
            )

    def forward(self, batch: CrystalBatch) -> dict[str, Tensor]:
        """The value of each target in its learned unit, float64; see `outputs.values_of`."""
        return values_of(self.model, self.scalers, self.targets, batch)

    def on_train_epoch_start(self) -> None:
        """A new epoch, of which no mean has been logged."""
        self._announced.clear()

    def training_step(self, batch: CrystalBatch, batch_idx: int) -> Tensor:
        """The loss of this process's share of a batch; its mean over processes is that over all labels."""
        if not batch.num_crystals:
            return self._nothing()
        labels = labels_of(self.targets, batch)
        values = values_of(
            self.model, self.scalers, self.targets, batch, create_graph=bool(self.targets.derived)
        )
        sums = self.objective.sums(self.targets, self.scalers, values, labels, batch)
        counts = {key: count for key, (_, count) in sums.items()}
        self._add("loss", self.objective.total(self.targets, sums, counts), batch.num_crystals)
        for key, target in self.targets.items():
            value, label = known(
                *(measured(self.targets, key, x.detach(), batch) for x in (values[key], labels[key]))
            )
            if target.is_class:
                wrong = (value.argmax(-1) != label).double()
                self._add(f"{key}/error", _mean(wrong), len(label))
            else:
                self._add(f"{key}/mae", _mean((value - label).abs()), len(label))
        return self.objective.total(self.targets, sums, self._everywhere(counts))

    def _add(self, name: str, value: Tensor, weight: int) -> None:
        mean = self.training_means[_name(name)]
        assert isinstance(mean, WeightedMean)
        mean.update(value, weight)
        # Lightning asks for the mean at the end of the epoch, so telling it once is enough.
        if name not in self._announced:
            self._announced.add(name)
            self.log(f"train/{name}", mean, on_step=False, on_epoch=True, batch_size=1)

    def _nothing(self) -> Tensor:
        """What a process without a crystal adds: a loss of zero that still reaches every parameter."""
        if any(getattr(layer, "across_ranks", False) for layer in self.model.modules()):
            raise TrainingError(
                "a batch has fewer crystals than there are processes, which trainer.sync_batchnorm=true "
                "cannot work with: choose another data.batch_size, or fewer devices"
            )
        self._everywhere({key: torch.zeros((), device=self.device) for key in self.targets})
        loss = torch.stack([0 * parameter.sum() for parameter in self.model.parameters()]).sum()
        for name in self.training_means:
            if name != "grad_norm":
                self._add(name.replace("|", "/"), loss, 0)
        return loss

    def _everywhere(self, counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Labels of a batch over all processes, divided by their number.

        Gradients are averaged over processes, whose shares of a batch may differ.
        """
        if self.trainer.world_size == 1:
            return dict(counts)
        together = torch.stack([count.double() for count in counts.values()])
        torch.distributed.all_reduce(together)
        # At least one label stands for "none": the sum is then zero.
        shares = together.clamp(min=1.0) / self.trainer.world_size
        return dict(zip(counts, shares.unbind(), strict=True))

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Log the norm of the gradient before clipping."""
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        if gradients:
            self._add("grad_norm", nn.utils.get_total_norm(gradients), 1)

    def on_train_epoch_end(self) -> None:
        """Log the learning rate; refuse to go on with a loss that is not a number."""
        self.log("lr", self.optimizers().param_groups[0]["lr"], sync_dist=True)  # type: ignore[union-attr]
        loss = self.trainer.callback_metrics.get("train/loss")
        if loss is not None:
            self._check_loss("training loss", float(loss))

    def _check_loss(self, name: str, loss: float) -> None:
        """Refuse to go on with a loss that is not a number, as nothing can be learned or chosen by it."""
        if self.trainer.state.fn == TrainerFn.FITTING and not math.isfinite(loss):
            raise TrainingError(
                f"the {name} became {loss} in epoch {self.current_epoch}: lower optimizer.learning_rate, or "
                "clip gradients with trainer.gradient_clip_val"
            )

    def on_validation_epoch_start(self) -> None:
        """Let every process judge the same network: statistics of BatchNorm differ between them."""
        if self.trainer.world_size > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def validation_step(self, batch: CrystalBatch, batch_idx: int) -> None:
        """Collect errors of each target, every crystal once; a process's share of a batch may be empty."""
        if not batch.num_crystals:
            none = torch.zeros(0, dtype=torch.float64, device=self.device)
            for key, target in self.targets.items():
                value = none.reshape(0, target.outputs) if target.is_class else none
                self.epoch_metrics[key].update(value, none)  # type: ignore[operator]
                self.epoch_losses[key].update(none.sum(), 0)  # type: ignore[operator]
            return
        values, labels = self(batch), labels_of(self.targets, batch)
        sums = self.objective.sums(self.targets, self.scalers, values, labels, batch)
        for key, (total, count) in sums.items():
            self.epoch_losses[key].update(total / count.clamp(min=1), count)  # type: ignore[operator]
            value, label = (measured(self.targets, key, x, batch) for x in (values[key], labels[key]))
            self.epoch_metrics[key].update(*known(value, label))  # type: ignore[operator]

    def on_validation_epoch_end(self) -> None:
        """Log the errors of the validation part: `val/k_vrh/mae` and so on.

        Raises:
            TrainingError: The network gives no numbers any more.
        """
        self._log_errors("val")

    def on_test_epoch_start(self) -> None:
        """As for validation."""
        self.on_validation_epoch_start()

    def test_step(self, batch: CrystalBatch, batch_idx: int) -> None:
        """As for validation."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the errors of the test part: `test/k_vrh/mae` and so on."""
        self._log_errors("test")

    def _log_errors(self, part: str) -> None:
        losses = []
        found: dict[str, Any] = {}
        for key, target in self.targets.items():
            mean, metrics = self.epoch_losses[key], self.epoch_metrics[key]
            total, count = mean.sums()  # type: ignore[operator]
            mean.reset()  # type: ignore[operator]
            loss = total / count if count else 0.0  # none of these crystals has a label
            if part == "val":
                self._check_loss(f"validation loss{f' of {key}' if len(self.targets) > 1 else ''}", loss)
            losses.append(target.weight * loss)
            found |= {f"{part}/{key}/{name}": value for name, value in metrics.compute().items()}  # type: ignore[operator]
            metrics.reset()  # type: ignore[operator]
        found[f"{part}/loss"] = torch.tensor(sum(losses), dtype=torch.float64, device=self.device)
        self.log_dict(found, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimizer, and its schedule over the run, whatever its length."""
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        optimizer, scheduler = build_optimizer(self.model, steps, **self.hparams["optimizer"])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the record beside the weights."""
        checkpoint["potnet"] = self.record

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to continue on other data than the run began with."""
        before, now = checkpoint.get("potnet", {}), self.record
        for key, what in (("split_hash", "the split of the data"), ("content_hash", "the data set")):
            if now and before.get(key) != now.get(key):
                raise TrainingError(
                    f"{what} has changed since this run began: start a new run in place of resume"
                )


def _name(metric: str) -> str:
    """A name that a submodule may have."""
    return metric.replace("/", "|").replace(".", "_")


def _mean(values: Tensor) -> Tensor:
    """() mean, zero of nothing."""
    return values.sum() / max(len(values), 1)
