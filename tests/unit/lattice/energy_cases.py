"""Random charged crystals for the tests of energies."""

import torch

from potnet.lattice import (
    Coulomb,
    InversePower,
    LennardJones,
    London,
    Morse,
    Pauli,
    ScreenedCoulomb,
)

#: One of each kernel and convention.
POTENTIALS = [
    Coulomb(),
    London(),
    Pauli(alpha=2.0),
    ScreenedCoulomb(alpha=0.7),
    InversePower(p=1.0),
    InversePower(p=4.5),
    LennardJones(sigma=2.0),
    Morse(alpha=1.0, r_e=2.0),
    Pauli(alpha=3.0, convention="published"),
]


def crystals(sizes, num_columns=1, seed=0, neutral=False):
    """Sheared boxes at the density of real crystals: cell, positions, batch, charges (N, P)."""
    generator = torch.Generator().manual_seed(seed)
    cells, positions = [], []
    for n in sizes:
        side = int(n ** (1 / 3) - 1e-9) + 1
        edge = (18.5 * n) ** (1 / 3)
        shear = 2 * torch.rand(3, 3, generator=generator, dtype=torch.float64) - 1
        cell = edge * (torch.eye(3, dtype=torch.float64) + 0.15 * shear)
        grid = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 3)
        chosen = torch.randperm(len(grid), generator=generator)[:n]
        jitter = 0.4 * torch.rand(n, 3, generator=generator, dtype=torch.float64)
        positions.append((grid[chosen] + jitter) / side @ cell)
        cells.append(cell)
    batch = torch.repeat_interleave(torch.tensor(sizes))
    charges = torch.randn(len(batch), num_columns, generator=generator, dtype=torch.float64)
    if neutral:
        mean = torch.stack([charges[batch == b].mean(0) for b in range(len(sizes))])
        charges = charges - mean[batch]
    return torch.stack(cells), torch.cat(positions), batch, charges


def from_pairs(sums, charges, batch, num_crystals):
    """Energies of crystals (B, P) and atoms (N, P) from `lattice_sums`."""
    first, second = sums.pair_index
    parts = 0.5 * charges[first] * charges[second] * sums.values
    atom = torch.zeros_like(charges).index_add(0, first, parts)
    return atom.new_zeros(num_crystals, charges.shape[1]).index_add(0, batch, atom), atom
