"""`CrystalTable`: what is known of crystals besides their structure. `Dataset`: crystals in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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


class Removals:
    """Crystals that are not used, and why, in order: as columns, for they may be most of a data set.

    Iterating gives each as a `Removal`.

    Args:
        columns: Arrow's `id`, `reason` and `detail`, the last two dictionaries; None for no crystal.
    """

    SCHEMA = pa.schema(
        {
            "id": pa.string(),
            "reason": pa.dictionary(pa.int32(), pa.string()),
            "detail": pa.dictionary(pa.int32(), pa.string()),
        }
    )

    def __init__(self, columns: pa.Table | None = None) -> None:
        self.columns = self.SCHEMA.empty_table() if columns is None else columns

    @classmethod
    def listed(cls, entries: Iterable[Removal]) -> Removals:
        """Of some crystals, each with a reason of its own."""
        return cls(pa.Table.from_pylist([asdict(entry) for entry in entries], cls.SCHEMA))

    @classmethod
    def of(cls, ids: pa.StringArray, reason: str, detail: str | pa.DictionaryArray = "") -> Removals:
        """Of many crystals with one reason, and with one detail or a column of them."""

        def all_of(text: str) -> pa.DictionaryArray:
            return pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(ids), dtype=np.int32)), [text])

        details = all_of(detail) if isinstance(detail, str) else detail
        return cls(pa.table([ids, all_of(reason), details], schema=cls.SCHEMA))

    def __len__(self) -> int:
        return len(self.columns)

    def __iter__(self) -> Iterator[Removal]:
        for batch in self.columns.to_batches(1024):
            yield from (Removal(**entry) for entry in batch.to_pylist())

    def __add__(self, other: Removals) -> Removals:
        return Removals(pa.concat_tables([self.columns, other.columns]))

    @property
    def ids(self) -> pa.ChunkedArray:
        """Their names."""
        return self.columns.column("id")

    def counts(self) -> dict[str, int]:
        """How many for each reason."""
        reasons = pc.value_counts(self.columns.column("reason").unify_dictionaries())
        return {entry["values"]: entry["counts"] for entry in reasons.to_pylist()}


class Columns(Mapping[str, Any]):
    """Columns by name, each read when it is asked for and not kept.

    Args:
        names: Of the columns.
        read: Name -> column.
    """

    def __init__(self, names: Iterable[str], read: Callable[[str], Any]) -> None:
        self.names = list(names)
        self.read = read

    def __getitem__(self, name: str) -> Any:
        if name not in self.names:
            raise KeyError(name)
        return self.read(name)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class CrystalTable:
    """What is known of n crystals besides their structure: enough to choose, split and label them.

    Columns are read from disk when they are asked for, so that a table of many crystals is small.

    Attributes:
        texts: "id" (unique names), and as far as they are known "part" (of the source's own split: "train",
            "val", "test", or null for neither), "formula" (reduced) and "prototype" (see `prototypes`): n
            texts each, as arrays of Arrow. `to_pylist()` makes a list of one.
        targets: Label -> its column (see `values`).
        arrays: Labels that are arrays, such as forces and stress; they are kept with the features.
        units: Label -> unit ("" where the source does not say).
        removed: Crystals of the source that are not in this table, and why.
        structures: Reads the crystals of some rows from disk, one by one, in the order given (without
            labels); None where they are not kept.
    """

    texts: Mapping[str, pa.StringArray]
    targets: Mapping[str, np.ndarray]
    units: dict[str, str]
    removed: Removals = field(default_factory=Removals)
    arrays: tuple[str, ...] = ()
    structures: Callable[[np.ndarray], Iterator[Crystal]] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def ids(self) -> pa.StringArray:
        """n names, kept once they have been read."""
        return self.texts["id"]

    @property
    def split(self) -> pa.StringArray | None:
        """The source's own part of each crystal, if it has a split."""
        return self.texts.get("part")

    def take(self, rows: Sequence[int] | np.ndarray) -> CrystalTable:
        """The table of some rows, in the order given."""
        rows = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            texts=Columns(self.texts, lambda name: self.texts[name].take(pa.array(rows))),
            targets=Columns(self.targets, lambda key: self.targets[key][rows]),
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


def first_rows(texts: pa.StringArray) -> np.ndarray:
    """(n,) int64, for each of n texts the first row that has the same.

    By sorting, which takes a fraction of the memory of a table of hashes.
    """
    order = pc.sort_indices(texts)  # stable
    ordered = texts.take(order)
    order = order.to_numpy().astype(np.int64)
    new = np.ones(len(order), dtype=bool)
    new[1:] = pc.not_equal(ordered[1:], ordered[:-1])
    first = np.empty_like(order)
    first[order] = order[new][np.cumsum(new) - 1]
    return first


def repeated_rows(texts: pa.StringArray) -> np.ndarray:
    """Rows of the texts that an earlier row has as well, ascending, int64."""
    return np.flatnonzero(first_rows(texts) < np.arange(len(texts)))


