"""What only complete energies can learn: random charges in a box, and two charged slabs out of reach.

    python benchmarks/random_charges.py --case box --train 200 --epochs 30 --layers 1 3
    python benchmarks/random_charges.py --case slabs --train 100 --epochs 60 --layers 1
    python benchmarks/random_charges.py --case slabs --train 100 --epochs 120 --layers 3

Labels are the Coulomb energy of charges of +1 (Na) and -1 (Cl) with a short repulsion, and its forces.
Networks with and without complete energies of charges, of equal width and cutoff, are trained with the same
settings on the same crystals. Prints test errors and how well the charges are found.

`box`: 128 atoms at random with a soft core in a cubic box (the published test of latent charges). `slabs`: a
layer of positive and one of negative ions, 14 to 22 Å apart: what pulls them together is out of reach.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path

import numpy as np
import torch

from potnet.lattice import COULOMB_EV_ANGSTROM, Coulomb, Pauli, lattice_energies

ALPHA, REPULSION = 3.0, 200.0
"""1/Å and eV, of the repulsion REPULSION exp(-ALPHA r) of all pairs."""


def apart(positions: np.ndarray, point: np.ndarray, side: np.ndarray, least: float) -> bool:
    """Whether a point keeps its distance from the others and their images in a right-angled cell."""
    difference = positions - point
    difference -= side * np.round(difference / side)
    return bool((np.square(difference).sum(1) > least**2).all())


def scattered(
    rng: np.random.Generator, count: int, low: np.ndarray, high: np.ndarray, side: np.ndarray, least: float
) -> np.ndarray:
    """(count, 3) random points between two corners, none nearer to another than `least`."""
    found = np.zeros((0, 3))
    while len(found) < count:
        point = rng.uniform(low, high)
        if apart(found, point, side, least):
            found = np.vstack([found, point])
    return found


def crystal(case: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cell, positions and charges."""
    if case == "box":
        side = np.full(3, 20.0)
        positions = scattered(rng, 128, np.zeros(3), side, side, 2.0)
        charges = rng.permutation(np.repeat([1.0, -1.0], 64))
        return np.diag(side), positions, charges
    side = np.array([12.0, 12.0, 60.0])
    gap = rng.uniform(14, 22)
    thin, lift = np.array([0, 0, 1.5]), np.array([0, 0, gap])
    low, high = np.array([0, 0, 10.0]), np.array([12, 12, 10.0])
    lower = scattered(rng, 8, low, high + thin, side, 2.5)
    upper = scattered(rng, 8, low + lift, high + thin + lift, side, 2.5)
    return np.diag(side), np.vstack([lower, upper]), np.repeat([1.0, -1.0], 8)


def rows(case: str, count: int, seed: int) -> list[dict[str, object]]:
    """Labelled crystals, a fifth of them for the test and a tenth for validation."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        cell, positions, charges = crystal(case, rng)
        columns = torch.from_numpy(np.stack([charges, np.ones_like(charges)], 1))
        one = torch.zeros(len(charges), dtype=torch.int64)
        geometry = torch.from_numpy(cell)[None], torch.from_numpy(positions), one
        result = lattice_energies(*geometry, columns, [Coulomb(), Pauli(ALPHA)], accuracy=1e-9, forces=True)
        factors = torch.tensor([COULOMB_EV_ANGSTROM, REPULSION], dtype=torch.float64)
        assert result.forces is not None
        found.append(
            {
                "id": f"{case}-{number}",
                "lattice": cell.tolist(),
                "z": np.where(charges > 0, 11, 17).tolist(),
                "frac": (positions @ np.linalg.inv(cell)).tolist(),
                "energy": float((result.crystal[0] * factors).sum()),
                "forces": (result.forces * factors[:, None]).sum(1).tolist(),
                "split": "test" if number % 5 == 0 else "val" if number % 10 == 1 else "train",
            }
        )
    return found


def charge_error(folder: Path, table: list[dict[str, object]]) -> float:
    """Root mean square error of the charges of test crystals, e; their common sign cannot be known."""
    from ase import Atoms

    from potnet.forcefield import Calculator

    calculator = Calculator(folder, isolated="allow")
    errors = []
    for row in table:
        if row["split"] != "test":
            continue
        atoms = Atoms(row["z"], cell=row["lattice"], scaled_positions=row["frac"], pbc=True)
        atoms.calc = calculator
        charges, true = atoms.get_charges(), np.where(np.array(row["z"]) == 11, 1.0, -1.0)
        errors.append(charges * np.sign(charges @ true) - true)
    return float(np.sqrt(np.mean(np.square(np.concatenate(errors)))))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=("box", "slabs"), default="box")
    parser.add_argument("--train", type=int, default=200, help="crystals in all: 7 of 10 train")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--cutoff", type=float, default=4.0)
    parser.add_argument("--runs", type=Path, help="a folder for data and runs; by default a temporary one")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    import potnet

    with tempfile.TemporaryDirectory() as temporary:
        runs = options.runs or Path(temporary)
        runs.mkdir(parents=True, exist_ok=True)
        table = rows(options.case, options.train, 0)
        path = runs / f"{options.case}.jsonl"
        path.write_text("\n".join(json.dumps(row) for row in table))
        lines = [
            f"{'case':6} {'layers':>6} {'complete':>9} {'meV/atom':>9} {'meV/Å':>8} "
            f"{'charges, e':>10} {'parameters':>10}"
        ]
        for layers in options.layers:
            for complete in ("", "coulomb"):
                folder = runs / f"{options.case}_{layers}_{complete or 'none'}"
                run = potnet.train(
                    "experiment=mlearn",
                    "name=random_charges", "data=table", f"data.source.path={path}", "split=given",
                    "data.source.plausibility=ignore", "~target.stress", "model=potnet_ff",
                    f"model.long_range=[{complete}]", f"model.layers={layers}",
                    f"model.width={options.width}",
                    f"features.neighbors.cutoff={options.cutoff}", f"trainer.max_epochs={options.epochs}",
                    "data.batch_size=2", "optimizer.learning_rate=5e-3",
                    f"data.cache_dir={runs / 'cache'}", "trainer.accelerator=cpu",
                    folder=folder,
                )  # fmt: skip
                test = run.metrics["test"]
                found = f"{charge_error(folder, table):10.4f}" if complete else f"{'-':>10}"
                lines.append(
                    f"{options.case:6} {layers:6} {complete or 'none':>9} {test['energy']['mae']:9.3f} "
                    f"{test['forces']['mae']:8.2f} {found} {run.metrics['parameters']:10}"
                )
                print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
