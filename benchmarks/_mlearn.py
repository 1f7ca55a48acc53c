"""What the benchmarks of `forces_mlearn` share: its elements and configurations, and what a run knows."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms

GPA = 160.2176634
"""One eV/Å³."""


class Element(NamedTuple):
    """Structure of ASE's `bulk`, lattice parameter to begin with (Å) and melting temperature (K)."""

    structure: str
    a: float
    melting: float


ELEMENTS = {
    "Li": Element("bcc", 3.44, 454.0),
    "Mo": Element("bcc", 3.16, 2896.0),
    "Ni": Element("fcc", 3.52, 1728.0),
    "Cu": Element("fcc", 3.62, 1358.0),
    "Si": Element("diamond", 5.46, 1687.0),
    "Ge": Element("diamond", 5.76, 1211.0),
}


class Configuration(NamedTuple):
    """One row of the table.

    Attributes:
        atoms: Structure.
        group, split: As in the table; the group is None for training configurations of Cu and Ni.
        energy: eV an atom.
        force: eV/Å, root mean square of the components.
        stress: (6,) eV/Å³, or None.
    """

    atoms: Atoms
    group: str | None
    split: str
    energy: float
    force: float
    stress: np.ndarray | None


def read_configurations(path: Path, element: str) -> list[Configuration]:
    """Those of one element, in the order of the file."""
    found = []
    with gzip.open(path, "rt") as file:
        for line in file:
            row = json.loads(line)
            if row["set"] != element:
                continue
            atoms = Atoms(row["z"], cell=row["lattice"], scaled_positions=row["frac"], pbc=True)
            stress = None if row["stress"] is None else np.array(row["stress"])
            force = float(np.sqrt(np.mean(np.square(row["forces"]))))
            energy = row["energy"] / len(atoms)
            found.append(Configuration(atoms, row["group"], row["split"], energy, force, stress))
    return found


def aimd(configurations: list[Configuration]) -> list[Configuration]:
    """Frames of molecular dynamics of the perfect supercell: moving atoms in a cubic cell with no site empty.

    The group is not known of all configurations, so it is not asked for. Where there are several cells, as
    of lithium, those of the cell that most frames have.
    """
    moving = [
        one
        for one in configurations
        if one.force > 0.05 and np.allclose(one.atoms.cell[:], one.atoms.cell[0, 0] * np.eye(3), atol=0.02)
    ]
    most = max(len(one.atoms) for one in moving)
    whole = [one for one in moving if len(one.atoms) == most]
    ((cell, _),) = Counter(round(one.atoms.cell[0, 0], 2) for one in whole).most_common(1)
    return [one for one in whole if round(one.atoms.cell[0, 0], 2) == cell]


def elements_of(run: str) -> list[str]:
    """Symbols of the elements that a trained run knows."""
    from ase.data import chemical_symbols

    from potnet.inference.predictor import Predictor

    known: Any = Predictor.from_checkpoint(Path(run), "cpu").domain.elements
    return [chemical_symbols[z] for z in sorted(known)]
