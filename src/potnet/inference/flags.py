"""Warnings about crystals unlike those a network was trained on: it gives a number for them all the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from potnet.crystals import Crystal, CrystalGraph
from potnet.crystals.elements import symbol

RARE = 5
"""An element in fewer training crystals than this is called rare."""

MARGIN = 1.25
"""How far a size or density may lie outside the training range before it is called so."""


class TrainingDomain:
    """What a network saw in training, from the record in its checkpoint.

    Args:
        facts: `elements`: atomic number -> training crystals that contain it; `max_atoms`; `density`: [least,
            most], g/cm³. Each may be missing, as in older checkpoints: then nothing is said about it.
    """

    def __init__(self, facts: Mapping[str, Any] | None = None) -> None:
        facts = facts or {}
        self.elements = {int(z): int(count) for z, count in (facts.get("elements") or {}).items()}
        self.max_atoms: int | None = facts.get("max_atoms")
        self.density: tuple[float, float] | None = None
        if facts.get("density"):
            low, high = facts["density"]
            self.density = (float(low), float(high))

    def flags(self, crystal: Crystal, graph: CrystalGraph) -> str:
        """Why a prediction may be wrong, as text; "" if nothing speaks against it.

        Args:
            crystal: As it was given.
            graph: Its features, in the cell that the network sees.
        """
        found = []
        kinds = sorted(set(crystal.z.tolist()))
        if self.elements:
            unseen = [symbol(z) for z in kinds if z not in self.elements]
            rare = [f"{symbol(z)} ({self.elements[z]})" for z in kinds if 0 < self.elements.get(z, 0) < RARE]
            if unseen:
                found.append(f"no training crystal has {' or '.join(unseen)}")
            if rare:
                found.append(f"few training crystals have {', '.join(rare)}")
        n = len(graph.z)
        if self.max_atoms and n > MARGIN * self.max_atoms:
            found.append(f"{n} atoms, training crystals have at most {self.max_atoms}")
        if self.density:
            density, (low, high) = density_of(crystal), self.density
            if not low / MARGIN <= density <= high * MARGIN:
                found.append(f"density {density:.3g} g/cm³, training crystals have {low:.3g} to {high:.3g}")
        if graph.edge_index is not None:
            alone = n - len(np.unique(graph.edge_index[1].numpy()))
            if alone == n:
                found.append("no atom has a neighbour within the cutoff")
            elif alone:
                found.append(f"{alone} of {n} atoms have no neighbour within the cutoff")
        return "; ".join(found)


def density_of(crystal: Crystal) -> float:
    """Mass density, g/cm³."""
    from ase.data import atomic_masses

    return float(atomic_masses[crystal.z].sum() / abs(np.linalg.det(crystal.cell)) * 1.66053907)
