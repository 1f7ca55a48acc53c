"""Batch normalisation across ranks, as a plugin of Lightning's Trainer."""

from __future__ import annotations

from lightning.pytorch.plugins import LayerSync
from torch import nn

from potnet.config import ConfigError
from potnet.nn import BatchNorm


class BatchNormAcrossRanks(LayerSync):
    """Makes every `potnet.nn.BatchNorm` use the rows of all ranks while a network trains.

    Lightning's own plugin replaces the layers by torch's, which know GPUs only and no rows that stand for
    several.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Switch it on.

        Raises:
            ConfigError: The network has another batch normalisation.
        """
        for name, layer in model.named_modules():
            if isinstance(layer, BatchNorm):
                layer.across_ranks = True
            elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
                raise ConfigError(
                    f"trainer.sync_batchnorm=true: layer {name} is torch's {type(layer).__name__}; build the "
                    "network with potnet.nn.BatchNorm"
                )
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Switch it off."""
        for layer in model.modules():
            if isinstance(layer, BatchNorm):
                layer.across_ranks = False
        return model
