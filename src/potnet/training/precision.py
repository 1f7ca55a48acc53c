"""Double precision in training, as a plugin of Lightning's Trainer."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.plugins import DoublePrecision

from potnet.crystals import CrystalBatch


class DoubleBatches(DoublePrecision):
    """Lightning's `precision=64-true`, which by itself cannot look into a `CrystalBatch`."""

    def convert_input(self, data: Any) -> Any:
        """The batch with its real numbers in float64."""
        return data.double() if isinstance(data, CrystalBatch) else super().convert_input(data)
