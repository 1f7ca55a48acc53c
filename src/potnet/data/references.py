"""Energies from several sources of labels, put on one scale by reference energies of the elements for each.

Calculations with different settings (functional, pseudopotentials, corrections) differ, above all, by an
amount for each atom of an element. It is found by least squares and taken off.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from potnet.data.errors import DataError, name_some

if TYPE_CHECKING:
    from scipy.sparse import csr_array

log = logging.getLogger(__name__)

RIDGE = 1e-2
"""Keeps the shift of an element that a source has rarely, or only beside others, small."""


def aligned(
    energies: np.ndarray, counts: csr_array, sources: np.ndarray, train: np.ndarray, key: str = "energy"
) -> np.ndarray:
    """Energies without what tells their sources apart.

    E / n = sum_z x_z (c_z + d_sz) + rest, x the composition: first c by least squares on all training
    crystals, then d of each source s on what is left. The result is E - n sum_z x_z d_sz.

    Args:
        energies: (R,) eV of the cell, NaN where missing.
        counts: (R, Z), atoms of each element; sparse, as a crystal has few of them.
        sources: (R,) names; None or NaN where missing.
        train: Rows of the training part, from which the shifts are found.
        key: Of the target, for messages.

    Returns:
        (R,) eV.

    Raises:
        DataError: A crystal without a source, or a source without a training crystal.
    """
    names = np.array(["" if name is None or name != name else str(name) for name in sources.tolist()])
    known = ~np.isnan(energies)
    if (names[known] == "").any():
        missing = int((names[known] == "").sum())
        raise DataError(f"{missing} crystals with {key} have no source in the column of reference_by")
    atoms = counts.sum(1)
    part, each = counts.multiply(1 / atoms[:, None]).tocsr(), energies / atoms
    learn = np.zeros(len(energies), dtype=bool)
    learn[train] = True
    learn &= known
    x = part[learn]
    # The shortest of all solutions, as compositions need not be independent.
    common = np.linalg.pinv((x.T @ x).toarray(), rcond=1e-12, hermitian=True) @ (x.T @ each[learn])
    left = each - part @ common
    shifts = np.zeros(len(energies))
    lost = []
    for name in np.unique(names[known]):
        rows = learn & (names == name)
        if not rows.any():
            lost.append(name)
            continue
        x = part[rows]
        shift = np.linalg.solve((x.T @ x).toarray() + RIDGE * np.eye(x.shape[1]), x.T @ left[rows])
        here = names == name
        shifts[here] = part[here] @ shift
        log.info(
            "%s of %s: shifted by %.3f eV/atom in the mean; %.3f before and %.3f after remain (rms)",
            key, name, -float((x @ shift).mean()), float(np.sqrt(np.mean(left[rows] ** 2))),
            float(np.sqrt(np.mean((left[rows] - x @ shift) ** 2))),
        )  # fmt: skip
    if lost:
        raise DataError(
            f"{key}: no training crystal is from {name_some(lost)}, so its reference energies are unknown: "
            "leave it out, or divide the data otherwise"
        )
    return energies - atoms * shifts
