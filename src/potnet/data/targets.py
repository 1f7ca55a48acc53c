"""`Targets`: the properties of a run, in order, and which crystals have labels of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from potnet.data.errors import DataError
from potnet.data.table import CrystalTable, Removals
from potnet.data.target import Target

__all__ = ["Target", "Targets"]


class Targets(Mapping[str, Target]):
    """The targets of a run: an ordered, read-only mapping key -> `Target`.

    Args:
        targets: At least one, with distinct keys.

    Raises:
        DataError: No target, or two with one key; a derived target whose energy is not among them.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = {target.key: target for target in targets}
        if not self._targets:
            raise DataError("there is no target: choose one, such as target=k_vrh")
        if len(self._targets) < len(targets):
            raise DataError(f"several targets have one key: {', '.join(target.key for target in targets)}")
        for target in targets:
            if target.derived_from is None:
                continue
            energy = self._targets.get(target.derived_from)
            if energy is None or energy.derived_from or not energy.extensive:
                raise DataError(
                    f"target {target.key} is derived from {target.derived_from}, which is not an extensive "
                    f"target of this run ({', '.join(self._targets)})"
                )
            if target.key not in ("forces", "stress"):
                raise DataError(f"target {target.key}: only forces and stress can be derived from an energy")

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | Targets | Target) -> Targets:
        """Targets from a config: one target (a mapping with `key`), or several by key.

        Raises:
            DataError: See `Target`; or this is none of the three.
            ConfigError: An unknown argument; the nearest one is named.
        """
        from potnet.config import check_arguments

        if isinstance(config, Targets):
            return config
        if isinstance(config, Target):
            return cls([config])
        if not isinstance(config, Mapping):
            raise DataError(
                f'targets={config!r}: give a Target, such as Target("k_vrh", unit="GPa", '
                'transform="log10"), a Targets, or a mapping as in conf/target'
            )
        plain: Mapping[str, Any] = config
        entries: dict[str, dict[str, Any]]
        if "key" in plain:
            entries = {"": dict(plain)}
        else:
            entries = {str(key): {"key": str(key), **entry} for key, entry in plain.items() if entry}
        for key, entry in entries.items():
            check_arguments(Target, entry, f"target.{key}".rstrip("."))
        return cls([Target(**entry) for entry in entries.values()])

    def __getitem__(self, key: str) -> Target:
        return self._targets[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)

    def __repr__(self) -> str:
        return f"Targets({list(self._targets.values())})"

    @property
    def first(self) -> Target:
        """The first target."""
        return next(iter(self._targets.values()))

    @property
    def derived(self) -> dict[str, Target]:
        """Those that are derivatives of an energy."""
        return {key: target for key, target in self._targets.items() if target.derived_from}

    @property
    def direct(self) -> dict[str, Target]:
        """Those for which the network has a head."""
        return {key: target for key, target in self._targets.items() if not target.derived_from}

    def settings(self) -> dict[str, dict[str, Any]]:
        """Plain arguments by key: `Targets.from_config(targets.settings())` are the same targets."""
        return {key: target.settings() for key, target in self._targets.items()}

    def heads(self) -> dict[str, dict[str, Any]]:
        """Plain arguments of a `HeadSpec` for each direct target."""
        return {
            key: {"outputs": target.outputs, "per": target.per, "extensive": target.extensive}
            for key, target in self.direct.items()
        }

    @property
    def monitor(self) -> str:
        """The metric that judges a run unless another is configured."""
        if len(self) > 1:
            return "val/loss"
        return f"val/{self.first.key}/{'accuracy' if self.first.is_class else 'mae'}"

    def select(self, table: CrystalTable) -> tuple[np.ndarray, dict[str, np.ndarray], Removals]:
        """The crystals that can be learned from.

        Returns:
            rows: Rows of `table` to keep, ascending, int64.
            labels: (len(rows),) float64 of each target (see `Target.labels`).
            removed: The crystals left out.

        Raises:
            DataError: See `Target.labels` and `Target.check`; no crystal is left.
        """
        labels = {key: target.labels(table) for key, target in self._targets.items()}
        keep = np.ones(len(table), dtype=bool)
        removed = Removals()

        def leave_out(rows: np.ndarray, reason: str) -> None:
            nonlocal removed
            ids = table.ids.filter(pa.array(rows & keep))
            removed += Removals.of(ids, reason, "absent, null, NaN or not a number")
            keep[rows] = False

        for key, target in self._targets.items():
            if target.on_missing == "drop":
                leave_out(np.isnan(labels[key]), f"no {key}")
        masked = [key for key, target in self._targets.items() if target.on_missing == "mask"]
        if masked and len(masked) == len(self):
            nothing = np.all([np.isnan(labels[key]) for key in masked], axis=0)
            leave_out(nothing, f"no {' or '.join(masked)}")
        rows = np.flatnonzero(keep)
        if not len(rows):
            raise DataError(
                f"none of the {len(table)} crystals has {' and '.join(self)}: choose another target or "
                "data set"
            )
        ids = table.ids.take(pa.array(rows))
        labels = {key: values[rows] for key, values in labels.items()}
        for key, target in self._targets.items():
            target.check(ids, labels[key])
        return rows, labels, removed
