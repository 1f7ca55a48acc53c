"""What a structure is, whatever its description, and the same structure by gemmi alone."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from potnet.crystals import Crystal
from potnet.crystals.elements import SYMBOLS


def formula(crystal: Crystal) -> str:
    """All atoms of the cell, alphabetically: Mg4O4."""
    names = sorted(SYMBOLS[z] for z in crystal.z.tolist())
    counts = [(name, len(list(group))) for name, group in itertools.groupby(names)]
    return "".join(name + (str(count) if count > 1 else "") for name, count in counts)


def shortest_distance(cell: Any, fractional: Any) -> float:
    """Å, by the images in the cells around the reduced one."""
    import moyopy
    from scipy.spatial import KDTree

    reduced = np.array(moyopy.minkowski_reduce(np.asarray(cell).tolist())[0])
    place = np.asarray(fractional) @ np.asarray(cell) @ np.linalg.inv(reduced)
    place -= np.floor(place)
    images = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    everything = (place[None] + images[:, None]).reshape(-1, 3) @ reduced
    return float(KDTree(everything).query(place @ reduced, k=2)[0][:, 1].min())


def space_group(crystal: Crystal, symprec: float = 0.01) -> int:
    import moyopy

    cell = moyopy.Cell(crystal.cell.tolist(), crystal.fractional.tolist(), crystal.z.tolist())
    return int(moyopy.MoyoDataset(cell, symprec=symprec).number)


def by_gemmi(text: str) -> Crystal:
    """The first block of a CIF as gemmi reads and expands it."""
    import gemmi

    block = gemmi.cif.read_string(text)[0]
    structure = gemmi.make_small_structure_from_block(block)
    sites = structure.get_all_unit_cell_sites()
    c = structure.cell
    matrix = np.array(c.orth.mat.tolist()).T
    return Crystal.from_fractional(
        matrix, [[s.fract.x, s.fract.y, s.fract.z] for s in sites], [s.element.atomic_number for s in sites]
    )
