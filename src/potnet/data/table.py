"""`CrystalTable`: what is known of crystals besides their structure. `Dataset`: crystals in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from potnet.config.suggest import did_you_mean
from potnet.crystals import Crystal
from potnet.data.errors import DataError, name_some

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
        targets: Label -> its column, read from disk when it is asked for (see `values`).
        arrays: Labels that are arrays, such as forces and stress; they are kept with the features.
        units: Label -> unit ("" where the source does not say).
        split: The source's own part of each crystal ("train", "val", "test", or None for neither), if it
            has a split.
        formulas: n reduced formulas, or empty if unknown.
        prototypes: n structure prototypes (see `prototypes`), or empty if they were not asked for.
        removed: Crystals of the source that are not in this table, and why.
        structures: Reads the crystals of some rows from disk, one by one, in the order given (without
            labels); None where they are not kept.
    """

    ids: list[str]
    targets: Mapping[str, np.ndarray]
    units: dict[str, str]
    split: list[str | None] | None = None
    formulas: list[str] = field(default_factory=list)
    prototypes: list[str] = field(default_factory=list)
    removed: tuple[Removal, ...] = ()
    arrays: tuple[str, ...] = ()
    structures: Callable[[np.ndarray], Iterator[Crystal]] | None = field(
        default=None, repr=False, compare=False
    )

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
            targets=SomeRows(self.targets, rows),
            units=self.units,
            split=None if self.split is None else [self.split[row] for row in rows],
            formulas=[self.formulas[row] for row in rows] if self.formulas else [],
            prototypes=[self.prototypes[row] for row in rows] if self.prototypes else [],
            removed=self.removed,
            arrays=self.arrays,
            structures=self._structures_of(rows),
        )

    def _structures_of(self, rows: np.ndarray) -> Callable[[np.ndarray], Iterator[Crystal]] | None:
        structures = self.structures
        return None if structures is None else lambda some: structures(rows[some])

    def values(self, key: str) -> np.ndarray:
        """The column of one label, in its physical unit.

        Returns:
            Numbers: (n,) float64, NaN where missing. Text: (n,) objects, None where missing.

        Raises:
            DataError: If there is no such label; the nearest one is named.
        """
        if key not in self.targets:
            if key in self.arrays:
                raise DataError(f"{key} is an array: give the target its shape, target.shape, and target.per")
            raise DataError(f"unknown target {key!r}{did_you_mean(key, [*self.targets, *self.arrays])}")
        return self.targets[key]


class SomeRows(Mapping[str, np.ndarray]):
    """Some rows of the columns of another mapping; nothing is copied before it is asked for."""

    def __init__(self, columns: Mapping[str, np.ndarray], rows: np.ndarray) -> None:
        inner = columns if isinstance(columns, SomeRows) else None
        self.columns: Mapping[str, np.ndarray] = columns if inner is None else inner.columns
        self.rows: np.ndarray = rows if inner is None else inner.rows[rows]

    def __getitem__(self, key: str) -> np.ndarray:
        return self.columns[key][self.rows]

    def __contains__(self, key: object) -> bool:
        return key in self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)


def column_of(values: Sequence[Any]) -> np.ndarray:
    """A column from one value a crystal, as `CrystalTable.values` describes it.

    Args:
        values: Numbers, text, or None where missing. Text among numbers counts as missing.
    """
    if any(isinstance(value, str) for value in values) and not any(is_number(value) for value in values):
        return objects(values)
    return np.array([value if is_number(value) else np.nan for value in values], dtype=np.float64)


def objects(values: Sequence[Any]) -> np.ndarray:
    """A column of anything."""
    column = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        column[row] = value
    return column


def is_number(value: Any) -> bool:
    """Whether a label is a number."""
    return isinstance(value, int | float)


def check_ids(name: str, ids: Sequence[str], repeated: np.ndarray) -> None:
    """Refuse ids that stand for several crystals.

    Args:
        name: Of the data set.
        ids: n names.
        repeated: (n,) bool, whether an earlier crystal has the same.

    Raises:
        DataError: Some do; they are named.
    """
    if repeated.any():
        twice = list(dict.fromkeys(ids[row] for row in np.flatnonzero(repeated).tolist()))
        raise DataError(
            f"{name}: {len(twice)} ids stand for several crystals: {name_some(twice)}. "
            "Give each crystal an id of its own"
        )


def check_parts(name: str, ids: Sequence[str], parts: Sequence[object]) -> None:
    """Refuse unknown names of parts of the split.

    Raises:
        DataError: Names the first crystal.
    """
    for id, part in zip(ids, parts, strict=True):
        if part is not None and part not in PARTS:
            raise DataError(
                f"{name}: crystal {id} is in the unknown part {str(part)!r}{did_you_mean(str(part), PARTS)}"
            )


