"""`Dataset`: crystals with properties, as a source delivers them; `CrystalTable`: their labels alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from potnet.crystals import Crystal
from potnet.data.errors import DataError, did_you_mean, name_some

PARTS = ("train", "val", "test")

UNREADABLE = "unreadable"
DUPLICATE = "duplicate id"
TOO_LARGE = "too many atoms"
NOT_FEATURIZED = "not featurized"
NOT_IN_SPLIT = "in no part of the split"


@dataclass(frozen=True)
class Removal:
    """A crystal that is in the source but is not used.

    Attributes:
        id: Its name, or where it stands if it has none.
        reason: One of a few, such as "unreadable": they are counted by it.
        detail: What exactly was wrong; may be empty.
    """

    id: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class CrystalTable:
    """What is known of n crystals besides their structure: enough to choose, split and label them.

    Attributes:
        ids: n unique names.
        targets: Property -> (n,) float64 in its physical unit, NaN where missing.
        units: Property -> unit ("" where the source does not say).
        split: The source's own part of each crystal ("train", "val", "test", or None for neither), if it
            has a split.
        formulas: n reduced formulas, or empty if nobody knows them.
        prototypes: n structure prototypes (see `prototypes`), or empty if they were not asked for.
        removed: Crystals of the source that are not in this table, and why.
    """

    ids: list[str]
    targets: dict[str, np.ndarray]
    units: dict[str, str]
    split: list[str | None] | None = None
    formulas: list[str] = field(default_factory=list)
    prototypes: list[str] = field(default_factory=list)
    removed: tuple[Removal, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def position(self) -> dict[str, int]:
        """The row of each id."""
        return {id: row for row, id in enumerate(self.ids)}

    def take(self, rows: Sequence[int] | np.ndarray) -> CrystalTable:
        """The table of some rows, in the order given."""
        rows = np.asarray(rows, dtype=np.int64)
        return CrystalTable(
            ids=[self.ids[row] for row in rows],
            targets={key: values[rows] for key, values in self.targets.items()},
            units=self.units,
            split=None if self.split is None else [self.split[row] for row in rows],
            formulas=[self.formulas[row] for row in rows] if self.formulas else [],
            prototypes=[self.prototypes[row] for row in rows] if self.prototypes else [],
            removed=self.removed,
        )

    def values(self, key: str) -> np.ndarray:
        """(n,) float64 of one property, in its physical unit.

        Raises:
            DataError: If there is no such property; the nearest one is named.
        """
        if key not in self.targets:
            raise DataError(f"unknown target {key!r}: {did_you_mean(key, self.targets)}")
        return self.targets[key]

    def to_plain(self) -> dict[str, Any]:
        """As JSON can hold it; NaN becomes null, infinity text.

        Prototypes are kept elsewhere, see `prototypes`.
        """
        return {
            "ids": self.ids,
            "split": self.split,
            "formulas": self.formulas,
            "removed": [[entry.id, entry.reason, entry.detail] for entry in self.removed],
            "units": self.units,
            "targets": {
                key: [_number_to_plain(value) for value in values.tolist()]
                for key, values in self.targets.items()
            },
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> CrystalTable:
        """The inverse of `to_plain`."""
        targets = {key: np.array(values, dtype=np.float64) for key, values in plain["targets"].items()}
        return cls(
            ids=plain["ids"],
            targets=targets,
            units=plain["units"],
            split=plain["split"],
            formulas=plain["formulas"],
            removed=tuple(Removal(*entry) for entry in plain["removed"]),
        )


@dataclass(frozen=True)
class Dataset:
    """Crystals from one source.

    Attributes:
        name: Short name, used for the folder of its feature cache.
        crystals: At least one; ids are unique.
        content_hash: sha256 of whatever defines the content.
        split: id -> "train", "val" or "test", if the source has a split. Ids may be absent.
        targets: Property -> unit ("" where the source does not say), read from `Crystal.properties`.
        licence: Licence of the data.
        citation: What to cite.
        removed: Crystals that the source has and that are not among `crystals`, and why.

    Raises:
        DataError: No crystal, duplicate ids, an unknown part or an unknown id in the split.
    """

    name: str
    crystals: list[Crystal]
    content_hash: str
    split: dict[str, str] | None = None
    targets: dict[str, str] = field(default_factory=dict)
    licence: str = ""
    citation: str = ""
    removed: tuple[Removal, ...] = ()

    def __post_init__(self) -> None:
        if not self.crystals:
            raise DataError(f"{self.name}: there is no crystal in this data set")
        repeated = [id for id, count in Counter(crystal.id for crystal in self.crystals).items() if count > 1]
        if repeated:
            raise DataError(
                f"{self.name}: {len(repeated)} ids stand for several crystals: {name_some(repeated)}. "
                "Give each crystal an id of its own"
            )
        for id, part in (self.split or {}).items():
            if part not in PARTS:
                raise DataError(
                    f"{self.name}: crystal {id} is in the unknown part {part!r}: {did_you_mean(part, PARTS)}"
                )
        unknown = set(self.split or {}) - {crystal.id for crystal in self.crystals}
        if unknown:
            raise DataError(
                f"{self.name}: the split names crystals that are not there: {name_some(sorted(unknown))}"
            )

    def __len__(self) -> int:
        return len(self.crystals)

    @cached_property
    def table(self) -> CrystalTable:
        """The labels that are numbers and the split, without structures; arrays are among the features."""
        nan = float("nan")
        return CrystalTable(
            ids=[crystal.id for crystal in self.crystals],
            targets={
                key: np.array(
                    [crystal.properties.get(key, nan) for crystal in self.crystals], dtype=np.float64
                )
                for key in self.targets
                if not any(isinstance(crystal.properties.get(key), np.ndarray) for crystal in self.crystals)
            },
            units=dict(self.targets),
            split=None if self.split is None else [self.split.get(crystal.id) for crystal in self.crystals],
            formulas=[crystal.formula for crystal in self.crystals],
            removed=self.removed,
        )

    def up_to(self, max_atoms: int | None) -> Dataset:
        """The data set without its largest cells, which are listed in `removed`.

        Args:
            max_atoms: Atoms in the cell as the source gives it; None keeps all.

        Raises:
            DataError: If `max_atoms` is less than 1, or no crystal is as small as that.
        """
        if max_atoms is None:
            return self
        if max_atoms < 1:
            raise DataError(f"data.max_atoms={max_atoms}: give at least 1, or null for no limit")
        kept = [crystal for crystal in self.crystals if len(crystal) <= max_atoms]
        if not kept:
            smallest = min(len(crystal) for crystal in self.crystals)
            raise DataError(
                f"data.max_atoms={max_atoms}: none of the {len(self)} crystals of {self.name} is as small "
                f"as that, the smallest has {smallest} atoms"
            )
        large = tuple(
            Removal(crystal.id, TOO_LARGE, f"{len(crystal)} atoms, more than data.max_atoms={max_atoms}")
            for crystal in self.crystals
            if len(crystal) > max_atoms
        )
        return self._of(kept, large)

    def _of(self, crystals: list[Crystal], removed: tuple[Removal, ...] = ()) -> Dataset:
        """The same data set with some of its crystals only."""
        split = self.split and {
            crystal.id: self.split[crystal.id] for crystal in crystals if crystal.id in self.split
        }
        return replace(self, crystals=crystals, split=split, removed=self.removed + removed)

    def limited(self, limit: int | None, seed: int = 0) -> Dataset:
        """A smaller data set that keeps the proportions of the source's split: for tests and first trials.

        Args:
            limit: How many crystals to keep (all, if there are no more or it is None).
            seed: Chooses which. The order of the crystals stays.

        Raises:
            DataError: If `limit` is less than 1.
        """
        if limit is None or limit >= len(self):
            return self
        if limit < 1:
            raise DataError(f"data.limit={limit}: keep at least 1 crystal, or null for all")
        rows = _proportional(self.table.split, len(self), limit, seed)
        return self._of([self.crystals[row] for row in rows])


def _number_to_plain(value: float) -> float | str | None:
    """What JSON can hold and `numpy.array` reads again."""
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


def _proportional(split: list[str | None] | None, total: int, limit: int, seed: int) -> list[int]:
    """`limit` of `total` rows, as many of each part as its share asks for (largest remainders)."""
    labels = np.array([str(part) for part in split] if split else ["all"] * total)
    names, counts = np.unique(labels, return_counts=True)
    share = counts * limit / total
    keep = np.floor(share).astype(int)
    keep[np.argsort(keep - share, kind="stable")[: limit - keep.sum()]] += 1
    rng = np.random.default_rng(seed)
    chosen = [
        rng.permutation(np.flatnonzero(labels == name))[:n] for name, n in zip(names, keep, strict=True)
    ]
    return sorted(np.concatenate(chosen).tolist())
