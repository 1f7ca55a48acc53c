"""Splits that keep crystals of one formula, or of one prototype, on one side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from potnet.config.suggest import did_you_mean
from potnet.data.errors import DataError
from potnet.data.splits.recipes import Split, check_sizes, shuffled_indices
from potnet.data.table import CrystalTable, first_rows

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
        groups = Groups(table, self.by)
        rest = shuffled_indices(len(groups), self.seed)
        parts: dict[str, np.ndarray] = {}
        for part in ("test", "val", "train"):
            smallest = groups.sizes[rest].min() if len(rest) else 0
            parts[part], rest = groups.fitting(rest, wanted[part])
            if wanted[part] and not len(parts[part]):
                raise DataError(
                    f"data.split.{part}: no {self.by} fits into {wanted[part]} of {total} crystals, the "
                    f"smallest left has {smallest}: ask for more, or for 0"
                )
        if self.uses_all:
            parts["train"] = np.concatenate([parts["train"], rest])
        return Split(table.ids, **{part: groups.rows(chosen) for part, chosen in parts.items()})


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
        groups = Groups(table, self.by)
        if len(groups) < self.folds:
            what = "crystals" if self.by == "crystal" else f"groups of one {self.by}"
            raise DataError(f"data.split.folds={self.folds}: there are only {len(groups)} {what}")
        order = shuffled_indices(len(groups), self.seed)
        fold = np.empty(len(groups), dtype=np.int64)
        sizes = [0] * self.folds
        for group, size in enumerate(groups.sizes[order]):
            fold[group] = sizes.index(min(sizes))
            sizes[fold[group]] += int(size)
        test, rest = order[fold == self.fold], order[fold != self.fold]
        val, train = groups.fitting(rest, int(self.val * groups.sizes[rest].sum() + 1e-9))
        return Split(table.ids, groups.rows(train), groups.rows(val), groups.rows(test))


class Groups:
    """Rows of a table that stay together, in the order of their first rows.

    Args:
        table: Of n crystals.
        by: What stays together; see `RatioSplit`.

    Attributes:
        sizes: (groups,) int64, rows of each.

    Raises:
        DataError: The table does not know formulas or prototypes.
    """

    def __init__(self, table: CrystalTable, by: str) -> None:
        if by == "crystal":
            group = np.arange(len(table))
        else:
            names = ["formula"] if by == "formula" else ["formula", "prototype"]
            if not set(names) <= set(table.texts):
                raise DataError(f"data.split.by={by}: the table has no {by}s")
            group = connected([first_rows(table.texts[name]) for name in names])
        self.sizes = np.bincount(group)
        self._rows = np.argsort(group, kind="stable")
        self._start = np.cumsum(self.sizes) - self.sizes

    def __len__(self) -> int:
        return len(self.sizes)

    def rows(self, groups: np.ndarray) -> np.ndarray:
        """The rows of some groups, one after the other."""
        sizes = self.sizes[groups]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return self._rows[np.repeat(self._start[groups], sizes) + within]

    def fitting(self, groups: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Those groups, in order, whose rows fit into `size`; and the groups left."""
        fits = np.zeros(len(groups), dtype=bool)
        for place, more in enumerate(self.sizes[groups]):
            fits[place] = more <= size
            size -= more * fits[place]
        return groups[fits], groups[~fits]


def connected(firsts: Sequence[np.ndarray]) -> np.ndarray:
    """Which rows share a label, directly or through others.

    Args:
        firsts: For one or more columns of labels, (n,) the first row that has the same label.

    Returns:
        (n,) int64, a number for each such group, in the order of their first rows.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    group = firsts[0]
    if len(firsts) > 1:
        n = len(group)
        edges = np.tile(np.arange(n), len(firsts)), np.concatenate(firsts)
        graph = coo_array((np.ones(len(edges[0]), dtype=np.int8), edges), shape=(n, n))
        _, group = connected_components(graph, directed=False)
    _, first, group = np.unique(group, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group]


def _checked(by: str) -> str:
    if by not in _BY:
        raise DataError(f"data.split.by={by!r}{did_you_mean(str(by), _BY)}")
    return by
