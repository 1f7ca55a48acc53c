"""Lattice parameter, elastic constants and vacancy of six elements: force fields against the DFT of the data.

    python benchmarks/properties.py RUN [RUN ...] --data forces_mlearn.jsonl.gz

RUN is the folder of a run of one element, or an exported checkpoint. The force field's values are those of
`potnet.forcefield.elastic.element_properties`: relaxed cell, central differences of the stress, and a vacancy
in 2x2x2 cubic cells (diamond: 63 atoms of 64) or 3x3x3 (fcc: 107 of 108, bcc: 53 of 54).

Those of DFT come from strained crystals of the training part (group `Elastic`; of Cu and Ni, whose groups are
not known, crystals at rest):

- C11 and C12 from uniaxial strains, C44 from shears in the xy plane, of at most 5 %: the slope at zero strain
  of a cubic polynomial (of a line where there are fewer than four strains) through the stress.
- In diamond a shear moves the two sublattices against each other, and the atoms of the data have not
  followed: so C44 of Si and Ge is that of clamped atoms, and the force field's is printed both ways.
- a from the stress that the unstrained cell has left: a (1 - s / (C11 + 2 C12)).
- What the stress does not follow (a line explains less than 90 % of it) is not derived, and said.
- A vacancy's energy by DFT: the data have frames of its dynamics, and none at rest, so a force field relaxes
  it, and its value is corrected by its mean error on cold frames with a vacancy, relative to that on cold
  frames of the perfect crystal (column `vacancy, DFT by frames`, with the standard error over frames).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import machine_info, print_header, print_table, save_json
from _mlearn import ELEMENTS, GPA, Configuration, aimd, elements_of, read_configurations
from ase.build import bulk

from potnet.forcefield import Calculator, ForceFieldError
from potnet.forcefield.elastic import cubic_constants, elastic_constants, element_properties

COLD, FRAMES = 0.06, 20
"""eV/atom, and so many frames at most, for the energy of a vacancy by DFT."""

LARGEST = 0.05
"""Strains up to here count."""


def slope(strain: np.ndarray, stress: np.ndarray) -> float | None:
    """GPa: the derivative of the stress at zero strain; None where the stress doesn't follow the strain."""
    if len(np.unique(strain.round(4))) < 2:
        return None
    line = np.polyfit(strain, stress, 1)
    left = stress - np.polyval(line, strain)
    if left.var() > 0.1 * stress.var():
        return None
    degree = 3 if len(np.unique(strain.round(4))) > 3 else 1
    return float(np.polyfit(strain, stress, degree)[-2] * GPA)


def dft(configurations: list[Configuration]) -> dict[str, float | None]:
    """a (Å, of the cubic cell in which the data are), C11, C12, C44 (GPa)."""
    strained = [
        one
        for one in configurations
        if one.split == "train"
        and one.stress is not None
        and (one.group == "Elastic" or (one.group is None and is_crystal(one)))
    ]
    lengths = np.concatenate([one.atoms.cell.lengths() for one in strained])
    values, counts = np.unique(lengths.round(3), return_counts=True)
    # Two of three vectors of every strained cell have the length of the unstrained one.
    a = float(values[counts.argmax()])
    axial: list[tuple[float, float, float]] = []
    sheared: list[tuple[float, float]] = []
    rest: list[float] = []
    for one in strained:
        assert one.stress is not None
        deformation = one.atoms.cell[:] / a - np.eye(3)
        strain = (deformation + deformation.T) / 2
        across = strain[[1, 0, 0], [2, 2, 1]]
        diagonal = strain.diagonal()
        if np.abs(strain).max() < 1e-3:
            rest += one.stress[:3].tolist()
        elif np.abs(across).max() < 1e-4 and (np.abs(diagonal) > 1e-3).sum() == 1:
            axis = int(np.abs(diagonal).argmax())
            others = [k for k in range(3) if k != axis]
            axial += [(diagonal[axis], one.stress[axis], one.stress[k]) for k in others]
        elif np.abs(across[:2]).max() < 1e-4 and np.abs(across[2]) > 1e-3:
            sheared.append((2 * across[2], one.stress[5]))
    found: dict[str, float | None] = {"a": None, "C11": None, "C12": None, "C44": None}
    along = np.array([row for row in axial if abs(row[0]) <= LARGEST])
    if len(along):
        found["C11"], found["C12"] = slope(along[:, 0], along[:, 1]), slope(along[:, 0], along[:, 2])
        if found["C11"] and found["C12"]:
            left = np.mean(rest) if rest else np.polyfit(along[:, 0], along[:, 1], 2)[-1]
            found["a"] = a * (1 - left * GPA / (found["C11"] + 2 * found["C12"]))
    shear = np.array([row for row in sheared if abs(row[0]) <= LARGEST])
    if len(shear):
        found["C44"] = slope(shear[:, 0], shear[:, 1])
    return found


