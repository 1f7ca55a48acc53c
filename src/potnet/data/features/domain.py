"""What a network sees in training: which elements, how large cells, how dense crystals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from potnet.crystals.elements import MAX_Z

if TYPE_CHECKING:
    from potnet.data.features.store import FeatureStore

AMU_PER_CUBIC_ANGSTROM = 1.66053907
"""g/cm³."""


def training_domain(store: FeatureStore, rows: Sequence[int] | np.ndarray) -> dict[str, Any]:
    """Facts about some crystals, as plain data for a checkpoint; only structures are read, no features.

    Args:
        store: Features of the whole data set.
        rows: The crystals of the training part.

    Returns:
        `elements`: atomic number -> how many crystals contain it; `max_atoms`: of the cell that the network
        sees; `density`: [least, most], g/cm³.
    """
    from ase.data import atomic_masses

    chosen = np.zeros(len(store), dtype=bool)
    chosen[np.asarray(rows, dtype=np.int64)] = True
    counts = np.zeros(MAX_Z + 1, dtype=np.int64)
    low, high = np.inf, 0.0
    for first, z, cell, atoms in store.structures():
        keep = chosen[first : first + len(atoms)]
        crystal = np.repeat(np.arange(len(atoms)), atoms)
        # Each element counts once a crystal.
        kinds = np.unique(crystal[keep[crystal]] * (MAX_Z + 1) + z[keep[crystal]]) % (MAX_Z + 1)
        counts += np.bincount(kinds, minlength=MAX_Z + 1)
        mass = np.bincount(crystal, atomic_masses[z], minlength=len(atoms))
        density = (mass / np.abs(np.linalg.det(cell)) * AMU_PER_CUBIC_ANGSTROM)[keep]
        if len(density):
            low, high = min(low, float(density.min())), max(high, float(density.max()))
    return {
        "elements": {int(z): int(counts[z]) for z in np.flatnonzero(counts)},
        "max_atoms": int(store.num_atoms[chosen].max(initial=0)),
        "density": [low, high] if chosen.any() else None,
    }
