"""A positive control: crystals whose label is a complete Coulomb sum, for networks that read such sums.

    python benchmarks/coulomb_control.py crystals mp20_12k.jsonl.gz coulomb_crystals.jsonl.gz
    python benchmarks/coulomb_control.py random coulomb_random.jsonl.gz

The label `coulomb_energy` (eV/atom) is the electrostatic energy of point charges, by sums at 1e-8:

    E / n = 14.39964 eV Å / (2 n) * sum over a, b of q_a q_b S(a, b),    S(a, b) = sum over images of 1 / r.

`crystals`: real structures, with the formal charges that pymatgen derives from the composition, one for each
element (a mean where an element has several); those without such charges are left out. The split is kept.
`random`: cells of 8 to 16 sites of the simple, body- and face-centred cubic lattices and diamond, slightly
strained, nearest neighbours 2.6 to 3.4 Å apart, no cell more than twice as long as wide. Half of the sites,
in random order, have a charge of +1, written as Na or K, the others -1, written as Cl or Br: what is near
says little about the whole. One in eight is for validation, one in eight for test.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import save_rows

from potnet.lattice import Coulomb, lattice_sums

#: Energy of two elementary charges, eV Å.
COULOMB = 14.399645
ANIONS = {"H", "N", "O", "F", "P", "S", "Cl", "As", "Se", "Br", "Te", "I"}
LATTICES = {
    "simple cubic": np.eye(3),
    "body-centred": (np.ones((3, 3)) - 2 * np.eye(3)) / np.sqrt(3),
    "face-centred": (np.ones((3, 3)) - np.eye(3)) / np.sqrt(2),
    "diamond": (np.ones((3, 3)) - np.eye(3)) * 2 / np.sqrt(3),
}
"""Rows are primitive vectors; nearest neighbours (of diamond: with its second atom) are 1 apart."""
CHARGES = {11: 1.0, 19: 1.0, 17: -1.0, 35: -1.0}


def energies(rows: list[dict[str, Any]], charges: list[np.ndarray]) -> np.ndarray:
    """eV/atom of each crystal, whose charges add up to zero."""
    found = []
    for start in range(0, len(rows), 256):
        part = range(start, min(start + 256, len(rows)))
        cell = torch.tensor([rows[i]["lattice"] for i in part], dtype=torch.float64)
        positions = torch.cat(
            [torch.tensor(rows[i]["frac"], dtype=torch.float64) @ cell[i - start] for i in part]
        )
        sizes = torch.tensor([len(rows[i]["z"]) for i in part])
        crystal = torch.arange(len(sizes)).repeat_interleave(sizes)
        sums = lattice_sums(cell, positions, crystal, [Coulomb()], accuracy=1e-8)
        q = torch.cat([torch.as_tensor(charges[i]) for i in part])
        a, b = sums.pair_index
        total = torch.zeros(len(sizes), dtype=torch.float64)
        total.index_add_(0, crystal[a], q[a] * q[b] * sums.values[:, 0])
        found.append((COULOMB / 2 * total / sizes).numpy())
    return np.concatenate(found)


def formal_charges(z: list[int], known: dict[str, dict[str, float] | None]) -> np.ndarray | None:
    """Charges of the atoms from the composition; None if pymatgen finds none."""
    from pymatgen.core import Composition, Element

    symbols = [Element.from_Z(number).symbol for number in z]
    composition = Composition(Counter(symbols))
    formula = composition.reduced_formula
    if formula not in known:
        guesses: Any = ()
        if ANIONS & set(symbols) and 2 <= len(composition) <= 4:
            guesses = composition.oxi_state_guesses(max_sites=-1)
        known[formula] = dict(guesses[0]) if guesses else None
    charges = known[formula]
    if charges is None or not any(charges.values()):
        return None
    return np.array([charges[name] for name in symbols])


def real_crystals(source: Path) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    known: dict[str, dict[str, float] | None] = {}
    with gzip.open(source, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            charges = formal_charges(row["z"], known)
            if charges is not None and abs(charges.sum()) < 1e-6:
                yield {key: row[key] for key in ("id", "lattice", "z", "frac", "split")}, charges


def random_crystals(count: int, seed: int) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    from ase.geometry.minkowski_reduction import minkowski_reduce

    rng = np.random.default_rng(seed)
    names = list(LATTICES)
    number = 0
    while number < count:
        name = names[rng.integers(len(names))]
        basis = 2 if name == "diamond" else 1
        # A cell of an even number of sites, 8 to 16, in Hermite normal form.
        cells = int(rng.integers(4, 9)) * (1 if basis == 2 else 2)
        i = int(rng.choice([d for d in range(1, cells + 1) if cells % d == 0]))
        j = int(rng.choice([d for d in range(1, cells // i + 1) if cells // i % d == 0]))
        k = cells // i // j
        hermite = np.array([[i, 0, 0], [rng.integers(i), j, 0], [rng.integers(i), rng.integers(j), k]])
        primitive = LATTICES[name] * rng.uniform(2.6, 3.4)
        # Rows of the normal form generate a sublattice: these points are one of each of its cosets.
        points = np.array([[x, y, w] for x in range(i) for y in range(j) for w in range(k)])
        inside = points @ np.linalg.inv(hermite) % 1.0
        strain = np.eye(3) + rng.uniform(-0.03, 0.03, (3, 3))
        lattice = hermite @ primitive @ strain
        lengths = np.linalg.norm(minkowski_reduce(lattice)[0], axis=1)
        if lengths.max() > 2 * lengths.min():
            continue
        frac = inside
        if basis == 2:
            second = np.full(3, 0.25) @ np.linalg.inv(hermite)
            frac = np.concatenate([inside, (inside + second) % 1.0])
        sites = len(frac)
        half = sites // 2
        z = rng.permutation(np.concatenate([rng.choice([11, 19], half), rng.choice([17, 35], sites - half)]))
        part = ("val", "test")[number % 2] if number % 8 in (6, 7) else "train"
        row = {
            "id": f"random-{number}",
            "lattice": np.round(lattice, 6).tolist(),
            "z": z.tolist(),
            "frac": np.round(frac, 9).tolist(),
            "split": part,
        }
        number += 1
        yield row, np.array([CHARGES[int(element)] for element in z])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    real = kinds.add_parser("crystals")
    real.add_argument("source", type=Path, help="JSON lines, gzip: id, lattice, z, frac, split")
    real.add_argument("result", type=Path)
    made = kinds.add_parser("random")
    made.add_argument("result", type=Path)
    made.add_argument("--count", type=int, default=4000)
    made.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = list(
        real_crystals(options.source)
        if options.kind == "crystals"
        else random_crystals(options.count, options.seed)
    )
    rows = [row for row, _ in found]
    values = energies(rows, [charges for _, charges in found])
    for row, value in zip(rows, values, strict=True):
        row["coulomb_energy"] = round(float(value), 6)
    save_rows(options.result, rows)
    parts = dict(Counter(row["split"] for row in rows))
    print(
        f"{options.result}: {len(rows)} crystals, {parts}, {values.mean():.3f} ± {values.std():.3f} eV/atom"
    )


if __name__ == "__main__":
    main()