def check_any(name: str, crystals: int, removed: Sequence[Removal]) -> None:
    """Refuse a data set without any crystal.

    Raises:
        DataError: Says why the first one was left out.
    """
    if crystals:
        return
    if removed:
        why = removed[0].detail or removed[0].id
        raise DataError(f"{name}: none of the {len(removed)} crystals can be read: {why}")
    raise DataError(f"{name}: there is no crystal in this data set")


@dataclass(frozen=True)
class Dataset:
    """The crystals of a source, all in memory.

    Attributes:
        name: Short name.
        crystals: At least one; ids are unique.
        content_hash: sha256 of whatever defines the content.
        table: Ids, labels, split, formulas, and what was left out.
        licence: Licence of the data.
        citation: What to cite.
    """

    name: str
    crystals: list[Crystal]
    content_hash: str
    table: CrystalTable
    licence: str = ""
    citation: str = ""

    @classmethod
    def of(
        cls,
        name: str,
        crystals: Sequence[Crystal],
        content_hash: str,
        parts: Sequence[object] | None = None,
        units: Mapping[str, str] | None = None,
        licence: str = "",
        citation: str = "",
        removed: Sequence[Removal] = (),
        on_error: str = "raise",
    ) -> Dataset:
        """Check ids and parts, and gather the labels.

        Args:
            crystals: With their labels in `properties`.
            parts: "train", "val", "test" or None for each crystal, if there is a split.
            units: Label -> unit.
            on_error: With "skip", of several crystals with one id the first is kept.
            name, content_hash, licence, citation, removed: See the class.

        Raises:
            DataError: No crystal, duplicate ids (with "raise"), or an unknown part.
        """
        removed = list(removed)
        ids = [crystal.id for crystal in crystals]
        first = {id: row for row, id in reversed(list(enumerate(ids)))}
        repeated = np.array([first[id] != row for row, id in enumerate(ids)], dtype=bool)
        if on_error != "skip":
            check_ids(name, ids, repeated)
        else:
            removed[:0] = [repeated_id(ids[row]) for row in np.flatnonzero(repeated).tolist()]
        rows = np.flatnonzero(~repeated).tolist()
        check_any(name, len(rows), removed)
        if parts is not None:
            check_parts(name, ids, parts)
        kept = [crystals[row] for row in rows]
        keys = sorted({*(units or {}), *(key for crystal in kept for key in crystal.properties)})
        columns = {key: [crystal.properties.get(key) for crystal in kept] for key in keys}
        arrays = [
            key for key, values in columns.items() if any(isinstance(value, np.ndarray) for value in values)
        ]
        table = CrystalTable(
            ids=[crystal.id for crystal in kept],
            targets={key: column_of(values) for key, values in columns.items() if key not in arrays},
            units={key: (units or {}).get(key, "") for key in keys},
            arrays=tuple(arrays),
            split=None if parts is None else [parts[row] for row in rows],  # type: ignore[misc]
            formulas=[crystal.formula for crystal in kept],
            removed=tuple(removed),
        )
        return cls(name, kept, content_hash, table, licence, citation)

    def __len__(self) -> int:
        return len(self.crystals)

    @property
    def split(self) -> dict[str, str] | None:
        """Id -> part of the split that comes with the data; ids in no part are absent."""
        if self.table.split is None:
            return None
        return {id: part for id, part in zip(self.table.ids, self.table.split, strict=True) if part}

    @property
    def targets(self) -> dict[str, str]:
        """Label -> unit."""
        return self.table.units

    @property
    def removed(self) -> tuple[Removal, ...]:
        """Crystals that the source has and that are not among `crystals`, and why."""
        return self.table.removed


def repeated_id(id: str) -> Removal:
    """Why a crystal whose id an earlier one has is left out."""
    return Removal(id, DUPLICATE, "the first crystal of this id is kept")


def limited_rows(split: Sequence[str | None] | None, total: int, limit: int, seed: int = 0) -> np.ndarray:
    """Rows of a smaller data set that keeps the proportions of the source's split.

    Args:
        split: Part of each crystal, if there is a split.
        total: Number of crystals.
        limit: How many to keep, at most `total`.
        seed: Chooses which. The order of the crystals stays.

    Returns:
        (limit,) int64, ascending; as many of each part as its share asks for (largest remainders).
    """
    labels = np.array([str(part) for part in split] if split else ["all"] * total)
    names, counts = np.unique(labels, return_counts=True)
    share = counts * limit / total
    keep = np.floor(share).astype(int)
    keep[np.argsort(keep - share, kind="stable")[: limit - keep.sum()]] += 1
    rng = np.random.default_rng(seed)
    chosen = [
        rng.permutation(np.flatnonzero(labels == name))[:n] for name, n in zip(names, keep, strict=True)
    ]
    return np.sort(np.concatenate(chosen))
