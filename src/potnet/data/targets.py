"""A target as data: which property, in which unit, learned on which scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potnet.data.errors import DataError, did_you_mean, name_some
from potnet.data.table import CrystalTable, Removal

_SCALES = ("none", "log10")


class Target:
    """A property to learn.

    Data and predictions are in `unit`; the network learns `transform(value)`, and metrics are in
    `learned_unit`.

    Args:
        key: Name of the property in the data, such as `k_vrh`.
        unit: Physical unit of the data and of predictions, such as "GPa".
        transform: "none" or "log10". Labels that are logarithms already take "none" and say so in the unit.
        name: Name for plots and tables; by default the key.
        on_missing: Whether crystals without the property are an error ("raise") or left out and
            counted ("drop").

    Raises:
        DataError: An unknown transform or `on_missing`.
    """

    def __init__(
        self,
        key: str,
        unit: str = "",
        transform: str = "none",
        name: str | None = None,
        on_missing: str = "raise",
    ) -> None:
        if transform not in _SCALES:
            raise DataError(f"target.transform={transform!r}: {did_you_mean(str(transform), _SCALES)}")
        if on_missing not in ("raise", "drop"):
            raise DataError(
                f"target.on_missing={on_missing!r}: {did_you_mean(str(on_missing), ('raise', 'drop'))}"
            )
        self.key = key
        self.unit = unit
        self.scale = transform
        self.name = name or key
        self.on_missing = on_missing

    def __repr__(self) -> str:
        return f"Target({self.key!r}, {self.unit!r}, transform={self.scale!r})"

    @property
    def learned_unit(self) -> str:
        """Unit of what the network learns: "log10(GPa)", or `unit` itself."""
        return f"log10({self.unit})" if self.scale == "log10" else self.unit

    def settings(self) -> dict[str, Any]:
        """Plain arguments: `Target(**target.settings())` is the same target."""
        return {
            "key": self.key,
            "unit": self.unit,
            "transform": self.scale,
            "name": self.name,
            "on_missing": self.on_missing,
        }

    def transform(self, values: Tensor) -> Tensor:
        """Physical values to what the network learns, any shape."""
        return torch.log10(values) if self.scale == "log10" else values

    def inverse(self, values: Tensor) -> Tensor:
        """What the network learns to physical values, any shape."""
        return torch.pow(10.0, values) if self.scale == "log10" else values

    def check(self, ids: Sequence[str], values: Sequence[float] | np.ndarray | Tensor) -> None:
        """Refuse labels that cannot be learned.

        Args:
            ids: n names.
            values: n values in `unit`; NaN where missing.

        Raises:
            DataError: Missing, infinite, or (under log10) non-positive values; ids are named.
        """
        values = np.asarray(values, dtype=np.float64)
        missing = [ids[row] for row in np.flatnonzero(np.isnan(values)).tolist()]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(values)} crystals have no {self.key} "
                f"(absent, null, NaN or no number): {name_some(missing)}. "
                "Add it, or leave them out with target.on_missing=drop"
            )
        infinite = [ids[row] for row in np.flatnonzero(np.isinf(values)).tolist()]
        if infinite:
            raise DataError(f"{self.key} is infinite for {len(infinite)} crystals: {name_some(infinite)}")
        if self.scale == "log10" and (values <= 0).any():
            bad = np.flatnonzero(values <= 0).tolist()
            shown = name_some([f"{ids[row]} ({values[row]:g} {self.unit})" for row in bad])
            raise DataError(
                f"{self.key} is zero or negative for {len(bad)} crystals, so it has no log10: {shown}. "
                "Remove these crystals, or learn it as it is with target.transform=none"
            )

    def select(self, table: CrystalTable) -> tuple[np.ndarray, list[Removal]]:
        """The crystals that can be learned from.

        Returns:
            rows: Rows of `table` to keep, ascending, int64.
            removed: The crystals left out (none unless `on_missing` is "drop").

        Raises:
            DataError: An unknown property, another unit than the data's, no crystal left, or see `check`.
        """
        values = table.values(self.key)
        stated = table.units.get(self.key, "")
        if stated and self.unit and stated != self.unit:
            raise DataError(
                f"{self.key} is given in {stated}, but the target says {self.unit}: set target.unit={stated}"
            )
        rows = np.arange(len(values))
        removed: list[Removal] = []
        if self.on_missing == "drop" and np.isnan(values).any():
            removed = [
                Removal(table.ids[row], f"no {self.key}", "absent, null, NaN or no number")
                for row in np.flatnonzero(np.isnan(values))
            ]
            rows = np.flatnonzero(~np.isnan(values))
        if not len(rows):
            raise DataError(
                f"none of the {len(values)} crystals has {self.key}: choose another target or data set"
            )
        self.check([table.ids[row] for row in rows], values[rows])
        return rows, removed
