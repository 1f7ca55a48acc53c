"""How often sums with estimated cutoffs (`bound="estimate"`) are within the accuracy asked for.

    python benchmarks/estimate_mode.py --structures mp_megnet.jsonl.gz \\
        --json benchmarks/results/estimate_mode.json

The factor in the estimate was set on the embedded crystals. These are others: random ones, in cells of any
shape, and every 200th structure of a file with one crystal a line (keys `lattice` and `frac`). Each potential
is summed alone, since in one call the most demanding of several potentials serves the others, and is compared
with sums at an accuracy of 1e-12.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import machine_info, print_header, print_table, save_json
from torch import Tensor

from potnet.lattice import Coulomb, LennardJones, London, Morse, Pauli, ScreenedCoulomb, lattice_sums

POTENTIALS = (Coulomb(), London(), Pauli(3.0), ScreenedCoulomb(0.7), LennardJones(2.5), Morse(1.5, 2.0))
ACCURACIES = (1e-2, 1e-4, 1e-6, 1e-8)
MOST_ATOMS = 100
CLOSEST = 1.0  # Å, for random crystals

# Cell (3, 3) and positions (n, 3), Å.
Sites = tuple[np.ndarray, np.ndarray]


def random_sites(count: int, seed: int) -> list[Sites]:
    """Crystals of 1 to 12 atoms with skewed, flat and long cells, 8 to 30 Å³ an atom."""
    generator = np.random.default_rng(seed)
    found: list[Sites] = []
    while len(found) < count:
        n = int(generator.integers(1, 13))
        cell = generator.normal(size=(3, 3)) * np.exp(0.5 * generator.normal(size=(3, 1)))
        volume = abs(np.linalg.det(cell))
        if volume < 0.05 * np.linalg.norm(cell, axis=1).prod():
            continue
        cell *= (n * generator.uniform(8, 30) / volume) ** (1 / 3)
        for _ in range(50):
            positions = generator.random((n, 3)) @ cell
            if _closest(cell, positions) > CLOSEST:
                found.append((cell, positions))
                break
    return found


def _closest(cell: np.ndarray, positions: np.ndarray) -> float:
    """Shortest distance between atoms and images up to two cells away, Å."""
    steps = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3) @ cell
    distance = np.linalg.norm((positions[:, None] - positions)[:, :, None] + steps, axis=-1)
    return float(distance[distance > 1e-9].min())


def read_sites(path: Path, every: int) -> list[Sites]:
    """Every 200th, say, of the structures of a file."""
    with gzip.open(path, "rt") as file:
        lines = [json.loads(line) for number, line in enumerate(file) if number % every == 0]
    crystals = [(np.array(line["lattice"]), np.array(line["frac"])) for line in lines]
    return [(cell, fractional @ cell) for cell, fractional in crystals if len(fractional) <= MOST_ATOMS]


def check(name: str, crystals: list[Sites]) -> list[dict[str, Any]]:
    """One row for each accuracy."""
    cell = torch.tensor(np.stack([cell for cell, _ in crystals]))
    positions = torch.tensor(np.concatenate([positions for _, positions in crystals]))
    sizes = torch.tensor([len(positions) for _, positions in crystals])
    inputs = (cell, positions, torch.arange(len(crystals)).repeat_interleave(sizes))
    references = [lattice_sums(*inputs, [potential], 1e-12) for potential in POTENTIALS]
    rows = []
    for accuracy in ACCURACIES:
        errors: list[Tensor] = []
        for potential, exact in zip(POTENTIALS, references, strict=True):
            # Rounding of both, where it shows, is no error of the estimate.
            rounding = exact.bound.index_select(0, inputs[2].index_select(0, exact.pair_index[0]))
            got = lattice_sums(*inputs, [potential], accuracy, bound="estimate")
            errors.append(((got.values - exact.values).abs() - 2 * rounding).clamp(min=0.0)[:, 0])
        outside = torch.stack([error > accuracy for error in errors], 1).double()
        rows.append(
            {
                "crystals": f"{name}: {len(crystals)}",
                "accuracy": accuracy,
                "sums": outside.numel(),
                "outside": int(outside.sum()),
                "outside, of a million": 1e6 * float(outside.mean()),
                "of one potential, at most": 1e6 * float(outside.mean(0).max()),
                "largest error / accuracy": max(float(error.max()) for error in errors) / accuracy,
            }
        )
    return rows


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--structures", type=Path, help="gzipped JSON lines with lattice and frac")
    parser.add_argument("--every", type=int, default=200)
    parser.add_argument("--random", type=int, default=400, help="number of random crystals")
    parser.add_argument("--seed", type=int, default=20261126)
    parser.add_argument("--json", help="file for the results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    info = machine_info("cpu")
    print_header("Sums with estimated cutoffs against sums at 1e-12, six potentials, each alone", info)
    rows = check(f"random, seed {args.seed}", random_sites(args.random, args.seed))
    if args.structures:
        name = f"{args.structures.name}, every {args.every}th, at most {MOST_ATOMS} atoms"
        rows += check(name, read_sites(args.structures, args.every))
    print_table(rows)
    if args.json:
        save_json(args.json, info, rows)


if __name__ == "__main__":
    main()
