"""The pictures of docs/lattice.md.

    python benchmarks/lattice_pictures.py

Writes docs/images/lattice_convergence.png and docs/images/lattice_forces.png; a minute on one core.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from lattice_sums import random_crystals, tensors
from matplotlib.figure import Figure

from potnet.lattice import Coulomb, LennardJones, lattice_energies

IMAGES = Path(__file__).parents[1] / "docs" / "images"
MADELUNG = 1.7475645946331822


def spheres(radii: np.ndarray) -> np.ndarray:
    """NaCl's sum of charges over distances within spheres, nearest neighbours 1 apart: what does not
    converge."""
    reach = int(radii.max()) + 1
    axis = np.arange(-reach, reach + 1)
    i, j, k = np.meshgrid(axis, axis, axis, indexing="ij")
    distance = np.sqrt(i**2 + j**2 + k**2).ravel()
    sign = np.where((i + j + k).ravel() % 2 == 0, -1.0, 1.0)
    distance, sign = distance[distance > 0], sign[distance > 0]
    return np.array([(sign / distance)[distance <= radius].sum() for radius in radii])


def sodium_chloride(accuracy: float) -> float:
    cell = torch.tensor([[[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]], dtype=torch.float64)
    sites = torch.tensor([[0.0, 0, 0], [1, 1, 1]], dtype=torch.float64)
    charges = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    return -float(
        lattice_energies(cell, sites, torch.zeros(2).long(), charges, [Coulomb()], accuracy).crystal
    )


def convergence() -> None:
    figure = Figure(figsize=(9.5, 3.6), layout="constrained", dpi=110)
    left, right = figure.subplots(1, 2)
    radii = np.linspace(1.0, 20.0, 400)
    left.plot(radii, spheres(radii), lw=0.7, color="tab:gray", label="charges within a sphere")
    left.axhline(MADELUNG, color="tab:blue", label=f"lattice_energies: {sodium_chloride(1e-10):.10f}")
    left.set(xlabel="radius / nearest-neighbour distance", ylabel="Madelung constant of NaCl", ylim=(-6, 9))
    left.legend(frameon=False, loc="lower left", fontsize=8)

    cell, positions, batch = tensors(random_crystals(1, 60), "cpu")
    charges = (1.0 - 2.0 * (torch.arange(60) % 2)).double()[:, None]
    inputs = (cell, positions, batch, charges, [Coulomb()])
    exact = lattice_energies(*inputs, 1e-12, forces=True)
    asked = 10.0 ** np.arange(-10, -0.9)
    roads = (
        ("Ewald", "o", {"method": "ewald"}),
        ("Ewald, estimate", "^", {"method": "ewald", "bound": "estimate"}),
        ("mesh", "s", {"method": "mesh"}),
    )
    for name, marker, options in roads:
        some = asked[asked > 1e-9] if options["method"] == "mesh" else asked
        errors, bounds = [], []
        for accuracy in some:
            got = lattice_energies(*inputs, float(accuracy), forces=True, **options)
            errors.append(float((got.forces - exact.forces).abs().max()))
            bounds.append(float(got.bound.force))
        (line,) = right.loglog(some, errors, marker, ms=4, ls="-", label=f"{name}: largest error of a force")
        right.loglog(some, bounds, ls="--", color=line.get_color(), label=f"{name}: its bound")
    right.loglog(asked, asked, color="black", lw=0.6)
    right.set(xlabel="accuracy asked for", ylabel="e²/Å²", title="60 charges ±1", ylim=(1e-15, 1))
    right.legend(frameon=False, fontsize=8)
    figure.savefig(IMAGES / "lattice_convergence.png")


def forces() -> None:
    """Lennard-Jones forces of a shaken argon crystal beside ASE's, which are cut."""
    from ase.build import bulk
    from ase.calculators.lj import LennardJones as AseLennardJones

    epsilon, sigma = 0.0104, 3.40  # eV, Å
    atoms = bulk("Ar", "fcc", a=5.26, cubic=True) * (2, 2, 2)
    atoms.rattle(0.15, seed=0)
    charges = torch.full((len(atoms), 1), (4 * epsilon) ** 0.5, dtype=torch.float64)
    ours = lattice_energies(
        torch.tensor(atoms.cell[:])[None],
        torch.tensor(atoms.positions),
        torch.zeros(len(atoms)).long(),
        charges,
        [LennardJones(sigma)],
        accuracy=1e-8,
        forces=True,
    ).forces[:, 0]
    figure = Figure(figsize=(9.5, 3.6), layout="constrained", dpi=110)
    left, right = figure.subplots(1, 2)
    cutoffs = (8.0, 10.0, 12.0, 16.0, 20.0, 26.0)
    errors = []
    for cutoff in cutoffs:
        atoms.calc = AseLennardJones(sigma=sigma, epsilon=epsilon, rc=cutoff, smooth=False)
        theirs = atoms.get_forces()
        errors.append(np.abs(theirs - ours.numpy()).max())
    left.plot(theirs.ravel(), ours.numpy().ravel(), ".", ms=3)
    limits = [ours.min(), ours.max()]
    left.plot(limits, limits, color="black", lw=0.6)
    left.set(
        xlabel="ASE, cut at 26 Å, eV/Å", ylabel="lattice_energies, eV/Å", title="forces of 32 argon atoms"
    )
    right.semilogy(cutoffs, errors, "o-")
    right.set(xlabel="ASE's cutoff, Å", ylabel="largest difference, eV/Å", title="what a cutoff leaves out")
    figure.savefig(IMAGES / "lattice_forces.png")


def main() -> None:
    torch.set_num_threads(1)
    convergence()
    forces()


if __name__ == "__main__":
    main()
