"""`Ensemble`: several trained networks as one model, with a spread, intervals and a distance to training."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from potnet.crystals import Crystal, CrystalBatch, CrystalGraph, collate
from potnet.data.targets import Target
from potnet.inference.flags import NEAREST, Reference, Surroundings
from potnet.inference.inputs import Inputs
from potnet.inference.intervals import Intervals
from potnet.inference.local_errors import LocalErrors
from potnet.inference.predictions import Predictions
from potnet.inference.predictor import Predictor
from potnet.runs.errors import CheckpointError
from potnet.training.outputs import values_of

Neighbours = list[tuple[Reference, float]]
"""Training crystals and how far they are."""

STD, LOWER, UPPER = "std", "lower", "upper"
"""Columns beside a value; where a table has several targets, KEY_std and so on."""


@dataclass(frozen=True)
class Calibration:
    """What was measured on crystals that no member was trained on, and what the training crystals were.

    Attributes:
        intervals: By the key of a target.
        surroundings: Of the training crystals in the embedding of the first member; None says nothing.
        domain: See `TrainingDomain`; empty takes that of the first member's checkpoint.
        facts: Plain facts to keep, such as the split's hash.
        local_errors: By the key of a target, in the directions of the surroundings; with them the scale of an
            interval is sqrt(spread² + local error² + floor²).
    """

    intervals: dict[str, Intervals] = field(default_factory=dict)
    surroundings: Surroundings | None = None
    domain: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    local_errors: dict[str, LocalErrors] = field(default_factory=dict)

    def save(self, file: Path) -> None:
        """Write it as one safetensors file; its settings are JSON in the header."""
        from safetensors.torch import save

        from potnet.files import write_whole

        tensors = {
            f"scores.{key}": torch.from_numpy(entry.scores).float() for key, entry in self.intervals.items()
        }
        if self.surroundings is not None:
            tensors |= self.surroundings.tensors()
        for key, local in self.local_errors.items():
            tensors |= local.tensors(key)
        settings: dict[str, Any] = {
            "floors": {key: entry.floor for key, entry in self.intervals.items()},
            "domain": self.domain,
            "facts": self.facts,
        }
        if self.surroundings is not None and self.surroundings.known:
            settings["references"] = self.surroundings.known
        write_whole(file, save(tensors, {"potnet_calibration": json.dumps(settings, sort_keys=True)}))

    @classmethod
    def load(cls, file: Path) -> Calibration:
        """Read it.

        Raises:
            CheckpointError: The file is missing, damaged or something else.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, framework="pt") as content:
                settings = json.loads((content.metadata() or {}).get("potnet_calibration", "null"))
                tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
            floors: Mapping[str, float] = settings["floors"]
            intervals = {
                key: Intervals(tensors[f"scores.{key}"].double().numpy(), floor)
                for key, floor in floors.items()
            }
            surroundings = Surroundings.from_tensors(tensors, settings.get("references", ()))
            local = {key: LocalErrors.from_tensors(tensors, key) for key in floors}
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{file}: no calibration of an ensemble, or damaged ({error})") from error
        known = {key: entry for key, entry in local.items() if entry is not None}
        return cls(intervals, surroundings, settings["domain"], settings["facts"], known)

    def difficulty(self, key: str, spread: np.ndarray, embedding: Tensor | None) -> np.ndarray:
        """By what an interval is normalised, (n,): the spread, and with it the errors around a crystal.

        Args:
            key: Of the target.
            spread: (n,) of the members, learned unit.
            embedding: (n, G) of the first member.
        """
        local = self.local_errors.get(key)
        if local is None or self.surroundings is None or embedding is None:
            return spread
        return np.asarray(np.hypot(spread, local.at(self.surroundings.places(embedding))))