def places(texts: pa.StringArray, among: pa.StringArray) -> np.ndarray:
    """(k,) int64, the first row of each of k texts among others, -1 where there is none."""
    first = first_rows(pa.concat_arrays([among, texts]))[len(among) :]
    return np.where(first < len(among), first, -1)


def refuse_repeated(name: str, ids: pa.StringArray) -> None:
    """Refuse ids that stand for several crystals.

    Args:
        name: Of the data set.
        ids: Those that do, once or more.

    Raises:
        DataError: Names them.
    """
    if len(ids):
        twice = pc.unique(ids).to_pylist()
        raise DataError(
            f"{name}: {len(twice)} ids stand for several crystals: {name_some(twice)}. "
            "Give each crystal an id of its own"
        )


def check_parts(name: str, ids: pa.StringArray, parts: pa.StringArray) -> None:
    """Refuse unknown names of parts of the split.

    Raises:
        DataError: Names the first crystal.
    """
    row = pc.index(pc.is_in(parts, value_set=pa.array([*PARTS, None])), False).as_py()
    if row >= 0:
        id, part = ids[row].as_py(), parts[row].as_py()
        raise DataError(
            f"{name}: crystal {id} is in the unknown part {part!r}{did_you_mean(part, PARTS)} "
            "(a column that is no split: give it another name, or name the right one in data.source.split)"
        )


def check_any(name: str, crystals: int, removed: Removals) -> None:
    """Refuse a data set without any crystal.

    Raises:
        DataError: Says why the first one was left out.
    """
    if crystals:
        return
    if len(removed):
        first = next(iter(removed))
        why = first.detail or first.id
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
        ids = texts_of(crystal.id for crystal in crystals)
        repeated = repeated_rows(ids)
        if on_error != "skip":
            refuse_repeated(name, ids.take(repeated))
        left_out = Removals.listed([*(repeated_id(ids[row].as_py()) for row in repeated.tolist()), *removed])
        rows = np.delete(np.arange(len(ids)), repeated)
        check_any(name, len(rows), left_out)
        texts = {"id": ids, "formula": texts_of(crystal.formula for crystal in crystals)}
        if parts is not None:
            texts["part"] = texts_of(None if part is None else str(part) for part in parts)
            check_parts(name, ids, texts["part"])
        kept = [crystals[row] for row in rows.tolist()]
        keys = sorted({*(units or {}), *(key for crystal in kept for key in crystal.properties)})
        columns = {key: [crystal.properties.get(key) for crystal in kept] for key in keys}
        arrays = [
            key for key, values in columns.items() if any(isinstance(value, np.ndarray) for value in values)
        ]
        table = CrystalTable(
            texts={key: column.take(rows) for key, column in texts.items()},
            targets={key: column_of(values) for key, values in columns.items() if key not in arrays},
            units={key: (units or {}).get(key, "") for key in keys},
            removed=left_out,
            arrays=tuple(arrays),
        )
        return cls(name, kept, content_hash, table, licence, citation)

    def __len__(self) -> int:
        return len(self.crystals)

    @property
    def split(self) -> dict[str, str] | None:
        """Id -> part of the split that comes with the data; ids in no part are absent."""
        if self.table.split is None:
            return None
        ids, parts = self.table.ids.to_pylist(), self.table.split.to_pylist()
        return {id: part for id, part in zip(ids, parts, strict=True) if part}

    @property
    def targets(self) -> dict[str, str]:
        """Label -> unit."""
        return self.table.units

    @property
    def removed(self) -> tuple[Removal, ...]:
        """Crystals that the source has and that are not among `crystals`, and why."""
        return tuple(self.table.removed)


def repeated_id(id: str) -> Removal:
    """Why a crystal whose id an earlier one has is left out."""
    return Removal(id, DUPLICATE, "the first crystal of this id is kept")


def texts_of(values: Iterable[str | None]) -> pa.StringArray:
    """A column of text, as `CrystalTable.texts` has them."""
    return pa.array(list(values), pa.string())


def limited_rows(split: pa.StringArray | None, total: int, limit: int, seed: int = 0) -> np.ndarray:
    """Rows of a smaller data set that keeps the proportions of the source's split.

    Args:
        split: Part of each crystal, if there is a split.
        total: Number of crystals.
        limit: How many to keep, at most `total`.
        seed: Chooses which. The order of the crystals stays.

    Returns:
        (limit,) int64, ascending; as many of each part as its share asks for (largest remainders).
    """
    parts = [np.arange(total)]
    if split is not None:
        split = split.fill_null("None")
        parts = [np.flatnonzero(pc.equal(split, name)) for name in sorted(pc.unique(split).to_pylist())]
    share = np.array([len(rows) for rows in parts]) * limit / total
    keep = np.floor(share).astype(int)
    keep[np.argsort(keep - share, kind="stable")[: limit - keep.sum()]] += 1
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(rows)[:count] for rows, count in zip(parts, keep, strict=True)]
    return np.sort(np.concatenate(chosen))
