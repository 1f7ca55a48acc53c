"""Which crystals are for training, validation and test: by a tested recipe, never by luck."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from potnet.config.suggest import did_you_mean
from potnet.data.errors import DataError, name_some
from potnet.data.table import PARTS, CrystalTable


@dataclass(frozen=True)
class Split:
    """The ids of each part, in order.

    Raises:
        DataError: No crystal for training, or a crystal in two places.
    """

    train: tuple[str, ...]
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.train:
            raise DataError(
                f"the split has no crystal for training ({len(self.val)} for validation, "
                f"{len(self.test)} for test): give more crystals, or another data.split"
            )
        count = Counter(id for part in PARTS for id in self[part])
        twice = [id for id, places in count.items() if places > 1]
        if twice:
            raise DataError(f"{len(twice)} crystals are in two places of the split: {name_some(twice)}")

    def __getitem__(self, part: str) -> tuple[str, ...]:
        """The ids of "train", "val" or "test"."""
        if part not in PARTS:
            raise DataError(f"unknown part {part!r} of the split{did_you_mean(str(part), PARTS)}")
        return getattr(self, part)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of crystals of each part."""
        return {part: len(self[part]) for part in PARTS}

    def hash(self) -> str:
        """sha256 over the ordered ids of each part: equal for equal splits only."""
        digest = hashlib.sha256()
        for part in PARTS:
            digest.update("\n".join([f"[{part}] {len(self[part])}", *self[part], ""]).encode())
        return digest.hexdigest()

    def to_plain(self) -> dict[str, list[str]]:
        """Part -> ids, as a run keeps it."""
        return {part: list(self[part]) for part in PARTS}


class SplitRecipe(Protocol):
    """Anything that divides a table of crystals."""

    def __call__(self, table: CrystalTable) -> Split:
        """Divide the crystals of the table; a crystal may be in no part."""
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
        rows = list(zip(table.ids, table.split, strict=True))
        parts = {part: [id for id, own in rows if own == part] for part in PARTS}
        if not parts["val"] and self.val:
            train = parts["train"]
            chosen = set(shuffled_indices(len(train), self.seed)[: int(self.val * len(train))])
            parts["val"] = [id for row, id in enumerate(train) if row in chosen]
            parts["train"] = [id for row, id in enumerate(train) if row not in chosen]
        return Split(**{part: tuple(ids) for part, ids in parts.items()})


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
        ids = [table.ids[row] for row in order]
        end = total - size["test"]
        return Split(
            train=tuple(ids[: size["train"]]),
            val=tuple(ids[end - size["val"] : end]),
            test=tuple(ids[end:]),
        )


class ListedSplit:
    """A split by lists of ids, such as the one a run saved.

    Args:
        parts: "train", "val" and "test" -> ids.
    """

    def __init__(self, parts: Mapping[str, Sequence[str]]) -> None:
        for part in parts:
            if part not in PARTS:
                raise DataError(f"unknown part {part!r} of the split{did_you_mean(str(part), PARTS)}")
        self.split = Split(**{part: tuple(parts.get(part, ())) for part in PARTS})

    def __call__(self, table: CrystalTable) -> Split:
        """The listed ids; those that were removed from the table for a reason on record are left out.

        Raises:
            DataError: Others are not in the table.
        """
        known = set(table.ids)
        expected = known | {entry.id for entry in table.removed}
        absent = [id for part in PARTS for id in self.split[part] if id not in expected]
        if absent:
            raise DataError(f"{len(absent)} crystals of the split are not in the data: {name_some(absent)}")
        return Split(**{part: tuple(id for id in self.split[part] if id in known) for part in PARTS})


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


def shuffled_indices(total: int, seed: int) -> list[int]:
    """0..total-1 in the order of `random.seed(seed); random.shuffle`, without touching the global state."""
    order = list(range(total))
    random.Random(seed).shuffle(order)
    return order
