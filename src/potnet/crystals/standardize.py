"""One cell for each crystal: primitive and Niggli-reduced.

A prediction must not depend on which of the infinitely many cells a crystal was written in. Pair
sums over a larger cell, above all, are split over more pairs.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from potnet.crystals.crystal import Crystal

logger = logging.getLogger(__name__)

# moyo reports on symmetry operations that only the space group needs; translations alone matter here.
logging.getLogger("moyo").setLevel(logging.ERROR)

# What is at just the tolerance is left to moyo, whatever the rounding.
_INCLUSIVE = 1.0 + 1e-6
# Pairs of a translation and an atom that are looked at together.
_PAIRS_AT_ONCE = 500_000

CellChoice = Literal["primitive", "as_given"]


def standardize(crystal: Crystal, cell: CellChoice = "primitive", symprec: float = 0.01) -> Crystal:
    """Describe a crystal by its primitive, Niggli-reduced cell.

    Atoms that a pure translation maps onto each other within `symprec` become one, at their mean
    position; nothing else is idealised, and the orientation in space is kept. So every cell of one
    crystal gives the same atoms, up to rigid motions, their order, and the choice among equally short
    lattice vectors. Atoms are wrapped into the cell.

    Where the symmetry search fails, the crystal keeps its number of atoms, is only Niggli-reduced,
    and a warning is logged.

    Args:
        crystal: Any crystal.
        cell: "primitive", or "as_given" to return the crystal unchanged.
        symprec: Tolerance on the positions of equivalent atoms, Å.

    Returns:
        The same crystal in another cell, with its id and properties; without those that are arrays (forces,
        stress), which belong to the atoms and the cell as given.

    Raises:
        ValueError: If `cell` is another word or `symprec` is not positive.
    """
    if cell == "as_given":
        return crystal
    if cell != "primitive":
        raise ValueError(f"cell must be 'primitive' or 'as_given', got {cell!r}")
    if not 0 < symprec < math.inf:
        raise ValueError(f"symprec must be a positive number of Å, got {symprec}")
    numbers = {key: value for key, value in crystal.properties.items() if not isinstance(value, np.ndarray)}
    if len(numbers) < len(crystal.properties):
        crystal = replace(crystal, properties=numbers)
    return _niggli(_primitive(crystal, symprec))


def _primitive(crystal: Crystal, symprec: float) -> Crystal:
    # Most crystals of a data set are primitive already, and to see that costs far less than their symmetry.
    if not _may_repeat(crystal, symprec):
        return crystal
    import moyopy

    given = moyopy.Cell(crystal.cell.tolist(), crystal.fractional.tolist(), crystal.z.tolist())
    try:
        found = moyopy.MoyoDataset(given, symprec=symprec)
    except Exception as error:  # moyo has no exception class of its own
        logger.warning("%s: no symmetry found (%s); the cell stays as large as it is", crystal.id, error)
        return crystal
    # Columns of `linear` are the primitive vectors in units of the given ones; its inverse is whole.
    multiple = np.rint(np.linalg.inv(np.array(found.prim_std_linear)))
    translations = round(abs(np.linalg.det(multiple)))
    if translations <= 1:
        return crystal
    cell = np.linalg.solve(multiple.T, crystal.cell).astype(np.float64, copy=False)
    site = np.array(found.mapping_std_prim)
    return _merge(crystal, cell, site, translations)


def _may_repeat(crystal: Crystal, symprec: float) -> bool:
    """Whether a pure translation might map the crystal onto itself; if not, its cell is primitive.

    A translation maps each element onto itself, so it leads from an atom of the rarest one to another of
    them, but for the tolerance: if it takes every atom to within `symprec` of its image, the difference of
    those two takes every atom to within twice that.
    """
    counts = Counter(crystal.z.tolist())
    if math.gcd(*counts.values()) == 1:
        return False
    if min(counts.values()) * max(counts.values()) > _PAIRS_AT_ONCE:
        return True
    inverse = np.linalg.inv(crystal.cell)
    limit = 2.0 * symprec * _INCLUSIVE
    # Rounded to the nearest lattice vector, a difference that is shorter than half of every height is exact.
    if 2 * limit * math.sqrt((inverse * inverse).sum(0).max()) >= 1.0:
        return True
    fractional = crystal.positions @ inverse
    translations: NDArray[np.float64] | None = None
    for element in sorted(counts, key=counts.__getitem__):
        sites = fractional[crystal.z == element]
        if translations is None:
            translations = sites[1:] - sites[0]
        for site in sites:
            offset = (site + translations)[:, None] - sites
            offset -= np.rint(offset)
            vectors = offset @ crystal.cell
            near = (vectors * vectors).sum(-1).min(1) <= limit * limit
            if not near.any():
                return False
            translations = translations[near]
    return True


def _merge(
    crystal: Crystal, cell: NDArray[np.float64], site: NDArray[np.int64], translations: int
) -> Crystal:
    """Put one atom at the mean of those that the same translations connect."""
    labels, first, inverse, counts = np.unique(
        site, return_index=True, return_inverse=True, return_counts=True
    )
    if not np.all(counts == translations):
        logger.warning("%s: translations and atoms disagree; the cell stays as large as it is", crystal.id)
        return crystal
    reference = crystal.positions[first][inverse]
    offset = np.linalg.solve(cell.T, (crystal.positions - reference).T).T
    offset -= np.rint(offset)  # to the image next to the first atom of its group
    mean = np.zeros((len(labels), 3))
    np.add.at(mean, inverse, offset / translations)
    return replace(crystal, cell=cell, positions=crystal.positions[first] + mean @ cell, z=crystal.z[first])


def _niggli(crystal: Crystal) -> Crystal:
    import moyopy

    cell = crystal.cell
    try:
        _, change = moyopy.niggli_reduce(cell.tolist())
        cell = np.array(change, dtype=np.float64).T @ cell
    except ValueError as error:
        logger.warning("%s: the cell can't be Niggli-reduced (%s) and stays", crystal.id, error)
    fractional = np.linalg.solve(cell.T, crystal.positions.T).T
    fractional -= np.floor(fractional)
    fractional[fractional >= 1.0] = 0.0  # what is left of -1e-17
    return replace(crystal, cell=cell, positions=fractional @ cell)
