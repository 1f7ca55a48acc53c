"""`PredictorSet`: several models, one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from potnet.config import ConfigError
from potnet.crystals import Crystal, CrystalGraph
from potnet.data.features.featurizer import Failure, Featurizer
from potnet.data.targets import Targets
from potnet.inference.limits import Limits
from potnet.inference.predictions import Predictions, joined
from potnet.inference.predictor import Predictor

OF_ONE = ("std", "lower", "upper")
"""Columns beside the value of a single target; in a table of several they get its key before them."""


class PredictorSet(Predictor):
    """Several models whose targets differ, as one: each crystal is read once, and featurized once where they
    agree.

    A crystal that one model cannot predict has NaN in its columns, and the reason in the flags; one that none
    can is listed as failed.

    Args:
        models: By name, at least one.

    Raises:
        ConfigError: Two models predict the same target.
    """

    def __init__(self, models: Mapping[str, Predictor]) -> None:
        if not models:
            raise ConfigError("model=[]: name at least one model")
        self.models = dict(models)
        first = next(iter(self.models.values()))
        targets = [target for model in self.models.values() for target in model.targets.values()]
        keys = [target.key for target in targets]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ConfigError(
                f"model={','.join(self.models)}: several of these models predict {', '.join(twice)}; a table "
                "has one column for each target, so predict with one of them at a time"
            )
        super().__init__(first.model, first.scalers, Targets(targets), first.featurizer, first.record,
                         str(first.device))  # fmt: skip
        shared: list[_Shared] = []
        self._by_model: list[Predictor] = []
        for model in self.models.values():
            settings = model.featurizer.settings()
            same = next((known for known in shared if known.settings() == settings), None)
            if same is None:
                same = _Shared(model.featurizer)
                shared.append(same)
            model.featurizer = same  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "\n".join(repr(model) for model in self.models.values())

    def to(self, device: str) -> None:
        super().to(device)
        for model in self.models.values():
            model.to(device)

    def table(
        self, crystals: list[Crystal], unread: list[Failure], skip: bool, limits: Limits
    ) -> Predictions:
        """As for one model; see the class."""
        tables = [model.table(crystals, [], True, limits) for model in self.models.values()]
        reasons: dict[str, list[str]] = {}
        for name, table in zip(self.models, tables, strict=True):
            for failure in table.failures:
                reasons.setdefault(failure.id, []).append(f"{name}: {failure.reason}")
        known = {id for table in tables for id in table.ids}
        kept = [crystal.id for crystal in crystals if crystal.id in known]
        failures = list(unread)
        for crystal in crystals:
            if crystal.id not in known:
                reason = "; ".join(dict.fromkeys(r.partition(": ")[2] for r in reasons[crystal.id]))
                self._refuse(crystal.id, reason, skip, failures)
        found = self.empty_table()
        found.ids = kept
        found.flags = ["; ".join(reasons.get(id, ())) for id in kept]
        for name, table in zip(self.models, tables, strict=True):
            self._add(found, name, table)
        found.failures = failures
        return found

    def _add(self, found: Predictions, name: str, table: Predictions) -> None:
        """Put the columns and flags of one model into the table of all."""
        row = {id: number for number, id in enumerate(table.ids)}
        rows = [row.get(id, -1) for id in found.ids]
        for column, values in _named(table, len(self.targets)).items():
            blank: Any = "" if values.dtype == object else np.nan
            padded = np.append(values, np.array([blank], dtype=values.dtype))
            found.columns[column] = padded[rows]
        for key, arrays in table.atoms.items():
            found.atoms[key] = [arrays[n] if n >= 0 else np.zeros(0) for n in rows]
        for place, n in enumerate(rows):
            for note in table.flags[n].split("; ") if n >= 0 else ():
                # What speaks against a prediction by all models is said once.
                if note and note not in found.flags[place].split("; "):
                    found.flags[place] = "; ".join(filter(None, (found.flags[place], note)))

    def empty_table(self) -> Predictions:
        found = Predictions(self.targets)
        for model in self.models.values():
            empty = joined([model.empty_table()])
            found.columns |= _named(empty, len(self.targets))
            found.atoms |= empty.atoms
        return found


def _named(table: Predictions, targets: int) -> dict[str, np.ndarray]:
    """Columns of the table of one model, as they are called in a table of several targets."""
    if targets == 1 or len(table.targets) > 1:
        return table.columns
    return {f"{table.key}_{n}" if n in OF_ONE else n: values for n, values in table.columns.items()}


class _Shared:
    """A featurizer that remembers the crystals of its last call, which the next model asks for again.

    Args:
        featurizer: That does the work.
    """

    def __init__(self, featurizer: Featurizer) -> None:
        self._featurizer = featurizer
        self._crystals: list[Crystal] = []
        self._result: tuple[list[CrystalGraph], list[Failure]] = ([], [])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_featurizer":
            raise AttributeError(name)  # while it is unpickled
        return getattr(self._featurizer, name)

    @property
    def device(self) -> str:
        """See `Featurizer`."""
        return self._featurizer.device

    @device.setter
    def device(self, name: str) -> None:
        self._featurizer.device = name

    def featurize(
        self, crystals: Sequence[Crystal], failures: list[Failure] | None = None, labels: bool = True
    ) -> list[CrystalGraph]:
        """As `Featurizer.featurize`."""
        if failures is None:
            return self._featurizer.featurize(crystals, failures=None, labels=labels)
        same = len(crystals) == len(self._crystals) and all(
            one is other for one, other in zip(crystals, self._crystals, strict=True)
        )
        if not same:
            failed: list[Failure] = []
            graphs = self._featurizer.featurize(crystals, failures=failed, labels=labels)
            self._crystals, self._result = list(crystals), (graphs, failed)
        graphs, failed = self._result
        failures.extend(failed)
        return graphs
