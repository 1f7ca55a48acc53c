"""What a checkpoint says about its training crystals."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from ase.data import atomic_masses

from potnet.data.features.domain import training_domain


def test_elements_sizes_and_densities_are_those_of_the_crystals(small_data: Any) -> None:
    rows = small_data.dataset("train").rows[:60]
    found = training_domain(small_data.store, rows)
    elements: Counter[int] = Counter()
    densities, atoms = [], []
    for row in rows:
        graph = small_data.store.graph(int(row))
        elements.update(set(graph.z.tolist()))
        atoms.append(len(graph.z))
        mass = sum(atomic_masses[z] for z in graph.z.tolist())
        densities.append(1.66053907 * mass / float(graph.cell.double().det().abs()))
    assert found["elements"] == dict(elements)
    assert found["max_atoms"] == max(atoms)
    assert found["density"] == pytest.approx([min(densities), max(densities)])
