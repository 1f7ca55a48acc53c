"""`Target`: one property to learn: its unit, kind and shape, and the scale on which it is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from torch import Tensor

from potnet.config.suggest import did_you_mean
from potnet.data.errors import DataError, name_some
from potnet.data.table import CrystalTable
from potnet.data.transforms import TRANSFORMS, Transform

_CHOICES = {
    "kind": ("regression", "classification"),
    "per": ("crystal", "atom"),
    "transform": tuple(TRANSFORMS),
    "on_missing": ("raise", "drop", "mask"),
    "loss": (None, "mse", "mae", "huber"),
}


FACTORS = {("meV", "eV"): 1e3, ("meV/Å", "eV/Å"): 1e3, ("GPa", "eV/Å³"): 160.2176634}
"""How many of a unit for errors one unit of the data is."""


@dataclass(frozen=True)
class Target:
    """A property to learn.

    Data and predictions are in `unit`; the network learns `scale(value)`, and metrics are in `metric_unit`.

    Args:
        key: Name of the target: in metrics, tables and files.
        unit: Physical unit of the data and of predictions, such as "GPa".
        kind: "regression", or "classification" into `classes`.
        per: Whether there is one label a "crystal" or one an "atom".
        shape: Of one label: () for a number, (3,) for a force, (6,) for a stress (Voigt, xx yy zz yz xz xy).
        extensive: Whether the label grows with the cell, as a total energy does: the network sums over atoms,
            and metrics are per atom.
        transform: "none" or "log10". Labels that are logarithms already take "none" and say so in the unit.
        weight: Of this target in the loss.
        loss: "mse", "mae" or "huber" in place of the objective's; None takes that.
        derived_from: Key of the energy whose derivative this target is ("forces" and "stress"): it has no
            head of its own.
        classes: Names of the classes, in the order of the labels 0, 1, ...
        thresholds: Of a classification of numbers: class k is between threshold k - 1 (exclusive) and
            threshold k (inclusive); one less than there are classes.
        errors_in: Unit of errors where it is another than that of the data: "meV" for eV, "meV/Å" for eV/Å,
            "GPa" for eV/Å³. Labels, predictions and the loss stay as they are.
        reference_by: Of an extensive energy: column with the source of each label. Each source gets reference
            energies of its own, and all labels are put on one scale (`potnet.data.references`).
        column: Property of the data that holds the labels; None is `key`.
        name: Name for plots and tables; None is `key`.
        on_missing: What is done with crystals without the label: "raise" is an error, "drop" leaves them out,
            "mask" keeps them as long as they have the label of another target.

    Raises:
        DataError: A value that cannot be used; the message says which.
    """

    key: str
    unit: str = ""
    kind: Literal["regression", "classification"] = "regression"
    per: Literal["crystal", "atom"] = "crystal"
    shape: tuple[int, ...] = ()
    extensive: bool = False
    transform: str = "none"
    weight: float = 1.0
    loss: Literal["mse", "mae", "huber"] | None = None
    derived_from: str | None = None
    classes: tuple[str, ...] | None = None
    thresholds: tuple[float, ...] | None = None
    errors_in: str | None = None
    reference_by: str | None = None
    column: str | None = None
    name: str | None = None
    on_missing: Literal["raise", "drop", "mask"] = "raise"

    def __post_init__(self) -> None:
        for field, valid in _CHOICES.items():
            value = getattr(self, field)
            if value not in valid:
                names = [str(option) for option in valid if option is not None]
                raise DataError(f"target.{field}={value!r}{did_you_mean(str(value), names)}")
        for field in ("shape", "classes", "thresholds"):
            value = getattr(self, field)
            if value is not None:
                object.__setattr__(self, field, tuple(value))
        if not self.key or any(sign in self.key for sign in "./"):
            raise DataError(f"target.key={self.key!r}: give a name without '.' and '/'")
        if not (isinstance(self.weight, int | float) and 0 <= self.weight < float("inf")):
            raise DataError(f"target.weight={self.weight}: give a number, 0 or more")
        if self.errors_in is not None and (self.errors_in, self.unit) not in FACTORS:
            pairs = ", ".join(f"{shown} for {unit}" for shown, unit in FACTORS)
            raise DataError(
                f"target {self.key}: errors_in={self.errors_in} is not known for values in "
                f"{self.unit or 'no unit'}; known are {pairs}"
            )
        if self.reference_by is not None and not (self.extensive and self.kind == "regression"):
            raise DataError(
                f"target {self.key}: reference_by={self.reference_by} is for extensive energies; leave it out"
            )
        if self.kind == "classification":
            self._check_classes()
        elif self.classes is not None or self.thresholds is not None:
            raise DataError(
                f"target {self.key}: classes and thresholds belong to target.kind=classification, "
                f"but it is {self.kind}"
            )
        if (self.shape or self.per == "atom" or self.extensive) and self.transform != "none":
            raise DataError(
                f"target {self.key}: transform={self.transform} is for one number a crystal that does not "
                "grow with the cell; use target.transform=none"
            )

    def _check_classes(self) -> None:
        if self.classes is None or len(self.classes) < 2:
            raise DataError(
                f"target {self.key}: a classification needs at least two classes, "
                "such as target.classes=[metal,insulator]"
            )
        if len(set(self.classes)) < len(self.classes):
            raise DataError(f"target {self.key}: the classes {list(self.classes)} are not distinct")
        if self.thresholds is not None and (
            len(self.thresholds) != len(self.classes) - 1 or list(self.thresholds) != sorted(self.thresholds)
        ):
            raise DataError(
                f"target {self.key}: {len(self.classes)} classes need {len(self.classes) - 1} thresholds in "
                f"ascending order, got {list(self.thresholds)}"
            )
        if self.transform != "none" or self.extensive or self.shape:
            raise DataError(f"target {self.key}: a class has no transform, no shape and is not extensive")

    @property
    def scale(self) -> Transform:
        """The transform itself."""
        return TRANSFORMS[self.transform]

    @property
    def title(self) -> str:
        """Name for plots and tables."""
        return self.name or self.key

    @property
    def learned_unit(self) -> str:
        """Unit of what the network learns: "log10(GPa)", or `unit` itself."""
        return self.scale.unit(self.unit)

    @property
    def metric_unit(self) -> str:
        """Unit of errors: `errors_in` or that of what is learned, per atom for an extensive target."""
        unit = self.errors_in or self.learned_unit
        return f"{unit}/atom" if self.extensive else unit

    @property
    def metric_factor(self) -> float:
        """Errors in the learned unit (per atom) times this are in `metric_unit`."""
        return 1.0 if self.errors_in is None else FACTORS[self.errors_in, self.unit]

    @property
    def is_class(self) -> bool:
        """Whether this is a classification."""
        return self.kind == "classification"

    @property
    def outputs(self) -> int:
        """Numbers that the network gives for one label: a logit a class, or one an element of `shape`."""
        return len(self.classes or ()) if self.is_class else int(np.prod(self.shape, dtype=int))

    def settings(self) -> dict[str, Any]:
        """Plain arguments that differ from the defaults: `Target(**target.settings())` is the same target."""
        plain = {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }
        defaults = {f.name: f.default for f in fields(self)}
        return {
            key: value
            for key, value in plain.items()
            if (tuple(value) if isinstance(value, list) else value) != defaults[key]
        }

    def learned(self, values: Tensor) -> Tensor:
        """Physical values to what the network learns, any shape."""
        return self.scale(values)

    def physical(self, values: Tensor) -> Tensor:
        """What the network learns to physical values, any shape."""
        return self.scale.inverse(values)

    def labels(self, table: CrystalTable) -> np.ndarray:
        """The label of each crystal: in `unit`, or the number of its class.

        Args:
            table: Of n crystals.

        Returns:
            (n,) float64, NaN where missing. Of targets with a shape or of atoms, whose labels are with the
            features, zeros.

        Raises:
            DataError: An unknown property (the nearest is named), another unit than the data's, or a class
                that is not among `classes`.
        """
        column = self.column or self.key
        stated = table.units.get(column, "")
        if stated and self.unit and stated != self.unit and not self.is_class:
            said = f"{column} is given in {stated}, but "
            if self.derived_from is None:
                raise DataError(f"{said}the target says {self.unit}: set target.unit={stated}")
            raise DataError(
                f"{said}as a derivative of {self.derived_from} it has to be in {self.unit}: convert the data "
                "(1 GPa is 0.00624151 eV/Å³, and 1 kbar a tenth of it)"
            )
        if self.shape or self.per == "atom":
            return np.zeros(len(table))
        values = table.values(column)
        if not self.is_class:
            if values.dtype == object:
                row = next(row for row, value in enumerate(values) if value is not None)
                raise DataError(
                    f"{column} of {table.ids[row]} is {values[row]!r}, which is not a number; for classes "
                    "set target.kind=classification and target.classes"
                )
            return np.asarray(values, dtype=np.float64)
        return self._classes(table.ids, values)

    def _classes(self, ids: Sequence[str], values: np.ndarray) -> np.ndarray:
        """Numbers of classes from numbers (by thresholds, or as they are) or from names of classes."""
        classes = self.classes or ()
        if values.dtype.kind in "OUS":
            number = {name: float(n) for n, name in enumerate(classes)}
            found = np.array([number.get(str(v), np.nan) if _given(v) else np.nan for v in values])
            wrong = sorted({str(v) for v in values if _given(v) and str(v) not in number})
            if wrong:
                raise DataError(
                    f"{self.column or self.key} has labels that are not among target.classes="
                    f"{list(classes)}: {name_some(wrong)}"
                )
            return found
        if self.thresholds is not None:
            bounds = np.asarray(self.thresholds)
            numbers = np.searchsorted(bounds, values, side="left").astype(np.float64)
            return np.where(np.isnan(values), np.nan, numbers)
        known = np.isnan(values) | ((values == np.floor(values)) & (values >= 0) & (values < len(classes)))
        if not known.all():
            bad = [f"{ids[row]} ({values[row]:g})" for row in np.flatnonzero(~known).tolist()]
            raise DataError(
                f"{self.column or self.key}: classes are numbered 0 to {len(classes) - 1}, but some labels "
                f"are not: {name_some(bad)}. For a class from a number set target.thresholds"
            )
        return values

    def check(self, ids: Sequence[str], values: np.ndarray) -> None:
        """Refuse labels that cannot be learned.

        Args:
            ids: n names.
            values: (n,) from `labels`; NaN where missing.

        Raises:
            DataError: Missing labels with `on_missing="raise"`; infinite ones; values without a transform;
                a class without an example. Ids are named.
        """
        values = np.asarray(values, dtype=np.float64)
        missing = np.isnan(values)
        if missing.any() and self.on_missing == "raise":
            names = name_some([ids[row] for row in np.flatnonzero(missing).tolist()])
            raise DataError(
                f"{int(missing.sum())} of {len(values)} crystals have no {self.column or self.key} "
                f"(absent, null, NaN or not a number): {names}. Add it, or leave them out with "
                "target.on_missing=drop"
            )
        infinite = [ids[row] for row in np.flatnonzero(np.isinf(values)).tolist()]
        if infinite:
            raise DataError(f"{self.key} is infinite for {len(infinite)} crystals: {name_some(infinite)}")
        invalid = np.flatnonzero(self.scale.invalid(values) & ~missing).tolist()
        if invalid:
            shown = name_some([f"{ids[row]} ({f'{values[row]:g} {self.unit}'.rstrip()})" for row in invalid])
            raise DataError(
                f"{self.key} is {self.scale.refusal}, for {len(invalid)} crystals: {shown}. "
                "Remove these crystals, or learn it as it is with target.transform=none"
            )
        if self.is_class:
            counts = np.bincount(values[~missing].astype(int), minlength=self.outputs)
            empty = [name for name, count in zip(self.classes or (), counts, strict=True) if count < 2]
            if empty:
                raise DataError(
                    f"{self.key}: fewer than two crystals are {name_some(empty)}: nothing can be learned of "
                    "that class; add examples, or leave it out of target.classes"
                )


def _given(value: Any) -> bool:
    """Whether a text label is there."""
    return value is not None and value == value and str(value) != ""
