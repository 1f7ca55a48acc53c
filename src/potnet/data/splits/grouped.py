"""Splits that keep crystals of one formula, or of one prototype, on one side."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Literal

from potnet.config.suggest import did_you_mean
from potnet.data.errors import DataError
from potnet.data.splits.recipes import Split, check_sizes
from potnet.data.table import PARTS, CrystalTable

By = Literal["crystal", "formula", "prototype"]
_BY = ("crystal", "formula", "prototype")


class RatioSplit:
    """Parts of given size, filled with crystals or groups of them in an order that a seed sets.

    Groups are shuffled; test takes them in this order as long as they fit, then validation, then training.
    So no part is larger than asked for, no group is in two parts, and if the fractions add up to 1 every
    crystal is used.

    Args:
        train, val, test: Fractions of the whole (float), or numbers of crystals (int).
        seed: Of the order.
        by: What stays together: each "crystal" for itself, those of one reduced "formula", or those of one
            "prototype" (see `prototypes`) or formula: polymorphs tie prototypes together, as no formula
            shall be on two sides.

    Raises:
        DataError: Sizes or a `by` that cannot be used.
    """

    def __init__(
        self,
        train: float = 0.8,
        val: float = 0.1,
        test: float = 0.1,
        seed: int = 0,
        by: By = "crystal",
    ) -> None:
        self.sizes = {"train": train, "val": val, "test": test}
        self.uses_all = abs(check_sizes(self.sizes) - 1) < 1e-9
        self.seed = seed
        self.by = _checked(by)

    @property
    def needs_prototypes(self) -> bool:
        """Whether the table must have prototypes."""
        return self.by == "prototype"

    def __call__(self, table: CrystalTable) -> Split:
        """Divide the crystals of the table.

        Raises:
            DataError: More crystals asked for than there are, or a part that no group fits into.
        """
        total = len(table)
        wanted = {
            part: int(size * total + 1e-9) if isinstance(size, float) else size
            for part, size in self.sizes.items()
        }
        if self.uses_all:
            wanted["train"] = total - wanted["val"] - wanted["test"]
        if sum(wanted.values()) > total:
            raise DataError(
                f"data.split asks for {sum(wanted.values())} crystals ({wanted}), but there are {total}"
            )
        rest = shuffled_groups(table, self.by, self.seed)
        parts: dict[str, list[int]] = {}
        for part in ("test", "val", "train"):
            smallest = min(map(len, rest), default=0)
            parts[part], rest = take(rest, wanted[part])
            if wanted[part] and not parts[part]:
                raise DataError(
                    f"data.split.{part}: no {self.by} fits into {wanted[part]} of {total} crystals, the "
                    f"smallest left has {smallest}: ask for more, or for 0"
                )
        if self.uses_all:
            parts["train"] += [row for group in rest for row in group]
        return _split(table, parts)


class FoldSplit:
    """One fold of k for the test, a share of the others for validation, the rest for training.

    The tests of the k folds together are all crystals, each once.

    Args:
        folds: k.
        fold: Which one is the test, 0 to k - 1. `-m data.split.fold=0,1,2,3,4` trains on each.
        val: Share of the other folds that is for validation.
        seed: Of the order in which crystals or groups are dealt out.
        by: What stays together; see `RatioSplit`.

    Raises:
        DataError: A setting that cannot be used.
    """

    def __init__(
        self, folds: int = 5, fold: int = 0, val: float = 0.1, seed: int = 0, by: By = "crystal"
    ) -> None:
        if folds < 2:
            raise DataError(f"data.split.folds={folds}: give at least 2")
        if not 0 <= fold < folds:
            raise DataError(f"data.split.fold={fold}: give 0 to {folds - 1}, as there are {folds} folds")
        if not 0 <= val < 1:
            raise DataError(f"data.split.val={val}: give a fraction from 0 to below 1")
        self.folds = folds
        self.fold = fold
        self.val = val
        self.seed = seed
        self.by = _checked(by)

    @property
    def needs_prototypes(self) -> bool:
        """Whether the table must have prototypes."""
        return self.by == "prototype"

    def __call__(self, table: CrystalTable) -> Split:
        """Divide the crystals of the table: each group goes to the fold that is smallest so far.

        Raises:
            DataError: Fewer groups than folds.
        """
        groups = shuffled_groups(table, self.by, self.seed)
        if len(groups) < self.folds:
            what = "crystals" if self.by == "crystal" else f"groups of one {self.by}"
            raise DataError(f"data.split.folds={self.folds}: there are only {len(groups)} {what}")
        sizes = [0] * self.folds
        test: list[int] = []
        rest: list[list[int]] = []
        for group in groups:
            fold = sizes.index(min(sizes))
            sizes[fold] += len(group)
            if fold == self.fold:
                test += group
            else:
                rest.append(group)
        val, rest = take(rest, int(self.val * sum(map(len, rest)) + 1e-9))
        return _split(table, {"train": [row for group in rest for row in group], "val": val, "test": test})


def shuffled_groups(table: CrystalTable, by: str, seed: int) -> list[list[int]]:
    """Rows that stay together, in an order set by the seed alone (and by that of the table).

    Raises:
        DataError: The table does not know formulas or prototypes.
    """
    if by == "crystal":
        groups = [[row] for row in range(len(table))]
    else:
        labels = [table.formulas] if by == "formula" else [table.formulas, table.prototypes]
        if any(len(known) != len(table) for known in labels):
            raise DataError(f"data.split.by={by}: the table has no {by}s")
        groups = connected(labels)
    random.Random(seed).shuffle(groups)
    return groups


def connected(labels: Sequence[Sequence[str]]) -> list[list[int]]:
    """Rows that share a label, directly or through others, in the order of their first rows.

    Args:
        labels: Any number of lists of n labels; a label counts within its own list.
    """
    leader = list(range(len(labels[0])))

    def find(row: int) -> int:
        while leader[row] != row:
            leader[row] = row = leader[leader[row]]
        return row

    for known in labels:
        first: dict[str, int] = {}
        for row, label in enumerate(known):
            a, b = find(first.setdefault(label, row)), find(row)
            leader[max(a, b)] = min(a, b)
    groups: dict[int, list[int]] = {}
    for row in range(len(leader)):
        groups.setdefault(find(row), []).append(row)
    return list(groups.values())


def take(groups: Iterable[list[int]], size: int) -> tuple[list[int], list[list[int]]]:
    """The rows of those groups, in order, that fit into `size`; and the groups left."""
    taken: list[int] = []
    left = []
    for group in groups:
        if len(taken) + len(group) <= size:
            taken += group
        else:
            left.append(group)
    return taken, left


def _split(table: CrystalTable, parts: dict[str, list[int]]) -> Split:
    return Split(**{part: tuple(table.ids[row] for row in parts[part]) for part in PARTS})


def _checked(by: str) -> str:
    if by not in _BY:
        raise DataError(f"data.split.by={by!r}{did_you_mean(str(by), _BY)}")
    return by
