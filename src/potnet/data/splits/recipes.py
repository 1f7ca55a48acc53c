"""Which crystals are for training, validation and test: by a tested recipe, never by luck."""

from __future__ import annotations

import hashlib
import json
import random
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from potnet.config.suggest import did_you_mean
from potnet.data.errors import DataError, name_some
from potnet.data.table import PARTS, CrystalTable, places, texts_of
from potnet.files import replacing

_PIECE = 65_536


class Split:
    """Which rows of a table are in each part, in order.

    Args:
        ids: n names of the crystals of the table, as `CrystalTable.ids`.
        train, val, test: Rows of the table, 0 to n - 1.

    Raises:
        DataError: No crystal for training, or a crystal in two places.
    """

    def __init__(
        self,
        ids: pa.StringArray,
        train: Sequence[int] | np.ndarray,
        val: Sequence[int] | np.ndarray = (),
        test: Sequence[int] | np.ndarray = (),
    ) -> None:
        parts = zip(PARTS, (train, val, test), strict=True)
        self.ids = ids
        self._rows = {part: np.asarray(rows, dtype=np.int64) for part, rows in parts}
        if not self.sizes["train"]:
            raise DataError(
                f"the split has no crystal for training ({self.sizes['val']} for validation, "
                f"{self.sizes['test']} for test): give more crystals, or another data.split"
            )
        used = np.concatenate(list(self._rows.values()))
        used = used[np.bincount(used)[used] > 1]
        if len(used):
            twice = pc.unique(ids.take(pa.array(used)))
            raise DataError(f"{len(twice)} crystals are in two places of the split: {name_some(twice)}")

    def rows(self, part: str) -> np.ndarray:
        """(k,) int64, the rows of "train", "val" or "test"."""
        if part not in PARTS:
            raise DataError(f"unknown part {part!r} of the split{did_you_mean(str(part), PARTS)}")
        return self._rows[part]

    def __getitem__(self, part: str) -> tuple[str, ...]:
        """The ids of "train", "val" or "test"."""
        return tuple(name for names in self._pieces(part) for name in names)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of crystals of each part."""
        return {part: len(rows) for part, rows in self._rows.items()}

    def hash(self) -> str:
        """sha256 over the ordered ids of each part: equal for equal splits only."""
        digest = hashlib.sha256()
        for part, size in self.sizes.items():
            digest.update(f"[{part}] {size}\n".encode())
            for names in self._pieces(part):
                digest.update("".join(f"{name}\n" for name in names).encode())
        return digest.hexdigest()

    def to_plain(self) -> dict[str, list[str]]:
        """Part -> ids, as a run keeps it."""
        return {part: list(self[part]) for part in PARTS}

    def write(self, path: Path) -> None:
        """Write the hash and the ids of each part as JSON, a list a part.

        Raises:
            OSError: The file cannot be written.
        """
        with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
            file.write(f'{{\n "hash": "{self.hash()}"')
            for part, size in self.sizes.items():
                file.write(f',\n "{part}": [')
                for number, names in enumerate(self._pieces(part)):
                    file.write("," * (number > 0) + ",".join(f"\n  {json.dumps(name)}" for name in names))
                file.write("\n ]" if size else "]")
            file.write("\n}\n")

    def _pieces(self, part: str) -> Iterator[list[str]]:
        """The ids of a part, some at a time."""
        rows = self.rows(part)
        for start in range(0, len(rows), _PIECE):
            yield self.ids.take(pa.array(rows[start : start + _PIECE])).to_pylist()


class SplitRecipe(Protocol):
    """Anything that divides a table of crystals."""

    def __call__(self, table: CrystalTable) -> Split:
        """Divide the crystals of the table, by row; a crystal may be in no part."""
        ...


class GivenSplit:
    """The split that comes with the data.

    A part may be empty, except for training: without validation there is no best checkpoint, so the last one
    counts.

    Args:
        val: Share of the training part that is set aside for validation where the data have no such part.
        seed: Chooses which.
    """

    def __init__(self, val: float = 0.0, seed: int = 0) -> None:
        if not 0 <= val < 1:
            raise DataError(f"data.split.val={val}: give a fraction from 0 to below 1")
        self.val = val
        self.seed = seed

    def __call__(self, table: CrystalTable) -> Split:
        """Divide by the table's own split, in the order of the table.

        Raises:
            DataError: The data has no split, or none of its crystals is for training.
        """
        if table.split is None:
            raise DataError(
                "this data set comes without a split: choose another recipe, such as split=shuffled "
                "(in Python: split=ShuffledSplit())"
            )
        parts = {part: np.flatnonzero(pc.equal(table.split, part).fill_null(False)) for part in PARTS}
        if not len(parts["val"]) and self.val:
            train = parts["train"]
            chosen = np.sort(shuffled_indices(len(train), self.seed)[: int(self.val * len(train))])
            parts |= {"train": np.delete(train, chosen), "val": train[chosen]}
        return Split(table.ids, **parts)


class ShuffledSplit:
    """Shuffle, then cut: train first, test last, validation just before the test.

    The defaults are the published recipe of PotNet (and of ALIGNN and Matformer before it): the indices
    0..n-1 are shuffled by Python's `random` with seed 123, and fractions become whole numbers by
    `int(fraction * n)`. With the data sets of that time in their order it reproduces the published splits
    index for index. The Materials
    Project tasks give counts: train=60000, val=5000, test=4239.

    Args:
        train, val, test: Fractions of the whole (float), or numbers of crystals (int).
        seed: Of the shuffle.
    """

    def __init__(self, train: float = 0.8, val: float = 0.1, test: float = 0.1, seed: int = 123) -> None:
        self.parts = {"train": train, "val": val, "test": test}
        check_sizes(self.parts)
        self.seed = seed

    def __call__(self, table: CrystalTable) -> Split:
        """Divide all crystals of the table.

        Raises:
            DataError: More crystals asked for than there are, or none left for training.
        """
        total = len(table)
        size = {
            part: int(value * total) if isinstance(value, float) else value
            for part, value in self.parts.items()
        }
        if sum(size.values()) > total:
            raise DataError(
                f"data.split asks for {sum(size.values())} crystals ({size}), but there are {total}"
            )
        order = shuffled_indices(total, self.seed)
        end = total - size["test"]
        return Split(table.ids, order[: size["train"]], order[end - size["val"] : end], order[end:])


class ListedSplit:
    """A split by lists of ids, such as the one a run saved.

    Args:
        parts: "train", "val" and "test" -> ids.
    """

    def __init__(self, parts: Mapping[str, Sequence[str]]) -> None:
        for part in parts:
            if part not in PARTS:
                raise DataError(f"unknown part {part!r} of the split{did_you_mean(str(part), PARTS)}")
        codes = texts_of(id for part in PARTS for id in parts.get(part, ())).dictionary_encode()
        ends = np.cumsum([len(parts.get(part, ())) for part in PARTS])[:-1]
        self.split = Split(codes.dictionary, *np.split(codes.indices.to_numpy(), ends))

    def __call__(self, table: CrystalTable) -> Split:
        """The listed ids; those that were removed from the table for a reason on record are left out.

        Raises:
            DataError: Others are not in the table.
        """
        place = places(self.split.ids, table.ids)
        absent = self.split.ids.filter(pa.array(place < 0))
        absent = absent.filter(pc.invert(pc.is_in(absent, value_set=table.removed.ids)))
        if len(absent):
            raise DataError(f"{len(absent)} crystals of the split are not in the data: {name_some(absent)}")
        found = (place[self.split.rows(part)] for part in PARTS)
        return Split(table.ids, *(rows[rows >= 0] for rows in found))


def check_sizes(sizes: Mapping[str, float]) -> float:
    """Refuse sizes of parts that cannot be: fractions of the whole (float) or numbers of crystals (int).

    Returns:
        The sum of those that are fractions.

    Raises:
        DataError: A size below 0, a fraction above 1, or fractions that add up to more than 1.
    """
    for part, size in sizes.items():
        if size < 0 or (isinstance(size, float) and size > 1):
            raise DataError(f"data.split.{part}={size}: give a fraction from 0 to 1, or a number of crystals")
    fractions = sum(size for size in sizes.values() if isinstance(size, float))
    if fractions > 1 + 1e-9:
        raise DataError(f"data.split: the fractions add up to {fractions:g}, which is more than 1")
    return fractions


def shuffled_indices(total: int, seed: int) -> np.ndarray:
    """0..total-1 in the order of `random.seed(seed); random.shuffle`, without touching the global state."""
    order = array("q", range(total))  # a list would hold an object for each
    random.Random(seed).shuffle(order)
    return np.frombuffer(order, dtype=np.int64)