def vacancy_shift(configurations: list[Configuration], calculator: Calculator) -> tuple[float, float] | None:
    """eV: what a force field's vacancy energy lacks of that of the labels, and its standard error.

    n (mean error with a vacancy - mean error without), errors of the energy of an atom, n atoms beside the
    vacancy. Frames are cold where 3/2 k T is below `COLD` above the lowest of their kind.

    Returns:
        None where there are fewer than three cold frames of a kind.
    """
    most = len(aimd(configurations)[0].atoms)
    moving = [one for one in configurations if one.force > 0.05]
    empty = [one for one in moving if len(one.atoms) == most - 1]
    whole = [one for one in moving if len(one.atoms) == most]
    if not empty:
        return None
    # Of several cells, as lithium has them, the nearest.
    away = [float(np.abs(one.atoms.cell[:] - empty[0].atoms.cell[:]).max()) for one in whole]
    whole = [one for one, far in zip(whole, away, strict=True) if far < min(away) + 0.05]
    means, variance = [], 0.0
    for kind in (empty, whole):
        lowest = min((one.energy for one in kind), default=0.0)
        cold = [one for one in kind if one.energy - lowest < COLD]
        if len(cold) < 3:
            return None
        errors = []
        for one in cold[:FRAMES]:
            atoms = one.atoms.copy()
            atoms.calc = calculator
            errors.append(one.energy - atoms.get_potential_energy() / len(atoms))
        means.append(np.mean(errors))
        variance += np.var(errors, ddof=1) / len(errors)
    return float((most - 1) * (means[0] - means[1])), float((most - 1) * variance**0.5)


def is_crystal(one: Configuration) -> bool:
    """Whether it is a crystal at rest in a strained cubic cell: no surface, no vacancy, no dynamics."""
    lengths = one.atoms.cell.lengths()
    return one.force < 0.02 and lengths.max() < 1.15 * lengths.min()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--data", type=Path, required=True, help="forces_mlearn.jsonl.gz")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/properties_cpu.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    info = machine_info()
    print_header("Properties of elements", info)
    rows: list[dict[str, Any]] = []
    for symbol in ELEMENTS:
        found = dft(read_configurations(options.data, symbol))
        times = 3 if ELEMENTS[symbol].structure != "diamond" else 2
        cells = {"Li": 1}.get(symbol, times)
        found["a"] = found["a"] and found["a"] / cells
        if ELEMENTS[symbol].structure == "diamond":
            found["C44 clamped"], found["C44"] = found["C44"], None
        rows.append({"element": symbol, "from": "DFT of the data", **found, "vacancy": None})
    for run in options.runs:
        known = elements_of(run)
        if len(known) != 1 or known[0] not in ELEMENTS:
            raise SystemExit(
                f"{run} knows {', '.join(known)}: give runs of one element of {', '.join(ELEMENTS)}"
            )
        element, begun = ELEMENTS[known[0]], time.perf_counter()
        row: dict[str, Any] = {"element": known[0], "from": Path(run).stem}
        try:
            repeat = 2 if element.structure == "diamond" else 3
            calculator = Calculator(run, "cpu", dtype="float64")
            row |= element_properties(known[0], element.structure, element.a, calculator, repeat)
            shift = vacancy_shift(read_configurations(options.data, known[0]), calculator)
            if shift is not None:
                row["vacancy, DFT by frames"] = row["vacancy"] + shift[0]
                row["standard error"] = shift[1]
            if element.structure == "diamond":
                atoms = bulk(known[0], element.structure, a=row["a"], cubic=True)
                atoms.calc = calculator
                row["C44 clamped"] = cubic_constants(elastic_constants(atoms, relax_atoms=False))[2]
        except ForceFieldError as error:
            print(f"{run}: {error}", flush=True)
        rows.append(row | {"seconds": time.perf_counter() - begun})
    rows.sort(key=lambda row: list(ELEMENTS).index(row["element"]))
    vacancy = ("vacancy", "vacancy, DFT by frames", "standard error")
    columns = ("element", "from", "a", "C11", "C12", "C44", "C44 clamped", *vacancy, "seconds")
    print_table([{key: row.get(key) for key in columns} for row in rows])
    save_json(options.output, info, rows)


if __name__ == "__main__":
    main()
