"""`PropertyModule`: how a network learns one property."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection

from potnet.config import build, check_arguments
from potnet.crystals.batch import CrystalBatch
from potnet.data.targets import Target
from potnet.training.means import WeightedMean
from potnet.training.optimization import build_optimizer, loss_function


class TrainingError(ValueError):
    """Training that cannot start or go on. The message says what to change."""


class PropertyModule(LightningModule):
    """A network, the target it learns and the way it is trained.

    All arguments are plain containers, which Lightning stores in the checkpoint: with `weights_only=True` it
    loads, and it alone suffices to predict.

    Args:
        model: Config of the network: `_target_` and its arguments.
        target: Arguments of `Target`.
        objective: `loss` ("mse", "mae", "huber"), `huber_delta`, `scale_target`.
        optimizer: Arguments of `build_optimizer`.

    Attributes:
        model: The network; `model(batch)` is (B,), scaled.
        mean, std: Buffers, float64: the network learns (target - mean) / std, in the target's learned unit.
        record: Plain facts to keep in the checkpoint beside the weights, under the key "potnet".

    Raises:
        ConfigError: A setting that does not exist or cannot be used.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: Mapping[str, Any],
        target: Mapping[str, Any],
        objective: Mapping[str, Any],
        optimizer: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)  # loggers get the whole config of the run
        self.model: nn.Module = build(model, "model", nested=False)
        self.target: Target = build({"_target_": "potnet.data.targets.Target", **target}, "target")
        objective = dict(objective)
        self.scale_target = bool(objective.pop("scale_target"))
        check_arguments(loss_function, objective, "objective")
        self.loss = loss_function(**objective)
        check_arguments(build_optimizer, {"module": None, "total_steps": 1, **optimizer}, "optimizer")
        # Made again when training starts; here it refuses bad values before any data are prepared.
        build_optimizer(self.model, 1, **optimizer)
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("std", torch.ones((), dtype=torch.float64))
        self.record: dict[str, Any] = {}
        self.training_means = nn.ModuleDict({name: WeightedMean() for name in ("loss", "mae", "grad_norm")})
        self._announced: set[str] = set()
        self.validation_loss = WeightedMean()
        self.validation_metrics = MetricCollection(
            {"mae": MeanAbsoluteError(), "rmse": MeanSquaredError(squared=False)}, prefix="val/"
        ).set_dtype(torch.float64)

    def set_statistics(self, mean: float, std: float) -> None:
        """Set mean and standard deviation of the training targets, in the learned unit.

        Without `scale_target` they stay 0 and 1.
        """
        if self.scale_target:
            self.mean.fill_(mean)
            # One crystal, or equal targets: nothing to scale by.
            self.std.fill_(std if std > 0 else 1.0)

    def forward(self, batch: CrystalBatch) -> Tensor:
        """(B,) float64 predictions in the learned unit."""
        return self._output(batch).double() * self.std + self.mean

    def _output(self, batch: CrystalBatch) -> Tensor:
        """(B,) what the network gives for the target, scaled."""
        return next(iter(self.model(batch).values()))

    def _wanted(self, batch: CrystalBatch) -> Tensor:
        """(B,) float64 targets in the learned unit."""
        return self.target.transform(batch.targets[self.target.key])

    def on_train_epoch_start(self) -> None:
        """A new epoch, of which no mean has been logged."""
        self._announced.clear()

    def training_step(self, batch: CrystalBatch, batch_idx: int) -> Tensor:
        """The loss of this rank's share of a batch; its mean over ranks is the mean over crystals."""
        loss, error = self._errors(batch) if batch.num_crystals else self._nothing()
        self._add("loss", loss, batch.num_crystals)
        self._add("mae", error, batch.num_crystals)
        return loss * self._share(batch.num_crystals)

    def _add(self, name: str, value: Tensor, weight: int) -> None:
        mean = self.training_means[name]
        assert isinstance(mean, WeightedMean)
        mean.update(value, weight)
        # Lightning asks for the mean at the end of the epoch, so telling it once is enough.
        if name not in self._announced:
            self._announced.add(name)
            self.log(f"train/{name}", mean, on_step=False, on_epoch=True, batch_size=1)

    def _errors(self, batch: CrystalBatch) -> tuple[Tensor, Tensor]:
        """() the loss, and () float64 the mean absolute error in the learned unit."""
        wanted = self._wanted(batch)
        output = self._output(batch)
        loss = self.loss(output, ((wanted - self.mean) / self.std).to(output.dtype))
        error = (output.detach().double() * self.std + self.mean - wanted).abs().mean()
        return loss, error

    def _nothing(self) -> tuple[Tensor, Tensor]:
        """What a rank without a crystal adds: a loss of zero that still reaches every parameter."""
        if any(getattr(layer, "across_ranks", False) for layer in self.model.modules()):
            raise TrainingError(
                "a batch has fewer crystals than there are ranks, which trainer.sync_batchnorm=true cannot "
                "work with: choose another data.batch_size, or fewer devices"
            )
        loss = torch.stack([0 * parameter.sum() for parameter in self.model.parameters()]).sum()
        return loss, loss.detach()

    def _share(self, crystals: int) -> Tensor | float:
        """This rank's part of the crystals of a batch, times the number of ranks.

        Gradients are averaged over ranks, whose shares of a batch may differ by a crystal.
        """
        if self.trainer.world_size == 1:
            return 1.0
        everywhere = torch.tensor(float(crystals), device=self.device)
        torch.distributed.all_reduce(everywhere)
        return self.trainer.world_size * crystals / everywhere

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Log the norm of the gradient before clipping."""
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        if gradients:
            self._add("grad_norm", nn.utils.get_total_norm(gradients), 1)

    def on_train_epoch_end(self) -> None:
        """Log the learning rate; refuse to go on with a loss that is no number."""
        self.log("lr", self.optimizers().param_groups[0]["lr"], sync_dist=True)  # type: ignore[union-attr]
        loss = self.trainer.callback_metrics.get("train/loss")
        if loss is not None and not torch.isfinite(loss):
            raise TrainingError(
                f"the training loss became {float(loss)} in epoch {self.current_epoch}: lower "
                "optimizer.learning_rate, or clip gradients with trainer.gradient_clip_val"
            )

    def on_validation_epoch_start(self) -> None:
        """Let every rank judge the same network: statistics of BatchNorm differ between ranks."""
        if self.trainer.world_size > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def validation_step(self, batch: CrystalBatch, batch_idx: int) -> None:
        """Collect errors in the learned unit, every crystal once; a rank's share of a batch may be empty."""
        if batch.num_crystals:
            prediction, wanted = self(batch), self._wanted(batch)
            loss = self.loss((prediction - self.mean) / self.std, (wanted - self.mean) / self.std)
        else:
            prediction = wanted = loss = torch.zeros(0, dtype=torch.float64, device=self.device)
            loss = loss.sum()
        self.validation_metrics.update(prediction, wanted)
        self.validation_loss.update(loss, batch.num_crystals)

    def on_validation_epoch_end(self) -> None:
        """Log the errors of the epoch."""
        found = {**self.validation_metrics.compute(), "val/loss": self.validation_loss.compute()}
        self.log_dict(found, sync_dist=True)
        self.validation_metrics.reset()
        self.validation_loss.reset()

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