class Ensemble(Predictor):
    """Networks that learned the same targets from the same features, as one model.

    Values are the mean of the members in the learned unit (for log10(GPa) the geometric mean of the moduli),
    of classes the mean of the members' probabilities. `std` is the members' standard deviation in the
    physical unit: a spread, and not by itself the error to expect. `lower` and `upper` are the conformal
        interval.

    Args:
        members: At least one, with equal targets and features.
        calibration: None gives neither intervals nor a distance.
        name: For messages.

    Raises:
        CheckpointError: Members that differ in targets or features.
    """

    def __init__(
        self, members: Sequence[Predictor], calibration: Calibration | None = None, name: str = ""
    ) -> None:
        first = members[0]
        for number, member in enumerate(members[1:], 1):
            for what, one, other in (
                ("targets", first.targets.settings(), member.targets.settings()),
                ("features", first.featurizer.settings(), member.featurizer.settings()),
            ):
                if one != other:
                    raise CheckpointError(
                        f"{name or 'ensemble'}: members 0 and {number} have other {what}: an ensemble needs "
                        f"members that learned the same, {one} and {other}"
                    )
        record = dict(first.record)
        self.calibration = calibration or Calibration()
        if self.calibration.domain:
            record["training"] = self.calibration.domain
        super().__init__(
            first.model, first.scalers, first.targets, first.featurizer, record, str(first.device)
        )
        self.name = name
        self.members: list[tuple[nn.Module, nn.ModuleDict]] = [(m.model, m.scalers) for m in members]

    @classmethod
    def from_files(
        cls,
        files: Sequence[str | os.PathLike[str]],
        calibration: str | os.PathLike[str] | None = None,
        device: str = "auto",
        name: str = "",
    ) -> Ensemble:
        """Load members (checkpoints or exports) and their calibration.

        Raises:
            CheckpointError: A file that cannot be used.
        """
        members = [Predictor.from_checkpoint(file, device) for file in files]
        return cls(members, None if calibration is None else Calibration.load(Path(calibration)), name)

    def __repr__(self) -> str:
        first, *rest = super().__repr__().splitlines()
        head = f"{self.name or 'Ensemble'}: {len(self.members)} members, {first.partition(': ')[2]} each"
        known = [f"  intervals of {key}: calibrated on {len(entry)} crystals"
                 for key, entry in self.calibration.intervals.items()]  # fmt: skip
        return "\n".join([head, *rest, *known])

    def to(self, device: str) -> None:
        super().to(device)
        for model, scalers in self.members:
            model.to(self.device)
            scalers.to(self.device)

    @torch.no_grad()
    def by_member(self, batch: CrystalBatch) -> dict[str, Tensor]:
        """Values in the learned units by member, (M, ...) float64, on the CPU; classes: log probabilities."""
        batch = batch.to(self.device)
        found: dict[str, list[Tensor]] = {key: [] for key in self.targets}
        for model, scalers in self.members:
            for key, value in values_of(model, scalers, self.targets, batch).items():
                found[key].append(value.log_softmax(-1) if self.targets[key].is_class else value)
        return {key: torch.stack(values).cpu() for key, values in found.items()}

    @torch.no_grad()
    def learned(self, batch: CrystalBatch) -> dict[str, Tensor]:
        """Mean over the members; see `Predictor.learned`."""
        return {key: self._mean(key, values) for key, values in self.by_member(batch).items()}

    @torch.no_grad()
    def nearest(self, inputs: Inputs, count: int = NEAREST, **options: Any) -> list[Neighbours]:
        """The training crystals that each crystal is most like, in the embedding of the first member.

        Args:
            inputs: As for `predict`; each must be usable.
            count: How many.
            options: `box`, `plausibility`, as for `predict`.

        Returns:
            By crystal, at most `count` of up to 1 000 training crystals, each with its distance, in parts of
            that beyond which a crystal is flagged. Empty where the calibration does not say what they are.
        """
        if self.calibration.surroundings is None or not self.calibration.surroundings.known:
            return []
        vectors = torch.from_numpy(self.embed(inputs, **options).crystals)
        return self.calibration.surroundings.nearest(vectors, count)

    def _mean(self, key: str, values: Tensor) -> Tensor:
        if self.targets[key].is_class:
            return values.logsumexp(0) - float(np.log(len(values)))
        return values.mean(0)

    def spread(self, values: Tensor) -> Tensor:
        """(M, n) to the standard deviation of the members, (n,); zeros for one member."""
        return values.std(0, correction=1) if len(values) > 1 else torch.zeros_like(values[0])

    def _rows(self, graphs: list[CrystalGraph], crystals: list[Crystal], level: float) -> Predictions:
        batch = collate(graphs)
        values = self.by_member(batch)
        vectors: Tensor | None = None
        if self.calibration.surroundings is not None:
            with torch.no_grad():
                vectors = self.model.embed(batch.to(self.device)).crystals.cpu()  # type: ignore[operator]
        found = self._filled({key: self._mean(key, v) for key, v in values.items()}, graphs, crystals)
        columns: dict[str, np.ndarray] = {}
        for name, column in found.columns.items():
            columns[name] = column
            if name in self._with_spread:
                columns |= self._beside(self.targets[name], values[name], level, vectors)
        found.columns = columns
        if self.calibration.surroundings is not None and vectors is not None:
            notes = self.calibration.surroundings.flags(vectors)
            found.flags = ["; ".join(filter(None, both)) for both in zip(found.flags, notes, strict=True)]
        return found

    @property
    def _with_spread(self) -> list[str]:
        """Targets with a spread and an interval: one number a crystal, which does not grow with the cell."""
        return [
            key
            for key, target in self.targets.items()
            if target.per == "crystal" and not (target.is_class or target.shape or target.extensive)
        ]

    def _beside(
        self, target: Target, values: Tensor | None, level: float, vectors: Tensor | None = None
    ) -> dict[str, np.ndarray]:
        """The columns beside the value of a target.

        Args:
            target: Which.
            values: (M, n) of the members, learned unit; None gives empty columns.
            level: Of the interval.
            vectors: (n, G), embedding of the first member.
        """
        prefix = "" if len(self.targets) == 1 else f"{target.key}_"
        names = [f"{prefix}{name}" for name in (STD, LOWER, UPPER)]
        intervals = self.calibration.intervals.get(target.key)
        if values is None:
            return {name: np.zeros(0) for name in (names if intervals else names[:1])}
        physical = target.physical(values)
        spread = self.spread(physical) if len(values) > 1 else torch.full_like(physical[0], torch.nan)
        found = {names[0]: spread.numpy()}
        if intervals is not None:
            middle = values.mean(0)
            hard = self.calibration.difficulty(target.key, self.spread(values).numpy(), vectors)
            half = torch.from_numpy(intervals.half_width(hard, level))
            found[names[1]] = target.physical(middle - half).numpy()
            found[names[2]] = target.physical(middle + half).numpy()
        return found

    def empty_table(self) -> Predictions:
        found = super().empty_table()
        columns: dict[str, np.ndarray] = {}
        for name, column in found.columns.items():
            columns[name] = column
            if name in self._with_spread:
                columns |= self._beside(self.targets[name], None, 0.5)
        found.columns = columns
        return found
