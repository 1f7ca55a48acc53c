"""Training: the LightningModule, losses, metrics, the optimizer, callbacks, several devices.

The names below are imported when they are used, as Lightning takes seconds.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from potnet.training.callbacks import SeedEachBatch, WeightEMA
    from potnet.training.module import PropertyModule, TrainingError

__all__ = ["PropertyModule", "SeedEachBatch", "TrainingError", "WeightEMA"]


def __getattr__(name: str) -> Any:
    if name in ("SeedEachBatch", "WeightEMA"):
        from potnet.training import callbacks

        return getattr(callbacks, name)
    if name in ("PropertyModule", "TrainingError"):
        from potnet.training import module

        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
