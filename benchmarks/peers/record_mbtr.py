"""Record crystals and their MBTR by the package dscribe, for tests/unit/descriptors/test_mbtr.py.

    pip install dscribe "ase<3.26"        # in an environment of its own; dscribe 2.1 fails with newer ASE
    python benchmarks/peers/record_mbtr.py tests/fixtures/peers/mbtr.npz

Four crystals: quartz, a triclinic cell with three elements, a skewed cell of one atom, and a perovskite. The
recorded tables are dense, one axis for the element of each atom of a tuple, and the grid last.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import sys
import warnings

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.spacegroup import crystal
from dscribe.descriptors import MBTR

TERMS = {
    "k1": ("atomic_number", {"min": 0, "max": 100, "n": 101, "sigma": 0.25}, None),
    "k2": ("inverse_distance", {"min": 0.0, "max": 1.0, "n": 51, "sigma": 0.05}, 0.8),
    "k3": ("cosine", {"min": -1.0, "max": 1.0, "n": 21, "sigma": 0.1}, 0.6),
}
THRESHOLD = 1e-3

CRYSTALS = {
    "quartz": crystal(
        ["Si", "O"],
        [(0.4697, 0, 1 / 3), (0.4135, 0.2669, 0.1191 + 1 / 3)],
        spacegroup=152,
        cellpar=[4.9137, 4.9137, 5.4047, 90, 90, 120],
    ),
    "triclinic": Atoms(
        "TiFeO",
        cell=[[4.1, 0, 0], [1.2, 4.4, 0], [0.3, -0.9, 5.1]],
        scaled_positions=[[0, 0, 0], [0.45, 0.5, 0.1], [0.3, 0.2, 0.6]],
        pbc=True,
    ),
    "one atom": Atoms("Cu", cell=[[2.5, 0, 0], [1.1, 2.4, 0], [-0.7, 0.9, 2.3]], pbc=True),
    "perovskite": Atoms(
        "SrTiO3",
        cell=3.905 * np.eye(3),
        scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
        pbc=True,
    ),
}


def main(path: str) -> None:
    arrays = {}
    for name, atoms in CRYSTALS.items():
        elements = sorted(set(atoms.numbers))
        symbols = [chemical_symbols[z] for z in elements]
        arrays |= {f"{name}/z": atoms.numbers, f"{name}/cell": atoms.cell.array}
        arrays[f"{name}/positions"] = atoms.positions
        for k, (term, (function, grid, scale)) in enumerate(TERMS.items(), 1):
            weighting = {"function": "exp", "scale": scale, "threshold": THRESHOLD} if scale else None
            mbtr = MBTR(
                geometry={"function": function},
                grid=grid,
                weighting=weighting,
                normalize_gaussians=True,
                normalization="n_atoms",
                species=symbols,
                periodic=True,
            )
            values = mbtr.create(atoms)
            # (elements, ..., n), the vertex in the middle; both orders of the ends.
            shape = (len(elements),) * k
            table = np.empty((*shape, grid["n"]))
            for place in itertools.product(range(len(elements)), repeat=k):
                table[place] = values[mbtr.get_location([symbols[i] for i in place])]
            arrays[f"{name}/{term}"] = table.astype(np.float32)
    arrays["settings"] = np.array(
        json.dumps(
            {
                "terms": {term: grid for term, (_, grid, _) in TERMS.items()},
                "scales": [scale for *_, scale in TERMS.values()],
                "threshold": THRESHOLD,
                "versions": {name: importlib.metadata.version(name) for name in ("dscribe", "ase", "numpy")},
            }
        )
    )
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1])
