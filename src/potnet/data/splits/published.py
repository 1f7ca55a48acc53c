"""The splits that papers report on."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from potnet.data.errors import DataError
from potnet.data.splits.recipes import ShuffledSplit, Split, SplitRecipe
from potnet.data.table import CrystalTable

log = logging.getLogger(__name__)

MATBENCH_FOLDS = 5
MATBENCH_SEED = 18012019


class PublishedSplit:
    """The split that comes with the publication of a data set, as its description in `conf/data/` says.

    Recipes by index hold for all crystals that have the target, in the order of the file. With any others
    (`data.limit`, crystals left out) the same recipe still divides them, in the same proportions, and a
    warning says that this isn't the published split.

    Args:
        recipe: Divides the crystals; None if the data set has no published split.
        totals: Target -> how many crystals the published split has, as far as it is known.
        target: The one that is learned.
    """

    def __init__(
        self, recipe: SplitRecipe | None, totals: Mapping[str, int] | None = None, target: str = ""
    ) -> None:
        if recipe is None:
            raise DataError(
                "this data set has no published split: choose another, such as split=given, where the data "
                "come with one, or split=ratio"
            )
        self.recipe = recipe
        self.total = (totals or {}).get(target)
        self.target = target

    def __call__(self, table: CrystalTable) -> Split:
        """Divide the crystals of the table.

        Raises:
            DataError: As the recipe does.
        """
        recipe = self.recipe
        if self.total is not None and len(table) != self.total:
            log.warning(
                "this is not the published split, which has %d crystals with %s: here are %d",
                self.total,
                self.target,
                len(table),
            )
            if isinstance(recipe, ShuffledSplit):
                recipe = _in_proportion(recipe, self.total, len(table))
        return recipe(table)


def _in_proportion(recipe: ShuffledSplit, published: int, total: int) -> ShuffledSplit:
    """The recipe with counts that fit another number of crystals."""
    parts = {
        part: size if isinstance(size, float) else size * total // published
        for part, size in recipe.parts.items()
    }
    return ShuffledSplit(**parts, seed=recipe.seed)


class MatbenchFold:
    """One of the five official folds of Matbench v0.1 (Dunn et al., npj Comput. Mater. 6, 138, 2020).

    The test is what `KFold(5, shuffle=True, random_state=18012019)` of scikit-learn gives. Matbench leaves it
    to the user to set a part of the rest aside for validation: here a random one.

    Args:
        fold: 0 to 4.
        val: Share of the rest that is for validation.
        seed: Chooses which.

    Raises:
        DataError: There is no such fold or share.
    """

    def __init__(self, fold: int = 0, val: float = 0.1, seed: int = 123) -> None:
        if not 0 <= fold < MATBENCH_FOLDS:
            raise DataError(f"data.fold={fold}: Matbench has the folds 0 to {MATBENCH_FOLDS - 1}")
        if not 0 <= val < 1:
            raise DataError(f"data.published_split.recipe.val={val}: give a fraction from 0 to below 1")
        self.fold = fold
        self.val = val
        self.seed = seed

    def __call__(self, table: CrystalTable) -> Split:
        """Divide the crystals of the table; each part is in the order of the table.

        Raises:
            DataError: Fewer crystals than folds.
        """
        if len(table) < MATBENCH_FOLDS:
            raise DataError(f"{len(table)} crystals cannot be divided into {MATBENCH_FOLDS} folds: give more")
        test = matbench_test_rows(len(table), self.fold)
        rest = np.setdiff1d(np.arange(len(table)), test)
        chosen = np.random.RandomState(self.seed).permutation(rest)[: int(self.val * len(rest))]
        return Split(table.ids, np.setdiff1d(rest, chosen), np.sort(chosen), test)


def matbench_test_rows(total: int, fold: int) -> np.ndarray:
    """The rows of a fold's test, ascending, of a task with `total` crystals.

    Reproduces scikit-learn's `KFold` with shuffling, whose stream of random numbers is frozen.
    """
    order = np.arange(total)
    np.random.RandomState(MATBENCH_SEED).shuffle(order)
    return np.sort(np.array_split(order, MATBENCH_FOLDS)[fold])
