"""Energies of crystals from cheap pair potentials, as labels to pretrain on, and learning curves with them.

    python benchmarks/small_crystals.py mp_megnet_2018.jsonl.gz study_data/mp20_12k.jsonl.gz --train 12000
    python benchmarks/teachers.py labels study_data/mp20_12k.jsonl.gz study_data/teachers.jsonl.gz
    python benchmarks/teachers.py labels study_data/mp20_12k.jsonl.gz study_data/teachers_forces.jsonl.gz \
        --forces --limit 3000
    python benchmarks/teachers.py splits study_data/ --sizes 50 200 1000 --seeds 0 1 2
    python benchmarks/run_queue.py benchmarks/queues/teachers.txt --cores 4 --seconds 36000 --runs multirun
    python benchmarks/teachers.py report multirun

`labels` gives each crystal of the file (id, lattice, z, frac, split) two labels in eV/atom, over all periodic
images (Shui et al., NeurIPS 2022, had the idea):

- `lj_energy_per_atom`: Lennard-Jones, 1/2 sum 4 e ((s/r)^12 - (s/r)^6) with e = 1 eV and s² = s_a s_b (the
  geometric rule), s_a such that two atoms of a rest at twice the covalent radius of a;
- `ionic_energy_per_atom`: Coulomb with formal charges, and a Born-Mayer repulsion B exp((R_a + R_b - r) /
  rho), B = 0.2 eV, rho = 0.345 Å, R covalent radii. Formal charges are those pymatgen guesses from the
  composition; compositions that have none have no such label.

Energies beyond --largest eV/atom, where two atoms nearly meet, say nothing of crystals and are left out.
`--forces` adds `energy`, `forces` and `stress` of Lennard-Jones, for force fields. `splits` writes training
parts of the embedded shear moduli, with all of its validation and test parts, and of silicon (mlearn_si).
The queue trains on them from random weights, from either teacher, and from formation energies; it may be
stopped and given again.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import machine_info, save_json

from potnet.data import EmbeddedSource
from potnet.lattice import COULOMB_EV_ANGSTROM, Coulomb, InversePower, London, Pauli, lattice_energies
from potnet.progress import progress_bar

DEPTH = 1.0
STRENGTH, RHO = 0.2, 0.345
FORCE_SIZES = (10, 40)
"""Configurations of silicon that a force field learns from."""

LABELS = ("lj_energy_per_atom", "ionic_energy_per_atom")


def lennard_jones_charges(z: np.ndarray) -> np.ndarray:
    """(n, 2) columns for 1/r^12 and 1/r^6, eV^(1/2) Å^6 and Å^3."""
    sigma = 2 * radii(z) * 2 ** (-1 / 6)
    return (4 * DEPTH) ** 0.5 * np.stack([sigma**6, sigma**3], 1)


def ionic_charges(z: np.ndarray, charges: dict[int, float]) -> np.ndarray:
    """(n, 2) columns for 1/r, e, and exp(-r / rho), eV^(1/2)."""
    return np.stack([np.array([charges[int(one)] for one in z]), STRENGTH**0.5 * np.exp(radii(z) / RHO)], 1)


def radii(z: np.ndarray) -> np.ndarray:
    """(n,) covalent radii, Å."""
    from ase.data import covalent_radii

    return np.asarray(covalent_radii[z])


@functools.cache
def formal_charges(composition: tuple[tuple[int, int], ...]) -> dict[int, float] | None:
    """Charges of elements that add up to zero, by atomic number; None if none are likely, or all are zero.

    Args:
        composition: Atomic numbers with how often.
    """
    from pymatgen.core import Composition, Element

    elements = {Element.from_Z(z).symbol: z for z, _ in composition}
    formula = Composition({Element.from_Z(z).symbol: count for z, count in composition})
    guesses = formula.oxi_state_guesses(max_sites=-1)
    if not guesses or not any(guesses[0].values()):
        return None
    return {elements[name]: float(charge) for name, charge in guesses[0].items()}


def teacher_energies(row: dict[str, Any], forces: bool = False) -> dict[str, Any]:
    """Labels of one crystal.

    Args:
        row: `lattice`, `z` and `frac`.
        forces: Whether energy, forces and stress of Lennard-Jones are wanted, too.

    Returns:
        `LABELS` in eV/atom, None where there is none; with `forces`, `energy`, `forces`, `stress` (6,).
    """
    cell, z = np.array(row["lattice"]), np.array(row["z"])
    positions = torch.from_numpy(np.array(row["frac"]) @ cell)
    geometry = torch.from_numpy(cell)[None], positions, torch.zeros(len(z), dtype=torch.int64)
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64)
    found = lattice_energies(
        *geometry, torch.from_numpy(lennard_jones_charges(z)), [InversePower(6), London()],
        accuracy=1e-4, forces=forces, stress=forces,
    )  # fmt: skip
    total = float((found.crystal[0] * sign).sum())
    labels: dict[str, Any] = {LABELS[0]: total / len(z), LABELS[1]: None}
    if found.forces is not None and found.stress is not None:
        stress = (found.stress[0] * sign[:, None, None]).sum(0)
        labels["energy"] = total
        labels["forces"] = (found.forces * sign[:, None]).sum(1).tolist()
        labels["stress"] = stress.reshape(9)[[0, 4, 8, 5, 2, 1]].tolist()
    numbers, counts = np.unique(z, return_counts=True)
    divisor = int(np.gcd.reduce(counts))
    charges = formal_charges(tuple(zip(numbers.tolist(), (counts // divisor).tolist(), strict=True)))
    if charges is not None:
        columns = torch.from_numpy(ionic_charges(z, charges))
        ionic = lattice_energies(*geometry, columns, [Coulomb(), Pauli(1 / RHO)], accuracy=1e-4).crystal[0]
        labels[LABELS[1]] = float(COULOMB_EV_ANGSTROM * ionic[0] + ionic[1]) / len(z)
    return labels


def write_labels(options: argparse.Namespace) -> None:
    kept, counts = 0, dict.fromkeys(LABELS, 0)
    options.result.parent.mkdir(parents=True, exist_ok=True)
    part = options.result.with_name(f"{options.result.name}.part")
    with gzip.open(options.source, "rt", encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if len(row["z"]) <= options.max_atoms][: options.limit]
    with (
        part.open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=0) as file,
        progress_bar(len(rows), "Teaching") as progress,
    ):
        for row in rows:
            labels = teacher_energies(row, options.forces)
            for key in LABELS:
                if labels[key] is not None and not abs(labels[key]) < options.largest:
                    labels[key] = None
                counts[key] += labels[key] is not None
            if labels[LABELS[0]] is not None:
                columns = {key: row.get(key) for key in ("id", "lattice", "z", "frac", "split")}
                file.write((json.dumps({**columns, **labels}, separators=(",", ":")) + "\n").encode())
                kept += 1
            progress(1)
    part.replace(options.result)
    print(f"{options.result}: {kept} of {len(rows)} crystals, {counts}")


def write_splits(options: argparse.Namespace) -> None:
    """Parts of the embedded training crystals, the smaller within the larger."""
    given = EmbeddedSource().load().split or {}
    parts = {part: [id for id, at in given.items() if at == part] for part in ("train", "val", "test")}
    options.folder.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        order = np.random.default_rng(seed).permutation(len(parts["train"]))
        for size in options.sizes:
            chosen = [parts["train"][i] for i in sorted(order[:size].tolist())]
            path = options.folder / f"embedded_{size}_seed{seed}.json"
            path.write_text(json.dumps({**parts, "train": chosen}))
            print(f"{path}: {len(chosen)} crystals to train")
    # Of silicon, for force fields: a tenth of the training configurations validates.
    given = EmbeddedSource("mlearn_si").load().split or {}
    ids = {part: [id for id, at in given.items() if at == part] for part in ("train", "test")}
    for seed in options.seeds:
        order = [ids["train"][i] for i in np.random.default_rng(seed).permutation(len(ids["train"]))]
        held = len(order) // 10
        for size in FORCE_SIZES:
            path = options.folder / f"mlearn_si_{size}_seed{seed}.json"
            chosen = order[held : held + size]
            path.write_text(json.dumps({"train": chosen, "val": order[:held], "test": ids["test"]}))
            print(f"{path}: {len(chosen)} configurations to train")


def report(options: argparse.Namespace) -> None:
    """Test errors of the finished runs of the queue, mean and range over the seeds."""
    found = defaultdict(list)
    for path in sorted((options.runs / "teachers").glob("*/metrics.json")):
        match = re.fullmatch(r"(.+)_(\d+)_seed(\d+)", path.parent.name)
        if match:
            metrics = json.loads(path.read_text())["test"]
            for key in ("g_vrh", "energy", "forces"):
                if key in metrics:
                    found[key, int(match[2]), match[1]].append(metrics[key])
    rows = []
    print(f"{'error of':10} {'labels':>6} {'begins with':20} {'runs':>4} {'MAE':>10}")
    for (key, size, start), runs in sorted(found.items()):
        errors, unit = [run["mae"] for run in runs], runs[0]["unit"]
        spread = f"{unit}, {min(errors):.4f} to {max(errors):.4f}"
        print(f"{key:10} {size:6} {start:20} {len(errors):4} {np.mean(errors):10.4f} {spread}")
        rows.append({"target": key, "labels": size, "begins with": start, "unit": unit, "test MAE": errors})
    if options.json is not None:
        save_json(options.json, machine_info(), rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    labels = commands.add_parser("labels")
    labels.add_argument("source", type=Path)
    labels.add_argument("result", type=Path)
    labels.add_argument("--max-atoms", type=int, default=20)
    labels.add_argument("--limit", type=int, help="crystals, from the beginning of the file")
    labels.add_argument("--largest", type=float, default=50.0)
    labels.add_argument("--forces", action="store_true")
    labels.set_defaults(run=write_labels)
    splits = commands.add_parser("splits")
    splits.add_argument("folder", type=Path)
    splits.add_argument("--sizes", type=int, nargs="+", default=[50, 200, 1000])
    splits.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    splits.set_defaults(run=write_splits)
    table = commands.add_parser("report")
    table.add_argument("runs", type=Path)
    table.add_argument("--json", type=Path, help="file for the results")
    table.set_defaults(run=report)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.run(options)


if __name__ == "__main__":
    main()
